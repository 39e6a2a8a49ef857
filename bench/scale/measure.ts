/**
 * One fleet, from its start to its figures. The nodes start as members of one cluster (a whole fleet switched on
 * again), settle, and are then watched: idle, under updates, losing a member, gaining one.
 */
import { KIND_REGISTER } from '../../src/core/entry.js';
import type { PeerMessage } from '../../src/core/messages.js';
import type { MemberRow } from '../../src/core/types.js';
import { CORE_DEFAULTS } from '../../src/options.js';
import { overCap } from '../../test/simulator/caps.js';
import { Events, Random } from './events.js';
import { NETWORK, Network } from './network.js';
import { ScaleNode } from './node.js';
import { placeOf } from './regions.js';

export interface FleetPlan {
  readonly nodes: number;
  readonly seed: number;
  /** Virtual time for links to form, ms. */
  readonly settleMs: number;
  readonly idleMs: number;
  /** Each by a node drawn at random. */
  readonly updates: number;
  /** Virtual time between two updates, ms. */
  readonly everyMs: number;
  /** Bytes of one value. */
  readonly valueBytes: number;
}

/** Median, 99th percentile and greatest. */
export interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface FleetReport {
  readonly plan: FleetPlan;
  readonly links: Spread;
  /** Virtual ms until 50, 99 and 100 % of all nodes have written an update: over the updates. */
  readonly reach50: Spread;
  readonly reach99: Spread;
  readonly reach100: Spread;
  /** Over all pairs of update and node: share within 500 ms, and [ms, share] points of the whole curve. */
  readonly within500: number;
  readonly curve: readonly (readonly [ms: number, share: number])[];
  readonly unreached: number;
  readonly hops: { readonly mean: number; readonly max: number };
  /** Per update and node. */
  readonly copies: number;
  readonly messages: number;
  readonly bytes: number;
  /** Per node and second, nothing going on. */
  readonly idleBytes: number;
  readonly idleMessages: number;
  /** Virtual ms from a power loss until half, and all, of the others suspect the node. */
  readonly suspect50Ms: number | undefined;
  readonly suspect100Ms: number | undefined;
  /** A node with an empty disk joins: until it is ready, until all know it, and what it costs the whole fleet. */
  readonly joinReadyMs: number | undefined;
  readonly joinKnownMs: number | undefined;
  readonly joinBytes: number;
  /** Live nodes taken for failed at the end of the idle watch, over all pairs. */
  readonly falseSuspects: number;
  readonly breaks: number;
  readonly events: number;
  /** Of the process, over the nodes: an upper bound of what one holds. */
  readonly heapBytesPerNode: number;
}

const STEP_MS = 100;
const WAIT_MAX_MS = 120_000;
/** What nodes hold is looked at so often. */
const CHECK_MS = 2_000;
/** What a joiner sends and gets is counted for so long after all know it. */
const JOIN_WATCH_MS = 10_000;

interface Update {
  readonly key: string;
  readonly at: number;
  readonly hops: Map<ScaleNode, number>;
  readonly reached: Map<ScaleNode, number>;
  copies: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? 0;
  return { p50: at(0.5), p99: at(0.99), max: sorted.at(-1) ?? 0 };
}

export class Fleet {
  readonly events = new Events();
  readonly network: Network;
  readonly nodes: ScaleNode[] = [];
  readonly plan: FleetPlan;
  readonly #random: Random;
  readonly #updates = new Map<string, Update>();
  readonly #uid: string;
  readonly #rows: MemberRow[] = [];

