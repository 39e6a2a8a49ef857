/** Watches of the light client: what they tell, where they go on, and how they end. */
import { describe, expect, test } from 'vitest';
import type { Change } from '../../src/read-store.js';
import { Raw } from './raw.js';
import { client, clientOfAll, host, until, untilStuck } from './support.js';

async function take(watch: AsyncIterableIterator<Change>, count: number): Promise<Change[]> {
  const changes: Change[] = [];
  while (changes.length < count) {
    const next = await watch.next();
    if (next.done === true) break;
    changes.push(next.value);
  }
  return changes;
}

describe('a watch', () => {
  test('tells changes under its prefix from the call on, those of others, too, with their stamps', async () => {
    const only = await host();
    only.service.apply('p/before', 0);
    const store = await client([only]);
    const watch = store.watch('p/');
    const put = await store.put('p/a', { deep: [1] });
    await store.put('q', 1);
    const del = await store.del('p/a');
    const first = await take(watch, 1);
    only.service.apply('p/b', 'elsewhere');
    const second = await take(watch, 1);
    // Both changes of one key may have come together: then the newest is told.
    const [told] = first;
    if (told?.type === 'put') {
      expect(told).toEqual({ type: 'put', key: 'p/a', value: { deep: [1] }, stamp: put.stamp });
      expect(Object.isFrozen(told.value)).toBe(true);
      expect(second).toEqual([{ type: 'del', key: 'p/a', stamp: del.stamp }]);
      expect(await take(watch, 1)).toMatchObject([{ type: 'put', key: 'p/b', value: 'elsewhere' }]);
    } else {
      expect(first).toEqual([{ type: 'del', key: 'p/a', stamp: del.stamp }]);
      expect(second).toMatchObject([{ type: 'put', key: 'p/b', value: 'elsewhere' }]);
    }
  });

  test('ends by return, by its signal and by close, and the host forgets it', async () => {
    const only = await host();
    const store = await client([only]);
    const returned = store.watch();
    const ender = new AbortController();
    const aborted = store.watch('x', { signal: ender.signal });
    const closed = store.watch();
    await until(() => only.service.subscribers === 3);
    const waiting = [returned.next(), aborted.next(), closed.next()];
    await returned.return!();
    expect(await waiting[0]).toEqual({ done: true, value: undefined });
    await until(() => only.service.subscribers === 2);
    ender.abort();
    expect(await waiting[1]).toEqual({ done: true, value: undefined });
    await until(() => only.service.subscribers === 1);
    await store.close();
    expect(await waiting[2]).toEqual({ done: true, value: undefined });
    await until(() => only.service.subscribers === 0);
    expect(await aborted.next()).toEqual({ done: true, value: undefined });
  });

  test('whose signal was given before it began ends at once', async () => {
    const only = await host();
    const store = await client([only]);
    expect(await store.watch('', { signal: AbortSignal.abort() }).next()).toEqual({
      done: true,
      value: undefined,
    });
    expect(only.service.subscribers).toBe(0);
  });

  test('goes on at another host when its own is lost', async () => {
    const [near, far] = [await host(), await host()];
    const store = await clientOfAll([near, far]);
    const watch = store.watch();
    await until(() => near.service.subscribers === 1);
    near.service.apply('a', 1);
    expect(await take(watch, 1)).toMatchObject([{ key: 'a', value: 1 }]);
    const next = take(watch, 1);
    await near.stop();
    await until(() => far.service.subscribers === 1);
    far.service.apply('b', 2);
    expect(await next).toMatchObject([{ key: 'b', value: 2 }]);
  });

  test('waits for a host when there is none, and goes on when one is back', async () => {
    const only = await host();
    const store = await client([only]);
    const watch = store.watch();
    await until(() => only.service.subscribers === 1);
    const next = take(watch, 1);
    await only.stop();
    await until(() => only.service.subscribers === 0);
    await only.start();
    await until(() => only.service.subscribers === 1);
    only.service.apply('k', 'back');
    expect(await next).toMatchObject([{ key: 'k', value: 'back' }]);
  });

  test('is told of a host that falls silent, and goes on elsewhere', async () => {
    const [near, far] = [await host(), await host()];
    const store = await clientOfAll([near, far], { tuning: { pingMs: 20, silentMs: 60 } });
    const watch = store.watch();
    await until(() => near.service.subscribers === 1);
    near.freeze();
    await until(() => far.service.subscribers === 1);
    far.service.apply('k', 1);
    expect(await take(watch, 1)).toMatchObject([{ key: 'k', value: 1 }]);
  });
});

