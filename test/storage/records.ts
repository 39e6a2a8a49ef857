/** Records for the storage tests, sealed as a node would seal them. */
import { checksum } from '../../src/checksum.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import type { BatchRow, Dot, OriginId, Row, StoreBatch } from '../../src/core/types.js';
import type { RowCursor } from '../../src/storage/store.js';

export const ORIGIN_A: OriginId = '00000000000000aa';
export const ORIGIN_B: OriginId = 'bbbbbbbbbbbbbbbb';
export const ORIGIN_C: OriginId = 'ffffffffffffffff';

/** Keys that tempt implementations into the wrong order, the wrong record or the wrong object member. */
export const TRICKY_KEYS = [
  '\0',
  '__proto__',
  'constructor',
  '-x',
  'a',
  'a\0',
  'ab',
  '\ud7ff',
  '\ue000',
  '\uff01',
  '\uffff',
  '😀',
  '😀a',
  '\u{10ffff}',
  '中文',
  '中文/電話',
];

export function record(key: string, dot: Dot, value: Uint8Array | string = 'v'): Row {
  const stamp = new Uint8Array(16);
  new DataView(stamp.buffer).setUint32(2, dot.seq);
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value;
  return makeRow(key, { kind: KIND_REGISTER, stamp, ...dot, value: bytes }, checksum);
}

let batchId = 0;

export function batchOf(parts: Partial<Omit<StoreBatch, 'id'>>): StoreBatch {
  return { id: ++batchId, rows: new Map(), heads: new Map(), meta: new Map(), ...parts };
}

/** A batch of new records of one origin, with consecutive sequence numbers, and the head that goes with them. */
export function puts(
  origin: OriginId,
  fromSeq: number,
  keys: readonly string[],
  value: Uint8Array | string = 'v',
): StoreBatch {
  const rows = new Map<string, BatchRow>();
  keys.forEach((key, i) => {
    rows.set(key, { row: record(key, { origin, seq: fromSeq + i }, value), replaces: undefined });
  });
  return batchOf({ rows, heads: new Map([[origin, fromSeq + keys.length - 1]]) });
}

/** Everything a cursor yields, in chunks of the given budgets. Closes it. */
export async function drain(
  cursor: RowCursor,
  rowsMax = 100,
  bytesMax = 1_000_000,
): Promise<[key: string, row: Row][]> {
  const all: [string, Row][] = [];
  try {
    for (;;) {
      const { keys, rows } = await cursor.next(rowsMax, bytesMax);
      if (keys.length === 0) return all;
      keys.forEach((key, i) => {
        all.push([key, rows[i]!]);
      });
    }
  } finally {
    await cursor.close();
  }
}

export async function drainKeys(cursor: RowCursor, rowsMax?: number): Promise<string[]> {
  return (await drain(cursor, rowsMax)).map(([key]) => key);
}

/** The order of the disk, computed the long way. */
export function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
