/**
 * Dividing the entries into ranges of about equal size without reading them all: what a bootstrap from several
 * peers begins with. How many entries lie where is told by the leaves of the digest; a few samples tell what these are
 * in bytes. While there are no leaves, or too few, since the entries are large, LevelDB knows roughly how many bytes of
 * its files lie between two keys; what is still in memory and in no file is then in any of the ranges.
 *
 * The result is advice. Nothing depends on its being right.
 */
import type { KeyShare } from '../core/types.js';
import type { LevelBytes } from './level-bytes.js';
import type { RangePlan } from './store.js';

/** Shares that a range has at least: its size is off by at most one of them. */
const SHARES_MIN = 4;
/** Rows of one sample, and samples: at the beginning and at each quarter. */
const SAMPLE_ROWS = 512;
const SAMPLES = 4;
/** A range may be off by this share of its size. */
const TOLERANCE = 1 / 8;
/** A boundary is looked for in so many bytes of the key at most. */
const DEPTH_MAX = 64;
const FROM_START = new Uint8Array(0);

export async function planRanges(
  entries: LevelBytes,
  rangeBytes: number,
  rangesMax: number,
  shares: readonly KeyShare[],
): Promise<RangePlan> {
  return (
    (await planByShares(entries, rangeBytes, rangesMax, shares)) ??
    (await planByFiles(entries, rangeBytes, rangesMax))
  );
}

/** undefined: the shares are too few. */
async function planByShares(
  entries: LevelBytes,
  rangeBytes: number,
  rangesMax: number,
  shares: readonly KeyShare[],
): Promise<RangePlan | undefined> {
  const count = shares.reduce((sum, share) => sum + share.count, 0);
  if (count === 0) return undefined;
  const sizes = shares.map((share) => ({ key: share.key, bytes: share.count }));
  const samples = { rows: 0, bytes: 0 };
  for (const key of ['', ...boundaries(sizes, count, count / SAMPLES, SAMPLES)]) {
    const { rows, bytes } = await entries.sample(Buffer.from(key), SAMPLE_ROWS);
    samples.rows += rows;
    samples.bytes += bytes;
  }
  if (samples.rows === 0) return undefined;
  const rowsPerRange = (rangeBytes * samples.rows) / samples.bytes;
  const parts = Math.min(rangesMax, Math.ceil(count / rowsPerRange));
  if (parts > 1 && shares.length < SHARES_MIN * parts) return undefined;
  const keys = boundaries(sizes, count, rowsPerRange, rangesMax);
  return { keys, entries: count, bytes: Math.round((count * samples.bytes) / samples.rows) };
}

async function planByFiles(entries: LevelBytes, rangeBytes: number, rangesMax: number): Promise<RangePlan> {
  const total = await entries.size(FROM_START, undefined);
  const samples = { rows: 0, bytes: 0, stored: 0 };
  for (let i = 0; i < SAMPLES; i++) {
    const from = i === 0 ? FROM_START : await positionAt(entries, (total * i) / SAMPLES, total / 16);
    const { rows, bytes, last } = await entries.sample(from, SAMPLE_ROWS);
    if (last === undefined) continue;
    samples.rows += rows;
    samples.bytes += bytes;
    samples.stored += await entries.size(from, last);
  }
  const bytes = samples.stored === 0 ? total : total * (samples.bytes / samples.stored);
  const parts = Math.max(1, Math.min(rangesMax, Math.ceil(bytes / rangeBytes)));
  const keys: string[] = [];
  for (let i = 1; i < parts; i++) {
    const position = await positionAt(entries, (total * i) / parts, (total / parts) * TOLERANCE);
    const key = await entries.keyFrom(position);
    if (key !== undefined && key !== keys.at(-1)) keys.push(key);
  }
  return {
    keys,
    entries: samples.bytes === 0 ? 0 : Math.round((bytes * samples.rows) / samples.bytes),
    bytes: Math.round(bytes),
  };
}

/** A position with about `target` bytes before it: byte by byte, the last one at which there is not more. */
async function positionAt(entries: LevelBytes, target: number, tolerance: number): Promise<Uint8Array> {
  let position: number[] = [];
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    let low = 0;
    let high = 256;
    let before = 0;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      const size = await entries.size(FROM_START, Uint8Array.from([...position, middle]));
      if (size > target) high = middle;
      else {
        low = middle;
        before = size;
      }
    }
    position = [...position, low];
    if (low > 0 && target - before <= tolerance) break;
  }
  return Uint8Array.from(position);
}

/** Keys at which a range of about equal size ends, but for the last. */
export function boundaries(
  sizes: Iterable<{ key: string; bytes: number }>,
  total: number,
  rangeBytes: number,
  rangesMax: number,
): string[] {
  const parts = Math.max(1, Math.min(rangesMax, Math.ceil(total / Math.max(1, rangeBytes))));
  const keys: string[] = [];
  let sum = 0;
  for (const { key, bytes } of sizes) {
    sum += bytes;
    if (keys.length < parts - 1 && sum < total && sum * parts >= total * (keys.length + 1)) keys.push(key);
  }
  return keys;
}
