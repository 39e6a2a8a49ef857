/** Members that are silent for a lease: who excludes whom, and who must not go on alone (src/core/exclusion.ts). */
import { expect, test } from 'vitest';
import type { SimNode } from '../node.js';
import { code, expectEqual, issuesOf, putNow, type Stage, stage, valueAt } from './stage.js';

const LEASE_MS = 20_000;
const HALF_MS = LEASE_MS / 2;
/** What beats, the noticing of a lost link and the spreading of news add to a lease. */
const SLACK_MS = 6_000;
const ALONE = { replicas: 1 };

function staged(names: readonly string[]): Stage {
  return stage(names, { options: { leaseMs: LEASE_MS } });
}

const membersOf = (node: SimNode): string =>
  node
    .core!.members.active()
    .map((row) => row.name)
    .join('');

const excludedBy = (node: SimNode): string =>
  node
    .core!.members.excluded()
    .map((one) => one.name)
    .sort()
    .join('');

const phaseOf = (node: SimNode): string => node.core!.identity.phase;

/** Its store is set aside, and it starts with an empty one. */
function startAnew(node: SimNode): void {
  node.wipe();
  node.start();
}

test('one of three is silent for a lease: the two others exclude it, not before, and go on', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  c.kill();
  world.run(LEASE_MS - SLACK_MS);
  expect([excludedBy(a), excludedBy(b)]).toEqual(['', '']);
  world.run(2 * SLACK_MS);
  expect([membersOf(a), membersOf(b)]).toEqual(['ab', 'ab']);
  expect(a.core!.members.absent()).toMatchObject([{ name: 'c' }]);
  expect(code(putNow(a, 'k', 'v', { replicas: 2 }))).toBe('ok');
  c.start();
  expect(world.runUntil(() => phaseOf(c) === 'outdated', SLACK_MS)).toBe(true);
  expect(issuesOf(c)).toEqual(['OUTDATED']);
  expect(code(putNow(c, 'late', 'v', ALONE))).toBe('NOT_READY');
  world.run(SLACK_MS);
  expect(valueAt(c, 'k')).toBeUndefined();
  startAnew(c);
  expect(world.runUntil(() => c.ready && membersOf(a) === 'abc', 20_000)).toBe(true);
  expectEqual(nodes);
  expect(a.core!.members.absent()).toEqual([]);
  expect(excludedBy(a)).toBe('c');
});

test('what an excluded member wrote when it was cut off reaches nobody, whoever it meets', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  world.partition([c]);
  expect(code(putNow(c, 'own', 'v', ALONE))).toBe('ok');
  world.run(LEASE_MS + SLACK_MS);
  expect(excludedBy(a)).toBe('c');
  world.healAll();
  world.run(SLACK_MS);
  expect(phaseOf(c)).toBe('outdated');
  expect([valueAt(a, 'own'), valueAt(b, 'own'), valueAt(c, 'own')]).toEqual([undefined, undefined, 'v']);
  // After a restart it knows by itself: it has heard the table, or hears it again.
  c.kill();
  c.start();
  world.run(SLACK_MS);
  expect(phaseOf(c)).toBe('outdated');
  expect(valueAt(a, 'own')).toBeUndefined();
});

