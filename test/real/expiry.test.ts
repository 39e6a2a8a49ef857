/** Entries that expire, through every face of real processes whose clocks are moved rather than waited for. */
import { afterEach, expect, test } from 'vitest';
import { connect, type LightClient } from '../../src/client/index.js';
import type { Change, Status } from '../../src/read-store.js';
import { eventually, verified } from '../support/copies.js';
import { type Daemon, endDaemons, runCli, startCluster, startDaemon } from '../support/daemon.js';
import { httpGet, httpPut, httpScan } from '../support/http-api.js';

afterEach(endDaemons);

const TTL_MS = 600_000;
const FACES = ['batch', 'client', 'http', 'import', 'put'];

async function statusOf(daemon: Daemon): Promise<Status> {
  return (await (await daemon.fetch('/v1/status')).json()) as Status;
}

async function writeByEveryFace(daemon: Daemon, client: LightClient): Promise<void> {
  await client.put('e/client', 1, { ttlMs: TTL_MS });
  await client.batch([
    { type: 'put', key: 'e/batch', value: 1, ttlMs: TTL_MS },
    { type: 'put', key: 's/batch', value: 1 },
  ]);
  const put = await daemon.fetch(`/v1/kv/e%2Fhttp?ttlMs=${TTL_MS}`, { method: 'PUT', body: '1' });
  expect(put.status).toBe(200);
  expect((await daemon.cli('put', 'e/put', '1', '--ttl-ms', String(TTL_MS))).code).toBe(0);
  const lines = `{"key":"e/import","value":1,"ttlMs":${TTL_MS}}\n{"key":"s/import","value":1}\n`;
  const imported = await runCli(['import', '-', '--hosts', daemon.address], { stdin: lines });
  expect(imported.code).toBe(0);
}

/** What each way of reading says there is under `e/`. */
async function seenBy(daemon: Daemon, client: LightClient): Promise<Record<string, string[]>> {
  const keys = FACES.map((face) => `e/${face}`);
  const named = (found: readonly unknown[]): string[] => FACES.filter((_, i) => found[i] === true);
  const lines = (text: string): string[] =>
    text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line) as { key: string }).key.slice(2));
  const listed: string[] = [];
  for await (const key of client.keys({ prefix: 'e/' })) listed.push(key.slice(2));
  const values = await client.getMany(keys);
  const [scan, exported] = [await daemon.cli('scan', 'e/'), await daemon.cli('export', 'e/')];
  return {
    has: named(await Promise.all(keys.map((key) => client.has(key)))),
    get: named((await Promise.all(keys.map((key) => client.get(key)))).map((value) => value === 1)),
    getMany: named(values.map((value) => value === 1)),
    keys: listed,
    http: named(
      await Promise.all(keys.map(async (key) => (await httpGet(daemon.address, key)).status === 200)),
    ),
    httpList: [...(await httpScan(daemon.address, 'e/')).keys()].map((key) => key.slice(2)),
    scan: lines(scan.stdout),
    export: lines(exported.stdout),
  };
}

