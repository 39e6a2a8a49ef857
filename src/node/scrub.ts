/**
 * The scrub: reads the whole disk in the background, at a bounded rate, and has healed what is damaged. Records that
 * nobody reads would otherwise rot unseen until every copy of one is damaged.
 *
 * One pass begins a while after the start, and then every `scrubPauseMs`; the first sign of damage begins one at
 * once, at a higher rate. A pass that ends with everything healed proves the copy (core/integrity.ts); one that does
 * not is repeated after a short pause.
 */
import type { Input } from '../core/io.js';
import type { Dot, Row } from '../core/types.js';
import type { ScrubStatus } from '../read-store.js';
import type { Finding, ScrubReader, Store } from '../storage/store.js';
import type { Logger } from './driver.js';

/** Pause before the first pass, unless there is damage, ms: a start has better things to do. */
const FIRST_MS = 60_000;
/** Pause before the next pass after one that left damage behind, ms. */
const AGAIN_MS = 5_000;
/** How much faster it goes while damage is known. */
const HURRY = 4;
/** Longest wait for one range to be fetched, ms. */
const RANGE_MS = 60_000;
/** Findings that are being healed at a time. */
const HEALING_MAX = 512;

/** What it needs of the node. */
export interface ScrubHost {
  heal(key: string, dot?: Dot): Promise<Row | undefined>;
  healRange(after: string | null, until: string | null, timeoutMs: number): Promise<void>;
  input(input: Input): void;
  /** Waits until what the scrub found is written. */
  written(): Promise<void>;
  onDamage(unreadable: boolean): void;
  /** The record is as it was written, and no value. */
  onUnreadableValue(key: string, row: Row): void;
  /** A block of a table cannot be read: whatever is healed, LevelDB keeps stumbling over it. */
  onBroken(): void;
  /** A pass ended. `whole`: it found everything whole, or healed it. */
  onPassed(whole: boolean): void;
  /** Evidence of damage is known. */
  isSuspect(): boolean;
}

export class Scrub {
  readonly #store: Store;
  readonly #host: ScrubHost;
  readonly #logger: Logger;
  readonly #bytesPerSecond: number;
  readonly #pauseMs: number;
  #timer: NodeJS.Timeout | undefined;
  #wake: (() => void) | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  /** Damage was seen since the current pass began. */
  #again = false;
  /** The current pass met a block that cannot be read. */
  #broken = false;
  #progress = 0;
  #rows = 0;
  #found = 0;
  #unhealed = 0;
  #passes = 0;
  #lastPassAt: number | undefined;
  readonly #healing = new Set<Promise<void>>();

  constructor(
    store: Store,
    host: ScrubHost,
    logger: Logger,
    options: { bytesPerSecond: number; pauseMs: number },
  ) {
    this.#store = store;
    this.#host = host;
    this.#logger = logger;
    this.#bytesPerSecond = options.bytesPerSecond;
    this.#pauseMs = options.pauseMs;
  }

  start(): void {
    this.#schedule(this.#host.isSuspect() ? 0 : Math.min(FIRST_MS, this.#pauseMs));
  }

