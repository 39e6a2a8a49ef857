/**
 * One node: store, core, links and faces put together. The daemon and the embedded replica are the same thing;
 * the one is driven by the command line, the other by the application in whose process it lives.
 */
import { serveClient } from '../client/server.js';
import type { Row } from '../core/types.js';
import type { EncodedCache } from '../encoded-cache.js';
import { ReadmeshError } from '../errors.js';
import type { HttpHandler } from '../http.js';
import { type CoreOptions, TRANSPORT_DEFAULTS } from '../options.js';
import type { Range, Receipt, Status } from '../read-store.js';
import type {
  DigestReport,
  NodeService,
  RowChange,
  RowScan,
  SubmittedWrite,
  VerifyReport,
  WriteRequest,
} from '../service.js';
import type { DataFolder } from '../storage/data-folder.js';
import { corruptionOf, untrusted, writeFailure } from '../storage/disk-errors.js';
import { clearRejoin } from '../storage/set-aside.js';
import { formatAddress } from '../transport/address.js';
import type { Links } from '../transport/links.js';
import { Listener } from '../transport/listener.js';
import { backupOf } from './backup.js';
import { descriptorsLeft, fitPlaces } from './descriptors.js';
import { bucketEntries, compareMembers, digestOf } from './digest.js';
import { Driver, delay, type Logger } from './driver.js';
import { Healing } from './healing.js';
import { LoopLag } from './loop-lag.js';
import { makeLinks, openFolder } from './opening.js';
import { type CheckedOptions, checkOptions, configOf, type NodeOptions, SILENT } from './options.js';
import { Quarantine } from './quarantine.js';
import { ReadThrough } from './read-through.js';
import { Reads } from './reads.js';
import { remoteMember } from './remote-member.js';
import { Returning } from './returning.js';
import { type StatusSources, statusOf } from './status.js';
import { StoreRecovery } from './store-recovery.js';
import { StoreReport } from './store-report.js';
import { Watchers } from './watch.js';
import { assertWrite } from './write-door.js';

/** How long a start waits for its first batch, ms. A slow disk is seen by the phase, not by a failure. */
const START_MS = 5_000;
/** How long a stop waits for the disk and for acknowledgements, ms. */
const DRAIN_MS = 5_000;
const INSECURE_WARNING_MS = 60_000;
/** A member that has not answered `verify` for this long cannot be reached. */
const VERIFY_REACH_MS_MAX = 5_000;
/** How often `ready('synced')` looks again, ms. */
const SYNC_POLL_MS = 20;

export class Node implements NodeService {
  readonly reads: Reads;
  readonly watchers: Watchers;
  readonly #quarantine: Quarantine;
  readonly #loopLag = new LoopLag();
  /** Replaced, all, when the store is reopened after a write error. */
  #folder: DataFolder;
  #driver: Driver;
  #healing: Healing;
  readonly #makeDriver: (folder: DataFolder) => Driver;
  readonly #makeHealing: (folder: DataFolder) => Healing;
  readonly #recovery: StoreRecovery;
  readonly #storeReport: StoreReport;
  readonly #returning: Returning;
  readonly #join: readonly string[];
  readonly #links: Links;
  readonly #listener: Listener | undefined;
  readonly #address: string;
  readonly #listening: string;
  readonly #logger: Logger;
  readonly #startedAt = performance.now();
  readonly #readyWaiters = new Set<() => void>();
  readonly #makeReadThrough: (() => ReadThrough) | undefined;
  /** Answers reads while this node has not copied everything, if it was told to. */
  through: ReadThrough | undefined;
  /** What earlier stores hold is being brought back, or is. */
  #isReturning = false;
  /** This node held everything at some time, and still answers reads. */
  #wasReady = false;
  /** Why this node ended by itself. */
  #fatal: ReadmeshError | undefined;
  /** Resolves, with the reason, when this node ended by itself because its store is lost. */
  readonly ended: Promise<ReadmeshError>;
  #onEnded: (error: ReadmeshError) => void = () => {};
  #insecureWarning: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  /** Opens the store, listens, and starts to find its cluster. Resolves before the node is ready. */
  static async start(options: NodeOptions): Promise<Node> {
    const checked = checkOptions(options);
    const logger = options.logger ?? SILENT;
    const folder = await openFolder(options, checked);
    let listener: Listener | undefined;
    try {
      const wiring: { node?: Node } = {};
      const places = fitPlaces(TRANSPORT_DEFAULTS, descriptorsLeft());
      const links = makeLinks(() => wiring.node?.driver, checked, places);
      let address = '';
      let listening = '';
      if (checked.listen !== undefined) {
        listener = new Listener(links, {
          ...places,
          allowedHosts: checked.advertise === undefined ? [] : [checked.advertise.host],
          onFault: (error) => wiring.node?.fault(error),
        });
        const bound = await listener.listen(checked.listen.host, checked.listen.port);
        listening = formatAddress(bound);
        address = formatAddress(checked.advertise ?? bound);
      }
      const node = new Node(options, checked, {
        folder,
        links,
        listener,
        address,
        listening,
        logger,
        wiring,
      });
      // What it begins with: a founder may serve once its founding is written.
      await node.driver.written(START_MS);
      return node;
    } catch (error) {
      await listener?.close();
      await folder.close();
      throw error;
    }
  }

