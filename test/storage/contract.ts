/**
 * What every implementation of the storage port must do. The model that the property test compares with is kept
 * as naive as can be: maps, sorted the long way.
 */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { dotOf, KEY_BYTES_MAX } from '../../src/core/entry.js';
import type { BatchRow, OriginId, Row, StoreBatch } from '../../src/core/types.js';
import type { KeyRange, Snapshot, Store } from '../../src/storage/store.js';
import { batchOf, byBytes, drain, drainKeys, ORIGIN_A, ORIGIN_B, ORIGIN_C, puts, record } from './records.js';

/** One imagined machine: a store that can be closed and opened again on the same contents. */
export interface StoreHarness {
  readonly store: Store;
  reopen(): Promise<void>;
  /** Damages the stored record, leaving its key alone; the store is open afterwards. */
  damage(key: string): Promise<void>;
  dispose(): Promise<void>;
}

const TRICKY_KEYS = [
  '\0',
  '__proto__',
  'constructor',
  '-x',
  'a',
  'a\0',
  'ab',
  '\ud7ff',
  '\ue000',
  '\uff01',
  '\uffff',
  '😀',
  '😀a',
  '\u{10ffff}',
  '中文',
  '中文/電話',
];

export function storeContract(name: string, create: () => Promise<StoreHarness>): void {
  describe(`storage contract: ${name}`, () => {
    let harness: StoreHarness;
    beforeEach(async () => {
      harness = await create();
    });
    afterEach(() => harness.dispose());

    describe('reading', () => reading(() => harness));
    describe('ranges', () => ranges(() => harness));
    describe('dots', () => dots(() => harness));
    describe('snapshots', () => snapshots(() => harness));
    describe('discipline', () => discipline(() => harness));
    describe('damage', () => damaged(() => harness));
    describe('against a model', () => modelled(create));
  });
}

function reading(harness: () => StoreHarness): void {
  it('a missing key is undefined', async () => {
    expect(harness().store.getRow('nothing')).toBeUndefined();
    expect(harness().store.getRow('')).toBeUndefined();
    expect(harness().store.getRow('x'.repeat(5_000))).toBeUndefined();
    expect(await harness().store.getRows(['nothing'])).toEqual([undefined]);
  });

  it('a record is read back under exactly its own key', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, TRICKY_KEYS));
    TRICKY_KEYS.forEach((key, i) => {
      expect(dotOf(store.getRow(key)!)).toEqual({ origin: ORIGIN_A, seq: i + 1 });
    });
  });

  it('a key with a lone surrogate finds nothing, not the record of its replacement character', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, ['\ufffd']));
    expect(store.getRow('\ud800')).toBeUndefined();
  });

  it('getRows answers in the order of its keys, across many slices', async () => {
    const { store } = harness();
    const keys = Array.from({ length: 350 }, (_, i) => `key/${i}`);
    await store.write(puts(ORIGIN_A, 1, keys));
    const asked = [...keys].reverse().flatMap((key) => [key, `no/${key}`]);
    const rows = await store.getRows(asked);
    expect(rows.map((row) => (row === undefined ? 0 : dotOf(row).seq))).toEqual(
      [...keys.keys()].reverse().flatMap((i) => [i + 1, 0]),
    );
  });

  it('a record of the longest key and a large value comes back byte for byte', async () => {
    const { store } = harness();
    const key = '😀'.repeat(KEY_BYTES_MAX / 4);
    const value = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 31) % 251);
    const row = record(key, { origin: ORIGIN_A, seq: 2 ** 40 }, value);
    await store.write(batchOf({ rows: new Map([[key, { row, replaces: undefined }]]) }));
    expect(Buffer.compare(store.getRow(key)!, row)).toBe(0);
  });
}

