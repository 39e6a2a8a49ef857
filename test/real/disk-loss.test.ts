/** The permanent loss of one host's disk: with two hosts holding each acknowledged write, none is missing after. */
import { afterEach, expect, test } from 'vitest';
import { closedCopies, converged, eventually, verified } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster } from '../support/daemon.js';
import { History } from '../support/history.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';
import { Workload } from '../support/workload.js';

afterEach(endDaemons);

const DRIFT_MS = 5_000;
const SEED = 4_711;

/** Writes to all, kills `victim` in the middle of it, destroys its disk, and starts it again with its usual flags. */
async function loseDisk(daemons: Daemon[], victim: Daemon): Promise<void> {
  const nodes = new Map(daemons.map((daemon, i) => [`n${i + 1}`, daemon]));
  const history = new History(`disk-loss-${daemons.indexOf(victim)}`);
  const workload = new Workload(
    history,
    [...nodes].map(([name, { address }]) => ({ name, address })),
    { seed: SEED },
  ).start();
  await eventually('300 writes acknowledged', () => workload.acknowledged > 300);
  const before = await httpStatus(victim.address);
  await victim.kill9();
  victim.wipe();
  const withoutIt = workload.acknowledged;
  await eventually('writes go on without it', () => workload.acknowledged > withoutIt + 50);
  await victim.start();
  const withIt = workload.acknowledged;
  await eventually('writes go on with it', () => workload.acknowledged > withIt + 50);
  await workload.stop();

  const live = await converged(daemons);
  expect(live.size).toBeGreaterThan(50);
  const after = await httpStatus(victim.address);
  expect(after.name).toBe(before.name);
  expect(after.clusterUid).toBe(before.clusterUid);
  expect(after.origin).not.toBe(before.origin);
  for (const { address } of daemons) {
    const { members } = await httpStatus(address);
    expect(members.map(({ name, origin }) => [name, origin])).toContainEqual([after.name, after.origin]);
    expect(members).toHaveLength(daemons.length);
  }
  await verified(victim, daemons.length);
  // The new origin's writes count everywhere.
  const written = await httpPut(victim.address, 'after', 'the loss', { replicas: daemons.length });
  expect(written.body).toMatchObject({ replicas: daemons.length, superseded: false });
  for (const { address } of daemons) expect((await httpGet(address, 'after')).body).toBe('the loss');
  const op = history.invoke({ kind: 'put', key: 'after', value: 'the loss', node: after.name });
  history.end('ok', op, { stamp: written.body.stamp, token: written.body.token, value: 'the loss' });
  history.check(await closedCopies(nodes), { driftMs: DRIFT_MS });
}

test('a member whose disk is destroyed comes back empty under its name, and no acknowledged write is missing', async () => {
  const daemons = await startCluster(3);
  await loseDisk(daemons, daemons[2]!);
});

test('a founder whose disk is destroyed gives way to its old cluster instead of founding a second one', async () => {
  const daemons = await startCluster(3);
  await loseDisk(daemons, daemons[0]!);
});

test('with three hosts asked for, writes survive the destruction of any two disks', async () => {
  const daemons = await startCluster(3);
  const [first, second, third] = daemons as [Daemon, Daemon, Daemon];
  const keys = Array.from({ length: 50 }, (_, i) => `kept/${i}`);
  for (const [i, key] of keys.entries()) {
    const { status, body } = await httpPut(daemons[i % 3]!.address, key, i, { replicas: 3 });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body.replicas).toBe(3);
  }
  await Promise.all([second.kill9(), third.kill9()]);
  second.wipe();
  third.wipe();
  await Promise.all([second.start(), third.start()]);
  const live = await converged([first, second, third]);
  for (const [i, key] of keys.entries()) expect(live.get(key)).toBe(i);
});
