/**
 * Iterating over a scan, page by page. Not async generators: those cost several turns of the microtask queue for
 * each row, which is more than to read it.
 *
 * While a page is handed out the next one is on its way, on LevelDB's thread; from the second page on, so that
 * whoever only wants the first rows has no others read. A page's rows are handed out within one turn of the event
 * loop if the reader does not wait in between: `SCAN_ROWS` bounds what that takes.
 */
import type { Row } from '../core/types.js';
import type { Rows, Value } from '../read-store.js';
import type { RowScan } from '../service.js';
import type { Quarantine } from './quarantine.js';

/** Rows of a page. */
const SCAN_ROWS = 512;

type Page = Awaited<ReturnType<RowScan['next']>>;

const END = { done: true, value: undefined } as const;
const NO_ROWS: Page = { keys: [], rows: [] };
const ignored = (): void => {};

/** Ends with what the scan, or `pick`, throws. `next` may be called ahead: answers come in order. */
export class Pages<T> implements Rows<T> {
  readonly #open: () => RowScan;
  readonly #pick: (key: string, row: Row) => T | undefined;
  #scan: RowScan | undefined;
  #page = NO_ROWS;
  #at = 0;
  #isFirst = true;
  #ahead: Promise<Page> | undefined;
  #loading: Promise<void> | undefined;
  #ended = false;
  /** Thrown once. */
  #failure: { readonly error: unknown } | undefined;

  /** `open` is called when the first row is asked for; a row of which `pick` makes nothing is passed over. */
  constructor(open: () => RowScan, pick: (key: string, row: Row) => T | undefined) {
    this.#open = open;
    this.#pick = pick;
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#loading === undefined) {
      if (this.#at < this.#page.keys.length) return this.#row();
      if (this.#failure !== undefined) return this.#fail();
      if (this.#ended) return Promise.resolve(END);
      this.#loading = this.#load();
    }
    return this.#loading.then(() => this.next());
  }

  /** All that is left, without a promise for each row. */
  async toArray(): Promise<T[]> {
    const out: T[] = [];
    for (;;) {
      if (this.#loading !== undefined) await this.#loading;
      else if (this.#at < this.#page.keys.length) this.#drain(out);
      else if (this.#failure !== undefined) return this.#fail();
      else if (this.#ended) return out;
      else this.#loading = this.#load();
    }
  }

  async return(): Promise<IteratorResult<T>> {
    this.#ended = true;
    this.#failure = undefined;
    this.#page = NO_ROWS;
    await this.#loading;
    await this.#scan?.close();
    return END;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #row(): Promise<IteratorResult<T>> {
    const { keys, rows } = this.#page;
    try {
      while (this.#at < keys.length) {
        const at = this.#at++;
        const value = this.#pick(keys[at]!, rows[at]!);
        if (value !== undefined) return Promise.resolve({ done: false, value });
      }
      return this.next();
    } catch (error) {
      this.#page = NO_ROWS;
      this.#loading = this.#end(error);
      return this.#loading.then(() => this.next());
    }
  }

  /** The rest of the page. */
  #drain(out: T[]): void {
    const { keys, rows } = this.#page;
    try {
      while (this.#at < keys.length) {
        const at = this.#at++;
        const value = this.#pick(keys[at]!, rows[at]!);
        if (value !== undefined) out.push(value);
      }
    } catch (error) {
      this.#page = NO_ROWS;
      this.#loading = this.#end(error);
    }
  }

  #fail(): Promise<never> {
    const { error } = this.#failure!;
    this.#failure = undefined;
    return Promise.reject(error);
  }

  async #load(): Promise<void> {
    try {
      this.#scan ??= this.#open();
      const page = await (this.#ahead ?? this.#scan.next(SCAN_ROWS));
      if (this.#ended || page.keys.length === 0) return await this.#end(undefined);
      if (!this.#isFirst) {
        this.#ahead = this.#scan.next(SCAN_ROWS);
        // Thrown where it is awaited, which may be never.
        this.#ahead.catch(ignored);
      }
      this.#isFirst = false;
      this.#page = page;
      this.#at = 0;
      this.#loading = undefined;
    } catch (error) {
      await this.#end(error);
    }
  }

  /** Never rejects: a failure to close is told like any other, but for one that came before it. */
  async #end(error: unknown): Promise<void> {
    let failure = error;
    try {
      await this.#scan?.close();
    } catch (closing) {
      failure ??= closing;
    }
    if (failure !== undefined && !this.#ended) this.#failure = { error: failure };
    this.#ended = true;
    this.#loading = undefined;
  }
}

export const pickKey = (key: string): string => key;
export const pickValue =
  (quarantine: Quarantine) =>
  (key: string, row: Row): Value | undefined =>
    quarantine.tryValue(key, row);
export const pickEntry =
  (quarantine: Quarantine) =>
  (key: string, row: Row): [string, Value] | undefined => {
    const value = quarantine.tryValue(key, row);
    return value === undefined ? undefined : [key, value];
  };
