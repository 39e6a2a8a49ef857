/**
 * Group commit. Everything that is to be written gathers in batches; at most one is in flight to the store, the
 * others wait behind it in order, and the last one is open for more. A batch is the unit of atomicity: records,
 * the removal of dots they replace, heads and the clock bound become durable together, so that the version
 * vector never claims what the disk lacks.
 *
 * The queue is also the memory of what is still on its way: `pending(key)` gives the newest row that is not
 * yet written, so that two merges of one key never race and the newer never loses.
 *
 * Where the store flushes, a batch that is written still waits for that. Nothing that others do with it has to (reads,
 * pushes, the vector): until then a loss of power may take it, as it may take all of a store that does not flush,
 * and a node that lost a tail goes on under a new origin. What was promised has to wait: acknowledgements, and
 * whatever asked for `whenDurable`.
 *
 * What waits for a batch stands in the batch itself: its `writes`, its `whenWritten` and `whenDurable`. Waiting for "all
 * that was taken in so far" is waiting for the last batch, since batches are written and flushed in order. Nothing else
 * keeps a table of batches, for the reason that request-table.ts gives: with each table that is rebuilt all that stood
 * in the former ones would live on until the next full collection.
 */
import type { Group, PendingWrite } from './acknowledgements.js';
import type { Change } from './digest-changes.js';
import { DigestSum } from './digest-sum.js';
import { dotOf } from './entry.js';
import type { EntryDigest } from './entry-hash.js';
import { KeyFilter } from './key-filter.js';
import type { BatchRow, Dot, Drop, OriginId, Row, StoreBatch } from './types.js';

interface QueuedRow extends BatchRow {
  row: Row;
  readonly replaces: Dot | undefined;
  /** The row that it replaces: the digest takes that one's hash back. */
  readonly replaced: Row | undefined;
  /** Accepted here in this batch: belongs into this node's own push frame. */
  own: boolean;
  /** Only the dot differs from what was known: nothing to tell watchers. */
  quiet: boolean;
  /** Hashes of `replaced` and of `row`, once the batch takes nothing more (digest.ts). */
  oldDigest: EntryDigest | undefined;
  newDigest: EntryDigest | undefined;
}

export class Batch implements StoreBatch {
  readonly id: number;
  readonly rows = new Map<string, QueuedRow>();
  readonly heads = new Map<OriginId, number>();
  readonly tops = new Map<OriginId, number>();
  readonly forgets = new Set<OriginId>();
  readonly meta = new Map<string, Uint8Array | null>();
  readonly removals = new Map<string, Row>();
  readonly drops: Drop[] = [];
  /** Keys whose record was lost before, and what it was, if the row that replaces it is known to be the same one. */
  readonly mended = new Map<string, Row | undefined>();
  /** What it does to the digest where a record was lost (digest.ts). */
  changes: readonly Change[] | undefined;
  /** What it adds to the digest's root in all, once it takes nothing more. */
  readonly rootDelta = new DigestSum();
  hlc?: { ms: number; counter: number };
  bytes = 0;
  /** Sequence numbers that this node gave out in this batch: (ownFrom, ownTo] of `ownOrigin`. */
  ownOrigin: OriginId = '';
  ownFrom = 0;
  ownTo = 0;
  /** Accepted here in this batch, in order. */
  readonly writes: PendingWrite[] = [];
  /** Records that answer those of them which changed nothing. */
  readonly covers = new Map<string, Row>();
  /** The store was told of it while it waited. */
  announced = false;
  /** `removals` are entries that were over: nobody is told that they are gone. */
  collects = false;
  /** Hosts that hold its writes, if any of them waits for that. */
  group: Group | undefined;
  /** Run in order once the batch is written. Dropped when it failed. */
  readonly whenWritten: (() => void)[] = [];
  /** Run in order once it is flushed, too, where the store flushes. Dropped when that failed. */
  readonly whenDurable: (() => void)[] = [];

  constructor(id: number) {
    this.id = id;
  }
}

