/**
 * What a node does after its store refused a write. Nothing is acknowledged any more (the core sees to that);
 * reads go on from the store as it is. As soon as the disk takes writes again, the store is closed, checked and
 * reopened, and the node resumes from what is on disk, with a new origin, exactly as after a restart.
 *
 * A store that the cluster went on without is set aside in the same way, and a new one takes its place (core/horizon.ts).
 *
 * A store that cannot be trusted any more is set aside and rebuilt from the other members, if the node was told that it
 * may. Else, and when the data folder is gone, going on is the operator's: the node ends.
 */
import { isReadmeshError, ReadmeshError } from '../errors.js';
import type { DataFolder } from '../storage/data-folder.js';
import { folderGone, isOutOfFiles, openFailure, writeFailure } from '../storage/disk-errors.js';
import { probeFolder } from '../storage/disk-probe.js';
import { delay, type Logger } from './driver.js';

/** Pauses between attempts, ms: they double. */
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 5_000;
/** Each reopening costs an origin, and a disk that fails this often will fail again: pause until the hour is over. */
const REOPENINGS_PER_HOUR_MAX = 12;
const HOUR_MS = 3_600_000;
/** How often the data folder is looked for, ms. */
const WATCH_MS = 1_000;

export interface RecoveryHooks {
  /** Reads are not answered from now on: the store is closed to be reopened. */
  onClosing(): void;
  /** The store is open again. */
  onReopened(folder: DataFolder): void;
  /** There is no way to go on. */
  onHopeless(error: ReadmeshError): void;
  /** Gives up connections that can come back; returns how many. */
  shed(): number;
  onState(): void;
}

export class StoreRecovery {
  readonly #hooks: RecoveryHooks;
  readonly #logger: Logger;
  readonly #watch: NodeJS.Timeout;
  readonly #mayRebuild: boolean;
  #folder: DataFolder;
  #failure: ReadmeshError | undefined;
  #failedAt = 0;
  #attempts = 0;
  /** When the store was reopened, `performance.now()`, within the last hour. */
  #reopened: number[] = [];
  #reopenings = 0;
  #running: Promise<void> | undefined;
  #stopped = false;
  #closed = false;
  #rebuilding = false;
  /** Set while a store that the cluster went on without gives way to a new one. */
  #rejoining: { name: string; join: readonly string[]; why: string } | undefined;

  /** `mayRebuild`: a store that cannot be trusted may be set aside. */
  constructor(folder: DataFolder, hooks: RecoveryHooks, logger: Logger, mayRebuild: boolean) {
    this.#mayRebuild = mayRebuild;
    this.#folder = folder;
    this.#hooks = hooks;
    this.#logger = logger;
    this.#watch = setInterval(() => this.#lookForFolder(), WATCH_MS).unref();
  }

  /** Why nothing is written at present; undefined while all is well. */
  get failure(): ReadmeshError | undefined {
    return this.#failure;
  }

  get failedForMs(): number {
    return this.#failure === undefined ? 0 : performance.now() - this.#failedAt;
  }

  get attempts(): number {
    return this.#attempts;
  }

  /** How often the store was reopened since the start. */
  get reopenings(): number {
    return this.#reopenings;
  }