  private constructor(
    options: NodeOptions,
    checked: CheckedOptions,
    parts: {
      folder: DataFolder;
      links: Links;
      listener: Listener | undefined;
      address: string;
      listening: string;
      logger: Logger;
      wiring: { node?: Node };
    },
  ) {
    const { folder, links, listener, address, listening, logger, wiring } = parts;
    this.#folder = folder;
    this.#links = links;
    this.#listener = listener;
    this.#address = address;
    this.#listening = listening;
    this.#logger = logger;
    this.#quarantine = new Quarantine(logger);
    this.watchers = new Watchers(this.#quarantine, () => this.clockMs());
    this.ended = new Promise((resolve) => {
      this.#onEnded = resolve;
    });
    if (options.readThrough === true)
      this.#makeReadThrough = () =>
        new ReadThrough({
          store: () => this.#folder.store,
          isCopied: (key) => this.#driver.core.isCopied(key),
          addresses: () => this.#driver.core.sourceAddresses(),
          valueBytesMax: checked.tuning.valueBytesMax,
          clockMs: () => this.clockMs(),
        });
    this.#makeHealing = (opened) => this.#healingOf(opened, checked.tuning, options.rebuild === true);
    this.#healing = this.#makeHealing(folder);
    this.reads = new Reads(
      folder.store,
      checked.tuning,
      { gate: () => this.#gate(), clockMs: () => this.clockMs() },
      this.#healing,
      this.#quarantine,
    );
    this.#makeDriver = (opened) => this.#driverOf(opened, options, checked);
    this.#driver = this.#makeDriver(folder);
    this.#recovery = this.#superviseStore(folder, options.rebuild === true);
    this.#storeReport = this.#reportOnStore();
    this.#storeReport.opened(folder);
    this.#storeReport.noteRestored(folder);
    this.#join = checked.join;
    this.#returning = new Returning(
      folder.path,
      {
        core: () => this.#driver.core,
        write: (ops, timeoutMs) => {
          const { driver } = this;
          return driver.write(ops, { timeoutMs, fsync: driver.core.config.flushes });
        },
      },
      logger,
    );
    wiring.node = this;
    this.#driver.start(links);
    this.#healing.start();
    this.#onState();
    if (listener !== undefined) this.#openFaces(listener);
    if (options.insecureNoAuth === true) this.#warnInsecure();
  }

  /** `host:port` that others dial; empty when this node does not listen. */
  get address(): string {
    return this.#address;
  }

  /** `host:port` that it listens on, with the port that it got; empty when it does not listen. */
  get listening(): string {
    return this.#listening;
  }

  get driver(): Driver {
    return this.#driver;
  }

  // NodeService.

  clockMs(): number {
    return this.#driver.core.clockMs(Date.now());
  }

  get encoded(): EncodedCache | undefined {
    return this.through === undefined ? this.reads.encoded : undefined;
  }

  readRow(key: string): Row | undefined | Promise<Row | undefined> {
    return this.through === undefined ? this.reads.readRow(key) : this.through.row(key);
  }

  noteUnreadable(error: unknown): void {
    this.#quarantine.note(error);
  }

  async readRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    const { through } = this;
    return through === undefined
      ? this.reads.readRows(keys)
      : Promise.all(keys.map((key) => through.row(key)));
  }

