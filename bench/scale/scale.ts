/**
 * The overlay at scale: the core that the daemon runs, 10, 100 and 1,000 times in one process, in virtual time,
 * between real regions. A full run takes some minutes and writes its figures into docs/scale.md and
 * docs/scale.svg of the source tree it runs in; others only print them.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type FleetReport, measureFleet } from './measure.js';
import { judge, PLANS, type ScaleSize } from './plans.js';
import { plot } from './plot.js';
import { bars, table } from './report.js';

const BEGIN = '<!-- figures -->';
const END = '<!-- end of figures -->';

export const SCALE = {
  name: 'scale',
  summary: '10, 100 and 1,000 nodes between real regions, simulated: reach, traffic, failures, joining',
};

export interface ScaleOptions {
  /** `full`: all three sizes; `quick`: the two smaller ones; `smoke`: a few updates among ten nodes. */
  readonly size: ScaleSize;
  readonly json: boolean;
  /** Told what goes on. */
  readonly note?: (text: string) => void;
}

/** Resolves to the exit code: 1 if a bar was missed, or an update did not reach all. */
export function runScale({ size, json, note = () => {} }: ScaleOptions): number {
  const reports = PLANS[size].map((plan) => measureFleet(plan, note));
  const judged = judge(reports);
  if (json)
    process.stdout.write(
      `${JSON.stringify({ bench: 'scale', size, reports, bars: judged }, undefined, 2)}\n`,
    );
  else
    process.stdout.write(`${[table(reports), ...(judged.length > 0 ? [bars(judged)] : [])].join('\n\n')}\n`);
  if (size === 'full') writeDocs(reports, note);
  const missed = judged.some(({ held }) => !held) || reports.some(({ unreached }) => unreached > 0);
  return missed ? 1 : 0;
}

function writeDocs(reports: readonly FleetReport[], note: (text: string) => void): void {
  const docs = docsFolder();
  if (docs === undefined) return;
  const page = join(docs, 'scale.md');
  const old = readFileSync(page, 'utf8');
  const from = old.indexOf(BEGIN);
  const to = old.indexOf(END);
  if (from < 0 || to < from) return note(`${page} has no place for figures: ${BEGIN} ... ${END}`);
  const figures = `${BEGIN}\n${bars(judge(reports))}\n\n${table(reports)}\n`;
  writeFileSync(page, old.slice(0, from) + figures + old.slice(to));
  writeFileSync(join(docs, 'scale.svg'), plot(reports));
  note(`figures written to ${docs}`);
}

/** That of the source tree; an installed package has none of its own to change. */
function docsFolder(): string | undefined {
  for (
    let folder = dirname(fileURLToPath(import.meta.url));
    folder !== dirname(folder);
    folder = dirname(folder)
  )
    if (existsSync(join(folder, 'src', 'core')) && existsSync(join(folder, 'docs', 'scale.md')))
      return existsSync(join(folder, 'tsconfig.json')) ? join(folder, 'docs') : undefined;
  return undefined;
}