/** Batches that are written and not flushed: with more, a burst would be cut into ever smaller batches and frames. */
const UNFLUSHED_MAX = 4;

export class WriteQueue {
  readonly #rowsMax: number;
  readonly #bytesMax: number;
  readonly #flushes: boolean;
  readonly #waiting: Batch[] = [];
  readonly #unflushed: Batch[] = [];
  #inFlight: Batch | undefined;
  #open: Batch | undefined;
  #ids = 0;
  /** Keys whose records are on their way out of the store. */
  readonly #removing = new Set<string>();
  /** Every key that was ever put, while the store has been open since it was empty. */
  #known: KeyFilter | undefined;
  /** Rows and bytes not yet written. */
  rows = 0;
  bytes = 0;

  /** `isFirst`: the store is empty, so that what is put from now on is all that it can ever hold. */
  constructor(rowsMax: number, bytesMax: number, flushes: boolean, isFirst: boolean) {
    this.#rowsMax = rowsMax;
    this.#bytesMax = bytesMax;
    this.#flushes = flushes;
    if (isFirst) this.#known = new KeyFilter();
  }

  /** There is certainly no record of the key, neither on its way to the store nor in it. */
  isNew(key: string): boolean {
    return this.#known?.mayHold(key) === false;
  }

  /** The newest row of the key that is on its way to the store. */
  pending(key: string): Row | undefined {
    // From the newest on. One map over all of them would be filled and emptied all the time, which keeps the
    // collector of young objects from ever letting go of the rows in it (request-table.ts explains).
    for (let i = this.#waiting.length - 1; i >= 0; i--) {
      const queued = this.#waiting[i]!.rows.get(key);
      if (queued !== undefined) return queued.row;
    }
    return this.#inFlight?.rows.get(key)?.row;
  }

  /** The batch that takes what comes next: the open one if `rows` and `bytes` more fit (or it is empty), else a new one. */
  batch(rows = 1, bytes = 0): Batch {
    const open = this.#open;
    if (open !== undefined) {
      const full = open.rows.size + rows > this.#rowsMax || open.bytes + bytes > this.#bytesMax;
      if (open.rows.size === 0 || !full) return open;
    }
    this.#open = new Batch(++this.#ids);
    this.#waiting.push(this.#open);
    return this.#open;
  }

  /** Closes the open batch: what comes next goes into another one. */
  seal(): void {
    this.#open = undefined;
  }

  /** The batch with which all that was taken in so far is written; undefined: it is already. */
  lastUnwritten(): Batch | undefined {
    return this.#waiting.at(-1) ?? this.#inFlight;
  }

  /** The batch with which all that was taken in so far is durable; undefined: it is already. */
  last(): Batch | undefined {
    return this.lastUnwritten() ?? this.#unflushed.at(-1);
  }

  /** Something of the origin is written that a loss of power may take. */
  isUnflushed(origin: OriginId): boolean {
    return this.#unflushed.some(({ heads, tops }) => heads.has(origin) || tops.has(origin));
  }

