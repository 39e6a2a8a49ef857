/**
 * When the entries that watches were told of expire. No message says so, so each node keeps the time itself, for the
 * entries alone that were written while somebody watched their prefix: one place per key, bounded.
 *
 * A heap by time, over a map that holds what is true now: an entry that was written again, or deleted, leaves its old
 * place in the heap, where it is passed over when its time comes, or dropped when such places are most of the heap.
 */
import { expiresAtOf } from '../core/entry.js';
import type { Row } from '../core/types.js';

/** Keys whose expiry is awaited; the end of further ones is not told. */
export const WATCH_EXPIRIES_MAX = 100_000;
/** A timer is set for no longer than this, ms: clocks are set, and timers have a limit. */
const TIMER_MS_MAX = 10_000;
/** Keys told of before the event loop gets its turn. */
const SLICE_KEYS = 256;
/** Places in the heap that may be out of date before it is built anew, beside as many as are not. */
const STALE_MAX = 1_024;

interface Place {
  readonly key: string;
  readonly at: number;
}

export class WatchExpiries {
  readonly #clockMs: () => number;
  readonly #onExpired: (key: string, row: Row) => void;
  readonly #max: number;
  readonly #rows = new Map<string, Row>();
  #heap: Place[] = [];
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  /** Entries whose end is not told, for want of room. */
  dropped = 0;

  constructor(
    clockMs: () => number,
    onExpired: (key: string, row: Row) => void,
    max: number = WATCH_EXPIRIES_MAX,
  ) {
    this.#clockMs = clockMs;
    this.#onExpired = onExpired;
    this.#max = max;
  }

  get size(): number {
    return this.#rows.size;
  }

  /** In the heap, out of date ones included. */
  get places(): number {
    return this.#heap.length;
  }

  /** The key was written; `isWatched`: somebody was told. */
  note(key: string, row: Row, isWatched: boolean): void {
    const before = this.#rows.get(key);
    const at = expiresAtOf(row);
    if (at === undefined || !isWatched) {
      if (before !== undefined) this.#rows.delete(key);
      return;
    }
    if (before === undefined && this.#rows.size >= this.#max) {
      this.dropped += 1;
      return;
    }
    this.#rows.set(key, row);
    // A place that comes no later is there already, and moves on when its time comes.
    if (before !== undefined && expiresAtOf(before)! <= at) return;
    if (this.#heap.length >= 2 * this.#rows.size + STALE_MAX) this.#rebuild();
    else this.#push({ key, at });
    this.#schedule();
  }

  clear(): void {
    this.#rows.clear();
    this.#heap = [];
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerAt = Number.POSITIVE_INFINITY;
  }

  #schedule(): void {
    const first = this.#heap[0];
    if (first === undefined || first.at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = first.at;
    const waitMs = Math.min(TIMER_MS_MAX, Math.max(0, first.at - this.#clockMs()));
    this.#timer = setTimeout(() => this.#fire(), waitMs).unref();
  }

  #fire(): void {
    this.#timerAt = Number.POSITIVE_INFINITY;
    const now = this.#clockMs();
    for (let told = 0; told < SLICE_KEYS && this.#heap.length > 0 && this.#heap[0]!.at <= now; ) {
      const { key } = this.#pop();
      const row = this.#rows.get(key);
      if (row === undefined) continue;
      const at = expiresAtOf(row)!;
      if (at > now) {
        this.#push({ key, at });
        continue;
      }
      this.#rows.delete(key);
      told += 1;
      this.#onExpired(key, row);
    }
    this.#schedule();
  }

  #rebuild(): void {
    this.#heap = [];
    for (const [key, row] of this.#rows) this.#heap.push({ key, at: expiresAtOf(row)! });
    // In order is a heap, too.
    this.#heap.sort((a, b) => a.at - b.at);
  }

  #push(place: Place): void {
    const heap = this.#heap;
    let i = heap.push(place) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (heap[parent]!.at <= place.at) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = place;
  }

  #pop(): Place {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child += 1;
      if (heap[child]!.at >= last.at) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}
