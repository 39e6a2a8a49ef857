/**
 * Reads of keys for one session. What is in the cache of encoded values is copied from there into the answer;
 * anything else is looked up, and put there if nothing was written meanwhile.
 */
import { stampCounterOf, stampMsOf, valueOffset } from '../core/entry.js';
import type { Row } from '../core/types.js';
import type { EncodedCache } from '../encoded-cache.js';
import type { NodeService } from '../service.js';
import type { ClientFrame } from './frame.js';
import type { Outbound } from './server-outbound.js';
import { KEYS_PER_GET_MAX, PAGE_BYTES } from './wire.js';

/** Keys that are looked up at once; up to as many are answered on the spot. */
const KEYS_PER_LOOKUP = 128;
/** Bytes that one value of many takes beside its own. */
const VALUE_OVERHEAD = 3;

/** The request was answered with an error. */
const FAILED = Symbol('failed');

type Found = Row | undefined;

export interface Running {
  readonly cancelled: boolean;
}

/** What a session does with requests: one that takes time, and one that failed. */
export interface Requester {
  run(id: number, work: (request: Running) => Promise<() => void>): void;
  failed(id: number, error: unknown): void;
}

export class KeyReads {
  readonly #service: NodeService;
  readonly #outbound: Outbound;
  readonly #requester: Requester;

  constructor(service: NodeService, outbound: Outbound, requester: Requester) {
    this.#service = service;
    this.#outbound = outbound;
    this.#requester = requester;
  }

