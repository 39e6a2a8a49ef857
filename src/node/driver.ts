/**
 * The production driver of the replication core: real clock, ws, LevelDB. It turns what happens into inputs and
 * carries out effects, and decides nothing itself. One input is handled, and all its effects carried out,
 * before the next.
 */
import { performance } from 'node:perf_hooks';
import { checksum } from '../checksum.js';
import { receiptOf, type SettledWrite } from '../core/acknowledgements.js';
import type { ReplicaConfig } from '../core/core.js';
import { DAMAGED, type Found } from '../core/heal.js';
import type { Effect, Input, LinkId, LocalOp, LocalWrite } from '../core/io.js';
import { ReplicaCore } from '../core/replica.js';
import type { Dot, Instant, Row } from '../core/types.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import { decodeMessage, encodeMessage } from '../protocol.js';
import type { Receipt } from '../read-store.js';
import { RequestTable } from '../request-table.js';
import type { SubmittedWrite } from '../service.js';
import type { RowCursor, Snapshot, Store } from '../storage/store.js';
import { HealRequests } from './heal-requests.js';

export interface Logger {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

/** What the driver needs of the transport (transport/links.ts). */
export interface LinkPort {
  dial(address: string): void;
  send(link: LinkId, bytes: Uint8Array, bestEffort: boolean): boolean;
  close(link: LinkId, reason?: string): void;
}

export interface DriverHooks {
  /** Entries whose content changed are written. */
  onChanged(keys: readonly string[], rows: readonly Row[]): void;
  /** Entries that were over have left the store. */
  onCollected(keys: readonly string[]): void;
  /** Phase, readiness or health changed. */
  onState(): void;
  /** A record could not be read (its key, if that is known), or is not where it should be. */
  onDamage(key: string | undefined): void;
  /** The store refused a write: what it lost is unknown. */
  onStoreFailed(error: Error): void;
}

interface Scan {
  readonly snapshot: Snapshot;
  readonly cursor: RowCursor;
}

interface Waiting<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

/** Thousands of writes wait at once: nothing but this is kept of what answers one. */
type Answer = (receipt: Receipt | Promise<never>) => void;

let keptAnswer: Answer = () => {};
/** The executor of every such promise: one of its own for each would be garbage. */
const keepAnswer = (answer: Answer): void => {
  keptAnswer = answer;
};

function settle(waiting: Answer | SubmittedWrite | undefined, write: SettledWrite): void {
  if (typeof waiting === 'function') waiting(receiptOf(write));
  else waiting?.settled(write);
}

function fail(waiting: Answer | SubmittedWrite | undefined, error: ReadmeshError): void {
  if (typeof waiting === 'function') waiting(Promise.reject(error));
  else waiting?.failed(error);
}

export class Driver {
  readonly core: ReplicaCore;
  readonly healing = new HealRequests((input) => this.input(input));
  readonly #store: Store;
  readonly #logger: Logger;
  readonly #hooks: DriverHooks;
  #links: LinkPort | undefined;
  readonly #inputs: Input[] = [];
  /** Writes of this turn of the event loop. */
  #turn: LocalWrite[] = [];
  readonly #writes = new RequestTable<Answer | SubmittedWrite>();
  readonly #removals = new Map<number, Waiting<boolean>>();
  readonly #scans = new Map<number, Promise<Scan>>();
  #ids = 0;
  #handling = false;
  #wake: NodeJS.Timeout | undefined;
  #draining = false;
  #closed = false;
  #storeGone = false;
  /** The batch in flight, and the flush. */
  #writing: Promise<void> = Promise.resolve();
  #flushing: Promise<void> | undefined;
  /** Last batch that is written. */
  #written = 0;

  constructor(config: ReplicaConfig, store: Store, logger: Logger, hooks: DriverHooks) {
    this.#store = store;
    this.#logger = logger;
    this.#hooks = hooks;
    this.core = new ReplicaCore(config, {
      lookup: (key) => this.#lookup(key),
      damagedDot: (key) => store.damagedDot?.(key),
      checksum,
      random: Math.random,
      recovered: store.recovered,
    });
  }

  start(links: LinkPort): void {
    this.#links = links;
    this.input({ type: 'start' });
  }

  now(): Instant {
    return { wall: Date.now(), mono: performance.now() };
  }

