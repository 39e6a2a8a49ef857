/** docs/benchmarks.md and its plots, from the JSON of one run of `npm run bench -- all`. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ReadmeshError } from '../src/errors.js';
import type { Run } from './all.js';
import { growthChart, ratioChart, shareChart } from './charts.js';
import { type Curve, readable } from './harness.js';
import type { JudgedComparison, Report } from './report.js';

export const PAGE = {
  name: 'report',
  summary: 'FILE.json: writes docs/benchmarks.md and its plots from a run',
};

/** What is to be measured and has no bench here yet. */
const MISSING = [
  'rebuild of an empty node, against a local scan-and-batch copy',
  'bytes and time of a catch-up after a partition, by changed keys',
  'traffic and processor time of an idle cluster of 8',
  'processor time per applied write and node, from 2 to 16 nodes',
];

/** Load above this many processes a core: others worked, too. */
const BUSY_PER_CORE = 1.5;

/** Writes into the docs of the source tree. Resolves to the exit code. */
export function writePage(files: readonly string[]): number {
  const [file] = files;
  if (file === undefined || files.length > 1 || !existsSync(file))
    throw new ReadmeshError('INVALID_OPTION', 'report takes one file that a run of `all` has written');
  const docs = docsFolder();
  const { text, plots } = pageOf(JSON.parse(readFileSync(file, 'utf8')) as Run);
  mkdirSync(join(docs, 'benchmarks'), { recursive: true });
  for (const [name, svg] of plots) writeFileSync(join(docs, 'benchmarks', name), svg);
  writeFileSync(join(docs, 'benchmarks.md'), text);
  process.stdout.write(`written to ${docs}\n`);
  return 0;
}

/** That of the source tree: the nearest folder above with a package.json and docs. */
function docsFolder(): string {
  for (let at = dirname(fileURLToPath(import.meta.url)); at !== dirname(at); at = dirname(at))
    if (existsSync(join(at, 'package.json')) && existsSync(join(at, 'docs'))) return join(at, 'docs');
  throw new ReadmeshError('INVALID_OPTION', 'there is no docs folder here to write to');
}

/** The page, and its plots by file name. */
export function pageOf(run: Run): { text: string; plots: Map<string, string> } {
  const plots = plotsOf(run);
  const all = run.benches.flatMap(({ comparisons }) => comparisons);
  const held = all.filter((one) => one.held === true).length;
  const judged = all.filter((one) => one.held !== undefined).length;
  const lines = [
    '# Benchmarks',
    '',
    'Written by `npm run bench -- report`: every figure and plot comes from the JSON of one run. Absolute figures',
    'are of one machine on one day and drift; the ratios are medians of interleaved rounds in one run, and every',
    'result was verified outside the timed regions. No guarantee was weakened: defaults, unless a row says otherwise.',
    '',
    `**${held} of ${judged} bars held.**`,
    '',
    ...conditions(run),
    '',
    ...image(plots, 'ratios.svg', 'Ratios of all comparisons beside their bars'),
    ...run.benches.flatMap((report) => section(report, plots)),
    ...peersSection(run),
    '## Not measured yet',
    '',
    ...MISSING.map((what) => `- ${what}`),
    '',
    ...howTo(),
  ];
  return { text: `${lines.join('\n').trimEnd()}\n`, plots };
}

function conditions(run: Run): string[] {
  const first = run.benches[0];
  if (first === undefined) return ['No bench ended with a report.'];
  const { machine, versions, scale } = first;
  const loads = run.benches.map(({ load }) => load);
  const busiest = Math.max(...loads);
  const shared = busiest > BUSY_PER_CORE * machine.cores;
  return [
    `- Run: \`${run.command}\`, scale ${scale}, ${run.began} to ${run.ended}`,
    `- Machine: ${machine.cores} x ${machine.cpu}, ${readable(machine.memoryBytes / 2 ** 30)} GiB, ${machine.os}`,
    `- Versions: ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`,
    `- Load average after each bench: ${loads.map((load) => load.toFixed(1)).join(', ')}` +
      (shared ? '. **The machine was shared with other work: take the ratios with care.**' : ''),
    ...(run.failed.length > 0 ? [`- Without a report, since they failed: ${run.failed.join(', ')}`] : []),
  ];
}

