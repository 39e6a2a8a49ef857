/**
 * The read path: caches (of decoded values; of encoded ones for the network), then the store. It never touches
 * the replication core, so that no read waits for a write, for replication or for a repair.
 *
 * Only synchronous reads fill a cache: between their look-up and their insertion nothing can happen, whereas
 * an asynchronous read could put back a value that a write has replaced meanwhile. A written change drops its
 * key from the cache.
 */
import { Cache, type CacheStats } from '../cache.js';
import { assertKey, expiresAtOf, isTombstone, KIND_REGISTER, kindOf, utf8Length } from '../core/entry.js';
import { isExpired, isVisible } from '../core/expiry.js';
import type { Row } from '../core/types.js';
import { EncodedCache } from '../encoded-cache.js';
import { ReadmeshError } from '../errors.js';
import type { CoreOptions } from '../options.js';
import type { Range, Value } from '../read-store.js';
import type { RowScan } from '../service.js';
import type { RowCursor, Store } from '../storage/store.js';
import { decodeRow } from '../values.js';
import { Pages, pickEntry, pickKey, pickValue } from './pages.js';
import { Turns } from './turns.js';

/** Bytes fetched from the store at once by a scan. */
const SCAN_BYTES = 262_144;

export interface ReadHooks {
  /** Throws NOT_READY, REMOVED or CLOSED while this node may not answer. */
  gate(): void;
  /** The clock that entries expire by. */
  clockMs(): number;
}
type CacheOptions = Pick<CoreOptions, 'cacheBytesMax' | 'encodedCacheBytesMax'>;

export class Reads {
  #store: Store;
  readonly #cache: Cache<Value>;
  readonly #encoded: EncodedCache;
  readonly #turns = new Turns();
  readonly #gate: () => void;
  readonly #clockMs: () => number;
  #open = false;

  constructor(store: Store, caches: CacheOptions, hooks: ReadHooks) {
    this.#store = store;
    this.#cache = new Cache(caches.cacheBytesMax);
    this.#encoded = new EncodedCache(caches.encodedCacheBytesMax);
    this.#gate = hooks.gate;
    this.#clockMs = hooks.clockMs;
  }

  /** The store was reopened; scans of the one before end with CLOSED. */
  useStore(store: Store): void {
    this.#store = store;
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

  getSync(key: string): Value | undefined {
    if (!this.#open) this.#gate();
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached;
    const row = this.#liveRow(key);
    if (row === undefined) return undefined;
    const { value, isShareable, heapBytes } = decodeRow(key, row);
    // The cache has no clock: what expires is read from the store each time.
    if (isShareable && expiresAtOf(row) === undefined) this.#cache.set(key, value, heapBytes);
    return value;
  }

  has(key: string): boolean {
    if (!this.#open) this.#gate();
    return this.#liveRow(key) !== undefined;
  }

  async getMany(keys: readonly string[]): Promise<(Value | undefined)[]> {
    return this.#turns.map(keys, (key) => this.getSync(key));
  }

  readRow(key: string): Row | undefined {
    if (!this.#open) this.#gate();
    return this.#liveRow(key);
  }

  async readRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    return this.#turns.map(keys, (key) => this.readRow(key));
  }

  /** Live rows of the range, from one consistent view. */
  scan(range: Range): RowScan {
    if (!this.#open) this.#gate();
    const { limit, ...bounds } = checkedRange(range);
    return new LiveScan(this.#store.rows(bounds), limit ?? Number.POSITIVE_INFINITY, this.#clockMs);
  }

  keys(range: Range): AsyncIterableIterator<string> {
    return new Pages(() => this.scan(range), pickKey);
  }

  values(range: Range): AsyncIterableIterator<Value> {
    return new Pages(() => this.scan(range), pickValue);
  }

  entries(range: Range): AsyncIterableIterator<[string, Value]> {
    return new Pages(() => this.scan(range), pickEntry);
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

  clear(): void {
    this.#cache.clear();
    this.#encoded.clear();
  }

  #liveRow(key: string): Row | undefined {
    assertKey(key);
    const row = this.#store.getRow(key);
    if (row === undefined || isTombstone(row) || isExpired(row, this.#clockMs)) return undefined;
    if (kindOf(row) !== KIND_REGISTER)
      throw new ReadmeshError(
        'UNSUPPORTED',
        `the entry is of kind ${kindOf(row)}, written by a newer version: upgrade this host`,
      );
    return row;
  }
}

class LiveScan implements RowScan {
  readonly #cursor: RowCursor;
  readonly #clockMs: () => number;
  #left: number;

  constructor(cursor: RowCursor, limit: number, clockMs: () => number) {
    this.#cursor = cursor;
    this.#left = limit;
    this.#clockMs = clockMs;
  }

  async next(rowsMax: number): Promise<{ keys: readonly string[]; rows: readonly Row[] }> {
    const wanted = Math.min(rowsMax, this.#left);
    while (wanted > 0) {
      const page = await this.#cursor.next(wanted, SCAN_BYTES);
      if (page.keys.length === 0) break;
      const isLive = (row: Row): boolean => isVisible(row, this.#clockMs);
      const live = page.rows.every(isLive) ? page : onlyThose(page, isLive);
      if (live.keys.length === 0) continue;
      this.#left -= live.keys.length;
      return live;
    }
    return { keys: [], rows: [] };
  }

  close(): Promise<void> {
    return this.#cursor.close();
  }
}

function onlyThose(
  page: { keys: readonly string[]; rows: readonly Row[] },
  isLive: (row: Row) => boolean,
): { keys: string[]; rows: Row[] } {
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
