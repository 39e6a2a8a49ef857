/** Founding, joining, coming back, and being removed. */
import { afterEach, expect, test } from 'vitest';
import { converged, eventually } from '../support/copies.js';
import { Daemon, endDaemons, startCluster, startDaemon } from '../support/daemon.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';
import { freePort } from '../support/ports.js';

afterEach(endDaemons);

const expectWritten = async (daemon: Daemon, key: string, replicas: number): Promise<void> => {
  const { status, body } = await httpPut(daemon.address, key, key, { replicas, timeoutMs: 10_000 });
  expect(status, JSON.stringify(body)).toBe(200);
  expect(body.replicas).toBe(replicas);
};

test('new hosts that are all started with the same --join list come up as one cluster', async () => {
  const addresses = await Promise.all([1, 2, 3, 4].map(async () => `127.0.0.1:${await freePort()}`));
  const daemons = addresses.map((listen, i) => new Daemon({ name: `n${i + 1}`, listen, join: addresses }));
  await Promise.all(daemons.map((daemon) => daemon.start()));
  const all = await Promise.all(daemons.map((daemon) => httpStatus(daemon.address)));
  expect(new Set(all.map((status) => status.clusterUid)).size).toBe(1);
  expect(all[0]!.clusterUid).not.toBe('');
  await eventually('everybody knows everybody', async () =>
    (await Promise.all(daemons.map((daemon) => httpStatus(daemon.address)))).every(
      (status) => status.members.length === daemons.length,
    ),
  );
  for (const [i, daemon] of daemons.entries()) await expectWritten(daemon, `by/${i}`, 4);
  expect((await converged(daemons)).size).toBe(4);
});

test('hosts of one list that start late, or one after the other, still come up as one cluster', async () => {
  const addresses = await Promise.all([1, 2, 3].map(async () => `127.0.0.1:${await freePort()}`));
  const daemons = addresses.map((listen, i) => new Daemon({ name: `n${i + 1}`, listen, join: addresses }));
  const [early, next, late] = daemons as [Daemon, Daemon, Daemon];
  early.spawn();
  await early.listening();
  next.spawn();
  await next.listening();
  // One address has not said yet that it is new, too: it may be a member of a cluster, so nobody founds.
  await eventually('they see each other', () => early.stderr.includes('"event":"linked"'));
  for (const daemon of [early, next]) {
    const { ready, phase } = await httpStatus(daemon.address);
    expect({ ready, phase }).toEqual({ ready: false, phase: 'joining' });
    expect((await httpGet(daemon.address, 'k')).status).toBe(503);
    expect((await httpPut(daemon.address, 'k', 1)).body.code).toBe('NOT_READY');
  }
  await late.start();
  await Promise.all([early.ready(), next.ready()]);
  const uids = await Promise.all(
    daemons.map(async (daemon) => (await httpStatus(daemon.address)).clusterUid),
  );
  expect(new Set(uids).size).toBe(1);
});

test('a host joins through any member, and bootstraps before it is ready', async () => {
  const daemons = await startCluster(2);
  for (let i = 0; i < 200; i++) await httpPut(daemons[i % 2]!.address, `k/${i}`, i);
  const joiner = await startDaemon({ name: 'n3', join: [daemons[1]!.address] });
  // Complete at the moment it says that it is ready.
  for (let i = 0; i < 200; i++) expect((await httpGet(joiner.address, `k/${i}`)).body).toBe(i);
  await expectWritten(joiner, 'by/n3', 3);
  expect((await converged([...daemons, joiner])).size).toBe(201);
});

test('restarted members find their cluster without their seed, and a founder without any', async () => {
  const [founder, second, third] = (await startCluster(3)) as [Daemon, Daemon, Daemon];
  await expectWritten(founder, 'k', 3);
  await founder.kill9();
  await Promise.all([second.restart(), third.restart()]);
  await expectWritten(second, 'without the seed', 2);
  await founder.start();
  await expectWritten(founder, 'with it', 3);
  expect((await converged([founder, second, third])).size).toBe(3);
});

