/**
 * What the digest tree costs. A verified rebuild at the start (no checkpoint: every record read, checked and summed,
 * and the total held against the root that the store keeps) against a raw scan of the same rows by LevelDB alone;
 * both include opening the database. And the upkeep of the tree per write against a whole put, of a new key and of one
 * that is there.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { seededRandom } from '../bin/seeded-random.js';
import { checksum } from '../src/checksum.js';
import { DigestSum } from '../src/core/digest-sum.js';
import { DigestTree, LEAF_KEYS, Leaf } from '../src/core/digest-tree.js';
import { KIND_REGISTER, makeRow } from '../src/core/entry.js';
import { digestEntry, type EntryDigest } from '../src/core/entry-hash.js';
import { compareKeys } from '../src/core/key-order.js';
import type { Row } from '../src/core/types.js';
import { openReplica } from '../src/index.js';
import { CORE_DEFAULTS } from '../src/options.js';
import type { Replica } from '../src/read-store.js';
import { ENTRY, META } from '../src/storage/physical.js';
import { encodeValue } from '../src/values.js';
import { type Bench, type Comparison, type Context, check, compare, interleave } from './harness.js';
import { openRaw } from './raw-level.js';

const KEYS = { full: 1_000_000, quick: 200_000, smoke: 3_000 };
const PUTS = { full: 60_000, quick: 20_000, smoke: 300 };
const BATCH = 1_000;
const BATCHES_IN_FLIGHT = 4;
const IN_FLIGHT = 4_000;
/** A rebuild takes at most 1.5 raw scans. */
const REBUILD_BAR = 1 / 1.5;
/** Upkeep is less than a tenth of a put. */
const UPKEEP_BAR = 10;
const VALUE = 'a value of about as many bytes as those of the phone data: some place in some country';

const keyOf = (i: number): string => `row/${((i * 7_919) % 10_000_000).toString().padStart(9, '0')}/${i}`;

export const digestBench: Bench = {
  name: 'digest',
  summary: 'verified rebuild of the digest against a raw scan of the store; its upkeep against a put',
  run: async (context) => ({
    comparisons: [await rebuild(context), await upkeep(context, false), await upkeep(context, true)],
    remarks: [`${KEYS[context.scale]} keys`],
  }),
};

async function open(data: string): Promise<Replica> {
  const replica = await openReplica({
    data,
    cluster: 'bench',
    name: 'bench',
    listen: '127.0.0.1:0',
    flush: false,
  });
  await replica.ready();
  return replica;
}

async function fill(replica: Replica, from: number, count: number): Promise<void> {
  let next = from;
  const end = from + count;
  const inTurn = async (): Promise<void> => {
    while (next < end) {
      const first = next;
      next = Math.min(end, first + BATCH);
      const puts = Array.from({ length: next - first }, (_, i) => {
        return { type: 'put', key: keyOf(first + i), value: `${VALUE} ${first + i}` } as const;
      });
      await replica.batch(puts, { fsync: false, timeoutMs: 60_000 });
    }
  };
  await Promise.all(Array.from({ length: BATCHES_IN_FLIGHT }, inTurn));
}

/** As after a crash: the store has its root, and no leaves. */
async function forgetLeaves(database: string): Promise<void> {
  await using raw = await openRaw(database, false);
  await raw.del(`${META}digest-leaves`);
}

async function rebuild(context: Context): Promise<Comparison> {
  const keys = KEYS[context.scale];
  const data = context.folder();
  const database = `${data}/db`;
  let root = '';
  {
    await using replica = await open(data);
    await fill(replica, 0, keys);
    root = (await replica.status()).digest.root;
  }
  const [subject, baseline] = await interleave(context, [
    {
      label: 'verified rebuild',
      round: async () => {
        await forgetLeaves(database);
        const began = performance.now();
        await using replica = await open(data);
        for (;;) {
          const { digest } = await replica.status();
          if (digest.builtPercent < 100) {
            await delay(20);
            continue;
          }
          const took = performance.now() - began;
          check(digest.keys === keys && digest.root === root && !digest.doubt, 'the rebuilt digest');
          return (keys / took) * 1_000;
        }
      },
    },
    {
      label: 'raw scan',
      round: async () => {
        const began = performance.now();
        await using raw = await openRaw(database, false);
        const iterator = raw.iterator({ gte: ENTRY, lt: 'f', highWaterMarkBytes: 262_144 });
        let rows = 0;
        for (;;) {
          const slice = await iterator.nextv(1_000);
          if (slice.length === 0) break;
          rows += slice.length;
        }
        await iterator.close();
        const took = performance.now() - began;
        check(rows === keys, `${rows} rows scanned, not ${keys}`);
        return (keys / took) * 1_000;
      },
    },
  ]);
  return compare(context, {
    name: 'rebuild',
    unit: 'rows/s',
    subject: subject!,
    baseline: baseline!,
    bar: REBUILD_BAR,
  });
}

