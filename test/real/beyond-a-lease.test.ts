/**
 * Silence for longer than a lease that excludes nobody: two halves that were cut apart, neither of which is a majority,
 * and a cluster that was off as a whole. Nothing acknowledged is lost, no deleted key returns, nobody starts anew.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { converged, eventually } from '../support/copies.js';
import { type Daemon, endDaemons, startDaemon, tempFolder } from '../support/daemon.js';
import { httpDelete, httpPut, httpStatus } from '../support/http-api.js';
import { Wired } from '../support/wired.js';

const LEASE_MS = 4_000;
const LATE_RETRY_MS = 2_000;

let wired: Wired | undefined;

afterEach(async () => {
  await endDaemons();
  await wired?.close();
  wired = undefined;
});

function config(): string[] {
  const path = join(tempFolder(), 'config.json');
  const tuning = { leaseMs: LEASE_MS, lateRetryMs: LATE_RETRY_MS, beatMs: 250, maxClockDriftMs: 900 };
  writeFileSync(path, JSON.stringify({ tuning }));
  return ['--config', path];
}

const put = async (at: Daemon, key: string, value: string): Promise<void> =>
  expect(await httpPut(at.address, key, value, { replicas: 2 })).toMatchObject({ status: 200 });

const remove = async (at: Daemon, key: string): Promise<void> =>
  expect(await httpDelete(at.address, key, { replicas: 2 })).toMatchObject({ status: 200 });

const outlasts = async (what: string, leases: number): Promise<void> => {
  const until = performance.now() + leases * LEASE_MS;
  await eventually(what, async () => performance.now() > until);
};

const identities = async (nodes: readonly Daemon[]): Promise<{ origin: string; members: number }[]> =>
  Promise.all(
    nodes.map(async ({ address }) => {
      const { origin, members } = await httpStatus(address);
      return { origin, members: members.length };
    }),
  );

test('two halves that are cut apart for longer than a lease both go on, exclude nobody, and lose nothing', async () => {
  wired = await Wired.create(['a', 'b', 'c', 'd'], { args: config() });
  const { daemons } = wired;
  const [a, b, c, d] = daemons as [Daemon, Daemon, Daemon, Daemon];
  await a.start();
  await Promise.all([b.start(), c.start(), d.start()]);
  for (const key of ['both', 'deleted', 'contended']) await put(a, key, 'before');
  await converged(daemons);
  const before = await identities(daemons);

  const wires = wired.between([a, b], [c, d]);
  for (const wire of wires) wire.cut();
  const halves = [
    [a, 'left'],
    [d, 'right'],
  ] as const;
  await remove(b, 'deleted');
  // The first round within the lease, the second long after it.
  for (const round of [1, 2]) {
    for (const [at, half] of halves) {
      await put(at, `${half}/${round}`, half);
      await put(at, 'contended', `${half} ${round}`);
    }
    await outlasts('the cut', 1.5);
  }
  // The tombstone has to stay: who was cut off still holds the key.
  for (const node of [a, b])
    expect((await httpStatus(node.address)).counters).toMatchObject({ recordsCollected: 0 });
  expect(await identities(daemons)).toEqual(before);

  for (const wire of wires) wire.heal();
  const live = await converged(daemons);
  expect(Object.fromEntries(live)).toEqual({
    both: 'before',
    contended: 'right 2',
    'left/1': 'left',
    'left/2': 'left',
    'right/1': 'right',
    'right/2': 'right',
  });
  expect(await identities(daemons)).toEqual(before);
  for (const { address } of daemons) {
    const { issues, counters } = await httpStatus(address);
    expect(issues).toEqual([]);
    expect(counters).toMatchObject({ rebuilds: 0, digestMismatches: 0, recordsSetAside: 0 });
  }
}, 120_000);

test('a cluster that is off as a whole for longer than a lease resumes, whoever comes first', async () => {
  const args = config();
  const a = await startDaemon({ name: 'a', args });
  const b = await startDaemon({ name: 'b', join: [a.address], args });
  const c = await startDaemon({ name: 'c', join: [a.address], args });
  const daemons = [a, b, c];
  for (const key of ['kept', 'deleted']) await put(a, key, 'before');
  await remove(b, 'deleted');
  await put(c, 'last', 'acknowledged');
  const before = await identities(daemons);
  await Promise.all(daemons.map((daemon) => daemon.kill9()));
  await outlasts('the silence', 1.5);
  await c.start();
  // A host that is alone may not exclude the others for having been off just as long.
  await outlasts('the first one', 1.5);
  await Promise.all([a.start(), b.start()]);
  expect(Object.fromEntries(await converged(daemons))).toEqual({ kept: 'before', last: 'acknowledged' });
  expect(await identities(daemons)).toEqual(before);
  await put(a, 'anew', 'v');
  for (const { stderr } of daemons) expect(stderr).not.toMatch(/"event":"(outdated|excluded|rebuilding)"/);
}, 120_000);
