/**
 * Watching: changes are handed to subscribers after they are written. A subscriber's queue keeps the newest
 * change of each key, so that a slow reader costs memory for distinct keys only; past a cap it fails with
 * WATCH_OVERFLOW rather than lose changes unseen.
 *
 * An entry that expires is told of as a deletion, to whoever watches its prefix then, if it was written while somebody
 * did (watch-expiries.ts).
 */
import { checksum } from '../checksum.js';
import { asDeleted, isTombstone, stampHexOf } from '../core/entry.js';
import { isExpired } from '../core/expiry.js';
import type { Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import type { Change, Value } from '../read-store.js';
import type { RowChange } from '../service.js';
import type { Quarantine } from './quarantine.js';
import { WatchExpiries } from './watch-expiries.js';

/** Distinct keys a watch may have waiting for its reader. */
export const WATCH_KEYS_MAX = 100_000;

export class Watchers {
  readonly #quarantine: Quarantine;
  readonly #subscribers = new Set<{ prefix: string; onChange: (change: RowChange) => void }>();
  readonly #queues = new Set<WatchQueue>();
  readonly #clockMs: () => number;
  readonly #expiries: WatchExpiries;

  /** `clockMs`: the clock that entries expire by. */
  constructor(quarantine: Quarantine, clockMs: () => number) {
    this.#quarantine = quarantine;
    this.#clockMs = clockMs;
    this.#expiries = new WatchExpiries(clockMs, (key, row) =>
      this.#tellOne(key, asDeleted(key, row, checksum)),
    );
  }

  /** Entries whose end watches are not told of, for want of room. */
  get expiriesDropped(): number {
    return this.#expiries.dropped;
  }

  get count(): number {
    return this.#subscribers.size;
  }

  subscribe(prefix: string, onChange: (change: RowChange) => void): () => void {
    const subscriber = { prefix, onChange };
    this.#subscribers.add(subscriber);
    return () => {
      this.#subscribers.delete(subscriber);
      if (this.#subscribers.size === 0) this.#expiries.clear();
    };
  }

  tell(keys: readonly string[], rows: readonly Row[]): void {
    if (this.#subscribers.size === 0) return;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i]!;
      const row = rows[i]!;
      // Over already, when it came late: readers never see it.
      const isOver = isExpired(row, this.#clockMs);
      const isWatched = this.#tellOne(key, isOver ? asDeleted(key, row, checksum) : row);
      this.#expiries.note(key, row, isWatched && !isOver);
    }
  }

  /** Whether there was somebody to tell. */
  #tellOne(key: string, row: Row): boolean {
    const change = { key, row };
    let isWatched = false;
    for (const { prefix, onChange } of this.#subscribers) {
      if (!key.startsWith(prefix)) continue;
      isWatched = true;
      onChange(change);
    }
    return isWatched;
  }

  watch(prefix: string, signal: AbortSignal | undefined): AsyncIterableIterator<Change> {
    const queue = new WatchQueue(this.#quarantine, () => {
      unsubscribe();
      this.#queues.delete(queue);
    });
    const unsubscribe = this.subscribe(prefix, (change) => queue.push(change));
    this.#queues.add(queue);
    if (signal?.aborted === true) queue.end();
    else signal?.addEventListener('abort', () => queue.end(), { once: true });
    return queue;
  }

  /** Ends all watches. */
  close(): void {
    for (const queue of [...this.#queues]) queue.end();
    this.#subscribers.clear();
    this.#expiries.clear();
  }
}

class WatchQueue implements AsyncIterableIterator<Change> {
  readonly #rows = new Map<string, Row>();
  readonly #quarantine: Quarantine;
  readonly #onEnd: () => void;
  #waiting: { resolve(result: IteratorResult<Change>): void; reject(error: Error): void }[] = [];
  #ended = false;
  #error: ReadmeshError | undefined;

  constructor(quarantine: Quarantine, onEnd: () => void) {
    this.#quarantine = quarantine;
    this.#onEnd = onEnd;
  }

  push({ key, row }: RowChange): void {
    if (this.#ended) return;
    if (this.#rows.size >= WATCH_KEYS_MAX && !this.#rows.has(key)) {
      this.#error = new ReadmeshError(
        'WATCH_OVERFLOW',
        `more than ${WATCH_KEYS_MAX} changed keys wait for the reader: read faster, or watch a narrower prefix`,
      );
      this.#rows.clear();
      this.end();
      return;
    }
    // The newest change moves to the end: the order is that of the last changes.
    this.#rows.delete(key);
    this.#rows.set(key, row);
    this.#serve();
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd();
    this.#serve();
  }

  next(): Promise<IteratorResult<Change>> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#serve();
    });
  }

  async return(): Promise<IteratorResult<Change>> {
    this.#rows.clear();
    this.end();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #serve(): void {
    while (this.#waiting.length > 0) {
      const first = this.#rows.entries().next();
      if (!first.done) {
        const [key, row] = first.value;
        this.#rows.delete(key);
        this.#answer(key, row);
      } else if (this.#error !== undefined) {
        this.#waiting.shift()!.reject(this.#error);
        this.#error = undefined;
      } else if (this.#ended) this.#waiting.shift()!.resolve({ done: true, value: undefined });
      else return;
    }
  }

  #answer(key: string, row: Row): void {
    const [reader] = this.#waiting;
    try {
      const value = this.#changeOf(key, row);
      // What nobody can read is passed over.
      if (value === undefined) return;
      reader!.resolve({ done: false, value });
    } catch (error) {
      reader!.reject(error as Error);
    }
    this.#waiting.shift();
  }

  #changeOf(key: string, row: Row): Change | undefined {
    const stamp = stampHexOf(row);
    if (isTombstone(row)) return { type: 'del', key, stamp };
    const decoded = this.#quarantine.tryDecode(key, row);
    return decoded === undefined ? undefined : { type: 'put', key, value: decoded.value as Value, stamp };
  }
}
