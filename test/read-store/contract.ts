/** What every `ReadStore` must do, whichever way in. Run on the embedded replica and on the light client. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BatchOperation, Change, Range, ReadStore, Value } from '../../src/read-store.js';
import { eventually } from '../support/copies.js';
import { anyValue } from '../values/arbitrary-value.js';

export interface Opened {
  store: ReadStore;
  close(): Promise<void>;
}

const ODD_KEYS = [
  '__proto__',
  'constructor',
  '\0',
  'a\0b',
  '-x',
  '--',
  '中文',
  '鍵',
  '😀',
  '𐀀',
  '\uffff',
  'a/b',
  'a%2Fb',
  '..',
  ' ',
];
const bytewise = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));

async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of iterable) out.push(item);
  return out;
}

/** What a range means, on plain arrays. */
function inRange(keys: readonly string[], range: Range): string[] {
  const at = (bound: string | undefined, test: (order: number) => boolean, key: string): boolean =>
    bound === undefined || test(bytewise(key, bound));
  const out = keys
    .filter((key) => key.startsWith(range.prefix ?? ''))
    .filter((key) => at(range.gt, (o) => o > 0, key) && at(range.gte, (o) => o >= 0, key))
    .filter((key) => at(range.lt, (o) => o < 0, key) && at(range.lte, (o) => o <= 0, key))
    .sort(bytewise);
  if (range.reverse === true) out.reverse();
  return out.slice(0, range.limit ?? out.length);
}