  /** Damage was met: all of the disk is looked at, at once. */
  hurry(): void {
    if (this.#running !== undefined) this.#again = true;
    else this.#schedule(0);
    this.#wake?.();
  }

  status(): ScrubStatus {
    return {
      running: this.#running !== undefined,
      percent: Math.round(this.#progress * 1_000) / 10,
      rows: this.#rows,
      found: this.#found,
      unhealed: this.#unhealed,
      passes: this.#passes,
      ...(this.#lastPassAt === undefined ? {} : { lastPassAt: this.#lastPassAt }),
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#wake?.();
    await this.#running;
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#closed || this.#bytesPerSecond === 0 || this.#store.scrub === undefined) return;
    this.#timer = setTimeout(() => {
      this.#running ??= this.#run();
    }, ms);
    this.#timer.unref();
  }

  async #run(): Promise<void> {
    this.#again = false;
    let isWhole = false;
    let ended = false;
    try {
      isWhole = await this.#pass();
      ended = true;
    } catch (error) {
      this.#logger.error({ event: 'scrub-failed' }, (error as Error).message);
    }
    this.#running = undefined;
    if (this.#closed) return;
    const isHealed = isWhole && !this.#again;
    if (ended) this.#host.onPassed(isHealed && !this.#broken);
    this.#schedule(isHealed ? this.#pauseMs : AGAIN_MS);
  }

  /** True when everything is whole, or was made so. */
  async #pass(): Promise<boolean> {
    const reader = this.#store.scrub!();
    this.#progress = 0;
    this.#unhealed = 0;
    this.#broken = false;
    let dotsLost = false;
    for (;;) {
      const began = performance.now();
      const { rows, bytes, findings, done } = await reader.next();
      if (this.#closed) return false;
      this.#rows += rows;
      for (const finding of findings) {
        if (finding.what === 'dots') dotsLost = true;
        await this.#take(finding);
      }
      if (done) break;
      this.#progress = await reader.progress();
      await this.#rest(bytes, began);
      if (this.#closed) return false;
    }
    await Promise.all(this.#healing);
    await this.#host.written();
    await this.#lostDots(reader, dotsLost);
    this.#progress = 1;
    this.#passes += 1;
    this.#lastPassAt = Date.now();
    return this.#unhealed === 0;
  }

  /** What was named by rows of the dot index that are lost, and is lost itself, only a peer can tell. */
  async #lostDots(reader: ScrubReader, unreadable: boolean): Promise<void> {
    const damaged = reader.damagedDots();
    if (damaged.length === 0 && !unreadable) return;
    this.#found += damaged.length;
    await this.#heal(() => this.#host.healRange(null, null, RANGE_MS));
    if (this.#unhealed > 0) return;
    for (const row of reader.damagedDots()) this.#host.input({ type: 'drop-row', row });
    await this.#host.written();
  }

  async #take(finding: Finding): Promise<void> {
    if (finding.what === 'unreadable') return this.#host.onUnreadableValue(finding.key, finding.row);
    this.#found += 1;
    const isBroken = finding.what === 'range' || finding.what === 'dots';
    this.#host.onDamage(isBroken);
    if (isBroken && !this.#broken) {
      this.#broken = true;
      this.#host.onBroken();
    }
    switch (finding.what) {
      case 'damaged':
        return this.#begin(() => this.#host.heal(finding.key));
      case 'lost':
        return this.#begin(() => this.#host.heal(finding.key, finding.dot));
      case 'range':
        return this.#heal(() => this.#host.healRange(finding.after, finding.until, RANGE_MS));
      case 'no-dot':
        return this.#host.input({ type: 'mend-dot', key: finding.key });
      case 'junk':
        return this.#host.input({ type: 'drop-row', row: finding.row });
      case 'own':
        return this.#host.input({ type: 'rewrite-own', row: finding.row });
      case 'dots':
        return;
    }
  }

  /** Does not wait for it, unless too many are on their way. */
  async #begin(heal: () => Promise<unknown>): Promise<void> {
    const healing = this.#heal(heal).finally(() => this.#healing.delete(healing));
    this.#healing.add(healing);
    while (this.#healing.size >= HEALING_MAX) await Promise.race(this.#healing);
  }

  async #heal(heal: () => Promise<unknown>): Promise<void> {
    try {
      await heal();
    } catch {
      this.#unhealed += 1;
    }
  }

  /** Keeps to the rate. */
  async #rest(bytes: number, began: number): Promise<void> {
    const rate = this.#bytesPerSecond * (this.#host.isSuspect() ? HURRY : 1);
    const ms = (bytes * 1_000) / rate - (performance.now() - began);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, ms));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}
