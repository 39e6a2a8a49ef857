/**
 * A simulated disk with the behaviour of LevelDB under our store, as measured on the real one:
 *
 * - a batch is atomic: torn by a crash it lands as a whole or not at all;
 * - a store that flushes loses nothing but the batch in flight; one that does not loses, in a power cut, a tail
 *   of what was written since the last write-back, and never a batch before one that it keeps;
 * - a write that failed may be there afterwards, or not; the store takes no other batch until it is reopened;
 * - a flipped bit in a record shows only as a wrong checksum when the record is read.
 *
 * Beside the database stands what the machine remembers of the last opening (nonce, batches, until the next
 * boot); together they tell whether the origin may be used again, by the rule of the real store.
 *
 * `disk-model.test.ts` runs the same batches on this and on the real store and compares.
 */
import { isIntact } from '../../src/checksum.js';
import { dotOf, originOf, seqOf } from '../../src/core/entry.js';
import type { Dot, OriginId, Records, Recovered, Row, StoreBatch } from '../../src/core/types.js';
import { compareKeys } from '../../src/storage/key-range.js';
import type { Random } from './random.js';

export interface RunMark {
  nonce: string;
  batches: number;
}

/** What one image of the database holds. */
export class Image {
  readonly rows = new Map<string, Row>();
  readonly dots = new Map<string, string>();
  readonly heads = new Map<OriginId, number>();
  readonly meta = new Map<string, Uint8Array>();
  hlc = { ms: 0, counter: 0 };
  run: RunMark = { nonce: '', batches: 0 };
  /** Keys whose record has a flipped bit, and the record it was: dot rows lie elsewhere, and keep its dot. */
  readonly flipped = new Map<string, Row>();
  /** It had a damaged record at some time: what its digest says may be off until it is compared with a peer's. */
  wasDamaged = false;

  apply(batch: StoreBatch): void {
    for (const drop of batch.drops ?? []) {
      if ('key' in drop) {
        this.rows.delete(drop.key);
        this.flipped.delete(drop.key);
      } else if ('dot' in drop) this.dots.delete(dotKey(drop.dot.origin, drop.dot.seq));
    }
    for (const [key, { row, replaces }] of batch.rows) {
      if (replaces !== undefined) this.dots.delete(dotKey(replaces.origin, replaces.seq));
      this.rows.set(key, row);
      this.dots.set(dotKey(originOf(row), seqOf(row)), key);
      this.flipped.delete(key);
    }
    for (const [key, row] of batch.removals ?? []) {
      this.rows.delete(key);
      this.dots.delete(dotKey(originOf(row), seqOf(row)));
      this.flipped.delete(key);
    }
    for (const [origin, head] of batch.heads) this.heads.set(origin, head);
    for (const origin of batch.forgets ?? []) this.heads.delete(origin);
    for (const [name, bytes] of batch.meta) {
      if (bytes === null) this.meta.delete(name);
      else this.meta.set(name, bytes);
    }
    if (batch.hlc !== undefined) this.hlc = { ms: batch.hlc.ms, counter: batch.hlc.counter };
    this.run = { nonce: this.run.nonce, batches: this.run.batches + 1 };
  }

  clone(): Image {
    const copy = new Image();
    for (const [key, row] of this.rows) copy.rows.set(key, row);
    for (const [dot, key] of this.dots) copy.dots.set(dot, key);
    for (const [origin, head] of this.heads) copy.heads.set(origin, head);
    for (const [name, bytes] of this.meta) copy.meta.set(name, bytes);
    for (const [key, row] of this.flipped) copy.flipped.set(key, row);
    copy.hlc = { ...this.hlc };
    copy.wasDamaged = this.wasDamaged;
    copy.run = { ...this.run };
    return copy;
  }

  /** As the real store reads it: undefined when missing, 'damaged' when the checksum does not fit. */
  lookup(key: string): Row | undefined | 'damaged' {
    const row = this.rows.get(key);
    if (row !== undefined && this.flipped.has(key) && !isIntact(key, row)) return 'damaged';
    return row;
  }

  flipBit(key: string, bit: number): void {
    this.wasDamaged = true;
    const row = Uint8Array.from(this.rows.get(key)!);
    if (!this.flipped.has(key)) this.flipped.set(key, this.rows.get(key)!);
    row[(bit >> 3) % row.length]! ^= 1 << (bit & 7);
    this.rows.set(key, row);
  }

  /** What the real store makes of the dot index: where the dot row still names the key, its dot. */
  damagedDot(key: string): Dot | undefined {
    const row = this.flipped.get(key);
    return row === undefined ? undefined : dotOf(row);
  }

