/** Stores that the cluster went on without: set aside, replaced, and what only they held (src/core/returning.ts). */
import { expect, test } from 'vitest';
import { ReplicaCore } from '../../../src/core/replica.js';
import { Violation } from '../faults.js';
import { OPEN_DOOR } from '../mutants.js';
import { copyWithBugs } from '../mutate.js';
import type { SimNode } from '../node.js';
import type { World } from '../world.js';
import { code, del, expectEqual, putNow, type Stage, stage, valueAt } from './stage.js';

const LEASE_MS = 20_000;
const HALF_MS = LEASE_MS / 2;
/** What beats, the noticing of a lost link and the spreading of news add to a lease. */
const SLACK_MS = 6_000;
const BACK_MS = 40_000;
const ALONE = { replicas: 1 };
const W = 4_000;

const originOf = (node: SimNode): string => node.core!.identity.origin;

interface Cut extends Stage {
  readonly majority: readonly SimNode[];
  readonly minority: readonly SimNode[];
}

/** Two of five are cut off for longer than a lease; `early` is acknowledged by both of them before they refuse writes. */
function cutOff(lateRetryMs: number): Cut {
  const staged = stage(['a', 'b', 'c', 'd', 'e'], { options: { leaseMs: LEASE_MS, lateRetryMs } });
  const { world, nodes } = staged;
  const [d, e] = nodes.slice(3) as [SimNode, SimNode];
  putNow(nodes[0]!, 'before', 'v', { replicas: 5 });
  world.partition([d, e]);
  world.mend(d, e);
  world.run(HALF_MS - SLACK_MS);
  expect(code(putNow(d, 'early', 'v', { replicas: 2 }))).toBe('ok');
  world.run(LEASE_MS + 2 * SLACK_MS);
  expect(code(putNow(e, 'late', 'v', ALONE))).toBe('NO_MAJORITY');
  return { ...staged, majority: nodes.slice(0, 3), minority: [d, e] };
}

/** All hold the same, after so many stores were set aside and read. */
function expectBack(world: World, nodes: readonly SimNode[], setAside = 0): void {
  expect(world.runUntil(() => world.ledger.faults.setAside >= setAside, BACK_MS)).toBe(true);
  const isBack = (node: SimNode): boolean => node.ready && node.asides.isDone;
  expect(world.runUntil(() => nodes.every(isBack), BACK_MS)).toBe(true);
  expectEqual(nodes);
}

test('what a minority acknowledged before it refused writes comes back when it returns, under new origins', () => {
  const { world, nodes, majority, minority } = cutOff(600_000);
  const origins = minority.map(originOf);
  expect(majority.map((node) => valueAt(node, 'early'))).toEqual([undefined, undefined, undefined]);
  world.healAll();
  expectBack(world, nodes, 2);
  expect(nodes.map((node) => valueAt(node, 'early'))).toEqual(['v', 'v', 'v', 'v', 'v']);
  for (const [i, node] of minority.entries()) expect(originOf(node)).not.toBe(origins[i]);
  expect(world.ledger.faults.returned).toBeGreaterThan(0);
});

test('what was written anew meanwhile stands against what comes back', () => {
  const { world, nodes, majority } = cutOff(600_000);
  expect(code(putNow(majority[0]!, 'early', 'newer', { replicas: 3 }))).toBe('ok');
  world.healAll();
  expectBack(world, nodes, 2);
  expect(nodes.map((node) => valueAt(node, 'early'))).toEqual(['newer', 'newer', 'newer', 'newer', 'newer']);
});

test('what is too old to come back by itself is kept for the operator, and is nowhere else', () => {
  const { world, nodes, minority } = cutOff(W);
  world.healAll();
  expectBack(world, nodes, 2);
  expect(nodes.map((node) => valueAt(node, 'early'))).toEqual(nodes.map(() => undefined));
  for (const { asides } of minority) expect([...asides.kept.keys()]).toEqual(['early']);
});

test('a return that is cut short at any point is taken up again', () => {
  for (const afterMs of [20, 60, 200, 700, 1_500, 3_000]) {
    const { world, nodes, minority } = cutOff(600_000);
    world.healAll();
    for (const node of minority) {
      world.runUntil(() => node.core?.identity.phase === 'outdated' || !node.asides.isDone, SLACK_MS);
      world.run(afterMs);
      node.kill();
      world.run(300);
      node.start();
    }
    expectBack(world, nodes, 2);
    expect(nodes.map((node) => valueAt(node, 'early'))).toEqual(['v', 'v', 'v', 'v', 'v']);
  }
});

