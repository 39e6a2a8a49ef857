/**
 * Makes a failing plan smaller: drops events (halves first, then ever smaller pieces: Zeller's ddmin), nodes from
 * the end, weather and tiny caps, and what comes after the failure, as long as the same promise is still broken.
 */
import { noFaults } from './faults.js';
import type { Plan, PlanEvent } from './plan.js';
import { type Outcome, type RunSettings, runPlan } from './run.js';

export interface Shrunk {
  readonly plan: Plan;
  readonly outcome: Outcome;
  readonly runs: number;
}

/** Most runs spent on one failure. */
const RUNS_MAX = 400;

export function shrink(plan: Plan, settings: RunSettings = {}): Shrunk {
  let runs = 0;
  let best = plan;
  const first = runPlan(plan, settings);
  const check = first.failure?.check;
  const holds = (candidate: Plan): boolean => {
    if (runs >= RUNS_MAX || check === undefined) return false;
    runs += 1;
    if (runPlan(candidate, settings).failure?.check !== check) return false;
    best = candidate;
    return true;
  };
  if (check !== undefined) {
    holds(withoutWeather(best));
    shrinkEvents(() => best, holds);
    while (best.nodes > 2 && holds(withoutLastNode(best)));
    holds({ ...best, minority: 'none' });
    holds({ ...best, options: {}, tinyCaps: false });
    shrinkEvents(() => best, holds);
  }
  return { plan: best, outcome: runPlan(best, { ...settings, tracing: true }), runs };
}

function shrinkEvents(best: () => Plan, holds: (candidate: Plan) => boolean): void {
  for (
    let size = Math.ceil(best().events.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let from = 0; from < best().events.length; ) {
      const { events } = best();
      const kept = [...events.slice(0, from), ...events.slice(from + size)];
      if (!holds({ ...best(), events: kept })) from += size;
    }
  }
}

function withoutWeather(plan: Plan): Plan {
  return {
    ...plan,
    rates: { ...plan.rates, loss: 0, duplicate: 0 },
    clockOffsetsMs: plan.clockOffsetsMs.map(() => 0),
  };
}

function withoutLastNode(plan: Plan): Plan {
  const nodes = plan.nodes - 1;
  return {
    ...plan,
    nodes,
    sharedHost: plan.sharedHost && nodes > 2,
    clockOffsetsMs: plan.clockOffsetsMs.slice(0, nodes),
    healOrder: plan.healOrder.slice(0, nodes),
    events: plan.events.filter((event) => event.node < nodes),
  };
}

/** What a person needs to see: the plan, the events that are left, the last lines of the trace. */
export function report(shrunk: Shrunk, linesMax = 60): string {
  const { plan, outcome, runs } = shrunk;
  const { events, ...weather } = plan;
  const line = (event: PlanEvent): string =>
    `  ${event.at.toFixed(1).padStart(9)} n${event.node} ${event.kind} ${[event.a, event.b, event.c].map((draw) => draw.toFixed(3)).join(' ')}`;
  const faults = Object.entries({ ...noFaults(), ...outcome.faults }).filter(([, count]) => count > 0);
  return [
    `seed ${plan.seed}: ${outcome.failure?.message ?? 'no failure'}`,
    `replay: npm run torture -- --from ${plan.seed} --seeds 1`,
    `plan (shrunk in ${runs} runs): ${JSON.stringify(weather)}`,
    `faults that mattered: ${JSON.stringify(Object.fromEntries(faults))}`,
    'events:',
    ...events.map(line),
    'trace:',
    ...outcome.trace.slice(-linesMax),
  ].join('\n');
}