  constructor(plan: FleetPlan) {
    this.plan = plan;
    this.#random = new Random(plan.seed);
    this.network = new Network(this.events, this.#random.split(), NETWORK);
    this.network.observer = { arrived: (from, to, message) => this.#arrived(from, to, message) };
    this.#uid = this.#random.hex(16);
    for (let i = 0; i < plan.nodes; i++) {
      const name = nodeName(i);
      const origin = this.#random.hex(16);
      const stamp = `0190000000000000${origin}`;
      this.#rows.push({ name, host: name, address: `${name}:7700`, origin, stamp });
    }
    for (let i = 0; i < plan.nodes; i++) this.#add(i, this.#rows[i]!.origin);
  }

  /** Starts everybody within a second, and lets links form. */
  start(): void {
    for (const node of this.nodes) this.events.after(this.#random.between(0, 1_000), () => node.start());
    this.run(this.plan.settleMs);
  }

  /** Throws if a node ever holds more of anything than it may. */
  run(ms: number): void {
    const until = this.events.now + ms;
    while (this.events.now < until) {
      this.events.runUntil(Math.min(until, this.events.now + CHECK_MS));
      for (const node of this.nodes) {
        const { sizes, options } = node.core;
        const over =
          sizes.queuedBytes > options.pendingBytesMax
            ? `${sizes.queuedBytes} bytes queued`
            : overCap(node.core);
        if (over !== undefined) throw new Error(`${node.name} holds ${over}`);
      }
    }
  }

  /** Until it holds, looked at every STEP_MS; virtual ms that took, or undefined. */
  until(holds: () => boolean): number | undefined {
    const from = this.events.now;
    while (!holds()) {
      if (this.events.now - from >= WAIT_MAX_MS) return undefined;
      this.run(STEP_MS);
    }
    return this.events.now - from;
  }

  traffic(): { messages: number; bytes: number } {
    const { messages, bytes } = this.network;
    return { messages, bytes };
  }

  update(): void {
    const writer = this.nodes[this.#random.below(this.nodes.length)]!;
    const key = `update-${this.#updates.size}`;
    const value = new Uint8Array(this.plan.valueBytes).fill(this.#updates.size);
    const update: Update = {
      key,
      at: this.events.now,
      hops: new Map([[writer, 0]]),
      reached: new Map(),
      copies: 0,
    };
    this.#updates.set(key, update);
    writer.write(this.#updates.size, { key, kind: KIND_REGISTER, value });
  }

  get updates(): readonly Update[] {
    return [...this.#updates.values()];
  }

  join(): ScaleNode {
    const node = this.#add(this.nodes.length, undefined);
    node.start();
    return node;
  }

  #add(index: number, origin: string | undefined): ScaleNode {
    const rows = this.#rows;
    const seeds = [0, 1, 2].map((i) => `${nodeName(i)}:7700`);
    const node = new ScaleNode(this.events, this.network, this.#random.split(), {
      name: nodeName(index),
      place: placeOf(index),
      options: CORE_DEFAULTS,
      join: seeds,
      member: origin === undefined ? undefined : { uid: this.#uid, origin, rows },
    });
    node.onWritten = (keys) => {
      for (const key of keys) {
        const update = this.#updates.get(key);
        if (update !== undefined && !update.reached.has(node))
          update.reached.set(node, this.events.now - update.at);
      }
    };
    this.nodes.push(node);
    return node;
  }

  #arrived(from: ScaleNode, to: ScaleNode, message: PeerMessage): void {
    if (message.type !== 'push' && message.type !== 'chunk') return;
    for (const key of message.keys) {
      const update = this.#updates.get(key);
      if (update === undefined) continue;
      update.copies += 1;
      if (!update.hops.has(to)) update.hops.set(to, (update.hops.get(from) ?? 0) + 1);
    }
  }
}

/** Names are drawn so that their order says nothing about places. */
function nodeName(index: number): string {
  return `n${(Math.imul(index + 1, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0')}`;
}

export function measureFleet(
  plan: FleetPlan,
  log: (text: string) => void = () => {},
  fleet: Fleet = new Fleet(plan),
): FleetReport {
  const say = (text: string): void =>
    log(`${plan.nodes} nodes, ${(fleet.events.now / 1000).toFixed(1)} s: ${text}`);
  fleet.start();
  const links = spread(fleet.nodes.map((node) => node.links));
  say(`settled, ${JSON.stringify(links)} links`);
  const idle = measureIdle(fleet);
  const falseSuspects = countSuspects(fleet);
  say(`idle ${idle.bytes.toFixed(0)} bytes/s/node, ${falseSuspects} false suspects`);
  const updates = measureUpdates(fleet, idle);
  say(`reach99 ${JSON.stringify(updates.reach99)}, copies ${updates.copies.toFixed(2)}`);
  const join = measureJoin(fleet);
  say(`join ready after ${join.joinReadyMs} ms, known after ${join.joinKnownMs} ms, ${join.joinBytes} bytes`);
  const failure = measureFailure(fleet);
  say(`failure seen by half after ${failure.suspect50Ms} ms, by all after ${failure.suspect100Ms} ms`);
  return {
    plan,
    links,
    ...updates,
    idleBytes: idle.bytes,
    idleMessages: idle.messages,
    falseSuspects,
    ...join,
    ...failure,
    breaks: fleet.network.breaks,
    events: fleet.events.executed,
    heapBytesPerNode: process.memoryUsage().heapUsed / fleet.nodes.length,
  };
}

interface Rate {
  readonly messages: number;
  readonly bytes: number;
}

/** Per node and second. */
function measureIdle(fleet: Fleet): Rate {
  const before = fleet.traffic();
  fleet.run(fleet.plan.idleMs);
  const after = fleet.traffic();
  const seconds = (fleet.plan.idleMs / 1000) * fleet.nodes.length;
  return {
    messages: (after.messages - before.messages) / seconds,
    bytes: (after.bytes - before.bytes) / seconds,
  };
}

/** What was sent since, above what an idle fleet sends. */
function above(fleet: Fleet, before: { messages: number; bytes: number }, ms: number, idle: Rate): Rate {
  const after = fleet.traffic();
  const share = (ms / 1000) * fleet.nodes.length;
  return {
    messages: Math.max(0, after.messages - before.messages - idle.messages * share),
    bytes: Math.max(0, after.bytes - before.bytes - idle.bytes * share),
  };
}

function measureUpdates(fleet: Fleet, idle: Rate) {
  const { plan } = fleet;
  const before = fleet.traffic();
  const from = fleet.events.now;
  for (let i = 0; i < plan.updates; i++) fleet.events.after(i * plan.everyMs, () => fleet.update());
  fleet.run(plan.updates * plan.everyMs);
  const { length } = fleet.nodes;
  fleet.until(() => fleet.updates.every((update) => update.reached.size === length));
  const sent = above(fleet, before, fleet.events.now - from, idle);
  const per = plan.updates * length;
  const times: number[] = [];
  const hops: number[] = [];
  let copies = 0;
  for (const update of fleet.updates) {
    times.push(...update.reached.values());
    hops.push(...update.hops.values());
    copies += update.copies;
  }
  times.sort((a, b) => a - b);
  const share = (part: number): Spread =>
    spread(
      fleet.updates.map((update) => {
        const sorted = [...update.reached.values()].sort((a, b) => a - b);
        return sorted[Math.ceil(length * part) - 1] ?? Number.POSITIVE_INFINITY;
      }),
    );
  return {
    reach50: share(0.5),
    reach99: share(0.99),
    reach100: share(1),
    within500: times.filter((ms) => ms <= 500).length / per,
    curve: curveOf(times, per),
    unreached: per - times.length,
    hops: {
      mean: hops.reduce((a, b) => a + b, 0) / hops.length,
      max: hops.reduce((a, b) => Math.max(a, b), 0),
    },
    copies: copies / per,
    messages: sent.messages / per,
    bytes: sent.bytes / per,
  };
}

function curveOf(sorted: readonly number[], total: number): [number, number][] {
  const points: [number, number][] = [[0, 0]];
  for (let step = 1; step <= 200; step++) {
    const at = Math.ceil((sorted.length * step) / 200) - 1;
    points.push([sorted[at]!, (at + 1) / total]);
  }
  return points;
}

function countSuspects(fleet: Fleet): number {
  let suspects = 0;
  for (const node of fleet.nodes)
    for (const other of fleet.nodes) if (node !== other && isSuspected(fleet, node, other)) suspects += 1;
  return suspects;
}

function isSuspected(fleet: Fleet, by: ScaleNode, other: ScaleNode): boolean {
  return by.core.detector.state(other.core.identity.origin, fleet.events.now) === 'suspect';
}

function measureFailure(fleet: Fleet) {
  const victim = fleet.nodes[Math.floor(fleet.nodes.length / 2)]!;
  const others = fleet.nodes.filter((node) => node !== victim);
  victim.vanish();
  const suspecting = (): number => others.filter((node) => isSuspected(fleet, node, victim)).length;
  const suspect50Ms = fleet.until(() => suspecting() * 2 >= others.length);
  const rest = suspect50Ms === undefined ? undefined : fleet.until(() => suspecting() === others.length);
  return { suspect50Ms, suspect100Ms: rest === undefined ? undefined : suspect50Ms! + rest };
}

function measureJoin(fleet: Fleet) {
  const from = fleet.events.now;
  const node = fleet.join();
  fleet.network.joiner = node;
  const joinReadyMs = fleet.until(() => node.core.ready);
  const isKnown = (): boolean =>
    fleet.nodes.every((other) => other.core.members.byName(node.name) !== undefined);
  const rest = fleet.until(isKnown);
  const joinKnownMs = rest === undefined ? undefined : fleet.events.now - from;
  fleet.run(JOIN_WATCH_MS);
  fleet.network.joiner = undefined;
  return { joinReadyMs, joinKnownMs, joinBytes: fleet.network.joinBytes };
}
