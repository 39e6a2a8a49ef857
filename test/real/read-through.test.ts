import { afterEach, expect, test } from 'vitest';
import { connect } from '../../src/client/index.js';
import { type EmbeddedReplica, openReplica } from '../../src/node/replica.js';
import type { ReadStore } from '../../src/read-store.js';
import { eventually } from '../support/copies.js';
import { endDaemons, tempFolder } from '../support/daemon.js';

const ROWS = 3_000;
const key = (i: number): string => `key/${String(i).padStart(5, '0')}`;
const LAST = key(ROWS - 1);

const open = new Set<EmbeddedReplica>();
afterEach(async () => {
  for (const replica of open) await replica.close();
  open.clear();
  await endDaemons();
});

async function start(options: Partial<Parameters<typeof openReplica>[0]>): Promise<EmbeddedReplica> {
  const replica = await openReplica({ data: tempFolder(), listen: '127.0.0.1:0', ...options });
  open.add(replica);
  return replica;
}

/** A member that holds everything, and one that will take long to copy it. */
async function pair(readThrough: boolean): Promise<{ source: EmbeddedReplica; joiner: EmbeddedReplica }> {
  // Small chunks, so that a limit on bytes makes itself felt at once.
  const source = await start({ name: 'source', tuning: { chunkRowsMax: 64 } });
  await source.ready();
  for (let at = 0; at < ROWS; at += 1_000)
    await source.batch(
      Array.from({ length: 1_000 }, (_, i) => ({
        type: 'put' as const,
        key: key(at + i),
        value: { at: at + i, text: 'x'.repeat(50) },
      })),
    );
  await source.put('gone', 1);
  await source.del('gone');
  const joiner = await start({
    name: 'joiner',
    join: [source.address!],
    readThrough,
    tuning: { bootstrapBytesPerSecond: 30_000 },
  });
  await eventually(
    'something was copied',
    async () => ((await joiner.status()).bootstrap?.entries ?? 0) > 100,
  );
  return { source, joiner };
}

async function page(store: ReadStore, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const found of store.keys({ prefix })) keys.push(found);
  return keys;
}

test('with --read-through a node that is still copying answers every read, its own way or through a member', async () => {
  const { joiner } = await pair(true);
  expect((await joiner.status()).ready).toBe(false);
  expect((await fetch(`http://${joiner.address}/readyz`)).status).toBe(503);
  expect(await joiner.get(LAST)).toEqual({ at: ROWS - 1, text: 'x'.repeat(50) });
  expect(await joiner.get(key(0))).toMatchObject({ at: 0 });
  expect(await joiner.getMany([key(1), 'no such key', LAST, 'gone'])).toMatchObject([
    { at: 1 },
    undefined,
    { at: ROWS - 1 },
    undefined,
  ]);
  expect([await joiner.has(LAST), await joiner.has('gone')]).toEqual([true, false]);
  expect(await page(joiner, 'key/0299')).toEqual(Array.from({ length: 10 }, (_, i) => key(2_990 + i)));
  // What was copied is at hand at once; what was not cannot be asked for at once.
  expect(joiner.getSync(key(0))).toMatchObject({ at: 0 });
  expect(() => joiner.getSync(LAST)).toThrow(expect.objectContaining({ code: 'NOT_READY' }));

  const found = await fetch(`http://${joiner.address}/v1/kv/${encodeURIComponent(LAST)}`);
  expect([found.status, await found.json()]).toEqual([200, { at: ROWS - 1, text: 'x'.repeat(50) }]);
  expect((await fetch(`http://${joiner.address}/v1/kv/gone`)).status).toBe(404);
  const list = await fetch(`http://${joiner.address}/v1/kv?prefix=key/0299&limit=3`);
  expect(((await list.json()) as { entries: unknown[] }).entries).toHaveLength(3);
  expect((await joiner.status()).ready).toBe(false);
});

test('without it reads get NOT_READY until everything is copied', async () => {
  const { joiner } = await pair(false);
  await expect(joiner.get(key(0))).rejects.toMatchObject({ code: 'NOT_READY' });
  expect((await fetch(`http://${joiner.address}/v1/kv/${encodeURIComponent(LAST)}`)).status).toBe(503);
});

test('what is read through ends when the copy is complete: then the member may be gone', async () => {
  const source = await start({ name: 'source' });
  await source.put('k', 'v');
  const joiner = await start({ name: 'joiner', join: [source.address!], readThrough: true });
  await joiner.ready();
  await source.close();
  open.delete(source);
  expect([joiner.getSync('k'), await joiner.get('k')]).toEqual(['v', 'v']);
  const client = await connect({ hosts: [joiner.address!], only: true });
  expect(await client.get('k')).toBe('v');
  await client.close();
});