  scanRows(range: Range): RowScan {
    return this.through === undefined ? this.reads.scan(range) : this.through.scan(range);
  }

  write(request: WriteRequest): Promise<Receipt> {
    assertWrite(request, this.#driver.core.options);
    return this.#driver.write(request.ops, request);
  }

  submit(write: SubmittedWrite): void {
    assertWrite(write, this.#driver.core.options);
    this.#driver.submit(write);
  }

  subscribe(prefix: string, onChange: (change: RowChange) => void): () => void {
    return this.watchers.subscribe(prefix, onChange);
  }

  status(): Status {
    const sources: StatusSources = {
      core: this.#driver.core,
      closing: this.#closing !== undefined,
      startedAt: this.#startedAt,
      ...this.#healing.status(),
      issues: [
        ...this.#storeReport.issues(),
        ...this.#healing.issues(),
        ...this.#returning.issues(),
        ...this.#quarantine.issues(),
        ...this.#loopLag.issues(),
      ],
      quarantined: this.#quarantine.size,
      store: this.#storeReport.status(),
      setAside: this.#returning.status(),
      isOutdated: this.#isOutdated,
      cache: this.reads.cacheStats,
      encoded: this.reads.encodedStats,
      watches: this.watchers.count,
      watchExpiriesDropped: this.watchers.expiriesDropped,
      loopLagMs: this.#loopLag.maxMs,
      now: this.#driver.now(),
    };
    return statusOf(sources);
  }

  async ready(level: 'local' | 'synced', timeoutMs: number): Promise<void> {
    const until = performance.now() + timeoutMs;
    if (!this.#driver.core.ready) await this.#becomesReady(timeoutMs);
    if (level === 'local') return;
    const since = performance.now();
    while (!this.#driver.core.coversAnnouncedSince(since)) {
      if (performance.now() > until)
        throw new ReadmeshError(
          'TIMEOUT',
          `not in step with a majority of members within ${timeoutMs} ms: see status`,
        );
      if (this.#closing !== undefined) throw new ReadmeshError('CLOSED', 'this node is closing');
      await delay(SYNC_POLL_MS);
    }
  }

  async removeMember(name: string): Promise<void> {
    if (!(await this.#driver.removeMember(name)))
      throw new ReadmeshError('NOT_FOUND', `there is no member named "${name}": see \`readmesh members\``);
  }

  digest(): Promise<DigestReport> {
    this.#gate();
    return digestOf(this.#folder.store, () => this.#driver.core.collection);
  }

  digestBucket(bucket: number): Promise<{ key: string; stamp: string }[]> {
    this.#gate();
    return bucketEntries(this.#folder.store, bucket);
  }

  backup(): AsyncIterableIterator<Uint8Array> {
    this.#gate();
    return backupOf(this.#folder.store, this.#driver.core);
  }

  async verify(timeoutMs: number): Promise<VerifyReport> {
    this.#gate();
    const { core } = this.#driver;
    const remotes = core.memberViews().filter((member) => !member.self);
    // The report has to be out before the caller stops waiting for it: reaching a member and waiting for equal
    // vectors each get a part of the time, the hashing gets the rest.
    const reachMs = Math.min(VERIFY_REACH_MS_MAX, timeoutMs / 4);
    const others = remotes.map((member) => remoteMember(member.name, member.address, reachMs));
    const self = {
      name: core.config.name,
      address: this.#address,
      heads: async () => Object.fromEntries(core.written.heads()),
      digest: () => this.digest(),
      bucket: (bucket: number) => this.digestBucket(bucket),
    };
    try {
      return await compareMembers([self, ...others], timeoutMs / 2);
    } finally {
      await Promise.all(others.map((other) => other.close()));
    }
  }

  /** Drains, then closes everything. May be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#insecureWarning);
    this.#wake();
    const scrubbed = this.#healing.close();
    await this.#returning.stop();
    if (this.#fatal === undefined) {
      await this.#driver.drain(DRAIN_MS);
      await this.#driver.checkpoint(DRAIN_MS);
    }
    this.reads.setOpen(false);
    this.#setReadThrough(false);
    this.watchers.close();
    this.#loopLag.close();
    const listenerClosed = this.#listener?.close();
    await this.#links.closeAll();
    await listenerClosed;
    await this.#recovery.stop();
    await this.#driver.close();
    await scrubbed;
    await this.#folder.close();
  }

  /** Reads go on after the store refused a write: what was written before it is still there. */
  #onState(): void {
    const { core } = this.#driver;
    const { phase } = core.identity;
    if (phase === 'ready') this.#wasReady = true;
    else if (phase !== 'failed') this.#wasReady = false;
    this.reads.setOpen(this.#wasReady && this.#closing === undefined && !this.#recovery.isClosed);
    this.#setReadThrough(!this.#wasReady && (phase === 'new' || phase === 'bootstrapping'));
    if (core.ready || phase === 'expelled') this.#wake();
    if (core.ready) this.#isBack();
    if (phase === 'outdated') this.#replaceStore();
  }

  /** Everything is here: what only an earlier store of this node holds comes next. */
  #isBack(): void {
    if (this.#isReturning) return;
    this.#isReturning = true;
    try {
      if (this.#folder.rejoin !== undefined) clearRejoin(this.#folder.path);
      this.#returning.start();
    } catch (error) {
      // Both can wait for the next start.
      this.fault(error);
    }
  }

  /** The cluster went on without this node. Without anybody to copy from, it keeps what it has, and says so. */
  #replaceStore(): void {
    const join = this.#reachable();
    if (join.length === 0 || this.#closing !== undefined || this.#recovery.isReplacing) return;
    const driver = this.#driver;
    const { name } = driver.core.config;
    this.#recovery.replace({ name, join }, driver.core.outdatedText);
    // Nothing of it is acknowledged any more. Its links end, for the new store to make its own.
    driver.giveUpStore(driver.core.outdatedText);
  }

  get #isOutdated(): boolean {
    return this.#recovery.isReplacing || this.#driver.core.identity.phase === 'outdated';
  }

  /** Where members may be found, by what the operator and the store say. */
  #reachable(): string[] {
    const { core } = this.#driver;
    const known = core.memberViews().filter((member) => !member.self && member.address !== '');
    return [...new Set([...this.#join, ...known.map((member) => member.address)])].filter(
      (address) => address !== this.#address,
    );
  }

  #setReadThrough(isNeeded: boolean): void {
    if (isNeeded && this.#closing === undefined) {
      this.through ??= this.#makeReadThrough?.();
      return;
    }
    void this.through?.close();
    this.through = undefined;
  }

  #wake(): void {
    for (const wake of this.#readyWaiters) wake();
    this.#readyWaiters.clear();
  }

  /** Throws why reads are not answered, if they are not. */
  #gate(): void {
    if (this.#fatal !== undefined) throw this.#fatal;
    if (this.#closing !== undefined) throw new ReadmeshError('CLOSED', 'this node is closing: ask another');
    if (this.#recovery.isClosed)
      throw new ReadmeshError('NOT_READY', 'this node is reopening its store: ask another, or try again');
    if (this.#wasReady) return;
    if (this.#driver.core.identity.phase === 'expelled')
      throw new ReadmeshError('REMOVED', 'this node was removed from its cluster: ask another');
    throw new ReadmeshError(
      'NOT_READY',
      'this node does not hold all data yet: ask another, or wait for it (see `readmesh status`)',
    );
  }

  async #becomesReady(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const woken = new Promise<void>((resolve) => {
      this.#readyWaiters.add(resolve);
      timer = setTimeout(resolve, timeoutMs);
    });
    await woken;
    clearTimeout(timer);
    const { core } = this.#driver;
    if (core.ready) return;
    this.#gate();
    throw new ReadmeshError(
      'NOT_READY',
      `not ready within ${timeoutMs} ms (${core.identity.phase}): see status`,
    );
  }

  // The store, and what becomes of it.

  #driverOf(folder: DataFolder, options: NodeOptions, checked: CheckedOptions): Driver {
    const { store, run, originReusable, rejoin } = folder;
    const healing = this.#healing;
    const config = configOf(
      // A name that was drawn at random stays, even if the store never got to remember it.
      { ...options, name: (this.#driver as Driver | undefined)?.core.config.name ?? options.name },
      checked,
      { rejoin, meta: store.recovered.meta, run, reuseOrigin: originReusable, flushes: store.flushes },
      this.#address,
    );
    return new Driver(config, store, this.#logger, {
      onChanged: (keys, rows) => {
        this.reads.forget(keys);
        this.#quarantine.forget(keys);
        this.watchers.tell(keys, rows);
      },
      onCollected: (keys) => {
        this.reads.forget(keys);
        this.#quarantine.forget(keys);
      },
      onState: () => this.#onState(),
      onDamage: (key) => healing.onDamage(key === undefined),
      onStoreFailed: (error) => {
        folder.invalidate();
        healing.writeFailed(corruptionOf(error));
        this.#recovery.failed(writeFailure(folder.path, error));
      },
    });
  }

  #healingOf(folder: DataFolder, tuning: CoreOptions, mayRebuild: boolean): Healing {
    const { scrubBytesPerSecond: bytesPerSecond, scrubPauseMs: pauseMs } = tuning;
    const options = { bytesPerSecond, pauseMs, mayRebuild, quarantine: this.#quarantine };
    const healing: Healing = new Healing(
      folder,
      () => this.#driver,
      this.#logger,
      options,
      (why) => {
        if (this.#healing !== healing || this.#closing !== undefined) return;
        const error = untrusted(folder.path, why);
        this.#driver.giveUpStore(error.message);
        this.#recovery.failed(error);
      },
    );
    return healing;
  }

  #superviseStore(folder: DataFolder, mayRebuild: boolean): StoreRecovery {
    return new StoreRecovery(
      folder,
      {
        onClosing: () => {
          void this.#healing.close();
          this.#onState();
        },
        onReopened: (reopened) => this.#resume(reopened),
        onHopeless: (error) => this.#end(error),
        shed: () => this.#listener?.shed() ?? 0,
        onState: () => this.#onState(),
      },
      this.#logger,
      mayRebuild,
    );
  }

  #reportOnStore(): StoreReport {
    return new StoreReport(
      {
        core: () => this.#driver.core,
        folder: () => this.#folder,
        recovery: this.#recovery,
        fatal: () => this.#fatal,
        isOutdated: () => this.#isOutdated,
        isAlone: () => this.#reachable().length === 0,
      },
      this.#logger,
    );
  }

  /** As after a restart, but for the faces and the sockets, which stayed. */
  #resume(folder: DataFolder): void {
    const old = this.#driver;
    this.#folder = folder;
    this.#isReturning = false;
    this.#healing = this.#makeHealing(folder);
    this.#driver = this.#makeDriver(folder);
    void old.close();
    this.reads.useStore(folder.store, this.#healing);
    this.#storeReport.opened(folder);
    this.#driver.start(this.#links);
    this.#healing.start();
    this.#onState();
  }

  /** Ends this node: its store is lost while it runs. Nothing is acknowledged from here on. */
  #end(error: ReadmeshError): void {
    if (this.#fatal !== undefined || this.#closing !== undefined) return;
    this.#fatal = error;
    this.#logger.error({ event: 'store-lost', code: error.code }, error.message);
    this.#driver.giveUpStore(error.message);
    this.#onEnded(error);
    // Whoever closes it sees whether that fails.
    this.close().catch(() => undefined);
  }

  #openFaces(listener: Listener): void {
    const onFault = (error: unknown): void => this.fault(error);
    let http: Promise<HttpHandler> | undefined;
    // Loaded with the first request: it is a third of all that a start would have to load.
    listener.handle(async (request, response) => {
      http ??= import('../http.js').then(({ createHttpHandler }) =>
        createHttpHandler(this, { valueBytesMax: this.#driver.core.options.valueBytesMax, onFault }),
      );
      (await http)(request, response);
    });
    listener.acceptClients((ws, _remote, socket) => serveClient(ws, this, { socket, onFault }));
  }

  /** A fault of ours that nobody else sees. */
  fault(error: unknown): void {
    this.#logger.error(
      { event: 'fault', stack: String((error as Error | undefined)?.stack ?? error) },
      'fault',
    );
  }

  #warnInsecure(): void {
    const warn = (): void =>
      this.#logger.warn(
        { event: 'insecure', address: this.#address },
        'listening without authentication: anyone who reaches this port can read and write',
      );
    warn();
    this.#insecureWarning = setInterval(warn, INSECURE_WARNING_MS).unref();
  }
}