test('written by any face, an entry is missing from every face at every host once its time is over; nothing is sent, and copies stay equal', {
  timeout: 120_000,
}, async () => {
  const [a, b] = (await startCluster(2, { clock: true })) as [Daemon, Daemon];
  await using atA = await connect({ hosts: [a.address], timeoutMs: 10_000, only: true });
  await using atB = await connect({ hosts: [b.address], timeoutMs: 10_000, only: true });
  const stop = new AbortController();
  const changes: Change[] = [];
  const watching = (async () => {
    for await (const change of atB.watch('e/', { signal: stop.signal })) changes.push(change);
  })();
  await atB.status();
  await writeByEveryFace(a, atA);
  await verified(a, 2);
  for (const seen of [await seenBy(a, atA), await seenBy(b, atB)])
    for (const [way, found] of Object.entries(seen)) expect(found, way).toEqual(FACES);
  // What is left is exported; what stays has none.
  const { stdout } = await b.cli('export');
  for (const line of stdout.trim().split('\n')) {
    const { key, ttlMs } = JSON.parse(line) as { key: string; ttlMs?: number };
    if (key.startsWith('s/')) expect(ttlMs).toBeUndefined();
    else {
      expect(ttlMs).toBeGreaterThan(0);
      expect(ttlMs).toBeLessThanOrEqual(TTL_MS);
    }
  }
  const before = await Promise.all([a, b].map(statusOf));
  for (const daemon of [a, b]) daemon.setClock(`+${2 * TTL_MS}`);
  for (const [daemon, client] of [
    [a, atA],
    [b, atB],
  ] as const) {
    await eventually('all have ended', async () =>
      (await client.getMany(FACES.map((face) => `e/${face}`))).every((value) => value === undefined),
    );
    for (const [way, found] of Object.entries(await seenBy(daemon, client))) expect(found, way).toEqual([]);
    expect(await client.has('s/batch')).toBe(true);
  }
  const after = await Promise.all([a, b].map(statusOf));
  for (const [i, { heads, digest, counters }] of after.entries()) {
    expect(heads).toEqual(before[i]!.heads);
    expect([digest.keys, digest.root]).toEqual([before[i]!.digest.keys, before[i]!.digest.root]);
    expect(counters.framesPushed).toBe(before[i]!.counters.framesPushed);
  }
  await verified(a, 2);
  // A timer looks at its clock every ten seconds: it may only come after what is read.
  await eventually(
    'the watch is told of all of them',
    () => new Set(changes.filter(({ type }) => type === 'del').map(({ key }) => key)).size === FACES.length,
  );
  stop.abort();
  await watching;
  // A newer write is there again, and what it replaced was over.
  await eventually(
    'the clocks are trusted',
    async () => (await httpPut(a.address, 'e/put', 2, { replicas: 2 })).status === 200,
  );
  expect(await atB.get('e/put')).toBe(2);
});

test('export, then import, keeps what is left of each entry', { timeout: 60_000 }, async () => {
  const from = await startDaemon({ clock: true });
  await using client = await connect({ hosts: [from.address], timeoutMs: 10_000, only: true });
  await client.put('stays', 1);
  await client.put('goes', { deep: [1n] }, { ttlMs: 600_000 });
  from.setClock('+400000');
  const text = await eventually('its time has passed', async () => {
    const { stdout } = await from.cli('export');
    const left = /"ttlMs":(\d+)/.exec(stdout)?.[1];
    return Number(left) <= 200_000 && stdout;
  });
  const to = await startDaemon({ clock: true });
  const imported = await runCli(['import', '-', '--hosts', to.address], { stdin: text });
  expect(imported.stdout).toBe('imported 2 entries\n');
  expect((await to.cli('get', 'goes')).stdout).toBe('{"deep":[{"$bigint":"1"}]}\n');
  to.setClock('+200001');
  await eventually('one is gone, one stays', async () => {
    const codes = [(await to.cli('get', 'goes')).code, (await to.cli('get', 'stays')).code];
    return codes[0] === 1 && codes[1] === 0;
  });
});

test('one host whose clock is ahead shows an entry as over, alone, and only for so long', {
  timeout: 60_000,
}, async () => {
  const [a, b] = (await startCluster(2, { clock: true })) as [Daemon, Daemon];
  const put = await a.fetch('/v1/kv/k?ttlMs=3600000&replicas=2', { method: 'PUT', body: '1' });
  expect(put.status).toBe(200);
  b.setClock('+7200000');
  await eventually('it is over there', async () => (await httpGet(b.address, 'k')).status === 404);
  expect((await httpGet(a.address, 'k')).body).toBe(1);
  b.setClock('');
  await eventually('it is back', async () => (await httpGet(b.address, 'k')).status === 200);
  await verified(a, 2);
});
