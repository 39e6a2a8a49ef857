/** Every cap of the client protocol, reached: what is refused, dropped, split or held back there. */
import { describe, expect, test } from 'vitest';
import type { Value } from '../../src/read-store.js';
import { encodeValue } from '../../src/values.js';
import { bytewise } from '../support/fake-service.js';
import { Raw } from './raw.js';
import { client, clientOfAll, collect, host, until, untilStuck } from './support.js';

const STAMP = Buffer.alloc(16, 1);
const MEGABYTE = 'x'.repeat(1_000_000);

/** More than the kernel's buffers of a loopback connection ever hold. */
const FLOOD_REQUESTS = 64;

describe('a client that does not read', () => {
  test('is not served any further until it does, and gets every answer then', async () => {
    const only = await host();
    only.service.apply('big', MEGABYTE);
    const raw = await Raw.greeted(only);
    const before = only.service.reads;
    raw.ws.pause();
    raw.send(Array.from({ length: FLOOD_REQUESTS }, (_, i) => [10 + i, 2, 'big']));
    await untilStuck(only);
    expect(only.service.reads - before).toBeLessThan(FLOOD_REQUESTS);
    raw.ws.resume();
    await raw.answer(10 + FLOOD_REQUESTS - 1);
    expect(new Set(raw.responses.map(([id]) => id)).size).toBe(FLOOD_REQUESTS + 2);
  });

  test('is cut off when nothing leaves for a while', async () => {
    const only = await host({ stallMs: 100 });
    only.service.apply('big', MEGABYTE);
    const raw = await Raw.greeted(only);
    raw.ws.pause();
    raw.send(Array.from({ length: FLOOD_REQUESTS }, (_, i) => [10 + i, 2, 'big']));
    await until(() => only.clients.size === 0);
    const other = await client([only]);
    expect(await other.has('big')).toBe(true);
  });

  test('is cut off at the cap of bytes by answers to what was begun before', async () => {
    // A slice as long as it takes to begin them all, however slow the machine is.
    const only = await host({ outboundBytesMax: 4_000_000, sliceMs: 10_000 });
    for (let i = 0; i < 140; i++) only.service.apply(`k${i}`, MEGABYTE.slice(0, 5_000));
    const raw = await Raw.greeted(only);
    raw.ws.pause();
    // More than 128 keys are looked up in turns, so that all of these are in progress at once.
    const keys = Array.from({ length: 140 }, (_, i) => `k${i}`);
    raw.send(Array.from({ length: 500 }, (_, i) => [10 + i, 3, keys]));
    await until(() => only.clients.size === 0);
  });

  test('is cut off at the cap of bytes when it pings without end', async () => {
    const only = await host({ outboundBytesMax: 100_000 });
    only.service.apply('big', MEGABYTE);
    const raw = await Raw.greeted(only);
    raw.ws.pause();
    raw.send(Array.from({ length: FLOOD_REQUESTS }, (_, i) => [10 + i, 2, 'big']));
    await until(() => {
      if (raw.ws.readyState === raw.ws.OPEN) raw.ws.ping('x'.repeat(100));
      return only.clients.size === 0;
    });
  });
});

test('a client that falls silent is closed', async () => {
  const only = await host({ idleMs: 80 });
  const raw = await Raw.greeted(only);
  await until(() => raw.closed !== undefined);
  expect(raw.closed!.reason).toContain('80 ms');
});

describe('requests in progress', () => {
  test('are capped in number', async () => {
    const only = await host({ inFlightMax: 2 }, { hangWrites: true });
    const raw = await Raw.greeted(only);
    const write = [STAMP, null, null, 100, [[1, 'k', encodeValue(1)]]];
    raw.send([5, 6, 7].map((id) => [id, 6, ...write]));
    expect((await raw.answer(7)).slice(0, 3)).toEqual([7, 1, 'OVERLOADED']);
    expect(only.service.writes).toHaveLength(2);
  });

  test('are capped in bytes, but for one alone', async () => {
    const only = await host({ inFlightBytesMax: 1_000 }, { hangWrites: true });
    const raw = await Raw.greeted(only);
    const write = [STAMP, null, null, 100, [[1, 'k', encodeValue('x'.repeat(2_000))]]];
    raw.send([5, 6].map((id) => [id, 6, ...write]));
    expect((await raw.answer(6)).slice(0, 3)).toEqual([6, 1, 'OVERLOADED']);
    expect(only.service.writes).toHaveLength(1);
  });

  test('that hold a view of the store are capped', async () => {
    const only = await host({ scansMax: 2 }, { hang: true });
    const raw = await Raw.greeted(only);
    raw.send([5, 6, 7].map((id) => [id, 5, null, null, null, null, null, false, 10, false]));
    expect((await raw.answer(7)).slice(0, 3)).toEqual([7, 1, 'OVERLOADED']);
    expect(only.service.openScans).toBe(2);
  });

  test('can be cancelled: their answers are dropped, their places come free when they end', async () => {
    const only = await host({ inFlightMax: 1 });
    only.service.bucket = [{ key: 'k', stamp: 'ab'.repeat(16) }];
    const raw = await Raw.greeted(only);
    raw.send([
      [5, 12, 0],
      [6, 14, 5],
      [7, 14, 12_345],
    ]);
    raw.send([[8, 4, 'k']]);
    await raw.answer(8);
    raw.send([[9, 12, 1]]);
    await until(() => raw.responses.some(([id, status]) => id === 9 && status === 0));
    expect(raw.responses.some(([id]) => id === 5 || id === 6 || id === 7)).toBe(false);
  });

  test('of one client are capped in number and bytes, and the rest is refused at once', async () => {
    const only = await host({}, { hangWrites: true });
    const store = await client([only], { tuning: { pendingCallsMax: 3, pendingBytesMax: 5_000 } });
    const large = store.put('large', 'x'.repeat(4_900), { timeoutMs: 400 });
    await expect(store.put('k', 'x'.repeat(500))).rejects.toMatchObject({ code: 'OVERLOADED' });
    await expect(large).rejects.toMatchObject({ code: 'TIMEOUT' });
    const three = Array.from({ length: 3 }, (_, i) => store.put(`k${i}`, i, { timeoutMs: 400 }));
    await expect(store.get('k')).rejects.toMatchObject({ code: 'OVERLOADED' });
    for (const outcome of await Promise.allSettled(three))
      expect(outcome).toMatchObject({ reason: { code: 'TIMEOUT' } });
    expect(await store.has('k1')).toBe(true);
  });
});

