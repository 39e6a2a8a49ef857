/**
 * Comparing whole copies as they lie on disk, which the digest tree in memory (core/digest.ts) cannot see: all entries
 * of one snapshot are read and summed, as a whole and in 256 buckets of keys, and the sums of all members compared at
 * equal version vectors, and once garbage was collected equally far; failing that only their sums of live entries.
 * Equal roots end it. Otherwise the keys of the buckets that differ are fetched and compared.
 * What is hashed of an entry is what replicas must agree on (core/entry-hash.ts). A record that fails its checksum
 * counts as missing, and is counted.
 */
import { DigestSum, SUM_DIGITS } from '../core/digest-sum.js';
import { stampHexOf } from '../core/entry.js';
import { digestEntry } from '../core/entry-hash.js';
import type { Records, Row, StampHex } from '../core/types.js';
import { isReadmeshError } from '../errors.js';
import type { DigestReport, VerifyReport } from '../service.js';
import type { RowCursor, Store } from '../storage/store.js';
import { delay } from './driver.js';

export const BUCKETS = 256;
const PAGE_ROWS = 512;
const PAGE_BYTES = 262_144;
/** Buckets whose keys are fetched to name differences, and keys named. */
const BUCKETS_COMPARED_MAX = 8;
const KEYS_NAMED_MAX = 20;
const RETRY_MS = 200;

export function bucketOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return (hash ^ (hash >>> 16)) & (BUCKETS - 1);
}

/** How far garbage was collected. */
export interface CollectedTo {
  readonly begun: number;
  readonly isSwept: boolean;
}

const NEVER: CollectedTo = { begun: 0, isSwept: true };

/** `collection`: as it stands when called. */
export async function digestOf(
  store: Store,
  collection: () => CollectedTo = () => NEVER,
): Promise<DigestReport> {
  const { begun, isSwept } = collection();
  const sums = Array.from({ length: BUCKETS }, () => new DigestSum());
  const { heads, damaged } = await eachRow(store, (key, row) =>
    sums[bucketOf(key)]!.add(digestEntry(key, row)),
  );
  const root = new DigestSum();
  for (const sum of sums) root.addSum(sum);
  const after = collection();
  return {
    heads: Object.fromEntries(heads),
    entries: root.count,
    root: root.hex,
    collected: after.begun,
    swept: isSwept && after.isSwept && begun === after.begun,
    damaged,
    buckets: sums.map((sum) => sum.hex),
  };
}

export async function bucketEntries(
  store: Store,
  bucket: number,
): Promise<{ key: string; stamp: StampHex }[]> {
  const out: { key: string; stamp: StampHex }[] = [];
  await eachRow(store, (key, row) => {
    if (bucketOf(key) === bucket) out.push({ key, stamp: stampHexOf(row) });
  });
  return out;
}

async function eachRow(
  store: Store,
  visit: (key: string, row: Row) => void,
): Promise<{ heads: ReadonlyMap<string, number>; damaged: number }> {
  const snapshot = await store.snapshot();
  let cursor: RowCursor | undefined;
  let damaged = 0;
  try {
    cursor = snapshot.rows({});
    for (;;) {
      const page = await nextPage(cursor);
      if (page === undefined) {
        damaged += 1;
        continue;
      }
      const { keys, rows } = page;
      if (keys.length === 0) return { heads: snapshot.heads, damaged };
      for (let i = 0; i < keys.length; i++) visit(keys[i]!, rows[i]!);
    }
  } finally {
    await cursor?.close();
    await snapshot.close();
  }
}

/** undefined: a damaged record stands there; the next page goes on behind it. */
async function nextPage(cursor: RowCursor): Promise<Records | undefined> {
  try {
    return await cursor.next(PAGE_ROWS, PAGE_BYTES);
  } catch (error) {
    if (isReadmeshError(error) && error.code === 'DAMAGED' && error.details.key !== undefined)
      return undefined;
    throw error;
  }
}

/** A member as `verify` sees it. */
export interface Comparable {
  readonly name: string;
  readonly address: string;
  heads(): Promise<Record<string, number>>;
  digest(): Promise<DigestReport>;
  bucket(bucket: number): Promise<{ key: string; stamp: StampHex }[]>;
}

/**
 * Waits for equal vectors (writes in flight make them differ for a moment), then compares. Members whose vectors
 * do not become equal by the deadline are reported as differing, with that reason.
 */
