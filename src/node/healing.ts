/**
 * What a node does about damage on its own disk, for one opening of its store: what reads do that meet it, the scrub
 * that looks for it, and what becomes of a store that cannot be healed in place.
 *
 * LevelDB cannot mend a block that it cannot read: iterators stumble over it for ever, and a compaction that meets it
 * ends all writing. Such a store is `broken`. It is read to its end, so that all there is to heal is found and counted,
 * and goes on to be read, with the help of peers; but it is not opened again. With leave to rebuild it is set aside
 * at once; else at the next start, which is refused without `--rebuild`.
 */
import { CONFIRM_MS } from '../core/heal.js';
import type { Input } from '../core/io.js';
import type { ReplicaCore } from '../core/replica.js';
import type { Dot, Row } from '../core/types.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import type { HealthIssue, ScrubStatus, Status } from '../read-store.js';
import type { DataFolder } from '../storage/data-folder.js';
import type { KeyInterval } from '../storage/key-range.js';
import type { Driver, Logger } from './driver.js';
import { type Evidence, Integrity } from './integrity.js';
import type { Quarantine } from './quarantine.js';
import type { Healer } from './reads.js';
import { Scrub, type ScrubHost } from './scrub.js';

/** How long the scrub waits for what it mended to be written, ms. */
const SCRUB_WRITTEN_MS = 10_000;
/** How often a broken store looks whether the other members have what it holds, ms. */
const REPLICATED_POLL_MS = 500;

export interface HealingOptions {
  readonly bytesPerSecond: number;
  readonly pauseMs: number;
  /** Whether a broken store may be set aside and copied anew while the node runs. */
  readonly mayRebuild: boolean;
  readonly quarantine: Quarantine;
}

export class Healing implements Healer, ScrubHost {
  readonly integrity: Integrity;
  readonly #driver: () => Driver;
  readonly #folder: DataFolder;
  readonly #logger: Logger;
  readonly #onBroken: (why: string) => void;
  readonly #scrub: Scrub;
  readonly #scrubs: boolean;
  readonly #mayRebuild: boolean;
  readonly #quarantine: Quarantine;
  readonly #openedAt = performance.now();
  #knownCore: ReplicaCore | undefined;
  #brokenBy: string | undefined;
  #waiting: NodeJS.Timeout | undefined;

