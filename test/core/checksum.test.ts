import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';

/** The definition, without shortcuts. */
function reference(key: string, row: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return crc32(row.subarray(4), hash >>> 0);
}

test('rows of every length have the checksum that zlib gives', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }),
      fc.uint8Array({ minLength: 4, maxLength: 400, size: 'max' }),
      (key, row) => {
        expect(checksum(key, row)).toBe(reference(key, row));
      },
    ),
    { numRuns: 2_000 },
  );
});
