/**
 * Reads while disk space is given back (storage/reclaim.ts). A replica holds two tables of the same size in turns of
 * some thousand keys; all rows of one are deleted and collected, and while LevelDB merges the ranges that they lay in,
 * rows of the other one are read, each read timed by itself, at a pace at which the merging is not put off. Against the
 * same reads at rest. The cache is off: it would hide what the disk's work does to reads.
 */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ClassicLevel } from 'classic-level';
import { loadRows } from '../bin/demo/load.js';
import type { PhoneRow } from '../bin/phone-data.js';
import { openReplica, type Replica } from '../src/index.js';
import { draw } from './draws.js';
import {
  type Bench,
  type Context,
  check,
  compare,
  distribution,
  interleave,
  median,
  percentile,
  readable,
} from './harness.js';
import { syntheticRow } from './synthetic.js';

/** Of each of the two tables. */
const ROWS = { full: 200_000, quick: 50_000, smoke: 6_000 };
/** Keys of one table that lie next to each other: above what is too little to be merged by hand. */
const RUN_KEYS = 12_500;
const REST_MS = { full: 4_000, quick: 2_000, smoke: 100 };
/** Reads between two turns of the event loop. With the pause of a millisecond some 7,000 a second. */
const READS_PER_TURN = 8;
/** Deletions can be collected so long after they were made, ms; those of a quarter of it go together. */
const WINDOW_MS = { full: 12_000, quick: 8_000, smoke: 2_000 };
const CUTS = 4;
const ATTEMPTS_MAX = 3;
/** Silence after the last merge, ms and in times of its length: there is none to come. */
const QUIET_MS = 700;
const QUIET_TIMES = 5;
const P99_TIMES_MAX = 2;
const MICROS_PER_MS = 1_000;
const BATCH_KEYS = 1_000;
const LOOK_MS = 50;
const MB = 1e6;

export const reclaimBench: Bench = {
  name: 'reclaim',
  summary: 'getSync while the space of as many deleted rows is given back, against reads at rest',
  run: async (context) => {
    const count = ROWS[context.scale];
    const data = context.folder();
    await using replica = await openReplica({
      data,
      cluster: 'bench',
      name: 'bench',
      listen: '127.0.0.1:0',
      tuning: { cacheBytesMax: 0, lateRetryMs: WINDOW_MS[context.scale], maxClockDriftMs: 500 },
    });
    await replica.ready();
    using merges = new Merges();
    return await measure(context, replica, merges, { count, db: join(data, 'db') });
  },
};

interface Table {
  /** Rows that stay, and as many that go. */
  readonly count: number;
  readonly db: string;
}

async function measure(context: Context, replica: Replica, merges: Merges, { count, db }: Table) {
  const stay = rowsOf('stays', count);
  const go = rowsOf('goes', count);
  context.note(`loading ${count} rows`);
  await loadRows(replica, stay, undefined, { replicas: 1 });
  const { keys } = draw(stay, 50_000, context.seed);
  const reader = new Reader(replica, keys);
  const rest: Sample[] = [];
  const reclaiming: Sample[] = [];
  /** Those of them that met a merge: between two merges there are pauses. */
  const merging: Sample[] = [];
  const sizes: { before: number; after: number; merging: number; ms: number }[] = [];
  const restMs = REST_MS[context.scale];
  const windowMs = WINDOW_MS[context.scale];
  const [idle, busy] = await interleave(
    context,
    [
      {
        label: 'at rest',
        round: async (round) => {
          const samples = await reader.read(() => performance.now() - reader.began > restMs);
          if (round >= 0) rest.push(...samples);
          return p99(samples);
        },
      },
      {
        label: 'while space is reclaimed',
        round: async (round) => {
          let all: Sample[] = [];
          let before = 0;
          merges.forget();
          // On a busy machine the deletions may be spread over several cuts, too few in each to be worth a merge.
          for (let i = 0; i < ATTEMPTS_MAX && merges.count === 0; i++) {
            await loadRows(replica, go, undefined, { replicas: 1 });
            await startOfCut(windowMs / CUTS);
            await remove(replica, go);
            before = sizeOf(db);
            const gone = collected(replica, count);
            all = await reader.read(() => gone.at !== undefined && merges.areOver(gone.at));
          }
          check(merges.count > 0, 'ranges were to be merged');
          const samples = all.filter(({ at }) => merges.from <= at && at < merges.to);
          check(samples.length > 0, 'rows were to be read meanwhile');
          if (round >= 0) {
            reclaiming.push(...samples);
            merging.push(...samples.filter((one) => merges.meet(one)));
            sizes.push({ before, after: sizeOf(db), merging: merges.ms, ms: merges.to - merges.from });
          }
          return p99(samples);
        },
      },
    ],
    { warmUp: context.scale !== 'smoke' },
  );
  const comparison = compare(context, {
    name: 'getSync p99',
    unit: 'µs',
    subject: busy!,
    baseline: idle!,
    bar: P99_TIMES_MAX,
    atMost: true,
  });
  const times = (samples: readonly Sample[]): number[] => samples.map(({ micros }) => micros);
  const tail = (samples: readonly Sample[]): string => percentile(times(samples), 0.999).toFixed(1);
  const typical = (of: keyof (typeof sizes)[number]): string =>
    readable(median(sizes.map((size) => size[of])));
  return {
    comparisons: [comparison],
    distributions: [
      distribution('getSync, at rest', 'µs', times(rest)),
      distribution('getSync, while space is reclaimed', 'µs', times(reclaiming)),
      distribution('getSync, while LevelDB merges', 'µs', times(merging)),
    ],
    remarks: [
      `${count} rows stay, ${count} were deleted and collected: ${typical('before')} MB before, ${typical('after')} MB after; ${typical('merging')} ms of merging in ${typical('ms')} ms`,
      `getSync p99.9: at rest ${tail(rest)} µs, while space is reclaimed ${tail(reclaiming)} µs, while LevelDB merges ${tail(merging)} µs`,
    ],
  };
}

