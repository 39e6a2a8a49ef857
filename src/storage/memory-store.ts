/**
 * The store port in memory: for tests, and for whatever wants a replica without a disk. It keeps the port's
 * every promise but durability: order of keys, snapshots, one batch in flight, failure after a failed batch.
 *
 * `contents()` is what a disk would hold: a store built from it is the same store reopened, and one built from
 * older contents is a disk that lost its latest batches. Contents are never changed once handed out.
 */
import { isIntact } from '../checksum.js';
import { originOf, seqOf } from '../core/entry.js';
import type { OriginId, Recovered, Row, StoreBatch } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import { Chunk, ChunkCursor, damagedRecord } from './chunk-cursor.js';
import { closed, writeFailure } from './disk-errors.js';
import { compareKeys, type KeyInterval, keyInterval } from './key-range.js';
import { META_HLC, META_RUN } from './physical.js';
import { boundaries } from './range-plan.js';
import type { KeyRange, RangePlan, RowCursor, Snapshot, Store } from './store.js';

export interface MemoryContents {
  readonly rows: ReadonlyMap<string, Row>;
  readonly heads: ReadonlyMap<OriginId, number>;
  readonly meta: ReadonlyMap<string, Uint8Array>;
  readonly hlc: { readonly ms: number; readonly counter: number };
}

const EMPTY: MemoryContents = {
  rows: new Map(),
  heads: new Map(),
  meta: new Map(),
  hlc: { ms: 0, counter: 0 },
};
const NAME = 'memory';

export interface MemoryStoreOptions {
  /** What the store says of itself; there is nothing to flush. Default true. */
  readonly flushes?: boolean;
  /** What is on the imagined disk when it is opened. Default nothing. */
  readonly contents?: MemoryContents;
}

export class MemoryStore implements Store {
  readonly flushes: boolean;
  readonly recovered: Recovered;
  #image: Image;
  #failNext: 'lost' | 'kept' | undefined;
  #failure: ReadmeshError | undefined;
  #inFlight: Promise<void> | undefined;
  #closed = false;

  constructor(options: MemoryStoreOptions = {}) {
    this.flushes = options.flushes ?? true;
    this.#image = new Image(options.contents ?? EMPTY);
    const { heads, hlc, meta } = this.#image;
    this.recovered = { heads: new Map(heads), tops: this.#image.tops(), hlc, meta: new Map(meta) };
  }

  /**
   * Makes the next `write` fail, and every later one with it. `lost`: its batch is not there at the next
   * opening. `kept`: it is, as after a flush that failed.
   */
  failNextWrite(batch: 'lost' | 'kept'): void {
    this.#failNext = batch;
  }

  /** Flips a bit in a stored record, as a bad disk would. */
  damage(key: string): void {
    const row = this.#image.rows.get(key);
    if (row === undefined) throw new RangeError(`there is no record to damage at ${JSON.stringify(key)}`);
    const flipped = Uint8Array.from(row);
    flipped[flipped.length - 1]! ^= 1;
    this.#image = this.#image.with({ rows: new Map([[key, flipped]]) });
  }

  contents(): MemoryContents {
    return this.#image.share();
  }

  getRow(key: string): Row | undefined {
    this.#assertOpen();
    const row = this.#image.rows.get(key);
    if (row !== undefined && !isIntact(key, row)) throw damagedRecord(key);
    return row;
  }

  async getRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    return keys.map((key) => this.getRow(key));
  }

  write(batch: StoreBatch): Promise<void> {
    if (this.#inFlight !== undefined)
      return Promise.reject(
        new ReadmeshError('INTERNAL', 'a batch was written while another one was in flight: report this bug'),
      );
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#closed) return Promise.reject(closed(NAME));
    const done = this.#commit(batch);
    this.#inFlight = done;
    return done;
  }

  async #commit(batch: StoreBatch): Promise<void> {
    // Not visible before the caller had its turn, as on a disk.
    await Promise.resolve();
    this.#inFlight = undefined;
    if (batch.meta.has(META_HLC) || batch.meta.has(META_RUN))
      throw new ReadmeshError('INTERNAL', `the meta names ${META_HLC} and ${META_RUN} are the store's own`);
    const failing = this.#failNext;
    if (failing !== 'lost') {
      const rows = new Map<string, Row>();
      for (const [key, { row }] of batch.rows) rows.set(key, row);
      const gone = (batch.drops ?? []).flatMap((drop) =>
        'key' in drop && !rows.has(drop.key) ? [drop.key] : [],
      );
      if (gone.length > 0) this.#image = this.#image.without(gone);
      this.#image = this.#image.with({ ...batch, rows });
    }
    if (failing === undefined) return;
    this.#failure = writeFailure(NAME, new Error('the test asked for it'));
    throw this.#failure;
  }

