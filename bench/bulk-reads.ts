/**
 * Reads of many keys at once from the copy in the process, uncached: `getMany` of 100 keys, a scan of 100 rows
 * under a prefix, and a scan of everything, each value decoded. Against whichever of LevelDB's ways is faster,
 * on a copy of the very same files, its physical keys ready-made, nothing verified.
 */
import { type PhoneRow, readPhoneRows } from '../bin/phone-data.js';
import { seededRandom } from '../bin/seeded-random.js';
import type { EmbeddedReplica } from '../src/node/replica.js';
import { ENTRY } from '../src/storage/physical.js';
import { draw, timedMany } from './draws.js';
import {
  type Bench,
  type Comparison,
  type Contender,
  type Context,
  check,
  compare,
  fastest,
  interleave,
  type Turns,
} from './harness.js';
import { decodeRaw, loadLocalStore, openLocal, openLocalRaw, physicalKeys } from './local-store.js';
import type { RawLevel } from './raw-level.js';

const OURS = 'readmesh';
const KEYS_AT_ONCE = 100;
const READS = { full: 50_000, quick: 50_000, smoke: 1_000 };
const SCANS = { full: 300, quick: 300, smoke: 10 };
const SCAN_ROWS = 100;
/** Rows of one call in a scan of everything: LevelDB's best of those tried (100 to 10,000). */
const FULL_SCAN_ROWS = 1_000;
/** Rows under a prefix are looked for from this length on. */
const PREFIX_CHARS = 14;
const TURNS: Record<Context['scale'], Turns> = {
  full: { rounds: 15, settleMs: 20 },
  quick: { rounds: 9, settleMs: 20 },
  smoke: {},
};

export const bulkReads: Bench = {
  name: 'bulk-reads',
  summary: 'getMany(100), prefix scans of 100 rows and a full scan, uncached, against LevelDB alone',
  run: async (context) => {
    const rows = await readPhoneRows(context.data);
    context.note(`loading ${rows.length} rows`);
    const store = await loadLocalStore(context, rows);
    await using replica = await openLocal(store.data, 0);
    await using raw = await openLocalRaw(store);
    const comparisons = [
      ...(await getMany(context, replica, raw, rows)),
      ...(await prefixScans(context, replica, raw, rows)),
      ...(await fullScan(context, replica, raw, rows)),
    ];
    return { comparisons, remarks: [`${rows.length} rows (${context.data.source})`] };
  },
};

/** Each of our ways against the fastest of LevelDB's. */
async function measure(
  context: Context,
  name: string,
  bar: number,
  contenders: readonly Contender[],
): Promise<Comparison[]> {
  const series = await interleave(context, contenders, TURNS[context.scale]);
  const ours = series.filter(({ label }) => label.startsWith(OURS));
  const baseline = fastest(series.filter((one) => !ours.includes(one)));
  return ours.map((subject) => compare(context, { name, unit: 'rows/s', subject, baseline, bar }));
}

function getMany(
  context: Context,
  replica: EmbeddedReplica,
  raw: RawLevel,
  rows: readonly PhoneRow[],
): Promise<Comparison[]> {
  const draws = draw(rows, READS[context.scale], context.seed);
  const physical = { keys: physicalKeys(draws.keys), length: draws.length };
  return measure(context, `getMany(${KEYS_AT_ONCE})`, 0.75, [
    {
      label: 'readmesh',
      round: () => timedMany(draws, KEYS_AT_ONCE, (keys) => replica.getMany<string>(keys)),
    },
    {
      label: 'LevelDB getMany',
      round: () =>
        timedMany(physical, KEYS_AT_ONCE, async (keys) => (await raw.getMany(keys)).map(decodeRaw)),
    },
    {
      label: 'LevelDB getSync',
      round: () =>
        timedMany(physical, KEYS_AT_ONCE, async (keys) => keys.map((key) => decodeRaw(raw.getSync(key)))),
    },
  ]);
}

