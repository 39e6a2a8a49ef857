/**
 * What is deleted while a member is cut off stays deleted: when the cut heals within the lease, and when the others went
 * on without it and have long collected the deletions. Real daemons on wires of the test's own, with short windows.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { Status } from '../../src/read-store.js';
import { converged, eventually } from '../support/copies.js';
import { type Daemon, endDaemons, tempFolder } from '../support/daemon.js';
import { httpDelete, httpGet, httpPut, httpScan, httpStatus, type StatusBody } from '../support/http-api.js';
import { Wired } from '../support/wired.js';

const WAIT_MS = 60_000;
/** Shorter than the lease: whoever was excluded comes back with writes that are too old. */
const LATE_RETRY_MS = 4_000;
const LEASE_MS = 12_000;
const ALONE = { replicas: 1 };

let wired: Wired | undefined;

afterEach(async () => {
  await endDaemons();
  await wired?.close();
});

type FullStatus = StatusBody & Status;

const statusOf = async ({ address }: Daemon): Promise<FullStatus> =>
  (await httpStatus(address)) as FullStatus;

function config(): string[] {
  const path = join(tempFolder(), 'config.json');
  const tuning = { leaseMs: LEASE_MS, lateRetryMs: LATE_RETRY_MS, beatMs: 250, maxClockDriftMs: 1_000 };
  writeFileSync(path, JSON.stringify({ tuning }));
  return ['--config', path];
}

const keys = (prefix: string): string[] => Array.from({ length: 25 }, (_, i) => `${prefix}/${10 + i}`);

async function putAll(at: Daemon, written: readonly string[], replicas = 1): Promise<void> {
  const answers = await Promise.all(written.map((key) => httpPut(at.address, key, key, { replicas })));
  expect(new Set(answers.map(({ status, body }) => `${status} ${body.code}`))).toEqual(
    new Set(['200 undefined']),
  );
}

async function deleteAll(at: Daemon, gone: readonly string[]): Promise<void> {
  const answers = await Promise.all(gone.map((key) => httpDelete(at.address, key, ALONE)));
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
}

/** The deletions are gone from the disks, too: nothing is left but what lives. */
async function collected(at: readonly Daemon[], live: number): Promise<void> {
  await eventually(
    'deletions are collected',
    async () => (await Promise.all(at.map(statusOf))).every(({ digest }) => digest.keys === live),
    WAIT_MS,
  );
}

const present = async (at: Daemon): Promise<string[]> => [...(await httpScan(at.address)).keys()];

/** First the links stay open and carry nothing; then they break, and no new ones come. */
async function cutOff(cluster: Wired, member: Daemon): Promise<() => void> {
  const wires = cluster.around(member);
  const linked = async (at: Daemon): Promise<number> =>
    (await httpStatus(at.address)).members.filter((other) => other.linked).length;
  for (const wire of wires) wire.blackhole();
  await eventually('all sides give the links up', async () => {
    const counts = await Promise.all(cluster.daemons.map(linked));
    return counts.every((count, i) => count === (cluster.daemons[i] === member ? 0 : counts.length - 2));
  });
  expect(wires.some(({ connections }) => connections > 0)).toBe(true);
  for (const wire of wires) wire.cut();
  return () => {
    expect(wires.reduce((sum, { counts }) => sum + counts.cut + counts.refused, 0)).toBeGreaterThan(0);
    for (const wire of wires) wire.heal();
  };
}

test('no key returns after a member was cut off: neither within its lease nor beyond it', async () => {
  wired = await Wired.create(['a', 'b', 'c'], { args: config() });
  const { daemons } = wired;
  const [a, b, c] = daemons as [Daemon, Daemon, Daemon];
  await a.start();
  await Promise.all([b.start(), c.start()]);
  await putAll(a, [...keys('stays'), ...keys('gone-a'), ...keys('gone-c'), ...keys('gone-later')], 3);

  // Within the lease.
  let heal = await cutOff(wired, c);
  await deleteAll(c, keys('gone-c'));
  await putAll(c, [...keys('new-c'), 'lost', 'gone-a/10']);
  await deleteAll(a, [...keys('gone-a'), 'lost']);
  await putAll(b, keys('new-a'));
  const live = [...keys('new-a'), ...keys('new-c'), ...keys('stays'), ...keys('gone-later')].sort();
  for (const node of [a, b])
    await eventually('it is said who holds up the horizon', async () =>
      (await statusOf(node)).gcBlockedBy.some(({ who, why }) => who === 'c' && why === 'silent'),
    );
  expect(await present(c)).toEqual(expect.arrayContaining(keys('gone-a').slice(1)));
  expect((await statusOf(a)).counters.recordsCollected).toBe(0);
  heal();
  expect([...(await converged(daemons)).keys()].sort()).toEqual(live);
  await collected(daemons, live.length);
  for (const node of daemons) {
    expect((await present(node)).sort()).toEqual(live);
    expect((await statusOf(node)).counters).toMatchObject({ digestMismatches: 0, recordsSetAside: 0 });
  }
  await eventually('nobody holds the horizon up', async () => (await statusOf(a)).gcBlockedBy.length === 0);
  const { origin, members } = await statusOf(c);
  expect(members).toHaveLength(3);

  // Beyond it: the others exclude it, and collect.
  heal = await cutOff(wired, c);
  await putAll(c, [...keys('only-c'), 'gone-later/10']);
  await deleteAll(a, keys('gone-later'));
  const left = live.filter((key) => !key.startsWith('gone-later'));
  await eventually('it is excluded', async () => (await statusOf(a)).members.length === 2, WAIT_MS);
  await collected([a, b], left.length);
  expect(await httpPut(c.address, 'late', 1, ALONE)).toMatchObject({
    status: 503,
    body: { code: 'NO_MAJORITY' },
  });
  expect(await present(c)).toEqual(expect.arrayContaining(keys('gone-later')));
  heal();
  expect([...(await converged(daemons)).keys()].sort()).toEqual(left);
  await c.logged('outdated');
  const back = await eventually(
    'its old store is read',
    async () => {
      const status = await statusOf(c);
      return status.ready && status.setAside?.stores.every(({ state }) => state === 'read') && status;
    },
    WAIT_MS,
  );
  expect(back.origin).not.toBe(origin);
  // What only it had accepted is too old to be a late retry: it is for the operator.
  expect(back.setAside).toMatchObject({ stores: [{ returned: 0, kept: 26, damaged: 0 }] });
  const lines = readFileSync(back.setAside!.files[0]!, 'utf8').trimEnd().split('\n');
  expect(lines.map((line) => (JSON.parse(line) as { key: string }).key)).toEqual([
    'gone-later/10',
    ...keys('only-c'),
  ]);
  expect([...(await converged(daemons)).keys()].sort()).toEqual(left);
  await collected(daemons, left.length);
  expect((await httpGet(c.address, 'gone-later/11')).status).toBe(404);
}, 180_000);
