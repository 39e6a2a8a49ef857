/**
 * Rebuilding an empty member: a daemon is started with an empty folder and copies everything from two others, until
 * it serves reads; from its start on, the start of the process included. Against copying the very same store locally:
 * one LevelDB read from end to end, and written to another one in batches that are as large, and as often flushed.
 */
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { LocalCluster } from '../bin/demo/cluster.js';
import { loadRows } from '../bin/demo/load.js';
import { fetchJson } from '../bin/demo/traffic.js';
import { type PhoneRow, readPhoneRows } from '../bin/phone-data.js';
import { connect } from '../src/client/index.js';
import { CORE_DEFAULTS } from '../src/options.js';
import type { Status } from '../src/read-store.js';
import { ENTRY } from '../src/storage/physical.js';
import { type Bench, type Contender, type Context, check, compareAll, interleave } from './harness.js';
import { peer } from './peers/load.js';
import { loadRedis, Redis } from './peers/redis.js';
import { openRaw } from './raw-level.js';

const SOURCES = ['a', 'b'];
const JOINER = 'joiner';
const READY_MS_MAX = 120_000;
/** The machine may be busy. */
const CONNECT_MS_MAX = 30_000;
const VERIFY_MS_MAX = 60_000;
/** Bytes of one trip to LevelDB's thread, as in the store's own cursors. */
const SLICE_BYTES = 262_144;
/** A rebuild may take 1.5 times as long as the copy. */
const BAR = 1 / 1.5;

export const rebuildBench: Bench = {
  name: 'rebuild',
  summary: 'an empty daemon copies everything from two others, against a copy of the same store on one disk',
  run: async (context) => {
    const rows = await readPhoneRows(context.data);
    await using cluster = await LocalCluster.start({ cluster: 'bench', names: [...SOURCES, JOINER] });
    await using client = await connect({
      hosts: cluster.addresses.slice(0, SOURCES.length),
      timeoutMs: CONNECT_MS_MAX,
    });
    await loadRows(client, rows, undefined, { replicas: cluster.daemons.length });
    const store = join(context.folder(), 'db');
    const [source] = cluster.daemons;
    await source!.stop();
    await cp(join(source!.dataFolder, 'db'), store, { recursive: true });
    await source!.start(READY_MS_MAX);
    context.note(`${rows.length} rows on ${SOURCES.length} daemons`);
    await using redis = await peer(context, 'Redis', () => startRedis(context, rows));
    const contenders: Contender[] = [
      { label: 'readmesh, an empty daemon', round: () => rebuild(context, cluster, rows.length) },
      { label: 'LevelDB, a local copy', round: () => copyLocally(context, store, rows.length) },
    ];
    if (redis !== undefined)
      contenders.push({
        label: 'Redis, an empty replica',
        round: async () => {
          const { ms, keys } = await redis.resynchronise(context);
          check(keys === rows.length, `${rows.length} keys were to be copied, not ${keys}`);
          return (rows.length / ms) * 1_000;
        },
      });
    const warmUp = context.scale !== 'smoke';
    const [subject, copy, replica] = await interleave(context, contenders, { warmUp });
    const figures = { name: 'rebuild until ready', unit: 'rows/s', subject: subject! };
    const comparisons = compareAll(context, figures, [{ series: copy, bar: BAR }, { series: replica }]);
    return { comparisons, remarks: [`${rows.length} rows (${context.data.source})`] };
  },
};

async function startRedis(context: Context, rows: readonly PhoneRow[]): Promise<Redis> {
  const redis = await Redis.start(context, { replicas: 0, durability: 'memory' });
  const client = await redis.client();
  await loadRedis(client, rows);
  client.destroy();
  return redis;
}

async function rebuild(context: Context, cluster: LocalCluster, rows: number): Promise<number> {
  const joiner = cluster.daemons.at(-1)!;
  await joiner.kill();
  await joiner.deleteDisk();
  const began = performance.now();
  await joiner.start(READY_MS_MAX);
  const ms = performance.now() - began;
  const { bootstrap } = await fetchJson<Status>(new URL(`http://${joiner.address}/v1/status`));
  check(bootstrap?.complete === true, 'the copy was to be complete');
  check(bootstrap.entries === rows, `${rows} entries were to be fetched, not ${bootstrap.entries}`);
  await using client = await connect({ hosts: [joiner.address], only: true, timeoutMs: CONNECT_MS_MAX });
  const verified = await client.verify({ timeoutMs: VERIFY_MS_MAX });
  check(verified.identical && verified.entries === rows, 'all copies were to be identical');
  const sources = bootstrap.sources.map((source) => `${source.entries} from ${source.name}`).join(', ');
  context.note(`copied in ${bootstrap.elapsedMs} ms of ${Math.round(ms)}: ${sources}`);
  return (rows / ms) * 1_000;
}

async function copyLocally(context: Context, location: string, rows: number): Promise<number> {
  const to = join(context.folder(), 'db');
  const began = performance.now();
  const source = await openRaw(location, false);
  const copy = await openRaw(to, true);
  const iterator = source.iterator({ highWaterMarkBytes: SLICE_BYTES });
  let entries = 0;
  for (;;) {
    // An entry and its dot row make one row of the store.
    const slice = await iterator.nextv(2 * CORE_DEFAULTS.commitRowsMax);
    if (slice.length === 0) break;
    const chain = copy.batch();
    for (const [key, value] of slice) {
      if (key.startsWith(ENTRY)) entries += 1;
      chain.put(key, value);
    }
    await chain.write({ sync: true });
  }
  await iterator.close();
  const ms = performance.now() - began;
  check(entries === rows, `${rows} entries were to be copied, not ${entries}`);
  await source.close();
  await copy.close();
  return (rows / ms) * 1_000;
}
