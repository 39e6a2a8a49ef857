/** One simulated node: the core that the daemon runs, a disk in memory and a clock that is a little off. */
import { checksum } from '../../src/checksum.js';
import { encodeMeta } from '../../src/core/core.js';
import { originOf, seqOf } from '../../src/core/entry.js';
import type { Effect, Input, LocalOp } from '../../src/core/io.js';
import { ReplicaCore } from '../../src/core/replica.js';
import type { MemberRow, OriginId, Records, Row, StoreBatch } from '../../src/core/types.js';
import type { CoreOptions } from '../../src/options.js';
import type { Events, Random } from './events.js';
import type { Network, Wire } from './network.js';
import type { Place } from './regions.js';

/** 1 January 2026: any fixed date serves. */
const WALL_START = 1_767_225_600_000;
/** One write to the disk, and its flush, ms: from, to. */
const WRITE_MS = [0.1, 0.2] as const;
const FLUSH_MS = [0.2, 1.2] as const;

class Disk {
  readonly rows = new Map<string, Row>();
  readonly heads = new Map<OriginId, number>();

  apply(batch: StoreBatch): void {
    for (const [key, { row }] of batch.rows) this.rows.set(key, row);
    for (const key of batch.removals?.keys() ?? []) this.rows.delete(key);
    for (const [origin, head] of batch.heads) this.heads.set(origin, head);
  }

  tops(): Map<OriginId, number> {
    const tops = new Map<OriginId, number>();
    for (const row of this.rows.values())
      tops.set(originOf(row), Math.max(tops.get(originOf(row)) ?? 0, seqOf(row)));
    return tops;
  }

  above(heads: ReadonlyMap<OriginId, number>): Records {
    const found = [...this.rows].filter(([, row]) => seqOf(row) > (heads.get(originOf(row)) ?? 0));
    return { keys: found.map(([key]) => key), rows: found.map(([, row]) => row) };
  }

  /** Keys of the simulation are ASCII: their order as text is their order as bytes. */
  after(key: string | null, to?: string): Records {
    const keys = [...this.rows.keys()]
      .filter((k) => (key === null || k > key) && (to === undefined || k <= to))
      .sort();
    return { keys, rows: keys.map((k) => this.rows.get(k)!) };
  }
}

export interface NodeSetup {
  readonly name: string;
  readonly place: Place;
  readonly options: CoreOptions;
  readonly join: readonly string[];
  /** The cluster it belongs to already, with its member table; undefined: its store is new. */
  readonly member: { uid: string; origin: OriginId; rows: readonly MemberRow[] } | undefined;
}

export class ScaleNode {
  readonly name: string;
  readonly place: Place;
  readonly disk = new Disk();
  readonly core: ReplicaCore;
  alive = false;
  messagesIn = 0;
  /** Told of every batch written. */
  onWritten: ((keys: readonly string[]) => void) | undefined;
  onSettled: ((id: number, ok: boolean) => void) | undefined;
  readonly #events: Events;
  readonly #network: Network;
  readonly #random: Random;
  readonly #clockOffset: number;
  readonly #wires = new Map<number, Wire>();
  readonly #scans = new Map<number, { records: Records; at: number; tops: ReadonlyMap<OriginId, number> }>();
  readonly #inputs: Input[] = [];
  #busy = false;
  #links = 0;
  #cancelWake: (() => void) | undefined;

  constructor(events: Events, network: Network, random: Random, setup: NodeSetup) {
    this.name = setup.name;
    this.place = setup.place;
    this.#events = events;
    this.#network = network;
    this.#random = random;
    this.#clockOffset = Math.floor(random.between(-50, 50));
    const { member } = setup;
    const meta = new Map<string, Uint8Array>();
    if (member !== undefined) {
      const { uid, origin, rows } = member;
      meta.set(
        'node',
        encodeMeta({ cluster: 'scale', name: setup.name, uid, origin, phase: 'ready', founder: false }),
      );
      meta.set('members', encodeMeta({ rows, removed: [] }));
    }
    this.core = new ReplicaCore(
      {
        cluster: 'scale',
        name: setup.name,
        host: setup.name,
        address: this.address,
        join: setup.join,
        found: false,
        run: random.hex(16),
        reuseOrigin: member !== undefined,
        flushes: true,
        options: setup.options,
      },
      {
        lookup: (key) => this.disk.rows.get(key),
        checksum,
        random: random.next,
        recovered: { heads: new Map(), tops: new Map(), hlc: { ms: 0, counter: 0 }, meta },
      },
    );
    network.register(this);
  }

