/**
 * Brings back what only a store that was set aside holds, or puts it into a file: nothing that this node accepted is
 * dropped silently (core/returning.ts decides about each entry). Begins once this node holds what a majority of the
 * members had announced, so that what the others hold is known to be held. Goes on where it was when it is cut short.
 *
 * What is brought back waits for its acknowledgements like any write. The store is read by a process of its own, which
 * may die of it: then LevelDB gets to put a copy of it together, and it is read once more. If that fails, too, it stays
 * as it is, and health says so.
 *
 * Of stores that were read to the end at once, without damage, only the latest is kept.
 */
import { closeSync, existsSync, fsyncSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { decodeMeta } from '../core/core.js';
import { isTombstone, valueOffset } from '../core/entry.js';
import { remainingMs } from '../core/expiry.js';
import type { LocalOp } from '../core/io.js';
import type { ReplicaCore } from '../core/replica.js';
import { KnownToAll, type OldStore, retryOf } from '../core/returning.js';
import type { Row } from '../core/types.js';
import { formatDeletion, formatEntry } from '../entry-line.js';
import { isReadmeshError } from '../errors.js';
import type { HealthIssue, SetAsideStatus } from '../read-store.js';
import { syncFolder } from '../storage/folder-sync.js';
import {
  keptFile,
  keptFiles,
  openableCopy,
  type Progress,
  readProgress,
  removeCopy,
  removeStore,
  setAsideStores,
  writeProgress,
} from '../storage/set-aside.js';
import { decodeValue } from '../values.js';
import { delay, type Logger } from './driver.js';
import { SetAsideReader, UnreadableStore } from './set-aside-reader.js';

/** How often it looks whether it can begin, and pauses before a write is tried again, ms. */
const LOOK_MS = 250;
const RETRY_MS = 1_000;
/** The same after its own disk failed, ms. */
const DISK_RETRY_MS = 5_000;
/** Its writes may wait so long for their acknowledgements, ms. */
const ACK_MS = 10_000;
const ATTEMPTS_MAX = 2;
/** Entries after which it is written down how far it has come. */
const CHECKPOINT_ENTRIES = 5_000;

export interface ReturningHooks {
  /** The present core. */
  core(): ReplicaCore;
  write(ops: readonly LocalOp[], timeoutMs: number): Promise<unknown>;
}

type Mutable = { -readonly [K in keyof Progress]: Progress[K] };

/** The node is closing: what is done is written down, and the rest is for the next start. */
class Stopped extends Error {}

export class Returning {
  readonly #folder: string;
  readonly #hooks: ReturningHooks;
  readonly #logger: Logger;
  #stopped = false;
  #running: Promise<void> | undefined;
  #reader: SetAsideReader | undefined;
  /** By path, as of the last look: status must not read files. */
  #stores = new Map<string, Progress>();
  #current: string | undefined;

  constructor(folder: string, hooks: ReturningHooks, logger: Logger) {
    this.#folder = folder;
    this.#hooks = hooks;
    this.#logger = logger;
    this.#look();
  }

  /** Reads what there is to be read. Called again whenever there may be something new; never twice at once. */
  start(): void {
    this.#look();
    if (this.#stopped || this.#running !== undefined || this.#next() === undefined) return;
    this.#running = this.#run()
      .catch((error: unknown) => {
        if (!(error instanceof Stopped))
          this.#logger.error({ event: 'set-aside-unread', error: String(error) }, 'set-aside store not read');
      })
      .finally(() => {
        this.#running = undefined;
      });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#reader?.close();
    await this.#running;
  }

  status(): SetAsideStatus | undefined {
    const files = keptFiles(this.#folder);
    if (this.#stores.size === 0 && files.length === 0) return undefined;
    const stores = [...this.#stores].map(([path, progress]) => {
      const { held, expired, returned, kept, damaged, failure } = progress;
      const state = isOpen(progress) ? (path === this.#current ? 'reading' : 'waiting') : 'unreadable';
      const counts = { held, expired, returned, kept, damaged };
      const trouble = failure === undefined ? {} : { failure };
      return { path, state: progress.done ? 'read' : state, ...counts, ...trouble } as const;
    });
    return { stores, files };
  }

  issues(): HealthIssue[] {
    const issues: HealthIssue[] = [];
    for (const [path, progress] of this.#stores) {
      if (progress.done) continue;
      issues.push({
        code: 'SET_ASIDE',
        message: isOpen(progress)
          ? `what only ${path} holds, the store that this node had before, is yet to be brought back`
          : `${path}, the store that this node had before, cannot be read to its end (${progress.failure}): what only it holds may be lost; look at a copy of it with LevelDB's tools, then remove it`,
      });
    }
    for (const file of keptFiles(this.#folder))
      issues.push({
        code: 'SET_ASIDE',
        message: `${file} holds what only an earlier store of this node held, and is too old to be brought back unasked: look at it, \`readmesh import\` what is still wanted, then remove the file`,
      });
    return issues;
  }

  #look(): void {
    this.#stores = new Map(setAsideStores(this.#folder).map((path) => [path, readProgress(path)]));
  }

  #next(): string | undefined {
    for (const [path, progress] of this.#stores) if (!progress.done && isOpen(progress)) return path;
    return undefined;
  }

  async #run(): Promise<void> {
    for (let store = this.#next(); store !== undefined; store = this.#next()) {
      await this.#inStep();
      this.#current = store;
      try {
        await this.#read(store);
      } catch (error) {
        if (this.#stopped || error instanceof Stopped) throw new Stopped();
        this.#logger.warn({ event: 'set-aside-waits', store }, String(error));
        await this.#pause(DISK_RETRY_MS);
      } finally {
        this.#current = undefined;
      }
      this.#look();
    }
    this.#prune();
  }

  async #pause(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (!this.#stopped && performance.now() < until) await delay(LOOK_MS);
  }

  /** Waits until this node holds what the others hold. */
  async #inStep(): Promise<ReplicaCore> {
    const since = performance.now();
    for (;;) {
      if (this.#stopped) throw new Stopped();
      const core = this.#hooks.core();
      if (core.coversAnnouncedSince(since)) return core;
      await delay(LOOK_MS);
    }
  }

  async #read(store: string): Promise<void> {
    const { attempts, after, isWhole } = readProgress(store);
    const reader = new SetAsideReader({ location: openableCopy(store), repair: attempts > 0, after });
    this.#reader = reader;
    try {
      const old = await reader.open();
      const foreign = this.#foreignUid(old);
      if (foreign !== undefined)
        return this.#giveUp(store, ATTEMPTS_MAX, `it belongs to ${foreign}, another founding of the cluster`);
      await this.#readAll(store, reader, new KnownToAll(isWhole ? old : undefined));
      this.#tellRead(store);
    } catch (error) {
      if (this.#stopped || !(error instanceof UnreadableStore)) throw error;
      this.#giveUp(store, attempts + 1, error.message);
    } finally {
      await reader.close();
      this.#reader = undefined;
      removeCopy(store);
    }
  }

  /** For now, or for good. */
  #giveUp(store: string, attempts: number, failure: string): void {
    this.#note(store, { ...readProgress(store), attempts, failure });
    this.#logger.error(
      { event: 'set-aside-unread', store, attempts, failure },
      'a set-aside store was not read',
    );
  }

  #tellRead(store: string): void {
    const { held, expired, returned, kept, damaged, failure } = readProgress(store);
    this.#logger[kept + damaged > 0 || failure !== undefined ? 'warn' : 'info'](
      {
        event: 'set-aside-read',
        ...{ store, held, expired, returned, kept, damaged },
        ...(kept > 0 ? { file: keptFile(store) } : {}),
        ...(failure === undefined ? {} : { failure }),
      },
      'what only the store that was set aside held is back, or in the file',
    );
  }

  /** Undefined: it is of this founding, or does not say. */
  #foreignUid(old: OldStore): string | undefined {
    const uid = decodeMeta<{ uid: string }>(old.meta.get('node'))?.uid;
    return uid === this.#hooks.core().identity.uid ? undefined : uid || undefined;
  }

  async #readAll(store: string, reader: SetAsideReader, known: KnownToAll): Promise<void> {
    const progress: Mutable = { ...readProgress(store) };
    const file = new KeptFile(keptFile(store), progress.keptBytes);
    let since = 0;
    try {
      for (let page = await reader.next(); page !== undefined; page = await reader.next()) {
        progress.damaged += page.damaged;
        const hasReturned = await this.#page(page.rows, known, file, progress);
        progress.after = page.rows.at(-1)?.key ?? progress.after;
        since += page.rows.length;
        await nextTurn();
        if (!hasReturned && since < CHECKPOINT_ENTRIES) continue;
        since = 0;
        progress.keptBytes = file.flush();
        this.#note(store, progress);
      }
      progress.done = true;
    } finally {
      try {
        progress.keptBytes = file.flush();
        this.#note(store, progress);
      } finally {
        file.close();
      }
    }
  }

  /** True if some of it was brought back. */
  async #page(
    rows: readonly { readonly key: string; readonly row: Row }[],
    known: KnownToAll,
    file: KeptFile,
    progress: Mutable,
  ): Promise<boolean> {
    let hasReturned = false;
    for (let open = rows; open.length > 0; ) {
      const core = await this.#readyCore();
      const back: { key: string; row: Row }[] = [];
      for (const { key, row } of open) {
        const verdict = core.verdictOn(known, key, row);
        if (verdict === 'return') back.push({ key, row });
        else if (verdict === 'keep') {
          file.append(lineOf(key, row, core.clockMs(Date.now())));
          progress.kept += 1;
        } else progress[verdict] += 1;
      }
      if (back.length === 0) break;
      if (await this.#bringBack(back)) {
        progress.returned += back.length;
        hasReturned = true;
        break;
      }
      // Whatever stood against it, what is to become of them is decided anew.
      open = back;
      await delay(RETRY_MS);
    }
    return hasReturned;
  }

  async #readyCore(): Promise<ReplicaCore> {
    for (;;) {
      if (this.#stopped) throw new Stopped();
      const core = this.#hooks.core();
      if (core.ready) return core;
      await delay(LOOK_MS);
    }
  }

  /** False: some of it may not have got through; it may be done again. */
  async #bringBack(rows: readonly { readonly key: string; readonly row: Row }[]): Promise<boolean> {
    try {
      await this.#hooks.write(
        rows.map(({ key, row }) => retryOf(key, row)),
        ACK_MS,
      );
      return true;
    } catch (error) {
      if (!isReadmeshError(error)) throw error;
      this.#logger.warn({ event: 'set-aside-waits', code: error.code }, error.message);
      return false;
    }
  }

  #note(store: string, progress: Progress): void {
    writeProgress(store, progress);
    this.#stores.set(store, { ...progress });
  }

  #prune(): void {
    for (const [path, { done, damaged, failure }] of [...this.#stores].slice(0, -1)) {
      if (!done || damaged > 0 || failure !== undefined) continue;
      removeStore(path);
      this.#stores.delete(path);
      this.#logger.info(
        { event: 'set-aside-removed', store: path },
        'read to its end, and there is a later one',
      );
    }
  }
}

