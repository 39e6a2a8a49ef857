/** One run of one plan: a pure function of it. */
import type { ReplicaCore } from '../../src/core/replica.js';
import { type FaultCounts, noFaults, Violation } from './faults.js';
import { Finish } from './finish.js';
import { Injector } from './inject.js';
import type { Plan } from './plan.js';
import { Workload } from './workload.js';
import { World } from './world.js';

export interface Outcome {
  /** Which promise was broken, and how; undefined when all held. */
  readonly failure: { readonly check: string; readonly message: string; readonly at: number } | undefined;
  readonly operations: number;
  readonly faults: FaultCounts;
  /** Of everything that happened: two runs of one plan have the same. */
  readonly hash: string;
  /** How long the healed nodes took to agree, virtual ms. */
  readonly convergedMs: number;
  readonly virtualMs: number;
  readonly messages: number;
  readonly answers: ReadonlyMap<string, number>;
  readonly trace: readonly string[];
}

export interface RunSettings {
  readonly tracing?: boolean;
  readonly hashBytes?: boolean;
  readonly Core?: typeof ReplicaCore;
}

const SETTLE_MS = 500;

export function runPlan(plan: Plan, settings: RunSettings = {}): Outcome {
  const world = new World(plan.seed, {
    options: plan.options,
    rates: plan.rates,
    diskMs: plan.diskMs,
    setsAside: true,
    ...settings,
  });
  const names = Array.from({ length: plan.nodes }, (_, i) => `n${i}`);
  const addresses = names.map((name) => `${name}:1`);
  const nodes = names.map((name, i) => {
    const node = world.add({
      name,
      host: plan.sharedHost && i === plan.nodes - 1 ? names[i - 1]! : name,
      join: plan.allJoin ? addresses : i === 0 ? [] : addresses.filter((_, j) => j !== i),
      flushes: plan.flushes,
    });
    node.clockOffsetMs = plan.clockOffsetsMs[i] ?? 0;
    return node;
  });
  const injector = new Injector(world, plan, nodes);
  const workload = new Workload(world, plan, nodes);
  let failure: Outcome['failure'];
  let convergedMs = 0;
  try {
    for (const node of nodes) node.start();
    plan.events.forEach((event, index) => {
      world.scheduler.after(event.at, () => {
        if (event.kind === 'write') workload.write(event, index);
        else injector.inject(event);
      });
    });
    world.run((plan.events.at(-1)?.at ?? 0) + SETTLE_MS);
    if (
      plan.clockOffsetsMs.some((ms) => ms !== 0) &&
      nodes.some((node) => (node.core?.hlc.ms ?? 0) > node.wall())
    )
      world.ledger.mattered('clockSkew');
    convergedMs = new Finish(world, plan, nodes, injector).run();
  } catch (error) {
    const { check, message } = error instanceof Violation ? error : crash(error);
    world.ledger.note('ORACLE', () => message);
    failure = { check, message, at: world.scheduler.now };
  }
  const faults = { ...noFaults(), ...world.ledger.faults };
  const hitCaps = (workload.answers.get('OVERLOADED') ?? 0) + faults.congestion;
  const dropped = nodes.reduce((sum, node) => sum + (node.core?.counters.framesDropped ?? 0), 0);
  if (plan.tinyCaps && hitCaps + dropped > 0) faults.tinyCaps += 1;
  return {
    failure,
    operations: world.oracle.operations,
    faults,
    hash: world.ledger.hash,
    convergedMs,
    virtualMs: world.scheduler.now,
    messages: world.network.messages,
    answers: workload.answers,
    trace: world.ledger.lines,
  };
}

/** The core threw: that is a broken promise, too. */
function crash(error: unknown): { check: string; message: string } {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { check: 'crash', message: text.split('\n').slice(0, 6).join(' | ') };
}
