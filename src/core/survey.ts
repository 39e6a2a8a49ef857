/**
 * A survey reads one range of the store and sums it anew, while writes go on: to build the tree, to cut leaves that
 * have grown, to cut leaves where a peer's ranges end, and to see whether the disk still holds what the tree says.
 *
 * It goes in slices, each from a snapshot of its own, so that no snapshot is held for long. A slice is fenced: its
 * snapshot is asked for when everything taken in before is written, and read from when all that was on its way
 * while it was opened is written, too. For whatever lands from the asking on, the survey takes what landed and
 * not what the snapshot says: a key that lands is `touched`; what was already summed for it is taken back (the
 * snapshot had what the batch replaced, since batches that began after the opening are not in it), and its row is
 * added when the slice ends. Behind the slices done, landed rows change the new leaves directly; ahead of them they
 * are left to the slice that will come by.
 *
 * Nothing is replaced before the whole range is done: then the sum of the new leaves stands against that of the old
 * ones. A difference means that the store lost or changed something unnoticed.
 */
import type { Core } from './core.js';
import { DigestSum } from './digest-sum.js';
import { LEAF_KEYS, Leaf, leafIndex } from './digest-tree.js';
import { endOf } from './entry.js';
import { digestEntry, type EntryDigest } from './entry-hash.js';
import { compareKeys } from './key-order.js';
import type { Records, Row } from './types.js';

/** Rows read from one snapshot. */
const SLICE_ROWS = 32 * LEAF_KEYS;
/** Times in a row that a read is put off for the sake of live traffic. */
const YIELDS_MAX = 10;
const YIELD_MS = 20;

export interface SurveyOrder {
  /** Keys above `after`, up to and including `to`; undefined: to the end. Both are bounds of leaves. */
  readonly after: string;
  readonly to: string | undefined;
  /** Bounds that new leaves must have, in order. */
  readonly cuts: readonly string[];
  /** Called for each row as it is read, which need not be the newest. */
  readonly onRow?: (key: string, row: Row) => void;
  readonly onDone?: () => void;
  /** The store could not be read. */
  readonly onFailed?: () => void;
}

export class Survey {
  readonly order: SurveyOrder;
  readonly leaves: Leaf[];
  /** Keys whose record fails its checksum. */
  readonly damaged: string[] = [];
  readonly #core: Core;
  readonly #newScan: () => number;
  readonly #end: (survey: Survey, failed: boolean) => void;
  #scan: number | undefined;
  #opened = false;
  #reading = false;
  #ended = false;
  #yields = 0;
  /** Everything up to here is summed. */
  #position: string;
  /** Where the slice began. */
  #sliceFrom: string;
  #sliceRows = 0;
  #leafRows = 0;
  #cut = 0;
  /** Landed in the range of the slice since its snapshot was asked for. */
  readonly #touched = new Map<string, EntryDigest | undefined>();

  constructor(
    core: Core,
    order: SurveyOrder,
    newScan: () => number,
    end: (survey: Survey, failed: boolean) => void,
  ) {
    this.#core = core;
    this.order = order;
    this.#newScan = newScan;
    this.#end = end;
    this.#position = order.after;
    this.#sliceFrom = order.after;
    this.leaves = [new Leaf(order.after, true)];
    this.#openSlice();
  }

  owns(scan: number): boolean {
    return this.#scan === scan;
  }

  get total(): DigestSum {
    const total = new DigestSum();
    for (const leaf of this.leaves) total.addSum(leaf);
    return total;
  }

  get keys(): number {
    return this.leaves.reduce((sum, leaf) => sum + leaf.count, 0);
  }