  async flush(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
  }

  async snapshot(): Promise<Snapshot> {
    this.#assertOpen();
    return new MemorySnapshot(this.#image.share(), () => this.#assertOpen());
  }

  async plan(rangeBytes: number, rangesMax: number): Promise<RangePlan> {
    this.#assertOpen();
    const sizes: { key: string; bytes: number }[] = [];
    for (const item of this.#image.share().inRange({}))
      if ('row' in item) sizes.push({ key: item.key, bytes: item.key.length + item.row.length });
    const bytes = sizes.reduce((sum, size) => sum + size.bytes, 0);
    return { keys: boundaries(sizes, bytes, rangeBytes, rangesMax), entries: sizes.length, bytes };
  }

  rows(range: KeyRange): RowCursor {
    this.#assertOpen();
    return new ImageCursor(this.#image.share().inRange(range), () => this.#assertOpen());
  }

  async close(): Promise<void> {
    await this.#inFlight?.catch(() => undefined);
    this.#closed = true;
  }

  #assertOpen(): void {
    if (this.#closed) throw closed(NAME);
  }
}

interface Changes {
  readonly rows?: ReadonlyMap<string, Row>;
  readonly removals?: ReadonlyMap<string, Row>;
  readonly heads?: ReadonlyMap<OriginId, number>;
  readonly forgets?: ReadonlySet<OriginId>;
  readonly meta?: ReadonlyMap<string, Uint8Array | null>;
  readonly hlc?: MemoryContents['hlc'];
}

type CursorItem = { readonly key: string; readonly row: Row } | { readonly damage: ReadmeshError };

/** One version of the contents. Changed in place until somebody holds it (`share`), copied after that. */
class Image implements MemoryContents {
  readonly rows: Map<string, Row>;
  readonly heads: Map<OriginId, number>;
  readonly meta: Map<string, Uint8Array>;
  hlc: MemoryContents['hlc'];
  #shared = false;
  /** Keys in order of bytes; undefined once a key was added or removed. */
  #sorted: readonly string[] | undefined;

  constructor(from: MemoryContents) {
    this.rows = new Map(from.rows);
    this.heads = new Map(from.heads);
    this.meta = new Map(from.meta);
    this.hlc = from.hlc;
    if (from instanceof Image) this.#sorted = from.#sorted;
  }

  share(): Image {
    this.#shared = true;
    return this;
  }

  with(changes: Changes): Image {
    const image = this.#shared ? new Image(this) : this;
    for (const [key, row] of changes.rows ?? []) {
      if (!image.rows.has(key)) image.#sorted = undefined;
      image.rows.set(key, row);
    }
    for (const key of changes.removals?.keys() ?? []) {
      if (image.rows.delete(key)) image.#sorted = undefined;
    }
    for (const [origin, head] of changes.heads ?? []) image.heads.set(origin, head);
    for (const origin of changes.forgets ?? []) image.heads.delete(origin);
    for (const [name, value] of changes.meta ?? [])
      if (value === null) image.meta.delete(name);
      else image.meta.set(name, Uint8Array.from(value));
    if (changes.hlc !== undefined) image.hlc = changes.hlc;
    return image;
  }

  without(keys: readonly string[]): Image {
    const image = this.#shared ? new Image(this) : this;
    for (const key of keys) image.rows.delete(key);
    image.#sorted = undefined;
    return image;
  }

  tops(): Map<OriginId, number> {
    const tops = new Map<OriginId, number>();
    for (const row of this.rows.values()) {
      const origin = originOf(row);
      tops.set(origin, Math.max(seqOf(row), tops.get(origin) ?? 0));
    }
    return tops;
  }

  /** Throws INVALID_KEY at once, not at the first record. */
  inRange(range: KeyRange): Generator<CursorItem> {
    return this.#scan(keyInterval(range), range.reverse ?? false, range.limit ?? Number.POSITIVE_INFINITY);
  }

  *#scan(bounds: KeyInterval, reverse: boolean, limit: number): Generator<CursorItem> {
    const { lower, lowerInclusive, upper, upperInclusive } = bounds;
    this.#sorted ??= [...this.rows.keys()].sort(compareKeys);
    const sorted = this.#sorted;
    const from = firstBehind(sorted, lower, !lowerInclusive);
    const to = upper === undefined ? sorted.length : firstBehind(sorted, upper, upperInclusive);
    const count = Math.min(to - from, limit);
    for (let i = 0; i < count; i++) yield this.#item(sorted[reverse ? to - 1 - i : from + i]!);
  }

  *above(heads: ReadonlyMap<OriginId, number>): Generator<CursorItem> {
    const found: { key: string; origin: OriginId; seq: number }[] = [];
    for (const [key, row] of this.rows) {
      const origin = originOf(row);
      const seq = seqOf(row);
      if (seq > (heads.get(origin) ?? 0)) found.push({ key, origin, seq });
    }
    found.sort((a, b) => (a.origin === b.origin ? a.seq - b.seq : a.origin < b.origin ? -1 : 1));
    for (const { key } of found) yield this.#item(key);
  }

  #item(key: string): CursorItem {
    const row = this.rows.get(key)!;
    return isIntact(key, row) ? { key, row } : { damage: damagedRecord(key) };
  }
}

/** Index of the first key that sorts at (`past`: behind) the bound or later. */
function firstBehind(sorted: readonly string[], bound: string, past: boolean): number {
  let from = 0;
  let to = sorted.length;
  while (from < to) {
    const middle = (from + to) >>> 1;
    const order = compareKeys(sorted[middle]!, bound);
    if (order < 0 || (past && order === 0)) from = middle + 1;
    else to = middle;
  }
  return from;
}

const SLICE_ROWS = 64;

class ImageCursor extends ChunkCursor {
  protected override readonly source = NAME;
  readonly #items: Generator<CursorItem>;
  readonly #assertOpen: () => void;

