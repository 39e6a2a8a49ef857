/**
 * One simulated host: a process that runs the replication core, with the disk, the clock and the power of its
 * machine. It is the second driver of the core, and keeps the same contract as the production one: one input,
 * all its effects, the next input; every request to the disk or the network is answered once.
 */
import { crc32 } from 'node:zlib';
import { checksum, isIntact } from '../../src/checksum.js';
import { type Receipt, receiptOf } from '../../src/core/acknowledgements.js';
import type { ReplicaConfig } from '../../src/core/core.js';
import { DAMAGED, type Found } from '../../src/core/heal.js';
import type { Effect, Input, LinkId, LocalOp } from '../../src/core/io.js';
import type { ReplicaCore } from '../../src/core/replica.js';
import type { Instant, Records, Row, StoreBatch } from '../../src/core/types.js';
import { decodeMessage, encodeMessage } from '../../src/protocol.js';
import { boundaries } from '../../src/storage/range-plan.js';
import { Disk, Image } from './disk.js';
import { Violation } from './faults.js';
import type { Wire } from './network.js';
import type { Random } from './random.js';
import { SetAside } from './set-aside.js';
import type { World } from './world.js';

export interface NodeSettings {
  readonly name: string;
  /** Label by which acknowledging hosts are counted; default the name. */
  readonly host?: string;
  readonly join?: readonly string[];
  readonly found?: boolean;
  readonly cluster?: string;
  /** Default true. */
  readonly flushes?: boolean;
  /** Default `name:1`. */
  readonly address?: string;
  /** Its driver sets a store aside that the cluster went on without, as the production one does. Default: as in all of the world. */
  readonly returns?: boolean;
}

export interface WriteOptions {
  readonly replicas?: number;
  readonly fsync?: boolean;
  readonly timeoutMs?: number;
}

export type WriteResult =
  | { ok: true; stamp: string; replicas: number; superseded: boolean; token: string }
  | { ok: false; code: string; hosts?: number; stamp?: string };

/** How one write ended, as the core says it. */
export type Answer =
  | { readonly type: 'settled'; readonly id: number; readonly receipt: Receipt }
  | Extract<Effect, { type: 'rejected' }>;

/** A write that was issued and not yet answered. */
export interface OpenWrite {
  readonly id: number;
  readonly ops: readonly LocalOp[];
  readonly options: WriteOptions;
  readonly issuedAt: number;
  readonly done: ((result: WriteResult) => void) | undefined;
}

/** Longest time until the scrub comes by a damaged record, ms. */
const SCRUB_MS = 4_000;

interface Scan {
  records: Records;
  at: number;
  tops: ReadonlyMap<string, number>;
}

/** Faults of the disk that are yet to show. */
export interface DiskFaults {
  nextWrite: 'lost' | 'kept' | undefined;
  nextRead: boolean;
  full: boolean;
  slowMs: number;
}

export class SimNode {
  readonly world: World;
  readonly settings: NodeSettings;
  readonly id: number;
  readonly disk: Disk;
  core: ReplicaCore | undefined;
  readonly wires = new Map<LinkId, Wire>();
  alive = false;
  paused = false;
  poweredOn = true;
  incarnation = 0;
  /** Its clock is off by this much, ms; or stands still at a time. */
  clockOffsetMs = 0;
  frozenWall: number | undefined;
  readonly diskFaults: DiskFaults = { nextWrite: undefined, nextRead: false, full: false, slowMs: 0 };
  /** Look-ups and scans that met a damaged record. */
  damaged = 0;
  /** When it last went on after a stop. */
  stalledAt = Number.NEGATIVE_INFINITY;
  readonly open = new Map<number, OpenWrite>();
  /** Reads that wait for a peer's answer. */
  readonly heals = new Map<number, ((ok: boolean, row: Row | undefined) => void) | undefined>();
  readonly scans = new Map<number, Scan>();
  readonly aside: SetAside;
  readonly #random: Random;
  readonly #inputs: Input[] = [];
  #startedAt = 0;
  #links = 0;
  #writes = 0;
  #heals = 0;
  #busy = false;
  /** The batch in flight, until it is on the disk. */
  #writing: StoreBatch | undefined;
  #flushing = false;
  /** Last batch that is written. */
  #written = 0;
  #nextFlush: 'fails' | undefined;
  #landed = false;
  #writeFailed = false;
  #cancelWake: (() => void) | undefined;

  constructor(world: World, settings: NodeSettings, random: Random, id: number) {
    this.world = world;
    this.settings = settings;
    this.id = id;
    this.#random = random;
    this.disk = new Disk(settings.flushes ?? true);
    this.aside = new SetAside(this);
  }

