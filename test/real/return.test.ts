/**
 * A host that returns when the cluster went on without it: its store is set aside and filled anew, and what only it
 * held is brought back, or in a file (FAULTS 28 and 30). Real processes, with short windows.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { Status } from '../../src/read-store.js';
import { converged, eventually } from '../support/copies.js';
import { Daemon, endDaemons, runCli, startCluster, tempFolder } from '../support/daemon.js';
import { httpDelete, httpGet, httpPut, httpStatus, type StatusBody } from '../support/http-api.js';

afterEach(endDaemons);

const WAIT_MS = 90_000;
const TEST_MS = 300_000;
/** Writes that only one host holds have to be done within half of it. */
const LEASE_MS = 12_000;
/** Shorter than the lease: whoever was excluded comes back with writes that are too old. */
const SHORT_MS = 4_000;
const LONG_MS = 600_000;
const ALONE = { replicas: 1 };
const PUTS_AT_ONCE = 100;

function config(lateRetryMs: number): string[] {
  const path = join(tempFolder(), 'config.json');
  const tuning = { leaseMs: LEASE_MS, lateRetryMs, beatMs: 250, maxClockDriftMs: 1_000 };
  writeFileSync(path, JSON.stringify({ tuning }));
  return ['--config', path];
}

async function put(daemon: Daemon, key: string, value: unknown, replicas: number): Promise<void> {
  const { status, body } = await httpPut(daemon.address, key, value, { replicas });
  expect([status, body.code]).toEqual([200, undefined]);
}

async function value(daemon: Daemon, key: string): Promise<unknown> {
  const { status, body } = await httpGet(daemon.address, key);
  return status === 404 ? 'missing' : body;
}

type FullStatus = StatusBody & Pick<Status, 'setAside' | 'digest'>;

async function statusOf({ address }: Daemon): Promise<FullStatus> {
  return (await httpStatus(address)) as FullStatus;
}

function setAside({ data }: Daemon): string[] {
  return readdirSync(data).filter((name) => /^db\.set-aside-[^a-z]*$/.test(name));
}

/** All but the last are killed; then it takes the writes, and hangs; the others come back and exclude it. */
async function leaveBehind(
  daemons: readonly Daemon[],
  write: (last: Daemon) => Promise<void>,
): Promise<void> {
  const others = daemons.slice(0, -1);
  const last = daemons.at(-1)!;
  await Promise.all(others.map((daemon) => daemon.kill9()));
  await write(last);
  last.pause();
  await Promise.all(others.map((daemon) => daemon.start()));
  await eventually(
    'it is excluded',
    async () => (await statusOf(others[0]!)).members.length < daemons.length,
    WAIT_MS,
  );
}

