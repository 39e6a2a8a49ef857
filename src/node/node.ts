/**
 * One node: store, core, links and faces put together. The daemon and the embedded replica are the same thing;
 * the one is driven by the command line, the other by the application in whose process it lives.
 */
import { serveClient } from '../client/server.js';
import { assertKey } from '../core/entry.js';
import { CONFIRM_MS } from '../core/heal.js';
import { isStampHex } from '../core/hlc.js';
import { type Evidence, Integrity } from '../core/integrity.js';
import type { Input } from '../core/io.js';
import type { Dot, Row } from '../core/types.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import { createHttpHandler } from '../http.js';
import { type CoreOptions, TRANSPORT_DEFAULTS } from '../options.js';
import type { Range, Receipt, Status } from '../read-store.js';
import type {
  DigestReport,
  NodeService,
  RowChange,
  RowScan,
  VerifyReport,
  WriteRequest,
} from '../service.js';
import { type DataFolder, openDataFolder, setAside } from '../storage/data-folder.js';
import { isCorruption } from '../storage/disk-errors.js';
import { formatAddress } from '../transport/address.js';
import { Links } from '../transport/links.js';
import { Listener } from '../transport/listener.js';
import { bucketEntries, compareMembers, digestOf } from './digest.js';
import { Driver, delay, type Logger } from './driver.js';
import { type CheckedOptions, checkOptions, configOf, type NodeOptions } from './options.js';
import { type Healer, Reads } from './reads.js';
import { remoteMember } from './remote-member.js';
import { Scrub } from './scrub.js';
import { type StatusSources, statusOf } from './status.js';
import { Watchers } from './watch.js';

const SILENT: Logger = { info: () => {}, warn: () => {}, error: () => {} };
/** How long a start waits for its first batch, ms. A slow disk is seen by the phase, not by a failure. */
const START_MS = 5_000;
/** How long a stop waits for the disk and for acknowledgements, ms. */
const DRAIN_MS = 5_000;
const INSECURE_WARNING_MS = 60_000;
/** A member that has not answered `verify` for this long cannot be reached. */
const VERIFY_REACH_MS_MAX = 5_000;
/** How long the scrub waits for what it mended to be written, ms. */
const SCRUB_WRITTEN_MS = 10_000;
/** How often `ready('synced')` looks again, ms. */
const SYNC_POLL_MS = 20;