  #dotOf(key: string, row: Row): Dot {
    return dotOf(this.flipped.get(key) ?? row);
  }

  tops(): Map<OriginId, number> {
    const out = new Map<OriginId, number>();
    for (const [key, row] of this.rows) {
      const { origin, seq } = this.#dotOf(key, row);
      out.set(origin, Math.max(out.get(origin) ?? 0, seq));
    }
    return out;
  }

  recovered(): Recovered {
    return { heads: new Map(this.heads), tops: this.tops(), hlc: { ...this.hlc }, meta: new Map(this.meta) };
  }

  /** Records whose dot is above the heads, by origin and sequence number. */
  above(heads: ReadonlyMap<OriginId, number>): Records {
    const found: { key: string; row: Row; dot: Dot }[] = [];
    for (const [key, row] of this.rows) {
      const dot = this.#dotOf(key, row);
      if (dot.seq > (heads.get(dot.origin) ?? 0)) found.push({ key, row, dot });
    }
    found.sort((a, b) =>
      a.dot.origin === b.dot.origin ? a.dot.seq - b.dot.seq : a.dot.origin < b.dot.origin ? -1 : 1,
    );
    return { keys: found.map(({ key }) => key), rows: found.map(({ row }) => row) };
  }

  /** Records with a key above `after` and up to `to`, in byte order of keys. */
  between(after: string | null, to: string | null): Records {
    const keys = [...this.rows.keys()].filter(
      (key) => (after === null || compareKeys(key, after) > 0) && (to === null || compareKeys(key, to) <= 0),
    );
    keys.sort(compareKeys);
    return { keys, rows: keys.map((k) => this.rows.get(k)!) };
  }

  /** Every dot row names its entry, and every entry has its dot row. */
  inconsistency(): string | undefined {
    for (const [dot, key] of this.dots) {
      const row = this.rows.get(key);
      if (row === undefined || dotKey(originOf(row), seqOf(row)) !== dot)
        return `dot ${dot} is of no entry ${key}`;
    }
    for (const [key, row] of this.rows)
      if (this.dots.get(dotKey(originOf(row), seqOf(row))) !== key) return `entry ${key} has no dot row`;
    return undefined;
  }
}

function dotKey(origin: OriginId, seq: number): string {
  return `${origin}:${seq}`;
}

export class Disk {
  /** Whether what is written is then flushed. */
  readonly flushes: boolean;
  /** What a process on this machine reads. */
  image = new Image();
  /** What the machine remembers of the last opening, until its next boot. */
  record: RunMark | undefined;
  /** Written and not yet flushed or written back. */
  #unflushed: StoreBatch[] = [];
  /** What a power cut now would leave at least. */
  durable = new Image();

  constructor(flushes: boolean) {
    this.flushes = flushes;
  }

  /** Batches that a power cut may take. */
  get unflushed(): number {
    return this.#unflushed.length;
  }

  /** Opens the store for one process: true when its origin may be used again. */
  open(nonce: string): boolean {
    const { image, record } = this;
    // An opening that ended before its first batch has not even stored what it decided about the origin.
    const vouched =
      record !== undefined &&
      record.nonce === image.run.nonce &&
      image.run.batches >= Math.max(1, record.batches);
    image.run = { nonce, batches: 0 };
    // The mark of an opening is always flushed.
    this.writeBack();
    this.record = { nonce, batches: 0 };
    return vouched;
  }

  /** The batch is on the disk. */
  apply(batch: StoreBatch): void {
    this.image.apply(batch);
    this.#unflushed.push(batch);
  }

  /** A bit of the key's record flips. */
  flip(key: string, bit: number): void {
    const isFlushed = this.durable.rows.get(key) === this.image.rows.get(key);
    this.image.flipBit(key, bit);
    if (isFlushed) this.durable.flipBit(key, bit);
  }

  /** So many of the batches that were not, oldest first, are flushed. */
  flush(count: number): void {
    for (const batch of this.#unflushed.splice(0, count)) this.durable.apply(batch);
  }

  /** The machine takes note of a batch that is about to count as written. */
  count(): void {
    if (this.record !== undefined) this.record.batches = this.image.run.batches;
  }

  /** The next opening gets a new origin. */
  distrust(): void {
    this.record = undefined;
  }

  /** The kernel wrote back everything. */
  writeBack(): void {
    this.flush(this.#unflushed.length);
    this.durable.run = { ...this.image.run };
  }

  /** Whether a power cut may take all that was ever written, the founding included. */
  get mayBeEmptied(): boolean {
    return !this.durable.meta.has('node');
  }

  /** Returns how many batches were lost. The machine forgets with its boot. */
  powerCut(random: Random, keptMax = Number.POSITIVE_INFINITY): number {
    this.record = undefined;
    const kept = Math.min(keptMax, random.below(this.#unflushed.length + 1));
    const lost = this.#unflushed.length - kept;
    this.flush(kept);
    this.#unflushed = [];
    if (lost > 0) this.image = this.durable.clone();
    return lost;
  }

  /** Puts other contents in the place of what was here: empty ones, a backup, a copy. */
  replace(image: Image): void {
    this.image = image;
    this.#unflushed = [];
    this.durable = image.clone();
  }
}
