/**
 * Reads from the copy in the process. What verification, decoding and the gate of a replica cost over LevelDB
 * alone; and what the cache of decoded values gains.
 *
 * The baseline reads a copy of the very same files and decodes the value the same way, but verifies nothing.
 */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { loadRows } from '../bin/demo/load.js';
import { type PhoneRow, readPhoneRows } from '../bin/phone-data.js';
import { seededRandom } from '../bin/seeded-random.js';
import { valueOffset } from '../src/core/entry.js';
import { openReplica } from '../src/index.js';
import { ENTRY } from '../src/storage/physical.js';
import { decodeValue } from '../src/values.js';
import { type Bench, type Comparison, type Context, check, compare, interleave } from './harness.js';
import { openRaw } from './raw-level.js';

const READS = { full: 50_000, quick: 50_000, smoke: 1_000 };
/** Hits take a fraction of a microsecond: as many as take about as long. */
const CACHED_READS = { full: 500_000, quick: 500_000, smoke: 5_000 };
/** Many short turns: reads need no pause between them. */
const TURNS = { full: { rounds: 41, settleMs: 20 }, quick: { rounds: 15, settleMs: 20 }, smoke: {} };
const HOT_KEYS = 10_000;

export const localReads: Bench = {
  name: 'local-reads',
  summary: 'getSync of an embedded replica, uncached and cached, against LevelDB alone',
  run: async (context) => {
    const rows = await readPhoneRows(context.data);
    const data = context.folder();
    const rawFolder = context.folder();
    context.note(`loading ${rows.length} rows`);
    {
      await using replica = await open(data, 0);
      await loadRows(replica, rows, undefined, { replicas: 1, fsync: false });
    }
    cpSync(join(data, 'db'), rawFolder, { recursive: true });
    const comparisons = [
      await uncached(context, data, rawFolder, rows),
      await cached(context, data, rawFolder, rows),
    ];
    return { comparisons, remarks: [`${rows.length} rows (${context.data.source})`] };
  },
};

/** Founds a cluster of one in an empty folder. Nothing here waits for the disk: reads are measured. */
async function open(data: string, cacheBytesMax: number | undefined) {
  const replica = await openReplica({
    data,
    cluster: 'bench',
    name: 'bench',
    listen: '127.0.0.1:0',
    flush: false,
    ...(cacheBytesMax === undefined ? {} : { tuning: { cacheBytesMax } }),
  });
  await replica.ready();
  return replica;
}

async function uncached(
  context: Context,
  data: string,
  rawFolder: string,
  rows: readonly PhoneRow[],
): Promise<Comparison> {
  await using replica = await open(data, 0);
  await using raw = await openRaw(rawFolder, false);
  const draws = draw(rows, READS[context.scale], context.seed);
  const contenders = [
    { label: 'readmesh, no cache', round: () => timed(draws, (key) => replica.getSync<string>(key)) },
    { label: 'LevelDB', round: () => timed(draws, rawReader(raw)) },
  ];
  const [subject, baseline] = await interleave(context, contenders, TURNS[context.scale]);
  const { counters } = await replica.status();
  check(counters.cacheHits === 0, 'the cache was to be off');
  return compare(context, {
    name: 'uncached, uniform',
    unit: 'reads/s',
    subject: subject!,
    baseline: baseline!,
    bar: 0.75,
  });
}

async function cached(
  context: Context,
  data: string,
  rawFolder: string,
  rows: readonly PhoneRow[],
): Promise<Comparison> {
  await using replica = await open(data, undefined);
  await using raw = await openRaw(rawFolder, false);
  const hot = seededRandom(context.seed)
    .shuffle([...rows])
    .slice(0, HOT_KEYS);
  for (const [key] of hot) replica.getSync(key);
  const before = (await replica.status()).counters;
  check(before.cacheEntries === hot.length, `all ${hot.length} hot keys were to be in the cache`);
  const cachedDraws = draw(hot, CACHED_READS[context.scale], context.seed);
  const rawDraws = draw(hot, READS[context.scale], context.seed);
  const contenders = [
    { label: 'readmesh, cached', round: () => timed(cachedDraws, (key) => replica.getSync<string>(key)) },
    { label: 'LevelDB', round: () => timed(rawDraws, rawReader(raw)) },
  ];
  const [subject, baseline] = await interleave(context, contenders, TURNS[context.scale]);
  const after = (await replica.status()).counters;
  check(after.cacheMisses === before.cacheMisses, 'every read was to be a hit');
  return compare(context, {
    name: `cached, ${hot.length} hot keys`,
    unit: 'reads/s',
    subject: subject!,
    baseline: baseline!,
    bar: 4,
  });
}

function rawReader(raw: Awaited<ReturnType<typeof openRaw>>): (key: string) => string | undefined {
  return (key) => {
    const row = raw.getSync(ENTRY + key);
    return row === undefined ? undefined : (decodeValue(row, valueOffset(row)) as string);
  };
}

interface Draws {
  readonly keys: readonly string[];
  /** What the values' lengths add up to. */
  readonly length: number;
}

function draw(rows: readonly PhoneRow[], count: number, seed: number): Draws {
  const random = seededRandom(seed);
  const drawn = Array.from({ length: count }, () => random.pick(rows));
  return { keys: drawn.map(([key]) => key), length: drawn.reduce((sum, [, value]) => sum + value.length, 0) };
}

/** Reads per second. Adding up the lengths keeps the loop honest, and shows afterwards that each read was answered. */
function timed({ keys, length }: Draws, read: (key: string) => string | undefined): number {
  let seen = 0;
  const began = performance.now();
  for (const key of keys) seen += read(key)?.length ?? 0;
  const elapsedMs = performance.now() - began;
  check(seen === length, `values of ${length} characters in all were expected, ${seen} were read`);
  return (keys.length / elapsedMs) * 1_000;
}
