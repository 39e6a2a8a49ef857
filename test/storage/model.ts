/**
 * Random sequences of batches, scans, snapshots and reopenings, compared with a model that is as naive as can be:
 * maps, filtered and sorted the long way.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { dotOf } from '../../src/core/entry.js';
import type { BatchRow, OriginId, Row, StoreBatch } from '../../src/core/types.js';
import type { KeyRange, Snapshot } from '../../src/storage/store.js';
import type { StoreHarness } from './contract.js';
import {
  batchOf,
  byBytes,
  drain,
  drainKeys,
  ORIGIN_A,
  ORIGIN_B,
  ORIGIN_C,
  record,
  TRICKY_KEYS,
} from './records.js';

class Model {
  readonly rows = new Map<string, Row>();
  readonly heads = new Map<OriginId, number>();

  copy(): Model {
    const copy = new Model();
    for (const [key, row] of this.rows) copy.rows.set(key, row);
    for (const [origin, head] of this.heads) copy.heads.set(origin, head);
    return copy;
  }

  /** A batch of the origin's next writes, applied here as well. */
  write(origin: OriginId, keys: readonly string[]): StoreBatch {
    const rows = new Map<string, BatchRow>();
    for (const key of new Set(keys)) {
      const seq = (this.heads.get(origin) ?? 0) + 1;
      const old = this.rows.get(key);
      const row = record(key, { origin, seq }, `${origin}/${seq}`);
      rows.set(key, { row, replaces: old === undefined ? undefined : dotOf(old) });
      this.rows.set(key, row);
      this.heads.set(origin, seq);
    }
    const head = this.heads.get(origin);
    return batchOf({ rows, heads: head === undefined ? new Map() : new Map([[origin, head]]) });
  }

  inRange(range: KeyRange): string[] {
    const keys = [...this.rows.keys()]
      .filter(
        (key) =>
          (range.gt === undefined || byBytes(key, range.gt) > 0) &&
          (range.gte === undefined || byBytes(key, range.gte) >= 0) &&
          (range.lt === undefined || byBytes(key, range.lt) < 0) &&
          (range.lte === undefined || byBytes(key, range.lte) <= 0) &&
          (range.prefix === undefined || key.startsWith(range.prefix)),
      )
      .sort(byBytes);
    if (range.reverse === true) keys.reverse();
    return keys.slice(0, range.limit);
  }

  above(heads: ReadonlyMap<OriginId, number>): string[] {
    return [...this.rows]
      .map(([key, row]) => ({ key, dot: dotOf(row) }))
      .filter(({ dot }) => dot.seq > (heads.get(dot.origin) ?? 0))
      .sort((a, b) => byBytes(a.dot.origin, b.dot.origin) || a.dot.seq - b.dot.seq)
      .map(({ key }) => key);
  }

  tops(): Map<OriginId, number> {
    const tops = new Map<OriginId, number>();
    for (const row of this.rows.values()) {
      const { origin, seq } = dotOf(row);
      tops.set(origin, Math.max(seq, tops.get(origin) ?? 0));
    }
    return tops;
  }
}

const ALPHABET = ['\0', 'a', 'b', '/', 'é', '中', '\ud7ff', '\ue000', '\uff01', '😀', '\u{10ffff}'];
const someKey = fc.oneof(
  fc.constantFrom(...TRICKY_KEYS),
  fc.array(fc.constantFrom(...ALPHABET), { minLength: 1, maxLength: 4 }).map((parts) => parts.join('')),
);
const bound = fc.option(someKey, { nil: undefined, freq: 1 });
const someRange = fc.record(
  {
    gt: bound,
    gte: bound,
    lt: bound,
    lte: bound,
    prefix: fc.oneof(bound, fc.constantFrom(...ALPHABET)),
    reverse: fc.boolean(),
    limit: fc.option(fc.nat(20), { nil: undefined }),
  },
  { requiredKeys: [] },
);
const someHeads = fc.dictionary(fc.constantFrom(ORIGIN_A, ORIGIN_B, ORIGIN_C), fc.nat(40), {
  noNullPrototype: true,
});
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      origin: fc.constantFrom(ORIGIN_A, ORIGIN_B, ORIGIN_C),
      keys: fc.array(someKey, { minLength: 1, maxLength: 30 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('range' as const),
      range: someRange,
      chunk: fc.integer({ min: 1, max: 9 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('above' as const),
      heads: someHeads,
      chunk: fc.integer({ min: 1, max: 9 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('snapshot' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reopen' as const) }) },
);

export function modelled(create: () => Promise<StoreHarness>): void {
  it('any sequence of batches reads like a map sorted by bytes, in the present and in every open snapshot', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 25 }), async (actions) => {
        const harness = await create();
        try {
          const model = new Model();
          let open: { snapshot: Snapshot; past: Model }[] = [];
          for (const step of actions) {
            if (step.do === 'write') await harness.store.write(model.write(step.origin, step.keys));
            else if (step.do === 'snapshot') {
              open.push({ snapshot: await harness.store.snapshot(), past: model.copy() });
            } else if (step.do === 'reopen') {
              for (const { snapshot } of open) await snapshot.close();
              open = [];
              await harness.reopen();
              const { heads, tops } = harness.store.recovered;
              expect(new Map(heads)).toEqual(model.heads);
              expect(new Map(tops)).toEqual(model.tops());
            } else if (step.do === 'range') {
              expect(await drainKeys(harness.store.rows(step.range), step.chunk)).toEqual(
                model.inRange(step.range),
              );
              for (const { snapshot, past } of open)
                expect(await drainKeys(snapshot.rows(step.range), step.chunk)).toEqual(
                  past.inRange(step.range),
                );
            } else {
              const heads = new Map(Object.entries(step.heads));
              for (const { snapshot, past } of open)
                expect(await drainKeys(snapshot.above(heads), step.chunk)).toEqual(past.above(heads));
            }
          }
          for (const { snapshot, past } of open) await expectSame(snapshot, past);
          const now = await harness.store.snapshot();
          await expectSame(now, model);
          await now.close();
          for (const [key, row] of model.rows)
            expect(Buffer.compare(harness.store.getRow(key)!, row)).toBe(0);
        } finally {
          await harness.dispose();
        }
      }),
      { numRuns: 40 },
    );
  });
}

async function expectSame(snapshot: Snapshot, model: Model): Promise<void> {
  expect(new Map(snapshot.heads)).toEqual(model.heads);
  expect(new Map(await snapshot.tops())).toEqual(model.tops());
  const rows = await drain(snapshot.rows({}));
  expect(rows.map(([key]) => key)).toEqual(model.inRange({}));
  for (const [key, row] of rows) expect(Buffer.compare(row, model.rows.get(key)!)).toBe(0);
  expect(await drainKeys(snapshot.above(new Map()))).toEqual(model.above(new Map()));
}
