/**
 * Reads from the copy in the process, one key at a time: what verification, decoding and the gate of a replica
 * cost over LevelDB alone, and what the cache of decoded values gains. Beside it other stores within a process,
 * and a client of a remote one that keeps what it has read.
 *
 * LevelDB reads a copy of the very same files, is given its physical keys ready-made and decodes the value the
 * same way, but verifies nothing.
 */
import { type PhoneRow, readPhoneRows } from '../bin/phone-data.js';
import { seededRandom } from '../bin/seeded-random.js';
import { type Draws, draw, drawZipf, timed, timedAsync } from './draws.js';
import {
  type Bench,
  type Comparison,
  type Contender,
  type Context,
  check,
  compareAll,
  interleave,
  type Series,
} from './harness.js';
import {
  decodeRaw,
  type LocalStore,
  loadLocalStore,
  openLocal,
  openLocalRaw,
  physicalKeys,
} from './local-store.js';
import { type EmbeddedPeer, openLmdb, openSqlite } from './peers/embedded.js';
import { peer } from './peers/load.js';
import { loadRedis, Redis } from './peers/redis.js';
import type { RawLevel } from './raw-level.js';

const READS = { full: 50_000, quick: 50_000, smoke: 1_000 };
/** Hits take a fraction of a microsecond: as many as take about as long. */
const CACHED_READS = { full: 500_000, quick: 500_000, smoke: 5_000 };
/** Many short turns: reads need no pause between them. */
const TURNS = { full: { rounds: 41, settleMs: 20 }, quick: { rounds: 15, settleMs: 20 }, smoke: {} };
const HOT_KEYS = 10_000;
const UNIT = 'reads/s';

/** Judged against these; all others are shown. */
const BARS = { hotRaw: 8, hotLmdb: 3, hotRedis: 7, uncachedRaw: 0.9 };

export const localReads: Bench = {
  name: 'local-reads',
  summary:
    'getSync of an embedded replica, hot, Zipf and uncached, against LevelDB, lmdb, SQLite, Redis cache',
  run: async (context) => {
    const rows = await readPhoneRows(context.data);
    context.note(`loading ${rows.length} rows`);
    const store = await loadLocalStore(context, rows);
    await using lmdb = await peer(context, 'lmdb', () => openLmdb(context, rows));
    await using sqlite = await peer(context, 'SQLite', () => openSqlite(context, rows));
    const peers = [lmdb, sqlite].filter((one) => one !== undefined);
    const comparisons = [
      ...(await hot(context, store, rows, peers)),
      ...(await zipf(context, store, rows, peers)),
      ...(await uncached(context, store, rows, peers)),
    ];
    return { comparisons, remarks: [`${rows.length} rows (${context.data.source})`] };
  },
};

async function hot(
  context: Context,
  store: LocalStore,
  rows: readonly PhoneRow[],
  peers: readonly EmbeddedPeer[],
): Promise<Comparison[]> {
  await using replica = await openLocal(store.data, undefined);
  await using raw = await openLocalRaw(store);
  const keys = seededRandom(context.seed)
    .shuffle([...rows])
    .slice(0, HOT_KEYS);
  await using redis = await peer(context, 'Redis', () => hotRedis(context, keys));
  for (const [key] of keys) replica.getSync(key);
  const before = (await replica.status()).counters;
  check(before.cacheEntries === keys.length, `all ${keys.length} hot keys were to be in the cache`);
  const many = draw(keys, CACHED_READS[context.scale], context.seed);
  const few = draw(keys, READS[context.scale], context.seed);
  const contenders = [
    { label: 'readmesh, cached', round: () => timed(many, (key) => replica.getSync<string>(key)) },
    rawContender(raw, few),
    ...peers.map((one) => peerContender(one, few)),
  ];
  if (redis !== undefined)
    contenders.push({ label: 'node-redis, client-side cache', round: () => timedAsync(few, redis.get) });
  const series = await interleave(context, contenders, TURNS[context.scale]);
  const after = (await replica.status()).counters;
  check(after.cacheMisses === before.cacheMisses, 'every read was to be a hit');
  await redis?.check();
  const bars = [BARS.hotRaw, BARS.hotLmdb, undefined, BARS.hotRedis];
  const labels = ['LevelDB', 'lmdb, cache off', 'SQLite', 'node-redis, client-side cache'];
  return against(context, `getSync, ${keys.length} hot keys`, series, labels, bars);
}

