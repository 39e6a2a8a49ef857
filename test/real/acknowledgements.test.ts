/** What an acknowledgement, or its absence, is worth; and processes that end or hang in the middle of it. */
import { afterEach, expect, test } from 'vitest';
import { closedCopies, converged, eventually } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster } from '../support/daemon.js';
import { History } from '../support/history.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';
import { pause, Workload } from '../support/workload.js';

afterEach(endDaemons);

const DRIFT_MS = 5_000;

test('while the other hosts are down a write fails with ACK_TIMEOUT, and is there on all once they return', async () => {
  const [up, second, third] = (await startCluster(3)) as [Daemon, Daemon, Daemon];
  await Promise.all([second.kill9(), third.kill9()]);
  const overHttp = await httpPut(up.address, 'http', 1, { timeoutMs: 400 });
  expect(overHttp.status).toBe(504);
  expect(overHttp.body).toMatchObject({ code: 'ACK_TIMEOUT', hosts: 1, needed: 2 });
  expect(overHttp.body.message).not.toContain('\n');
  expect(overHttp.stamp).toMatch(/^[0-9a-f]{32}$/);
  expect(overHttp.body.stamp).toBe(overHttp.stamp);
  const overCli = await up.cli('put', 'cli', '2', '--timeout-ms', '4000', '--json');
  expect(overCli.code).toBe(3);
  expect(JSON.parse(overCli.stderr)).toMatchObject({ code: 'ACK_TIMEOUT', hosts: 1, needed: 2 });
  expect((await httpPut(up.address, 'one', 3, { replicas: 1 })).body.replicas).toBe(1);
  await Promise.all([second.start(), third.start()]);
  const live = await converged([up, second, third]);
  expect(Object.fromEntries(live)).toEqual({ http: 1, cli: 2, one: 3 });
  // The retry that the message advises, at another host.
  const retry = await httpPut(third.address, 'http', 1, { stamp: overHttp.stamp });
  expect(retry.body).toMatchObject({ stamp: overHttp.stamp, superseded: false });
});

test('a write that waits is acknowledged when a host comes back in time', async () => {
  const [up, second] = (await startCluster(2)) as [Daemon, Daemon];
  await second.kill9();
  const waiting = httpPut(up.address, 'k', 1, { timeoutMs: 14_000 });
  await second.start();
  const { status, body } = await waiting;
  expect(status, JSON.stringify(body)).toBe(200);
  expect(body.replicas).toBe(2);
});

test('SIGTERM under load ends a node in good order, and loses nothing', async () => {
  const daemons = await startCluster(3);
  const nodes = new Map(daemons.map((daemon, i) => [`n${i + 1}`, daemon]));
  const history = new History('sigterm');
  const workload = new Workload(
    history,
    [...nodes].map(([name, { address }]) => ({ name, address })),
    { seed: 99, writers: 8 },
  ).start();
  for (const daemon of daemons) {
    const before = workload.acknowledged;
    await eventually('writes are acknowledged', () => workload.acknowledged > before + 100);
    // A stop that takes longer than 9 s ends with another code.
    expect(await daemon.stop()).toEqual({ code: 0, signal: null });
    await daemon.start();
  }
  await workload.stop();
  await converged(daemons);
  history.check(await closedCopies(nodes), { driftMs: DRIFT_MS });
});

test('a node that hung for seconds catches up, and the others never waited for it', async () => {
  const daemons = await startCluster(3);
  const [first, second, hung] = daemons as [Daemon, Daemon, Daemon];
  hung.pause();
  await eventually('the others notice', async () => {
    const { members } = await httpStatus(first.address);
    return members.find((member) => member.name === 'n3')?.linked === false;
  });
  for (let i = 0; i < 200; i++) {
    const { status, body } = await httpPut([first, second][i % 2]!.address, `k/${i}`, i);
    expect(status, JSON.stringify(body)).toBe(200);
  }
  await pause(5_000);
  hung.resume();
  expect((await converged(daemons)).size).toBe(200);
  for (let i = 0; i < 200; i++) expect((await httpGet(hung.address, `k/${i}`)).body).toBe(i);
  const back = await httpPut(hung.address, 'back', 1, { replicas: 3, timeoutMs: 10_000 });
  expect(back.status, JSON.stringify(back.body)).toBe(200);
});
