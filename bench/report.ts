/** A bench's result: as a table for people, as JSON for programs, with the machine and the versions beside it. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import Table from 'cli-table3';
import pc from 'picocolors';
import { version } from '../src/node.js';
import { type Comparison, type Context, type Result, readable } from './harness.js';

const PACKAGES = ['classic-level', 'ws', 'msgpackr'];

export function missedBars(result: Result): Comparison[] {
  return result.comparisons.filter(({ bar, ratio }) => bar !== undefined && ratio < bar);
}

export function toJson(name: string, context: Context, result: Result): string {
  const { scale, seed, data } = context;
  const comparisons = result.comparisons.map((comparison) =>
    comparison.bar === undefined ? comparison : { ...comparison, held: comparison.ratio >= comparison.bar },
  );
  const report = {
    bench: name,
    scale,
    seed,
    data: { source: data.source, rows: data.count },
    comparisons,
    distributions: result.distributions ?? [],
    remarks: result.remarks ?? [],
    machine: machine(),
    versions: versions(),
  };
  return JSON.stringify(report, undefined, 2);
}

export function toText(name: string, context: Context, result: Result): string {
  const { cpu, cores } = machine();
  const rounds = result.comparisons[0]?.subject.rounds.length ?? context.rounds;
  const lines = [
    `${name}: medians of ${rounds} rounds in turn, on ${cores} x ${cpu}, Node ${process.version}`,
  ];
  lines.push(comparisonTable(result.comparisons));
  const { distributions = [], remarks = [] } = result;
  if (distributions.length > 0) {
    const table = new Table({ head: ['', 'p50', 'p99', 'unit', 'samples'], style: { head: [], border: [] } });
    for (const { name: what, p50, p99, unit, samples } of distributions)
      table.push([what, readable(p50), readable(p99), unit, readable(samples)]);
    lines.push(table.toString());
  }
  lines.push(...remarks);
  if (context.scale === 'smoke') lines.push('a smoke run: these figures mean nothing');
  return lines.join('\n');
}

function comparisonTable(comparisons: readonly Comparison[]): string {
  const table = new Table({
    head: ['', 'measured', 'baseline', 'unit', 'ratio', 'bar', ''],
    colAligns: ['left', 'right', 'right', 'left', 'right', 'right', 'left'],
    style: { head: [], border: [] },
  });
  const color = pc.createColors(process.stdout.isTTY === true && pc.isColorSupported);
  for (const { name, subject, baseline, unit, ratio, bar } of comparisons) {
    const verdict = bar === undefined ? '' : ratio >= bar ? color.green('held') : color.red('missed');
    table.push([
      name,
      `${subject.label}\n${readable(subject.p50)}`,
      `${baseline.label}\n${readable(baseline.p50)}`,
      unit,
      ratio.toFixed(2),
      bar === undefined ? '' : `>= ${bar}`,
      verdict,
    ]);
  }
  return table.toString();
}

function machine(): { cpu: string; cores: number; memoryBytes: number; os: string } {
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
