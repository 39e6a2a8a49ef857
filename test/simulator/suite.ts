/** Many seeds, one summary. */
import { addFaults, type FaultCounts, noFaults } from './faults.js';
import { drawPlan, type PlanLimits } from './plan.js';
import { type Outcome, type RunSettings, runPlan } from './run.js';

/** Seeds of one run of the test suite, and all that planted bugs get to be caught in. */
export const SUITE_SEEDS = 700;

export interface Summary {
  seeds: number;
  failed: number;
  operations: number;
  faults: FaultCounts;
}

export interface Failed {
  readonly seed: number;
  readonly outcome: Outcome;
}

export interface SuiteSettings extends RunSettings {
  readonly from: number;
  readonly seeds: number;
  readonly limits?: PlanLimits;
  readonly onSeed?: (seed: number, outcome: Outcome) => void;
  /** Stop at the first failure. */
  readonly bail?: boolean;
}

export function runSeeds(settings: SuiteSettings): { summary: Summary; failures: Failed[] } {
  const summary: Summary = { seeds: 0, failed: 0, operations: 0, faults: noFaults() };
  const failures: Failed[] = [];
  for (let seed = settings.from; seed < settings.from + settings.seeds; seed++) {
    const outcome = runPlan(drawPlan(seed, settings.limits), settings);
    summary.seeds += 1;
    summary.operations += outcome.operations;
    addFaults(summary.faults, outcome.faults);
    settings.onSeed?.(seed, outcome);
    if (outcome.failure === undefined) continue;
    summary.failed += 1;
    failures.push({ seed, outcome });
    if (settings.bail === true) break;
  }
  return { summary, failures };
}