  get name(): string {
    return this.settings.name;
  }

  get host(): string {
    return this.settings.host ?? this.name;
  }

  get address(): string {
    return this.settings.address ?? `${this.name}:1`;
  }

  get ready(): boolean {
    return this.core?.ready === true;
  }

  now(): Instant {
    const { now } = this.world.scheduler;
    return { wall: this.wall(), mono: now - this.#startedAt };
  }

  wall(): number {
    return this.frozenWall ?? this.world.wall() + this.clockOffsetMs;
  }

  /** `found`: told by its operator to found, or to end a bootstrap that can never finish. */
  start(found = false): void {
    if (this.alive) return;
    this.alive = true;
    this.poweredOn = true;
    this.incarnation += 1;
    this.#startedAt = this.world.scheduler.now;
    this.#writing = undefined;
    this.#flushing = false;
    this.#nextFlush = undefined;
    this.#writeFailed = false;
    const { settings, world } = this;
    const run = this.#random.hex16();
    const reuseOrigin = this.disk.open(run);
    const config: ReplicaConfig = {
      cluster: settings.cluster ?? 'sim',
      name: settings.name,
      host: this.host,
      address: this.address,
      ...this.aside.membership(settings.join ?? [], found || (settings.found ?? false)),
      run,
      reuseOrigin,
      flushes: this.disk.flushes,
      options: world.options,
    };
    this.core = new world.Core(config, {
      lookup: (key) => this.#lookup(key),
      damagedDot: (key) => this.disk.image.damagedDot(key),
      checksum,
      random: this.#random.split().next,
      recovered: this.disk.image.recovered(),
    });
    world.ledger.note(this.name, () => `starts, origin ${reuseOrigin ? 'kept' : 'new'}`);
    world.oracle.started(this);
    this.input({ type: 'start' });
    this.aside.started();
    this.#scrubSoon();
    world.network.resume(this);
  }

  /** SIGKILL. Whatever is in flight to the disk lands as a whole, or not at all. Returns whether anything was. */
  kill(silent = false): boolean {
    if (!this.alive) return false;
    const busy = this.#writing !== undefined || this.open.size > 0;
    this.#tear();
    this.world.ledger.note(this.name, () => (silent ? 'loses power' : 'is killed'));
    this.alive = false;
    this.paused = false;
    this.incarnation += 1;
    this.#cancelWake?.();
    this.#inputs.length = 0;
    this.scans.clear();
    this.heals.clear();
    for (const wire of [...this.wires.values()]) this.world.network.abandon(wire, this, silent);
    this.wires.clear();
    this.core = undefined;
    const open = [...this.open.values()];
    this.open.clear();
    for (const write of open) write.done?.({ ok: false, code: 'KILLED' });
    return busy;
  }

  /** An empty disk in the place of this one. */
  wipe(): void {
    this.kill();
    const before = this.disk.image;
    this.disk.distrust();
    this.disk.replace(new Image());
    this.damaged = 0;
    this.world.oracle.damaged.delete(this);
    const images = [before, ...this.aside.wipe()];
    for (const image of images) this.world.oracle.diskChanged(this, image, true);
  }

  /** Another image in its place: a backup, or a copy. */
  restore(image: Image): void {
    this.kill();
    const before = this.disk.image;
    this.disk.replace(image.clone());
    this.world.oracle.diskChanged(this, before, true);
    this.world.oracle.checkAllHeads(this);
  }

  /**
   * Nobody is told; what was not flushed is lost, but for as much as the kernel had written by itself (at most
   * `keptMax` batches), and the kernel has another boot. Returns the batches lost.
   */
  powerCut(keptMax?: number): number {
    this.kill(true);
    this.poweredOn = false;
    const before = this.disk.image;
    const lost = this.disk.powerCut(this.#random, keptMax);
    if (lost > 0) this.world.oracle.diskChanged(this, before);
    return lost;
  }

  /** SIGSTOP: the world goes on, and what arrives waits. */
  pause(): void {
    if (this.alive) this.paused = true;
  }

  /** SIGCONT. Returns how many inputs had waited. */
  proceed(): number {
    if (!this.paused) return 0;
    this.paused = false;
    this.stalledAt = this.world.scheduler.now;
    const waited = this.#inputs.length;
    this.#drain();
    this.world.network.resume(this);
    return waited;
  }

  write(ops: readonly LocalOp[], options: WriteOptions = {}, done?: (result: WriteResult) => void): void {
    this.writeAll([ops], options, done);
  }

  /** Several writes of one turn of the event loop, each answered on its own. */
  writeAll(
    writes: readonly (readonly LocalOp[])[],
    options: WriteOptions = {},
    done?: (result: WriteResult) => void,
  ): void {
    if (!this.alive) return done?.({ ok: false, code: 'DOWN' });
    const issuedAt = this.world.scheduler.now;
    const input = writes.map((ops) => {
      const id = ++this.#writes;
      this.open.set(id, { id, ops, options, issuedAt, done });
      this.world.oracle.issued(ops);
      return { id, ops, ...options };
    });
    this.input({ type: 'writes', writes: input });
  }

  /** A frame arrived. What cannot be decoded closes the link, as it does in production. */
  receive(link: LinkId, bytes: Uint8Array): void {
    this.world.ledger.mix(bytes.length);
    this.input({ type: 'message', link, message: decodeMessage(bytes) });
  }

  /** A bit of the key's record flips. It is found when it is read, and by the scrub at the latest. */
  flip(key: string, bit: number): void {
    this.disk.flip(key, bit);
    this.#scrubSoon();
  }

  #scrubSoon(): void {
    if (this.disk.image.flipped.size === 0) return;
    this.later(this.#random.between(200, SCRUB_MS), () => {
      const { image } = this.disk;
      for (const key of [...image.flipped.keys()]) {
        if (image.lookup(key) === 'damaged') this.heal(key);
        // The same bit has flipped back.
        else image.flipped.delete(key);
      }
      if (image.flipped.size === 0) this.world.oracle.damaged.delete(this);
      this.#scrubSoon();
    });
  }

