/** Planted bugs of exclusion, each in a scenario that the sound core stands, and that the bug fails. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ReplicaCore } from '../../../src/core/replica.js';
import { Violation } from '../faults.js';
import { EXCLUSION_MUTANTS } from '../mutants.js';
import { type Copies, copyWithBugs } from '../mutate.js';
import type { SimNode } from '../node.js';
import { putNow, type Stage, stage, valueAt } from './stage.js';

type Build = typeof ReplicaCore;

const LEASE_MS = 20_000;
const SLACK_MS = 6_000;
const W = 4_000;

function trio(Core: Build): Stage & { a: SimNode; b: SimNode; c: SimNode } {
  const options = { leaseMs: LEASE_MS, lateRetryMs: W, maxClockDriftMs: 1_000 };
  const { world, nodes } = stage(['a', 'b', 'c'], { options, Core });
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  return { world, nodes, a, b, c };
}

const excludedBy = (node: SimNode): number => node.core!.members.excluded().length;

/** Whether a member is excluded that another one hears. */
function excludesHeard(Core: Build): boolean {
  const { world, nodes, a, c } = trio(Core);
  world.cut(a, c);
  world.run(LEASE_MS + SLACK_MS);
  return nodes.some((node) => excludedBy(node) > 0);
}

/** Whether a dead member holds the horizon up though the others have excluded it. */
function standsStill(Core: Build): boolean {
  const { world, a, c } = trio(Core);
  c.kill();
  world.run(LEASE_MS + 2 * SLACK_MS);
  expect(a.core!.members.excluded()).toMatchObject([{ name: 'c' }]);
  return world.wall() - W - a.core!.horizon.collectable > LEASE_MS;
}

/** Whether two that slept through a lease exclude the one that did not, before they hear it. */
function votesAfterSleep(Core: Build): boolean {
  const { world, nodes, a, b, c } = trio(Core);
  world.cut(a, c);
  world.cut(b, c);
  for (const node of [a, b]) node.pause();
  world.run(2 * LEASE_MS);
  for (const node of [a, b]) node.proceed();
  world.run(SLACK_MS);
  return nodes.some((node) => excludedBy(node) > 0);
}

/** Whether a write of a member that was cut off comes to the others after they have excluded it. */
function letsItIn(Core: Build): boolean {
  const { world, a, c } = trio(Core);
  world.partition([c]);
  putNow(c, 'own', 'v', { replicas: 1 });
  world.run(LEASE_MS + SLACK_MS);
  expect(excludedBy(a)).toBe(1);
  world.healAll();
  try {
    world.run(SLACK_MS);
  } catch (error) {
    // The others' horizon has passed it by then.
    if (error instanceof Violation && error.check === 'horizon') return true;
    throw error;
  }
  return valueAt(a, 'own') !== undefined;
}

const CASES = [
  ['unilateral', excludesHeard],
  ['counted', standsStill],
  ['slept', votesAfterSleep],
  ['accepted', letsItIn],
] as const;

describe('exclusion', () => {
  let copies: Copies;
  beforeAll(() => {
    copies = copyWithBugs(Object.values(EXCLUSION_MUTANTS));
  });
  afterAll(() => copies?.remove());

  test.each(CASES.map(([bug, fails]) => [EXCLUSION_MUTANTS[bug].name, bug, fails] as const))(
    'that %s is caught, and the sound core stands',
    async (_name, bug, fails) => {
      expect(fails(ReplicaCore)).toBe(false);
      expect(fails(await copies.load(EXCLUSION_MUTANTS[bug]))).toBe(true);
    },
    120_000,
  );
});