  get(id: number, frame: ClientFrame): void {
    const from = frame.keyFrom();
    const cache = this.#service.encoded;
    const place = cache === undefined ? -1 : cache.find(frame.bytes, from, frame.at);
    if (place !== -1) {
      const length = cache!.valueTo(place) - cache!.valueFrom(place);
      return this.#cached(this.#outbound.done(id, 1, length), cache!, place);
    }
    const key = frame.text(from, frame.at);
    const row = this.#lookUp(id, () => this.#service.readRow(key));
    if (row === FAILED) return;
    if (row instanceof Promise)
      return this.#requester.run(id, async () => {
        const found = await row;
        return () => this.#value(id, found);
      });
    this.#value(id, row);
    if (row !== undefined) cache?.put(key, row);
  }

  has(id: number, frame: ClientFrame): void {
    const from = frame.keyFrom();
    const cache = this.#service.encoded;
    const isCached = cache !== undefined && cache.find(frame.bytes, from, frame.at) !== -1;
    const key = frame.text(from, frame.at);
    const row = isCached ? undefined : this.#lookUp(id, () => this.#service.readRow(key));
    if (row === FAILED) return;
    const answer = (has: boolean): void => void this.#outbound.done(id, 1, 1).bool(has);
    if (!(row instanceof Promise)) return answer(isCached || row !== undefined);
    this.#requester.run(id, async () => {
      const found = await row;
      return () => answer(found !== undefined);
    });
  }

  getMany(id: number, frame: ClientFrame): void {
    const begin = frame.at;
    const count = frame.array('keys', KEYS_PER_GET_MAX);
    const cache = this.#service.encoded;
    // A place in the cache, or a key that has none.
    const found = new Array<number | string>(count);
    let misses = 0;
    for (let i = 0; i < count; i++) {
      const from = frame.keyFrom();
      const place = cache === undefined ? -1 : cache.find(frame.bytes, from, frame.at);
      if (place === -1) misses++;
      found[i] = place === -1 ? frame.text(from, frame.at) : place;
    }
    const keys = (): string[] => (misses === count ? (found as string[]) : keysOf(frame, begin));
    if (misses > KEYS_PER_LOOKUP) return this.#inSlices(id, keys());
    const items = misses === 0 ? (found as number[]) : this.#lookUp(id, () => this.#rowsOf(found));
    if (items === FAILED) return;
    if (items.some((item) => item instanceof Promise)) return this.#whenAsked(id, items, keys());
    this.#values(id, items as readonly (number | Found)[], cache);
    // Only now: what is put may push out what was found.
    if (misses === 0 || cache === undefined) return;
    for (let i = 0; i < count; i++) {
      const item = items[i];
      if (item instanceof Uint8Array) cache.put(found[i] as string, item);
    }
  }

  #lookUp<T>(id: number, look: () => T): T | typeof FAILED {
    try {
      return look();
    } catch (error) {
      this.#requester.failed(id, error);
      return FAILED;
    }
  }

  #rowsOf(found: readonly (number | string)[]): (number | Found | Promise<Found>)[] {
    return found.map((one) => (typeof one === 'string' ? this.#service.readRow(one) : one));
  }

  /** Some have to be asked for elsewhere: meanwhile places in the cache may change. */
  #whenAsked(id: number, items: (number | Found | Promise<Found>)[], keys: readonly string[]): void {
    const rows = items.map((item, i) => (typeof item === 'number' ? this.#service.readRow(keys[i]!) : item));
    this.#requester.run(id, async () => {
      const all = await Promise.all(rows);
      return () => this.#values(id, all, undefined);
    });
  }

  #inSlices(id: number, keys: readonly string[]): void {
    this.#requester.run(id, async (request) => {
      const rows: Found[] = [];
      let bytes = 0;
      for (let i = 0; i < keys.length && bytes < PAGE_BYTES && !request.cancelled; i += KEYS_PER_LOOKUP) {
        const some = keys.slice(i, i + KEYS_PER_LOOKUP);
        const cache = this.#service.encoded;
        const version = cache?.version;
        const read = await this.#service.readRows(some);
        const isCurrent = cache !== undefined && cache.version === version && cache === this.#service.encoded;
        for (const [j, row] of read.entries()) {
          rows.push(row);
          bytes += row?.length ?? 0;
          if (isCurrent && row !== undefined) cache.put(some[j]!, row);
        }
      }
      return () => this.#values(id, rows, undefined);
    });
  }

  #value(id: number, row: Found): void {
    if (row === undefined) return this.#outbound.done(id, 1, 1).nil();
    const from = valueOffset(row);
    this.#outbound.done(id, 1, row.length - from).bin(row, from);
    this.#outbound.tells(stampMsOf(row), stampCounterOf(row));
  }

  /** As many as make a page, at least one. Numbers are places in `cache`. */
  #values(id: number, items: readonly (number | Found)[], cache: EncodedCache | undefined): void {
    let bytes = 0;
    let count = 0;
    while (count < items.length && (count === 0 || bytes < PAGE_BYTES)) {
      const item = items[count++];
      const length =
        typeof item === 'number' ? cache!.valueTo(item) - cache!.valueFrom(item) : (item?.length ?? 0);
      bytes += length + VALUE_OVERHEAD;
    }
    const writer = this.#outbound.done(id, 1, bytes);
    writer.array(count);
    for (let i = 0; i < count; i++) {
      const item = items[i];
      if (item === undefined) writer.nil();
      else if (typeof item === 'number') this.#cached(writer, cache!, item);
      else {
        writer.bin(item, valueOffset(item));
        this.#outbound.tells(stampMsOf(item), stampCounterOf(item));
      }
    }
  }

  #cached(writer: ReturnType<Outbound['done']>, cache: EncodedCache, place: number): void {
    writer.bin(cache.bytes, cache.valueFrom(place), cache.valueTo(place));
    this.#outbound.tells(cache.stampMs(place), cache.stampCounter(place));
  }
}

/** The keys of a getMany whose list begins at `begin`. */
function keysOf(frame: ClientFrame, begin: number): string[] {
  frame.at = begin;
  const count = frame.array('keys', KEYS_PER_GET_MAX);
  const keys: string[] = [];
  for (let i = 0; i < count; i++) keys.push(frame.key());
  return keys;
}