function isOpen({ attempts }: Progress): boolean {
  return attempts < ATTEMPTS_MAX;
}

/** As `readmesh import` reads it. */
function lineOf(key: string, row: Row, nowMs: number): string {
  if (isTombstone(row)) return formatDeletion(key);
  try {
    return formatEntry(key, decodeValue(row.subarray(valueOffset(row))), remainingMs(row, nowMs));
  } catch {
    // No value that this version can read: as it is, for a later one.
    return JSON.stringify({ key, row: Buffer.from(row).toString('base64') });
  }
}

/** Lines, of which those count that were flushed. */
class KeptFile {
  readonly #path: string;
  #fd: number | undefined;
  #bytes: number;
  #lines: string[] = [];

  /** `bytes`: how much of a file that is there already counts. */
  constructor(path: string, bytes: number) {
    this.#path = path;
    this.#bytes = bytes;
  }

  append(line: string): void {
    this.#lines.push(`${line}\n`);
  }

  /** Returns how much counts now. */
  flush(): number {
    if (this.#lines.length === 0) return this.#bytes;
    const fd = this.#fd ?? this.#open();
    const bytes = Buffer.from(this.#lines.join(''));
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, this.#bytes + at);
    fsyncSync(fd);
    this.#bytes += bytes.length;
    this.#lines = [];
    return this.#bytes;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }

  #open(): number {
    // Removed by an operator meanwhile, perhaps, who has dealt with it.
    this.#bytes = existsSync(this.#path) ? Math.min(this.#bytes, statSync(this.#path).size) : 0;
    const fd = openSync(this.#path, existsSync(this.#path) ? 'r+' : 'wx+', 0o600);
    ftruncateSync(fd, this.#bytes);
    this.#fd = fd;
    syncFolder(dirname(this.#path));
    return fd;
  }
}