  /** `assertOpen` throws once that which the cursor reads from is closed. */
  constructor(items: Generator<CursorItem>, assertOpen: () => void) {
    super();
    this.#items = items;
    this.#assertOpen = assertOpen;
  }

  protected override async refill(rowsWanted: number): Promise<Chunk> {
    this.#assertOpen();
    const chunk = new Chunk();
    while (chunk.keys.length < Math.min(rowsWanted, SLICE_ROWS)) {
      const next = this.#items.next();
      if (next.done === true) break;
      if ('damage' in next.value) chunk.addDamaged(next.value.damage);
      else chunk.add(next.value.key, next.value.row);
    }
    return chunk;
  }

  protected override async release(): Promise<void> {
    this.#items.return(undefined);
  }
}

class MemorySnapshot implements Snapshot {
  readonly heads: ReadonlyMap<OriginId, number>;
  readonly #image: Image;
  readonly #assertStoreOpen: () => void;
  #closed = false;

  constructor(image: Image, assertStoreOpen: () => void) {
    this.#image = image;
    this.#assertStoreOpen = assertStoreOpen;
    this.heads = new Map(image.heads);
  }

  async tops(): Promise<ReadonlyMap<OriginId, number>> {
    this.#assertOpen();
    return this.#image.tops();
  }

  async meta(): Promise<ReadonlyMap<string, Uint8Array>> {
    this.#assertOpen();
    return new Map(this.#image.meta);
  }

  rows(range: KeyRange): RowCursor {
    this.#assertOpen();
    return new ImageCursor(this.#image.inRange(range), () => this.#assertOpen());
  }

  above(heads: ReadonlyMap<OriginId, number>): RowCursor {
    this.#assertOpen();
    return new ImageCursor(this.#image.above(new Map(heads)), () => this.#assertOpen());
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #assertOpen(): void {
    this.#assertStoreOpen();
    if (this.#closed) throw closed(NAME);
  }
}
