import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import {
  expiresAtOf,
  KIND_REGISTER,
  makeRow,
  stampCounterOf,
  stampMsOf,
  valueOffset,
} from '../../src/core/entry.js';
import type { Row } from '../../src/core/types.js';
import { EncodedCache } from '../../src/encoded-cache.js';
import { TRICKY_KEYS } from '../storage/records.js';

const KEYS = [...TRICKY_KEYS, ...Array.from({ length: 240 }, (_, i) => `${'k'.repeat(i % 7)}${i}`)];
/** Four segments, less the index: a few hundred entries of a kilobyte push each other out. */
const BYTES_MAX = 262_144;

function rowOf(key: string, seq: number, length: number, expires: boolean): Row {
  const stamp = new Uint8Array(16);
  new DataView(stamp.buffer).setBigUint64(0, BigInt(seq) * 0x1_0001n + (123n << 40n));
  const value = new Uint8Array(length).fill(seq);
  const entry = { kind: KIND_REGISTER, stamp, origin: 'ab'.repeat(8), seq, value };
  return makeRow(key, expires ? { ...entry, expiresAt: 5 } : entry, checksum);
}

/** What the cache says of a key: value and stamp. */
function read(cache: EncodedCache, key: string): { value: string; ms: number; counter: number } | undefined {
  // Within other bytes, as a key in a frame is.
  const bytes = Buffer.from(`<<${key}>>`);
  const place = cache.find(bytes, 2, bytes.length - 2);
  if (place === -1) return undefined;
  const value = Buffer.from(cache.bytes.subarray(cache.valueFrom(place), cache.valueTo(place)));
  return { value: value.toString('hex'), ms: cache.stampMs(place), counter: cache.stampCounter(place) };
}

function said(row: Row): ReturnType<typeof read> {
  const value = Buffer.from(row.subarray(valueOffset(row))).toString('hex');
  return { value, ms: stampMsOf(row), counter: stampCounterOf(row) };
}

const key = fc.constantFrom(...KEYS);
const length = fc.oneof(fc.nat(64), fc.constantFrom(0, 3_000, 6_000, 8_000, 8_200, 70_000));
// Seldom, since that is not kept.
const expires = fc.nat(9).map((n) => n === 0);
const step = fc.oneof(
  {
    weight: 60,
    arbitrary: fc.record({ do: fc.constant('put' as const), key, length, expires }),
  },
  { weight: 60, arbitrary: fc.record({ do: fc.constant('find' as const), key }) },
  { weight: 20, arbitrary: fc.record({ do: fc.constant('delete' as const), key }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('clear' as const) }) },
);

describe('the cache of encoded values', () => {
  test('says of a key what was put there last, or nothing; never anything else', () => {
    let hits = 0;
    let pushedOut = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 1_500, maxLength: 3_000, size: 'max' }), (steps) => {
        const cache = new EncodedCache(BYTES_MAX);
        const newest = new Map<string, Row>();
        let seq = 0;
        for (const each of steps) {
          if (each.do === 'put') {
            const row = rowOf(each.key, ++seq, each.length, each.expires);
            cache.put(each.key, row);
            newest.set(each.key, row);
          } else if (each.do === 'delete') {
            cache.delete(each.key);
            newest.delete(each.key);
          } else if (each.do === 'clear') {
            cache.clear();
            newest.clear();
          } else {
            const found = read(cache, each.key);
            const row = newest.get(each.key);
            if (found !== undefined) {
              hits++;
              expect(found).toEqual(row === undefined ? undefined : said(row));
            } else if (row !== undefined && row.length < 8_000 && expiresAtOf(row) === undefined) pushedOut++;
          }
        }
        let live = 0;
        for (const one of KEYS) if (read(cache, one) !== undefined) live++;
        expect(cache.stats.entries).toBe(live);
      }),
      { numRuns: 20 },
    );
    // Otherwise nothing was tested.
    expect(hits).toBeGreaterThan(100);
    expect(pushedOut).toBeGreaterThan(0);
  });

  test('keeps nothing that expires, nor what such an entry replaced', () => {
    const cache = new EncodedCache(BYTES_MAX);
    cache.put('k', rowOf('k', 1, 10, false));
    expect(read(cache, 'k')).toBeDefined();
    cache.put('k', rowOf('k', 2, 10, true));
    expect(read(cache, 'k')).toBeUndefined();
  });

  test('keeps nothing that expires, nor what was there before it', () => {
    const cache = new EncodedCache(BYTES_MAX);
    cache.put('k', rowOf('k', 1, 10, false));
    expect(read(cache, 'k')).toBeDefined();
    cache.put('k', rowOf('k', 2, 10, true));
    expect(read(cache, 'k')).toBeUndefined();
  });

  test('holds as many small entries as its memory has room for, each of them found', () => {
    const cache = new EncodedCache(4_194_304);
    const rows = Array.from({ length: 30_000 }, (_, i) => rowOf(`key ${i}`, i + 1, 20, false));
    for (const [i, row] of rows.entries()) cache.put(`key ${i}`, row);
    expect(cache.stats.entries).toBe(rows.length);
    for (const [i, row] of rows.entries()) expect(read(cache, `key ${i}`)).toEqual(said(row));
  });

  test('pushes out what is not read before what is', () => {
    const cache = new EncodedCache(BYTES_MAX);
    const hot = Array.from({ length: 10 }, (_, i) => `hot ${i}`);
    for (const each of hot) cache.put(each, rowOf(each, 1, 100, false));
    for (let i = 0; i < 20_000; i++) {
      cache.put(`cold ${i}`, rowOf(`cold ${i}`, 2, 100, false));
      if (i % 100 === 0) for (const each of hot) expect(read(cache, each), `${each} at ${i}`).toBeDefined();
    }
    expect(read(cache, 'cold 0')).toBeUndefined();
    expect(read(cache, 'cold 19999')).toBeDefined();
  });

  test('keeps nothing with less than it needs, and its version rises with every change of the store', () => {
    const cache = new EncodedCache(0);
    cache.put('k', rowOf('k', 1, 10, false));
    expect(read(cache, 'k')).toBeUndefined();
    const { version } = cache;
    cache.delete('not there');
    expect(cache.version).toBe(version + 1);
    cache.clear();
    expect(cache.version).toBe(version + 2);
  });
});