export async function compareMembers(
  members: readonly Comparable[],
  timeoutMs: number,
): Promise<VerifyReport> {
  const until = performance.now() + timeoutMs;
  const unreachable = new Map<string, string>();
  const reach = async <T>(member: Comparable, ask: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await ask();
    } catch (error) {
      unreachable.set(member.name, (error as Error).message);
      return undefined;
    }
  };
  for (;;) {
    unreachable.clear();
    const vectors = await Promise.all(members.map((member) => reach(member, () => member.heads())));
    const late = performance.now() > until;
    if (late || unreachable.size > 0 || allEqual(vectors)) {
      const reports = await Promise.all(members.map((member) => reach(member, () => member.digest())));
      const isLevel = isLevelAmong(reports);
      if (late || unreachable.size > 0 || (isLevel && allEqual(reports.map((report) => report?.heads))))
        return judge(members, reports, unreachable);
    }
    await delay(RETRY_MS);
  }
}

/** Whether garbage was collected equally far, so that all entries are to be compared rather than live ones only. */
function isLevelAmong(reports: readonly (DigestReport | undefined)[]): boolean {
  const known = reports.filter((report) => report !== undefined);
  return known.every(({ collected, swept }) => swept && collected === known[0]!.collected);
}

function allEqual(vectors: readonly (Record<string, number> | undefined)[]): boolean {
  const known = vectors.filter((vector) => vector !== undefined).map(canonical);
  return known.every((text) => text === known[0]);
}

function canonical(heads: Record<string, number>): string {
  return JSON.stringify(
    Object.entries(heads)
      .filter(([, head]) => head > 0)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

async function judge(
  members: readonly Comparable[],
  reports: readonly (DigestReport | undefined)[],
  unreachable: ReadonlyMap<string, string>,
): Promise<VerifyReport> {
  // The first without damage, so that sound copies are not told apart from a damaged one.
  const reference =
    reports.find((report) => report?.damaged === 0) ?? reports.find((report) => report !== undefined);
  const out: VerifyReport = {
    identical: unreachable.size === 0,
    entries: reference?.entries ?? 0,
    members: [],
    differing: [],
  };
  const isLevel = isLevelAmong(reports);
  const sumOf = (sum: string): string => (isLevel ? sum : sum.slice(0, SUM_DIGITS / 2));
  const buckets = new Set<number>();
  for (const [i, member] of members.entries()) {
    const { name, address } = member;
    const report = reports[i];
    if (report === undefined || reference === undefined) {
      out.members.push({
        name,
        address,
        state: 'unreachable',
        message: unreachable.get(name) ?? 'no answer',
      });
      continue;
    }
    const sameVector = canonical(report.heads) === canonical(reference.heads);
    const differing =
      sumOf(report.root) === sumOf(reference.root)
        ? []
        : report.buckets.flatMap((sum, bucket) =>
            sumOf(sum) === sumOf(reference.buckets[bucket]!) ? [] : [bucket],
          );
    if (sameVector && differing.length === 0 && report.damaged === 0) {
      out.members.push({ name, address, state: 'identical' });
      continue;
    }
    out.identical = false;
    for (const bucket of differing) buckets.add(bucket);
    const damage = report.damaged === 0 ? '' : `damaged records on its disk: ${report.damaged}; `;
    const difference = sameVector
      ? `${differing.length} of ${BUCKETS} buckets differ`
      : 'its version vector differs: still replicating?';
    out.members.push({ name, address, state: 'differs', message: damage + difference });
  }
  const reachable = members.filter((_, i) => reports[i] !== undefined);
  out.differing = await nameDifferences(reachable, [...buckets].slice(0, BUCKETS_COMPARED_MAX), isLevel);
  return out;
}

async function nameDifferences(
  members: readonly Comparable[],
  buckets: readonly number[],
  isLevel: boolean,
): Promise<VerifyReport['differing']> {
  const out: VerifyReport['differing'] = [];
  for (const bucket of buckets) {
    const lists = await Promise.all(members.map((member) => member.bucket(bucket).catch(() => [])));
    const stamps = new Map<string, Record<string, string>>();
    for (const [i, list] of lists.entries())
      for (const { key, stamp } of list) {
        const row = stamps.get(key) ?? Object.fromEntries(members.map((member) => [member.name, '']));
        row[members[i]!.name] = stamp;
        stamps.set(key, row);
      }
    for (const [key, row] of stamps) {
      const held = new Set(Object.values(row));
      // Otherwise what one member lacks may just have been collected there.
      if (held.size < 2 || (!isLevel && held.has(''))) continue;
      if (out.push({ key, stamps: row }) >= KEYS_NAMED_MAX) return out;
    }
  }
  return out;
}
