import { describe, expect, test } from 'vitest';
import { FAULT_KINDS } from './faults.js';
import { MUTANTS } from './mutants.js';
import { copyWithBugs } from './mutate.js';
import { drawPlan } from './plan.js';
import { runPlan } from './run.js';
import { report, shrink } from './shrink.js';
import { runSeeds, SUITE_SEEDS } from './suite.js';

describe('the replication core under a swarm of faults', () => {
  test('keeps its promises in every seed, and every kind of fault mattered', () => {
    const { summary, failures } = runSeeds({ from: 1, seeds: SUITE_SEEDS });
    console.log(JSON.stringify(summary));
    for (const { seed } of failures.slice(0, 3)) console.error(report(shrink(drawPlan(seed))));
    expect(failures.map(({ seed, outcome }) => `${seed}: ${outcome.failure?.message}`)).toEqual([]);
    expect(FAULT_KINDS.filter((kind) => summary.faults[kind] === 0)).toEqual([]);
  }, 400_000);

  test('is a pure function of the seed: twice the same seed, twice the same history', () => {
    for (const seed of [3, 7, 12]) {
      const first = runPlan(drawPlan(seed), { hashBytes: true });
      const second = runPlan(drawPlan(seed), { hashBytes: true });
      expect(second.hash).toBe(first.hash);
      expect(second.messages).toBe(first.messages);
      expect(runPlan(drawPlan(seed + 1), { hashBytes: true }).hash).not.toBe(first.hash);
    }
  });
});

describe('a failing seed', () => {
  test('is shrunk to a few events, which break the same promise', async () => {
    const mutant = MUTANTS.find(({ name }) => name === 'advances over a gap')!;
    const copies = copyWithBugs([mutant]);
    try {
      const Core = await copies.load(mutant);
      const failed = runSeeds({ from: 1, seeds: SUITE_SEEDS, bail: true, Core }).failures[0]!;
      const plan = drawPlan(failed.seed);
      const shrunk = shrink(plan, { Core });
      expect(shrunk.outcome.failure?.check).toBe(failed.outcome.failure?.check);
      expect(shrunk.plan.events.length).toBeLessThan(plan.events.length / 3);
      const text = report(shrunk);
      expect(text).toContain(`npm run torture -- --from ${failed.seed} --seeds 1`);
      expect(text).toContain('trace:');
    } finally {
      copies.remove();
    }
  }, 120_000);
});
