/** One host fails in every way there is; callers notice nothing, or get a coded error by their deadline. */
import { describe, expect, test } from 'vitest';
import { connect } from '../../src/client/index.js';
import { textOfStamp } from '../../src/core/hlc.js';
import { ReadmeshError } from '../../src/errors.js';
import { client, clientOfAll, closeLater, collect, deadAddress, host, until } from './support.js';

describe('reads', () => {
  test('are answered by the nearest host while it is fit', async () => {
    const [near, far] = [await host(), await host()];
    near.service.apply('k', 'near');
    far.service.apply('k', 'far');
    const store = await clientOfAll([near, far]);
    for (let i = 0; i < 20; i++) expect(await store.get('k')).toBe('near');
    expect(far.service.reads).toBe(0);
  });

  test('go to the next host when the nearest is not there', async () => {
    const far = await host();
    far.service.apply('k', 'far');
    const store = await client([await deadAddress(), far]);
    expect(await store.get('k')).toBe('far');
  });

  test('go to the next host when the nearest is lost in the midst of them', async () => {
    const [near, far] = [await host(), await host()];
    for (let i = 0; i < 200; i++) {
      near.service.apply(`k${i}`, i);
      far.service.apply(`k${i}`, i);
    }
    const store = await clientOfAll([near, far]);
    near.freeze();
    const reads = Promise.all(Array.from({ length: 200 }, (_, i) => store.get(`k${i}`)));
    await near.stop();
    expect(await reads).toEqual(Array.from({ length: 200 }, (_, i) => i));
    expect(far.service.reads).toBeGreaterThanOrEqual(200);
  });

  test('go to the next host when the nearest hangs, which is then left alone until it answers', async () => {
    const [near, far] = [await host(), await host()];
    near.service.apply('k', 'near');
    far.service.apply('k', 'far');
    const store = await clientOfAll([near, far], { tuning: { silentMs: 60_000 } });
    near.freeze();
    expect(await store.get('k')).toBe('far');
    const asked = far.service.reads;
    // The hanging one is not even tried: one frame to it, the first.
    for (let i = 0; i < 20; i++) expect(await store.get('k')).toBe('far');
    expect(far.service.reads).toBe(asked + 20);
    near.thaw();
    await until(() => near.service.statusCalls >= 3);
    for (let value: unknown; value !== 'near'; ) value = await store.get('k');
  });

  test('of an overdue host count when they do come: a slow only host is no failure', async () => {
    const slow = await host();
    slow.service.apply('k', 'slow');
    const store = await clientOfAll([slow], { tuning: { readAttemptMs: 1 } });
    slow.freeze();
    const read = store.get('k');
    await new Promise((resolve) => setTimeout(resolve, 100));
    slow.thaw();
    expect(await read).toBe('slow');
    expect(slow.connections).toBe(1);
  });

  test('go to the next host when the nearest is not ready, and come back when it is', async () => {
    const near = await host({}, { isReady: false });
    const far = await host();
    near.service.apply('k', 'near');
    far.service.apply('k', 'far');
    const store = await clientOfAll([near, far]);
    expect(await store.get('k')).toBe('far');
    near.service.isReady = true;
    for (let value: unknown; value !== 'near'; ) value = await store.get('k');
  });

  test('wait for a host that becomes ready in time', async () => {
    const only = await host({}, { isReady: false });
    only.service.apply('k', 1);
    const store = await client([only]);
    const read = store.get('k');
    await until(() => only.service.reads > 0);
    only.service.isReady = true;
    expect(await read).toBe(1);
  });

  test.each(['REMOVED', 'CLOSED', 'STORE_FAILED'] as const)(
    'go to the next host when the nearest answers %s',
    async (code) => {
      const [near, far] = [await host(), await host()];
      near.service.failure = new ReadmeshError(code, 'ask another');
      far.service.apply('k', 'far');
      const store = await clientOfAll([near, far]);
      expect(await store.get('k')).toBe('far');
      expect(await store.put('k', 1)).toMatchObject({ superseded: false });
    },
  );

  test('of a damaged record are answered by another host', async () => {
    const [near, far] = [await host(), await host()];
    near.service.failure = new ReadmeshError('DAMAGED', 'the record is damaged');
    far.service.apply('k', 'sound');
    const store = await clientOfAll([near, far]);
    expect(await store.get('k')).toBe('sound');
    expect(await store.getMany(['k', 'none'])).toEqual(['sound', undefined]);
    expect(await store.has('k')).toBe(true);
    expect(await collect(store.entries())).toEqual([['k', 'sound']]);
  });
});

