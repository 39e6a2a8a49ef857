/**
 * The store on disk: one LevelDB, opened with care for what LevelDB does not promise.
 *
 * - One batch in flight. LevelDB may apply concurrent batches out of order.
 * - Batches are flushed after they are written (log-sync.ts), so that they are readable at once. Before one that may
 *   go into another log all others are flushed: otherwise a loss of power might take an earlier batch alone.
 * - After a failed batch no other one is written until the store is reopened: LevelDB would accept it, and lose
 *   it at the next opening.
 * - Every row bears a checksum of its own, since LevelDB's are not verified on reads.
 * - A new log's name is flushed together with its batches (folder-sync.ts).
 * - The database is only created where the caller says that there was none (data-folder.ts).
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ClassicLevel } from 'classic-level';
import { dotOf, isWhole, KEY_BYTES_MAX, utf8Length } from '../core/entry.js';
import type { BatchRow, Dot, KeyShare, Recovered, Row, StoreBatch } from '../core/types.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import { damagedRecord } from './chunk-cursor.js';
import { closed, openFailure, readFailure, untrusted, writeFailure } from './disk-errors.js';
import { FolderSync, syncFolder } from './folder-sync.js';
import { LevelBatch } from './level-batch.js';
import { LevelBytes } from './level-bytes.js';
import { type Db, EntryCursor, LevelSnapshot, readHeads, readSealed, readTops } from './level-cursors.js';
import { LevelScrub } from './level-scrub.js';
import { LogSync } from './log-sync.js';
import {
  decodeHlc,
  decodeRun,
  dotKey,
  ENTRY,
  encodeHead,
  encodeHlc,
  encodeRun,
  HEAD,
  LookupKey,
  META,
  META_HLC,
  META_RUN,
  type RunMark,
  seal,
  unseal,
} from './physical.js';
import { planRanges } from './range-plan.js';
import { Reclaim } from './reclaim.js';
import type { KeyRange, RangePlan, RowCursor, ScrubReader, Snapshot, Span, Store } from './store.js';

/**
 * Write buffer: reopening replays up to this much of the log, about 10 ms a megabyte, and two may be in memory;
 * smaller ones cost compactions. Block cache: holds uncompressed blocks of 4 KiB, so that hot records are not
 * inflated at every read. Compression stays on: a third of the disk, and of the page cache, for the same data.
 * Open files: tables are mapped rather than held open, but a table that is not among these is opened and its
 * index read anew at every look-up; at 8 MiB a table this reaches to 4 GiB while it leaves the other half of
 * the usual 1,024 descriptors to sockets.
 */
export const LEVEL_OPTIONS = {
  writeBufferSize: 8 * 1024 * 1024,
  cacheSize: 32 * 1024 * 1024,
  maxFileSize: 8 * 1024 * 1024,
  maxOpenFiles: 512,
  keyEncoding: 'utf8',
  valueEncoding: 'view',
} as const;

/** Rows read one by one between two turns of the event loop: about half a millisecond. */
const SLICE_ROWS = 100;
/** The same for those put into a batch, which are copied only; `commitBytesMax` bounds how many bytes these are. */
const SLICE_PUTS = 512;

/**
 * What abstract-level asks of its implementors, and what its own `getSync` comes down to. That one looks up encodings
 * for each key; it also sees to it that the database is open, which whoever calls this has to.
 */
interface Lookup {
  _getSync(key: Uint8Array, options: typeof BY_BYTES): Uint8Array | undefined;
}

/** The key need not be put together as a string first, to be encoded after. */
const BY_BYTES = { keyEncoding: 'view', valueEncoding: 'view' } as const;

/**
 * LevelDB's binding copies a key that `getSync` is given as a string into a buffer that it grows only when a key
 * fills it to the last byte; a multi-byte character across the end is cut off and another key's record returned.
 * One look-up of a key longer than any of ours makes the buffer too large for that ever to happen.
 */
const PRIMER = 'p'.repeat(4 * KEY_BYTES_MAX);