interface HotRedis extends AsyncDisposable {
  get(key: string): Promise<string | null>;
  /** That the reads were indeed answered without asking the server. */
  check(): Promise<void>;
}

async function hotRedis(context: Context, keys: readonly PhoneRow[]): Promise<HotRedis> {
  const redis = await Redis.start(context, { replicas: 0, durability: 'memory' });
  const writer = await redis.client();
  await loadRedis(writer, keys);
  const client = await redis.client({ cached: true });
  for (const [key] of keys) await client.get(key);
  return {
    get: (key) => client.get(key),
    check: async () => {
      const stats = String(await writer.sendCommand(['INFO', 'commandstats']));
      const asked = Number(/cmdstat_get:calls=(\d+)/.exec(stats)?.[1]);
      check(asked === keys.length, 'every read of Redis was to be a hit of its client-side cache');
    },
    [Symbol.asyncDispose]: async () => {
      client.destroy();
      writer.destroy();
      await redis[Symbol.asyncDispose]();
    },
  };
}

async function zipf(
  context: Context,
  store: LocalStore,
  rows: readonly PhoneRow[],
  peers: readonly EmbeddedPeer[],
): Promise<Comparison[]> {
  await using replica = await openLocal(store.data, undefined);
  await using raw = await openLocalRaw(store);
  const draws = drawZipf(rows, READS[context.scale], context.seed);
  const contenders = [
    { label: 'readmesh, 64 MB cache', round: () => timed(draws, (key) => replica.getSync<string>(key)) },
    rawContender(raw, draws),
    ...peers.map((one) => peerContender(one, draws)),
  ];
  const series = await interleave(context, contenders, TURNS[context.scale]);
  return against(context, 'getSync, Zipf 0.99 over all rows', series, [
    'LevelDB',
    'lmdb, cache off',
    'SQLite',
  ]);
}

async function uncached(
  context: Context,
  store: LocalStore,
  rows: readonly PhoneRow[],
  peers: readonly EmbeddedPeer[],
): Promise<Comparison[]> {
  await using replica = await openLocal(store.data, 0);
  await using raw = await openLocalRaw(store);
  const draws = draw(rows, READS[context.scale], context.seed);
  const contenders = [
    { label: 'readmesh, no cache', round: () => timed(draws, (key) => replica.getSync<string>(key)) },
    rawContender(raw, draws),
    ...peers.map((one) => peerContender(one, draws)),
  ];
  const series = await interleave(context, contenders, TURNS[context.scale]);
  const { counters } = await replica.status();
  check(counters.cacheHits === 0, 'the cache was to be off');
  const labels = ['LevelDB', 'lmdb, cache off', 'SQLite'];
  return against(context, 'getSync, uniform, no cache', series, labels, [BARS.uncachedRaw]);
}

function rawContender(raw: RawLevel, draws: Draws): Contender {
  const physical = { keys: physicalKeys(draws.keys), length: draws.length };
  return { label: 'LevelDB', round: () => timed(physical, (key) => decodeRaw(raw.getSync(key))) };
}

function peerContender(one: EmbeddedPeer, draws: Draws): Contender {
  return { label: one.label, round: () => timed(draws, (key) => one.get(key)) };
}

/** The first series is ours. */
function against(
  context: Context,
  name: string,
  series: readonly Series[],
  labels: readonly string[],
  bars: readonly (number | undefined)[] = [],
): Comparison[] {
  const baselines = labels.map((label, i) => {
    const bar = bars[i];
    return { series: series.find((one) => one.label === label), ...(bar === undefined ? {} : { bar }) };
  });
  return compareAll(context, { name, unit: UNIT, subject: series[0]! }, baselines);
}
