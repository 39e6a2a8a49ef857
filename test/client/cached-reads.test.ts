/** What the server side keeps of what it reads, and when it must not. */
import { expect, test } from 'vitest';
import { EncodedCache } from '../../src/encoded-cache.js';
import { client, host } from './support.js';

const KEYS = Array.from({ length: 200 }, (_, i) => `k${i}`);
const VALUES = KEYS.map((_, i) => i);

async function hostOf(cache: EncodedCache) {
  const only = await host({}, { encoded: cache });
  for (const [i, key] of KEYS.entries()) only.service.apply(key, i);
  return only;
}

test('a key is looked up once, and answered from memory after that, alone or among others', async () => {
  const only = await hostOf(new EncodedCache(1_048_576));
  const store = await client([only]);
  expect(await store.get('k1')).toBe(1);
  expect(await store.getMany(KEYS.slice(0, 100))).toEqual(VALUES.slice(0, 100));
  expect(await store.getMany(KEYS)).toEqual(VALUES);
  const { reads } = only.service;
  expect(await store.getMany(KEYS)).toEqual(VALUES);
  expect(await store.getMany([...KEYS].reverse())).toEqual([...VALUES].reverse());
  expect([await store.get('k1'), await store.has('k1'), await store.get('k199')]).toEqual([1, true, 199]);
  expect(only.service.reads).toBe(reads);
  expect(await store.getMany(['none', 'k3'])).toEqual([undefined, 3]);
  expect(only.service.reads).toBe(reads + 1);
});

test('what was read before a write is not kept after it', async () => {
  const cache = new EncodedCache(1_048_576);
  const only = await hostOf(cache);
  const store = await client([only]);
  const { service } = only;
  const readRows = service.readRows.bind(service);
  let written = false;
  // The rows are on their way when the key is written.
  service.readRows = async (keys) => {
    const rows = await readRows(keys);
    if (!written) {
      written = true;
      service.apply('k5', 'new');
      cache.delete('k5');
    }
    return rows;
  };
  const read = await store.getMany(KEYS);
  expect(written).toBe(true);
  expect(read.slice(6)).toEqual(VALUES.slice(6));
  expect(await store.get('k5')).toBe('new');
});

test('one key that cannot be read fails the request, and the connection lives', async () => {
  const only = await hostOf(new EncodedCache(1_048_576));
  const store = await client([only]);
  const readRow = only.service.readRow.bind(only.service);
  only.service.readRow = (key) => {
    if (key === 'k9') throw new TypeError('a fault of ours');
    return readRow(key);
  };
  await expect(store.getMany(KEYS.slice(0, 20))).rejects.toMatchObject({ code: 'INTERNAL' });
  await expect(store.get('k9')).rejects.toMatchObject({ code: 'INTERNAL' });
  await expect(store.has('k9')).rejects.toMatchObject({ code: 'INTERNAL' });
  expect(await store.get('k8')).toBe(8);
  expect(only.clients.size).toBe(1);
});