  /** A batch that changed this key was written. */
  landed(key: string, old: EntryDigest | undefined, now: EntryDigest | undefined): void {
    const { after, to } = this.order;
    if (compareKeys(key, after) <= 0 || (to !== undefined && compareKeys(key, to) > 0)) return;
    const summed = compareKeys(key, this.#position) <= 0;
    if (this.#scan === undefined || compareKeys(key, this.#sliceFrom) <= 0) {
      if (!summed) return;
      const leaf = this.#leafOf(key);
      if (old !== undefined) leaf.remove(old);
      if (now !== undefined) leaf.put(key, now);
      return;
    }
    if (summed && old !== undefined && !this.#touched.has(key)) this.#leafOf(key).remove(old);
    this.#touched.set(key, now);
  }

  opened(): void {
    const scan = this.#scan;
    this.#core.afterWritten(() => {
      if (this.#scan !== scan) return;
      this.#opened = true;
      this.poll();
    });
  }

  /** Reads on, unless it is to wait for live traffic: then the timer `digest` is set. */
  poll(): void {
    if (this.#scan === undefined || !this.#opened || this.#reading || this.#ended) return;
    const { queue, options, timers, now } = this.#core;
    if (queue.rows > options.commitRowsMax && this.#yields < YIELDS_MAX) {
      this.#yields += 1;
      return timers.atMost('digest', now.mono + YIELD_MS);
    }
    this.#yields = 0;
    this.#reading = true;
    this.#core.emit({
      type: 'read-scan',
      scan: this.#scan,
      rowsMax: options.chunkRowsMax,
      bytesMax: options.chunkBytesMax,
      skipDamaged: true,
    });
  }

  read(records: Records, last: boolean, damaged: readonly string[]): void {
    this.#reading = false;
    const { keys, rows } = records;
    for (let i = 0; i < keys.length; i++) this.#row(keys[i]!, rows[i]!);
    this.damaged.push(...damaged);
    this.#sliceRows += keys.length;
    if (last || this.#sliceRows >= SLICE_ROWS) this.#closeSlice(last);
  }

  failed(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopScan();
    this.#end(this, true);
  }

  #row(key: string, row: Row): void {
    this.#cutBelow(key);
    if (this.#leafRows >= LEAF_KEYS) this.#startLeaf(this.#position);
    this.#leafRows += 1;
    this.#position = key;
    this.order.onRow?.(key, row);
    // Most slices see no write; looking a key up would hash it.
    if (this.#touched.size > 0 && this.#touched.has(key)) return;
    const digest = digestEntry(key, row);
    this.leaves.at(-1)!.put(key, digest, digest.mortal ? endOf(row) : undefined);
  }

  #cutBelow(key: string | undefined): void {
    const { cuts } = this.order;
    for (; this.#cut < cuts.length; this.#cut++) {
      const cut = cuts[this.#cut]!;
      if (key !== undefined && compareKeys(cut, key) >= 0) return;
      if (compareKeys(cut, this.leaves.at(-1)!.after) > 0) this.#startLeaf(cut);
    }
  }

  #startLeaf(after: string): void {
    this.leaves.push(new Leaf(after, true));
    this.#leafRows = 0;
  }

  #leafOf(key: string): Leaf {
    return this.leaves[leafIndex(this.leaves, key)]!;
  }

  #openSlice(): void {
    const { order } = this;
    this.#core.afterWritten(() => {
      if (this.#ended) return;
      const scan = this.#newScan();
      this.#scan = scan;
      this.#opened = false;
      this.#sliceFrom = this.#position;
      this.#sliceRows = 0;
      const after = this.#position === '' ? null : this.#position;
      this.#core.emit({ type: 'open-scan', scan, what: { after, until: order.to ?? null } });
    });
  }

  #closeSlice(last: boolean): void {
    if (last) this.#cutBelow(undefined);
    for (const [key, now] of this.#touched)
      if (now !== undefined && (last || compareKeys(key, this.#position) <= 0))
        this.#leafOf(key).put(key, now);
    this.#touched.clear();
    this.#stopScan();
    if (!last) return this.#openSlice();
    this.#ended = true;
    this.#end(this, false);
  }

  #stopScan(): void {
    const scan = this.#scan;
    this.#scan = undefined;
    if (scan !== undefined) this.#core.emit({ type: 'close-scan', scan });
  }
}
