/**
 * Collection of garbage: entries that are over (deletions, and entries past their expiry) leave the store once the
 * horizon (horizon.ts) has passed their end. Heads do not move, nobody is told, and no message says so.
 *
 * The horizon rises all the time, so members would never hold the same for long if each swept up to its own. Hence
 * the cut: the horizon rounded down to a multiple of a quarter of `lateRetryMs`, which members reach within a moment
 * of each other and then rest at. Two values are stored:
 *
 *     begun   the cut up to which entries may have been removed
 *     swept   the cut up to which none that is over is left; below `begun` while a sweep is under way
 *
 * Digests take both into account (reconcile.ts): mortal sums are compared only between members that have swept up to
 * the same cut, and of single entries those below the greater `begun` of the two count for neither.
 *
 * A sweep reads only leaves of the digest that may hold something over (a leaf knows when the first of its entries
 * ends), in surveys, which give way to live traffic, and removes a few rows a batch. What became of a record between
 * being read and being removed is looked at again: a newer one of its key stays.
 *
 * A key that is not here need never have been written, or its deletion was collected. Then an older record of it
 * that comes from anywhere is known by its dot: at or below our head, as it is, or was when its origin was forgotten. It
 * was superseded, and is dropped. Not where the key may be lost, for then its absence says nothing; and not before a bootstrap is done.
 */
import { type Core, decodeMeta, encodeMeta } from './core.js';
import type { Digest } from './digest.js';
import { compareRows, dotOf, endOf, isOverBy } from './entry.js';
import { DAMAGED } from './heal.js';
import type { Row } from './types.js';

/** Cuts within `lateRetryMs`: more let space go sooner, and let members rest at different ones more often. */
const CUTS = 4;
/** Keys of one survey, unless a single leaf has more. */
const SPAN_KEYS = 4_096;
/** Entries remembered of one survey; what is beyond needs another one. */
const FOUND_MAX = 4_096;
/** Rows removed in one batch: about a millisecond. */
const REMOVED_ROWS = 256;
/** A sweep that is to wait for live traffic, or whose survey failed, looks again after this long, ms. */
const YIELD_MS = 20;
const RETRY_MS = 2_000;
/** Space is reclaimed where a sweep removed at least so many rows, and half of what was there. */
const RECLAIM_ROWS_MIN = 4_096;
/** Rows of one range that is reclaimed at a time, and ranges of one sweep; what is beyond is left to the store. */
const RECLAIM_ROWS_MAX = 65_536;
const RECLAIM_RANGES_MAX = 1_024;
const META = 'collected';

interface Stored {
  begun: number;
  swept: number;
}

/** Keys above `after`, up to and including `to`. */
interface Span {
  readonly after: string;
  readonly to: string | undefined;
}

/** Neighbouring ranges that a sweep has emptied. */
interface Emptied {
  readonly after: string;
  to: string | undefined;
  rows: number;
}

export class Collection {
  readonly #core: Core;
  readonly #digest: Digest;
  #begun = 0;
  #swept = 0;
  /** A cut that another member has begun to collect up to. */
  #followed = 0;
  /** Everything up to here is swept. undefined: to the end. */
  #position: string | undefined = '';
  /** Of the present span: what is to be removed yet. */
  #found: (readonly [string, Row])[] = [];
  #span: Span | undefined;
  /** Something of the span was passed over, so that it has to be read once more. */
  #more = false;
  #removed = 0;
  /** Of all that was removed since the start, what the log has told. */
  #told = 0;
  #emptied: Emptied[] = [];
  #busy = false;
  #notBefore = Number.NEGATIVE_INFINITY;

  constructor(core: Core, digest: Digest) {
    this.#core = core;
    this.#digest = digest;
    const stored = decodeMeta<Stored>(core.deps.recovered.meta.get(META));
    if (stored === undefined) return;
    this.#begun = stored.begun;
    this.#swept = stored.swept;
  }

  /** Entries that end at or before this time may have been removed here, ms; 0: none was. */
  get begun(): number {
    return this.#begun;
  }

  /** No entry that ends at or before `begun` is left. */
  get isSwept(): boolean {
    return this.#swept === this.#begun;
  }

  /** Something was collected, from this store or those that it was filled from. */
  get hasBegun(): boolean {
    return this.#core.horizon.collected > 0;
  }

  /** Whether mortal entries are to be found the same at a peer that says this of itself. */
  isLevelWith(begun: number, swept: boolean): boolean {
    return swept && this.isSwept && begun === this.#begun;
  }

