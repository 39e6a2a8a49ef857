import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openReplica } from '../../src/index.js';
import { readStoreContract } from './contract.js';

async function open(tuning = {}) {
  const data = mkdtempSync(join(tmpdir(), 'readmesh-test-'));
  const replica = await openReplica({ data, name: 'one', tuning });
  const close = async (): Promise<void> => {
    await replica.close();
    rmSync(data, { recursive: true, force: true });
  };
  return { store: replica, replica, data, close };
}

readStoreContract('the embedded replica', open);
readStoreContract('the embedded replica without a cache', () => open({ cacheBytesMax: 0 }));

describe('the embedded replica, besides', () => {
  test('reads synchronously, from the cache as from the disk', async () => {
    const { replica, close } = await open();
    await replica.put('k', [1, 'two']);
    expect(replica.getSync('k')).toEqual([1, 'two']);
    expect(replica.getSync('k')).toBe(replica.getSync('k'));
    expect(replica.getSync('none')).toBeUndefined();
    await replica.put('k', 2);
    expect(replica.getSync('k')).toBe(2);
    expect((await replica.status()).counters.cacheHits).toBeGreaterThan(0);
    await close();
  });

  test('keeps everything over a restart, its origin and its rising stamps included', async () => {
    const { replica, data, close } = await open();
    const before = await replica.put('k', 1);
    const { origin, heads } = await replica.status();
    await replica.close();
    const again = await openReplica({ data, name: 'one' });
    expect(again.getSync('k')).toBe(1);
    const status = await again.status();
    expect(status.origin).toBe(origin);
    expect(status.heads).toEqual(heads);
    const after = await again.put('k', 2);
    expect(after.stamp > before.stamp).toBe(true);
    expect((await again.status()).heads[origin]).toBe(heads[origin]! + 1);
    await again.close();
    await close();
  });

  test('refuses a folder that is open, another cluster, another name, and a wrong option, each with its code', async () => {
    const { data, close, replica } = await open();
    await expect(openReplica({ data, name: 'one' })).rejects.toMatchObject({ code: 'STORE_IN_USE' });
    await replica.close();
    await expect(openReplica({ data, cluster: 'other' })).rejects.toMatchObject({ code: 'WRONG_CLUSTER' });
    await expect(openReplica({ data, name: 'two' })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(openReplica({ data, listen: '0.0.0.0:0' })).rejects.toMatchObject({
      code: 'INSECURE_LISTEN',
    });
    await expect(openReplica({ data, listen: 'nonsense' })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(openReplica({ data, tuning: { nonsense: 1 } as object })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    });
    const again = await openReplica({ data });
    expect((await again.status()).name).toBe('one');
    await again.close();
    await close();
  });

  test('ends every call after it was closed with a code', async () => {
    const { replica, close } = await open();
    const watch = replica.watch();
    const next = watch.next();
    await replica.close();
    expect(await next).toEqual({ done: true, value: undefined });
    expect(() => replica.getSync('k')).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    await expect(replica.put('k', 1)).rejects.toMatchObject({ code: 'CLOSED' });
    await replica.close();
    await close();
  });

  test('answers writers with OVERLOADED at its bounded queue, and loses none that it accepted', async () => {
    const { replica, close } = await open({ pendingRowsMax: 50 });
    const results = await Promise.allSettled(Array.from({ length: 500 }, (_, i) => replica.put(`o${i}`, i)));
    const refused = results
      .filter((r) => r.status === 'rejected')
      .map((r) => (r.reason as { code: string }).code);
    expect(new Set(refused)).toEqual(new Set(['OVERLOADED']));
    for (const [i, result] of results.entries())
      expect(replica.getSync(`o${i}`)).toBe(result.status === 'fulfilled' ? i : undefined);
    await close();
  });
});