/**
 * What core/digest.ts does for each row of a batch, before it is written and after, in batches as they are committed:
 * the rows were made, or read, just before. Against whole puts of the same kind. Keys are scattered over the tree.
 */
async function upkeep(context: Context, overwrites: boolean): Promise<Comparison> {
  const puts = PUTS[context.scale];
  await using replica = await open(context.folder());
  if (overwrites) await fill(replica, 0, puts);
  const { keys: before } = (await replica.status()).digest;
  const tree = treeOf(KEYS[context.scale]);
  const model = new DigestSum();
  const random = seededRandom(1);
  const order = (round: number): number[] =>
    random.shuffle(Array.from({ length: puts }, (_, i) => (overwrites ? i : (round + 1) * puts + i)));
  let version = 0;
  const old = new Map<number, Row>();
  const upkeepOf = (round: number): number => {
    version += 1;
    const all = order(round);
    let took = 0;
    for (let at = 0; at < all.length; at += CORE_DEFAULTS.commitRowsMax) {
      const part = all.slice(at, at + CORE_DEFAULTS.commitRowsMax).map((i) => {
        const key = keyOf(i);
        const row = rowOf(key, i * 97 + version, `${VALUE} ${version}`);
        // As it is read from the disk: bytes of its own.
        const replaced = old.has(i) ? Uint8Array.from(old.get(i)!) : undefined;
        if (overwrites) old.set(i, row);
        return { key, row, replaced };
      });
      const began = performance.now();
      const digests = keepUp(tree, part);
      took += performance.now() - began;
      for (const { before: gone, now } of digests) {
        if (gone !== undefined) model.remove(gone);
        model.add(now);
      }
    }
    check(tree.root.equals(model), `the sums after round ${round}`);
    return (puts / took) * 1_000;
  };
  // The first time there is nothing to replace.
  if (overwrites) upkeepOf(-1);
  const [subject, baseline] = await interleave(context, [
    { label: 'upkeep', round: upkeepOf },
    {
      label: overwrites ? 'overwriting puts' : 'puts of new keys',
      round: async (round) => {
        const rows = order(round).map(
          (i) => [Buffer.from(keyOf(i)).toString(), `${VALUE} ${round}`] as const,
        );
        const began = performance.now();
        await putAll(replica, rows);
        return (puts / (performance.now() - began)) * 1_000;
      },
      after: async () => {
        const { keys } = (await replica.status()).digest;
        check(overwrites ? keys === before : (keys - before) % puts === 0, `${keys} keys in the digest`);
      },
    },
  ]);
  return compare(context, {
    name: overwrites ? 'upkeep, overwriting' : 'upkeep, new keys',
    unit: 'writes/s',
    subject: subject!,
    baseline: baseline!,
    bar: UPKEEP_BAR,
  });
}

interface Written {
  readonly key: string;
  readonly row: Row;
  readonly replaced: Row | undefined;
}

/** The steps of `bind` and `landed` (core/digest.ts). */
function keepUp(
  tree: DigestTree,
  batch: readonly Written[],
): { before: EntryDigest | undefined; now: EntryDigest }[] {
  const delta = new DigestSum();
  const digests = batch.map(({ key, row, replaced }) => {
    const now = digestEntry(key, row);
    delta.add(now);
    const before = replaced === undefined ? undefined : digestEntry(key, replaced);
    if (before !== undefined) delta.remove(before);
    return { before, now };
  });
  tree.root.addSum(delta);
  digests.forEach(({ before, now }, i) => {
    tree.changeLeaf(batch[i]!.key, before, now);
  });
  return digests;
}

async function putAll(replica: Replica, rows: readonly (readonly [string, string])[]): Promise<void> {
  let next = 0;
  const inTurn = async (): Promise<void> => {
    while (next < rows.length) {
      const [key, value] = rows[next++]!;
      await replica.put(key, value, { fsync: false, timeoutMs: 60_000 });
    }
  };
  await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, rows.length) }, inTurn));
}

function rowOf(key: string, i: number, value: string): Row {
  const stamp = Buffer.alloc(16, i % 251);
  const entry = { kind: KIND_REGISTER, stamp, origin: 'b0'.repeat(8), seq: i + 1, value: encodeValue(value) };
  return makeRow(key, entry, checksum);
}

/** Leaves as a store of so many keys has them. */
function treeOf(keys: number): DigestTree {
  const all = Array.from({ length: keys }, (_, i) => keyOf(i)).sort(compareKeys);
  return new DigestTree(
    all.flatMap((key, i) => (i === 0 ? [new Leaf('')] : i % LEAF_KEYS === 0 ? [new Leaf(key)] : [])),
  );
}