  /** A read, or the scrub, met a record that is not what it was. */
  heal(key: string, done?: (ok: boolean, row: Row | undefined) => void): void {
    if (this.disk.image.lookup(key) !== 'damaged') return;
    this.world.ledger.mattered('bitFlip');
    const id = ++this.#heals;
    this.heals.set(id, done);
    this.input({ type: 'damaged', id, key });
  }

  /** A read found nothing where something may have been. */
  confirm(key: string, done: (ok: boolean, row: Row | undefined) => void): void {
    const id = ++this.#heals;
    this.heals.set(id, done);
    this.input({ type: 'confirm', id, key });
  }

  /** Gives the input after the effects of the current one. */
  soon(input: Input): void {
    this.later(0, () => this.input(input));
  }

  input(input: Input): void {
    if (!this.alive) return;
    this.#inputs.push(input);
    if (!this.paused) this.#drain();
  }

  newLink(): LinkId {
    return ++this.#links;
  }

  #lookup(key: string): Found {
    const row = this.disk.image.lookup(key);
    if (row !== 'damaged') return row;
    this.damaged += 1;
    this.world.ledger.mattered('bitFlip');
    return DAMAGED;
  }

  #drain(): void {
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let input = this.#inputs.shift(); input !== undefined; input = this.#inputs.shift()) {
        const { core, world } = this;
        if (core === undefined) return;
        world.ledger.mix(this.id * 64 + input.type.length);
        const effects = core.handle(input, this.now());
        world.oracle.beforeEffects(this, input);
        for (const effect of effects) this.#carryOut(effect);
        world.oracle.afterInput(this, input);
        world.afterInput?.(this);
      }
    } finally {
      this.#busy = false;
    }
  }

  /** Unless this process has ended by then. */
  later(ms: number, run: () => void): void {
    const { incarnation } = this;
    this.world.scheduler.after(ms, () => {
      if (this.incarnation === incarnation) run();
    });
  }

  #carryOut(effect: Effect): void {
    const { world } = this;
    switch (effect.type) {
      case 'persist':
        return this.#persist(effect.batch);
      case 'send': {
        world.oracle.sending(this, effect.links, effect.message);
        const bytes = encodeMessage(effect.message);
        if (bytes.length > world.options.frameBytesMax)
          throw new Violation('caps', `a ${effect.message.type} of ${bytes.length} bytes`);
        world.oracle.largestFrame = Math.max(world.oracle.largestFrame, bytes.length);
        if (world.hashBytes) world.ledger.mix(crc32(bytes));
        const kind = { bestEffort: effect.bestEffort, push: effect.message.type === 'push' };
        for (const link of effect.links) world.network.send(this, link, bytes, kind);
        return;
      }
      case 'dial':
        return world.network.dial(this, effect.address);
      case 'close-link': {
        const wire = this.wires.get(effect.link);
        if (wire !== undefined) world.network.close(wire, this);
        return;
      }
      case 'open-scan':
        return this.#openScan(effect);
      case 'read-scan':
        return this.later(this.#diskMs(), () => this.#readScan(effect));
      case 'plan':
        return this.later(this.#diskMs(), () => this.#plan(effect));
      case 'close-scan':
        this.scans.delete(effect.scan);
        return;
      case 'settled':
        for (const write of effect.writes)
          this.#answer({ type: 'settled', id: write.id, receipt: receiptOf(write) });
        return;
      case 'rejected':
        return this.#answer(effect);
      case 'wake': {
        this.#cancelWake?.();
        this.#cancelWake = undefined;
        if (effect.at === null) return;
        const { incarnation } = this;
        // Real timers come up to a millisecond early, as their clock is a coarser one.
        const wait = effect.at + this.#startedAt - world.scheduler.now - this.#random.next();
        this.#cancelWake = world.scheduler.after(Math.max(0.01, wait), () => {
          if (this.incarnation === incarnation) this.input({ type: 'tick' });
        });
        return;
      }
      case 'log':
        if (effect.event === 'origin-sealed') world.ledger.mattered('originSealed');
        if (effect.event === 'origin-forgotten') world.ledger.mattered('originForgotten');
        if (effect.event === 'excluded') world.ledger.mattered('excluded');
        if (effect.event === 'no-majority') world.ledger.mattered('noMajority');
        if (effect.event === 'rebuilding') world.ledger.mattered('missedForgetting');
        if (effect.event === 'outdated') world.ledger.mattered('outdated');
        return world.ledger.note(this.name, () => `${effect.event} ${JSON.stringify(effect.details)}`);
      case 'set-aside':
        return world.ledger.note(this.name, () => `sets ${effect.key} aside`);
      case 'healed': {
        const done = this.heals.get(effect.id);
        this.heals.delete(effect.id);
        done?.(effect.ok, effect.row);
        return;
      }
      case 'state':
        if ((this.settings.returns ?? world.setsAside) && this.core?.identity.phase === 'outdated')
          this.later(0, () => this.aside.replaceStore());
        return;
      case 'prepare':
      case 'collected':
        return world.ledger.mattered('collected');
      case 'changed':
      case 'reclaim':
      case 'removed-member':
        return;
    }
  }

  #answer(effect: Answer): void {
    const write = this.open.get(effect.id);
    if (write === undefined) throw new Violation('answers', `write ${effect.id} was answered twice`);
    this.open.delete(effect.id);
    this.world.oracle.answered(this, write, effect);
    if (effect.type === 'settled') {
      write.done?.({ ok: true, ...effect.receipt });
      return;
    }
    const { code, details } = effect;
    write.done?.({
      ok: false,
      code,
      ...(details?.stamp === undefined ? {} : { stamp: details.stamp as string }),
      ...(details?.hosts === undefined ? {} : { hosts: details.hosts as number }),
    });
  }

  #diskMs(): number {
    const { slowMs } = this.diskFaults;
    if (slowMs > 0) this.world.ledger.mattered('slowDisk');
    return this.#random.between(0.1, this.world.diskMs) + this.#random.between(0, slowMs);
  }

  #persist(batch: StoreBatch): void {
    if (this.#writing !== undefined) throw new Violation('contract', 'a second batch while one is in flight');
    if (this.#writeFailed) throw new Violation('contract', 'a batch after a failed one');
    this.#writing = batch;
    this.#landed = false;
    const half = this.#diskMs() / 2;
    this.later(half, () => {
      const failure = this.diskFaults.full ? 'lost' : this.diskFaults.nextWrite;
      const atFlush = failure === 'kept' && this.disk.flushes && this.#random.chance(0.5);
      if (atFlush) this.#nextFlush = 'fails';
      else if (failure !== undefined) return this.#failWrite(batch, failure);
      this.world.oracle.apply(this, batch);
      this.#landed = true;
      this.later(half, () => {
        this.#writing = undefined;
        if (this.#writeFailed) return;
        this.#written = batch.id;
        if (!this.disk.flushes) this.disk.count();
        else if (!this.#flushing) this.#flush();
        this.world.oracle.persisted(this);
        this.input({ type: 'persisted', batch: batch.id });
      });
    });
  }

  /** Again and again, until nothing is written that is not flushed. */
  #flush(): void {
    this.#flushing = true;
    const batch = this.#written;
    const count = this.disk.unflushed - (this.#landed && this.#writing !== undefined ? 1 : 0);
    this.later(this.#diskMs(), () => {
      if (this.#writeFailed) return;
      if (this.#nextFlush === 'fails') return this.#failFlush(batch);
      this.disk.flush(count);
      this.disk.count();
      this.input({ type: 'flushed', batch });
      if (this.#written > batch) this.#flush();
      else this.#flushing = false;
    });
  }

  #failFlush(batch: number): void {
    const { ledger } = this.world;
    this.diskFaults.nextWrite = undefined;
    this.#writeFailed = true;
    ledger.mattered('flushError');
    ledger.note(this.name, () => 'a flush fails');
    this.disk.distrust();
    this.input({ type: 'persist-failed', batch, message: 'simulated' });
  }

  /** The process ends while a batch is in flight. */
  #tear(): void {
    const batch = this.#writing;
    this.#writing = undefined;
    if (batch === undefined || this.#landed) return;
    const lands =
      !this.diskFaults.full && this.diskFaults.nextWrite === undefined && this.#random.chance(0.5);
    this.world.ledger.mattered(lands ? 'tornBatchLanded' : 'tornBatchLost');
    if (lands) this.world.oracle.apply(this, batch);
  }

  #failWrite(batch: StoreBatch, failure: 'lost' | 'kept'): void {
    const { ledger, oracle } = this.world;
    this.diskFaults.nextWrite = undefined;
    this.#writing = undefined;
    this.#writeFailed = true;
    ledger.mattered(
      this.diskFaults.full ? 'diskFull' : failure === 'lost' ? 'writeErrorLost' : 'writeErrorKept',
    );
    ledger.note(this.name, () => `a write fails, ${failure}`);
    if (failure === 'kept') oracle.apply(this, batch);
    this.disk.distrust();
    this.input({ type: 'persist-failed', batch: batch.id, message: 'simulated' });
  }

  #openScan(effect: Extract<Effect, { type: 'open-scan' }>): void {
    const { scan, what } = effect;
    const above = 'above' in what ? what.above : undefined;
    const [after, until] = 'after' in what ? [what.after, what.until] : [null, null];
    const opened: Scan = { records: { keys: [], rows: [] }, at: 0, tops: new Map() };
    this.scans.set(scan, opened);
    this.later(this.#diskMs(), () => {
      if (!this.scans.has(scan)) return;
      const { image } = this.disk;
      opened.records = above === undefined ? image.between(after, until) : image.above(above);
      opened.tops = image.tops();
      this.input({ type: 'scan-opened', scan, heads: new Map(image.heads) });
    });
  }

  #plan({ plan, rangeBytes, rangesMax }: Extract<Effect, { type: 'plan' }>): void {
    const { keys, rows } = this.disk.image.between(null, null);
    const sizes = keys.map((key, i) => ({ key, bytes: key.length + rows[i]!.length }));
    const bytes = sizes.reduce((sum, size) => sum + size.bytes, 0);
    const split = boundaries(sizes, bytes, rangeBytes, rangesMax);
    this.input({ type: 'planned', plan, keys: split, entries: keys.length, bytes });
  }

  #readScan(effect: Extract<Effect, { type: 'read-scan' }>): void {
    const { scan: id, rowsMax, bytesMax } = effect;
    const scan = this.scans.get(id);
    if (scan === undefined) return;
    const { world, diskFaults } = this;
    const fail = (message: string): void => this.input({ type: 'scan-failed', scan: id, message });
    if (diskFaults.nextRead) {
      diskFaults.nextRead = false;
      world.ledger.mattered('readError');
      return fail('simulated');
    }
    const keys: string[] = [];
    const rows: Row[] = [];
    let bytes = 0;
    for (; scan.at < scan.records.keys.length && keys.length < rowsMax; scan.at++) {
      const key = scan.records.keys[scan.at]!;
      const row = scan.records.rows[scan.at]!;
      if (!isIntact(key, row) || this.disk.image.lookup(key) === 'damaged') {
        // What comes before it is handed out first, and the next read goes on behind it.
        if (keys.length > 0) break;
        scan.at += 1;
        this.damaged += 1;
        world.ledger.mattered('bitFlip');
        if (effect.skipDamaged === true) {
          const records = { keys: [], rows: [] };
          return this.input({ type: 'scan-read', scan: id, records, last: false, damaged: [key] });
        }
        const message = `the record of ${key} is damaged`;
        return this.input({ type: 'scan-failed', scan: id, message, damaged: { key } });
      }
      if (keys.length > 0 && bytes + row.length > bytesMax) break;
      keys.push(key);
      rows.push(row);
      bytes += row.length;
    }
    const last = keys.length === 0;
    const { tops } = scan;
    this.input({
      type: 'scan-read',
      scan: id,
      records: { keys, rows },
      last,
      ...(last ? { tops } : {}),
    });
  }
}
