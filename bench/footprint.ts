/**
 * What a replica costs before it does anything: the memory of an idle one after a restart, and the time from
 * opening until reads are answered. Against a process that opens LevelDB alone on a copy of the same files.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Footprint } from './footprint-child.js';
import {
  type Bench,
  type Contender,
  type Context,
  check,
  compare,
  interleave,
  median,
  type Series,
} from './harness.js';
import { type LocalStore, loadLocalStore } from './local-store.js';
import { syntheticRow, syntheticRows } from './synthetic.js';

const ROWS = { full: 1_000_000, quick: 1_000_000, smoke: 1_000 };
const IDLE_MS = { full: 3_000, quick: 2_000, smoke: 10 };
const MEMORY_MORE_MB = 64;
const START_FACTOR = 1.2;
const START_MORE_MS = 50;
const MB = 1e6;

export const footprint: Bench = {
  name: 'footprint',
  summary:
    'memory of an idle replica after a restart, and time until it answers reads, against LevelDB alone',
  run: async (context) => {
    const rows = ROWS[context.scale];
    context.note(`loading ${rows} rows`);
    const store = await loadLocalStore(context, syntheticRows(rows));
    const started: Record<'replica' | 'raw', number[]> = { replica: [], raw: [] };
    const contender = (kind: 'replica' | 'raw', label: string): Contender => ({
      label,
      round: async (round) => {
        const { openMs, rssBytes } = await measureFootprint(context, store, kind);
        if (round >= 0) started[kind].push(openMs);
        return rssBytes / MB;
      },
    });
    const [replicaMb, rawMb] = await interleave(context, [
      contender('replica', 'readmesh'),
      contender('raw', 'LevelDB'),
    ]);
    const budget = (series: Series, label: string, of: (figure: number) => number): Series => ({
      label,
      rounds: series.rounds.map(of),
      p50: of(series.p50),
    });
    const replicaMs = seriesOf('readmesh', started.replica);
    const rawMs = seriesOf('LevelDB', started.raw);
    const judged = { bar: 1, atMost: true } as const;
    return {
      comparisons: [
        compare(context, {
          name: 'memory of an idle node',
          unit: 'MB',
          subject: replicaMb!,
          baseline: budget(rawMb!, `LevelDB + ${MEMORY_MORE_MB} MB`, (mb) => mb + MEMORY_MORE_MB),
          ...judged,
        }),
        compare(context, {
          name: 'opening until reads are answered',
          unit: 'ms',
          subject: replicaMs,
          baseline: budget(
            rawMs,
            `${START_FACTOR} x LevelDB + ${START_MORE_MS} ms`,
            (ms) => START_FACTOR * ms + START_MORE_MS,
          ),
          ...judged,
        }),
      ],
      remarks: [`${rows} synthetic rows; LevelDB alone takes ${rawMs.p50.toFixed(1)} ms to open`],
    };
  },
};

function seriesOf(label: string, rounds: readonly number[]): Series {
  return { label, rounds, p50: median(rounds) };
}

/** In a process of its own. */
export async function measureFootprint(
  context: Context,
  store: LocalStore,
  kind: 'replica' | 'raw',
): Promise<Footprint> {
  const script = fileURLToPath(new URL('./footprint-child.js', import.meta.url));
  const folder = kind === 'raw' ? store.raw : store.data;
  const child = fork(script, [kind, folder, syntheticRow(0)[0], String(IDLE_MS[context.scale])]);
  const ended = once(child, 'exit');
  const footprint = await new Promise<Footprint>((resolve, reject) => {
    child.once('message', (message) => resolve(message as Footprint));
    child.once('exit', (code) => reject(new Error(`the process that opens ${kind} ended with ${code}`)));
  });
  await ended;
  check(footprint.found, 'the row was to be read');
  return footprint;
}