function image(plots: ReadonlyMap<string, string>, name: string, alt: string): string[] {
  return plots.has(name) ? [`![${alt}](benchmarks/${name})`, ''] : [];
}

function section(report: Report, plots: ReadonlyMap<string, string>): string[] {
  const lines = [`## ${report.bench}`, '', `${report.summary}.`, ''];
  lines.push('| what | readmesh | against | unit | ratio | bar | |', '|---|---:|---|---|---:|---|---|');
  for (const one of report.comparisons) lines.push(comparisonRow(one));
  lines.push('');
  if (report.distributions.length > 0) {
    lines.push('| what | p50 | p99 | unit | samples |', '|---|---:|---:|---|---:|');
    for (const { name, p50, p99, unit, samples } of report.distributions)
      lines.push(`| ${name} | ${readable(p50)} | ${readable(p99)} | ${unit} | ${readable(samples)} |`);
    lines.push('');
  }
  lines.push(...report.remarks.map((remark) => `- ${remark}`));
  lines.push(...report.skipped.map(({ peer, reason }) => `- Without ${peer}: ${reason}`));
  if (report.remarks.length + report.skipped.length > 0) lines.push('');
  for (const name of plotNames(report)) lines.push(...image(plots, name, `Plot of ${report.bench}`));
  return lines;
}

function comparisonRow({
  name,
  subject,
  baseline,
  unit,
  ratio,
  bar,
  atMost,
  held,
}: JudgedComparison): string {
  const limit = bar === undefined ? '' : `${atMost === true ? '≤' : '≥'} ${bar}`;
  const verdict = held === undefined ? '' : held ? 'held' : '**missed**';
  const theirs = `${baseline.label}: ${readable(baseline.p50)}`;
  return `| ${name} (${subject.label}) | ${readable(subject.p50)} | ${theirs} | ${unit} | ${ratio.toFixed(2)} | ${limit} | ${verdict} |`;
}

function peersSection(run: Run): string[] {
  const peers = new Map(run.benches.flatMap((report) => report.peers).map((one) => [one.name, one]));
  const rows = [...peers.values()].map(
    ({ name, version, settings, caveat = '' }) => `| ${name} | ${version} | \`${settings}\` | ${caveat} |`,
  );
  return rows.length === 0
    ? []
    : [
        '## The peers',
        '',
        'Each is started by its bench on loopback and given its best API. What its settings do not promise:',
        '',
        '| peer | version | settings | what it does not promise |',
        '|---|---|---|---|',
        ...rows,
        '',
      ];
}

function howTo(): string[] {
  return [
    '## To repeat it',
    '',
    '    bench/install-peers',
    '    npm run build',
    '    npm run bench -- all run.json',
    '    npm run bench -- report run.json',
    '',
    '`--quick` takes fewer rows and rounds; `npm run bench -- NAME` runs one bench. Peers that are not installed are',
    'skipped, and the reason is printed.',
  ];
}

function plotsOf(run: Run): Map<string, string> {
  const plots = new Map<string, string>();
  const all = run.benches.flatMap(({ comparisons }) => comparisons);
  const judged = all.filter(({ held }) => held !== undefined);
  if (judged.length > 0) plots.set('ratios.svg', ratioChart('All comparisons that have a bar', judged));
  for (const report of run.benches) {
    if (report.comparisons.length > 0)
      plots.set(`${report.bench}.svg`, ratioChart(report.bench, report.comparisons));
    const timed = report.distributions.filter(
      ({ hundredths, unit }) => unit === 'ms' && hundredths !== undefined,
    );
    if (timed.length > 0) plots.set(sharesName(report), shareChart(`${report.bench}: share within`, timed));
    for (const [name, curves] of curvesByPlot(report))
      plots.set(`${name}.svg`, growthChart(name.replace('-', ': '), curves));
  }
  return plots;
}

function plotNames(report: Report): string[] {
  return [
    `${report.bench}.svg`,
    sharesName(report),
    ...[...curvesByPlot(report).keys()].map((name) => `${name}.svg`),
  ];
}

function sharesName({ bench }: Report): string {
  return `${bench}-shares.svg`;
}

function curvesByPlot({ curves }: Report): Map<string, Curve[]> {
  const groups = new Map<string, Curve[]>();
  for (const curve of curves) groups.set(curve.plot, [...(groups.get(curve.plot) ?? []), curve]);
  return groups;
}
