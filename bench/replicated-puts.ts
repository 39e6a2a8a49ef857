/**
 * Writes that other hosts must hold: three daemons, the default acknowledgement (two hosts, flushed), 1,000 puts
 * in flight, by the light client and by a replica within the process. Against three Redis (one primary, two
 * replicas, `appendfsync always`), three etcd and three NATS servers, all on this machine and its disk.
 */
import { LocalCluster } from '../bin/demo/cluster.js';
import { type PhoneRow, readPhoneRows } from '../bin/phone-data.js';
import { seededRandom } from '../bin/seeded-random.js';
import { connect } from '../src/client/index.js';
import { openReplica } from '../src/index.js';
import type { ReadStore } from '../src/read-store.js';
import { type Bench, type Contender, type Context, check, compareAll, interleave } from './harness.js';
import { connectEtcd, Etcd } from './peers/etcd.js';
import { peer } from './peers/load.js';
import { connectNats, Nats, openNatsKv } from './peers/nats.js';
import { Redis } from './peers/redis.js';

const PUTS = { full: 40_000, quick: 10_000, smoke: 200 };
/** Slow peers get fewer, so that a turn of theirs takes no longer than a turn of ours by far. */
const SLOW_SHARE = 0.2;
const IN_FLIGHT = 1_000;
const SAMPLE = 100;
const BARS = { redis: 0.8, etcd: 5, nats: 5 };
const TIMEOUT_MS = 30_000;

interface Peer extends AsyncDisposable {
  readonly contender: Contender;
  readonly bar: number;
}

export const replicatedPuts: Bench = {
  name: 'replicated-puts',
  summary: 'puts to three nodes, two hosts flushed, 1,000 in flight, against Redis, etcd and NATS',
  run: async (context) => {
    const rows = seededRandom(context.seed).shuffle(await readPhoneRows(context.data));
    const peers = await startPeers(context, rows);
    try {
      const comparisons = [
        ...(await measure(context, 'light client', rows, peers)),
        ...(await measure(context, 'replica in the process', rows, peers)),
      ];
      const remarks = [
        `${PUTS[context.scale]} puts a round, ${IN_FLIGHT} in flight; every key is new in its round`,
      ];
      return { comparisons, remarks };
    } finally {
      for (const one of peers) await one[Symbol.asyncDispose]();
    }
  },
};

async function startPeers(context: Context, rows: readonly PhoneRow[]): Promise<Peer[]> {
  const started = [
    await peer(context, 'Redis', () => redisPeer(context, rows)),
    await peer(context, 'etcd', () => etcdPeer(context, rows)),
    await peer(context, 'NATS', () => natsPeer(context, rows)),
  ];
  return started.filter((one) => one !== undefined);
}

async function measure(
  context: Context,
  by: 'light client' | 'replica in the process',
  rows: readonly PhoneRow[],
  peers: readonly Peer[],
) {
  const embedded = by !== 'light client';
  await using cluster = await LocalCluster.start({
    cluster: 'bench',
    names: embedded ? ['a', 'b'] : ['a', 'b', 'c'],
  });
  await using store: ReadStore = embedded
    ? await openReplica({
        data: context.folder(),
        cluster: 'bench',
        name: 'c',
        listen: '127.0.0.1:0',
        join: cluster.addresses,
      })
    : await connect({ hosts: cluster.addresses });
  await store.ready({ level: 'synced' });
  const subject = putContender(
    `readmesh, ${by}`,
    rowsOfRounds(rows, PUTS[context.scale]),
    async (key, value) => {
      const { replicas } = await store.put(key, value, { timeoutMs: TIMEOUT_MS });
      check(replicas >= 2, `${key} was to be held by two hosts`);
    },
    (key) => store.get<string>(key),
  );
  const [ours, ...theirs] = await interleave(context, [subject, ...peers.map(({ contender }) => contender)]);
  return compareAll(
    context,
    { name: `put, 3 nodes, ${by}`, unit: 'puts/s', subject: ours! },
    theirs.map((series, i) => ({ series, bar: peers[i]!.bar })),
  );
}