function ranges(harness: () => StoreHarness): void {
  const sorted = [...TRICKY_KEYS].sort(byBytes);
  const keysIn = (range: KeyRange) => drainKeys(harness().store.rows(range), 3);
  beforeEach(() => harness().store.write(puts(ORIGIN_A, 1, TRICKY_KEYS)));

  it('rows come in byte order of keys, or in reverse', async () => {
    expect(await keysIn({})).toEqual(sorted);
    expect(await keysIn({ reverse: true })).toEqual([...sorted].reverse());
  });

  it('a prefix finds exactly the keys that begin with it, whatever its last character', async () => {
    for (const prefix of ['', ...TRICKY_KEYS, '中', 'zzz', '\u{10ffff}\u{10ffff}']) {
      const expected = sorted.filter((key) => key.startsWith(prefix));
      expect(await keysIn({ prefix })).toEqual(expected);
      expect(await keysIn({ prefix, reverse: true })).toEqual(expected.reverse());
    }
  });

  it('bounds and prefix intersect, the limit counts from the first row in order', async () => {
    expect(await keysIn({ gt: 'a', lte: '\ue000' })).toEqual([
      'a\0',
      'ab',
      'constructor',
      '中文',
      '中文/電話',
      '\ud7ff',
      '\ue000',
    ]);
    expect(await keysIn({ gte: 'a', gt: 'a', lt: 'ab', lte: 'ab' })).toEqual(['a\0']);
    expect(await keysIn({ prefix: 'a', gt: 'a\0' })).toEqual(['ab']);
    expect(await keysIn({ prefix: 'a', lt: 'a' })).toEqual([]);
    expect(await keysIn({ gt: 'b', lt: 'a' })).toEqual([]);
    expect(await keysIn({ limit: 4 })).toEqual(sorted.slice(0, 4));
    expect(await keysIn({ limit: 4, reverse: true })).toEqual(sorted.slice(-4).reverse());
    expect(await keysIn({ limit: 0 })).toEqual([]);
  });

  it('a bound with a lone surrogate is refused: it has no place in byte order', () => {
    expect(() => harness().store.rows({ prefix: '\ud83d' })).toThrow(
      expect.objectContaining({ code: 'INVALID_KEY' }),
    );
    expect(() => harness().store.rows({ lt: 'a\udc00' })).toThrow(
      expect.objectContaining({ code: 'INVALID_KEY' }),
    );
  });

  it('a chunk keeps to its budgets of rows and bytes, and holds at least one row', async () => {
    await harness().store.write(puts(ORIGIN_B, 1, ['big/1', 'big/2', 'big/3'], new Uint8Array(10_000)));
    const cursor = harness().store.rows({ prefix: 'big/' });
    expect((await cursor.next(100, 1)).keys).toEqual(['big/1']);
    expect((await cursor.next(100, 25_000)).keys).toEqual(['big/2', 'big/3']);
    expect((await cursor.next(100, 25_000)).keys).toEqual([]);
    await cursor.close();
    const others = harness().store.rows({});
    expect((await others.next(5, 1_000_000)).keys).toEqual(sorted.slice(0, 5));
    await others.close();
  });
}

function dots(harness: () => StoreHarness): void {
  const above = async (heads: Record<OriginId, number>, rowsMax?: number) => {
    const snapshot = await harness().store.snapshot();
    try {
      return await drainKeys(snapshot.above(new Map(Object.entries(heads))), rowsMax);
    } finally {
      await snapshot.close();
    }
  };

  it('above() yields each record with a dot above the heads, by origin and sequence', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_B, 1, ['z', 'y', 'x']));
    await store.write(puts(ORIGIN_A, 250, ['q', 'p']));
    await store.write(puts(ORIGIN_C, 2 ** 33, ['m']));
    expect(await above({})).toEqual(['q', 'p', 'z', 'y', 'x', 'm']);
    expect(await above({ [ORIGIN_B]: 2 }, 1)).toEqual(['q', 'p', 'x', 'm']);
    expect(await above({ [ORIGIN_A]: 251, [ORIGIN_B]: 3, [ORIGIN_C]: 2 ** 33 - 1 })).toEqual(['m']);
    expect(await above({ [ORIGIN_A]: 2 ** 52, [ORIGIN_B]: 2 ** 48, [ORIGIN_C]: 2 ** 48 - 1 })).toEqual([]);
  });

  it('above() goes on over more rows than one slice, from the middle of a long origin', async () => {
    const { store } = harness();
    const keys = Array.from({ length: 1_500 }, (_, i) => `k${(i * 7_919) % 1_500}`);
    await store.write(puts(ORIGIN_B, 1, keys));
    await store.write(puts(ORIGIN_C, 1, ['last']));
    expect(await above({ [ORIGIN_B]: 30 }, 400)).toEqual([...keys.slice(30), 'last']);
  });

  it('a replaced record loses its dot, and a rewritten one keeps it', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, ['k', 'l']));
    const newer = record('k', { origin: ORIGIN_B, seq: 1 });
    await store.write(
      batchOf({ rows: new Map([['k', { row: newer, replaces: { origin: ORIGIN_A, seq: 1 } }]]) }),
    );
    expect(await above({})).toEqual(['l', 'k']);
    await store.write(
      batchOf({ rows: new Map([['k', { row: newer, replaces: { origin: ORIGIN_B, seq: 1 } }]]) }),
    );
    expect(await above({})).toEqual(['l', 'k']);
  });
}

