/**
 * The hash of one canonical entry: key, kind, stamp, expiry and value, 128 bits. Never the dot, which may differ
 * between replicas that agree. All replicas must compute the same, so it is no dependency but part of the
 * protocol.
 *
 * Blocks and finish of MurmurHash3 x86 128 (Austin Appleby, public domain), over a stream of 32-bit words: the key's UTF-16 code units,
 * two a word; eight words of what is fixed (kind, stamp, expiry, length of the key); the value, four bytes a word,
 * the first byte lowest. Each part is padded with zeros to whole blocks of four words; the lengths tell them apart.
 * Not keyed: it tells honest copies apart, not forged ones.
 */
import { AT_STAMP, expiresAtOf, isTombstone, kindOf, valueOffset } from './entry.js';
import type { Row } from './types.js';

/** Hash of one entry, four words of 32 bits with the lowest first, and whether it is summed as a mortal one. */
export interface EntryDigest {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  /** Deleted, or with an expiry: garbage collection may take it at one replica before another. */
  readonly mortal: boolean;
}

const C1 = 0x239b961b;
const C2 = 0xab0e9789;
const C3 = 0x38b34ae5;
const C4 = 0xa1e38b93;

/** The four words that the blocks go into, one entry at a time. */
const state = new Int32Array(4);

export function digestEntry(key: string, row: Row): EntryDigest {
  const from = valueOffset(row);
  state[0] = 0;
  state[1] = 0;
  state[2] = 0;
  state[3] = 0;
  mixText(key);
  mixFixed(key, row);
  mixBytes(row, from);
  return finished(row.length - from, isTombstone(row) || expiresAtOf(row) !== undefined);
}

/** One block. */
function mix(first: number, second: number, third: number, fourth: number): void {
  let a = state[0]!;
  let b = state[1]!;
  let c = state[2]!;
  let d = state[3]!;
  let k = Math.imul(first, C1);
  a ^= Math.imul((k << 15) | (k >>> 17), C2);
  a = (Math.imul(((a << 19) | (a >>> 13)) + b, 5) + 0x561ccd1b) | 0;
  k = Math.imul(second, C2);
  b ^= Math.imul((k << 16) | (k >>> 16), C3);
  b = (Math.imul(((b << 17) | (b >>> 15)) + c, 5) + 0x0bcaa747) | 0;
  k = Math.imul(third, C3);
  c ^= Math.imul((k << 17) | (k >>> 15), C4);
  c = (Math.imul(((c << 15) | (c >>> 17)) + d, 5) + 0x96cd1c35) | 0;
  k = Math.imul(fourth, C4);
  d ^= Math.imul((k << 18) | (k >>> 14), C1);
  d = (Math.imul(((d << 13) | (d >>> 19)) + a, 5) + 0x32ac3b17) | 0;
  state[0] = a;
  state[1] = b;
  state[2] = c;
  state[3] = d;
}

function mixText(text: string): void {
  let i = 0;
  for (const end = text.length - 7; i < end; i += 8)
    mix(
      text.charCodeAt(i) | (text.charCodeAt(i + 1) << 16),
      text.charCodeAt(i + 2) | (text.charCodeAt(i + 3) << 16),
      text.charCodeAt(i + 4) | (text.charCodeAt(i + 5) << 16),
      text.charCodeAt(i + 6) | (text.charCodeAt(i + 7) << 16),
    );
  if (i < text.length)
    mix(lastUnits(text, i), lastUnits(text, i + 2), lastUnits(text, i + 4), lastUnits(text, i + 6));
}

function mixFixed(key: string, row: Row): void {
  const expiry = expiresAtOf(row);
  mix(
    kindOf(row) | (expiry === undefined ? 0 : 0x100),
    word(row, AT_STAMP),
    word(row, AT_STAMP + 4),
    word(row, AT_STAMP + 8),
  );
  mix(
    word(row, AT_STAMP + 12),
    expiry === undefined ? 0 : expiry | 0,
    expiry === undefined ? 0 : (expiry / 0x1_0000_0000) | 0,
    key.length,
  );
}

function mixBytes(row: Row, from: number): void {
  let i = from;
  for (const end = row.length - 15; i < end; i += 16)
    mix(word(row, i), word(row, i + 4), word(row, i + 8), word(row, i + 12));
  if (i < row.length)
    mix(lastBytes(row, i), lastBytes(row, i + 4), lastBytes(row, i + 8), lastBytes(row, i + 12));
}

function word(row: Row, at: number): number {
  return row[at]! | (row[at + 1]! << 8) | (row[at + 2]! << 16) | (row[at + 3]! << 24);
}

/** A word of what may end within it, or have ended before. */
function lastBytes(row: Row, at: number): number {
  const left = row.length - at;
  if (left >= 4) return word(row, at);
  let last = 0;
  for (let i = 0; i < left; i++) last |= row[at + i]! << (8 * i);
  return last;
}

function lastUnits(text: string, at: number): number {
  const left = text.length - at;
  if (left <= 0) return 0;
  return left === 1 ? text.charCodeAt(at) : text.charCodeAt(at) | (text.charCodeAt(at + 1) << 16);
}

function finished(valueBytes: number, mortal: boolean): EntryDigest {
  let a = state[0]! ^ valueBytes;
  let b = state[1]! ^ valueBytes;
  let c = state[2]! ^ valueBytes;
  let d = state[3]! ^ valueBytes;
  a = (a + b + c + d) | 0;
  b = finish((b + a) | 0);
  c = finish((c + a) | 0);
  d = finish((d + a) | 0);
  a = finish(a);
  a = (a + b + c + d) | 0;
  return { a, b: (b + a) | 0, c: (c + a) | 0, d: (d + a) | 0, mortal };
}

function finish(hash: number): number {
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}
