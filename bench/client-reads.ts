/**
 * Reads over the network: the light client and one daemon, against Redis and its clients on the same loopback.
 * One at a time (beside it an echo of frames as long, the least that a WebSocket costs), 100 in flight, and 100 keys
 * a call. Redis answers from memory and keeps nothing on disk. The
 * daemon looks a key up in LevelDB and verifies it when it is first asked for, and answers from its cache of encoded
 * values after that (64 MiB, the default; all rows take less): what is read here is mostly there.
 */
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { LocalCluster } from '../bin/demo/cluster.js';
import { loadRows } from '../bin/demo/load.js';
import { readPhoneRows } from '../bin/phone-data.js';
import { connect, type LightClient } from '../src/client/index.js';
import { type Draws, draw, timedAsync, timedInFlight, timedMany } from './draws.js';
import {
  type Bench,
  type Comparison,
  type Contender,
  type Context,
  compareAll,
  interleave,
} from './harness.js';
import { peer } from './peers/load.js';
import { type IoRedis, loadRedis, type NodeRedis, Redis } from './peers/redis.js';
import { Watcher } from './watch-latency-parent.js';

const ONE_AT_A_TIME = { full: 5_000, quick: 3_000, smoke: 100 };
const MANY = { full: 50_000, quick: 30_000, smoke: 500 };
const IN_FLIGHT = 100;
const TURNS = { full: { rounds: 15, settleMs: 50 }, quick: { rounds: 9, settleMs: 50 }, smoke: {} };
const BARS = { one: 1.2, inFlight: 1.5, many: 1.2 };

interface RedisClients extends AsyncDisposable {
  readonly node: NodeRedis;
  readonly io: IoRedis;
}

export const clientReads: Bench = {
  name: 'client-reads',
  summary: 'get and getMany of the light client, against node-redis and ioredis',
  run: async (context) => {
    const rows = await readPhoneRows(context.data);
    await using cluster = await LocalCluster.start({ cluster: 'bench', names: ['a'] });
    await using client = await connect({ hosts: cluster.addresses });
    context.note(`loading ${rows.length} rows`);
    await loadRows(client, rows, undefined, { replicas: 1 });
    const redis = await peer(context, 'Redis', () => startRedis(context, rows));
    await using _ending = redis;
    const few = draw(rows, ONE_AT_A_TIME[context.scale], context.seed);
    const many = draw(rows, MANY[context.scale], context.seed);
    const comparisons = [
      ...(await oneAtATime(context, client, redis, few)),
      ...(await inFlight(context, client, redis, many)),
      ...(await manyKeys(context, client, redis, many)),
    ];
    return { comparisons, remarks: [`${rows.length} rows (${context.data.source}), read uniformly`] };
  },
};

async function startRedis(
  context: Context,
  rows: readonly (readonly [string, string])[],
): Promise<RedisClients> {
  const redis = await Redis.start(context, { replicas: 0, durability: 'memory' });
  const node = await redis.client();
  await loadRedis(node, rows);
  const io = redis.ioredis();
  return {
    node,
    io,
    [Symbol.asyncDispose]: async () => {
      node.destroy();
      io.disconnect();
      await redis[Symbol.asyncDispose]();
    },
  };
}

/** Ours first; each peer with the bar that it is judged by. */
async function race(
  context: Context,
  name: string,
  subject: Contender,
  peers: readonly { contender: Contender; bar?: number }[],
): Promise<Comparison[]> {
  const contenders = [subject, ...peers.map(({ contender }) => contender)];
  const [first, ...others] = await interleave(context, contenders, TURNS[context.scale]);
  const baselines = others.map((series, i) => ({ ...peers[i]!, series }));
  return compareAll(context, { name, unit: 'reads/s', subject: first! }, baselines);
}

async function oneAtATime(
  context: Context,
  client: LightClient,
  redis: RedisClients | undefined,
  draws: Draws,
): Promise<Comparison[]> {
  await using echo = await Watcher.start({ kind: 'echo' });
  const socket = new WebSocket(`ws://127.0.0.1:${echo.echoPort}`, { perMessageDeflate: false });
  await once(socket, 'open');
  // Gone before its echo, which waits for it.
  using _closing = { [Symbol.dispose]: () => socket.terminate() };
  socket.on('error', () => socket.terminate());
  const subject = { label: 'readmesh', round: () => timedAsync(draws, (key) => client.get<string>(key)) };
  const bare = { label: 'a bare WebSocket echo', round: () => timedEchoes(socket, draws.keys) };
  // Awaited here: the echo is not disposed of before.
  if (redis === undefined) return await race(context, 'get, one at a time', subject, [{ contender: bare }]);
  return await race(context, 'get, one at a time', subject, [
    { contender: bare },
    {
      contender: { label: 'node-redis GET', round: () => timedAsync(draws, (key) => redis.node.get(key)) },
      bar: BARS.one,
    },
    { contender: { label: 'ioredis GET', round: () => timedAsync(draws, (key) => redis.io.get(key)) } },
  ]);
}

/** Round trips a second of frames that hold one key each. */
async function timedEchoes(socket: WebSocket, keys: readonly string[]): Promise<number> {
  let answered: () => void = () => {};
  const onMessage = (): void => answered();
  socket.on('message', onMessage);
  const frames = keys.map((key) => Buffer.from(key));
  const began = performance.now();
  for (const frame of frames)
    await new Promise<void>((resolve) => {
      answered = resolve;
      socket.send(frame, { binary: true, compress: false });
    });
  const elapsedMs = performance.now() - began;
  socket.off('message', onMessage);
  return (keys.length / elapsedMs) * 1_000;
}

function inFlight(
  context: Context,
  client: LightClient,
  redis: RedisClients | undefined,
  draws: Draws,
): Promise<Comparison[]> {
  const of = (read: (key: string) => Promise<string | null | undefined>) => () =>
    timedInFlight(draws, IN_FLIGHT, read);
  const subject = { label: 'readmesh', round: of((key) => client.get<string>(key)) };
  const name = `get, ${IN_FLIGHT} in flight`;
  if (redis === undefined) return race(context, name, subject, []);
  return race(context, name, subject, [
    {
      contender: { label: 'ioredis, auto-pipelined', round: of((key) => redis.io.get(key)) },
      bar: BARS.inFlight,
    },
    { contender: { label: 'node-redis', round: of((key) => redis.node.get(key)) } },
  ]);
}

function manyKeys(
  context: Context,
  client: LightClient,
  redis: RedisClients | undefined,
  draws: Draws,
): Promise<Comparison[]> {
  const subject = {
    label: 'readmesh',
    round: () => timedMany(draws, IN_FLIGHT, (keys) => client.getMany<string>(keys)),
  };
  const name = `getMany(${IN_FLIGHT})`;
  if (redis === undefined) return race(context, name, subject, []);
  return race(context, name, subject, [
    {
      contender: {
        label: 'node-redis MGET',
        round: () => timedMany(draws, IN_FLIGHT, (keys) => redis.node.mGet(keys)),
      },
      bar: BARS.many,
    },
  ]);
}