  /** `onBroken`: the store has to be rebuilt, and was read to its end. */
  constructor(
    folder: DataFolder,
    driver: () => Driver,
    logger: Logger,
    options: HealingOptions,
    onBroken: (why: string) => void,
  ) {
    this.#folder = folder;
    this.#driver = driver;
    this.#logger = logger;
    this.#onBroken = onBroken;
    const behindSince = folder.mayHaveLost ? this.#openedAt : undefined;
    this.integrity = new Integrity(() => this.#core, folder.created, behindSince);
    this.#mayRebuild = options.mayRebuild;
    this.#quarantine = options.quarantine;
    this.#scrubs = options.bytesPerSecond > 0 && folder.store.scrub !== undefined;
    this.#scrub = new Scrub(folder.store, this, logger, options);
  }

  start(): void {
    this.#scrub.start();
  }

  close(): Promise<void> {
    clearInterval(this.#waiting);
    return this.#scrub.close();
  }

  /** Blocks of the disk cannot be read, which no healing mends. */
  get isBroken(): boolean {
    return this.#brokenBy !== undefined;
  }

  status(): { integrity: Status['integrity']; scrub?: ScrubStatus } {
    const { integrity } = this;
    return {
      integrity: {
        proved: this.#core.ready && integrity.isAllProved && this.#core.heal.lost === 0 && !this.isBroken,
        evidence: integrity.evidence,
        lost: this.#core.heal.lost,
        broken: this.isBroken,
      },
      ...(this.#scrubs ? { scrub: this.#scrub.status() } : {}),
    };
  }

  issues(): HealthIssue[] {
    const { lost } = this.#core.heal;
    if (this.isBroken)
      return damaged(
        this.#mayRebuild
          ? 'blocks of this disk cannot be read, and reads go to peers for them: the store is about to be set aside and copied anew'
          : 'blocks of this disk cannot be read, and reads go to peers for them: restart this node with --rebuild',
      );
    if (lost > 0) return damaged(`${lost} records are damaged on this disk and are being fetched from peers`);
    if (!this.integrity.has('damaged-record') && !this.integrity.has('unreadable')) return [];
    return [
      { code: 'UNPROVED', message: 'damage was found on this disk: all of it is being read and compared' },
    ];
  }

  /** Whether a write failed because of damage that no reopening cures. */
  writeFailed(corrupt: string | undefined): void {
    // LevelDB cannot compact a table with a damaged block, and takes no writes after it tried.
    if (corrupt !== undefined) this.#folder.distrust(corrupt);
    this.note('write-failed');
  }

  note(evidence: Evidence): void {
    if (!this.integrity.note(evidence)) return;
    this.#logger.warn({ event: 'damage-suspected', evidence }, 'all of the disk is being checked');
    this.#scrub.hurry();
  }

  // For reads.

  isMiss(key: string, async: boolean): boolean {
    const { integrity } = this;
    if (async ? integrity.isProved(key) : !integrity.mayBeLost(key) || integrity.isProved(key)) return true;
    const core = this.#core;
    if (core.members.active().length <= 1) return true;
    // Without evidence it is not worth waiting for peers that are not there, once links had the time to open.
    if (integrity.mayBeLost(key) || core.partners().some((peer) => peer.phase === 'ready')) return false;
    return performance.now() - this.#openedAt > CONFIRM_MS;
  }

  get doubtsScans(): boolean {
    return this.integrity.isSuspect && this.#core.members.active().length > 1;
  }

  async healWithin({ lower, lowerInclusive, upper }: KeyInterval): Promise<void> {
    if (!this.integrity.mayBeLostWithin(lower, upper)) return;
    const { healing } = this.#driver();
    // The range that a peer is asked for begins above its bound.
    const isFirst = lowerInclusive && lower !== '' ? healing.confirm(lower) : undefined;
    try {
      await Promise.all([isFirst, healing.healRange(lower === '' ? null : lower, upper ?? null, CONFIRM_MS)]);
    } catch (error) {
      if (!isReadmeshError(error) || error.code === 'CLOSED') throw error;
      throw new ReadmeshError(
        'UNPROVED',
        'this disk may have lost records of the range, and no peer could say in time: ask another host, or retry',
        { cause: error, details: { after: lower } },
      );
    }
  }

  async confirm(key: string): Promise<Row | undefined> {
    try {
      const row = await this.#driver().healing.confirm(key);
      if (row === undefined) this.integrity.confirmed(key);
      else this.note('damaged-record');
      return row;
    } catch (error) {
      if (this.integrity.mayBeLost(key) || !isReadmeshError(error) || error.code !== 'UNPROVED') throw error;
      return undefined;
    }
  }

  isLost(key: string): boolean {
    return this.#core.heal.isLost(key);
  }

  onUnreadable(): void {
    this.note('unreadable');
  }

  // For reads and the scrub.

  heal(key: string, dot?: Dot): Promise<Row | undefined> {
    this.note('damaged-record');
    return this.#driver().healing.heal(key, dot);
  }

  // For the scrub.

  healRange(after: string | null, until: string | null, timeoutMs: number): Promise<void> {
    return this.#driver().healing.healRange(after, until, timeoutMs);
  }

  input(input: Input): void {
    this.#driver().input(input);
  }

  written(): Promise<void> {
    return this.#driver().written(SCRUB_WRITTEN_MS);
  }

  onDamage(unreadable: boolean): void {
    this.note(unreadable ? 'unreadable' : 'damaged-record');
  }

  onUnreadableValue(key: string, row: Row): void {
    this.#quarantine.tryValue(key, row);
  }

  onBroken(): void {
    if (this.isBroken) return;
    this.#brokenBy = 'a block of one of its tables cannot be read';
    this.#logger.error({ event: 'store-broken' }, this.#brokenBy);
    this.#folder.distrust(this.#brokenBy);
  }

  onPassed(whole: boolean): void {
    if (this.#brokenBy !== undefined) this.#rebuildOnceReplicated(this.#brokenBy);
    else if (whole) this.integrity.proved();
  }

  /** What only this store holds is no reason to keep it, but the others get it first if they are there. */
  #rebuildOnceReplicated(why: string): void {
    if (!this.#mayRebuild || this.#waiting !== undefined) return;
    this.#waiting = setInterval(() => {
      const { written, queue } = this.#core;
      const isHeld = this.#core
        .partners()
        .some(({ phase, vector }) => phase === 'ready' && !vector.isBehind(written));
      if (!isHeld || queue.last() !== undefined) return;
      clearInterval(this.#waiting);
      this.#onBroken(why);
    }, REPLICATED_POLL_MS);
    this.#waiting.unref();
  }

  isSuspect(): boolean {
    return this.integrity.isSuspect;
  }

  /** Of this opening of the store. Each read that misses asks it. */
  get #core(): ReplicaCore {
    this.#knownCore ??= this.#driver().core;
    return this.#knownCore;
  }
}

function damaged(message: string): HealthIssue[] {
  return [{ code: 'DAMAGED', message }];
}