/** Keys of a round: new ones in each, in characters that every peer takes. */
function rowsOfRounds(rows: readonly PhoneRow[], puts: number): (round: number) => PhoneRow[] {
  return (round) =>
    Array.from({ length: puts }, (_, i): PhoneRow => {
      const [key, value] = rows[((round + 1) * puts + i) % rows.length]!;
      return [`r${round + 1}/${key}`, value];
    });
}

/** Puts in turn, 1,000 in flight. */
function putContender(
  label: string,
  ofRound: (round: number) => PhoneRow[],
  put: (key: string, value: string) => Promise<unknown>,
  get: (key: string) => Promise<string | null | undefined>,
): Contender {
  return {
    label,
    round: async (round) => {
      const rows = ofRound(round);
      let next = 0;
      const putInTurn = async (): Promise<void> => {
        while (next < rows.length) {
          const [key, value] = rows[next++]!;
          await put(key, value);
        }
      };
      const began = performance.now();
      await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, rows.length) }, putInTurn));
      return (rows.length / (performance.now() - began)) * 1_000;
    },
    after: (round) => verify(ofRound(round), get),
  };
}

async function verify(
  rows: readonly PhoneRow[],
  get: (key: string) => Promise<string | null | undefined>,
): Promise<void> {
  for (const [key, value] of rows.slice(0, SAMPLE))
    check((await get(key)) === value, `${key} was to be written`);
}

async function redisPeer(context: Context, rows: readonly PhoneRow[]): Promise<Peer> {
  const redis = await Redis.start(context, { replicas: 2, durability: 'always' });
  const client = redis.ioredis();
  const ofRound = rowsOfRounds(rows, PUTS[context.scale]);
  return {
    bar: BARS.redis,
    contender: {
      label: `Redis, pipelines of ${IN_FLIGHT} and WAIT 1`,
      round: async (round) => {
        const all = ofRound(round);
        const began = performance.now();
        for (let at = 0; at < all.length; at += IN_FLIGHT) {
          const pipeline = client.pipeline();
          for (const [key, value] of all.slice(at, at + IN_FLIGHT)) pipeline.set(key, value);
          const replies = await pipeline.call('WAIT', '1', String(TIMEOUT_MS)).exec();
          check(Number(replies?.at(-1)?.[1]) >= 1, 'a replica was to hold the writes');
        }
        return (all.length / (performance.now() - began)) * 1_000;
      },
      after: (round) => verify(ofRound(round), (key) => client.get(key)),
    },
    [Symbol.asyncDispose]: async () => {
      client.disconnect();
      await redis[Symbol.asyncDispose]();
    },
  };
}

function slowRows(context: Context, rows: readonly PhoneRow[]): (round: number) => PhoneRow[] {
  return rowsOfRounds(rows, Math.ceil(PUTS[context.scale] * SLOW_SHARE));
}

async function etcdPeer(context: Context, rows: readonly PhoneRow[]): Promise<Peer> {
  const etcd = await Etcd.start(context);
  const client = connectEtcd(etcd.ports[0]!);
  return {
    bar: BARS.etcd,
    contender: putContender(
      'etcd put',
      slowRows(context, rows),
      async (key, value) => client.put(key).value(value),
      async (key) => client.get(key),
    ),
    [Symbol.asyncDispose]: async () => {
      client.close();
      await etcd[Symbol.asyncDispose]();
    },
  };
}

async function natsPeer(context: Context, rows: readonly PhoneRow[]): Promise<Peer> {
  const nats = await Nats.start(context);
  const connection = await connectNats(nats.ports[0]!);
  const kv = await openNatsKv(connection);
  return {
    bar: BARS.nats,
    contender: putContender(
      'NATS KV put',
      slowRows(context, rows),
      (key, value) => kv.put(key, value),
      async (key) => (await kv.get(key))?.string(),
    ),
    [Symbol.asyncDispose]: async () => {
      await connection.close();
      await nats[Symbol.asyncDispose]();
    },
  };
}
