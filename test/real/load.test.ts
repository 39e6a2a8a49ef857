/** More than a node can take: an event loop that is held, and a heap that is small. */
import { afterEach, expect, test } from 'vitest';
import { connect, type LightClient } from '../../src/client/index.js';
import { isReadmeshError, openReplica } from '../../src/index.js';
import { converged, eventually } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster, tempFolder } from '../support/daemon.js';
import { httpGet, httpStatus } from '../support/http-api.js';

afterEach(endDaemons);

const HELD_MS = 3_000;
/** Heap of the flooded daemon, MB. */
const HEAP_MB = 96;
const CLIENTS = 4;
/** The flood may take most of a minute on a machine that does other things as well. */
const LOADED_TEST_MS = 150_000;
/** Writes that each client tries at once: large values, more of them than the heap holds; and small ones. */
const LARGE = { count: 60, bytes: 500_000 };
const SMALL = { count: 20_000, bytes: 10 };

test('a replica whose event loop was held suspects nobody for that, says so in health, and goes on', async () => {
  const daemons = await startCluster(2);
  await using replica = await openReplica({
    data: tempFolder(),
    name: 'held',
    listen: '127.0.0.1:0',
    join: [daemons[0]!.address],
  });
  await replica.ready();
  const suspected = async (): Promise<string[]> =>
    (await replica.status()).members.filter(({ state }) => state === 'suspect').map(({ name }) => name);
  await eventually('all members are known and alive', async () => {
    const { members } = await replica.status();
    return members.length === 3 && members.every(({ state }) => state === 'alive');
  });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, HELD_MS);
  expect(await suspected()).toEqual([]);
  await eventually('health tells of it', async () => {
    const { issues, loopLagMs } = await replica.status();
    return loopLagMs >= HELD_MS / 2 && issues.some(({ code }) => code === 'LAGGING');
  });
  expect(await suspected()).toEqual([]);
  const receipt = await replica.put('after', 1, { replicas: 3, timeoutMs: 15_000 });
  expect(receipt.replicas).toBe(3);
  expect((await httpGet(daemons[1]!.address, 'after')).body).toBe(1);
});

test(
  'a node with a small heap under heavy load answers or refuses every write, lives, and restarts cleanly',
  async () => {
    const nodeArgs = [`--max-old-space-size=${HEAP_MB}`];
    const [small, other] = (await startCluster(2, { nodeArgs })) as [Daemon, Daemon];
    const clients = await Promise.all(
      Array.from({ length: CLIENTS }, () => connect({ hosts: [small.address], only: true })),
    );
    const acknowledged: string[] = [];
    const refusals = new Map<string, number>();
    const put = async (client: LightClient, key: string, bytes: number): Promise<void> => {
      try {
        await client.put(key, new Uint8Array(bytes), { timeoutMs: 8_000 });
        acknowledged.push(key);
      } catch (error) {
        const code = isReadmeshError(error) ? error.code : String(error);
        refusals.set(code, (refusals.get(code) ?? 0) + 1);
      }
    };
    for (const { count, bytes } of [LARGE, SMALL])
      await Promise.all(
        clients.flatMap((client, c) =>
          Array.from({ length: count }, (_, i) => put(client, `${bytes}/${c}/${i}`, bytes)),
        ),
      );
    for (const client of clients) await client.close();
    const said = JSON.stringify([...refusals]);
    console.log(`${acknowledged.length} writes acknowledged, refused: ${said}`);
    expect([small.running, other.running], said).toEqual([true, true]);
    expect(acknowledged.length).toBeGreaterThan(0);
    const codes = new Set(['OVERLOADED', 'ACK_TIMEOUT', 'TIMEOUT']);
    expect([...refusals.keys()].filter((code) => !codes.has(code))).toEqual([]);
    const copies = await converged([small, other]);
    expect(acknowledged.filter((key) => !copies.has(key))).toEqual([]);
    expect(await small.stop()).toEqual({ code: 0, signal: null });
    await small.start();
    expect((await httpStatus(small.address)).ready).toBe(true);
  },
  LOADED_TEST_MS,
);
