/** docs/benchmarks.md and its plots, from the JSON of one run of `npm run bench -- all`. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ReadmeshError } from '../src/errors.js';
import type { Run } from './all.js';
import { growthChart, ratioChart, shareChart } from './charts.js';
import { type Curve, readable } from './harness.js';
import { TRIED, WORDS } from './page-text.js';
import type { JudgedComparison, Report } from './report.js';

export const PAGE = {
  name: 'report',
  summary: 'FILE.json: writes docs/benchmarks.md and its plots from a run',
};

/** Load above this many processes a core: others worked, too. */
const BUSY_PER_CORE = 1.5;
/** Of fewer samples there is no distribution to draw. */
const SHARE_SAMPLES_MIN = 100;

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
    'What readmesh does in a second, beside what a user would take instead, and beside the store that it stands on. Every',
    'figure and plot here comes from the JSON of one run; `npm run bench -- report` wrote the page.',
    '',
    `**${held} of ${judged} bars held.** A bar is what we had set ourselves before we measured. Those that are missed stay`,
    'on the page, and the text below them says what stands in the way.',
    '',
    ...conditions(run),
    '',
    ...image(plots, 'ratios.svg', 'Ratios of all comparisons beside their bars'),
    ...glance(run),
    ...HOW_MEASURED,
    ...run.benches.flatMap((report) => section(report, plots)),
    ...peersSection(run),
    '## What was tried and did not help',
    '',
    ...TRIED.map((what) => `- ${what}`),
    '',
    ...howTo(run),
  ];
  return { text: `${lines.join('\n').trimEnd()}\n`, plots };
}

const HOW_MEASURED = [
  '## How it is measured',
  '',
  '- In turn: a round of one, a round of the other, and so on, in one run. Absolute figures drift with the hour and the',
  '  machine; a ratio is the median of the rounds of one over the median of the rounds of the other.',
  '- Every result is verified outside the timed regions: values that are read, copies that are identical, keys that are',
  '  there afterwards. A wrong result fails the bench.',
  '- Nothing is weakened to win: checksums on every read, the default acknowledgements, the default limits, unless a row',
  '  says otherwise. LevelDB alone, where we compare with it, verifies nothing and gets its keys ready-made.',
  '- All servers and clients run on one machine, over loopback. That favours nobody by design, but a network between them',
  '  would make every difference of microseconds smaller.',
  '',
];

/** All that has a bar. */
function glance(run: Run): string[] {
  const lines = [
    '## At a glance',
    '',
    '| | | readmesh | against | ratio | bar | |',
    '|---|---|---:|---|---:|---|---|',
  ];
  for (const report of run.benches) {
    const title = titleOf(report);
    const judged = report.comparisons.filter(({ held }) => held !== undefined);
    for (const [i, one] of judged.entries()) {
      const { name, subject, baseline, unit, ratio } = one;
      const link = i === 0 ? `[${title}](#${anchorOf(title)})` : '';
      const theirs = `${baseline.label}: ${readable(baseline.p50)}`;
      lines.push(
        `| ${link} | ${name} | ${readable(subject.p50)} ${unit} | ${theirs} | ${ratio.toFixed(2)} | ${limitOf(one)} | ${verdictOf(one)} |`,
      );
    }
  }
  return [...lines, ''];
}

function titleOf({ bench }: Report): string {
  return WORDS[bench]?.title ?? bench;
}

/** As GitHub makes them. */
function anchorOf(title: string): string {
  return title.toLowerCase().replace(/ /g, '-');
}

function limitOf({ bar, atMost }: JudgedComparison): string {
  return bar === undefined ? '' : `${atMost === true ? '≤' : '≥'} ${readable(bar)}`;
}

function verdictOf({ held }: JudgedComparison): string {
  return held === undefined ? '' : held ? 'held' : '**missed**';
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
  const words = WORDS[report.bench];
  const lines = [`## ${titleOf(report)}`, '', words?.about ?? `${report.summary}.`, ''];
  lines.push(`\`npm run bench -- ${report.bench}\``, '');
  lines.push('| what | readmesh | against | unit | ratio | bar | |', '|---|---:|---|---|---:|---|---|');
  for (const one of report.comparisons) lines.push(comparisonRow(one));
  lines.push('');
  if (report.distributions.length > 0) {
    lines.push('| what | p50 | p99 | unit | samples |', '|---|---:|---:|---|---:|');
    for (const { name, p50, p99, unit, samples } of report.distributions)
      lines.push(`| ${name} | ${readable(p50)} | ${readable(p99)} | ${unit} | ${readable(samples)} |`);
    lines.push('');
  }
  const notes = [
    ...(words?.limits ?? []),
    ...report.remarks,
    ...report.skipped.map(({ peer, reason }) => `Without ${peer}: ${reason}`),
  ];
  if (notes.length > 0) lines.push(...notes.map((note) => `- ${note}`), '');
  for (const name of plotNames(report)) lines.push(...image(plots, name, `Plot: ${titleOf(report)}`));
  return lines;
}

function comparisonRow(one: JudgedComparison): string {
  const { name, subject, baseline, unit, ratio } = one;
  const theirs = `${baseline.label}: ${readable(baseline.p50)}`;
  return `| ${name} (${subject.label}) | ${readable(subject.p50)} | ${theirs} | ${unit} | ${ratio.toFixed(2)} | ${limitOf(one)} | ${verdictOf(one)} |`;
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

function howTo(run: Run): string[] {
  return [
    '## To repeat it',
    '',
    '    bench/install-peers',
    '    npm run build',
    `    ${run.command} run.json`,
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
      plots.set(`${report.bench}.svg`, ratioChart(titleOf(report), report.comparisons));
    const timed = report.distributions.filter(
      ({ hundredths, samples }) => hundredths !== undefined && samples >= SHARE_SAMPLES_MIN,
    );
    if (timed.length > 0)
      plots.set(sharesName(report), shareChart(`${titleOf(report)}: share within`, timed));
    for (const [name, curves] of curvesByPlot(report))
      plots.set(`${name}.svg`, growthChart(titleOf(report), curves));
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