  /** The store is closed, or about to be: it answers no reads. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** The store refused a write. */
  failed(error: ReadmeshError): void {
    if (this.#failure !== undefined || this.#stopped) return;
    this.#failure = error;
    this.#failedAt = performance.now();
    this.#attempts = 0;
    this.#running = this.#run().catch((fault: unknown) => this.#end(openFailure(this.#folder.path, fault)));
  }

  /** The cluster went on without the store: it is set aside, and a new one takes its place. */
  replace(who: { name: string; join: readonly string[] }, why: string): void {
    if (this.#rejoining !== undefined) return;
    this.#rejoining = { ...who, why };
    this.failed(new ReadmeshError('NOT_READY', why));
  }

  get isReplacing(): boolean {
    return this.#rejoining !== undefined;
  }

  /** Ends the watch, and waits for the attempt that is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#watch);
    await this.#running;
  }

  async #run(): Promise<void> {
    for (let pause = RETRY_MS_MIN; ; pause = Math.min(RETRY_MS_MAX, pause * 2)) {
      await this.#pause(pause);
      if (this.#stopped || this.#lookForFolder()) return;
      if (this.#rejoining === undefined && this.#isTooOften()) continue;
      this.#attempts += 1;
      if (await this.#attempt()) return;
    }
  }

  /** True when there is nothing more to try. */
  async #attempt(): Promise<boolean> {
    try {
      if (isOutOfFiles(this.#failure)) this.#shed();
      if (!this.#closed) {
        await probeFolder(this.#folder.path);
        if (this.#stopped) return true;
        this.#closed = true;
        this.#hooks.onClosing();
        await this.#folder.closeStore();
      }
      this.#resume(await this.#reopen());
      return true;
    } catch (error) {
      if (isReadmeshError(error) && error.code !== 'STORE_FAILED') {
        this.#end(error);
        return true;
      }
      const failure = isReadmeshError(error) ? error : writeFailure(this.#folder.path, error);
      if (failure.message !== this.#failure?.message)
        this.#logger.warn({ event: 'store-not-reopened', attempts: this.#attempts }, failure.message);
      this.#failure = failure;
      this.#hooks.onState();
      return false;
    }
  }

  #reopen(): Promise<DataFolder> {
    const rejoining = this.#rejoining;
    return rejoining === undefined
      ? this.#reopenOrRebuild()
      : this.#setAside(() => this.#folder.replace(rejoining), rejoining.why);
  }

  async #reopenOrRebuild(): Promise<DataFolder> {
    try {
      return await this.#folder.reopen();
    } catch (error) {
      if (!this.#mayRebuild || !isReadmeshError(error) || error.code !== 'STORE_UNTRUSTED') throw error;
      return await this.#setAside(() => this.#folder.rebuild(), error.message);
    }
  }

  async #setAside(
    begin: () => Promise<{ folder: DataFolder; aside: string | undefined }>,
    reason: string,
  ): Promise<DataFolder> {
    this.#rebuilding = true;
    try {
      const { folder, aside } = await begin();
      this.#logger.warn(
        { event: 'set-aside', aside, reason },
        'the store was set aside, nothing of it is deleted, and the data is copied from the other members',
      );
      return folder;
    } finally {
      this.#rebuilding = false;
    }
  }

  #resume(folder: DataFolder): void {
    const failedMs = Math.round(this.failedForMs);
    this.#folder = folder;
    const wasReplaced = this.#rejoining !== undefined;
    this.#failure = undefined;
    this.#rejoining = undefined;
    this.#closed = false;
    if (!wasReplaced) {
      this.#reopenings += 1;
      this.#reopened.push(performance.now());
      this.#logger.warn(
        { event: 'store-reopened', attempts: this.#attempts, failedMs, evidence: folder.evidence.join(' ') },
        'the store was reopened after a write had failed',
      );
    }
    this.#hooks.onReopened(folder);
  }

  #shed(): void {
    const connections = this.#hooks.shed();
    if (connections > 0)
      this.#logger.warn({ event: 'connections-shed', connections }, 'out of file descriptors');
  }

  #isTooOften(): boolean {
    const since = performance.now() - HOUR_MS;
    this.#reopened = this.#reopened.filter((at) => at > since);
    return this.#reopened.length >= REOPENINGS_PER_HOUR_MAX;
  }

  /** True when it is gone. LevelDB would go on writing into files that nobody can find again. */
  #lookForFolder(): boolean {
    if (this.#rebuilding) return false;
    const missing = this.#folder.missing();
    if (missing === undefined || this.#stopped) return false;
    this.#end(folderGone(missing));
    return true;
  }

  #end(error: ReadmeshError): void {
    this.#stopped = true;
    clearInterval(this.#watch);
    this.#hooks.onHopeless(error);
  }

  /** In steps, so that a stop need not wait for it. */
  async #pause(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (!this.#stopped && performance.now() < until) await delay(Math.min(100, ms));
  }
}