describe('deadlines', () => {
  test('end every kind of call on a hanging host, each with a code', async () => {
    const only = await host();
    const store = await clientOfAll([only], { timeoutMs: 150 });
    only.freeze();
    const timeoutMs = 150;
    const calls = [
      store.get('k'),
      store.getMany(['k']),
      store.has('k'),
      collect(store.entries()),
      store.put('k', 1),
      store.del('k'),
      store.batch([{ type: 'del', key: 'k' }]),
      store.status(),
      store.members(),
      store.remove('x'),
      store.ready({ timeoutMs }),
      store.digest({ timeoutMs }),
      store.digestBucket(1, { timeoutMs }),
      store.verify({ timeoutMs }),
    ];
    for (const outcome of await Promise.allSettled(calls))
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'TIMEOUT' } });
  });

  test('end in UNREACHABLE, with the reason of each host, when there is nobody to ask', async () => {
    const [first, second] = [await host(), await host()];
    const store = await clientOfAll([first, second], { timeoutMs: 200 });
    await first.stop();
    await second.stop();
    const error = await store.get('k').catch((reason: unknown) => reason as ReadmeshError);
    expect(error).toMatchObject({ code: 'UNREACHABLE' });
    expect((error as ReadmeshError).message).toContain(first.address);
    expect((error as ReadmeshError).message).toContain(second.address);
  });

  test('end in the error of the hosts when all of them answer with one', async () => {
    const [first, second] = [await host({}, { isReady: false }), await host({}, { isReady: false })];
    const store = await clientOfAll([first, second], { timeoutMs: 300 });
    await expect(store.get('k')).rejects.toMatchObject({ code: 'NOT_READY' });
    expect(first.service.reads).toBeGreaterThan(0);
    expect(second.service.reads).toBeGreaterThan(0);
  });

  test('may be given per write, and are passed on to the host, shortened by the way back', async () => {
    const only = await host();
    const store = await client([only]);
    await store.put('k', 1, { timeoutMs: 5_000 });
    expect(only.service.writes[0]!.timeoutMs).toBeLessThan(5_000);
    expect(only.service.writes[0]!.timeoutMs).toBeGreaterThan(1_000);
  });
});

