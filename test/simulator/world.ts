/**
 * The world of one run: virtual time, the network, the hosts, and the oracle that watches them. Everything is
 * drawn from one seed, split by subsystem; nothing here waits for anything real.
 */
import { ReplicaCore } from '../../src/core/replica.js';
import { CORE_DEFAULTS, type CoreOptions } from '../../src/options.js';
import { Ledger } from './ledger.js';
import { Network, type NetworkRates } from './network.js';
import { type NodeSettings, SimNode } from './node.js';
import { Oracle } from './oracle.js';
import { Random } from './random.js';
import { Scheduler } from './scheduler.js';

export interface WorldSettings {
  readonly options?: Partial<CoreOptions>;
  readonly rates?: Partial<NetworkRates>;
  /** Slowest write or read of a well disk, ms. */
  readonly diskMs?: number;
  readonly tracing?: boolean;
  /** Mixes every byte sent into the hash of the run, rather than lengths alone. */
  readonly hashBytes?: boolean;
  /** Whether stores that the cluster went on without give way to empty ones, as they do in production. Default false. */
  readonly setsAside?: boolean;
  /** Another build of the core, for planted bugs. */
  readonly Core?: typeof ReplicaCore;
}

const CALM_RATES: NetworkRates = { delayMs: 0.2, jitterMs: 2, loss: 0, duplicate: 0 };
const WALL_START = 1_700_000_000_000;

export class World {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly ledger: Ledger;
  readonly network: Network;
  readonly oracle: Oracle;
  readonly options: CoreOptions;
  readonly diskMs: number;
  readonly hashBytes: boolean;
  readonly setsAside: boolean;
  readonly Core: typeof ReplicaCore;
  readonly nodes: SimNode[] = [];
  /** Called after each input of a node, for checks of a scenario's own. */
  afterInput: ((node: SimNode) => void) | undefined;

  constructor(seed: number, settings: WorldSettings = {}) {
    this.random = new Random(seed);
    this.scheduler = new Scheduler(this.random.split());
    this.ledger = new Ledger(this.scheduler, settings.tracing ?? false);
    this.options = { ...CORE_DEFAULTS, ...settings.options };
    this.diskMs = settings.diskMs ?? 1;
    this.hashBytes = settings.hashBytes ?? false;
    this.setsAside = settings.setsAside ?? false;
    this.Core = settings.Core ?? ReplicaCore;
    this.network = new Network(this.scheduler, this.random.split(), this.ledger, {
      rates: { ...CALM_RATES, ...settings.rates },
      queueBytesMax: this.options.linkQueueBytesMax,
    });
    this.oracle = new Oracle(this);
  }

  /** True time, whole milliseconds since 1970. */
  wall(): number {
    return WALL_START + Math.floor(this.scheduler.now);
  }

  add(settings: NodeSettings): SimNode {
    const node = new SimNode(this, settings, this.random.split(), this.nodes.length);
    this.nodes.push(node);
    return node;
  }

  /** A founder and joiners, all started. */
  cluster(names: readonly string[], settings: Omit<NodeSettings, 'name'> = {}): SimNode[] {
    const nodes = names.map((name, i) =>
      this.add({ ...settings, name, join: i === 0 ? [] : [`${names[0]}:1`] }),
    );
    for (const node of nodes) node.start();
    return nodes;
  }

  at(address: string): SimNode | undefined {
    return this.nodes.find((node) => node.address === address);
  }

  run(ms: number): void {
    this.scheduler.runUntil(this.scheduler.now + ms);
  }

  /** Runs until it holds, looking every 50 ms; false when `msMax` passed without. */
  runUntil(holds: () => boolean, msMax: number): boolean {
    const until = this.scheduler.now + msMax;
    while (!holds()) {
      if (this.scheduler.now >= until) return false;
      this.run(50);
    }
    return true;
  }

  /** Nothing passes between the two any more, one way or both. Links stay open until somebody notices. */
  cut(a: SimNode, b: SimNode, oneWay = false): void {
    this.ledger.note('net', () => `cut ${a.name} ${oneWay ? '>' : '<>'} ${b.name}`);
    this.network.setCut(a, b, oneWay ? 'cutOneWay' : 'cut');
    if (!oneWay) this.network.setCut(b, a, 'cut');
  }

  mend(a: SimNode, b: SimNode): void {
    this.ledger.note('net', () => `mend ${a.name} <> ${b.name}`);
    this.network.setCut(a, b, undefined);
    this.network.setCut(b, a, undefined);
  }

  /** Each of `left` apart from each of the others. */
  partition(left: readonly SimNode[]): void {
    for (const a of left) for (const b of this.nodes) if (!left.includes(b)) this.cut(a, b);
  }

  healAll(): void {
    this.network.heal(undefined, this.nodes);
  }
}
