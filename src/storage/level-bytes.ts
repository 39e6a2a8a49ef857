/** The entries of a LevelDB seen as bytes: sizes between positions, and what lies at one. */
import type { Db } from './level-cursors.js';
import { ENTRY } from './physical.js';

const FAMILY = Buffer.from(ENTRY);
const FAMILY_END = Buffer.from([FAMILY[0]! + 1]);
const BYTES = { keyEncoding: 'buffer' } as const;
/** Bytes of one trip to LevelDB's thread. */
const SLICE_BYTES = 262_144;

export class LevelBytes {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Bytes in files, about, from one position up to another; undefined: to the end. */
  size(from: Uint8Array, to: Uint8Array | undefined): Promise<number> {
    return this.#db.approximateSize<Uint8Array>(at(from), to === undefined ? FAMILY_END : at(to), BYTES);
  }

  /** First key at or behind a position. */
  async keyFrom(position: Uint8Array): Promise<string | undefined> {
    const [entry] = await this.#read(position, 1);
    return entry?.key.toString();
  }

  /** What some rows from a position on amount to, as keys and records; `last` is the last of their keys. */
  async sample(
    position: Uint8Array,
    rowsMax: number,
  ): Promise<{ rows: number; bytes: number; last: Uint8Array | undefined }> {
    const found = await this.#read(position, rowsMax);
    return {
      rows: found.length,
      bytes: found.reduce((sum, { key, row }) => sum + key.length + row.length, 0),
      last: found.at(-1)?.key,
    };
  }

  async #read(position: Uint8Array, rowsMax: number): Promise<{ key: Buffer; row: Uint8Array }[]> {
    const iterator = this.#db.iterator<Buffer, Uint8Array>({
      gte: at(position),
      lt: FAMILY_END,
      highWaterMarkBytes: SLICE_BYTES,
      ...BYTES,
    });
    try {
      const out: { key: Buffer; row: Uint8Array }[] = [];
      while (out.length < rowsMax) {
        const entries = await iterator.nextv(rowsMax - out.length);
        if (entries.length === 0) break;
        for (const [physical, row] of entries) out.push({ key: physical.subarray(FAMILY.length), row });
      }
      return out;
    } finally {
      await iterator.close();
    }
  }
}

function at(position: Uint8Array): Buffer {
  return Buffer.concat([FAMILY, position]);
}