test('two of five are cut off: they take no writes after half a lease, and the three exclude them after a whole', () => {
  const { world, nodes } = staged(['a', 'b', 'c', 'd', 'e']);
  const [a, , , d, e] = nodes as [SimNode, SimNode, SimNode, SimNode, SimNode];
  putNow(a, 'before', 'v', { replicas: 5 });
  world.partition([d, e]);
  // The two hear each other.
  world.mend(d, e);
  world.run(HALF_MS - SLACK_MS);
  expect(code(putNow(d, 'early', 'v', { replicas: 2 }))).toBe('ok');
  world.run(2 * SLACK_MS);
  for (const node of [d, e]) {
    expect(code(putNow(node, 'late', 'v', ALONE))).toBe('NO_MAJORITY');
    expect(node.core!.issues()).toMatchObject([
      { code: 'NO_MAJORITY', message: expect.stringContaining('(2 of 5, itself included)') },
    ]);
    expect(node.ready && valueAt(node, 'before')).toBe('v');
  }
  expect(code(putNow(a, 'more', 'v', { replicas: 3 }))).toBe('ok');
  expect(excludedBy(a)).toBe('');
  world.run(HALF_MS);
  expect(nodes.slice(0, 3).map(membersOf)).toEqual(['abc', 'abc', 'abc']);
  expect([membersOf(d), membersOf(e)]).toEqual(['abcde', 'abcde']);
  world.healAll();
  expect(world.runUntil(() => phaseOf(d) === 'outdated' && phaseOf(e) === 'outdated', SLACK_MS)).toBe(true);
  for (const node of [d, e]) startAnew(node);
  expect(world.runUntil(() => nodes.every((node) => node.ready), 20_000)).toBe(true);
  expectEqual(nodes);
  // They took it before they knew, and nobody else had it: a driver sets it aside.
  expect(valueAt(a, 'early')).toBeUndefined();
});

test('two halves of four do nothing to each other, take writes, and lose none', () => {
  const { world, nodes } = staged(['a', 'b', 'c', 'd']);
  const [a, b, c, d] = nodes as [SimNode, SimNode, SimNode, SimNode];
  world.partition([a, b]);
  world.mend(a, b);
  world.run(3 * LEASE_MS);
  expect(nodes.map(excludedBy)).toEqual(['', '', '', '']);
  expect(code(putNow(a, 'left', 'v', { replicas: 2 }))).toBe('ok');
  expect(code(putNow(d, 'right', 'v', { replicas: 2 }))).toBe('ok');
  world.healAll();
  expectEqual(nodes);
  expect([valueAt(c, 'left'), valueAt(b, 'right')]).toEqual(['v', 'v']);
  expect(nodes.map(membersOf)).toEqual(['abcd', 'abcd', 'abcd', 'abcd']);
});

test('of two members none excludes the other, and the one alone goes on; an operator removes', () => {
  const { world, nodes } = staged(['a', 'b']);
  const [a, b] = nodes as [SimNode, SimNode];
  b.kill();
  world.run(3 * LEASE_MS);
  expect(membersOf(a)).toBe('ab');
  expect(code(putNow(a, 'k', 'v', ALONE))).toBe('ok');
  a.input({ type: 'remove-member', id: 1, name: 'b' });
  expect(membersOf(a)).toBe('a');
});

test('a host that slept for more than a lease excludes nobody, and takes no write before it hears the others', () => {
  const { world, nodes } = staged(['a', 'b', 'c', 'd']);
  const [a, b, c, d] = nodes as [SimNode, SimNode, SimNode, SimNode];
  // Three of four sleep: the one that is awake is no majority of the table, so it counts nothing either.
  for (const node of [a, b, c]) node.pause();
  world.run(2 * LEASE_MS);
  expect(code(putNow(d, 'alone', 'v', ALONE))).toBe('NO_MAJORITY');
  // Nobody reaches those that wake.
  for (const node of [a, b, c]) world.partition([node]);
  for (const node of [a, b, c]) node.proceed();
  world.run(200);
  expect(code(putNow(a, 'late', 'v', ALONE))).toBe('NO_MAJORITY');
  world.run(HALF_MS);
  expect(nodes.map((node) => node.core!.exclusion.silent)).toEqual([[], [], [], []]);
  world.healAll();
  const isFree = (node: SimNode): boolean => code(putNow(node, `by ${node.name}`, 'v', ALONE)) === 'ok';
  expect(world.runUntil(() => nodes.every(isFree), SLACK_MS)).toBe(true);
  expectEqual(nodes);
  expect(nodes.map(excludedBy)).toEqual(['', '', '', '']);
});