  input(input: Input): void {
    if (this.#closed) return;
    this.#inputs.push(input);
    if (this.#handling) return;
    this.#handling = true;
    try {
      for (let next = this.#inputs.shift(); next !== undefined; next = this.#inputs.shift())
        for (const effect of this.core.handle(next, this.now())) this.#carryOut(effect);
    } finally {
      this.#handling = false;
    }
  }

  /** Bytes from a peer. What cannot be decoded closes the link. */
  receive(link: LinkId, bytes: Uint8Array): void {
    try {
      this.input({ type: 'message', link, message: decodeMessage(bytes) });
    } catch (error) {
      if (!isReadmeshError(error)) throw error;
      if (error.details.unknownType !== undefined) return;
      this.#logger.warn({ event: 'bad-frame', link, code: error.code }, error.message);
      this.#links?.close(link, 'bad frame');
    }
  }

  write(
    ops: readonly LocalOp[],
    options: { replicas?: number; fsync?: boolean; timeoutMs?: number },
  ): Promise<Receipt> {
    if (this.#draining)
      return Promise.reject(new ReadmeshError('CLOSED', 'this node is closing: ask another'));
    const answered = new Promise<Receipt>(keepAnswer);
    const { replicas, fsync, timeoutMs } = options;
    this.#push({ id: this.#writes.add(keptAnswer), ops, replicas, fsync, timeoutMs });
    return answered;
  }

  /** The same without a promise. */
  submit(write: SubmittedWrite): void {
    if (this.#draining) return write.failed(new ReadmeshError('CLOSED', 'this node is closing: ask another'));
    write.id = this.#writes.add(write);
    this.#push(write);
  }

  #push(write: LocalWrite): void {
    if (this.#turn.length === 0) queueMicrotask(this.#takeTurn);
    this.#turn.push(write);
  }

  #takeWrite(id: number): Answer | SubmittedWrite | undefined {
    const waiting = this.#writes.get(id);
    this.#writes.delete(id);
    return waiting;
  }

  readonly #takeTurn = (): void => {
    const writes = this.#turn;
    this.#turn = [];
    this.input({ type: 'writes', writes });
  };

  /** What is written can no longer be relied on: nothing is acknowledged any more, the batch in flight included. */
  giveUpStore(message: string): void {
    if (this.#storeGone) return;
    this.#storeGone = true;
    this.input({ type: 'persist-failed', batch: 0, message });
  }

  /** False when there is no such member. */
  removeMember(name: string): Promise<boolean> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new ReadmeshError('CLOSED', 'this node is closing: ask another'));
      const id = ++this.#ids;
      this.#removals.set(id, { resolve, reject });
      this.input({ type: 'remove-member', id, name });
    });
  }

  /** Waits (bounded) until nothing is on its way to disk. */
  async written(timeoutMs: number): Promise<void> {
    const until = performance.now() + timeoutMs;
    while (performance.now() < until && this.core.queue.last() !== undefined) await delay(1);
  }

  /** Takes no more writes; waits (bounded) until nothing is on its way to disk and every write is answered. */
  async drain(timeoutMs: number): Promise<void> {
    this.#draining = true;
    const until = performance.now() + timeoutMs;
    await this.written(timeoutMs);
    while (performance.now() < until && this.core.acks.unsettled > 0) await delay(5);
  }

  /** Writes what lets the next start go without reading the store through. Nothing is taken after this. */
  async checkpoint(timeoutMs: number): Promise<void> {
    this.input({ type: 'stop' });
    await this.written(timeoutMs);
  }

  /** No further input is taken. Open writes are rejected; their outcome is unknown. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#wake);
    const closed = new ReadmeshError(
      'CLOSED',
      'this node was closed before the write was acknowledged: retry elsewhere',
    );
    for (const waiting of this.#writes.clear()) fail(waiting, closed);
    for (const removal of this.#removals.values()) removal.reject(closed);
    this.#removals.clear();
    this.healing.close();
    for (const id of [...this.#scans.keys()]) await this.#closeScan(id);
    await this.#writing;
    await this.#flushing;
  }

  #lookup(key: string): Found {
    try {
      return this.#store.getRow(key);
    } catch (error) {
      if (!isReadmeshError(error) || error.code !== 'DAMAGED') throw error;
      this.#hooks.onDamage(key);
      return DAMAGED;
    }
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case 'persist':
        return this.#persist(effect);
      case 'prepare':
        return this.#store.prepare?.(effect.batch);
      case 'send': {
        const bytes = encodeMessage(effect.message);
        for (const link of effect.links) this.#links?.send(link, bytes, effect.bestEffort);
        return;
      }
      case 'settled':
        for (const write of effect.writes) settle(this.#takeWrite(write.id), write);
        return;
      case 'rejected': {
        const { id, code, message, details } = effect;
        const error = new ReadmeshError(code, message, details === undefined ? {} : { details });
        fail(this.#takeWrite(id), error);
        return;
      }
      case 'changed':
        return this.#hooks.onChanged(effect.keys, effect.rows);
      case 'collected':
        return this.#hooks.onCollected(effect.keys);
      case 'reclaim':
        return this.#store.reclaim?.(effect.ranges);
      case 'set-aside':
        return this.#logger.warn(
          { event: 'record-set-aside', key: effect.key, row: Buffer.from(effect.row).toString('base64') },
          'a record that was superseded elsewhere leaves the store',
        );
      case 'wake':
        return this.#wakeAt(effect.at);
      case 'dial':
        return this.#links?.dial(effect.address);
      case 'close-link':
        return this.#links?.close(effect.link, effect.reason);
      case 'open-scan':
        return this.#openScan(effect);
      case 'read-scan':
        void this.#readScan(effect);
        return;
      case 'plan':
        void this.#plan(effect);
        return;
      case 'close-scan':
        void this.#closeScan(effect.scan);
        return;
      case 'healed':
        return this.healing.healed(effect.id, effect.ok, effect.row);
      case 'removed-member':
        this.#removals.get(effect.id)?.resolve(effect.found);
        this.#removals.delete(effect.id);
        return;
      case 'state':
        return this.#hooks.onState();
      case 'log':
        return this.#logger[effect.level]({ event: effect.event, ...effect.details }, effect.event);
    }
  }

  #persist(effect: Extract<Effect, { type: 'persist' }>): void {
    const { batch } = effect;
    this.#writing = this.#store.write(batch).then(
      () => {
        if (this.#storeGone) return;
        this.#written = batch.id;
        if (this.#store.flushes) this.#flushing ??= this.#flush();
        this.input({ type: 'persisted', batch: batch.id });
      },
      (error: Error) => this.#storeFailed(batch.id, error),
    );
  }

  /** Flushes again and again, until nothing is written that is not flushed. */
  async #flush(): Promise<void> {
    let flushed = 0;
    try {
      while (flushed < this.#written && !this.#storeGone) {
        const upTo = this.#written;
        await this.#store.flush();
        flushed = upTo;
        if (!this.#storeGone) this.input({ type: 'flushed', batch: upTo });
      }
    } catch (error) {
      this.#storeFailed(this.#written, error as Error);
    } finally {
      this.#flushing = undefined;
    }
  }

