/**
 * From a put at one node to its change seen by a watch at another, at 1,000 writes a second that do not wait for
 * each other. Writer and watcher are two processes. readmesh: a replica in each, default acknowledgement, every
 * batch flushed. Redis: written to the primary, keyspace notifications at a replica. NATS and etcd: written to
 * one of three servers, watched at another. And a bare WebSocket round trip at the same rate.
 *
 * Each latency begins right before the call that writes. All processes read one monotonic clock.
 */

import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { openReplica } from '../src/index.js';
import {
  type Bench,
  type Comparison,
  type Contender,
  type Context,
  check,
  compareAll,
  type Distribution,
  distribution,
  interleave,
  median,
  percentile,
  type Series,
} from './harness.js';
import { connectEtcd, Etcd } from './peers/etcd.js';
import { peer } from './peers/load.js';
import { connectNats, Nats, openNatsKv } from './peers/nats.js';
import { Redis } from './peers/redis.js';
import { keyOf, valueAt, Watcher } from './watch-latency-parent.js';

const PUTS = { full: 5_000, quick: 2_000, smoke: 50 };
const PUTS_PER_MS = 1;
const NANOS_PER_MS = 1e6;
const ROUND_TRIPS_MAX = 6;
const FRAME_BYTES = 160;

/** One way of writing in this process and watching in another. */
interface Path extends AsyncDisposable {
  readonly label: string;
  /** Bars on p50 and p99 of readmesh as multiples of this one's. */
  readonly bars: { readonly p50?: number; readonly p99?: number };
  /** Milliseconds from each write to its change. */
  latencies(round: number, count: number): Promise<number[]>;
}

export const watchLatency: Bench = {
  name: 'watch-latency',
  summary:
    'put to watch across nodes at 1,000 writes/s, against Redis, NATS, etcd and a WebSocket round trip',
  run: async (context) => {
    const paths: Path[] = [];
    try {
      paths.push(await readmeshPath(context), await socketPath());
      const below = { p50: 1, p99: 1 };
      for (const [name, start] of [
        ['Redis', redisPath],
        ['NATS', natsPath],
        ['etcd', etcdPath],
      ] as const) {
        const path = await peer(context, name, () => start(context, below));
        if (path !== undefined) paths.push(path);
      }
      return { ...(await measure(context, paths)), remarks: [`${PUTS[context.scale]} writes a round`] };
    } finally {
      for (const path of paths.reverse()) await path[Symbol.asyncDispose]();
    }
  },
};

async function measure(
  context: Context,
  paths: readonly Path[],
): Promise<{ comparisons: Comparison[]; distributions: Distribution[] }> {
  const all = paths.map((): number[] => []);
  const p99s = paths.map((): number[] => []);
  const contenders = paths.map(
    (path, i): Contender => ({
      label: path.label,
      round: async (round) => {
        const samples = await path.latencies(round, PUTS[context.scale]);
        if (round >= 0) {
          for (const sample of samples) all[i]!.push(sample);
          p99s[i]!.push(percentile(samples, 0.99));
        }
        return median(samples);
      },
    }),
  );
  const p50 = await interleave(context, contenders);
  const p99 = p50.map(({ label }, i): Series => ({ label, rounds: p99s[i]!, p50: median(p99s[i]!) }));
  const against = (name: 'p50' | 'p99', [subject, ...others]: readonly Series[]): Comparison[] =>
    compareAll(
      context,
      { name: `put to watch, ${name}`, unit: 'ms', subject: subject!, atMost: true },
      others.map((series, i) => {
        const bar = paths[i + 1]!.bars[name];
        return { series, ...(bar === undefined ? {} : { bar }) };
      }),
    );
  return {
    comparisons: [...against('p50', p50), ...against('p99', p99)],
    distributions: paths.map(({ label }, i) => distribution(label, 'ms', all[i]!)),
  };
}

/** Calls `write` 1,000 times a second, in time even if the timer is late, and waits for all of it. */
async function paced(count: number, write: (i: number) => Promise<unknown>): Promise<number[]> {
  const sent: number[] = [];
  const writes: Promise<unknown>[] = [];
  const began = performance.now();
  while (sent.length < count) {
    const due = Math.min(count, Math.ceil((performance.now() - began) * PUTS_PER_MS));
    while (sent.length < due) {
      const i = sent.length;
      sent.push(Number(process.hrtime.bigint()));
      writes.push(write(i));
    }
    await delay(1);
  }
  await Promise.all(writes);
  return sent;
}

