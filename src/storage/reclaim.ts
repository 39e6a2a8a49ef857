/**
 * Giving disk space back after much was removed. LevelDB only marks what is deleted, and drops it when it happens to
 * merge the tables that hold it; where nothing is written any more that may be never. So the ranges that were emptied
 * are merged by hand (`compactRange`), on LevelDB's own thread: entries first, then the rows of the dot index, which
 * lie by order of writing, so that all of it is walked through.
 *
 * LevelDB puts a merge by hand before its own, and holds up writers when these fall behind; reads share the disk and the
 * cores with it, and find its tables cold. Hence one range at a time, each a part of what was asked for, with a pause of
 * several times its length behind it; and while this store is read much, longer pauses.
 *
 * It is a hint. What is to be merged stands in a small file, so that the next opening goes on with it, once: should a
 * merge end the process, it is not begun at every start. If it fails, it is forgotten.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Db, readHeads } from './level-cursors.js';
import { DOT, dotKey, ENTRY } from './physical.js';
import type { Span } from './store.js';

/** Sequence numbers of one part of the dot index: some ten megabytes. */
const DOTS_AT_A_TIME = 262_144;
/** Least pause between two parts, and pause in times of what the part before it took. */
const PAUSE_MS = 200;
const PAUSE_TIMES = 4;
/** How many lookups a second put the next part off, and how often it is put off. */
const LOOKUPS_PER_SECOND_MAX = 10_000;
const PUT_OFF_MAX = 300;

export class Reclaim {
  readonly #db: Db;
  readonly #path: string | undefined;
  readonly #lookups: () => number;
  readonly #beforeMerge: () => Promise<void>;
  /** Being merged, and to be merged after these. */
  #begun: readonly Span[] = [];
  #waiting: Span[] = [];
  #running: Promise<void> | undefined;
  #lastMs = 0;
  #closed = false;
  #wake: (() => void) | undefined;
  /** LevelDB may begin a new log at any moment. */
  isMerging = false;

  /**
   * `path`: of the file; undefined: a store without one. `lookups`: how many there were so far. `beforeMerge`: whoever
   * writes has seen `isMerging`.
   */
  constructor(db: Db, path: string | undefined, lookups: () => number, beforeMerge: () => Promise<void>) {
    this.#db = db;
    this.#path = path;
    this.#lookups = lookups;
    this.#beforeMerge = beforeMerge;
  }

  /** Goes on with what an earlier opening has left. */
  resume(): void {
    const left = this.#load();
    this.#save([]);
    this.#add(left);
  }

  add(ranges: readonly Span[]): void {
    if (this.#closed) return;
    this.#add(ranges);
    this.#save([...this.#begun, ...this.#waiting]);
  }

  /** Resolves once nothing is merged any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
    await this.#running;
    if (this.#waiting.length > 0) this.#save(this.#waiting);
  }

  #add(ranges: readonly Span[]): void {
    this.#waiting.push(...ranges);
    if (this.#waiting.length > 0) this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    try {
      while (this.#waiting.length > 0 && !this.#closed) {
        this.#begun = this.#waiting;
        this.#waiting = [];
        for (const { after, until } of this.#begun)
          await this.#merge(ENTRY + (after ?? ''), until === null ? endOf(ENTRY) : ENTRY + until);
        const bounds = await this.#dotBounds();
        for (let i = 1; i < bounds.length; i++) await this.#merge(bounds[i - 1]!, bounds[i]!);
        if (this.#closed) this.#waiting.unshift(...this.#begun);
        else this.#save(this.#waiting);
        this.#begun = [];
      }
    } catch {
      // It says that the store is failing, which whoever reads or writes it finds out, too.
      this.#begun = [];
      this.#waiting = [];
    } finally {
      this.#running = undefined;
    }
  }

  async #merge(from: string, to: string): Promise<void> {
    const pauseMs = Math.max(PAUSE_MS, PAUSE_TIMES * this.#lastMs);
    const limit = (LOOKUPS_PER_SECOND_MAX * pauseMs) / 1_000;
    for (let i = 0, before = Number.NEGATIVE_INFINITY; i <= PUT_OFF_MAX; i++) {
      if (this.#lookups() - before <= limit) break;
      before = this.#lookups();
      await this.#pause(pauseMs);
    }
    if (this.#closed) return;
    this.isMerging = true;
    try {
      await this.#beforeMerge();
      const began = performance.now();
      await this.#db.compactRange(from, to);
      this.#lastMs = performance.now() - began;
    } finally {
      this.isMerging = false;
    }
  }

  #load(): Span[] {
    if (this.#path === undefined) return [];
    try {
      return parseSpans(readFileSync(this.#path, 'utf8'));
    } catch {
      return [];
    }
  }

  #save(ranges: readonly Span[]): void {
    if (this.#path === undefined) return;
    try {
      if (ranges.length === 0) rmSync(this.#path, { force: true });
      else writeFileSync(this.#path, JSON.stringify(ranges.map(({ after, until }) => [after, until])));
    } catch {
      // Space comes back later, or as the ranges are written to.
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

  #pause(ms: number): Promise<void> {
    if (this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      timer.unref();
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Whether the text of the file holds what it should is for the reader to find out: the process may have died writing. */
function parseSpans(text: string): Span[] {
  const isBound = (bound: unknown): bound is string | null => bound === null || typeof bound === 'string';
  const pairs = JSON.parse(text) as readonly (readonly [unknown, unknown])[];
  return pairs.flatMap(([after, until]) => (isBound(after) && isBound(until) ? [{ after, until }] : []));
}

/** Behind every key of a family. */
function endOf(family: string): string {
  return String.fromCharCode(family.charCodeAt(0) + 1);
}
