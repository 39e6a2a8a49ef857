/** The figures of all fleets, as a Markdown table: on the terminal, and in docs/scale.md. */
import type { FleetReport, Spread } from './measure.js';
import type { Bar } from './plans.js';

function ms(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return 'never';
  return value < 1_000 ? `${Math.round(value)} ms` : `${Number((value / 1_000).toFixed(1))} s`;
}

function bytes(value: number): string {
  if (value < 10_000) return `${Math.round(value).toLocaleString('en')} B`;
  return value < 1e6 ? `${(value / 1_000).toFixed(1)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}

function reach({ p50, max }: Spread): string {
  return `${ms(p50)}, ${ms(max)}`;
}

const ROWS: readonly (readonly [what: string, cell: (report: FleetReport) => string])[] = [
  ['switched on so long before the watch', ({ plan }) => ms(plan.settleMs)],
  ['watched idle, before the updates', ({ plan }) => ms(plan.idleMs)],
  ['links of a node: median, most', ({ links }) => `${links.p50}, ${links.max}`],
  ['50 % of nodes have an update after: median update, worst', ({ reach50 }) => reach(reach50)],
  ['99 % of nodes', ({ reach99 }) => reach(reach99)],
  ['all nodes', ({ reach100 }) => reach(reach100)],
  ['pairs of update and node within 500 ms', ({ within500 }) => `${(within500 * 100).toFixed(2)} %`],
  ['pairs never reached', ({ unreached }) => `${unreached}`],
  ['hops from the writer: mean, most', ({ hops }) => `${hops.mean.toFixed(1)}, ${hops.max}`],
  ['copies of each payload a node gets', ({ copies }) => copies.toFixed(2)],
  ['messages per update and node', ({ messages }) => messages.toFixed(1)],
  ['bytes per update and node', (report) => bytes(report.bytes)],
  ['bytes a node sends per second, idle', ({ idleBytes }) => bytes(idleBytes)],
  ['messages a node sends per second, idle', ({ idleMessages }) => idleMessages.toFixed(1)],
  ['live members suspected, over all pairs', ({ falseSuspects }) => `${falseSuspects}`],
  [
    'a host loses power: half, all of the others suspect it after',
    ({ suspect50Ms, suspect100Ms }) => `${ms(suspect50Ms)}, ${ms(suspect100Ms)}`,
  ],
  [
    'an empty node joins: ready, known to all after',
    ({ joinReadyMs, joinKnownMs }) => `${ms(joinReadyMs)}, ${ms(joinKnownMs)}`,
  ],
  ['bytes that joining costs the whole fleet', ({ joinBytes }) => bytes(joinBytes)],
];

export function table(reports: readonly FleetReport[]): string {
  const lines = [
    `| | ${reports.map(({ plan }) => `${plan.nodes.toLocaleString('en')} nodes`).join(' | ')} |`,
    `|---|${'---:|'.repeat(reports.length)}`,
  ];
  for (const [what, cell] of ROWS) lines.push(`| ${what} | ${reports.map(cell).join(' | ')} |`);
  return lines.join('\n');
}

export function bars(judged: readonly Bar[]): string {
  const lines = ['| at 1,000 nodes | measured | aim | |', '|---|---:|---:|---|'];
  for (const { name, measured, bar, unit, held } of judged) {
    const figure = Number.isInteger(measured) ? `${measured}` : measured.toFixed(measured < 100 ? 2 : 0);
    lines.push(`| ${name} | ${figure} ${unit} | at most ${bar} ${unit} | ${held ? 'held' : 'missed'} |`);
  }
  return lines.join('\n');
}
