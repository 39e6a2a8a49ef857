import { expect, test } from 'vitest';
import { FAULT_KINDS } from './faults.js';
import { drawPlan } from './plan.js';
import { runPlan } from './run.js';
import { runSeeds } from './suite.js';

/** READMESH_SEEDS and READMESH_SEED_FROM run others. */
const SEEDS = Number(process.env.READMESH_SEEDS ?? 500);
const FROM = Number(process.env.READMESH_SEED_FROM ?? 1);

test('under a swarm of faults no promise is broken, and the healed converge', { timeout: 900_000 }, () => {
  const { summary, failures } = runSeeds({ from: FROM, seeds: SEEDS });
  console.log(JSON.stringify(summary));
  for (const { seed, outcome } of failures)
    console.log(`seed ${seed}: ${outcome.failure?.check}: ${outcome.failure?.message}`);
  expect(failures.map(({ seed }) => seed)).toEqual([]);
  // A fault that never happened proves nothing. Few seeds need not meet them all.
  if (SEEDS >= 500) expect(FAULT_KINDS.filter((kind) => summary.faults[kind] === 0)).toEqual([]);
});

test('a run is a function of its seed alone', { timeout: 120_000 }, () => {
  for (const seed of [3, 17, 99]) {
    const [a, b] = [runPlan(drawPlan(seed)), runPlan(drawPlan(seed))];
    expect(b.hash).toBe(a.hash);
    expect(runPlan(drawPlan(seed + 1)).hash).not.toBe(a.hash);
  }
});
