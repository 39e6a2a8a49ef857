/**
 * `npm run bench -- NAME [--quick] [--json]`, and what `readmesh bench NAME` calls. Without a name: the list.
 * Exits 0 when every bar held, 1 when one was missed. `--smoke` only sees whether a bench works at all.
 */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { exitOnSignals } from '../bin/demo/cluster.js';
import { isReadmeshError, ReadmeshError } from '../src/errors.js';
import { nearest } from '../src/schema.js';
import { digestBench } from './digest.js';
import { type Bench, runInContext } from './harness.js';
import { importBench } from './import.js';
import { localPuts } from './local-puts.js';
import { localReads } from './local-reads.js';
import { propagation } from './propagation.js';
import { missedBars, toJson, toText } from './report.js';
import { runScale, SCALE } from './scale/scale.js';

const BENCHES: readonly Bench[] = [localReads, localPuts, importBench, propagation, digestBench];

export interface BenchOptions {
  /** Fewer rounds, smaller tables. */
  readonly quick: boolean;
  readonly json: boolean;
  /** Tiny: figures mean nothing and no bar is judged. */
  readonly smoke?: boolean;
}

/** Resolves to the exit code. Throws INVALID_OPTION for a name that is none. */
export async function runBench(name: string | undefined, options: BenchOptions): Promise<number> {
  if (name === undefined) {
    for (const bench of [...BENCHES, SCALE])
      process.stdout.write(`${bench.name.padEnd(14)}${bench.summary}\n`);
    return 0;
  }
  if (name === SCALE.name) return scale(options);
  const bench = BENCHES.find((candidate) => candidate.name === name);
  if (bench === undefined) throw unknownBench(name);
  const stopHandling = exitOnSignals();
  try {
    const scale = options.smoke === true ? 'smoke' : options.quick ? 'quick' : 'full';
    const { context, result } = await runInContext(bench, scale);
    process.stdout.write(`${(options.json ? toJson : toText)(name, context, result)}\n`);
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
  const names = [...BENCHES, SCALE].map((bench) => bench.name);
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
    const names = args.filter((arg) => !arg.startsWith('-'));
    if (names.length > 1) throw new ReadmeshError('INVALID_OPTION', 'one bench at a time: give one name');
    const [quick, json, smoke] = FLAGS.map((flag) => args.includes(flag));
    return await runBench(names[0], { quick: quick!, json: json!, smoke: smoke! });
  } catch (error) {
    if (!isReadmeshError(error)) throw error;
    process.stderr.write(`bench: ${error.code}: ${error.message}\n`);
    return error.info.exit;
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url))
  process.exitCode = await main(process.argv.slice(2));