/** Prefixes under which at least 100 rows lie. */
function widePrefixes(rows: readonly PhoneRow[]): string[] {
  for (let chars = PREFIX_CHARS; chars > 0; chars--) {
    const counts = new Map<string, number>();
    for (const [key] of rows) {
      const prefix = key.slice(0, chars);
      counts.set(prefix, (counts.get(prefix) ?? 0) + 1);
    }
    const wide = [...counts].filter(([, count]) => count >= SCAN_ROWS).map(([prefix]) => prefix);
    if (wide.length > 1) return wide;
  }
  return [''];
}

function prefixScans(
  context: Context,
  replica: EmbeddedReplica,
  raw: RawLevel,
  rows: readonly PhoneRow[],
): Promise<Comparison[]> {
  const random = seededRandom(context.seed);
  const wide = widePrefixes(rows);
  const prefixes = Array.from({ length: SCANS[context.scale] }, () => random.pick(wide));
  let expected: number | undefined;
  const timedScans = async (scan: (prefix: string) => Promise<number>): Promise<number> => {
    let length = 0;
    const began = performance.now();
    for (const prefix of prefixes) {
      const seen = await scan(prefix);
      length += seen;
    }
    const elapsedMs = performance.now() - began;
    expected ??= length;
    check(length === expected, 'all contenders were to read the same rows');
    return ((prefixes.length * SCAN_ROWS) / elapsedMs) * 1_000;
  };
  const rawScan = async (prefix: string, all: boolean): Promise<number> => {
    const range = { gte: ENTRY + prefix, lt: `${ENTRY + prefix}\u{10ffff}`, limit: SCAN_ROWS };
    const iterator = raw.iterator(range);
    try {
      const found = all ? await iterator.all() : await iterator.nextv(SCAN_ROWS);
      check(found.length === SCAN_ROWS, `${SCAN_ROWS} rows were to be under ${prefix}`);
      return rawLength(found);
    } finally {
      await iterator.close();
    }
  };
  return measure(context, `scan of ${SCAN_ROWS} rows under a prefix`, 0.9, [
    {
      label: 'readmesh toArray()',
      round: () =>
        timedScans(async (prefix) => {
          let length = 0;
          for (const [key, value] of await replica.entries<string>({ prefix, limit: SCAN_ROWS }).toArray())
            length += key.length + value.length;
          return length;
        }),
    },
    {
      label: 'readmesh for await',
      round: () =>
        timedScans(async (prefix) => {
          let length = 0;
          for await (const [key, value] of replica.entries<string>({ prefix, limit: SCAN_ROWS }))
            length += key.length + value.length;
          return length;
        }),
    },
    { label: 'LevelDB nextv', round: () => timedScans((prefix) => rawScan(prefix, false)) },
    { label: 'LevelDB all', round: () => timedScans((prefix) => rawScan(prefix, true)) },
  ]);
}

function fullScan(
  context: Context,
  replica: EmbeddedReplica,
  raw: RawLevel,
  rows: readonly PhoneRow[],
): Promise<Comparison[]> {
  const expected = rows.reduce((sum, [key, value]) => sum + key.length + value.length, 0);
  const timedScan = async (scan: () => Promise<number>): Promise<number> => {
    const began = performance.now();
    const length = await scan();
    const elapsedMs = performance.now() - began;
    check(length === expected, `rows of ${expected} characters in all were expected, ${length} were read`);
    return (rows.length / elapsedMs) * 1_000;
  };
  return measure(context, 'scan of all rows', 0.8, [
    {
      label: 'readmesh for await',
      round: () =>
        timedScan(async () => {
          let length = 0;
          for await (const [key, value] of replica.entries<string>()) length += key.length + value.length;
          return length;
        }),
    },
    {
      label: 'LevelDB nextv',
      round: () =>
        timedScan(async () => {
          let length = 0;
          const iterator = raw.iterator({ gte: ENTRY, lt: 'f', highWaterMarkBytes: 1_048_576 });
          for (;;) {
            const found = await iterator.nextv(FULL_SCAN_ROWS);
            if (found.length === 0) break;
            length += rawLength(found);
          }
          await iterator.close();
          return length;
        }),
    },
  ]);
}

/** Characters of keys, without the letter of the row family, and of decoded values. */
function rawLength(found: readonly (readonly [key: string, row: Uint8Array])[]): number {
  let length = 0;
  for (const [key, row] of found) length += key.length - ENTRY.length + decodeRaw(row)!.length;
  return length;
}
