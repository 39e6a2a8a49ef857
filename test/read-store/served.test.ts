/** A light client of a real node: what it is answered from the node's cache is what the node's disk says. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { connect } from '../../src/client/index.js';
import { openReplica } from '../../src/index.js';
import { readStoreContract } from './contract.js';

async function open(tuning = {}) {
  const data = mkdtempSync(join(tmpdir(), 'readmesh-test-'));
  const replica = await openReplica({ data, name: 'one', listen: '127.0.0.1:0', tuning });
  await replica.ready();
  const store = await connect({ hosts: [replica.address!] });
  const close = async (): Promise<void> => {
    await store.close();
    await replica.close();
    rmSync(data, { recursive: true, force: true });
  };
  return { store, replica, close };
}

readStoreContract('a light client of a node', open);
readStoreContract('a light client of a node without caches', () =>
  open({ cacheBytesMax: 0, encodedCacheBytesMax: 0 }),
);

describe('a light client of a node, besides', () => {
  test('is answered from memory what was read before, until it is written', async () => {
    const { store, replica, close } = await open();
    const cache = replica.node.encoded!;
    const keys = Array.from({ length: 300 }, (_, i) => `k${i}`);
    await replica.batch(keys.map((key, i) => ({ type: 'put', key, value: { i } })));
    const expected = keys.map((_, i) => ({ i }));
    // More than are looked up at once, then in one answer; then as many as are, and one.
    expect(await store.getMany(keys)).toEqual(expected);
    expect(cache.stats.entries).toBe(keys.length);
    const before = cache.stats.misses;
    expect(await store.getMany(keys)).toEqual(expected);
    expect(await store.getMany(keys.slice(0, 100))).toEqual(expected.slice(0, 100));
    expect(await store.get('k7')).toEqual({ i: 7 });
    expect(await store.has('k7')).toBe(true);
    expect(cache.stats.misses).toBe(before);
    // Neither side's writes leave an old value there.
    await replica.put('k7', 'seven');
    await store.del('k8');
    expect(await store.get('k7')).toBe('seven');
    expect(await store.get('k8')).toBeUndefined();
    expect(await store.has('k8')).toBe(false);
    expect(await store.getMany(['k6', 'k7', 'k8', 'none'])).toEqual([
      { i: 6 },
      'seven',
      undefined,
      undefined,
    ]);
    await close();
  });

  test('is never answered with a value older than its own last write, while others read the key', async () => {
    const { store, close } = await open();
    let isOver = false;
    const reading = (async () => {
      while (!isOver) await Promise.all([store.get('k'), store.getMany(['k', 'other'])]);
    })();
    for (let i = 0; i < 200; i++) {
      await store.put('k', i);
      expect(await store.get('k')).toBe(i);
    }
    isOver = true;
    await reading;
    await close();
  });

  test('is refused what is in memory, too, once the node answers no reads', async () => {
    const { store, replica, close } = await open();
    await store.put('k', 1);
    expect(await store.get('k')).toBe(1);
    replica.node.reads.setOpen(false);
    expect(replica.node.encoded).toBeUndefined();
    await close();
  });
});