function snapshots(harness: () => StoreHarness): void {
  it('a snapshot shows heads, rows, dots and tops of one moment', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, ['a', 'b']));
    const before = await store.snapshot();
    await store.write(puts(ORIGIN_B, 1, ['b2', 'c']));
    await store.write(
      batchOf({
        rows: new Map([
          ['a', { row: record('a', { origin: ORIGIN_A, seq: 3 }), replaces: { origin: ORIGIN_A, seq: 1 } }],
        ]),
        heads: new Map([[ORIGIN_A, 3]]),
      }),
    );
    expect([...before.heads]).toEqual([[ORIGIN_A, 2]]);
    expect([...(await before.tops())]).toEqual([[ORIGIN_A, 2]]);
    expect((await drain(before.rows({}))).map(([key, row]) => [key, dotOf(row).seq])).toEqual([
      ['a', 1],
      ['b', 2],
    ]);
    expect(await drainKeys(before.above(new Map()))).toEqual(['a', 'b']);
    await before.close();
    const after = await store.snapshot();
    expect(new Map(after.heads)).toEqual(
      new Map([
        [ORIGIN_A, 3],
        [ORIGIN_B, 2],
      ]),
    );
    expect(new Map(await after.tops())).toEqual(
      new Map([
        [ORIGIN_A, 3],
        [ORIGIN_B, 2],
      ]),
    );
    expect(await drainKeys(after.above(new Map()))).toEqual(['b', 'a', 'b2', 'c']);
    await after.close();
  });

  it('a cursor outside any snapshot of ours still shows one moment', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, ['a', 'c']));
    const cursor = store.rows({});
    expect((await cursor.next(1, 1_000)).keys).toEqual(['a']);
    await store.write(puts(ORIGIN_A, 3, ['b', 'd']));
    expect(await drainKeys(cursor)).toEqual(['c']);
  });

  it('closing a snapshot ends its cursors with CLOSED, and may be repeated', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, ['a', 'b']));
    const snapshot = await store.snapshot();
    const rows = snapshot.rows({});
    const above = snapshot.above(new Map());
    await snapshot.close();
    await snapshot.close();
    await expect(rows.next(1, 1)).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(above.next(1, 1)).rejects.toMatchObject({ code: 'CLOSED' });
    await rows.close();
  });
}

