/**
 * Giving disk space back after much was removed. LevelDB only marks what is deleted, and drops it when it happens to
 * merge the tables that hold it; where nothing is written any more that may be never. So the ranges that were emptied
 * are merged by hand (`compactRange`), on LevelDB's own thread: entries first, then the rows of the dot index, which
 * lie by order of writing, so that all of it is walked through.
 *
 * LevelDB puts a merge by hand before its own, and holds up writers when these fall behind. Hence one range at a time,
 * each a part of what was asked for, with a pause between them; and while this store is read much, longer pauses.
 * It is a hint: what is not done before the store closes, or fails, is forgotten.
 */
import { type Db, readHeads } from './level-cursors.js';
import { DOT, dotKey, ENTRY } from './physical.js';
import type { Span } from './store.js';

/** Sequence numbers of one part of the dot index: some ten megabytes. */
const DOTS_AT_A_TIME = 262_144;
/** Pause between two parts, and how often it is put off while lookups per pause are above the limit. */
const PAUSE_MS = 200;
const LOOKUPS_MAX = 2_000;
const PUT_OFF_MAX = 300;

export class Reclaim {
  readonly #db: Db;
  readonly #lookups: () => number;
  readonly #beforeMerge: () => Promise<void>;
  #ranges: Span[] = [];
  #running: Promise<void> | undefined;
  #closed = false;
  #wake: (() => void) | undefined;
  /** LevelDB may begin a new log at any moment. */
  isMerging = false;

  /** `lookups`: how many there were so far. `beforeMerge`: whoever writes has seen `isMerging`. */
  constructor(db: Db, lookups: () => number, beforeMerge: () => Promise<void>) {
    this.#db = db;
    this.#lookups = lookups;
    this.#beforeMerge = beforeMerge;
  }

  add(ranges: readonly Span[]): void {
    if (this.#closed) return;
    this.#ranges.push(...ranges);
    // A failure says that the store is failing, which whoever reads or writes it finds out, too.
    this.#running ??= this.#run()
      .catch(() => undefined)
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** Resolves once nothing is merged any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#ranges = [];
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#ranges.length > 0) {
      const ranges = this.#ranges;
      this.#ranges = [];
      for (const { after, until } of ranges)
        await this.#merge(ENTRY + (after ?? ''), until === null ? endOf(ENTRY) : ENTRY + until);
      const bounds = await this.#dotBounds();
      for (let i = 1; i < bounds.length; i++) await this.#merge(bounds[i - 1]!, bounds[i]!);
    }
  }

  async #merge(from: string, to: string): Promise<void> {
    let before = this.#lookups();
    await this.#pause();
    for (let i = 0; i < PUT_OFF_MAX && this.#lookups() - before > LOOKUPS_MAX; i++) {
      before = this.#lookups();
      await this.#pause();
    }
    if (this.#closed) return;
    this.isMerging = true;
    try {
      await this.#beforeMerge();
      await this.#db.compactRange(from, to);
    } finally {
      this.isMerging = false;
    }
  }

  /** The whole dot index, cut where an origin has had so many writes. */
  async #dotBounds(): Promise<string[]> {
    if (this.#closed) return [];
    const bounds = [DOT];
    const heads = [...(await readHeads(this.#db))].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [origin, head] of heads)
      for (let seq = DOTS_AT_A_TIME; seq < head; seq += DOTS_AT_A_TIME) bounds.push(dotKey(origin, seq));
    bounds.push(endOf(DOT));
    return bounds;
  }

  #pause(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, PAUSE_MS);
      timer.unref();
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Behind every key of a family. */
function endOf(family: string): string {
  return String.fromCharCode(family.charCodeAt(0) + 1);
}
