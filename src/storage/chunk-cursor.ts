/**
 * The part of a row cursor that every store shares: filling a chunk up to two budgets, and what happens at a
 * damaged record.
 *
 * Intact records before a damaged one are handed out first; the call after that throws DAMAGED; the next call
 * goes on behind it. A scan can therefore note the damage and finish, and no intact record is lost on the way.
 * Any other failure is final: it is thrown again by every later call, so that a broken scan is never taken for
 * one that reached its end.
 */
import type { Records, Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import { closed } from './disk-errors.js';
import type { RowCursor } from './store.js';

/** What a cursor has read at once, in order. Filled, then handed over. */
export class Chunk {
  readonly keys: string[] = [];
  readonly rows: Row[] = [];
  /** Of keys and rows. */
  bytes = 0;
  /** By place: a record that is not intact takes up one, with no row worth reading. */
  damage: Map<number, ReadmeshError> | undefined;

  add(key: string, row: Row): void {
    this.keys.push(key);
    this.rows.push(row);
    this.bytes += key.length + row.length;
  }

  addDamaged(error: ReadmeshError): void {
    this.damage ??= new Map();
    this.damage.set(this.keys.length, error);
    this.add('', NO_ROW);
  }
}

const NO_ROW = new Uint8Array(0);
const NOTHING = new Chunk();

export abstract class ChunkCursor implements RowCursor {
  #chunk = NOTHING;
  #at = 0;
  #ended = false;
  #broken: unknown;
  #closing: Promise<void> | undefined;

  /** The next records, at least one; none at the end. `rowsWanted` is a hint, and at least 1. */
  protected abstract refill(rowsWanted: number): Promise<Chunk>;
  protected abstract release(): Promise<void>;
  /** Where it reads from, for the message of CLOSED. */
  protected abstract readonly source: string;

  close(): Promise<void> {
    this.#closing ??= this.release();
    return this.#closing;
  }

  async next(rowsMax: number, bytesMax: number): Promise<Records> {
    if (this.#closing !== undefined) throw closed(this.source);
    let taken: Chunk | undefined;
    for (;;) {
      if (this.#hasMore) {
        // The usual case, for which nothing is copied.
        if (taken === undefined && this.#isWhole(rowsMax, bytesMax)) {
          this.#at = rowsMax;
          return this.#chunk;
        }
        taken ??= new Chunk();
        this.#take(taken, rowsMax, bytesMax);
        if (this.#hasMore || taken.keys.length >= rowsMax || taken.bytes >= bytesMax) return taken;
      }
      if (this.#broken !== undefined) throw this.#broken;
      if (this.#ended) return taken ?? NOTHING;
      try {
        this.#at = 0;
        this.#chunk = NOTHING;
        this.#chunk = await this.refill(Math.max(1, rowsMax - (taken?.keys.length ?? 0)));
      } catch (error) {
        this.#broken = error;
        throw error;
      }
      this.#ended = this.#chunk.keys.length === 0;
    }
  }

  get #hasMore(): boolean {
    return this.#at < this.#chunk.keys.length;
  }

  /** Whether the chunk is just what is asked for. */
  #isWhole(rowsMax: number, bytesMax: number): boolean {
    const { keys, bytes, damage } = this.#chunk;
    return this.#at === 0 && keys.length === rowsMax && bytes <= bytesMax && damage === undefined;
  }

  /** Moves what there is room for. Throws the damage that comes first. */
  #take(taken: Chunk, rowsMax: number, bytesMax: number): void {
    const { keys, rows, damage } = this.#chunk;
    for (; this.#at < keys.length; this.#at++) {
      const error = damage?.get(this.#at);
      const isFirst = taken.keys.length === 0;
      if (error !== undefined) {
        if (!isFirst) return;
        this.#at++;
        throw error;
      }
      const key = keys[this.#at]!;
      const row = rows[this.#at]!;
      const isFull = taken.keys.length >= rowsMax || taken.bytes + key.length + row.length > bytesMax;
      if (!isFirst && isFull) return;
      taken.add(key, row);
    }
  }
}

/** What DAMAGED says of one record. */
export function damagedRecord(key: string, what = 'does not match its checksum'): ReadmeshError {
  return new ReadmeshError(
    'DAMAGED',
    `the record of key ${JSON.stringify(key)} ${what} on this disk: read it from another host; it heals from a peer`,
    { details: { key } },
  );
}
