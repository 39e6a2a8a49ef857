/** Votes that have grown old, and members that come at a bad time: what could make two sides exclude each other. */
import { expect, test } from 'vitest';
import type { SimNode } from '../node.js';
import { code, expectEqual, putNow, type Stage, stage, valueAt } from './stage.js';

const LEASE_MS = 20_000;
const HALF_MS = LEASE_MS / 2;
const SLACK_MS = 6_000;
const ALONE = { replicas: 1 };

function staged(names: readonly string[], options: Record<string, number> = {}): Stage {
  return stage(names, { options: { leaseMs: LEASE_MS, ...options } });
}

const excludedBy = (node: SimNode): string =>
  node
    .core!.members.excluded()
    .map((one) => one.name)
    .sort()
    .join('');

/** The network falls in two; within either side all hear each other. */
function split({ world }: Stage, left: readonly SimNode[], right: readonly SimNode[]): void {
  for (const a of left) for (const b of right) world.cut(a, b);
}

test('a vote of somebody that is not heard any more does not count: a minority cannot complete it', () => {
  const staging = staged(['a', 'b', 'c', 'd', 'e']);
  const { world, nodes } = staging;
  const [a, b, c, d, e] = nodes as [SimNode, SimNode, SimNode, SimNode, SimNode];
  world.cut(a, c);
  world.run(LEASE_MS + SLACK_MS);
  expect(d.core!.members.votes(a.core!.identity.origin)).toBe(1);
  // d and e never hear that the vote is withdrawn.
  split(staging, [a, b, c], [d, e]);
  world.mend(a, c);
  world.run(2 * LEASE_MS);
  expect([d, e].map(excludedBy)).toEqual(['', '']);
  expect(code(putNow(d, 'k', 'v', ALONE))).toBe('NO_MAJORITY');
  expect([a, b, c].map(excludedBy)).toEqual(['de', 'de', 'de']);
  world.healAll();
  world.run(SLACK_MS);
  expect([a, b, c].map((node) => node.core!.identity.phase)).toEqual(['ready', 'ready', 'ready']);
  expect([a, b, c].map(excludedBy)).toEqual(['de', 'de', 'de']);
  expect(code(putNow(a, 'k', 'v', { replicas: 3 }))).toBe('ok');
});
