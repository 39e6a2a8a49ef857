/**
 * The read path: caches (of decoded values; of encoded ones for the network), then the store. It never touches
 * the replication core, so that no read waits for a write, for replication or for a repair; save one that meets
 * damage, or a miss that may be one.
 *
 * Only synchronous reads fill a cache: between their look-up and their insertion nothing can happen, whereas
 * an asynchronous read could put back a value that a write has replaced meanwhile. A written change drops its
 * key from the cache.
 */
import { Cache, type CacheStats } from '../cache.js';
import { assertKey, expiresAtOf, isTombstone, KIND_REGISTER, kindOf, utf8Length } from '../core/entry.js';
import { isExpired, isVisible } from '../core/expiry.js';
import { DAMAGED } from '../core/heal.js';
import type { Records, Row } from '../core/types.js';
import { EncodedCache, type EncodedCacheStats } from '../encoded-cache.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import type { CoreOptions } from '../options.js';
import type { Range, Rows, Value } from '../read-store.js';
import type { RowScan } from '../service.js';
import { damagedRecord } from '../storage/chunk-cursor.js';
import type { KeyRange, RowCursor, Store } from '../storage/store.js';
import { DoubtfulScan, type RangeHealer } from './doubtful-scan.js';
import { Pages, pickEntry, pickKey, pickValue } from './pages.js';
import type { Quarantine } from './quarantine.js';
import { Turns } from './turns.js';

/** Bytes fetched from the store at once by a scan. */
const SCAN_BYTES = 262_144;

type CacheOptions = Pick<CoreOptions, 'cacheBytesMax' | 'encodedCacheBytesMax'>;

export interface ReadHooks {
  /** Throws NOT_READY, REMOVED or CLOSED while this node may not answer. */
  gate(): void;
  /** The clock that entries expire by. */
  clockMs(): number;
}

/** What a read needs when its own disk does not do. */
export interface Healer extends RangeHealer {
  /** What is there instead of a lost record; begins to heal it. Rejects with DAMAGED. */
  heal(key: string): Promise<Row | undefined>;
  /** What a peer has of a key that is missing here. Rejects with UNPROVED. */
  confirm(key: string): Promise<Row | undefined>;
  /** Whether a miss is one, so far as this read can tell: one that can wait (`async`) asks a peer otherwise. */
  isMiss(key: string, async: boolean): boolean;
  /** Whether the record of the key is known to be lost, whatever there is to be read under it. */
  isLost(key: string): boolean;
  /** Whether there is local evidence that records were lost, and somebody to ask for them. */
  readonly doubtsScans: boolean;
  /** A part of the disk could not be read. */
  onUnreadable(): void;
}

export class Reads {
  #store: Store;
  readonly #cache: Cache<Value>;
  readonly #encoded: EncodedCache;
  readonly #quarantine: Quarantine;
  readonly #turns = new Turns();
  readonly #gate: () => void;
  readonly #clockMs: () => number;
  #healer: Healer;
  #open = false;

  constructor(store: Store, caches: CacheOptions, hooks: ReadHooks, healer: Healer, quarantine: Quarantine) {
    this.#store = store;
    this.#cache = new Cache(caches.cacheBytesMax);
    this.#encoded = new EncodedCache(caches.encodedCacheBytesMax);
    this.#gate = hooks.gate;
    this.#clockMs = hooks.clockMs;
    this.#healer = healer;
    this.#quarantine = quarantine;
  }

  /** The store was reopened; scans of the one before end with CLOSED. */
  useStore(store: Store, healer: Healer): void {
    this.#store = store;
    this.#healer = healer;
    this.clear();
  }

  /** Whether reads are answered; kept here so that a cached read costs one test. */
  setOpen(open: boolean): void {
    this.#open = open;
  }

  /** What is known of rows without a look at the store; undefined while reads are not answered. */
  get encoded(): EncodedCache | undefined {
    return this.#open ? this.#encoded : undefined;
  }

