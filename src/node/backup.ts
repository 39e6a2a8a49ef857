/**
 * Taking a backup of a live node and making a store from one. The format is storage/backup-format.ts.
 *
 * A backup is one snapshot of the store: every record in it, and the heads that stand in that same snapshot. It yields
 * to live traffic: the event loop turns after each chunk, and while writes wait for the disk a chunk is read at most
 * every `YIELD_MS_MAX`. Whoever takes the chunks decides when the next one is read.
 */
import { createReadStream } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { stampCounterOf, stampMsOf } from '../core/entry.js';
import { CARRIED_META, type Restored, restoredMeta } from '../core/lifecycle.js';
import type { ReplicaCore } from '../core/replica.js';
import type { BatchRow, StoreBatch } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import {
  BACKUP_FORMAT,
  BackupEncoder,
  type BackupHeader,
  type BackupSummary,
  readBackup,
} from '../storage/backup-format.js';
import { assertFillable, fillDataFolder } from '../storage/fill-folder.js';
import type { RowCursor, Store } from '../storage/store.js';
import { delay } from './driver.js';
import { version } from './status.js';

/** Of one chunk: a few of them are in memory. */
const CHUNK_ROWS = 512;
const CHUNK_BYTES = 262_144;
/** How long a chunk waits, and how often it looks again, while writes wait for the disk, ms. */
const YIELD_MS_MAX = 250;
const YIELD_MS = 10;
const READ_BYTES = 262_144;

/** Yields the bytes of a backup. Throws DAMAGED where a record fails its checksum: it would be missing silently. */
export async function* backupOf(store: Store, core: ReplicaCore): AsyncGenerator<Buffer, void, undefined> {
  const { options, queue, identity, config, digest } = core;
  // Read before the snapshot is: the set only grows, and what the snapshot holds must not be older than it.
  const removed = core.members.removed();
  const snapshot = await store.snapshot();
  let cursor: RowCursor | undefined;
  try {
    const encoder = new BackupEncoder();
    const meta = await snapshot.meta();
    const carried = CARRIED_META.filter((name) => meta.has(name));
    yield encoder.header({
      format: BACKUP_FORMAT,
      cluster: config.cluster,
      clusterUid: identity.uid,
      node: config.name,
      version,
      takenAtMs: Date.now(),
      hlc: { ms: core.hlc.ms, counter: core.hlc.counter },
      heads: Object.fromEntries(snapshot.heads),
      removed,
      meta: Object.fromEntries(
        carried.map((name) => [name, Buffer.from(meta.get(name)!).toString('base64')]),
      ),
      ...(digest.builtPercent < 100 ? {} : { entriesAbout: digest.keys }),
    });
    cursor = snapshot.rows({});
    for (;;) {
      const records = await cursor.next(CHUNK_ROWS, CHUNK_BYTES);
      if (records.keys.length === 0) break;
      yield encoder.records(records);
      await nextTurn();
      for (let ms = 0; ms < YIELD_MS_MAX && queue.bytes > 2 * options.commitBytesMax; ms += YIELD_MS)
        await delay(YIELD_MS);
    }
    yield encoder.trailer();
  } finally {
    await cursor?.close();
    await snapshot.close();
  }
}

/** Records seen so far, in which of the two passes, and how many there are if that is known. */
export type RestoreProgress = (pass: 'check' | 'write', entries: number, total: number | undefined) => void;

export interface RestoreReport extends BackupSummary {
  /** Real path of the data folder. */
  readonly data: string;
  /** Age of the backup, ms. */
  readonly ageMs: number;
}

/**
 * Makes the store of a new node in `data`, which must be missing or empty, from a backup. The file is read twice: all
 * of it is checked before anything is made. Records keep stamps, dots, tombstones and expiry. Throws BACKUP_DAMAGED,
 * INVALID_OPTION (no such file, or no backup), UNSUPPORTED, NOT_A_STORE, STORE_IN_USE, STORE_FAILED; then nothing is
 * left behind.
 */
export async function restoreBackup(
  file: string,
  data: string,
  onProgress: RestoreProgress = () => {},
): Promise<RestoreReport> {
  assertFillable(data);
  const summary = await checkBackup(file, (entries, total) => onProgress('check', entries, total));
  const folder = await fillDataFolder(data, async (store) => {
    const written = await fill(store, file, (entries) => onProgress('write', entries, summary.entries));
    if (written !== summary.entries)
      throw new ReadmeshError('BACKUP_DAMAGED', `${file} changed while it was read: try again`);
  });
  return { ...summary, data: folder, ageMs: Math.max(0, Date.now() - summary.header.takenAtMs) };
}

/** Reads a backup to its end. Throws what `readBackup` throws. */
async function checkBackup(
  file: string,
  onEntries: (entries: number, total: number | undefined) => void,
): Promise<BackupSummary> {
  let header: BackupHeader | undefined;
  let entries = 0;
  for await (const part of readBackup(contents(file), file)) {
    if (part.type === 'end') return part.summary;
    if (part.type === 'header') header = part.header;
    else onEntries((entries += part.records.keys.length), header?.entriesAbout);
  }
  throw new ReadmeshError('INTERNAL', 'a backup was read without an end: report this bug');
}

async function fill(store: Store, file: string, onEntries: (entries: number) => void): Promise<number> {
  let id = 0;
  let entries = 0;
  const write = (batch: Partial<StoreBatch>): Promise<void> =>
    store.write({ id: ++id, rows: new Map(), heads: new Map(), meta: new Map(), ...batch });
  let hlc = { ms: 0, counter: 0 };
  const raise = (ms: number, counter: number): void => {
    if (ms > hlc.ms || (ms === hlc.ms && counter > hlc.counter)) hlc = { ms, counter };
  };
  for await (const part of readBackup(contents(file), file)) {
    if (part.type === 'records') {
      const rows = new Map<string, BatchRow>();
      for (const [i, row] of part.records.rows.entries()) {
        rows.set(part.records.keys[i]!, { row, replaces: undefined });
        raise(stampMsOf(row), stampCounterOf(row));
      }
      await write({ rows });
      entries += rows.size;
      onEntries(entries);
    } else if (part.type === 'end') {
      const { cluster, clusterUid: uid, removed, heads, node, takenAtMs, meta } = part.summary.header;
      const carried = new Map(
        Object.entries(meta).map(([name, text]) => [name, Buffer.from(text, 'base64')]),
      );
      raise(part.summary.header.hlc.ms, part.summary.header.hlc.counter);
      const restored: Restored = { node, takenAtMs, restoredAtMs: Date.now() };
      // Last of all: heads never claim what is not there.
      await write({
        heads: new Map(Object.entries(heads)),
        meta: restoredMeta({ cluster, uid, removed, carried }, restored),
        hlc,
      });
    }
  }
  return entries;
}

async function* contents(file: string): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* createReadStream(file, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EISDIR' ? 'it is a folder' : message;
    throw new ReadmeshError('INVALID_OPTION', `${file} cannot be read: ${why}`, { cause: error });
  }
}