function discipline(harness: () => StoreHarness): void {
  it('a second batch while one is in flight is a bug of ours, and leaves the first alone', async () => {
    const { store } = harness();
    const first = store.write(puts(ORIGIN_A, 1, ['a']));
    await expect(store.write(puts(ORIGIN_A, 2, ['b']))).rejects.toMatchObject({ code: 'INTERNAL' });
    await first;
    await store.write(puts(ORIGIN_A, 2, ['b']));
    expect(await drainKeys(store.rows({}))).toEqual(['a', 'b']);
  });

  it("the store's own meta names are refused, nothing is written, and the store goes on", async () => {
    const { store } = harness();
    for (const name of ['hlc', 'run']) {
      const batch = { ...puts(ORIGIN_A, 1, ['a']), meta: new Map([[name, new Uint8Array(8)]]) };
      await expect(store.write(batch)).rejects.toMatchObject({ code: 'INTERNAL' });
    }
    expect(store.getRow('a')).toBeUndefined();
    await store.write(puts(ORIGIN_A, 1, ['a']));
    expect(store.getRow('a')).toBeDefined();
  });

  it('an empty batch is written', async () => {
    await harness().store.write(batchOf({}));
    expect(await drainKeys(harness().store.rows({}))).toEqual([]);
  });

  it('after closing, everything ends with CLOSED; a batch in flight is finished first', async () => {
    const { store } = harness();
    const cursor = store.rows({});
    const inFlight = store.write(
      puts(
        ORIGIN_A,
        1,
        Array.from({ length: 300 }, (_, i) => `k${i}`),
      ),
    );
    const closing = store.close();
    await inFlight;
    await closing;
    await store.close();
    const closed = expect.objectContaining({ code: 'CLOSED' });
    expect(() => store.getRow('k1')).toThrow(closed);
    await expect(store.getRows(['k1'])).rejects.toEqual(closed);
    await expect(store.write(puts(ORIGIN_A, 301, ['x']))).rejects.toEqual(closed);
    await expect(store.snapshot()).rejects.toEqual(closed);
    expect(() => store.rows({})).toThrow(closed);
    await expect(cursor.next(1, 1)).rejects.toEqual(closed);
    await harness().reopen();
    expect(await drainKeys(harness().store.rows({}))).toHaveLength(300);
  });

  it('a reopened store recovers heads, tops, clock and meta, deletions included', async () => {
    const meta = (name: string, value: number[] | null) =>
      batchOf({ meta: new Map([[name, value === null ? null : Uint8Array.from(value)]]) });
    const { store } = harness();
    expect(store.recovered.heads.size + store.recovered.tops.size + store.recovered.meta.size).toBe(0);
    expect(store.recovered.hlc).toEqual({ ms: 0, counter: 0 });
    await store.write({ ...puts(ORIGIN_A, 7, ['a']), hlc: { ms: 2 ** 41 + 5, counter: 65_535 } });
    await store.write(batchOf({ heads: new Map([[ORIGIN_C, 2 ** 40]]) }));
    await store.write(meta('node', [1, 2, 3]));
    await store.write(meta('members', [4]));
    await store.write(meta('members', null));
    await harness().reopen();
    const { recovered } = harness().store;
    expect(new Map(recovered.heads)).toEqual(
      new Map([
        [ORIGIN_A, 7],
        [ORIGIN_C, 2 ** 40],
      ]),
    );
    expect(new Map(recovered.tops)).toEqual(new Map([[ORIGIN_A, 7]]));
    expect(recovered.hlc).toEqual({ ms: 2 ** 41 + 5, counter: 65_535 });
    expect([...recovered.meta].map(([name, value]) => [name, [...value]])).toEqual([['node', [1, 2, 3]]]);
  });
}

function damaged(harness: () => StoreHarness): void {
  const keys = ['a', 'b', 'c', 'd'];
  const hurt = expect.objectContaining({ code: 'DAMAGED', details: expect.objectContaining({ key: 'c' }) });
  beforeEach(async () => {
    await harness().store.write(puts(ORIGIN_A, 1, keys));
    await harness().damage('c');
  });

  it('a damaged record is never served, its neighbours are', async () => {
    const { store } = harness();
    expect(() => store.getRow('c')).toThrow(hurt);
    await expect(store.getRows(['a', 'c'])).rejects.toEqual(hurt);
    expect(store.getRow('b')).toBeDefined();
  });

  it('a cursor hands out what precedes the damage, throws, and goes on behind it', async () => {
    const snapshot = await harness().store.snapshot();
    for (const cursor of [snapshot.rows({}), snapshot.above(new Map()), harness().store.rows({})]) {
      expect((await cursor.next(10, 1_000)).keys).toEqual(['a', 'b']);
      await expect(cursor.next(10, 1_000)).rejects.toEqual(hurt);
      expect((await cursor.next(10, 1_000)).keys).toEqual(['d']);
      expect((await cursor.next(10, 1_000)).keys).toEqual([]);
      await cursor.close();
    }
    await snapshot.close();
  });

  it('writing the record anew heals it', async () => {
    const { store } = harness();
    const row = record('c', { origin: ORIGIN_A, seq: 3 });
    await store.write(batchOf({ rows: new Map([['c', { row, replaces: undefined }]]) }));
    expect(Buffer.compare(store.getRow('c')!, row)).toBe(0);
    expect(await drainKeys(store.rows({}))).toEqual(keys);
  });
}

// --- against a model ---------------------------------------------------------------------------------------

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

function modelled(create: () => Promise<StoreHarness>): void {
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