describe('batches and values', () => {
  test('above the caps are refused before anything is sent', async () => {
    const only = await host();
    const store = await client([only]);
    const before = only.frames;
    const put = (i: number, value: Value = 1) => ({ type: 'put', key: `k${i}`, value }) as const;
    await expect(store.batch([])).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(store.batch(Array.from({ length: 1_025 }, (_, i) => put(i)))).rejects.toMatchObject({
      code: 'BATCH_TOO_LARGE',
    });
    await expect(store.batch(Array.from({ length: 5 }, (_, i) => put(i, MEGABYTE)))).rejects.toMatchObject({
      code: 'BATCH_TOO_LARGE',
    });
    await expect(store.put('k', `${MEGABYTE}${MEGABYTE}`)).rejects.toMatchObject({ code: 'VALUE_TOO_LARGE' });
    await expect(store.put('k'.repeat(2_000), 1)).rejects.toMatchObject({ code: 'INVALID_KEY' });
    await expect(store.get('\ud800')).rejects.toMatchObject({ code: 'INVALID_KEY' });
    await expect(store.has('')).rejects.toMatchObject({ code: 'INVALID_KEY' });
    await expect(store.getMany(['a', ''])).rejects.toMatchObject({ code: 'INVALID_KEY' });
    for (const options of [{ replicas: 0 }, { replicas: 1.5 }, { timeoutMs: -1 }, { stamp: 'AB' }])
      await expect(store.put('k', 1, options)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    for (const ttlMs of [0, -1, 1.5, 2 ** 47, Number.NaN, '5' as unknown as number])
      await expect(store.put('k', 1, { ttlMs })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(store.del('k', { ttlMs: 5 })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(collect(store.keys({ limit: -1 }))).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(collect(store.keys({ nonsense: 1 } as object))).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    });
    expect(only.frames).toBe(before);
  });

  test('of the greatest size pass whole', async () => {
    const only = await host();
    const store = await client([only]);
    const value = MEGABYTE.slice(0, 900_000);
    await store.batch(Array.from({ length: 4 }, (_, i) => ({ type: 'put', key: `b${i}`, value })));
    await store.batch(Array.from({ length: 1_024 }, (_, i) => ({ type: 'put', key: `c${i}`, value: i })));
    expect(await store.getMany(['b0', 'b1', 'b2', 'b3', 'none', 'c1023'])).toEqual([
      value,
      value,
      value,
      value,
      undefined,
      1_023,
    ]);
  });
});

describe('answers that are too large for one page', () => {
  test('of getMany come in parts, in order, with as many keys as there are', async () => {
    const only = await host();
    const keys = Array.from({ length: 2_500 }, (_, i) => `k${i}`);
    for (const [i, key] of keys.entries())
      if (i % 3 > 0) only.service.apply(key, `${i}-${'x'.repeat(1_000)}`);
    const store = await clientOfAll([only]);
    const before = only.frames;
    const values = await store.getMany<string>(keys);
    expect(values.map((value) => value?.split('-')[0])).toEqual(
      keys.map((_, i) => (i % 3 > 0 ? String(i) : undefined)),
    );
    expect(only.frames - before).toBeGreaterThan(3);
  });

  test('of scans come page by page, in byte order of keys, whatever the characters', async () => {
    const only = await host();
    const keys = ['\0', 'a', 'b\uffff', 'b😀', 'é', '中', '\ue000', '\uffff', '𐀀', '😀'];
    for (let i = 0; i < 3_000; i++) keys.push(`m${i}`);
    for (const key of keys) only.service.apply(key, `${key}${'x'.repeat(300)}`);
    const store = await clientOfAll([only]);
    const before = only.frames;
    const ordered = [...keys].sort(bytewise);
    expect(await collect(store.keys())).toEqual(ordered);
    expect(only.frames - before).toBeGreaterThan(2);
    expect(await collect(store.keys({ reverse: true, gt: 'a', lte: '中' }))).toEqual(
      ordered.filter((key) => bytewise(key, 'a') > 0 && bytewise(key, '中') <= 0).reverse(),
    );
    expect(await collect(store.values({ prefix: 'b' }))).toEqual(
      ['b\uffff', 'b😀'].map((key) => `${key}${'x'.repeat(300)}`),
    );
    expect((await collect(store.entries({ limit: 1_234 }))).map(([key]) => key)).toEqual(
      ordered.slice(0, 1_234),
    );
    expect(await collect(store.keys({ limit: 0 }))).toEqual([]);
    expect(only.service.openScans).toBe(0);
  });
});