function rowsOf(table: string, count: number): PhoneRow[] {
  return Array.from({ length: count }, (_, i): PhoneRow => {
    const [key, value] = syntheticRow(i);
    const run = String(Math.floor(i / RUN_KEYS)).padStart(4, '0');
    return [`${run}/${table}/${key}`, value];
  });
}

/** Deletions of one cut are collected in one sweep. */
const startOfCut = (cutMs: number): Promise<void> => delay(cutMs - (Date.now() % cutMs));

async function remove(replica: Replica, rows: readonly PhoneRow[]): Promise<void> {
  for (let i = 0; i < rows.length; i += BATCH_KEYS)
    await replica.batch(
      rows.slice(i, i + BATCH_KEYS).map(([key]) => ({ type: 'del', key })),
      { replicas: 1 },
    );
}

/** Since when no deletion is left on the disk, and so many rows are. */
function collected(replica: Replica, left: number): { at?: number } {
  const state: { at?: number } = {};
  const look = async (): Promise<void> => {
    const { digest, garbage } = await replica.status();
    if (digest.keys === left && !garbage.sweeping) state.at = performance.now();
    else setTimeout(() => void look(), LOOK_MS);
  };
  void look();
  return state;
}

/** Of one read. */
interface Sample {
  readonly at: number;
  readonly micros: number;
}

const p99 = (samples: readonly Sample[]): number =>
  percentile(
    samples.map(({ micros }) => micros),
    0.99,
  );

class Reader {
  readonly #replica: Replica;
  readonly #keys: readonly string[];
  #next = 0;
  began = 0;

  constructor(replica: Replica, keys: readonly string[]) {
    this.#replica = replica;
    this.#keys = keys;
  }

  async read(isOver: () => boolean): Promise<Sample[]> {
    const samples: Sample[] = [];
    this.began = performance.now();
    while (!isOver()) {
      for (let i = 0; i < READS_PER_TURN; i++) {
        const key = this.#keys[this.#next++ % this.#keys.length]!;
        const at = performance.now();
        const value = this.#replica.getSync(key);
        samples.push({ at, micros: (performance.now() - at) * MICROS_PER_MS });
        check(value !== undefined, `${key} was to be read`);
      }
      await delay(1);
    }
    return samples;
  }
}

/** When LevelDB merges by hand in this process: nothing else asks it to. */
class Merges implements Disposable {
  readonly #original = ClassicLevel.prototype.compactRange;
  #spans: { from: number; to: number }[] = [];

  constructor() {
    const original = this.#original;
    const note = (span: { from: number; to: number }): number => this.#spans.push(span);
    ClassicLevel.prototype.compactRange = async function (this: ClassicLevel, ...args: unknown[]) {
      const span = { from: performance.now(), to: Number.POSITIVE_INFINITY };
      note(span);
      try {
        await Reflect.apply(original, this, args);
      } finally {
        span.to = performance.now();
      }
    };
  }

  forget(): void {
    this.#spans = [];
  }

  get count(): number {
    return this.#spans.length;
  }

  get ms(): number {
    return this.#spans.reduce((sum, { from, to }) => sum + to - from, 0);
  }

  /** Nothing is merged, nor was for a while since then. */
  areOver(since: number): boolean {
    const { from, to } = this.#spans.at(-1) ?? { from: since, to: since };
    return performance.now() - Math.max(since, to) > QUIET_MS + QUIET_TIMES * (to - from);
  }

  get from(): number {
    return this.#spans[0]!.from;
  }

  get to(): number {
    return this.#spans.at(-1)!.to;
  }

  meet({ at, micros }: Sample): boolean {
    return this.#spans.some(({ from, to }) => from < at + micros / MICROS_PER_MS && at < to);
  }

  [Symbol.dispose](): void {
    ClassicLevel.prototype.compactRange = this.#original;
  }
}

/** In MB. */
function sizeOf(folder: string): number {
  const bytes = readdirSync(folder).reduce(
    (sum, name) => sum + (statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
  return bytes / MB;
}