describe('writes', () => {
  test('bear the same stamp and bytes at whichever host they are repeated', async () => {
    const [near, far] = [await host(), await host()];
    near.service.hangWrites = true;
    const store = await clientOfAll([near, far], { tuning: { writeAttemptMs: 20 } });
    const receipt = await store.put('k', { n: 1 }, { timeoutMs: 3_000 });
    const [first, second] = [near.service.writes[0]!, far.service.writes[0]!];
    expect(textOfStamp(first.ops[0]!.stamp!)).toBe(receipt.stamp);
    expect(second.ops).toEqual(first.ops);
    expect(near.service.rows.get('k')!.subarray(6, 22)).toEqual(far.service.rows.get('k')!.subarray(6, 22));
  });

  test('that were lost with their host are repeated elsewhere under the same stamp', async () => {
    const [near, far] = [await host(), await host()];
    near.service.hangWrites = true;
    const store = await clientOfAll([near, far], { tuning: { writeAttemptMs: 15_000 } });
    const write = store.put('k', 1);
    await until(() => near.service.writes.length === 1);
    await near.stop();
    const receipt = await write;
    expect(far.service.writes[0]!.ops[0]!.stamp).toEqual(near.service.writes[0]!.ops[0]!.stamp);
    expect(receipt.stamp).toBe(textOfStamp(near.service.writes[0]!.ops[0]!.stamp!));
  });

  test('pass ACK_TIMEOUT on with what the host says, and are not repeated then', async () => {
    const [near, far] = [await host(), await host()];
    const details = { hosts: 1, needed: 3, stamp: 'ab'.repeat(16) };
    near.service.writeFailure = new ReadmeshError('ACK_TIMEOUT', '1 of 3 hosts hold it', { details });
    const store = await clientOfAll([near, far]);
    await expect(store.put('k', 1, { replicas: 3 })).rejects.toMatchObject({ code: 'ACK_TIMEOUT', details });
    expect(near.service.writes).toHaveLength(1);
    expect(near.service.writes[0]).toMatchObject({ replicas: 3 });
    expect(far.service.writes).toHaveLength(0);
  });

  test('can be repeated by the application under the stamp that a timeout names', async () => {
    const only = await host();
    only.service.hangWrites = true;
    const store = await client([only]);
    const error: unknown = await store.put('k', 'v', { timeoutMs: 100 }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: 'TIMEOUT',
      details: { stamp: expect.stringMatching(/^[0-9a-f]{32}$/) },
    });
    only.service.hangWrites = false;
    const { stamp } = (error as ReadmeshError).details;
    const receipt = await store.put('k', 'v', { stamp: String(stamp) });
    expect(receipt).toMatchObject({ stamp, superseded: false });
  });

  test('never claim that nothing happened when an earlier attempt may have taken effect', async () => {
    const [near, far] = [await host(), await host()];
    near.service.hangWrites = true;
    far.service.writeFailure = new ReadmeshError('FORBIDDEN', 'not allowed here');
    const store = await clientOfAll([near, far], { tuning: { writeAttemptMs: 20 } });
    const error: unknown = await store.put('k', 1, { timeoutMs: 3_000 }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'TIMEOUT', cause: { code: 'FORBIDDEN' } });
    expect((error as ReadmeshError).info.outcome).toBe('indeterminate');
  });

  test('go elsewhere when a host is overloaded, and hand on what is final', async () => {
    const [near, far] = [await host(), await host()];
    near.service.writeFailure = new ReadmeshError('OVERLOADED', 'too much at once');
    const store = await clientOfAll([near, far]);
    expect(await store.put('k', 1)).toMatchObject({ superseded: false });
    expect(far.service.writes).toHaveLength(1);
    near.service.writeFailure = new ReadmeshError('VALUE_TOO_LARGE', 'too large', { details: { bytes: 7 } });
    await expect(store.put('k', 1)).rejects.toMatchObject({ code: 'VALUE_TOO_LARGE', details: { bytes: 7 } });
    expect(far.service.writes).toHaveLength(1);
  });

  test('bear rising stamps in the order of the calls, and consecutive ones within a batch', async () => {
    const only = await host();
    const store = await client([only]);
    const receipts = await Promise.all([
      store.put('a', 1),
      store.batch([
        { type: 'put', key: 'a', value: 2 },
        { type: 'del', key: 'b' },
        { type: 'put', key: 'c', value: 3 },
      ]),
      store.put('a', 4),
    ]);
    const stamps = only.service.writes.flatMap(({ ops }) => ops.map(({ stamp }) => textOfStamp(stamp!)));
    expect(stamps).toEqual([...stamps].sort());
    expect(new Set(stamps).size).toBe(5);
    expect(receipts[1]!.stamp).toBe(stamps[3]);
    expect(BigInt(`0x${stamps[3]!.slice(0, 16)}`)).toBe(BigInt(`0x${stamps[1]!.slice(0, 16)}`) + 2n);
    expect(await store.get('a')).toBe(4);
  });
});

describe('scans', () => {
  const KEYS = Array.from({ length: 5_000 }, (_, i) => `k${String(i).padStart(5, '0')}`);

  test('go on at another host, from the last key, when theirs is lost', async () => {
    const [near, far] = [await host(), await host()];
    for (const [i, key] of KEYS.entries()) {
      near.service.apply(key, i);
      far.service.apply(key, i);
    }
    const store = await clientOfAll([near, far]);
    const seen: [string, number][] = [];
    for await (const entry of store.entries<number>()) {
      seen.push(entry);
      if (seen.length === 1_500) await near.stop();
    }
    expect(seen).toEqual(KEYS.map((key, i) => [key, i]));
    expect(far.service.reads).toBe(0);
    expect(far.frames).toBeGreaterThan(0);
  });

  test('go on at another host when theirs hangs, backwards, too', async () => {
    const [near, far] = [await host(), await host()];
    for (const [i, key] of KEYS.entries()) {
      near.service.apply(key, i);
      far.service.apply(key, i);
    }
    const store = await clientOfAll([near, far]);
    const seen: string[] = [];
    for await (const key of store.keys({ reverse: true, limit: 4_000 })) {
      seen.push(key);
      if (seen.length === 10) near.service.hang = true;
    }
    expect(seen).toEqual([...KEYS].reverse().slice(0, 4_000));
    near.service.hang = false;
  });

  test('leave no view of the store open when their reader leaves early', async () => {
    const only = await host();
    for (const [i, key] of KEYS.entries()) only.service.apply(key, i);
    const store = await client([only]);
    for await (const _ of store.values()) break;
    await store.status();
    await until(() => only.service.openScans === 0);
  });
});