async function watched(
  watcher: Watcher,
  round: number,
  count: number,
  write: (key: string, value: string) => Promise<unknown>,
): Promise<number[]> {
  const sent = await paced(count, (i) => write(keyOf(round, i), valueAt(i)));
  const seen = await watcher.seen(round, count);
  return seen.map((at, i) => (at - sent[i]!) / NANOS_PER_MS);
}

async function readmeshPath(context: Context): Promise<Path> {
  const replica = await openReplica({
    data: context.folder(),
    cluster: 'bench',
    name: 'writer',
    listen: '127.0.0.1:0',
  });
  await replica.ready();
  const watcher = await Watcher.start({ kind: 'readmesh', data: context.folder(), join: replica.address! });
  return {
    label: 'readmesh',
    bars: {},
    latencies: (round, count) => watched(watcher, round, count, (key, value) => replica.put(key, value)),
    [Symbol.asyncDispose]: async () => {
      await watcher[Symbol.asyncDispose]();
      await replica.close();
    },
  };
}

async function redisPath(context: Context, bars: Path['bars']): Promise<Path> {
  const redis = await Redis.start(context, { replicas: 1, durability: 'everysec' });
  const client = await redis.client();
  const watcher = await Watcher.start({ kind: 'redis', port: redis.ports[1]! });
  return {
    label: 'Redis, notification at a replica',
    bars,
    latencies: (round, count) => watched(watcher, round, count, (key, value) => client.set(key, value)),
    [Symbol.asyncDispose]: async () => {
      await watcher[Symbol.asyncDispose]();
      client.destroy();
      await redis[Symbol.asyncDispose]();
    },
  };
}

async function natsPath(context: Context, bars: Path['bars']): Promise<Path> {
  const nats = await Nats.start(context);
  const connection = await connectNats(nats.ports[0]!);
  const kv = await openNatsKv(connection);
  const watcher = await Watcher.start({ kind: 'nats', port: nats.ports[1]! });
  return {
    label: 'NATS KV watch',
    bars,
    latencies: (round, count) => watched(watcher, round, count, (key, value) => kv.put(key, value)),
    [Symbol.asyncDispose]: async () => {
      await watcher[Symbol.asyncDispose]();
      await connection.close();
      await nats[Symbol.asyncDispose]();
    },
  };
}

async function etcdPath(context: Context, bars: Path['bars']): Promise<Path> {
  const etcd = await Etcd.start(context);
  const client = connectEtcd(etcd.ports[0]!);
  const watcher = await Watcher.start({ kind: 'etcd', port: etcd.ports[1]! });
  return {
    label: 'etcd watch',
    bars,
    latencies: (round, count) =>
      watched(watcher, round, count, async (key, value) => client.put(key).value(value)),
    [Symbol.asyncDispose]: async () => {
      await watcher[Symbol.asyncDispose]();
      client.close();
      await etcd[Symbol.asyncDispose]();
    },
  };
}

async function socketPath(): Promise<Path> {
  const watcher = await Watcher.start({ kind: 'echo' });
  const socket = new WebSocket(`ws://127.0.0.1:${watcher.echoPort}`, { perMessageDeflate: false });
  await once(socket, 'open');
  const back: ((at: number) => void)[] = [];
  socket.on('message', () => back.shift()?.(Number(process.hrtime.bigint())));
  return {
    label: 'WebSocket round trip',
    bars: { p50: ROUND_TRIPS_MAX },
    latencies: async (_round, count) => {
      const frame = Buffer.alloc(FRAME_BYTES, 1);
      const answers: Promise<number>[] = [];
      const sent = await paced(count, (_i) => {
        const answer = new Promise<number>((resolve) => back.push(resolve));
        answers.push(answer);
        socket.send(frame);
        return answer;
      });
      const seen = await Promise.all(answers);
      check(back.length === 0, 'every frame was to come back');
      return seen.map((at, i) => (at - sent[i]!) / NANOS_PER_MS);
    },
    [Symbol.asyncDispose]: async () => {
      socket.terminate();
      await watcher[Symbol.asyncDispose]();
    },
  };
}