test('a whole cluster that was switched off resumes', async () => {
  const daemons = await startCluster(3);
  await expectWritten(daemons[0]!, 'before', 3);
  await Promise.all(daemons.map((daemon) => daemon.kill9()));
  await Promise.all(daemons.map((daemon) => daemon.start()));
  await expectWritten(daemons[1]!, 'after', 3);
  expect((await converged(daemons)).size).toBe(2);
});

test('a member that comes back at another address is found there', async () => {
  const [founder, second] = (await startCluster(2)) as [Daemon, Daemon];
  const before = await httpStatus(founder.address);
  expect((await founder.stop()).code).toBe(0);
  const moved = await startDaemon({ name: 'n1', data: founder.data });
  expect(moved.address).not.toBe(before.members.find((member) => member.name === 'n1')!.address);
  await expectWritten(moved, 'moved', 2);
  const { members } = await httpStatus(second.address);
  expect(members.find((member) => member.name === 'n1')).toMatchObject({
    address: moved.address,
    origin: before.origin,
  });
  expect(members).toHaveLength(2);
});

test('a removed member is refused, says so, and may come back with an empty folder', async () => {
  const [first, second, gone] = (await startCluster(3)) as [Daemon, Daemon, Daemon];
  await expectWritten(gone, 'k', 3);
  expect(await first.cli('remove', 'nobody')).toMatchObject({ code: 1 });
  const removed = await first.cli('remove', 'n3');
  expect(removed, removed.stderr).toMatchObject({ code: 0 });
  await gone.logged('removed-from-cluster');
  const refusal = await httpPut(gone.address, 'k', 'late', { replicas: 1 });
  expect(refusal.status).toBe(403);
  expect(refusal.body.code).toBe('REMOVED');
  for (const daemon of [first, second])
    await eventually('it is no member any more', async () =>
      (await httpStatus(daemon.address)).members.every((member) => member.name !== 'n3'),
    );
  await gone.stop();
  gone.spawn();
  const exit = await Promise.race([gone.exited(), gone.logged('removed-from-cluster')]);
  if (exit !== undefined) expect(exit.code).toBe(4);
  expect(gone.stderr).toContain('REMOVED');
  await gone.kill9();
  gone.wipe();
  await gone.start();
  await expectWritten(gone, 'again', 3);
  expect((await converged([first, second, gone])).get('k')).toBe('k');
});

test('a member removed while it was away is told so when it comes back', async () => {
  const [first, second, gone] = (await startCluster(3)) as [Daemon, Daemon, Daemon];
  await gone.kill9();
  expect(await second.cli('remove', 'n3')).toMatchObject({ code: 0 });
  gone.spawn();
  await gone.logged('removed-from-cluster');
  expect(gone.stderr).toContain('REMOVED');
  await expectWritten(first, 'k', 2);
});

test('a cluster scaled down to one host acknowledges again once the other member is removed', async () => {
  const [last, gone] = (await startCluster(2)) as [Daemon, Daemon];
  await gone.kill9();
  const alone = await httpPut(last.address, 'k', 1, { timeoutMs: 300 });
  expect(alone.status).toBe(504);
  expect(alone.body).toMatchObject({ code: 'ACK_TIMEOUT', hosts: 1, needed: 2 });
  expect(await last.cli('remove', 'n2')).toMatchObject({ code: 0 });
  const { status, body } = await httpPut(last.address, 'k', 2);
  expect(status).toBe(200);
  expect(body.replicas).toBe(1);
});

test('two members with one --host label count as one host', async () => {
  const founder = await startDaemon({ name: 'n1', host: 'box' });
  const twin = await startDaemon({ name: 'n2', host: 'box', join: [founder.address] });
  const one = await httpPut(founder.address, 'k', 1, { timeoutMs: 500 });
  expect(one.status).toBe(504);
  expect(one.body).toMatchObject({ code: 'ACK_TIMEOUT', hosts: 1, needed: 2 });
  const elsewhere = await startDaemon({ name: 'n3', host: 'other', join: [founder.address] });
  await expectWritten(twin, 'k', 2);
  const three = await httpPut(founder.address, 'k', 3, { replicas: 3, timeoutMs: 500 });
  expect(three.body).toMatchObject({ code: 'ACK_TIMEOUT', hosts: 2, needed: 3 });
  expect((await converged([founder, twin, elsewhere])).get('k')).toBe(3);
});
