/** Votes that have grown old, and members that come at a bad time: what could make two sides exclude each other. */
import { expect, test } from 'vitest';
import type { SimNode } from '../node.js';
import { code, expectEqual, put, putNow, type Stage, stage, valueAt } from './stage.js';

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

test('a minority that is cut off takes no newcomers, or it would become a majority of its own', () => {
  const staging = staged(['a', 'b', 'c', 'd', 'e']);
  const { world, nodes } = staging;
  const [a, b, c, d, e] = nodes as [SimNode, SimNode, SimNode, SimNode, SimNode];
  split(staging, [a, b, c], [d, e]);
  world.run(HALF_MS + SLACK_MS);
  const joiners = ['f', 'g'].map((name) => world.add({ name, join: [d.address] }));
  split(staging, [a, b, c], joiners);
  for (const node of joiners) node.start();
  world.run(2 * LEASE_MS);
  expect([d, e].map(excludedBy)).toEqual(['', '']);
  expect(joiners.map((node) => node.ready)).toEqual([false, false]);
  expect(code(putNow(d, 'k', 'v', ALONE))).toBe('NO_MAJORITY');
  world.healAll();
  for (const node of [d, e]) {
    expect(world.runUntil(() => node.core!.identity.phase === 'outdated', SLACK_MS)).toBe(true);
    node.wipe();
    node.start();
  }
  expect(world.runUntil(() => [...nodes, ...joiners].every((node) => node.ready), 30_000)).toBe(true);
  expect([a, b, c].map(excludedBy)).toEqual(['de', 'de', 'de']);
  expectEqual([...nodes, ...joiners]);
  expect(valueAt(a, 'k')).toBeUndefined();
});

test('the one that is left fills hosts that lost their disks, under their names, and lets in no other', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  expect(code(putNow(a, 'k', 'v', { replicas: 3 }))).toBe('ok');
  for (const node of [b, c]) node.kill();
  world.run(SLACK_MS);
  const d = world.add({ name: 'd', join: [a.address] });
  d.start();
  world.run(SLACK_MS);
  expect(d.ready).toBe(false);
  expect(d.core!.issues()).toMatchObject([{ code: 'NO_MAJORITY' }]);
  b.wipe();
  b.start();
  expect(world.runUntil(() => b.ready && valueAt(b, 'k') === 'v', 20_000)).toBe(true);
  // Two of three are a majority again.
  expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
  expectEqual([a, b, d]);
});

test('of two the one that is left lets a third in once the other is removed', () => {
  const { world, nodes } = staged(['a', 'b']);
  const [a, b] = nodes as [SimNode, SimNode];
  b.kill();
  world.run(SLACK_MS);
  const c = world.add({ name: 'c', join: [a.address] });
  c.start();
  world.run(SLACK_MS);
  expect(c.ready).toBe(false);
  a.input({ type: 'remove-member', id: 1, name: 'b' });
  expect(world.runUntil(() => c.ready, 20_000)).toBe(true);
  expectEqual([a, c]);
});

test('what is on its way to a slow disk when its member goes is waited for: no origin is sealed below it', () => {
  const { world, nodes } = staged(['a', 'b', 'c', 'd']);
  const [a, b, c, d] = nodes as [SimNode, SimNode, SimNode, SimNode];
  putNow(d, 'early', 'v', { replicas: 4 });
  world.partition([a, b]);
  world.mend(a, b);
  world.run(SLACK_MS);
  c.diskFaults.slowMs = 60_000;
  // The first batch keeps the disk busy; the second one waits.
  put(d, 'k', 'v', ALONE);
  put(d, 'late', 'v', ALONE);
  world.run(500);
  const dot = { origin: d.core!.identity.origin, seq: 3 };
  const { taken, written } = c.core!;
  expect(taken.head(dot.origin)).toBe(3);
  c.diskFaults.slowMs = 0;
  world.healAll();
  world.partition([d]);
  c.input({ type: 'remove-member', id: 1, name: 'd' });
  const seen = new Set<string>();
  const since = world.wall();
  while (written.head(dot.origin) < 3) {
    for (const node of [a, b, c]) seen.add(node.core!.sealing.covers(dot));
    world.run(50);
  }
  expect(world.wall() - since).toBeGreaterThan(4_000);
  expect([...seen]).toEqual(['behind']);
  expect(world.runUntil(() => a.core!.sealing.covers(dot) === 'held', 120_000)).toBe(true);
  expectEqual([a, b, c]);
});
