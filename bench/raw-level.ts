/**
 * The baselines: classic-level by itself, opened as our store opens it, with the physical rows that our store
 * writes, laid out beforehand. What the product adds on top of this is what the ratios show.
 */
import { ClassicLevel } from 'classic-level';
import { checksum } from '../src/checksum.js';
import { KIND_REGISTER, makeRow } from '../src/core/entry.js';
import { LEVEL_OPTIONS } from '../src/storage/level-store.js';
import {
  dotKey,
  ENTRY,
  encodeHead,
  encodeHlc,
  encodeRun,
  HEAD,
  META,
  META_HLC,
  META_RUN,
  seal,
} from '../src/storage/physical.js';
import { encodeValue } from '../src/values.js';

export type RawLevel = ClassicLevel<string, Uint8Array>;

/** What one `batch.write` holds: physical keys and values, in the order in which they are put. */
export interface RawBatch {
  readonly keys: string[];
  readonly values: Uint8Array[];
}

export const RAW_BATCH_ROWS = 1_000;

const ORIGIN = 'b0b0b0b0b0b0b0b0';
/** Longer than any key, so that `getSync` with text keys is safe (see storage/level-store.ts). */
const PRIMER = 'p'.repeat(8_192);

export async function openRaw(location: string, create: boolean): Promise<RawLevel> {
  const db: RawLevel = new ClassicLevel<string, Uint8Array>(location, {
    ...LEVEL_OPTIONS,
    createIfMissing: create,
  });
  await db.open();
  db.getSync(PRIMER);
  return db;
}

/** Batches of 1,000 entries with their dot rows, and a head, a clock and a run mark in each, as the store writes them. */
export function rawBatches(rows: readonly (readonly [key: string, value: string])[]): RawBatch[] {
  const batches: RawBatch[] = [];
  const stamp = Buffer.alloc(16, 0xb0);
  const ms = Date.now();
  stamp.writeUIntBE(ms, 0, 6);
  for (let at = 0; at < rows.length; at += RAW_BATCH_ROWS) {
    const batch: RawBatch = { keys: [], values: [] };
    const put = (key: string, value: Uint8Array): void => {
      batch.keys.push(key);
      batch.values.push(value);
    };
    // `seal` lends its buffer: keep a copy.
    const putSealed = (key: string, payload: string | Uint8Array): void =>
      put(key, seal(key, payload).slice());
    const end = Math.min(at + RAW_BATCH_ROWS, rows.length);
    for (let i = at; i < end; i++) {
      const [key, value] = rows[i]!;
      stamp.writeUInt32BE(i, 8);
      const entry = { kind: KIND_REGISTER, stamp, origin: ORIGIN, seq: i + 1, value: encodeValue(value) };
      put(ENTRY + key, makeRow(key, entry, checksum));
      putSealed(dotKey(ORIGIN, i + 1), key);
    }
    putSealed(HEAD + ORIGIN, encodeHead(end));
    putSealed(META + META_HLC, encodeHlc({ ms, counter: 0 }));
    putSealed(META + META_RUN, encodeRun({ nonce: ORIGIN, batches: batches.length + 1 }));
    batches.push(batch);
  }
  return batches;
}

/** One chained batch after the other. */
export async function writeRaw(db: RawLevel, batches: readonly RawBatch[], sync: boolean): Promise<void> {
  for (const { keys, values } of batches) {
    const chain = db.batch();
    for (let i = 0; i < keys.length; i++) chain.put(keys[i]!, values[i]!);
    await chain.write({ sync });
  }
}