  #storeFailed(batch: number, error: Error): void {
    if (this.#storeGone) return;
    this.#hooks.onStoreFailed(error);
    this.input({ type: 'persist-failed', batch, message: error.message });
  }

  #wakeAt(at: number | null): void {
    clearTimeout(this.#wake);
    if (at === null) return;
    this.#wake = setTimeout(() => this.input({ type: 'tick' }), Math.max(0, at - performance.now()));
  }

  #openScan(effect: Extract<Effect, { type: 'open-scan' }>): void {
    const { scan, what } = effect;
    const opening = this.#store.snapshot().then((snapshot): Scan => {
      const cursor =
        'above' in what
          ? snapshot.above(what.above)
          : snapshot.rows({
              ...(what.after === null ? {} : { gt: what.after }),
              ...(what.until === null ? {} : { lte: what.until }),
            });
      return { snapshot, cursor };
    });
    this.#scans.set(scan, opening);
    opening.then(
      ({ snapshot }) => this.input({ type: 'scan-opened', scan, heads: snapshot.heads }),
      (error: Error) => this.input({ type: 'scan-failed', scan, message: error.message }),
    );
  }

  async #readScan(effect: Extract<Effect, { type: 'read-scan' }>): Promise<void> {
    const { scan, rowsMax, bytesMax } = effect;
    const opening = this.#scans.get(scan);
    if (opening === undefined) return;
    try {
      const { cursor, snapshot } = await opening;
      const records = await cursor.next(rowsMax, bytesMax);
      const last = records.keys.length === 0;
      const tops = last ? await snapshot.tops() : undefined;
      this.input({ type: 'scan-read', scan, records, last, ...(tops === undefined ? {} : { tops }) });
    } catch (error) {
      const damaged = damagedIn(error);
      if (isReadmeshError(error) && error.code === 'DAMAGED') this.#hooks.onDamage(damaged?.key);
      if (damaged !== undefined && effect.skipDamaged === true) {
        const records = { keys: [], rows: [] };
        return this.input({ type: 'scan-read', scan, records, last: false, damaged: [damaged.key] });
      }
      const { message } = error as Error;
      this.input({ type: 'scan-failed', scan, message, ...(damaged === undefined ? {} : { damaged }) });
    }
  }

  async #plan({ plan, rangeBytes, rangesMax, shares }: Extract<Effect, { type: 'plan' }>): Promise<void> {
    try {
      this.input({ type: 'planned', plan, ...(await this.#store.plan(rangeBytes, rangesMax, shares)) });
    } catch (error) {
      this.#logger.warn({ event: 'plan-failed' }, (error as Error).message);
      this.input({ type: 'planned', plan, keys: [], entries: 0, bytes: 0 });
    }
  }

  async #closeScan(scan: number): Promise<void> {
    const opening = this.#scans.get(scan);
    this.#scans.delete(scan);
    try {
      const open = await opening;
      await open?.cursor.close();
      await open?.snapshot.close();
    } catch (error) {
      this.#logger.warn({ event: 'scan-close-failed' }, (error as Error).message);
    }
  }
}

/** Which record a cursor could not read; undefined for any other error. */
function damagedIn(error: unknown): { key: string; dot?: Dot } | undefined {
  if (!isReadmeshError(error) || error.code !== 'DAMAGED') return undefined;
  const { key, origin, seq } = error.details;
  if (typeof key !== 'string') return undefined;
  return typeof origin === 'string' && typeof seq === 'number' ? { key, dot: { origin, seq } } : { key };
}

export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