  /**
   * There is nothing under the record's key: whether that is because what superseded it was collected. `wanted`: the
   * record is fetched since its absence was found to be a loss.
   */
  isPast(key: string, row: Row, wanted: boolean): boolean {
    const { identity, sealing } = this.#core;
    if (identity.phase !== 'ready') return false;
    // Its absence says all that it would say.
    if (isOverBy(row, this.#begun)) return true;
    if (wanted || this.#digest.isDamaged(key)) return false;
    const { origin, seq } = dotOf(row);
    return sealing.hasHad(origin, seq);
  }

  /**
   * A member with the same vector has begun to collect up to there. It may, as all members are past it, this one
   * included; so this one does so, too. Else a horizon that stands still could keep them apart for as long as it does,
   * and that for good: an ended origin with a gap is sealed by equal digests only (sealing.ts), and holds all horizons up.
   */
  follow(begun: number): void {
    const { horizon, options } = this.#core;
    if (begun <= horizon.asOf - options.lateRetryMs) this.#followed = Math.max(this.#followed, begun);
  }

  /** What is here belongs to another founding of the cluster from now on. */
  reset(): void {
    this.#followed = 0;
    if (this.#begun === 0) return;
    this.#begun = 0;
    this.#swept = 0;
    this.#found = [];
    this.#store();
  }

  /** The record came from elsewhere, and is on its way to the store. */
  put(row: Row): void {
    if (this.#begun > 0 && isOverBy(row, this.#begun)) this.#sweepAnew();
  }

  /** What is stored of it was found damaged. */
  rewrite(): void {
    if (this.#begun > 0) this.#store();
  }

  /** Goes on with what is due. Level-triggered: safe to call at any time. */
  evaluate(): void {
    const { identity, horizon, options, now, timers, queue } = this.#core;
    // While records are lost, leaves do not say all that is in them. The next beat looks again.
    if (identity.phase !== 'ready' || !this.#digest.isSettled || this.#busy) return;
    if (this.isSwept) {
      const step = Math.max(1, Math.floor(options.lateRetryMs / CUTS));
      const cut = Math.max(this.#followed, Math.floor(horizon.collectable / step) * step);
      if (cut <= this.#begun) return;
      this.#begun = cut;
      this.#position = '';
      this.#store();
    }
    if (queue.rows > options.commitRowsMax) this.#notBefore = Math.max(this.#notBefore, now.mono + YIELD_MS);
    if (now.mono < this.#notBefore) return timers.atMost('collection', this.#notBefore);
    if (this.#found.length > 0) this.#remove();
    else if (this.#span !== undefined) this.#leave(this.#span);
    else this.#read();
  }

  #sweepAnew(): void {
    this.#position = '';
    if (this.#swept === 0) return;
    this.#swept = 0;
    this.#store();
  }

  #soon(ms = 0): void {
    const { now, timers } = this.#core;
    this.#busy = false;
    this.#notBefore = now.mono + ms;
    timers.atMost('collection', this.#notBefore);
  }

  #read(): void {
    const span = this.#nextSpan();
    if (span === undefined) return this.#finish();
    this.#busy = true;
    // Should anything arrive meanwhile that has to go, too, the sweep begins anew.
    this.#position = span.to;
    this.#more = false;
    const found: (readonly [string, Row])[] = [];
    const ordered = this.#digest.order({
      ...span,
      cuts: [],
      onRow: (key, row) => {
        if (!isOverBy(row, this.#begun)) return;
        if (found.length < FOUND_MAX) found.push([key, row]);
        else this.#more = true;
      },
      onDone: () => {
        this.#span = span;
        this.#found = found;
        this.#soon();
      },
      onFailed: () => this.#retry(span),
    });
    if (!ordered) this.#retry(span);
  }

  #retry({ after, to }: Span): void {
    if (this.#position === to) this.#position = after;
    this.#soon(RETRY_MS);
  }

  /** The next leaves that may hold something over; undefined: there are none. */
  #nextSpan(): Span | undefined {
    if (this.#position === undefined) return undefined;
    const { tree } = this.#digest;
    let first: string | undefined;
    let count = 0;
    for (const leaf of tree.leavesFrom(this.#position)) {
      const isDue = leaf.mortal > 0 && leaf.earliest <= this.#begun;
      if (first === undefined) {
        if (isDue) first = leaf.after;
      } else if (!isDue || count + leaf.count > SPAN_KEYS) return { after: first, to: leaf.after };
      count = first === undefined ? 0 : count + leaf.count;
    }
    return first === undefined ? undefined : { after: first, to: undefined };
  }

  #remove(): void {
    const { queue, counters, horizon } = this.#core;
    let latest = 0;
    const removals: (readonly [string, Row])[] = [];
    for (const [key, row] of this.#found.splice(-REMOVED_ROWS)) {
      const current = this.#core.current(key);
      if (current === undefined || current === DAMAGED || compareRows(current, row) !== 0) continue;
      // On its way to the disk once more: the next survey finds it there.
      if (queue.pending(key) !== undefined) this.#more = true;
      else {
        removals.push([key, row]);
        latest = Math.max(latest, endOf(row)!);
      }
    }
    if (removals.length > 0) {
      horizon.collects(latest);
      queue.collect(removals);
    }
    counters.recordsCollected += removals.length;
    this.#removed += removals.length;
    this.#busy = true;
    this.#core.afterWritten(() => this.#soon());
  }

  /** All that was found in the span is removed. */
  #leave(span: Span): void {
    this.#span = undefined;
    this.#noteEmptied(span);
    this.#removed = 0;
    // Unless it is to begin anew anyway.
    if (this.#more && this.#position === span.to) this.#position = span.after;
    this.#soon();
  }

  #noteEmptied({ after, to }: Span): void {
    const left = this.#digest.tree.sum(after, to)?.count;
    if (left === undefined || this.#removed === 0 || this.#removed < left) return;
    const last = this.#emptied.at(-1);
    if (last?.to === after && last.rows < RECLAIM_ROWS_MAX) {
      last.to = to;
      last.rows += this.#removed;
    } else if (this.#emptied.length < RECLAIM_RANGES_MAX)
      this.#emptied.push({ after, to, rows: this.#removed });
  }

  #finish(): void {
    this.#swept = this.#begun;
    this.#store();
    const ranges = this.#emptied.filter(({ rows }) => rows >= RECLAIM_ROWS_MIN);
    this.#emptied = [];
    if (ranges.length > 0)
      this.#core.emit({
        type: 'reclaim',
        ranges: ranges.map(({ after, to }) => ({ after: after === '' ? null : after, until: to ?? null })),
      });
    const { recordsCollected: inAll } = this.#core.counters;
    if (inAll === this.#told) return;
    this.#core.log('info', 'collected', { upTo: this.#begun, entries: inAll - this.#told });
    this.#told = inAll;
  }

  #store(): void {
    const stored: Stored = { begun: this.#begun, swept: this.#swept };
    this.#core.queue.batch().meta.set(META, encodeMeta(stored));
  }
}
