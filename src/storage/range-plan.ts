/**
 * Dividing the entries into ranges of about equal size without reading them all: what a bootstrap from several
 * peers begins with. LevelDB knows roughly how many bytes of its files lie between two keys; a few samples tell
 * what these bytes make in records. A small store, much of which may still be in memory and not in any file, is
 * read through instead.
 *
 * The result is advice. Nothing depends on its being right.
 */
import type { LevelBytes } from './level-bytes.js';
import type { RangePlan } from './store.js';

/** Less than this in files, and the whole store is read through. */
const READ_THROUGH_BYTES = 4 * 1024 * 1024;
/** Rows of one sample, and samples: at the beginning and at each quarter. */
const SAMPLE_ROWS = 512;
const SAMPLES = 4;
/** A range may be off by this share of its size. */
const TOLERANCE = 1 / 8;
/** A boundary is looked for in so many bytes of the key at most. */
const DEPTH_MAX = 64;

export async function planRanges(
  entries: LevelBytes,
  rangeBytes: number,
  rangesMax: number,
): Promise<RangePlan> {
  const total = await entries.size(new Uint8Array(0), undefined);
  if (total < READ_THROUGH_BYTES) return readThrough(entries, rangeBytes, rangesMax);
  const samples = { rows: 0, bytes: 0, stored: 0 };
  for (let i = 0; i < SAMPLES; i++) {
    const from = i === 0 ? new Uint8Array(0) : await positionAt(entries, (total * i) / SAMPLES, total / 16);
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
      const size = await entries.size(new Uint8Array(0), Uint8Array.from([...position, middle]));
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

async function readThrough(entries: LevelBytes, rangeBytes: number, rangesMax: number): Promise<RangePlan> {
  const sizes: { key: string; bytes: number }[] = [];
  let count = 0;
  let total = 0;
  for await (const { key, bytes } of entries.all()) {
    count += 1;
    total += bytes;
    sizes.push({ key, bytes });
  }
  return { keys: boundaries(sizes, total, rangeBytes, rangesMax), entries: count, bytes: total };
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
