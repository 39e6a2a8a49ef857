/** Carries out the faults of a plan: each begins at its event and ends by itself, or when the run is healed. */
import { decodeMeta } from '../../src/core/core.js';
import { compareEntries } from '../../src/core/entry.js';
import type { OriginId } from '../../src/core/types.js';
import type { Image } from './disk.js';
import type { FaultKind } from './faults.js';
import type { SimNode } from './node.js';
import type { EventKind, Plan, PlanEvent } from './plan.js';
import type { World } from './world.js';

/** Of a draw in [0, 1): log-uniform between the two. */
function scale(draw: number, from: number, to: number): number {
  return from * (to / from) ** draw;
}

/** How often a node that was emptied is looked at, each millisecond, for the moment to break its copying off. */
const INTERRUPT_LOOKS = 3_000;

/** How often a node whose power is to be cut is looked at, each tenth of a millisecond, for the worst moment. */
const POWER_CUT_LOOKS = 2_000;

/** Whether the store, as it lies on disk, belongs to a node that holds everything. */
export function isReadyOnDisk(node: SimNode): boolean {
  return decodeMeta<{ phase: string }>(node.disk.image.meta.get('node'))?.phase === 'ready';
}

/** Which founding the store belongs to; empty while it has found none. */
export function clusterOnDisk(node: SimNode): string | undefined {
  return decodeMeta<{ uid: string }>(node.disk.image.meta.get('node'))?.uid;
}

/** Under which origin the store goes on, or went on last; undefined while it is empty. */
export function originOnDisk(node: SimNode): OriginId | undefined {
  return originIn(node.disk.image);
}

export function originIn({ meta }: Image): OriginId | undefined {
  return decodeMeta<{ origin: OriginId }>(meta.get('node'))?.origin;
}

/** Whether the store says of itself that it missed no forgetting of an ended origin. */
export function hasMissedNothing(node: SimNode): boolean {
  const seals = decodeMeta<{ proven: boolean }>(node.disk.image.meta.get('seals'));
  return seals?.proven ?? isReadyOnDisk(node);
}

export class Injector {
  healed = false;
  readonly clones: SimNode[] = [];
  readonly #world: World;
  readonly #nodes: readonly SimNode[];
  readonly #allComeBack: boolean;
  readonly #backups = new Map<PlanEvent, Image>();

  constructor(world: World, plan: Plan, nodes: readonly SimNode[]) {
    this.#world = world;
    this.#nodes = nodes;
    this.#allComeBack = plan.minority === 'none';
    for (const event of plan.events)
      if (event.kind === 'restoreBackup')
        world.scheduler.after(event.at * event.b, () => {
          this.#backups.set(event, nodes[event.node]!.disk.image.clone());
        });
  }