describe('hosts', () => {
  test('are learned from greetings, and used when the given one is lost', async () => {
    const [given, learned] = [await host(), await host()];
    given.service.addresses = [given.address, learned.address];
    learned.service.apply('k', 'learned');
    const store = await client([given]);
    await until(() => learned.connections === 1);
    await given.stop();
    expect(await store.get('k')).toBe('learned');
  });

  test('that others name are left alone if only the given ones shall be used', async () => {
    const [given, named] = [await host(), await host()];
    given.service.addresses = [given.address, named.address];
    const store = await clientOfAll([given], { only: true, timeoutMs: 200 });
    await given.stop();
    await expect(store.get('k')).rejects.toMatchObject({ code: 'UNREACHABLE' });
    expect(named.connections).toBe(0);
  });

  test('are dialed again after a restart', async () => {
    const only = await host();
    only.service.apply('k', 1);
    const store = await client([only]);
    expect(await store.get('k')).toBe(1);
    await only.stop();
    const read = store.get('k');
    await only.start();
    expect(await read).toBe(1);
    expect(only.connections).toBe(2);
  });

  test('that fall silent are given up, and dialed anew', async () => {
    const only = await host();
    only.service.apply('k', 1);
    const store = await clientOfAll([only], { tuning: { pingMs: 20, silentMs: 60, dialTimeoutMs: 200 } });
    only.freeze();
    await until(() => only.clients.size === 0 || only.connections > 1);
    only.thaw();
    expect(await store.get('k')).toBe(1);
    await until(() => only.connections > 1);
  });

  test('known by two addresses are connected to once', async () => {
    const only = await host();
    const port = only.address.split(':')[1]!;
    const store = await client([only.address, `localhost:${port}`]);
    await until(() => only.connections === 2 && only.clients.size === 1);
    await store.get('k');
    expect(only.clients.size).toBe(1);
  });

  test('of another cluster are not used', async () => {
    const [ours, theirs] = [await host(), await host({}, { cluster: 'theirs' })];
    ours.service.apply('k', 'ours');
    const store = await client([theirs, ours], { cluster: 'default' });
    expect(await store.get('k')).toBe('ours');
    expect(theirs.service.reads).toBe(0);
  });
});

describe('connecting', () => {
  test('fails with UNREACHABLE, and says why for each host', async () => {
    const [one, two] = [await deadAddress(), await deadAddress()];
    const error: unknown = await connect({ hosts: [one, two], timeoutMs: 150 }).catch(
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({ code: 'UNREACHABLE' });
    for (const address of [one, two])
      expect((error as Error).message).toMatch(new RegExp(`${address}: .*ECONNREFUSED`));
  });

  test('fails at once when all hosts belong to another cluster', async () => {
    const theirs = await host({}, { cluster: 'theirs' });
    await expect(
      connect({ hosts: [theirs.address], cluster: 'ours', timeoutMs: 50_000 }),
    ).rejects.toMatchObject({ code: 'WRONG_CLUSTER' });
  });

  test('waits for a host that is just starting', async () => {
    const late = await host();
    await late.stop();
    const connecting = connect({ hosts: [late.address], timeoutMs: 20_000 });
    await late.start();
    const store = await connecting;
    closeLater(() => store.close());
    expect((await store.status()).name).toBe('fake');
  });

  test('refuses options that make no sense', async () => {
    const attempts = [
      connect({ hosts: [] }),
      connect({ hosts: ['no address at all'] }),
      connect({ hosts: ['127.0.0.1:0'] }),
      connect({ hosts: [7 as unknown as string] }),
      connect({ hosts: ['127.0.0.1:1'], timeoutMs: 0 }),
      connect({ hosts: ['127.0.0.1:1'], tuning: { nonsense: 1 } as object }),
    ];
    for (const outcome of await Promise.allSettled(attempts))
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'INVALID_OPTION' } });
  });
});

test('closing rejects what is in progress, ends watches, and every later call has a code', async () => {
  const only = await host();
  const store = await clientOfAll([only]);
  const watch = store.watch();
  only.service.hangWrites = true;
  const write = expect(store.put('k', 1)).rejects.toMatchObject({ code: 'CLOSED' });
  const next = watch.next();
  await store.close();
  await write;
  expect(await next).toEqual({ done: true, value: undefined });
  await expect(store.get('k')).rejects.toMatchObject({ code: 'CLOSED' });
  await expect(store.put('k', 1)).rejects.toMatchObject({ code: 'CLOSED' });
  expect(() => store.watch()).toThrow(expect.objectContaining({ code: 'CLOSED' }));
  await store.close();
  await until(() => only.clients.size === 0);
});