export function readStoreContract(name: string, open: () => Promise<Opened>): void {
  describe(name, () => {
    let opened: Opened;
    let store: ReadStore;
    beforeAll(async () => {
      opened = await open();
      store = opened.store;
    });
    afterAll(async () => {
      await opened.close();
    });

    test('gives back what was put, and undefined for what was not', async () => {
      const receipt = await store.put('greeting', 'hello');
      expect(receipt).toMatchObject({ replicas: 1, superseded: false });
      expect(receipt.stamp).toMatch(/^[0-9a-f]{32}$/);
      expect(await store.get('greeting')).toBe('hello');
      expect(await store.has('greeting')).toBe(true);
      expect(await store.get('nothing')).toBeUndefined();
      expect(await store.has('nothing')).toBe(false);
      expect(await store.getMany(['nothing', 'greeting', 'greeting'])).toEqual([undefined, 'hello', 'hello']);
      expect(await store.getMany([])).toEqual([]);
    });

    test('a later put wins, a delete removes, and a deleted key can be put again', async () => {
      const first = await store.put('k', 1);
      const second = await store.put('k', 2);
      expect(second.stamp > first.stamp).toBe(true);
      expect(await store.get('k')).toBe(2);
      const gone = await store.del('k');
      expect(gone.stamp > second.stamp).toBe(true);
      expect(await store.get('k')).toBeUndefined();
      expect(await store.has('k')).toBe(false);
      await store.put('k', 3);
      expect(await store.get('k')).toBe(3);
    });

    test('every kind of value comes back exactly', async () => {
      await fc.assert(
        fc.asyncProperty(anyValue, async (value) => {
          await store.put('value', value);
          expect(await store.get('value')).toEqual(value);
        }),
        { numRuns: 100 },
      );
      for (const value of [
        2n ** 200n,
        -(2n ** 63n),
        1n,
        Number.NaN,
        Number.POSITIVE_INFINITY,
        new Date(-1),
        null,
      ]) {
        await store.put('value', value);
        expect(await store.get('value')).toEqual(value);
      }
      await store.put('value', Buffer.from([0, 255]));
      expect(Buffer.from((await store.get<Uint8Array>('value'))!)).toEqual(Buffer.from([0, 255]));
    });

    test('what a caller does to a value it was given changes nothing for others', async () => {
      await store.put('shared', { list: [1, 2], when: new Date(5), raw: new Uint8Array([1, 2]) });
      for (let i = 0; i < 2; i++) {
        const value = (await store.get<{ list: number[]; when: Date; raw: Uint8Array }>('shared'))!;
        expect(() => value.list.push(3)).toThrow(TypeError);
        value.when.setTime(99);
        value.raw[0] = 9;
      }
      expect(await store.get('shared')).toEqual({
        list: [1, 2],
        when: new Date(5),
        raw: new Uint8Array([1, 2]),
      });
    });

    test('odd keys are as good as any', async () => {
      await store.batch(ODD_KEYS.map((key, i): BatchOperation => ({ type: 'put', key, value: i })));
      expect(await store.getMany(ODD_KEYS)).toEqual(ODD_KEYS.map((_, i) => i));
      for (const [i, key] of ODD_KEYS.entries()) expect(await store.get(key)).toBe(i);
    });

    test('ranges are in byte order of UTF-8, with every kind of bound', async () => {
      const keys = [
        'r/',
        'r/a',
        'r/aa',
        'r/b',
        'r/é',
        'r/中',
        'r/\uffff',
        'r/😀',
        'r/\u{10ffff}',
        'r/\u{10ffff}x',
        's',
      ];
      await store.batch(keys.map((key): BatchOperation => ({ type: 'put', key, value: key })));
      await store.put('r/deleted', 1);
      await store.del('r/deleted');
      const bound = fc.option(fc.constantFrom(...keys, 'r/c', 'r'), { nil: undefined });
      const range = fc.record({
        prefix: fc.constantFrom('r/', 'r/a', 'r/\u{10ffff}', 'r/\u{10ffff}x'),
        gt: bound,
        gte: bound,
        lt: bound,
        lte: bound,
        reverse: fc.boolean(),
        limit: fc.option(fc.nat(12), { nil: undefined }),
      });
      await fc.assert(
        fc.asyncProperty(range, async (r) => {
          const expected = inRange(keys, r);
          expect(await collect(store.keys(r))).toEqual(expected);
          expect(await collect(store.entries(r))).toEqual(expected.map((key) => [key, key]));
          expect(await collect(store.values(r))).toEqual(expected);
          expect(await store.keys(r).toArray()).toEqual(expected);
          expect(await store.entries(r).toArray()).toEqual(expected.map((key) => [key, key]));
          expect(await store.values(r).toArray()).toEqual(expected);
        }),
        { numRuns: 60 },
      );
    });

    test('toArray gives what a loop has left, and then nothing', async () => {
      const [first, ...rest] = await store.keys({ prefix: 'r/' }).toArray();
      const keys = store.keys({ prefix: 'r/' });
      expect(await keys.next()).toEqual({ done: false, value: first });
      expect(await keys.toArray()).toEqual(rest);
      expect(await keys.toArray()).toEqual([]);
      expect(rest.length).toBeGreaterThan(5);
    });

    test('a scan that is left early gives its resources back', async () => {
      for (let i = 0; i < 50; i++)
        for await (const key of store.keys({ prefix: 'r/' })) if (key !== '') break;
      expect((await collect(store.keys({ prefix: 'r/', limit: 2 }))).length).toBe(2);
    });

    test('a batch has consecutive stamps in order, and may name a key twice', async () => {
      const receipt = await store.batch([
        { type: 'put', key: 'b1', value: 1 },
        { type: 'put', key: 'b2', value: 2 },
        { type: 'del', key: 'b1' },
        { type: 'put', key: 'b2', value: 3 },
      ]);
      expect(receipt.superseded).toBe(false);
      expect(await store.getMany(['b1', 'b2'])).toEqual([undefined, 3]);
    });

    test('a retry with the same stamp changes nothing, and a late one does not undo a newer write', async () => {
      const first = await store.put('retry', 'once');
      const again = await store.put('retry', 'once', { stamp: first.stamp });
      expect(again).toMatchObject({ stamp: first.stamp, superseded: false });
      await store.put('retry', 'newer');
      const late = await store.put('retry', 'once', { stamp: first.stamp });
      expect(late).toMatchObject({ stamp: first.stamp, superseded: true });
      expect(await store.get('retry')).toBe('newer');
    });

    test('bad input is refused with a code, and changes nothing', async () => {
      const bad: [() => Promise<unknown>, string][] = [
        [() => store.put('', 1), 'INVALID_KEY'],
        [() => store.put('\ud800', 1), 'INVALID_KEY'],
        [() => store.put('x'.repeat(1_025), 1), 'INVALID_KEY'],
        [() => store.get(''), 'INVALID_KEY'],
        [() => store.put('bad', undefined as unknown as Value), 'INVALID_VALUE'],
        [() => store.put('bad', { x: (() => 1) as unknown as Value }), 'INVALID_VALUE'],
        [() => store.put('bad', JSON.parse('{"__proto__": 1}') as Value), 'INVALID_VALUE'],
        [() => store.put('bad', 'x'.repeat(1_048_577)), 'VALUE_TOO_LARGE'],
        [() => store.put('bad', 1, { ttlMs: 0 }), 'INVALID_OPTION'],
        [() => store.put('bad', 1, { ttlMs: 1.5 }), 'INVALID_OPTION'],
        [() => store.put('bad', 1, { ttlMs: 2 ** 47 }), 'INVALID_OPTION'],
        [() => store.del('bad', { ttlMs: 5 }), 'INVALID_OPTION'],
        [() => store.batch([{ type: 'put', key: 'bad', value: 1, ttlMs: -1 }]), 'INVALID_OPTION'],
        [() => store.put('bad', 1, { replicas: 0 }), 'INVALID_OPTION'],
        [() => store.put('bad', 1, { replicas: 1.5 }), 'INVALID_OPTION'],
        [() => store.put('bad', 1, { timeoutMs: -1 }), 'INVALID_OPTION'],
        [() => store.put('bad', 1, { stamp: 'xyz' }), 'INVALID_OPTION'],
        [() => store.put('bad', 1, { stamp: `f${'0'.repeat(31)}` }), 'FUTURE_STAMP'],
        [() => store.batch([]), 'INVALID_OPTION'],
        [
          () =>
            store.batch(Array.from({ length: 1_025 }, (_, i) => ({ type: 'put', key: `n${i}`, value: 1 }))),
          'BATCH_TOO_LARGE',
        ],
        [() => collect(store.keys({ limit: -1 })), 'INVALID_OPTION'],
        [() => collect(store.keys({ gt: '\ud800' })), 'INVALID_OPTION'],
        [() => collect(store.keys({ start: 'x' } as Range)), 'INVALID_OPTION'],
      ];
      for (const [call, code] of bad) await expect(call(), String(call)).rejects.toMatchObject({ code });
      expect(await store.has('bad')).toBe(false);
    });

    test('asking for more hosts than there are fails with ACK_TIMEOUT, says how many hold it, and the write stands', async () => {
      const failure = await store
        .put('lonely', 1, { replicas: 2, timeoutMs: 200 })
        .catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: 'ACK_TIMEOUT', details: { hosts: 1, needed: 2 } });
      const { stamp } = (failure as { details: { stamp: string } }).details;
      expect(await store.get('lonely')).toBe(1);
      expect(await store.put('lonely', 1, { stamp, replicas: 1 })).toMatchObject({
        stamp,
        superseded: false,
      });
    });

    test('an entry that has expired is missing from every read, and limits count what is there', async () => {
      await store.put('ttl/a', 'stays');
      await store.put('ttl/b', 'goes', { ttlMs: 1 });
      await store.put('ttl/c', 'later', { ttlMs: 3_600_000 });
      await store.batch([
        { type: 'put', key: 'ttl/d', value: 'goes', ttlMs: 1 },
        { type: 'put', key: 'ttl/e', value: 'stays' },
      ]);
      await eventually(
        'both are gone',
        async () => !(await store.has('ttl/b')) && !(await store.has('ttl/d')),
      );
      expect(await store.get('ttl/b')).toBeUndefined();
      expect(await store.getMany(['ttl/a', 'ttl/b', 'ttl/c', 'ttl/d', 'ttl/e'])).toEqual([
        ...['stays', undefined, 'later', undefined, 'stays'],
      ]);
      const keys = ['ttl/a', 'ttl/c', 'ttl/e'];
      expect(await collect(store.keys({ prefix: 'ttl/' }))).toEqual(keys);
      expect(await collect(store.values({ prefix: 'ttl/' }))).toEqual(['stays', 'later', 'stays']);
      expect((await collect(store.entries({ prefix: 'ttl/' }))).map(([key]) => key)).toEqual(keys);
      for (const limit of [1, 2, 3]) {
        expect(await collect(store.keys({ prefix: 'ttl/', limit }))).toEqual(keys.slice(0, limit));
        expect(await collect(store.keys({ prefix: 'ttl/', limit, reverse: true }))).toEqual(
          keys.toReversed().slice(0, limit),
        );
      }
    });

    test('the expiry of a batch is that of each put without its own', async () => {
      await store.batch(
        [
          { type: 'put', key: 'ttls/long', value: 1, ttlMs: 3_600_000 },
          { type: 'put', key: 'ttls/short', value: 1 },
          { type: 'del', key: 'ttls/none' },
        ],
        { ttlMs: 1 },
      );
      await eventually('one is gone', async () => !(await store.has('ttls/short')));
      expect(await store.has('ttls/long')).toBe(true);
    });

    test('the time of a value that was read before it ended ends all the same, and a put without one stays', async () => {
      for (let round = 0; round < 5; round++) {
        const key = `ttlr/${round}`;
        await store.put(key, { round }, { ttlMs: 100 });
        // Perhaps it is there, perhaps not any more: but in the end it is not, however often it was read.
        await store.get(key);
        await store.get(key);
        await eventually('it is gone', async () => (await store.get(key)) === undefined);
        await store.put(key, { round });
        expect(await store.get(key)).toEqual({ round });
      }
    });

    test('a retry of a write that has expired does not bring it back, nor what it replaced', async () => {
      await store.put('again', 'before');
      const { stamp } = await store.put('again', 'short', { ttlMs: 1 });
      await eventually('it is gone', async () => !(await store.has('again')));
      expect(await store.put('again', 'short', { ttlMs: 1, stamp })).toMatchObject({
        stamp,
        superseded: false,
      });
      expect(await store.get('again')).toBeUndefined();
    });

    test('a watch is told of the end of an entry that it was told of', async () => {
      const stop = new AbortController();
      const seen: Change[] = [];
      const reading = (async () => {
        for await (const change of store.watch('we/', { signal: stop.signal })) {
          seen.push(change);
          if (change.key === 'we/a' && change.type === 'del') stop.abort();
        }
      })();
      await store.ready();
      await store.status();
      const { stamp } = await store.put('we/a', 1, { ttlMs: 300 });
      await store.put('we/b', 1, { ttlMs: 3_600_000 });
      await reading;
      // On a machine that stalls the reader may see but the end of it.
      expect(seen.filter(({ key }) => key === 'we/a').at(-1)).toEqual({ type: 'del', key: 'we/a', stamp });
      expect(seen.filter(({ key }) => key === 'we/b').map(({ type }) => type)).toEqual(['put']);
    });

    test('a watch sees changes under its prefix from now on, in order per key, and ends by its signal', async () => {
      const stop = new AbortController();
      const seen: Change[] = [];
      await store.put('w/before', 0);
      const iterator = store.watch('w/', { signal: stop.signal });
      const reading = (async () => {
        for await (const change of iterator) {
          seen.push(change);
          if (change.key === 'w/end') stop.abort();
        }
      })();
      await store.ready();
      // The subscription of a light client travels first; writes after a round trip are seen.
      await store.status();
      await store.put('w/a', 1);
      await store.put('other', 1);
      await store.del('w/a');
      await store.put('w/b', { x: 1 });
      await store.put('w/end', true);
      await reading;
      expect(seen.filter((c) => c.key !== 'w/a').map((c) => [c.type, c.key])).toEqual([
        ['put', 'w/b'],
        ['put', 'w/end'],
      ]);
      expect(seen.filter((c) => c.key === 'w/a').at(-1)).toMatchObject({ type: 'del' });
      expect(seen.find((c) => c.key === 'w/b')).toMatchObject({ value: { x: 1 } });
    });

    test('is ready, locally and in step with the others, and says so', async () => {
      await store.ready();
      await store.ready({ level: 'synced', timeoutMs: 5_000 });
      const { issues, ...status } = await store.status();
      expect(status).toMatchObject({ ready: true, phase: 'ready' });
      // A machine that stalls is no matter of this test.
      expect(issues.filter(({ code }) => code !== 'LAGGING')).toEqual([]);
    });
  });
}
