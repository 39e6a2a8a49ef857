/** Expiry on the client's wire: how long entries are to last, and how long they still do. */
import { describe, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { stampBytes } from '../../src/core/hlc.js';
import { encodeValue } from '../../src/values.js';
import type { FakeHost } from '../support/fake-service.js';
import { client, collect, host } from './support.js';

const ORIGIN = '00000000000000aa';
const COUNT = 2_345;

const keyOf = (i: number): string => `k${String(i).padStart(5, '0')}`;

/** Every third entry expires; what is left of entry i is an hour and i ms, by the clock of the host. */
async function filled(): Promise<FakeHost> {
  const only = await host();
  const now = Date.now();
  only.service.clockMs = () => now;
  for (let i = 0; i < COUNT; i++) {
    const expiry = i % 3 === 0 ? { expiresAt: now + 3_600_000 + i } : {};
    const entry = { kind: KIND_REGISTER, stamp: stampBytes(now, 0, ORIGIN), origin: ORIGIN, seq: i + 1 };
    only.service.rows.set(
      keyOf(i),
      makeRow(keyOf(i), { ...entry, value: encodeValue(i), ...expiry }, checksum),
    );
  }
  return only;
}

const expected = (from: number, to: number): object[] =>
  Array.from({ length: to - from }, (_, j) => {
    const i = from + j;
    return i % 3 === 0 ? { key: keyOf(i), value: i, ttlMs: 3_600_000 + i } : { key: keyOf(i), value: i };
  });

describe('export', () => {
  test('has all entries, over as many pages as it takes, each with what is left of it', async () => {
    const store = await client([await filled()]);
    expect(await collect(store.export())).toEqual(expected(0, COUNT));
  });

  test('keeps to ranges, limits and the order asked for', async () => {
    const store = await client([await filled()]);
    expect(await collect(store.export({ gte: keyOf(5), lt: keyOf(9) }))).toEqual(expected(5, 9));
    expect(await collect(store.export({ limit: 1_001 }))).toEqual(expected(0, 1_001));
    expect(await collect(store.export({ limit: 0 }))).toEqual([]);
    expect(await collect(store.export({ reverse: true, limit: 1_500 }))).toEqual(
      expected(COUNT - 1_500, COUNT).toReversed(),
    );
    await expect(collect(store.export({ limit: -1 }))).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  });

  test('left early it asks for no more than one page ahead', async () => {
    const only = await filled();
    let pages = 0;
    only.service.onPage = () => {
      pages += 1;
    };
    const store = await client([only]);
    for await (const { key } of store.export()) if (key === keyOf(3)) break;
    expect(pages).toBeLessThanOrEqual(2);
  });
});

test('a write carries the time of each operation, and none where there is none', async () => {
  const only = await host();
  const store = await client([only]);
  await store.put('a', 1, { ttlMs: 2 ** 47 - 1 });
  await store.put('b', 1);
  await store.batch(
    [
      { type: 'put', key: 'c', value: 1, ttlMs: 5 },
      { type: 'put', key: 'd', value: 1 },
      { type: 'del', key: 'e' },
    ],
    { ttlMs: 7 },
  );
  const sent = only.service.writes.flatMap(({ ops }) => ops.map(({ key, ttlMs }) => [key, ttlMs]));
  expect(sent).toEqual([
    ['a', 2 ** 47 - 1],
    ['b', undefined],
    ['c', 5],
    ['d', 7],
    ['e', undefined],
  ]);
});
