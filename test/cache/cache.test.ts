import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Cache } from '../../src/cache.js';

const KEYS = Array.from({ length: 40 }, (_, i) => (i % 3 === 0 ? `a key of another length ${i}` : `${i}`));

type Step =
  | { do: 'get' | 'delete'; key: string }
  | { do: 'set'; key: string; value: number; bytes: number }
  | { do: 'clear' };

const key = fc.constantFrom(...KEYS);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 60, arbitrary: fc.record({ do: fc.constant('get' as const), key }) },
  { weight: 20, arbitrary: fc.record({ do: fc.constant('delete' as const), key }) },
  {
    weight: 60,
    arbitrary: fc.record({ do: fc.constant('set' as const), key, value: fc.nat(), bytes: fc.nat(300) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('clear' as const) }) },
);

describe('the cache of decoded values', () => {
  it('never exceeds its bound, and never returns a value that was deleted or replaced', () => {
    let evictions = 0;
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 6_000 }),
        fc.array(step, { maxLength: 200, size: 'max' }),
        (bytesMax, steps) => {
          const cache = new Cache<number>(bytesMax);
          const newest = new Map<string, number>();
          for (const each of steps) {
            if (each.do === 'clear') {
              cache.clear();
              newest.clear();
            } else if (each.do === 'set') {
              cache.set(each.key, each.value, each.bytes);
              newest.set(each.key, each.value);
            } else if (each.do === 'delete') {
              cache.delete(each.key);
              newest.delete(each.key);
            } else {
              const found = cache.get(each.key);
              if (found !== undefined && found !== newest.get(each.key))
                throw new Error(`stale: ${each.key}`);
            }
            const { bytes, entries } = cache.stats;
            expect(bytes).toBeLessThanOrEqual(bytesMax);
            expect(bytes).toBeGreaterThanOrEqual(entries * 160);
            expect(entries).toBeLessThanOrEqual(newest.size);
          }
          evictions += cache.stats.evictions;
          for (const each of KEYS) cache.delete(each);
          expect(cache.stats).toMatchObject({ entries: 0, bytes: 0 });
        },
      ),
      { numRuns: 200 },
    );
    expect(evictions).toBeGreaterThan(500);
  });

  it('returns what was set while there is room, and undefined for what was not', () => {
    const cache = new Cache<number | null>(1e6);
    for (let i = 0; i < 1_000; i++) cache.set(`key ${i}`, i, 100);
    for (let i = 0; i < 1_000; i++) expect(cache.get(`key ${i}`)).toBe(i);
    expect(cache.get('key')).toBeUndefined();
    cache.set('null', null, 0);
    expect(cache.get('null')).toBeNull();
    expect(cache.stats).toMatchObject({
      entries: 1_001,
      hits: 1_001,
      misses: 1,
      evictions: 0,
      bytesMax: 1e6,
    });
  });

  it('keeps what is read while a flood of keys that are read once goes by', () => {
    const cache = new Cache<number>(100_000);
    for (let i = 0; i < 100; i++) cache.set(`hot ${i}`, i, 100);
    for (let i = 0; i < 10_000; i++) {
      if (cache.get(`hot ${i % 100}`) === undefined) throw new Error(`hot ${i % 100} was evicted`);
      cache.set(`cold ${i}`, i, 100);
    }
    expect(cache.stats.evictions).toBeGreaterThan(9_000);
  });

  it('lets go of what was hot once, and is read no more', () => {
    const cache = new Cache<number>(100_000);
    for (let i = 0; i < 100; i++) cache.set(`old ${i}`, i, 100);
    for (let i = 0; i < 100; i++) cache.get(`old ${i}`);
    for (let i = 0; i < 10_000; i++) {
      cache.set(`new ${i}`, i, 100);
      cache.get(`new ${i}`);
    }
    for (let i = 0; i < 100; i++) expect(cache.get(`old ${i}`)).toBeUndefined();
  });

  it('evicts in the order in which keys came, sparing those that were read', () => {
    const cache = new Cache<number>(10 * 162);
    for (let i = 0; i < 10; i++) cache.set(`${i}`, i, 0);
    expect(cache.stats.entries).toBe(10);
    cache.get('0');
    cache.get('2');
    for (const each of ['a', 'b', 'c']) cache.set(each, 0, 0);
    const kept = [...'abc0123456789'].filter((each) => cache.get(each) !== undefined);
    expect(kept).toEqual(['a', 'b', 'c', '0', '2', '5', '6', '7', '8', '9']);
  });

  it('keeps no value that would take more than an eighth of it, nor the former one of that key', () => {
    const cache = new Cache<string>(8_000);
    cache.set('k', 'small', 10);
    cache.set('k', 'large', 1_000);
    expect(cache.get('k')).toBeUndefined();
    expect(cache.stats).toMatchObject({ entries: 0, bytes: 0 });
    cache.set('k', 'fits', 1_000 - 162);
    expect(cache.get('k')).toBe('fits');
  });

  it('of no bytes keeps nothing', () => {
    const cache = new Cache<string>(0);
    cache.set('', '', 0);
    expect(cache.get('')).toBeUndefined();
    expect(cache.delete('')).toBe(false);
  });
});
