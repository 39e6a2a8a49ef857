/**
 * The storage port: what the node and the simulator ask of a disk. `contract.ts` in test/storage is run on
 * every implementation.
 *
 * Row families (physical keys): `e` + key -> row (entry.ts; it bears its own checksum); `d` + origin (16 hex)
 * + sequence number (12 hex) -> key; `h` + origin -> head (removed by `forgets`); `m` + name -> meta. Values of the latter three are
 * sealed: crc32 of payload and physical key, then the payload. The meta names `hlc` and `run` are the store's own
 * and refused with INTERNAL.
 *
 * Ordering: at most one `write` is in flight; a second call before the first settled is our own bug and
 * throws; a `flush` may go on meanwhile. After a `write` or `flush` failed, every later one fails with STORE_FAILED until the store is reopened, since
 * the failed batch may or may not come back (indeterminate). Reads go on.
 */
import type { Dot, KeyShare, OriginId, Records, Recovered, Row, StoreBatch } from '../core/types.js';

/** Bounds and prefixes are well-formed Unicode; others throw INVALID_KEY when the cursor is made. */
export interface KeyRange {
  /** Exclusive lower bound, or inclusive one. */
  readonly gt?: string;
  readonly gte?: string;
  readonly lt?: string;
  readonly lte?: string;
  /** Only keys that begin with it; intersects with the bounds. */
  readonly prefix?: string;
  /** Descending order. Default false. */
  readonly reverse?: boolean;
  /** Greatest number of rows; default no limit. Tombstones count. */
  readonly limit?: number;
}

/** A cursor over entries in byte order of keys. Tombstones are among them: rows are not interpreted. */
export interface RowCursor {
  /**
   * Up to `rowsMax` rows or about `bytesMax` bytes of keys and rows, at least one; empty at the end.
   *
   * Damaged rows throw DAMAGED with `details.key` (a damaged row of the dot index: with `details.origin` and
   * `details.seq`), after the intact rows before them were handed out; the next call goes on behind them. Any
   * other error is final and thrown again by every later call. CLOSED after the cursor was
   * closed; after its snapshot or store was, as soon as it has to read on.
   */
  next(rowsMax: number, bytesMax: number): Promise<Records>;
  close(): Promise<void>;
}

/** One consistent view. Holds disk space until closed: always close it, within a bounded time. */
export interface Snapshot {
  /** Heads as they were when the snapshot was taken. */
  readonly heads: ReadonlyMap<OriginId, number>;
  /** Greatest dot held per origin in this snapshot, at least. */
  tops(): Promise<ReadonlyMap<OriginId, number>>;
  /** Small records of the node in this snapshot, by name; the store's own are not among them. */
  meta(): Promise<ReadonlyMap<string, Uint8Array>>;
  rows(range: KeyRange): RowCursor;
  /** Every current record with a dot above `heads` (missing origin: 0), grouped by origin, in order of sequence. */
  above(heads: ReadonlyMap<OriginId, number>): RowCursor;
  close(): Promise<void>;
}

/** Keys above `after`, up to and including `until`; null: without bound. */
export interface Span {
  readonly after: string | null;
  readonly until: string | null;
}

/** How the entries are best divided into ranges; every figure is an estimate. */
export interface RangePlan {
  /** Last key of each range but the last one, rising. */
  readonly keys: readonly string[];
  readonly entries: number;
  /** Of keys and rows. */
  readonly bytes: number;
}

/** What reading the whole disk found. */
export type Finding =
  /** The entry fails its checksum. Nobody may know the key: then the damage is in the key. */
  | { readonly what: 'damaged'; readonly key: string }
  /** The dot index names a key that has no entry, or one with another dot. */
  | { readonly what: 'lost'; readonly key: string; readonly dot: Dot }
  /** The dot index does not name the entry. */
  | { readonly what: 'no-dot'; readonly key: string }
  /** The entry is as it was written, and no value. */
  | { readonly what: 'unreadable'; readonly key: string; readonly row: Row }
  /** A row that nobody wrote. */
  | { readonly what: 'junk'; readonly row: Uint8Array }
  /** Entries between these keys cannot be read. */
  | { readonly what: 'range'; readonly after: string | null; readonly until: string | null }
  /** Rows of the dot index cannot be read: any entry may be missing without a trace. */
  | { readonly what: 'dots' }
  /** A head or a small record of the node is damaged. `row`: its physical key, if it may be removed and written anew. */
  | { readonly what: 'own'; readonly row: Uint8Array | undefined };

export interface ScrubPage {
  readonly rows: number;
  readonly bytes: number;
  readonly findings: readonly Finding[];
  /** The pass is complete. */
  readonly done: boolean;
}

/** One pass over the whole disk, page by page. */
export interface ScrubReader {
  /** 0 to 1, about. */
  progress(): Promise<number>;
  next(): Promise<ScrubPage>;
  /** Rows of the dot index that were found damaged and still are: whatever they named was not put back. */
  damagedDots(): Uint8Array[];
}

export interface Store {
  /** Whether `flush` flushes to stable storage what was written. */
  readonly flushes: boolean;
  /** What was on disk when it was opened. */
  readonly recovered: Recovered;
  /** The row as last written, checksum verified. Throws DAMAGED. Synchronous and never waits for a write. */
  getRow(key: string): Row | undefined;
  /** Dot of a record that `getRow` cannot read, if its row in the dot index is intact and names this key. */
  damagedDot?(key: string): Dot | undefined;
  /** In the order of `keys`. Throws DAMAGED. */
  getRows(keys: readonly string[]): Promise<(Row | undefined)[]>;
  /** A hint that this batch is to be written next: what can be done for that while another is in flight. */
  prepare?(batch: StoreBatch): void;
  /**
   * Atomic. Resolves once it is readable and survives the end of this process. Rejects with STORE_FAILED; whether the
   * batch is on disk is then unknown.
   */
  write(batch: StoreBatch): Promise<void>;
  /**
   * Resolves once all that was written before survives a loss of power; until then one may take batches from the end,
   * and never a batch without all that follow it. At once where `flushes` is false. Rejects with STORE_FAILED.
   */
  flush(): Promise<void>;
  snapshot(): Promise<Snapshot>;
  /**
   * Ranges of about `rangeBytes` each, at most `rangesMax`; found without reading the store through. `shares`: how its
   * entries lie, if that is known.
   */
  plan(rangeBytes: number, rangesMax: number, shares: readonly KeyShare[]): Promise<RangePlan>;
  /** Begins a pass over the whole disk, where there is one. */
  scrub?(): ScrubReader;
  /** A hint that most of what lay in these ranges was removed: their space may be reclaimed, at a quiet time. */
  reclaim?(ranges: readonly Span[]): void;
  /** Entries outside any snapshot of ours (still one consistent iterator). */
  rows(range: KeyRange): RowCursor;
  close(): Promise<void>;
}
