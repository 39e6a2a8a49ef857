/**
 * A scan of a store that is known to have lost something. What vanished without a trace is in no snapshot of it, so
 * each page is first compared with a peer, in the part of the range that it spans, and then read as it is healed:
 * page by page as things stand at that time, rather than from one view.
 */
import type { Row } from '../core/types.js';
import type { RowScan } from '../service.js';
import { type KeyInterval, keyInterval } from '../storage/key-range.js';
import type { KeyRange } from '../storage/store.js';

/** What such a scan needs of a node. */
export interface RangeHealer {
  /** Fetches what was lost there, if anything may have been. Rejects with UNPROVED if nobody can say in time. */
  healWithin(interval: KeyInterval): Promise<void>;
}

interface Page {
  readonly keys: readonly string[];
  readonly rows: readonly Row[];
}

export class DoubtfulScan implements RowScan {
  readonly #open: (range: KeyRange) => RowScan;
  readonly #healer: RangeHealer;
  /** What is still to be read. */
  #rest: KeyRange;
  #left: number;

  /** `open`: a scan of the store as it is. */
  constructor(open: (range: KeyRange) => RowScan, healer: RangeHealer, range: KeyRange, limit: number) {
    this.#open = open;
    this.#healer = healer;
    this.#rest = range;
    this.#left = limit;
  }

  async next(rowsMax: number): Promise<Page> {
    const wanted = Math.min(rowsMax, this.#left);
    while (wanted > 0) {
      // Where the page ends tells what is to be healed first; without an end it is all that is left.
      const edge = (await this.#read(this.#rest, wanted)).keys.at(-1);
      const part = edge === undefined ? this.#rest : this.#upTo(edge);
      await this.#healer.healWithin(keyInterval(part));
      const page = await this.#read(part, wanted);
      const last = page.keys.at(-1) ?? edge;
      if (last === undefined) break;
      this.#rest = this.#rest.reverse === true ? { ...this.#rest, lt: last } : { ...this.#rest, gt: last };
      if (page.keys.length === 0) continue;
      this.#left -= page.keys.length;
      return page;
    }
    return { keys: [], rows: [] };
  }

  async close(): Promise<void> {
    this.#left = 0;
  }

  #upTo(edge: string): KeyRange {
    return this.#rest.reverse === true ? { ...this.#rest, gte: edge } : { ...this.#rest, lte: edge };
  }

  async #read(range: KeyRange, rowsMax: number): Promise<Page> {
    const scan = this.#open(range);
    try {
      return await scan.next(rowsMax);
    } finally {
      await scan.close();
    }
  }
}