test('an old backup is outdated once what it holds was deleted and collected; what only it held is kept', () => {
  const { world, nodes } = stage(['a', 'b', 'c'], { options: { lateRetryMs: W, maxClockDriftMs: 1_000 } });
  const [a, , c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'gone', 'v', { replicas: 3 });
  world.partition([c]);
  putNow(c, 'only there', 'v', ALONE);
  const backup = c.disk.image.clone();
  c.wipe();
  world.healAll();
  c.start();
  expect(world.runUntil(() => c.ready, BACK_MS)).toBe(true);
  del(a, 'gone', { replicas: 3 });
  const isCollected = (): boolean => nodes.every(({ disk }) => !disk.image.rows.has('gone'));
  expect(world.runUntil(isCollected, BACK_MS)).toBe(true);
  c.restore(backup);
  c.start();
  expect(valueAt(c, 'gone')).toBe('v');
  expectBack(world, nodes, 1);
  world.run(3 * W);
  expect(nodes.map((node) => valueAt(node, 'gone'))).toEqual([undefined, undefined, undefined]);
  expect([...c.asides.kept.keys()]).toContain('only there');
});

test('a copy of an old backup at another host is recognised, too', () => {
  const { world, nodes } = stage(['a', 'b', 'c'], { options: { lateRetryMs: W, maxClockDriftMs: 1_000 } });
  const [a, , c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'gone', 'v', { replicas: 3 });
  const backup = c.disk.image.clone();
  del(a, 'gone', { replicas: 3 });
  const isCollected = (): boolean => nodes.every(({ disk }) => !disk.image.rows.has('gone'));
  expect(world.runUntil(isCollected, BACK_MS)).toBe(true);
  const copy = world.add({ name: 'd', join: ['a:1'] });
  copy.restore(backup);
  copy.start();
  expectBack(world, [...nodes, copy], 1);
  expect([...nodes, copy].map((node) => valueAt(node, 'gone'))).toEqual(Array(4).fill(undefined));
});

test('an old backup of a cluster that has deleted nothing since is as good as ever', () => {
  const { world, nodes } = stage(['a', 'b', 'c'], { options: { lateRetryMs: W, maxClockDriftMs: 1_000 } });
  const [a, , c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'k', 'v', { replicas: 3 });
  const backup = c.disk.image.clone();
  world.run(10 * W);
  c.restore(backup);
  c.start();
  expectBack(world, nodes);
  expect([world.ledger.faults.setAside, valueAt(c, 'k')]).toEqual([0, 'v']);
});

test('a cluster that was off as a whole resumes: nothing is set aside', () => {
  const { world, nodes } = stage(['a', 'b', 'c'], { options: { leaseMs: LEASE_MS, lateRetryMs: W } });
  const [a, b] = nodes as [SimNode, SimNode];
  putNow(a, 'k', 'v', { replicas: 3 });
  world.partition([b]);
  putNow(b, 'alone', 'v', ALONE);
  for (const node of nodes) node.kill();
  world.run(5 * LEASE_MS);
  world.healAll();
  for (const node of nodes) node.start();
  expectBack(world, nodes);
  expect([world.ledger.faults.setAside, valueAt(a, 'alone')]).toEqual([0, 'v']);
});

test('a planted bug is caught: what only the old store held is dropped', () => {
  const { world, nodes, minority } = cutOff(600_000);
  for (const { asides } of minority) {
    const { judge } = asides;
    asides.judge = (...entry) => (judge(...entry) === 'return' ? 'held' : judge(...entry));
  }
  world.healAll();
  expect(() => expectBack(world, nodes, 2)).toThrow(Violation);
});

test('a planted bug is caught: what is too old is taken back', async () => {
  const copies = copyWithBugs([OPEN_DOOR]);
  const takesBack = (Core: typeof ReplicaCore): boolean => {
    const options = { leaseMs: LEASE_MS, lateRetryMs: W, maxClockDriftMs: 1_000 };
    const { world, nodes } = stage(['a', 'b', 'c'], { options, Core });
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(a, 'gone', 'v', { replicas: 3 });
    world.partition([c]);
    putNow(c, 'gone', 'of c', ALONE);
    world.run(LEASE_MS + SLACK_MS);
    del(a, 'gone', { replicas: 2 });
    const isCollected = (): boolean => [a, b].every(({ disk }) => !disk.image.rows.has('gone'));
    expect(world.runUntil(isCollected, BACK_MS)).toBe(true);
    const { judge } = c.asides;
    if (Core !== ReplicaCore)
      c.asides.judge = (...entry) => (judge(...entry) === 'keep' ? 'return' : judge(...entry));
    world.healAll();
    expectBack(world, nodes, 1);
    return valueAt(a, 'gone') !== undefined;
  };
  try {
    expect(takesBack(ReplicaCore)).toBe(false);
    const Core = await copies.load(OPEN_DOOR);
    expect(() => {
      if (takesBack(Core)) throw new Violation('garbage', 'a deleted key is back');
    }).toThrow(Violation);
  } finally {
    copies.remove();
  }
}, 60_000);