/** Until it is ready, and what earlier stores of it held was dealt with. */
async function returned(daemon: Daemon): Promise<FullStatus> {
  try {
    return await eventually(
      'the old store is read',
      async () => {
        const status = await statusOf(daemon);
        const { ready, setAside: aside } = status;
        return ready && aside?.stores.every(({ state }) => state === 'read') === true && status;
      },
      WAIT_MS,
    );
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${daemon.stderr.slice(-6_000)}`);
  }
}

test('a host that was excluded while it hung is filled anew, and its unreplicated writes come back', {
  timeout: TEST_MS,
}, async () => {
  const daemons = await startCluster(3, { args: config(LONG_MS) });
  const [a, , c] = daemons as [Daemon, Daemon, Daemon];
  await put(a, 'shared', 1, 3);
  await put(a, 'newer', 'old', 3);
  await leaveBehind(daemons, async (last) => {
    await put(last, 'only-c', { n: 1 }, 1);
    await put(last, 'newer', 'of c', 1);
    expect((await httpDelete(last.address, 'shared', ALONE)).status).toBe(200);
  });
  await put(a, 'newer', 'of a', 2);
  c.resume();
  const status = await returned(c);
  expect(status.setAside!.stores).toMatchObject([{ held: 1, returned: 2, kept: 0, damaged: 0 }]);
  expect(status.issues).toEqual([]);
  const copy = await converged(daemons);
  expect(copy).toEqual(
    new Map<string, unknown>([
      ['newer', 'of a'],
      ['only-c', { n: 1 }],
    ]),
  );
  expect(setAside(c)).toHaveLength(1);
  expect(existsSync(join(c.data, 'rejoin.json'))).toBe(false);
});

test('what is too old to come back is in a file that import reads; what was deleted meanwhile stays deleted', {
  timeout: TEST_MS,
}, async () => {
  const daemons = await startCluster(3, { args: config(SHORT_MS) });
  const [a, , c] = daemons as [Daemon, Daemon, Daemon];
  for (const key of ['deleted', 'stays']) await put(a, key, key, 3);
  await leaveBehind(daemons, async (last) => {
    await put(last, 'only-c', { n: 1 }, 1);
    expect((await httpDelete(last.address, 'stays', ALONE)).status).toBe(200);
  });
  expect((await httpDelete(a.address, 'deleted')).status).toBe(200);
  await eventually('the deletion is collected', async () => (await statusOf(a)).digest.keys === 1, WAIT_MS);
  c.resume();
  const status = await returned(c);
  expect(status.setAside!.stores).toMatchObject([{ returned: 0, kept: 2 }]);
  const [file] = status.setAside!.files;
  expect(readFileSync(file!, 'utf8')).toBe(
    '{"key":"only-c","value":{"n":1}}\n{"key":"stays","deleted":true}\n',
  );
  expect(status.issues.map(({ code }) => code)).toEqual(['SET_ASIDE']);
  expect(await converged(daemons)).toEqual(new Map([['stays', 'stays']]));
  const imported = await c.cli('import', file!);
  expect([imported.code, imported.stderr]).toEqual([0, '']);
  expect(await converged(daemons)).toEqual(new Map([['only-c', { n: 1 }]]));
  expect(await value(a, 'deleted')).toBe('missing');
});

test('killed again and again while it sets its store aside, fills a new one and reads the old one, it loses nothing', {
  timeout: TEST_MS,
}, async () => {
  const daemons = await startCluster(3, { args: config(LONG_MS) });
  const [a, , c] = daemons as [Daemon, Daemon, Daemon];
  await put(a, 'shared', 1, 3);
  const only = Array.from({ length: 300 }, (_, i) => `only-c/${String(i).padStart(3, '0')}`);
  await leaveBehind(daemons, async (last) => {
    // Not all at once: a host that is slow to read evicts the first of more than `waitingSocketsMax` connections.
    for (let i = 0; i < only.length; i += PUTS_AT_ONCE)
      await Promise.all(only.slice(i, i + PUTS_AT_ONCE).map((key) => put(last, key, key, 1)));
  });
  const steps: [string, (name: string) => boolean][] = [
    ['the intention', (name) => name === 'rejoin.json'],
    ['the old store', (name) => setAside(c).includes(name)],
    ['the new store', (name) => name === 'db' && setAside(c).length > 0],
    ['its copy', (name) => name.endsWith('.reading')],
  ];
  c.resume();
  for (const [what, isThere] of steps) {
    if (!c.running) c.spawn();
    await eventually(what, () => readdirSync(c.data).some(isThere), WAIT_MS);
    await c.kill9();
  }
  // Without the members it was told to join, as a founder is started: it knows them, and founds nothing.
  await c.start();
  const status = await returned(c);
  expect(status.clusterUid).toBe((await statusOf(a)).clusterUid);
  expect(status.setAside!.stores).toHaveLength(1);
  const copy = await converged(daemons);
  expect([...copy.keys()]).toEqual([...only, 'shared']);
});

test('what only a damaged store held, which LevelDB cannot even open, comes back after --rebuild', {
  timeout: TEST_MS,
}, async () => {
  const daemons = await startCluster(2, { args: config(LONG_MS) });
  const [a, b] = daemons as [Daemon, Daemon];
  await put(a, 'shared', 1, 2);
  await a.kill9();
  await put(b, 'only-b', 2, 1);
  await b.stop();
  rmSync(join(b.data, 'db', 'CURRENT'));
  await a.start();
  await b.start(['--rebuild']);
  const status = await returned(b);
  expect(status.setAside!.stores).toMatchObject([
    {
      held: 1,
      returned: 1,
      kept: 0,
      damaged: 0,
      failure: expect.stringMatching(/reader ended \(exit 1\): \S/),
    },
  ]);
  const copy = await converged(daemons);
  expect(copy).toEqual(
    new Map([
      ['only-b', 2],
      ['shared', 1],
    ]),
  );
  // Reading it changed nothing of it.
  expect(readdirSync(join(b.data, setAside(b)[0]!))).not.toContain('CURRENT');
});

test('an old backup that was restored is recognised: no deleted key comes back, what only it held is in the file', {
  timeout: TEST_MS,
}, async () => {
  const args = config(SHORT_MS);
  const daemons = await startCluster(2, { args });
  const [a, b] = daemons as [Daemon, Daemon];
  for (const key of ['gone', 'stays']) await put(a, key, key, 2);
  await a.kill9();
  await put(b, 'only-backup', 1, 1);
  const backup = join(tempFolder(), 'old.rmb');
  expect((await b.cli('backup', backup)).code).toBe(0);
  await b.kill9();
  b.wipe();
  await a.start();
  await b.start();
  expect((await httpDelete(a.address, 'gone', { replicas: 2, timeoutMs: 10_000 })).status).toBe(200);
  await eventually(
    'the deletion is collected',
    async () => (await Promise.all(daemons.map(statusOf))).every(({ digest }) => digest.keys === 1),
    WAIT_MS,
  );
  const restored = new Daemon({ name: 'n3', join: [a.address], args });
  expect((await runCli(['restore', backup, '--data', restored.data])).code).toBe(0);
  await restored.start();
  const status = await returned(restored);
  expect(status.name).toBe('n3');
  expect(status.setAside!.stores).toMatchObject([{ returned: 0, kept: 1 }]);
  expect(readFileSync(status.setAside!.files[0]!, 'utf8')).toBe('{"key":"only-backup","value":1}\n');
  expect(await converged([...daemons, restored])).toEqual(new Map([['stays', 'stays']]));
});
