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

export type CursorItem = { readonly key: string; readonly row: Row } | { readonly damage: ReadmeshError };

export abstract class ChunkCursor implements RowCursor {
  #items: readonly CursorItem[] = [];
  #at = 0;
  #ended = false;
  #broken: unknown;
  #closing: Promise<void> | undefined;

  /** The next items, at least one; none at the end. `rowsWanted` is a hint, and at least 1. */
  protected abstract refill(rowsWanted: number): Promise<readonly CursorItem[]>;
  protected abstract release(): Promise<void>;
  /** Where it reads from, for the message of CLOSED. */
  protected abstract readonly source: string;

  close(): Promise<void> {
    this.#closing ??= this.release();
    return this.#closing;
  }

  async next(rowsMax: number, bytesMax: number): Promise<Records> {
    if (this.#closing !== undefined) throw closed(this.source);
    const keys: string[] = [];
    const rows: Row[] = [];
    let bytes = 0;
    while (keys.length === 0 || (keys.length < rowsMax && bytes < bytesMax)) {
      const ready = this.#peek(Math.max(1, rowsMax - keys.length));
      const item = ready instanceof Promise ? await ready : ready;
      if (item === undefined) break;
      if ('damage' in item) {
        if (keys.length > 0) break;
        this.#at++;
        throw item.damage;
      }
      const size = item.key.length + item.row.length;
      if (keys.length > 0 && bytes + size > bytesMax) break;
      keys.push(item.key);
      rows.push(item.row);
      bytes += size;
      this.#at++;
    }
    return { keys, rows };
  }

  /** Not async when an item is at hand: a chunk of 500 rows must not cost 500 turns of the microtask queue. */
  #peek(rowsWanted: number): CursorItem | undefined | Promise<CursorItem | undefined> {
    return this.#at < this.#items.length ? this.#items[this.#at] : this.#load(rowsWanted);
  }

  async #load(rowsWanted: number): Promise<CursorItem | undefined> {
    if (this.#broken !== undefined) throw this.#broken;
    if (this.#ended) return undefined;
    try {
      this.#items = await this.refill(rowsWanted);
      this.#at = 0;
    } catch (error) {
      this.#items = [];
      this.#at = 0;
      this.#broken = error;
      throw error;
    }
    this.#ended = this.#items.length === 0;
    return this.#items[0];
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
