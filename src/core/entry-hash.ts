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

/** The words of the entry at hand. Grows to the longest entry seen. */
let words = new Int32Array(1_024);

export function digestEntry(key: string, row: Row): EntryDigest {
  const from = valueOffset(row);
  const most = (key.length >> 1) + (row.length >> 2) + 24;
  if (words.length < most) words = new Int32Array(2 * most);
  const mortal = isTombstone(row) || expiresAtOf(row) !== undefined;
  const end = packBytes(row, from, packFixed(key, row, packText(key)));
  return digestWords(end, row.length - from, mortal);
}

/** Fills up the last block of four words. */
function pad(at: number): number {
  let end = at;
  for (; (end & 3) !== 0; end++) words[end] = 0;
  return end;
}

function packText(text: string): number {
  const { length } = text;
  let at = 0;
  let i = 0;
  for (; i + 1 < length; i += 2) words[at++] = text.charCodeAt(i) | (text.charCodeAt(i + 1) << 16);
  if (i < length) words[at++] = text.charCodeAt(i);
  return pad(at);
}

function packFixed(key: string, row: Row, from: number): number {
  let at = from;
  const expiry = expiresAtOf(row);
  words[at++] = kindOf(row) | (expiry === undefined ? 0 : 0x100);
  for (let i = AT_STAMP; i < AT_STAMP + 16; i += 4)
    words[at++] = row[i]! | (row[i + 1]! << 8) | (row[i + 2]! << 16) | (row[i + 3]! << 24);
  words[at++] = expiry === undefined ? 0 : expiry | 0;
  words[at++] = expiry === undefined ? 0 : (expiry / 0x1_0000_0000) | 0;
  words[at++] = key.length;
  return at;
}

function packBytes(row: Row, from: number, to: number): number {
  let at = to;
  let i = from;
  for (const end = row.length - 3; i < end; i += 4)
    words[at++] = row[i]! | (row[i + 1]! << 8) | (row[i + 2]! << 16) | (row[i + 3]! << 24);
  if (i < row.length) {
    let word = 0;
    for (let shift = 0; i < row.length; i++, shift += 8) word |= row[i]! << shift;
    words[at++] = word;
  }
  return pad(at);
}

function digestWords(count: number, valueBytes: number, mortal: boolean): EntryDigest {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  for (let i = 0; i < count; i += 4) {
    let k = Math.imul(words[i]!, C1);
    a ^= Math.imul((k << 15) | (k >>> 17), C2);
    a = (Math.imul(((a << 19) | (a >>> 13)) + b, 5) + 0x561ccd1b) | 0;
    k = Math.imul(words[i + 1]!, C2);
    b ^= Math.imul((k << 16) | (k >>> 16), C3);
    b = (Math.imul(((b << 17) | (b >>> 15)) + c, 5) + 0x0bcaa747) | 0;
    k = Math.imul(words[i + 2]!, C3);
    c ^= Math.imul((k << 17) | (k >>> 15), C4);
    c = (Math.imul(((c << 15) | (c >>> 17)) + d, 5) + 0x96cd1c35) | 0;
    k = Math.imul(words[i + 3]!, C4);
    d ^= Math.imul((k << 18) | (k >>> 14), C1);
    d = (Math.imul(((d << 13) | (d >>> 19)) + a, 5) + 0x32ac3b17) | 0;
  }
  a ^= valueBytes;
  b ^= valueBytes;
  c ^= valueBytes;
  d ^= valueBytes;
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