  get address(): string {
    return `${this.name}:7700`;
  }

  start(): void {
    this.alive = true;
    this.input({ type: 'start' });
  }

  /** Power loss: it says nothing more, and nobody is told. */
  vanish(): void {
    this.alive = false;
    this.#cancelWake?.();
    this.#wires.clear();
  }

  write(id: number, op: LocalOp): void {
    this.input({ type: 'writes', writes: [{ id, ops: [op] }] });
  }

  newLink(): number {
    return ++this.#links;
  }

  attach(link: number, wire: Wire): void {
    this.#wires.set(link, wire);
  }

  detach(link: number): boolean {
    return this.#wires.delete(link);
  }

  get links(): number {
    return this.#wires.size;
  }

  /** Names of those it is linked to. */
  get peers(): string[] {
    return this.core.linked().map((peer) => peer.name);
  }

  /** One input at a time, all its effects before the next. */
  input(input: Input): void {
    this.#inputs.push(input);
    if (this.#busy) return;
    this.#busy = true;
    for (let next = this.#inputs.shift(); next !== undefined && this.alive; next = this.#inputs.shift()) {
      const { now } = this.#events;
      const instant = { wall: WALL_START + Math.floor(now) + this.#clockOffset, mono: now };
      for (const effect of this.core.handle(next, instant)) this.#carryOut(effect);
    }
    this.#busy = false;
  }

  #later(ms: number, run: () => void): void {
    this.#events.after(ms, () => {
      if (this.alive) run();
    });
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case 'persist': {
        const { batch } = effect;
        return this.#later(this.#random.between(...WRITE_MS), () => {
          this.disk.apply(batch);
          if (batch.rows.size > 0) this.onWritten?.([...batch.rows.keys()]);
          this.input({ type: 'persisted', batch: batch.id });
          this.#later(this.#random.between(...FLUSH_MS), () => {
            this.input({ type: 'flushed', batch: batch.id });
          });
        });
      }
      case 'send': {
        const wires: Wire[] = [];
        for (const link of effect.links) {
          const wire = this.#wires.get(link);
          if (wire !== undefined) wires.push(wire);
        }
        if (wires.length > 0) this.#network.send(this, wires, effect.message);
        return;
      }
      case 'dial':
        return this.#network.dial(this, effect.address);
      case 'close-link': {
        const wire = this.#wires.get(effect.link);
        if (wire !== undefined) this.#network.close(this, wire);
        return;
      }
      case 'open-scan': {
        const { scan, what } = effect;
        const records =
          'above' in what
            ? this.disk.above(what.above)
            : this.disk.after(what.after, what.until ?? undefined);
        const heads = new Map(this.disk.heads);
        this.#scans.set(scan, { records, at: 0, tops: this.disk.tops() });
        return this.#later(0.2, () => this.input({ type: 'scan-opened', scan, heads }));
      }
      case 'read-scan':
        return this.#readScan(effect.scan, effect.rowsMax, effect.bytesMax);
      case 'plan': {
        // Copies here are small: one range.
        const { plan } = effect;
        return this.#later(0.2, () => this.input({ type: 'planned', plan, keys: [], entries: 0, bytes: 0 }));
      }
      case 'close-scan':
        this.#scans.delete(effect.scan);
        return;
      case 'wake': {
        this.#cancelWake?.();
        if (effect.at === null) return;
        this.#cancelWake = this.#events.after(effect.at - this.#events.now, () =>
          this.input({ type: 'tick' }),
        );
        return;
      }
      case 'settled':
        for (const { id } of effect.writes) this.onSettled?.(id, true);
        return;
      case 'rejected':
        return this.onSettled?.(effect.id, false);
      case 'changed':
      case 'state':
      case 'log':
      case 'set-aside':
      case 'removed-member':
        return;
    }
  }

  #readScan(id: number, rowsMax: number, bytesMax: number): void {
    this.#later(0.2, () => {
      const scan = this.#scans.get(id);
      if (scan === undefined) return;
      const keys: string[] = [];
      const rows: Row[] = [];
      for (let bytes = 0; scan.at < scan.records.keys.length && keys.length < rowsMax; scan.at++) {
        const row = scan.records.rows[scan.at]!;
        if (keys.length > 0 && bytes + row.length > bytesMax) break;
        bytes += row.length;
        keys.push(scan.records.keys[scan.at]!);
        rows.push(row);
      }
      const last = scan.at >= scan.records.keys.length;
      const { tops } = scan;
      this.input({ type: 'scan-read', scan: id, records: { keys, rows }, last, ...(last ? { tops } : {}) });
    });
  }
}