  /** Nothing is on its way that changes entries or the vector: at most small records of the node. */
  get isQuiet(): boolean {
    return (this.#inFlight === undefined || isSmall(this.#inFlight)) && this.#waiting.every(isSmall);
  }

  /** `current`: the row of the key that this one wins over, pending or stored. */
  put(batch: Batch, key: string, row: Row, current: Row | undefined, own: boolean, quiet: boolean): void {
    const inBatch = batch.rows.get(key);
    if (inBatch !== undefined) {
      this.bytes += row.length - inBatch.row.length;
      batch.bytes += row.length - inBatch.row.length;
      inBatch.row = row;
      inBatch.own ||= own;
      inBatch.quiet &&= quiet;
    } else {
      if (current === undefined) this.#noteKey(key);
      const size = key.length + row.length;
      const replaces = current === undefined ? undefined : dotOf(current);
      batch.rows.set(key, {
        row,
        replaces,
        replaced: current,
        own,
        quiet,
        oldDigest: undefined,
        newDigest: undefined,
      });
      batch.bytes += size;
      this.rows += 1;
      this.bytes += size;
    }
  }

  /** The batch holds a record with this dot. */
  raiseTop(batch: Batch, origin: OriginId, top: number): void {
    if (top > (batch.tops.get(origin) ?? 0)) batch.tops.set(origin, top);
  }

  #noteKey(key: string): void {
    this.#known?.add(key);
    if (this.#known?.isFull === true) this.#known = undefined;
  }

  /**
   * The record goes from the store, in a batch of its own: what is put under the key later goes into a later one.
   * Nothing newer of the key may be pending.
   */
  remove(key: string, row: Row): void {
    this.#removeAll([[key, row]]);
  }

  /** The same for entries that are over: nobody is told that they are gone. */
  collect(removals: readonly (readonly [key: string, row: Row])[]): void {
    this.#removeAll(removals).collects = true;
  }

  #removeAll(removals: readonly (readonly [key: string, row: Row])[]): Batch {
    this.seal();
    const batch = this.batch();
    for (const [key, row] of removals) {
      batch.removals.set(key, row);
      this.#removing.add(key);
    }
    this.seal();
    return batch;
  }

  /** The store may still hold a record of this key that does not count any more. */
  isRemoving(key: string): boolean {
    return this.#removing.size > 0 && this.#removing.has(key);
  }

  raiseHead(batch: Batch, origin: OriginId, head: number): void {
    if (head > (batch.heads.get(origin) ?? 0)) batch.heads.set(origin, head);
    batch.forgets.delete(origin);
  }

  /** The origin gets a head, be it 0: one of which records are stored, but no head, is a forgotten one. */
  startHead(batch: Batch, origin: OriginId): void {
    if (!batch.heads.has(origin)) batch.heads.set(origin, 0);
    batch.forgets.delete(origin);
  }

  /** The origin leaves the stored vector; what earlier batches say of it lands first. */
  forget(batch: Batch, origin: OriginId): void {
    batch.heads.delete(origin);
    batch.tops.delete(origin);
    batch.forgets.add(origin);
  }

  /** The batch that waits behind the one in flight, if it takes nothing more; each is given once. */
  upcoming(): Batch | undefined {
    const next = this.#waiting[0];
    if (this.#inFlight === undefined || next === undefined || next === this.#open || next.announced)
      return undefined;
    next.announced = true;
    return next;
  }

  /** The next batch to write, which is then in flight; undefined while it has to wait, or when there is none. */
  launch(): Batch | undefined {
    if (this.#inFlight !== undefined || this.#unflushed.length >= UNFLUSHED_MAX) return undefined;
    const next = this.#waiting.shift();
    if (next === this.#open) this.#open = undefined;
    this.#inFlight = next;
    return next;
  }

  /** The batch in flight is written. */
  landed(id: number): Batch {
    const batch = this.#inFlight;
    if (batch === undefined || batch.id !== id)
      throw new Error(`batch ${id} landed, but ${batch?.id} is in flight`);
    this.#inFlight = undefined;
    if (this.#flushes) this.#unflushed.push(batch);
    for (const key of batch.removals.keys()) this.#removing.delete(key);
    this.rows -= batch.rows.size;
    this.bytes -= batch.bytes;
    return batch;
  }

  /** This batch and all before it are flushed: those that were not, oldest first. */
  flushed(id: number): Batch[] {
    const count = this.#unflushed.findIndex((batch) => batch.id > id);
    return this.#unflushed.splice(0, count === -1 ? this.#unflushed.length : count);
  }

  /** Writing failed: what is on disk is unknown, so nothing of what was queued may count. */
  drop(): void {
    this.#waiting.length = 0;
    this.#unflushed.length = 0;
    this.#open = undefined;
    this.#inFlight = undefined;
    this.#removing.clear();
    this.rows = 0;
    this.bytes = 0;
  }
}

function isSmall({ rows, removals, heads, tops, forgets, mended, drops }: Batch): boolean {
  const sizes = rows.size + removals.size + heads.size + tops.size + forgets.size + mended.size;
  return sizes + drops.length === 0;
}