test('a sleeper that wakes counts anew: it does not vote before a lease has passed', () => {
  const { world, nodes } = staged(['a', 'b', 'c', 'd', 'e']);
  const [a, b, , , e] = nodes as [SimNode, SimNode, SimNode, SimNode, SimNode];
  for (const other of [a, b]) world.cut(other, e);
  world.run(HALF_MS + SLACK_MS);
  a.pause();
  world.run(HALF_MS);
  a.proceed();
  world.run(HALF_MS);
  expect(b.core!.exclusion.silent).toEqual([e.core!.identity.origin]);
  expect(a.core!.exclusion.silent).toEqual([]);
  world.run(HALF_MS + SLACK_MS);
  expect(a.core!.exclusion.silent).toEqual([e.core!.identity.origin]);
  // Two of five have not heard it; the others have.
  expect(nodes.map(membersOf)).toEqual(['abcde', 'abcde', 'abcde', 'abcde', 'abcde']);
});

test('a cluster that was off for longer than any lease resumes, whoever starts first', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'k', 'v', { replicas: 3 });
  for (const node of nodes) node.kill();
  world.run(5 * LEASE_MS);
  a.start();
  b.start();
  world.run(HALF_MS);
  c.start();
  expectEqual(nodes);
  expect(nodes.map((node) => code(putNow(node, `by ${node.name}`, 'v', { replicas: 3 })))).toEqual([
    'ok',
    'ok',
    'ok',
  ]);
  expect(nodes.map(excludedBy)).toEqual(['', '', '']);
});

test('a vote is withdrawn when its member is heard again, and does not outlive a restart of the voter', () => {
  const { world, nodes } = staged(['a', 'b', 'c', 'd', 'e']);
  const [a, b, c, , e] = nodes as [SimNode, SimNode, SimNode, SimNode, SimNode];
  const origin = e.core!.identity.origin;
  for (const other of [a, b]) world.cut(other, e);
  world.run(LEASE_MS + SLACK_MS);
  expect(c.core!.members.votes(origin)).toBe(2);
  world.mend(a, e);
  world.run(SLACK_MS);
  expect(c.core!.members.votes(origin)).toBe(1);
  b.kill();
  b.start();
  world.run(SLACK_MS);
  expect(nodes.map((node) => node.core!.members.votes(origin))).toEqual([0, 0, 0, 0, 0]);
});

test('one member that hears it keeps the votes of the others short of a majority', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  world.cut(a, c);
  world.run(3 * LEASE_MS);
  expect(a.core!.members.votes(c.core!.identity.origin)).toBe(1);
  expect(nodes.map(membersOf)).toEqual(['abc', 'abc', 'abc']);
  expect(code(putNow(c, 'k', 'v', { replicas: 2 }))).toBe('ok');
  world.runUntil(() => valueAt(a, 'k') === 'v', SLACK_MS);
  expect([valueAt(a, 'k'), valueAt(b, 'k')]).toEqual(['v', 'v']);
});

test('in a mesh that is not full, silence is that of pulses: nobody is excluded, and a dead one is', () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  const { world, nodes } = stage(names, {
    options: { leaseMs: LEASE_MS, fullMeshMax: 3, meshLinks: 3 },
  });
  world.run(2 * LEASE_MS);
  expect(nodes.map(excludedBy)).toEqual(names.map(() => ''));
  nodes[7]!.kill();
  world.run(LEASE_MS + 2 * SLACK_MS);
  expect(nodes.slice(0, 7).map(membersOf)).toEqual(names.slice(0, 7).map(() => 'abcdefg'));
});

test('an excluded member no longer holds up the garbage horizon, nor the sealing of its origin', () => {
  const W = 4_000;
  const { world, nodes } = stage(['a', 'b', 'c'], {
    options: { leaseMs: LEASE_MS, lateRetryMs: W, maxClockDriftMs: 1_000 },
  });
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  expect(code(putNow(c, 'k', 'v', { replicas: 3 }))).toBe('ok');
  const dot = { origin: c.core!.identity.origin, seq: 2 };
  c.kill();
  const was = world.wall();
  world.run(LEASE_MS - SLACK_MS);
  expect(a.core!.horizon.collectable).toBeLessThanOrEqual(was);
  world.run(4 * SLACK_MS);
  for (const node of [a, b]) {
    expect(world.wall() - W - node.core!.horizon.collectable).toBeLessThan(SLACK_MS);
    expect(node.core!.sealing.covers(dot)).toBe('lost');
  }
});
