/**
 * What every implementation of the storage port must do.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { dotOf, KEY_BYTES_MAX } from '../../src/core/entry.js';
import type { OriginId } from '../../src/core/types.js';
import { bucketOf, digestOf } from '../../src/node/digest.js';
import type { KeyRange, Store } from '../../src/storage/store.js';
import { modelled } from './model.js';
import {
  batchOf,
  byBytes,
  drain,
  drainKeys,
  ORIGIN_A,
  ORIGIN_B,
  ORIGIN_C,
  puts,
  record,
  TRICKY_KEYS,
} from './records.js';

/** One imagined machine: a store that can be closed and opened again on the same contents. */
export interface StoreHarness {
  readonly store: Store;
  reopen(): Promise<void>;
  /** Damages the stored record, leaving its key alone; the store is open afterwards. */
  damage(key: string): Promise<void>;
  dispose(): Promise<void>;
}

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
    for (const prefix of ['', ...TRICKY_KEYS, '中', 'zzz', 'a\u{10ffff}', '\u{10ffff}\u{10ffff}']) {
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

  it('a plan divides the keys into ranges, of which there are no more than asked for', async () => {
    const { store } = harness();
    const shares = sorted.map((key) => ({ key, count: 1 }));
    const whole = await store.plan(1_000_000, 10, shares);
    expect(whole).toMatchObject({ keys: [], entries: sorted.length });
    for (const rangesMax of [1, 2, 3, 4]) {
      const { keys, entries, bytes } = await store.plan(1, rangesMax, shares);
      expect([entries, bytes]).toEqual([whole.entries, whole.bytes]);
      expect(keys.length).toBe(rangesMax - 1);
      expect(keys).toEqual(sorted.filter((key) => keys.includes(key)));
      expect(keys).not.toContain(sorted.at(-1));
    }
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
    expect(await above({ [ORIGIN_A]: 250, [ORIGIN_B]: 1, [ORIGIN_C]: 2 ** 33 })).toEqual(['p', 'y', 'x']);
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
    expect([...(await before.meta()).keys()]).toEqual([]);
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

  it('closing a cursor, or its snapshot, ends it with CLOSED, and may be repeated', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, ['a', 'b']));
    const snapshot = await store.snapshot();
    const rows = snapshot.rows({});
    const above = snapshot.above(new Map());
    const done = store.rows({});
    await done.next(1, 1);
    await done.close();
    await done.close();
    await expect(done.next(1, 1)).rejects.toMatchObject({ code: 'CLOSED' });
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

  it('a reopened store has no head of a forgotten origin, but a head of 0, and all records', async () => {
    const { store } = harness();
    await store.write(puts(ORIGIN_A, 1, ['a', 'b']));
    await store.write(batchOf({ heads: new Map([[ORIGIN_B, 0]]), forgets: new Set([ORIGIN_A]) }));
    const snapshot = await store.snapshot();
    expect([...snapshot.heads]).toEqual([[ORIGIN_B, 0]]);
    await snapshot.close();
    await harness().reopen();
    const { recovered } = harness().store;
    expect([...recovered.heads]).toEqual([[ORIGIN_B, 0]]);
    expect([...recovered.tops]).toEqual([[ORIGIN_A, 2]]);
    expect(dotOf(harness().store.getRow('a')!)).toEqual({ origin: ORIGIN_A, seq: 1 });
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

  it('a digest of what lies on disk counts a damaged record, and sums all others', async () => {
    const { store } = harness();
    const more = Array.from({ length: 700 }, (_, i) => `k${i}`);
    await store.write(puts(ORIGIN_A, 5, more));
    const before = await digestOf(store);
    expect([before.entries, before.damaged]).toEqual([703, 1]);
    await harness().damage('k300');
    await harness().damage('k301');
    const report = await digestOf(harness().store);
    expect([report.entries, report.damaged]).toEqual([701, 3]);
    const odd = new Set(['k300', 'k301'].map(bucketOf));
    report.buckets.forEach((sum, bucket) => {
      expect(sum === before.buckets[bucket], `bucket ${bucket}`).toBe(!odd.has(bucket));
    });
    expect(report.root).not.toBe(before.root);
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
