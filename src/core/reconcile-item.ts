/**
 * What tells two members' records of one key apart without their values: 1 byte of flags, then, if there is a
 * record, the 32 bytes that follow the checksum in a row (kind, flags, stamp, dot) and the 16 of its hash.
 */
import { compareBytes, isOverBy, toHex } from './entry.js';
import { digestEntry } from './entry-hash.js';
import type { OriginId, Row, StampHex } from './types.js';

const FLAG_SUSPECT = 1;
const FLAG_OVER = 2;
const AT_HEADER = 1;
const HEADER_BYTES = 32;
const AT_HASH = AT_HEADER + HEADER_BYTES;
const ITEM_BYTES = AT_HASH + 16;
/** Offset in the item of what starts at 4 in the row. */
const SHIFT = AT_HEADER - 4;
const AT_STAMP = 6 + SHIFT;
const AT_ORIGIN = 22 + SHIFT;
const AT_SEQ = 30 + SHIFT;

export type Item = Uint8Array;

export function isItem(bytes: Uint8Array): boolean {
  return bytes.length === ITEM_BYTES || bytes.length === 1;
}

/** `suspect`: its sender has evidence of damage there, so that what it says is no vote. */
/** `cut`: the entry is marked if garbage collection up to there takes it. */
export function itemOf(key: string, row: Row | undefined, suspect = false, cut = 0): Item {
  const item = new Uint8Array(row === undefined ? 1 : ITEM_BYTES);
  item[0] = (suspect ? FLAG_SUSPECT : 0) | (row !== undefined && isOverBy(row, cut) ? FLAG_OVER : 0);
  if (row === undefined) return item;
  item.set(row.subarray(4, 4 + HEADER_BYTES), AT_HEADER);
  const { a, b, c, d } = digestEntry(key, row);
  [d, c, b, a].forEach((word, i) => {
    for (let byte = 0; byte < 4; byte++) item[AT_HASH + 4 * i + byte] = word >>> (24 - 8 * byte);
  });
  return item;
}

export function isSuspect(item: Item): boolean {
  return (item[0]! & FLAG_SUSPECT) !== 0;
}

/** One of the two members may have collected it: its absence says the same. */
export function isOver(item: Item): boolean {
  return (item[0]! & FLAG_OVER) !== 0;
}

export function isPresent(item: Item): boolean {
  return item.length === ITEM_BYTES;
}

export function sameEntry(a: Item, b: Item): boolean {
  return compareBytes(a, AT_HASH, ITEM_BYTES, b, AT_HASH, ITEM_BYTES) === 0;
}

export function compareItemStamps(a: Item, b: Item): number {
  return compareBytes(a, AT_STAMP, AT_ORIGIN, b, AT_STAMP, AT_ORIGIN);
}

export function itemStamp(item: Item): StampHex {
  return toHex(item, AT_STAMP, AT_ORIGIN);
}

export function itemOrigin(item: Item): OriginId {
  return toHex(item, AT_ORIGIN, AT_SEQ);
}

export function itemSeq(item: Item): number {
  let seq = 0;
  for (let i = AT_SEQ; i < AT_SEQ + 6; i++) seq = seq * 256 + item[i]!;
  return seq;
}
