/** A bench's result: as a table for people, as JSON for programs, with the machine and the versions beside it. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import Table from 'cli-table3';
import pc from 'picocolors';
import { version } from '../src/node.js';
import {
  type Bench,
  type Comparison,
  type Context,
  type Curve,
  type Distribution,
  holds,
  type PeerNote,
  type Result,
  readable,
  type Scale,
  type Skip,
} from './harness.js';

const PACKAGES = ['classic-level', 'ws', 'msgpackr'];

/** One bench's result as JSON. */
export interface Report {
  readonly bench: string;
  readonly summary: string;
  readonly scale: Scale;
  readonly seed: number;
  readonly data: { readonly source: string; readonly rows: number };
  readonly comparisons: readonly JudgedComparison[];
  readonly distributions: readonly Distribution[];
  readonly curves: readonly Curve[];
  readonly peers: readonly PeerNote[];
  readonly skipped: readonly Skip[];
  readonly remarks: readonly string[];
  readonly machine: Machine;
  /** Processes that wanted a core, averaged over the minute before the report. More than a few: others worked, too. */
  readonly load: number;
  readonly versions: Readonly<Record<string, string>>;
}

export type JudgedComparison = Comparison & { readonly held?: boolean };

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly os: string;
}

export function missedBars(result: Pick<Result, 'comparisons'>): Comparison[] {
  return result.comparisons.filter((comparison) => holds(comparison) === false);
}

export function toReport(bench: Pick<Bench, 'name' | 'summary'>, context: Context, result: Result): Report {
  const { scale, seed, data } = context;
  const comparisons = result.comparisons.map((comparison) => {
    const held = holds(comparison);
    return held === undefined ? comparison : { ...comparison, held };
  });
  return {
    bench: bench.name,
    summary: bench.summary,
    scale,
    seed,
    data: { source: data.source, rows: data.count },
    comparisons,
    distributions: result.distributions ?? [],
    curves: result.curves ?? [],
    peers: result.peers ?? [],
    skipped: result.skipped ?? [],
    remarks: result.remarks ?? [],
    machine: machine(),
    load: loadavg()[0]!,
    versions: versions(),
  };
}

export function toJson(report: Report): string {
  return JSON.stringify(report, undefined, 2);
}

export function toText(report: Report): string {
  const { bench, comparisons, distributions, remarks, skipped, machine } = report;
  const rounds = comparisons[0]?.subject.rounds.length ?? 1;
  const lines = [
    `${bench}: medians of ${rounds} rounds in turn, on ${machine.cores} x ${machine.cpu}, ` +
      `Node ${report.versions.node}, load ${report.load.toFixed(1)}`,
  ];
  if (comparisons.length > 0) lines.push(comparisonTable(comparisons));
  if (distributions.length > 0) {
    const table = new Table({ head: ['', 'p50', 'p99', 'unit', 'samples'], style: { head: [], border: [] } });
    for (const { name: what, p50, p99, unit, samples } of distributions)
      table.push([what, readable(p50), readable(p99), unit, readable(samples)]);
    lines.push(table.toString());
  }
  for (const { plot, label, points } of report.curves)
    lines.push(`${plot}, ${label}: ${points.map(([x, y]) => `${readable(x)}: ${readable(y)}`).join(', ')}`);
  lines.push(...remarks);
  for (const { peer, reason } of skipped) lines.push(`without ${peer}: ${reason}`);
  if (report.scale === 'smoke') lines.push('a smoke run: these figures mean nothing');
  return lines.join('\n');
}

/** All that has a bar, bench by bench, and how many bars held. */
export function toSummary(reports: readonly Report[]): string {
  const judged = reports.flatMap(({ bench, comparisons }) =>
    comparisons.filter(({ held }) => held !== undefined).map((one) => ({ bench, ...one })),
  );
  const color = pc.createColors(process.stdout.isTTY === true && pc.isColorSupported);
  const table = new Table({
    head: ['bench', '', 'against', 'ratio', 'bar', ''],
    colAligns: ['left', 'left', 'left', 'right', 'right', 'left'],
    style: { head: [], border: [], compact: true },
  });
  for (const { bench, name, baseline, ratio, bar, atMost, held } of judged) {
    const limit = `${atMost === true ? '<=' : '>='} ${readable(bar!)}`;
    const verdict = held === true ? color.green('held') : color.red('missed');
    table.push([bench, name, baseline.label, ratio.toFixed(2), limit, verdict]);
  }
  const count = judged.filter(({ held }) => held).length;
  return `${judged.length > 0 ? `${table.toString()}\n` : ''}${count} of ${judged.length} bars held`;
}

function comparisonTable(comparisons: readonly Comparison[]): string {
  const table = new Table({
    head: ['', 'measured', 'baseline', 'unit', 'ratio', 'bar', ''],
    colAligns: ['left', 'right', 'right', 'left', 'right', 'right', 'left'],
    style: { head: [], border: [] },
  });
  const color = pc.createColors(process.stdout.isTTY === true && pc.isColorSupported);
  for (const comparison of comparisons) {
    const { name, subject, baseline, unit, ratio, bar, atMost } = comparison;
    const held = holds(comparison);
    const verdict = held === undefined ? '' : held ? color.green('held') : color.red('missed');
    table.push([
      name,
      `${subject.label}\n${readable(subject.p50)}`,
      `${baseline.label}\n${readable(baseline.p50)}`,
      unit,
      ratio.toFixed(2),
      bar === undefined ? '' : `${atMost === true ? '<=' : '>='} ${readable(bar)}`,
      verdict,
    ]);
  }
  return table.toString();
}

function machine(): Machine {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryBytes: totalmem(),
    os: `${process.platform} ${release()} ${process.arch}`,
  };
}

function versions(): Record<string, string> {
  const found: Record<string, string> = { node: process.version, readmesh: version };
  for (const name of PACKAGES) found[name] = versionOf(name);
  return found;
}

/** From the package's own package.json, which `exports` may hide: looked for above its main file. */
function versionOf(name: string): string {
  const { resolve } = createRequire(import.meta.url);
  for (let folder = dirname(resolve(name)); folder !== dirname(folder); folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (!existsSync(file)) continue;
    const found = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string };
    if (found.name === name && found.version !== undefined) return found.version;
  }
  return 'unknown';
}
