/** What reads are asked for, drawn with a seed before the clock runs, and the timing of them. */
import { seededRandom } from '../bin/seeded-random.js';
import { check } from './harness.js';

type Row = readonly [key: string, value: string];

export interface Draws {
  readonly keys: readonly string[];
  /** What the values' lengths add up to. */
  readonly length: number;
}

/**
 * The keys are copies, in the order of the reads, for whoever reads: strings all over the heap would cost more to
 * fetch than a cached value, and LevelDB's ready-made keys lie in this order, too.
 */
function drawsOf(rows: readonly Row[]): Draws {
  return {
    keys: rows.map(([key]) => Buffer.from(key).toString()),
    length: rows.reduce((sum, [, value]) => sum + value.length, 0),
  };
}

/** Uniform over the rows. */
export function draw(rows: readonly Row[], count: number, seed: number): Draws {
  const random = seededRandom(seed);
  return drawsOf(Array.from({ length: count }, () => random.pick(rows)));
}

/** The row of rank r with a probability proportional to 1 / r^0.99, as in YCSB; ranks are dealt at random. */
export function drawZipf(rows: readonly Row[], count: number, seed: number): Draws {
  const random = seededRandom(seed);
  const ranked = random.shuffle([...rows]);
  const upTo = new Float64Array(ranked.length);
  let sum = 0;
  for (let rank = 1; rank <= upTo.length; rank++) upTo[rank - 1] = sum += rank ** -ZIPF_EXPONENT;
  return drawsOf(Array.from({ length: count }, () => ranked[lowest(upTo, random.next() * sum)]!));
}

const ZIPF_EXPONENT = 0.99;

/** First index whose value is at least `wanted`. */
function lowest(sorted: Float64Array, wanted: number): number {
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Reads per second. Adding up the lengths keeps the loop honest, and shows afterwards that each read was answered. */
export function timed({ keys, length }: Draws, read: (key: string) => string | undefined): number {
  let seen = 0;
  const began = performance.now();
  for (const key of keys) seen += read(key)?.length ?? 0;
  const elapsedMs = performance.now() - began;
  checkSeen(length, seen);
  return (keys.length / elapsedMs) * 1_000;
}

/** The same for reads that are waited for, one at a time. */
export async function timedAsync(
  { keys, length }: Draws,
  read: (key: string) => Promise<string | null | undefined>,
): Promise<number> {
  let seen = 0;
  const began = performance.now();
  for (const key of keys) seen += (await read(key))?.length ?? 0;
  const elapsedMs = performance.now() - began;
  checkSeen(length, seen);
  return (keys.length / elapsedMs) * 1_000;
}

/** The same, with `inFlight` of them under way at a time. */
export async function timedInFlight(
  { keys, length }: Draws,
  inFlight: number,
  read: (key: string) => Promise<string | null | undefined>,
): Promise<number> {
  let seen = 0;
  let next = 0;
  const readInTurn = async (): Promise<void> => {
    while (next < keys.length) {
      const value = await read(keys[next++]!);
      seen += value?.length ?? 0;
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: inFlight }, readInTurn));
  const elapsedMs = performance.now() - began;
  checkSeen(length, seen);
  return (keys.length / elapsedMs) * 1_000;
}

/** The same for `chunk` keys a call. */
export async function timedMany(
  { keys, length }: Draws,
  chunk: number,
  read: (keys: string[]) => Promise<readonly (string | null | undefined)[]>,
): Promise<number> {
  const chunks: string[][] = [];
  for (let at = 0; at < keys.length; at += chunk) chunks.push(keys.slice(at, at + chunk));
  let seen = 0;
  const began = performance.now();
  for (const some of chunks) for (const value of await read(some)) seen += value?.length ?? 0;
  const elapsedMs = performance.now() - began;
  checkSeen(length, seen);
  return (keys.length / elapsedMs) * 1_000;
}

function checkSeen(length: number, seen: number): void {
  check(seen === length, `values of ${length} characters in all were expected, ${seen} were read`);
}
