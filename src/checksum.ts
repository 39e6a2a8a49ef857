/**
 * Checksum of a row under its key: crc32 (IEEE) of the row's bytes after the checksum, seeded with an FNV-1a
 * hash of the key's UTF-16 code units. The seed makes a record that comes back under another key's name
 * (a wrong read, a damaged index block) fail its check, at the price of one short loop and no second native call.
 *
 * Short rows are summed here, eight bytes a step ("slicing by eight", Kounavis and Berry, 2005): a call into zlib
 * costs more than that.
 */
import { crc32 } from 'node:zlib';
import { claimedChecksum } from './core/entry.js';
import type { Row } from './core/types.js';

/** The hash of an empty text. Signed, as all of them are: others would not be small integers to V8. */
export const FNV_OFFSET = 0x811c9dc5 | 0;
const FNV_PRIME = 0x01000193;
const POLYNOMIAL = 0xedb88320;
/** Rows up to this many bytes are summed in JavaScript. */
const SHORT_ROW = 240;
/** Bytes of the checksum itself, which it does not cover. */
const CHECKSUM_BYTES = 4;

/** Eight tables of 256: the effect of one byte that is followed by 0 to 7 more of its step. */
const TABLES = new Int32Array(2_048);
for (let byte = 0; byte < 256; byte++) {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? POLYNOMIAL : 0);
  TABLES[byte] = value;
}
for (let at = 256; at < TABLES.length; at++)
  TABLES[at] = (TABLES[at - 256]! >>> 8) ^ TABLES[TABLES[at - 256]! & 0xff]!;

function crcOfShort(bytes: Uint8Array, seed: number): number {
  let crc = ~seed;
  let at = CHECKSUM_BYTES;
  for (const end = bytes.length - 7; at < end; at += 8) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc =
      TABLES[1_792 + (crc & 0xff)]! ^
      TABLES[1_536 + ((crc >>> 8) & 0xff)]! ^
      TABLES[1_280 + ((crc >>> 16) & 0xff)]! ^
      TABLES[1_024 + (crc >>> 24)]! ^
      TABLES[768 + bytes[at + 4]!]! ^
      TABLES[512 + bytes[at + 5]!]! ^
      TABLES[256 + bytes[at + 6]!]! ^
      TABLES[bytes[at + 7]!]!;
  }
  for (; at < bytes.length; at++) crc = (crc >>> 8) ^ TABLES[(crc ^ bytes[at]!) & 0xff]!;
  return ~crc >>> 0;
}

/** The hash of a text that goes on with this UTF-16 code unit. */
export function hashUnit(before: number, unit: number): number {
  return Math.imul(before ^ unit, FNV_PRIME);
}

/** The hash that seeds a checksum, of what `text` holds from `from` on. `before`: that of the text before it. */
export function hashText(text: string, before = FNV_OFFSET, from = 0): number {
  let hash = before;
  for (let i = from; i < text.length; i++) hash = hashUnit(hash, text.charCodeAt(i));
  return hash;
}

/** The checksum of a row whose key has this hash. */
export function checksumFrom(hash: number, row: Row): number {
  return row.length <= SHORT_ROW ? crcOfShort(row, hash) : crc32(row.subarray(CHECKSUM_BYTES), hash >>> 0);
}

export function checksum(key: string, row: Row): number {
  return checksumFrom(hashText(key), row);
}

/** `from`: where the key begins in `key`; to cut it out first, only to go through it, would take as long again. */
export function isIntact(key: string, row: Row, from = 0): boolean {
  return isIntactFrom(hashText(key, FNV_OFFSET, from), row);
}

/** The same of a row whose key has this hash. */
export function isIntactFrom(hash: number, row: Row): boolean {
  return row.length >= CHECKSUM_BYTES && claimedChecksum(row) === checksumFrom(hash, row);
}
