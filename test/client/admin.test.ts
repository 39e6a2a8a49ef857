/** What operators ask of the cluster and of single hosts, and what does not depend on which host is ready. */
import { expect, test } from 'vitest';
import { ReadmeshError } from '../../src/errors.js';
import { client, clientOfAll, host, until } from './support.js';

test('reports of a host come through as it made them', async () => {
  const only = await host();
  only.service.apply('k', 1);
  const store = await client([only]);
  expect(await store.status()).toEqual(JSON.parse(JSON.stringify(only.service.status())));
  expect(await store.members()).toEqual(JSON.parse(JSON.stringify(only.service.status().members)));
  expect(await store.digest()).toEqual(await only.service.digest());
  expect(await store.verify()).toEqual(await only.service.verify());
});

test('a bucket of any size comes through, in order', async () => {
  const only = await host();
  only.service.bucket = Array.from({ length: 12_345 }, (_, i) => ({
    key: `key-${i}-é`,
    stamp: i.toString(16).padStart(32, '0'),
  }));
  const store = await client([only]);
  expect(await store.digestBucket(255)).toEqual(only.service.bucket);
  await expect(store.digestBucket(256)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
});

test('a member is removed by name, and a name that is none is NOT_FOUND', async () => {
  const only = await host();
  const store = await client([only]);
  await store.remove('gone');
  await expect(store.remove('nobody')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  await expect(store.remove('')).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  expect(only.service.removed).toEqual(['gone', 'nobody']);
});

test('a removal that may have been done is not sent to another host', async () => {
  const [near, far] = [await host(), await host()];
  const store = await clientOfAll([near, far]);
  near.freeze();
  const removal = expect(store.remove('gone')).rejects.toMatchObject({ code: 'UNREACHABLE' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  await near.stop();
  await removal;
  expect(far.service.removed).toEqual([]);
});

test('status is that of the nearest host, ready or not', async () => {
  const near = await host({}, { isReady: false, name: 'near' });
  const far = await host({}, { name: 'far' });
  const store = await clientOfAll([near, far]);
  expect(await store.status()).toMatchObject({ name: 'near', ready: false, phase: 'bootstrapping' });
});

test('status comes from the next host when the nearest is lost', async () => {
  const near = await host({}, { name: 'near' });
  const far = await host({}, { name: 'far' });
  const store = await clientOfAll([near, far]);
  await near.stop();
  expect(await store.status()).toMatchObject({ name: 'far' });
});

test('a report that is none of its kind is refused', async () => {
  const only = await host();
  const store = await client([only]);
  only.service.digest = async () => ({ nonsense: true }) as never;
  await expect(store.digest()).rejects.toMatchObject({ code: 'PROTOCOL_ERROR' });
});

test('ready resolves as soon as one host is ready, and ends by its deadline otherwise', async () => {
  const near = await host({}, { hang: true });
  const far = await host();
  const store = await clientOfAll([near, far]);
  await store.ready({ level: 'synced' });
  far.service.failure = new ReadmeshError('NOT_READY', 'not yet');
  await expect(store.ready({ timeoutMs: 400 })).rejects.toMatchObject({
    code: expect.stringMatching(/^(TIMEOUT|NOT_READY)$/),
  });
});

test('a client closes while hosts hang, restart and refuse', async () => {
  const [hung, gone, refused] = [await host(), await host(), await host()];
  const store = await clientOfAll([hung, gone, refused]);
  hung.freeze();
  await gone.stop();
  refused.service.cluster = 'theirs';
  const read = store.get('k').catch((error: ReadmeshError) => error.code);
  await store.close();
  expect(['CLOSED', undefined]).toContain(await read);
  await until(() => refused.clients.size === 0);
});
