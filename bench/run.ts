/**
 * `npm run bench -- NAME [--quick] [--json [FILE.json]]`, and what `readmesh bench NAME` calls. Without a name:
 * the list. `all` runs one after the other, each in a process of its own; `report FILE.json` writes the page
 * docs/benchmarks.md and its plots from what one run of `all` has left there.
 * Exits 0 when every bar held, 1 when one was missed. `--smoke` only sees whether a bench works at all.
 */
import { realpathSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { exitOnSignals } from '../bin/demo/cluster.js';
import { isReadmeshError, ReadmeshError } from '../src/errors.js';
import { nearest } from '../src/schema.js';
import { ALL, runAll } from './all.js';
import { applyCost } from './apply-cost.js';
import { bulkReads } from './bulk-reads.js';
import { busyReads } from './busy-reads.js';
import { catchUp } from './catch-up.js';
import { clientReads } from './client-reads.js';
import { digestBench } from './digest.js';
import { footprint } from './footprint.js';
import { growth } from './growth.js';
import { type Bench, runInContext } from './harness.js';
import { idleBench } from './idle.js';
import { importBench } from './import.js';
import { localPuts } from './local-puts.js';
import { localReads } from './local-reads.js';
import { PAGE, writePage } from './page.js';
import { propagation } from './propagation.js';
import { rebuildBench } from './rebuild.js';
import { reclaimBench } from './reclaim.js';
import { replicatedPuts } from './replicated-puts.js';
import { missedBars, toJson, toReport, toText } from './report.js';
import { runScale, SCALE } from './scale/scale.js';
import { watchLatency } from './watch-latency.js';

const BENCHES: readonly Bench[] = [
  localReads,
  bulkReads,
  clientReads,
  localPuts,
  replicatedPuts,
  importBench,
  watchLatency,
  propagation,
  rebuildBench,
  busyReads,
  reclaimBench,
  catchUp,
  idleBench,
  footprint,
  growth,
  applyCost,
  digestBench,
];

export interface BenchOptions {
  /** Fewer rounds, smaller tables. */
  readonly quick: boolean;
  /** Standard output shows JSON, not a table. */
  readonly json: boolean;
  /** JSON goes here, too. */
  readonly file?: string;
  /** Tiny: figures mean nothing and no bar is judged. */
  readonly smoke?: boolean;
}

/** Resolves to the exit code. Throws INVALID_OPTION for a name that is none. */
export async function runBench(name: string | undefined, options: BenchOptions): Promise<number> {
  if (name === undefined) {
    for (const bench of [...BENCHES, SCALE, ALL, PAGE])
      process.stdout.write(`${bench.name.padEnd(14)}${bench.summary}\n`);
    return 0;
  }
  if (name === SCALE.name) return scale(options);
  if (name === ALL.name)
    return runAll(
      BENCHES.map((bench) => bench.name),
      { script: fileURLToPath(import.meta.url), ...options },
    );
  const bench = BENCHES.find((candidate) => candidate.name === name);
  if (bench === undefined) throw unknownBench(name);
  const stopHandling = exitOnSignals();
  try {
    const scale = options.smoke === true ? 'smoke' : options.quick ? 'quick' : 'full';
    const { context, result } = await runInContext(bench, scale);
    const report = toReport(bench, context, result);
    if (options.file !== undefined) writeFileSync(options.file, `${toJson(report)}\n`);
    process.stdout.write(`${(options.json ? toJson : toText)(report)}\n`);
    return missedBars(result).length === 0 ? 0 : 1;
  } finally {
    stopHandling();
  }
}

/** Simulated: no rounds, no machine, no baseline. */
function scale({ quick, json, smoke }: BenchOptions): number {
  const size = smoke === true ? 'smoke' : quick ? 'quick' : 'full';
  const note = size === 'smoke' ? undefined : (text: string) => void process.stderr.write(`${text}\n`);
  return runScale({ size, json, ...(note === undefined ? {} : { note }) });
}

function unknownBench(name: string): ReadmeshError {
  const names = [...BENCHES, SCALE, ALL].map((bench) => bench.name);
  const near = nearest(name, names);
  const hint = near === undefined ? `there are ${names.join(', ')}` : `did you mean ${near}?`;
  return new ReadmeshError('INVALID_OPTION', `there is no bench "${name}": ${hint}`);
}

const FLAGS = ['--quick', '--json', '--smoke'];

async function main(args: readonly string[]): Promise<number> {
  try {
    const unknown = args.find((arg) => arg.startsWith('-') && !FLAGS.includes(arg));
    if (unknown !== undefined)
      throw new ReadmeshError('INVALID_OPTION', `${unknown} is not known: use ${FLAGS.join(', ')}`);
    const files = args.filter((arg) => arg.endsWith('.json'));
    const names = args.filter((arg) => !arg.startsWith('-') && !files.includes(arg));
    if (names.length > 1) throw new ReadmeshError('INVALID_OPTION', 'one bench at a time: give one name');
    if (names[0] === PAGE.name) return writePage(files);
    const [quick, json, smoke] = FLAGS.map((flag) => args.includes(flag));
    const [file] = files;
    return await runBench(names[0], {
      quick: quick!,
      json: json! && file === undefined,
      smoke: smoke!,
      ...(file === undefined ? {} : { file }),
    });
  } catch (error) {
    if (!isReadmeshError(error)) throw error;
    process.stderr.write(`bench: ${error.code}: ${error.message}\n`);
    return error.info.exit;
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url))
  process.exitCode = await main(process.argv.slice(2));