  /** Throws DAMAGED or UNPROVED where it would have to ask a peer, and begins to ask. */
  getSync(key: string): Value | undefined {
    if (!this.#open) this.#gate();
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached;
    const row = this.#rowSync(key);
    return row === undefined ? undefined : this.#decoded(key, row);
  }

  async get(key: string): Promise<Value | undefined> {
    if (!this.#open) this.#gate();
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached;
    const found = this.readRow(key);
    // Cached only if it was looked up just now: see above.
    if (!(found instanceof Promise)) return found === undefined ? undefined : this.#decoded(key, found);
    const row = await found;
    return row === undefined ? undefined : this.#quarantine.decode(key, row).value;
  }

  #decoded(key: string, row: Row): Value {
    const { value, isShareable, heapBytes } = this.#quarantine.decode(key, row);
    // The cache has no clock: what expires is read from the store each time.
    if (isShareable && expiresAtOf(row) === undefined) this.#cache.set(key, value, heapBytes);
    return value;
  }

  async has(key: string): Promise<boolean> {
    return (await this.readRow(key)) !== undefined;
  }

  async getMany(keys: readonly string[]): Promise<(Value | undefined)[]> {
    const found = await this.#turns.map(keys, (key): Value | undefined | Promise<Value | undefined> => {
      if (!this.#open) this.#gate();
      const cached = this.#cache.get(key);
      if (cached !== undefined) return cached;
      const row = this.readRow(key);
      if (row instanceof Promise)
        return handled(
          row.then((late) => (late === undefined ? undefined : this.#quarantine.decode(key, late).value)),
        );
      return row === undefined ? undefined : this.#decoded(key, row);
    });
    return settled(found);
  }

  /** The live row; a promise only when a peer has to be asked for it. */
  readRow(key: string): Row | undefined | Promise<Row | undefined> {
    if (!this.#open) this.#gate();
    const row = this.#look(key);
    if (row !== undefined && row !== DAMAGED) return this.#live(row);
    assertKey(key);
    if (row === undefined && this.#healer.isMiss(key, true)) return undefined;
    const asked = row === DAMAGED ? this.#healer.heal(key) : this.#healer.confirm(key);
    const found = asked.then((row) => this.#live(row));
    // Whoever asked may be gone by then.
    found.catch(ignored);
    return found;
  }

  async readRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    return settled(await this.#turns.map(keys, (key) => handled(this.readRow(key))));
  }

  /** Live rows of the range, from one consistent view; page by page while this store is known to have lost records. */
  scan(range: Range): RowScan {
    if (!this.#open) this.#gate();
    const { limit, ...bounds } = checkedRange(range);
    const limitMax = limit ?? Number.POSITIVE_INFINITY;
    if (!this.#healer.doubtsScans) return this.#scanAsIs(bounds, limitMax);
    return new DoubtfulScan((part) => this.#scanAsIs(part), this.#healer, bounds, limitMax);
  }

  #scanAsIs(bounds: KeyRange, limit: number = Number.POSITIVE_INFINITY): RowScan {
    return new LiveScan(this.#store.rows(bounds), limit, this.#clockMs, this.#healer);
  }

  keys(range: Range): Rows<string> {
    return new Pages(() => this.scan(range), pickKey);
  }

  values(range: Range): Rows<Value> {
    return new Pages(() => this.scan(range), pickValue(this.#quarantine));
  }

  entries(range: Range): Rows<[string, Value]> {
    return new Pages(() => this.scan(range), pickEntry(this.#quarantine));
  }

  /** These keys were written. */
  forget(keys: readonly string[]): void {
    for (const key of keys) {
      this.#cache.delete(key);
      this.#encoded.delete(key);
    }
  }

  get cacheStats(): CacheStats {
    return this.#cache.stats;
  }

  get encodedStats(): EncodedCacheStats {
    return this.#encoded.stats;
  }

  clear(): void {
    this.#cache.clear();
    this.#encoded.clear();
  }

  /** The live row. Throws DAMAGED and UNPROVED. */
  #rowSync(key: string): Row | undefined {
    const row = this.#look(key);
    if (row !== undefined && row !== DAMAGED) return this.#live(row);
    assertKey(key);
    if (row === DAMAGED) {
      this.#healer.heal(key).catch(ignored);
      throw damagedRecord(key);
    }
    if (this.#healer.isMiss(key, false)) return undefined;
    this.#healer.confirm(key).catch(ignored);
    throw new ReadmeshError(
      'UNPROVED',
      `key ${JSON.stringify(key)} is not on this disk, which may have lost it: retry in a moment, or use get, which asks a peer`,
      { details: { key } },
    );
  }

  /** Undefined for a tombstone, and for an entry that has expired. Throws UNSUPPORTED. */
  #live(row: Row | undefined): Row | undefined {
    if (row === undefined || isTombstone(row) || isExpired(row, this.#clockMs)) return undefined;
    if (kindOf(row) !== KIND_REGISTER)
      throw new ReadmeshError(
        'UNSUPPORTED',
        `the entry is of kind ${kindOf(row)}, written by a newer version: upgrade this host`,
      );
    return row;
  }

  /** What is found under a key is found under a valid one; whether another key is valid is for the caller to see. */
  #look(key: string): Row | undefined | typeof DAMAGED {
    if (typeof key !== 'string') assertKey(key);
    if (this.#healer.isLost(key)) return DAMAGED;
    try {
      return this.#store.getRow(key);
    } catch (error) {
      if (isReadmeshError(error) && error.code === 'DAMAGED') return DAMAGED;
      throw error;
    }
  }
}

const ignored = (): void => {};

/** One that is asked for may fail before the others are begun; it is awaited with them. */
function handled<T>(found: T | Promise<T>): T | Promise<T> {
  if (found instanceof Promise) found.catch(ignored);
  return found;
}

/** Those that have to be asked for are asked for together. */
function settled<T>(found: (T | Promise<T>)[]): T[] | Promise<T[]> {
  return found.some((one) => one instanceof Promise) ? Promise.all(found) : (found as T[]);
}

class LiveScan implements RowScan {
  readonly #cursor: RowCursor;
  readonly #isLive: (row: Row) => boolean;
  readonly #healer: Healer;
  #left: number;

  constructor(cursor: RowCursor, limit: number, clockMs: () => number, healer: Healer) {
    this.#cursor = cursor;
    this.#left = limit;
    this.#isLive = (row) => isVisible(row, clockMs);
    this.#healer = healer;
  }

  async next(rowsMax: number): Promise<Records> {
    const wanted = Math.min(rowsMax, this.#left);
    while (wanted > 0) {
      let page: Records;
      try {
        page = await this.#cursor.next(wanted, SCAN_BYTES);
      } catch (error) {
        page = await this.#healed(error);
      }
      if (page.keys.length === 0) break;
      const live = page.rows.every(this.#isLive) ? page : onlyThose(page, this.#isLive);
      if (live.keys.length === 0) continue;
      this.#left -= live.keys.length;
      return live;
    }
    return { keys: [], rows: [] };
  }

  close(): Promise<void> {
    return this.#cursor.close();
  }

  /** A damaged row as a peer has it. Throws what no peer can help with. */
  async #healed(error: unknown): Promise<Records> {
    if (!isReadmeshError(error) || error.code !== 'DAMAGED') throw error;
    const { key } = error.details;
    if (typeof key !== 'string') {
      this.#healer.onUnreadable();
      throw error;
    }
    const row = await this.#healer.heal(key);
    if (row !== undefined) return { keys: [key], rows: [row] };
    // Nobody knows this key: it is a damaged one's, and which keys are missing in its place cannot be told here.
    this.#healer.onUnreadable();
    throw error;
  }
}

function onlyThose(page: Records, isLive: (row: Row) => boolean): Records {
  const keys: string[] = [];
  const rows: Row[] = [];
  for (let i = 0; i < page.keys.length; i++) {
    if (!isLive(page.rows[i]!)) continue;
    keys.push(page.keys[i]!);
    rows.push(page.rows[i]!);
  }
  return { keys, rows };
}

const RANGE_MEMBERS = new Set(['gt', 'gte', 'lt', 'lte', 'prefix', 'reverse', 'limit']);

function checkedRange(range: Range): Range {
  for (const member of Object.keys(range))
    if (!RANGE_MEMBERS.has(member))
      throw new ReadmeshError(
        'INVALID_OPTION',
        `a range has no "${member}": use ${[...RANGE_MEMBERS].join(', ')}`,
      );
  const { limit } = range;
  if (limit !== undefined && (!Number.isInteger(limit) || limit < 0))
    throw new ReadmeshError('INVALID_OPTION', 'limit is an integer from 0 up');
  for (const text of [range.gt, range.gte, range.lt, range.lte, range.prefix])
    if (text !== undefined && (typeof text !== 'string' || utf8Length(text) === -1))
      throw new ReadmeshError('INVALID_OPTION', 'a bound of a range is a well-formed string');
  return range;
}
