/**
 * Broken networks between real daemons. Each daemon advertises a TCP proxy of the test's own, so that all that
 * peers dial goes through it; clients talk to the daemons directly.
 */
import { afterEach, expect, test } from 'vitest';
import { closedCopies, converged, eventually, verified } from '../support/copies.js';
import { Daemon, endDaemons } from '../support/daemon.js';
import { History } from '../support/history.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';
import { freePort } from '../support/ports.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { Workload } from '../support/workload.js';

const proxies: TcpProxy[] = [];

afterEach(async () => {
  await endDaemons();
  for (const proxy of proxies.splice(0)) await proxy.close();
});

const DRIFT_MS = 5_000;

interface Proxied {
  readonly daemon: Daemon;
  readonly proxy: TcpProxy;
}

/** A daemon behind a proxy that it advertises. */
async function proxied(name: string, join: readonly string[] = []): Promise<Proxied> {
  const port = await freePort();
  const proxy = await TcpProxy.start({ port });
  proxies.push(proxy);
  const daemon = new Daemon({ name, listen: `127.0.0.1:${port}`, advertise: proxy.address, join });
  await daemon.start();
  return { daemon, proxy };
}

const linkedTo = async (daemon: Daemon): Promise<string[]> =>
  (await httpStatus(daemon.address)).members.filter((member) => member.linked).map((member) => member.name);

test('two halves of a partition serve reads and writes, and are equal after it healed', async () => {
  const a = await proxied('a');
  const b = await proxied('b', [a.proxy.address]);
  const nodes = new Map([
    ['a', a.daemon],
    ['b', b.daemon],
  ]);
  await httpPut(a.daemon.address, 'before', 1);
  const history = new History('partition');
  const sides = ['a', 'b'].map(
    (name, i) =>
      new Workload(history, [{ name, address: nodes.get(name)!.address }], {
        seed: 17 + i,
        prefix: 'w',
        writers: 2,
        query: { replicas: 1 },
      }),
  );
  a.proxy.cut();
  b.proxy.cut();
  await eventually(
    'both sides notice',
    async () => (await linkedTo(a.daemon)).length === 0 && (await linkedTo(b.daemon)).length === 0,
  );
  for (const side of sides) side.start();
  await eventually('both sides write', () => sides.every((side) => side.acknowledged > 150));
  expect((await httpGet(b.daemon.address, 'before')).body).toBe(1);
  const alone = await httpPut(a.daemon.address, 'alone', 'a', { timeoutMs: 300 });
  expect(alone.status).toBe(504);
  expect(alone.body).toMatchObject({ code: 'ACK_TIMEOUT', hosts: 1, needed: 2 });
  await Promise.all(sides.map((side) => side.stop()));
  expect(a.proxy.counts.cut + b.proxy.counts.cut).toBeGreaterThan(0);
  expect((await httpGet(b.daemon.address, 'alone')).status).toBe(404);
  a.proxy.heal();
  b.proxy.heal();
  const live = await converged([a.daemon, b.daemon]);
  await verified(b.daemon, 2);
  expect(live.get('alone')).toBe('a');
  const op = history.invoke({ kind: 'put', key: 'alone', value: 'a', node: 'a' });
  history.end('info', op);
  const first = history.invoke({ kind: 'put', key: 'before', value: 1, node: 'a' });
  history.end('info', first);
  history.check(await closedCopies(nodes), { driftMs: DRIFT_MS });
});

for (const direction of ['toTarget', 'toClient', 'both'] as const)
  test(`a link that carries nothing ${direction === 'both' ? 'either way (half-open)' : `${direction} any more`} is noticed by both sides, and repaired after`, async () => {
    const a = await proxied('a');
    const b = await proxied('b', [a.proxy.address]);
    await eventually('linked', async () => (await linkedTo(a.daemon)).includes('b'));
    a.proxy.blackhole(direction);
    b.proxy.blackhole(direction);
    await eventually(
      'both sides give the link up',
      async () => (await linkedTo(a.daemon)).length === 0 && (await linkedTo(b.daemon)).length === 0,
    );
    expect(a.daemon.stderr + b.daemon.stderr).toContain('"event":"link-silent"');
    for (const [i, { daemon }] of [a, b].entries())
      for (let n = 0; n < 20; n++)
        expect((await httpPut(daemon.address, `cut/${i}/${n}`, n, { replicas: 1 })).status).toBe(200);
    a.proxy.heal();
    b.proxy.heal();
    expect((await converged([a.daemon, b.daemon])).size).toBe(40);
    expect((await httpPut(a.daemon.address, 'after', 1)).status).toBe(200);
  });

test('nodes in a line, where the ends never meet, hold the same', async () => {
  const middle = await proxied('m');
  // The ends advertise ports that nobody answers, and so can only be reached over the links that they dial.
  const ends = await Promise.all(
    ['x', 'z'].map(async (name) => {
      const daemon = new Daemon({
        name,
        advertise: `127.0.0.1:${await freePort()}`,
        join: [middle.proxy.address],
      });
      return daemon.start();
    }),
  );
  const [left, right] = ends as [Daemon, Daemon];
  for (let n = 0; n < 30; n++) {
    expect((await httpPut(left.address, `left/${n}`, n)).status).toBe(200);
    expect((await httpPut(right.address, `right/${n}`, n)).status).toBe(200);
  }
  expect(await linkedTo(left)).toEqual(['m']);
  expect(await linkedTo(right)).toEqual(['m']);
  expect((await converged([left, right])).size).toBe(60);
  // The relay dies and comes back; meanwhile each end goes on by itself.
  await middle.daemon.kill9();
  for (let n = 0; n < 30; n++) {
    expect((await httpPut(left.address, `later/left/${n}`, n, { replicas: 1 })).status).toBe(200);
    expect((await httpPut(right.address, `later/right/${n}`, n, { replicas: 1 })).status).toBe(200);
  }
  await middle.daemon.start();
  expect((await converged([left, middle.daemon, right])).size).toBe(120);
});
