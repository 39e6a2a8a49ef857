/** One loaded copy on disk, opened as an embedded replica and, from a copy of the very same files, as LevelDB alone. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { loadRows } from '../bin/demo/load.js';
import type { PhoneRow } from '../bin/phone-data.js';
import { valueOffset } from '../src/core/entry.js';
import { openReplica } from '../src/index.js';
import type { EmbeddedReplica } from '../src/node/replica.js';
import { ENTRY } from '../src/storage/physical.js';
import { decodeValue } from '../src/values.js';
import type { Context } from './harness.js';
import { openRaw, type RawLevel } from './raw-level.js';

export interface LocalStore {
  /** Data folder of a replica. */
  readonly data: string;
  /** A copy of its LevelDB. */
  readonly raw: string;
}

export async function loadLocalStore(context: Context, rows: Iterable<PhoneRow>): Promise<LocalStore> {
  const data = context.folder();
  const raw = context.folder();
  {
    await using replica = await openLocal(data, 0);
    await loadRows(replica, rows, undefined, { replicas: 1, fsync: false });
  }
  // Opened once more, so that both copies begin with the log replayed and the same tables.
  await (await openLocal(data, 0)).close();
  cpSync(join(data, 'db'), raw, { recursive: true });
  return { data, raw };
}

/** Founds a cluster of one in an empty folder. Nothing here waits for the disk: reads are measured. */
export async function openLocal(data: string, cacheBytesMax: number | undefined): Promise<EmbeddedReplica> {
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

export function openLocalRaw({ raw }: LocalStore): Promise<RawLevel> {
  return openRaw(raw, false);
}

/** Physical keys, ready-made and flat: LevelDB's baseline does not pay for putting them together. */
export function physicalKeys(keys: readonly string[]): string[] {
  return keys.map((key) => Buffer.from(ENTRY + key).toString());
}

export function decodeRaw(row: Uint8Array | undefined): string | undefined {
  return row === undefined ? undefined : (decodeValue(row, valueOffset(row)) as string);
}