  inject(event: PlanEvent): void {
    const node = this.#nodes[event.node]!;
    this.#world.ledger.note(node.name, () => `fault: ${event.kind}`);
    this.#world.ledger.mix(event.kind.length);
    const run: Record<Exclude<EventKind, 'write'>, () => void> = {
      kill: () => this.#kill(node, event),
      stop: () => this.#stop(node, 'stop', scale(event.a, 200, 6_000)),
      blockedLoop: () => this.#stop(node, 'blockedLoop', scale(event.a, 20, 900)),
      powerCut: () => this.#powerCut(node, event),
      writeErrorLost: () => this.#writeError(node, 'lost', event),
      writeErrorKept: () => this.#writeError(node, 'kept', event),
      diskFull: () => this.#diskFull(node, event),
      readError: () => {
        node.diskFaults.nextRead = true;
      },
      bitFlip: () => this.#bitFlip(node, event),
      slowDisk: () => {
        node.diskFaults.slowMs = scale(event.b, 5, 400);
        this.#end(event, () => {
          node.diskFaults.slowMs = 0;
        });
      },
      wipe: () => this.#wipe(node, event),
      restoreBackup: () => this.#restore(node, event),
      clone: () => this.#clone(node, event),
      remove: () => this.#remove(node, event),
      cut: () => this.#cut(node, event, 'cut'),
      cutOneWay: () => this.#cut(node, event, 'cutOneWay'),
      flap: () => this.#flap(node, event),
      linkBreak: () => this.#linkBreak(node, event),
      delaySpike: () => this.#path(node, event, 'extraDelayMs', scale(event.b, 100, 1_500), 0),
      slowLink: () => this.#path(node, event, 'bandwidth', scale(event.b, 0.5, 32), undefined),
      clockForward: () => this.#clock(node, event, scale(event.b, 300, 30_000)),
      clockBack: () => this.#clock(node, event, -scale(event.b, 300, 30_000)),
      clockFreeze: () => this.#freeze(node, event),
    };
    run[event.kind as Exclude<EventKind, 'write'>]();
  }

  /** The clones are gone for good. */
  removeClones(): void {
    for (const clone of this.clones) this.#removeClone(clone);
  }

  /** Runs when the fault is over, unless the run was healed before. */
  #end(event: PlanEvent, run: () => void, msMax = 6_000): void {
    this.#later(scale(event.a, 100, msMax), run);
  }

  #later(ms: number, run: () => void): void {
    this.#world.scheduler.after(ms, () => {
      if (!this.healed) run();
    });
  }

  #mattered(kind: FaultKind): void {
    this.#world.ledger.mattered(kind);
  }

  #start(node: SimNode): void {
    if (!this.clones.includes(node)) node.start();
  }

  #kill(node: SimNode, event: PlanEvent): void {
    if (!node.alive) return;
    if (node.kill()) this.#mattered('kill');
    this.#end(event, () => this.#start(node));
  }

  #stop(node: SimNode, kind: 'stop' | 'blockedLoop', ms: number): void {
    if (!node.alive || node.paused) return;
    node.pause();
    this.#later(ms, () => {
      if (node.proceed() > 0) this.#mattered(kind);
    });
  }

  /** Where disks flush, half of them come when a batch is written and not flushed yet, as is seldom so by chance. */
  #powerCut(node: SimNode, event: PlanEvent, looks = event.c < 0.5 ? POWER_CUT_LOOKS : 0): void {
    if (!node.alive) return;
    if (node.disk.flushes && node.disk.unflushed === 0 && looks > 0)
      return this.#later(0.1, () => this.#powerCut(node, event, looks - 1));
    const links = node.wires.size;
    // No two disks may be empty at once (`#mayLose`).
    const isLast = this.#nodes.some((other) => other !== node && (clusterOnDisk(other) ?? '') === '');
    if (isLast && node.disk.mayBeEmptied) node.disk.writeBack();
    if (node.powerCut() > 0) this.#mattered(node.disk.flushes ? 'unflushedTail' : 'lostTail');
    if (links > 0) this.#mattered('powerCut');
    this.#end(event, () => this.#start(node));
  }

  #writeError(node: SimNode, what: 'lost' | 'kept', event: PlanEvent): void {
    node.diskFaults.nextWrite = what;
    this.#end(event, () => this.#restartFailed(node));
  }

  #diskFull(node: SimNode, event: PlanEvent): void {
    node.diskFaults.full = true;
    // A supervisor that cannot know restarts it while the disk is still full.
    this.#later(scale(event.b, 50, 2_000), () => this.#restartFailed(node));
    this.#end(event, () => {
      node.diskFaults.full = false;
      this.#restartFailed(node);
    });
  }

  #restartFailed(node: SimNode): void {
    node.diskFaults.nextWrite = undefined;
    if (node.core?.identity.phase !== 'failed') return;
    node.kill();
    this.#start(node);
  }

  /**
   * All others hold everything, so that losing this disk loses no more than was promised. Nor may two disks be
   * empty at once: an emptied founder founds anew until a member reaches it, and must not find an emptied joiner
   * first. Two clusters with members are never merged; that takes an operator.
   */
  #mayLose(node: SimNode): boolean {
    const others = this.#nodes.filter((other) => other !== node);
    const uid = clusterOnDisk(node) ?? clusterOnDisk(others[0]!);
    return others.every(
      (other) =>
        isReadyOnDisk(other) && clusterOnDisk(other) === uid && !this.#world.oracle.damaged.has(other),
    );
  }

  /** Of a record that others hold, too, and will in the end: one that never left its node is lost with it. */
  #bitFlip(node: SimNode, event: PlanEvent): void {
    if (!node.disk.flushes || !this.#mayLose(node)) return;
    const others = this.#nodes.filter((other) => other !== node);
    const keys = [...node.disk.image.rows].flatMap(([key, row]) => {
      const isHeld = (other: SimNode): boolean => {
        const held = other.disk.image.rows.get(key);
        return held !== undefined && compareEntries(held, row) >= 0;
      };
      return (this.#allComeBack ? others.some(isHeld) : others.every(isHeld)) ? [key] : [];
    });
    if (keys.length === 0) return;
    this.#world.oracle.diskDamaged(node);
    // Often several, next to each other as in a block.
    const first = Math.floor(event.b * keys.length);
    for (const key of keys.slice(first, first + 1 + Math.floor(event.c * 4)))
      node.flip(key, Math.floor(event.c * 4_096));
  }

  #wipe(node: SimNode, event: PlanEvent): void {
    if (!this.#mayLose(node)) return;
    if (node.disk.image.rows.size > 0) this.#mattered('wipe');
    node.wipe();
    this.#end(event, () => {
      this.#start(node);
      if (event.c < 0.6) this.#interrupt(node, event, INTERRUPT_LOOKS);
    });
  }

  /** The copying that follows is broken off once it has brought something: at its end, or at that of its sources. */
  #interrupt(node: SimNode, event: PlanEvent, looks: number): void {
    if (node.ready || looks === 0) return;
    const { entries, sources } = node.core?.bootstrap ?? { entries: 0, sources: [] };
    if (entries <= event.b * 8) return this.#later(1, () => this.#interrupt(node, event, looks - 1));
    this.#mattered('bootstrapCrash');
    const names = event.c < 0.4 ? [node.name] : sources.map(({ name }) => name);
    const killed = this.#nodes.filter((other) => names.includes(other.name) && other.alive);
    for (const other of killed) other.kill();
    this.#later(scale(event.a, 5, 500), () => {
      for (const other of killed) this.#start(other);
    });
  }

  /** An operator removes a member, whose host then comes back with an empty disk under the same name. */
  #remove(node: SimNode, event: PlanEvent): void {
    const other = this.#other(node, event.b);
    if (!this.#mayLose(node) || !other.ready || other.paused) return;
    if (other.core!.members.byName(node.name) !== undefined) this.#mattered('remove');
    other.input({ type: 'remove-member', id: 1, name: node.name });
    node.wipe();
    this.#end(event, () => this.#start(node));
  }

  #restore(node: SimNode, event: PlanEvent): void {
    const backup = this.#backups.get(event);
    if (backup === undefined || backup.meta.size === 0 || !this.#mayLose(node)) return;
    if (this.#world.oracle.damaged.has(node) || this.#world.oracle.isOutdated(backup)) return;
    const before = node.disk.image;
    if (before.run.nonce !== backup.run.nonce || before.run.batches > backup.run.batches)
      this.#mattered('restoreBackup');
    node.restore(backup);
    this.#end(event, () => this.#start(node));
  }

  /** A copy of the disk is started on another machine, under the same name. */
  #clone(node: SimNode, event: PlanEvent): void {
    if (node.disk.image.meta.size === 0 || this.clones.length > 1 || this.#world.oracle.damaged.has(node))
      return;
    const clone = this.#world.add({ ...node.settings, address: `${node.name}:${2 + this.clones.length}` });
    this.clones.push(clone);
    clone.disk.replace(node.disk.image.clone());
    clone.start();
    this.#end(event, () => this.#removeClone(clone));
  }

  #removeClone(clone: SimNode): void {
    const core = clone.core;
    if (core === undefined) return;
    if (core.issues().length > 0 || core.linked().length > 0) this.#mattered('clone');
    clone.wipe();
  }

  #other(node: SimNode, draw: number): SimNode {
    const others = this.#nodes.filter((other) => other !== node);
    return others[Math.floor(draw * others.length)]!;
  }

  #cut(node: SimNode, event: PlanEvent, kind: 'cut' | 'cutOneWay'): void {
    const { network } = this.#world;
    // From one other node, or from all.
    const others =
      event.c < 0.3 ? this.#nodes.filter((other) => other !== node) : [this.#other(node, event.b)];
    for (const other of others) {
      network.setCut(node, other, kind);
      if (kind === 'cut') network.setCut(other, node, kind);
    }
    this.#end(event, () => {
      for (const other of others) {
        network.setCut(node, other, undefined);
        network.setCut(other, node, undefined);
      }
    });
  }

  #flap(node: SimNode, event: PlanEvent): void {
    const { network } = this.#world;
    const other = this.#other(node, event.b);
    const period = scale(event.c, 50, 1_500);
    const until = this.#world.scheduler.now + scale(event.a, 500, 6_000);
    let cut = false;
    const toggle = (): void => {
      cut = !cut && this.#world.scheduler.now < until;
      network.setCut(node, other, cut ? 'flap' : undefined);
      network.setCut(other, node, cut ? 'flap' : undefined);
      if (this.#world.scheduler.now < until) this.#later(period, toggle);
    };
    toggle();
  }

  #linkBreak(node: SimNode, event: PlanEvent): void {
    const wires = [...node.wires.values()];
    const wire = wires[Math.floor(event.b * wires.length)];
    if (wire === undefined) return;
    this.#mattered('linkBreak');
    this.#world.network.breakWire(wire);
  }

  #path<K extends 'extraDelayMs' | 'bandwidth'>(
    node: SimNode,
    event: PlanEvent,
    what: K,
    value: number,
    well: K extends 'bandwidth' ? undefined : number,
  ): void {
    const { network } = this.#world;
    const other = this.#other(node, event.c);
    const paths = [network.path(node, other), network.path(other, node)].slice(event.c < 0.5 ? 1 : 0);
    for (const path of paths) Object.assign(path, { [what]: value });
    this.#end(event, () => {
      for (const path of paths) Object.assign(path, { [what]: well });
      network.hasten(node);
      network.hasten(other);
    });
  }

  #clock(node: SimNode, event: PlanEvent, ms: number): void {
    const jump = Math.round(ms);
    node.clockOffsetMs += jump;
    if (jump < 0 && node.core !== undefined && node.core.hlc.ms > node.wall()) this.#mattered('clockBack');
    this.#end(event, () => {
      if (jump > 0 && node.core?.issues().some(({ code }) => code === 'CLOCK_SKEW') === true)
        this.#mattered('clockForward');
      if (event.c < 0.7) node.clockOffsetMs -= jump;
    });
  }

  #freeze(node: SimNode, event: PlanEvent): void {
    if (node.frozenWall !== undefined) return;
    node.frozenWall = node.wall();
    this.#end(event, () => {
      const hlc = node.core?.hlc;
      if (hlc !== undefined && hlc.ms >= (node.frozenWall ?? 0) && hlc.counter > 0)
        this.#mattered('clockFreeze');
      node.frozenWall = undefined;
    });
  }
}