export class Node implements NodeService {
  readonly reads: Reads;
  readonly watchers = new Watchers();
  readonly #folder: DataFolder;
  readonly #driver: Driver;
  readonly #links: Links;
  readonly #listener: Listener | undefined;
  readonly #address: string;
  readonly #listening: string;
  readonly #logger: Logger;
  readonly #startedAt = performance.now();
  readonly #integrity: Integrity;
  readonly #scrub: Scrub;
  /** Blocks of the disk cannot be read, which no healing mends. */
  #isBroken = false;
  readonly #readyWaiters = new Set<() => void>();
  /** This node held everything at some time, and still answers reads. */
  #wasReady = false;
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
      const links = makeLinks(wiring, checked);
      let address = '';
      let listening = '';
      if (checked.listen !== undefined) {
        listener = new Listener(links, {
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
    const { store } = folder;
    const config = configOf(
      options,
      checked,
      {
        meta: store.recovered.meta,
        run: folder.run,
        reuseOrigin: folder.originReusable,
        flushes: store.flushes,
      },
      address,
    );
    this.#integrity = new Integrity(folder.created);
    if (!folder.created && !folder.originReusable) this.#integrity.note('unclean-stop');
    this.reads = new Reads(store, checked.tuning.cacheBytesMax, () => this.#gate(), this.#healer());
    this.#driver = new Driver(config, store, logger, {
      onChanged: (keys, rows) => {
        this.reads.forget(keys);
        this.watchers.tell(keys, rows);
      },
      onState: () => this.#onState(),
      onStoreFailed: (error) => {
        folder.invalidate();
        // LevelDB cannot compact a table with a damaged block, and takes no writes after it tried.
        if (isCorruption(error)) folder.distrust(error.message);
        this.#noteDamage('write-failed');
      },
      onDamage: (key) => this.#noteDamage(key === undefined ? 'unreadable' : 'damaged-record'),
      isProved: (key) => this.#integrity.vouchesFor(key),
    });
    const { scrubBytesPerSecond: bytesPerSecond, scrubPauseMs: pauseMs } = checked.tuning;
    this.#scrub = new Scrub(store, this.#scrubHost(), logger, { bytesPerSecond, pauseMs });
    wiring.node = this;
    this.#driver.start(links);
    this.#onState();
    this.#scrub.start();
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

  readRow(key: string): Row | undefined | Promise<Row | undefined> {
    return this.reads.readRow(key);
  }

  readRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    return this.reads.readRows(keys);
  }

  scanRows(range: Range): RowScan {
    return this.reads.scan(range);
  }

  write(request: WriteRequest): Promise<Receipt> {
    assertWrite(request, this.#driver.core.options);
    return this.#driver.write(request.ops, request);
  }

  subscribe(prefix: string, onChange: (change: RowChange) => void): () => void {
    return this.watchers.subscribe(prefix, onChange);
  }

  status(): Status {
    const sources: StatusSources = {
      core: this.#driver.core,
      closing: this.#closing !== undefined,
      startedAt: this.#startedAt,
      integrity: this.#integrity,
      isBroken: this.#isBroken,
      scrub: this.#driver.core.options.scrubBytesPerSecond === 0 ? undefined : this.#scrub.status(),
      cache: this.reads.cacheStats,
      watches: this.watchers.count,
      now: this.#driver.now(),
    };
    return statusOf(sources);
  }

  async ready(level: 'local' | 'synced', timeoutMs: number): Promise<void> {
    const until = performance.now() + timeoutMs;
    const { core } = this.#driver;
    if (!core.ready) await this.#becomesReady(timeoutMs);
    if (level === 'local') return;
    const since = performance.now();
    while (!core.coversAnnouncedSince(since)) {
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
    return digestOf(this.#folder.store);
  }

  digestBucket(bucket: number): Promise<{ key: string; stamp: string }[]> {
    this.#gate();
    return bucketEntries(this.#folder.store, bucket);
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
    await this.#scrub.close();
    await this.#driver.drain(DRAIN_MS);
    this.reads.setOpen(false);
    this.watchers.close();
    const listenerClosed = this.#listener?.close();
    await this.#links.closeAll();
    await listenerClosed;
    await this.#driver.close();
    await this.#folder.close();
  }

  /** What reads need when this node's own disk does not do. */
  #healer(): Healer {
    return {
      heal: (key) => this.#driver.heal(key),
      confirm: (key) => this.#confirm(key),
      isMiss: (key, async) => this.#isMiss(key, async),
      onUnreadable: () => this.#noteDamage('unreadable'),
    };
  }

  #isMiss(key: string, async: boolean): boolean {
    const { isSuspect } = this.#integrity;
    if (this.#integrity.isProved(key) || (!async && !isSuspect)) return true;
    const { core } = this.#driver;
    if (core.members.active().length <= 1) return true;
    // Without evidence it is not worth waiting for peers that are not there, once links had the time to open.
    if (isSuspect || core.partners().some((peer) => peer.phase === 'ready')) return false;
    return performance.now() - this.#startedAt > CONFIRM_MS;
  }

  async #confirm(key: string): Promise<Row | undefined> {
    try {
      const row = await this.#driver.confirm(key);
      if (row === undefined) this.#integrity.confirmed(key);
      else this.#noteDamage('damaged-record');
      return row;
    } catch (error) {
      if (this.#integrity.isSuspect || !isReadmeshError(error) || error.code !== 'UNPROVED') throw error;
      return undefined;
    }
  }

  #noteDamage(evidence: Evidence): void {
    if (!this.#integrity.note(evidence)) return;
    this.#logger.warn({ event: 'damage-suspected', evidence }, 'all of the disk is being checked');
    this.#scrub?.hurry();
  }

  #scrubHost() {
    return {
      heal: (key: string, dot?: Dot) => this.#driver.heal(key, dot),
      healRange: (after: string | null, until: string | null, timeoutMs: number) =>
        this.#driver.healRange(after, until, timeoutMs),
      input: (input: Input) => this.#driver.input(input),
      written: () => this.#driver.written(SCRUB_WRITTEN_MS),
      onDamage: (unreadable: boolean) => this.#noteDamage(unreadable ? 'unreadable' : 'damaged-record'),
      onBroken: () => {
        this.#isBroken = true;
        this.#folder.distrust('a block of one of its tables cannot be read');
      },
      onProved: () => this.#integrity.proved(),
      isSuspect: () => this.#integrity.isSuspect,
    };
  }

  /** Reads go on after the store refused a write: what was written before it is still there. */
  #onState(): void {
    const { core } = this.#driver;
    const { phase } = core.identity;
    if (phase === 'ready') this.#wasReady = true;
    else if (phase !== 'failed') this.#wasReady = false;
    this.reads.setOpen(this.#wasReady && this.#closing === undefined);
    if (core.ready || phase === 'expelled' || phase === 'failed') this.#wake();
  }

  #wake(): void {
    for (const wake of this.#readyWaiters) wake();
    this.#readyWaiters.clear();
  }

  /** Throws why reads are not answered, if they are not. */
  #gate(): void {
    if (this.#closing !== undefined) throw new ReadmeshError('CLOSED', 'this node is closing: ask another');
    if (this.#wasReady) return;
    if (this.#driver.core.identity.phase === 'expelled')
      throw new ReadmeshError('REMOVED', 'this node was removed from its cluster: ask another');
    throw new ReadmeshError(
      'NOT_READY',
      'this node does not hold all data yet: ask another, or wait for it (see `readmesh status`)',
    );
  }

  async #becomesReady(timeoutMs: number): Promise<void> {
    const { core } = this.#driver;
    let timer: NodeJS.Timeout | undefined;
    const woken = new Promise<void>((resolve) => {
      this.#readyWaiters.add(resolve);
      timer = setTimeout(resolve, timeoutMs);
    });
    await woken;
    clearTimeout(timer);
    if (core.ready) return;
    this.#gate();
    throw new ReadmeshError(
      'NOT_READY',
      `not ready within ${timeoutMs} ms (${core.identity.phase}): see status`,
    );
  }

  #openFaces(listener: Listener): void {
    const onFault = (error: unknown): void => this.fault(error);
    listener.handle(
      createHttpHandler(this, { valueBytesMax: this.#driver.core.options.valueBytesMax, onFault }),
    );
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

/** The door of every write, whichever face it comes by. Throws before anything has changed. */
function assertWrite(request: WriteRequest, options: CoreOptions): void {
  const { ops, replicas, timeoutMs } = request;
  const { batchOpsMax, batchBytesMax, valueBytesMax } = options;
  if (ops.length === 0) throw new ReadmeshError('INVALID_OPTION', 'a batch has at least one operation');
  if (ops.length > batchOpsMax)
    throw new ReadmeshError('BATCH_TOO_LARGE', `a batch has at most ${batchOpsMax} operations: split it`);
  let bytes = 0;
  for (const { key, value, stamp } of ops) {
    bytes += assertKey(key) + value.length;
    if (value.length > valueBytesMax)
      throw new ReadmeshError(
        'VALUE_TOO_LARGE',
        `a value has at most ${valueBytesMax} encoded bytes, this one ${value.length}`,
      );
    if (stamp !== undefined && !isStampHex(stamp))
      throw new ReadmeshError('INVALID_OPTION', 'a stamp is 32 lower-case hex digits');
  }
  if (bytes > batchBytesMax && ops.length > 1)
    throw new ReadmeshError('BATCH_TOO_LARGE', `a batch has at most ${batchBytesMax} bytes: split it`);
  if (replicas !== undefined && (!Number.isInteger(replicas) || replicas < 1))
    throw new ReadmeshError('INVALID_OPTION', 'replicas is an integer from 1 up');
  if (timeoutMs !== undefined && !(Number.isFinite(timeoutMs) && timeoutMs > 0))
    throw new ReadmeshError('INVALID_OPTION', 'timeoutMs is a number of milliseconds above 0');
}

async function openFolder(options: NodeOptions, checked: CheckedOptions): Promise<DataFolder> {
  const flush = options.flush ?? true;
  if (options.rebuild !== true) return openDataFolder(checked.data, { flush });
  try {
    return await openDataFolder(checked.data, { flush });
  } catch (error) {
    if (!isReadmeshError(error) || error.code !== 'STORE_UNTRUSTED') throw error;
    const aside = await setAside(checked.data);
    (options.logger ?? SILENT).warn(
      { event: 'set-aside', aside, reason: error.message },
      'the store was set aside',
    );
    return openDataFolder(checked.data, { flush });
  }
}

function makeLinks(wiring: { node?: Node }, checked: CheckedOptions): Links {
  const { frameBytesMax, linkQueueBytesMax } = checked.tuning;
  const driver = (): Driver | undefined => wiring.node?.driver;
  return new Links(
    { ...TRANSPORT_DEFAULTS, frameBytesMax, linkQueueBytesMax },
    {
      onOpen: (link, { dialed }) => driver()?.input({ type: 'link-opened', link, dialed }),
      onMessage: (link, bytes) => driver()?.receive(link, bytes),
      onAlive: (link) => driver()?.input({ type: 'link-alive', link }),
      onCongested: (link) => driver()?.input({ type: 'link-congested', link }),
      onDrained: (link) => driver()?.input({ type: 'link-drained', link }),
      onClosed: (link) => driver()?.input({ type: 'link-closed', link }),
      onDialFailed: (address, reason) => driver()?.input({ type: 'dial-failed', address, reason }),
    },
  );
}
