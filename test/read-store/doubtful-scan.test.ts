/** Scans of a store that has lost records: what a peer brings back while they run is in them, in order, once. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compareKeys } from '../../src/core/key-order.js';
import type { Row } from '../../src/core/types.js';
import { DoubtfulScan } from '../../src/node/doubtful-scan.js';
import type { RowScan } from '../../src/service.js';
import { type KeyInterval, keyInterval } from '../../src/storage/key-range.js';
import type { KeyRange } from '../../src/storage/store.js';

const ROW: Row = new Uint8Array(1);

function within(key: string, { lower, lowerInclusive, upper, upperInclusive }: KeyInterval): boolean {
  const below = compareKeys(key, lower);
  if (below < 0 || (below === 0 && !lowerInclusive)) return false;
  if (upper === undefined) return true;
  const above = compareKeys(key, upper);
  return above < 0 || (above === 0 && upperInclusive);
}

/** Keys of a store, which scans as LevelDB does: from a view, in pages. */
function scanOf(store: ReadonlySet<string>, range: KeyRange): RowScan {
  const keys = [...store].filter((key) => within(key, keyInterval(range))).sort(compareKeys);
  if (range.reverse === true) keys.reverse();
  return {
    next: async (rowsMax) => {
      const page = keys.splice(0, rowsMax);
      return { keys: page, rows: page.map(() => ROW) };
    },
    close: async () => {},
  };
}

const key = fc.string({ minLength: 1, maxLength: 3, unit: fc.constantFrom('a', 'b', '/', '\u{10ffff}') });
const bound = fc.option(key, { nil: undefined });
const range = fc
  .record({ gt: bound, gte: bound, lt: bound, lte: bound, prefix: bound, reverse: fc.boolean() })
  .map(
    (all) => Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as KeyRange,
  );

test('a scan of a store that lost records gives what the whole one has, whatever the range and the pages', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(key, { maxLength: 30 }),
      fc.uniqueArray(fc.nat(29), { maxLength: 30 }),
      range,
      fc.integer({ min: 1, max: 8 }),
      fc.option(fc.nat(12), { nil: Number.POSITIVE_INFINITY }),
      async (keys, lost, bounds, rowsMax, limit) => {
        const whole = new Set(keys);
        const store = new Set(keys.filter((_, i) => !lost.includes(i)));
        const healWithin = async (interval: KeyInterval): Promise<void> => {
          for (const key of whole) if (within(key, interval)) store.add(key);
        };
        const scan = new DoubtfulScan((part) => scanOf(store, part), { healWithin }, bounds, limit);
        const found: string[] = [];
        for (;;) {
          const page = await scan.next(rowsMax);
          if (page.keys.length === 0) break;
          expect(page.rows.length).toBe(page.keys.length);
          found.push(...page.keys);
        }
        const expected = (await scanOf(whole, bounds).next(whole.size)).keys;
        expect(found).toEqual(expected.slice(0, limit));
      },
    ),
    { numRuns: 500 },
  );
});

test('it ends with the refusal when nobody can say what is there', async () => {
  const healWithin = async (): Promise<void> => {
    throw new Error('nobody');
  };
  const scan = new DoubtfulScan((part) => scanOf(new Set(['a']), part), { healWithin }, {}, 10);
  await expect(scan.next(5)).rejects.toThrow('nobody');
  await scan.close();
});
