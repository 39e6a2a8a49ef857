/**
 * Checksum of a row under its key: crc32 (IEEE) of the row's bytes after the checksum, seeded with an FNV-1a
 * hash of the key's UTF-16 code units. The seed makes a record that comes back under another key's name
 * (a wrong read, a damaged index block) fail its check, at the price of one short loop and no second native call.
 */
import { crc32 } from 'node:zlib';
import { claimedChecksum } from './core/entry.js';
import type { Row } from './core/types.js';

const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

export function checksum(key: string, row: Row): number {
  let hash = FNV_OFFSET;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), FNV_PRIME);
  return crc32(row.subarray(4), hash >>> 0);
}

export function isIntact(key: string, row: Row): boolean {
  return row.length > 4 && claimedChecksum(row) === checksum(key, row);
}