describe('changes that wait', () => {
  test('for the reader coalesce by key: the newest of each, in the order of the last changes', async () => {
    const only = await host();
    const store = await client([only]);
    const watch = store.watch();
    await until(() => only.service.subscribers === 1);
    for (let i = 0; i < 1_000; i++) only.service.apply(`k${i % 3}`, i);
    only.service.apply('last', true);
    // The answer to a request made after them comes after them.
    while (!(await store.has('last')));
    await until(() => only.service.subscribers === 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(
      (await take(watch, 4)).map((change) => [change.key, change.type === 'put' && change.value]),
    ).toEqual([
      ['k1', 997],
      ['k2', 998],
      ['k0', 999],
      ['last', true],
    ]);
  });

  test('for the reader past the cap fail the watch, and nothing else', async () => {
    const only = await host();
    const store = await client([only], { tuning: { watchQueueBytesMax: 5_000 } });
    const slow = store.watch('slow');
    const other = store.watch('other');
    await until(() => only.service.subscribers === 2);
    for (let i = 0; i < 20; i++) only.service.apply(`slow${i}`, 'x'.repeat(300));
    await until(() => only.service.subscribers === 1);
    await expect(slow.next()).rejects.toMatchObject({ code: 'WATCH_OVERFLOW' });
    expect(await slow.next()).toEqual({ done: true, value: undefined });
    only.service.apply('other', 1);
    expect(await take(other, 1)).toMatchObject([{ key: 'other' }]);
  });

  test('for the socket coalesce by key at the host', async () => {
    const only = await host({ outboundPauseBytes: 1_000 });
    only.service.apply('big', 'x'.repeat(1_000_000));
    const raw = await Raw.greeted(only);
    raw.send([[5, 7, 'w']]);
    await raw.answer(5);
    raw.ws.pause();
    raw.send(Array.from({ length: 64 }, (_, i) => [10 + i, 2, 'big']));
    await untilStuck(only);
    // Let events of the loop pass between them, so that each could have been sent by itself.
    for (let i = 0; i < 300; i++) {
      only.service.apply('w', i);
      if (i % 10 === 0) await new Promise(setImmediate);
    }
    raw.ws.resume();
    const told = (): unknown[][] =>
      raw.responses
        .filter(([id, status]) => id === 5 && status === 2)
        .map(([, , changes]) => changes as unknown[]);
    // 299, as the writer encoded it.
    await until(
      () => (told().at(-1)?.[3] as Buffer | undefined)?.equals(Buffer.from([0xcd, 0x01, 0x2b])) === true,
    );
    expect(told().flat().length / 4).toBeLessThan(30);
  });

  test('for the socket past the cap end the watch there, and the reader learns it', async () => {
    const only = await host({ outboundPauseBytes: 1_000, watchQueueBytesMax: 10_000 });
    only.service.apply('big', 'x'.repeat(1_000_000));
    const raw = await Raw.greeted(only);
    raw.send([[5, 7, 'w']]);
    await raw.answer(5);
    raw.ws.pause();
    raw.send(Array.from({ length: 64 }, (_, i) => [10 + i, 2, 'big']));
    await untilStuck(only);
    for (let i = 0; i < 100; i++) only.service.apply(`w${i}`, 'x'.repeat(1_000));
    expect(only.service.subscribers).toBe(0);
    raw.ws.resume();
    await until(() => raw.responses.some(([id, status]) => id === 5 && status === 1));
    expect(raw.responses.find(([id, status]) => id === 5 && status === 1)![2]).toBe('WATCH_OVERFLOW');
    // Its id is free again.
    await raw.answer(73);
    raw.send([[5, 4, 'k']]);
    await until(() => raw.responses.some(([id, status]) => id === 5 && status === 0));
  });
});

describe('the number of watches', () => {
  test('is capped per connection', async () => {
    const only = await host({ watchesMax: 2 });
    const raw = await Raw.greeted(only);
    raw.send([5, 6, 7].map((id) => [id, 7, 'w']));
    expect((await raw.answer(7)).slice(0, 3)).toEqual([7, 1, 'OVERLOADED']);
    expect(only.service.subscribers).toBe(2);
    raw.send([[8, 14, 5]]);
    raw.send([[9, 7, 'w']]);
    expect(await raw.answer(9)).toEqual([9, 2, []]);
  });

  test('is capped per client', async () => {
    const only = await host();
    const store = await client([only], { tuning: { watchesMax: 1 } });
    const watch = store.watch();
    expect(() => store.watch()).toThrow(expect.objectContaining({ code: 'OVERLOADED' }));
    await watch.return!();
    await store.watch().return!();
  });
});
