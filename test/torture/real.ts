/**
 * Real daemons, files and sockets under faults drawn at random, with writers and readers going on all the time. At the
 * end everything is mended, all copies must become equal, and the checker (test/support/history.ts) judges the
 * whole history: no acknowledged write lost, nothing invented, clocks and sequence numbers in order.
 */
import { type SeededRandom, seededRandom } from '../../bin/seeded-random.js';
import { closedCopies, converged, eventually, verified } from '../support/copies.js';
import { History } from '../support/history.js';
import { pause, Workload } from '../support/workload.js';
import { FAULTS } from './faults.js';
import { Fleet, type TorturedNode } from './fleet.js';

const DRIFT_MS = 5_000;
/** Events that the history keeps in memory: beyond that the writers pause. */
const WRITES_MAX = 2_000_000;

export interface TortureOptions {
  seed: number;
  /** How long faults go on. */
  durationMs: number;
  /** Default 4. */
  nodes?: number;
  /** Faults going on at once, on different nodes. Default 2. */
  faultsAtOnce?: number;
  /** Names out of FAULTS; default all. */
  kinds?: readonly string[] | undefined;
  onFault?: (text: string) => void;
}

export interface TortureReport {
  seed: number;
  operations: number;
  acknowledged: number;
  failed: number;
  faults: Record<string, number>;
}

export async function torture(options: TortureOptions): Promise<TortureReport> {
  const { seed, nodes: size = 4 } = options;
  const fleet = await Fleet.start(size, seed);
  try {
    return await new Torture(fleet, options).run();
  } finally {
    await fleet.close();
  }
}

class Torture {
  readonly #fleet: Fleet;
  readonly #options: TortureOptions;
  readonly #random: SeededRandom;
  readonly #faults: Record<string, number>;
  readonly #running = new Set<Promise<void>>();
  #failure: Error | undefined;
  /** A fault that loses data is on, or what it lost is not everywhere yet. */
  #losing = false;

  constructor(fleet: Fleet, options: TortureOptions) {
    this.#fleet = fleet;
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#faults = Object.fromEntries((options.kinds ?? Object.keys(FAULTS)).map((kind) => [kind, 0]));
  }

  async run(): Promise<TortureReport> {
    const { seed } = this.#options;
    const { nodes } = this.#fleet;
    const history = new History(`torture-${seed}`);
    const targets = nodes.map(({ name, daemon }) => ({ name, address: daemon.address }));
    const workload = new Workload(history, targets, { seed, writers: 8 }).start();
    try {
      await this.#break(workload);
    } finally {
      await Promise.allSettled(this.#running);
      await workload.stop();
    }
    if (this.#failure !== undefined) throw this.#failure;
    for (const { proxy } of nodes) proxy.heal();
    await converged(nodes.map(({ daemon }) => daemon));
    await eventually('verify finds all members identical', async () => {
      await verified(nodes[0]!.daemon, nodes.length);
      return true;
    });
    const copies = await closedCopies(new Map(nodes.map(({ name, daemon }) => [name, daemon])));
    history.check(copies, { driftMs: DRIFT_MS });
    return {
      seed,
      operations: history.count('invoke'),
      acknowledged: workload.acknowledged,
      failed: 0,
      faults: this.#faults,
    };
  }

  async #break(workload: Workload): Promise<void> {
    const { durationMs, faultsAtOnce = 2 } = this.#options;
    const until = performance.now() + durationMs;
    const kinds = Object.keys(this.#faults);
    while (performance.now() < until && workload.acknowledged < WRITES_MAX && this.#failure === undefined) {
      await pause(this.#random.below(400));
      const free = this.#fleet.nodes.filter((node) => !node.busy);
      if (free.length === 0 || this.#running.size >= faultsAtOnce) continue;
      const kind = this.#random.pick(kinds);
      if (FAULTS[kind]!.losesData && this.#losing) continue;
      this.#start(kind, this.#random.pick(free));
    }
  }

  #start(kind: string, node: TorturedNode): void {
    const fault = FAULTS[kind]!;
    const random = seededRandom(this.#random.below(0x7fff_ffff));
    node.busy = true;
    if (fault.losesData) this.#losing = true;
    const running = this.#carryOut(kind, node, random)
      .catch((error: Error) => {
        this.#failure ??= new Error(`${kind} at ${node.name}: ${error.message}`);
      })
      .finally(() => {
        node.busy = false;
        this.#running.delete(running);
      });
    this.#running.add(running);
  }

  async #carryOut(kind: string, node: TorturedNode, random: SeededRandom): Promise<void> {
    const fault = FAULTS[kind]!;
    // What is about to be lost here has to be somewhere that is not about to be lost.
    if (fault.losesData) await this.#fleet.caughtUp();
    if (await fault.run(node, this.#fleet, random)) this.#faults[kind]! += 1;
    this.#options.onFault?.(`${kind} at ${node.name}`);
    if (!fault.losesData) return;
    await this.#fleet.caughtUp();
    this.#losing = false;
  }
}