export interface LevelStoreOptions {
  /** Folder of the database itself. */
  readonly location: string;
  /** Whether to make the database when there is none. True only if none is expected to be there. */
  readonly create: boolean;
  /** Whether `flush` flushes what was written to stable storage. */
  readonly flush: boolean;
  /** Random name of this opening, 16 hex digits; kept in the database with the number of batches written. */
  readonly run: string;
  /** Where it is noted which ranges are still to be merged, so that the next opening goes on. Default: nowhere. */
  readonly reclaimFile?: string;
  /** With the number of batches since opening that may be acknowledged: flushed ones, where they are flushed. */
  readonly onDurable?: (batches: number) => void;
  /** Called once, when a batch or a flush failed, before that rejects. */
  readonly onFailed?: () => void;
}

export class LevelStore implements Store {
  readonly flushes: boolean;
  readonly recovered: Recovered;
  /** The mark that the previous opening left in the database; undefined in a new one. */
  readonly previousRun: RunMark | undefined;
  readonly #db: Db;
  readonly #options: LevelStoreOptions;
  readonly #folder: FolderSync;
  readonly #logs: LogSync;
  readonly #reclaim: Reclaim;
  readonly #lookupKey = new LookupKey();
  #lookups = 0;
  #batches = 0;
  #flushed = 0;
  #flushing: Promise<void> | undefined;
  /** What LevelDB's write buffer may hold by now, bytes; it begins a new log when that is full. */
  #buffered = 0;
  #prepared: Prepared | undefined;
  #inFlight: Promise<void> | undefined;
  #failure: ReadmeshError | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    db: Db,
    options: LevelStoreOptions,
    folder: FolderSync,
    logs: LogSync,
    found: { recovered: Recovered; run: RunMark | undefined },
  ) {
    this.#db = db;
    this.#options = options;
    this.#folder = folder;
    this.#logs = logs;
    this.#reclaim = new Reclaim(
      db,
      options.reclaimFile,
      () => this.#lookups,
      async () => {
        // Whether it failed is its writer's affair.
        await this.#inFlight?.catch(() => undefined);
        await this.flush();
      },
    );
    this.flushes = options.flush;
    this.recovered = found.recovered;
    this.previousRun = found.run;
    this.#reclaim.resume();
  }

  /**
   * Throws STORE_UNTRUSTED when the contents cannot be used, STORE_IN_USE, or STORE_FAILED for troubles of the
   * machine (no space, no permission, too many files).
   */
  static async open(options: LevelStoreOptions): Promise<LevelStore> {
    const db: Db = new ClassicLevel<string, Uint8Array>(options.location, {
      ...LEVEL_OPTIONS,
      createIfMissing: options.create,
    });
    try {
      await db.open();
    } catch (error) {
      throw openFailure(options.location, error);
    }
    let folder: FolderSync | undefined;
    let logs: LogSync | undefined;
    try {
      db.getSync(PRIMER);
      const found = await recover(db);
      folder = new FolderSync(options.location);
      await db.put(META + META_RUN, seal(META + META_RUN, encodeRun({ nonce: options.run, batches: 0 })), {
        sync: true,
      } as object);
      syncFolder(options.location);
      logs = new LogSync(options.location);
      return new LevelStore(db, options, folder, logs, found);
    } catch (error) {
      logs?.close();
      folder?.close();
      await db.close();
      if (isReadmeshError(error) && error.code === 'DAMAGED')
        throw untrusted(options.location, error.message.split(': ', 1)[0]!, error);
      throw openFailure(options.location, error);
    }
  }

  /** Batches written since it was opened. */
  get batches(): number {
    return this.#batches;
  }

  /** Why nothing more is written; undefined while all is well. */
  get failure(): ReadmeshError | undefined {
    return this.#failure;
  }

  getRow(key: string): Row | undefined {
    // No longer key is ever stored, and there is no room for one.
    if (key.length > KEY_BYTES_MAX) return undefined;
    if (this.#db.status !== 'open') throw closed(this.#options.location);
    this.#lookups += 1;
    let row: Row | undefined;
    try {
      row = (this.#db as unknown as Lookup)._getSync(this.#lookupKey.lay(key), BY_BYTES);
    } catch (error) {
      throw readFailure(this.#options.location, error, key);
    }
    if (row === undefined || this.#lookupKey.isOf(row)) return row;
    // A lone surrogate is encoded as U+FFFD and finds that key's record: such a key cannot have been stored.
    if (utf8Length(key) === -1) return undefined;
    throw damagedRecord(key);
  }

  damagedDot(key: string): Dot | undefined {
    try {
      const row = this.#db.getSync(ENTRY + key);
      if (row === undefined || !isWhole(row)) return undefined;
      const dot = dotOf(row);
      const physical = dotKey(dot.origin, dot.seq);
      const sealed = this.#db.getSync(physical);
      return sealed !== undefined && unseal(physical, sealed)?.toString() === key ? dot : undefined;
    } catch {
      // What cannot be read tells nothing.
      return undefined;
    }
  }

  async getRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    const rows = new Array<Row | undefined>(keys.length);
    for (let i = 0; i < keys.length; i++) {
      if (i > 0 && i % SLICE_ROWS === 0) await nextTurn();
      rows[i] = this.getRow(keys[i]!);
    }
    return rows;
  }

  write(batch: StoreBatch): Promise<void> {
    if (this.#inFlight !== undefined)
      return Promise.reject(
        new ReadmeshError('INTERNAL', 'a batch was written while another one was in flight: report this bug'),
      );
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#closing !== undefined) return Promise.reject(closed(this.#options.location));
    const done = this.#commit(batch);
    this.#inFlight = done;
    return done;
  }

  /** Puts the batch together while the one before it is on its way: this thread has nothing else to wait for. */
  prepare(batch: StoreBatch): void {
    if (this.#prepared !== undefined || this.#failure !== undefined || this.#closing !== undefined) return;
    const prepared: Prepared = { batch, building: this.#build(batch), built: undefined };
    this.#prepared = prepared;
    prepared.building.then(
      (built) => {
        prepared.built = built;
      },
      // Whoever writes the batch hears of a failure; if nobody does, it is nobody's.
      () => undefined,
    );
  }

  async #commit(batch: StoreBatch): Promise<void> {
    try {
      // What is built is given to LevelDB in this very turn: thousands of callbacks may come before the next.
      const built = this.#takeBuilt(batch) ?? (await this.#takePrepared(batch));
      if (this.#mayChangeLogs()) await this.flush();
      try {
        await built.write({ nonce: this.#options.run, batches: this.#batches + 1 });
        if (this.flushes) this.#buffered = built.memory + (this.#logs.written() ? 0 : this.#buffered);
        else this.#folder.check();
      } catch (error) {
        throw this.#fail(error);
      }
      if (this.#failure !== undefined) throw this.#failure;
      this.#batches++;
      if (!this.flushes) this.#options.onDurable?.(this.#batches);
    } finally {
      this.#inFlight = undefined;
    }
  }

  /** Whether the next batch may go into another log than ones that are not flushed yet. */
  #mayChangeLogs(): boolean {
    return this.#buffered > LEVEL_OPTIONS.writeBufferSize || this.#reclaim.isMerging;
  }

  async flush(): Promise<void> {
    const upTo = this.#batches;
    while (this.flushes && this.#flushed < upTo) {
      if (this.#failure !== undefined) throw this.#failure;
      this.#flushing ??= this.#flushOnce().finally(() => {
        this.#flushing = undefined;
      });
      await this.#flushing;
    }
  }

  async #flushOnce(): Promise<void> {
    const upTo = this.#batches;
    try {
      await this.#logs.flush();
      await this.#folder.flush();
    } catch (error) {
      throw this.#fail(error);
    }
    if (this.#failure !== undefined) throw this.#failure;
    this.#flushed = upTo;
    this.#options.onDurable?.(upTo);
  }

  #fail(error: unknown): ReadmeshError {
    if (this.#failure === undefined) {
      this.#failure = writeFailure(this.#options.location, error);
      this.#options.onFailed?.();
    }
    return this.#failure;
  }

  #takeBuilt(batch: StoreBatch): LevelBatch | undefined {
    if (this.#prepared?.batch !== batch) return undefined;
    const { built } = this.#prepared;
    if (built !== undefined) this.#prepared = undefined;
    return built;
  }

  async #takePrepared(batch: StoreBatch): Promise<LevelBatch> {
    const prepared = this.#prepared;
    this.#prepared = undefined;
    if (prepared?.batch === batch) return prepared.building;
    await this.#discard(prepared);
    return this.#build(batch);
  }

  async #discard(prepared: Prepared | undefined): Promise<void> {
    const built = await prepared?.building.catch(() => undefined);
    await built?.close();
  }

  /** Puts the batch together without holding the event loop. Nothing is written yet. */
  async #build(batch: StoreBatch): Promise<LevelBatch> {
    const out = new LevelBatch(this.#db);
    try {
      for (const drop of batch.drops ?? []) out.drop(drop);
      const rows = batch.rows.entries();
      while (putSlice(out, rows)) await nextTurn();
      let removals = 0;
      for (const [key, row] of batch.removals ?? []) {
        if (removals++ % SLICE_ROWS === SLICE_ROWS - 1) await nextTurn();
        out.remove(key, row);
      }
      let heads = 0;
      for (const [origin, head] of batch.heads) {
        if (heads++ % SLICE_ROWS === SLICE_ROWS - 1) await nextTurn();
        out.set(HEAD + origin, encodeHead(head));
      }
      for (const origin of batch.forgets ?? []) out.delete(HEAD + origin);
      for (const [name, value] of batch.meta) {
        if (name === META_HLC || name === META_RUN)
          throw new ReadmeshError('INTERNAL', `the meta name ${name} is the store's own: choose another one`);
        if (value === null) out.delete(META + name);
        else out.set(META + name, value);
      }
      if (batch.hlc !== undefined) out.set(META + META_HLC, encodeHlc(batch.hlc));
      return out;
    } catch (error) {
      await out.close();
      if (isReadmeshError(error)) throw error;
      throw new ReadmeshError('INTERNAL', 'a batch could not be put together: report this bug', {
        cause: error,
      });
    }
  }

  async snapshot(): Promise<Snapshot> {
    return await LevelSnapshot.take(this.#db);
  }

  async plan(rangeBytes: number, rangesMax: number, shares: readonly KeyShare[]): Promise<RangePlan> {
    try {
      return await planRanges(new LevelBytes(this.#db), rangeBytes, rangesMax, shares);
    } catch (error) {
      throw readFailure(this.#options.location, error);
    }
  }

  reclaim(ranges: readonly Span[]): void {
    if (this.#failure === undefined && this.#closing === undefined) this.#reclaim.add(ranges);
  }

  scrub(): ScrubReader {
    return new LevelScrub(this.#db);
  }

  rows(range: KeyRange): RowCursor {
    return new EntryCursor(this.#db, range);
  }

  /** Waits for the batch in flight, and flushes. Open snapshots and cursors end with CLOSED. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // Whether it failed is its writer's affair.
    await this.#inFlight?.catch(() => undefined);
    await this.#reclaim.close();
    await this.#discard(this.#prepared);
    try {
      if (this.#failure === undefined) await this.flush();
    } finally {
      await this.#db.close();
      this.#logs.close();
      this.#folder.close();
    }
  }
}

/** A batch that is put together before it is its turn to be written. */
interface Prepared {
  readonly batch: StoreBatch;
  readonly building: Promise<LevelBatch>;
  /** Once it is done. */
  built: LevelBatch | undefined;
}

/** Whether there are more. Not part of `#build`: a loop in an async function allocates for each row. */
function putSlice(out: LevelBatch, rows: IterableIterator<[string, BatchRow]>): boolean {
  let left = SLICE_PUTS;
  for (const [key, row] of rows) {
    out.put(key, row);
    if (--left === 0) return true;
  }
  return false;
}

async function recover(db: Db): Promise<{ recovered: Recovered; run: RunMark | undefined }> {
  const rows = await readSealed(db, META);
  const hlcRow = rows.get(META_HLC);
  const runRow = rows.get(META_RUN);
  rows.delete(META_HLC);
  rows.delete(META_RUN);
  const hlc = hlcRow === undefined ? { ms: 0, counter: 0 } : decodeHlc(hlcRow);
  const run = runRow === undefined ? undefined : decodeRun(runRow);
  if (hlc === undefined || (runRow !== undefined && run === undefined))
    throw new ReadmeshError('DAMAGED', 'a row of the store itself has a wrong size');
  const recovered = { heads: await readHeads(db), tops: await readTops(db), hlc, meta: rows };
  return { recovered, run };
}
