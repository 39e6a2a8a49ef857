/** Out of file descriptors: connections are given up, the store is kept. */
import { connect as dial, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { connect } from '../../src/client/index.js';
import { descriptorsLeft, fitPlaces } from '../../src/node/descriptors.js';
import { TRANSPORT_DEFAULTS } from '../../src/options.js';
import { converged, eventually } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster, startDaemon } from '../support/daemon.js';
import { compileFailingDisk, FailingDisk } from '../support/failing-disk.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';

const sockets = new Set<Socket>();

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  await endDaemons();
});

function flood(address: string, count: number): void {
  const [host, port] = address.split(':') as [string, string];
  for (let i = 0; i < count; i++) {
    const socket = dial({ host, port: Number(port) });
    socket.on('error', () => {});
    sockets.add(socket);
  }
}

test('places for connections are as many as descriptors allow, and never fewer than eight of a kind', () => {
  expect(fitPlaces(TRANSPORT_DEFAULTS, undefined)).toMatchObject({
    clientLinksMax: TRANSPORT_DEFAULTS.clientLinksMax,
  });
  expect(fitPlaces(TRANSPORT_DEFAULTS, 100_000)).toMatchObject({
    peerLinksMax: TRANSPORT_DEFAULTS.peerLinksMax,
  });
  for (const left of [64, 200, 1_000]) {
    const { peerLinksMax, clientLinksMax, httpRequestsMax, waitingSocketsMax } = fitPlaces(
      TRANSPORT_DEFAULTS,
      left,
    );
    const all = [peerLinksMax, clientLinksMax, httpRequestsMax, waitingSocketsMax];
    expect(Math.min(...all)).toBeGreaterThanOrEqual(8);
    if (left >= 1_000) expect(all.reduce((sum, n) => sum + n, peerLinksMax)).toBeLessThan(left);
  }
  if (process.platform === 'linux') expect(descriptorsLeft()).toBeGreaterThan(0);
});

test('under a flood of connections a node with few descriptors sheds them and keeps its store and its peers', async () => {
  const founder = await startDaemon({ name: 'n1', ulimit: '-n 160' });
  const [peer] = [await startDaemon({ name: 'n2', join: [founder.address] })];
  flood(founder.address, 600);
  // Large enough that LevelDB has to open new logs and tables all the time.
  for (let i = 0; i < 40; i++) {
    const { status, body } = await httpPut(peer.address, `k/${i}`, 'x'.repeat(900_000), {
      replicas: 2,
      timeoutMs: 10_000,
    });
    expect(status, JSON.stringify(body)).toBe(200);
    if (i % 10 === 0) flood(founder.address, 200);
  }
  const status = await eventually('it answers', () => httpStatus(founder.address));
  expect(status.store.reopenings).toBe(0);
  expect(status.store.failure).toBeUndefined();
  expect(status.issues).toEqual([]);
  for (const socket of sockets) socket.destroy();
  await converged([founder, peer]);
});

test('a store that ran out of descriptors gives up clients rather than peers, and is written again once there are some', async (context) => {
  const library = compileFailingDisk();
  if (library === undefined) return context.skip();
  const disk = new FailingDisk(library);
  const [first] = (await startCluster(1)) as [Daemon];
  const victim = await startDaemon({ name: 'n2', join: [first.address], ...disk });
  const client = await connect({ hosts: [victim.address], timeoutMs: 10_000, only: true });
  try {
    await client.put('before', 1);
    disk.set('open');
    let refused = '';
    for (let i = 0; i < 40 && refused === ''; i++) {
      const { body } = await httpPut(victim.address, `k/${i}`, 'x'.repeat(900_000), {
        replicas: 1,
        timeoutMs: 5_000,
      });
      refused = body.code ?? '';
    }
    expect(refused).toBe('STORE_FAILED');
    await eventually('it says why, and sheds', async () => {
      const { issues } = await httpStatus(victim.address);
      return (
        issues.some(({ message }) => message.includes('too many open files')) &&
        victim.stderr.includes('connections-shed')
      );
    });
    expect((await httpGet(victim.address, 'before')).body).toBe(1);
    disk.set();
    await eventually('it is well again', async () => {
      const { ready, issues } = await httpStatus(victim.address);
      return ready && issues.length === 0;
    });
    await client.put('after', 1);
    expect(await client.get('before')).toBe(1);
  } finally {
    await client.close();
  }
  await converged([first, victim]);
});
