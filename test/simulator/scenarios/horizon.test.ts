/** The garbage horizon: how far it comes, what holds it up, and whom it leaves behind (src/core/horizon.ts). */
import { expect, test } from 'vitest';
import type { SimNode } from '../node.js';
import { code, del, put, putNow, type Stage, stage, stampAt } from './stage.js';

const W = 4_000;
const OPTIONS = { lateRetryMs: W, maxClockDriftMs: 1_000 };
/** Reports, and the batches that store what they say, take a few beats. */
const LAG_MS = 5_000;

function staged(names: readonly string[]): Stage {
  return stage(names, { options: OPTIONS });
}

/** How far behind true time less W the node's horizon is, ms. */
function lag(node: SimNode): number {
  return node.world.wall() - W - node.core!.horizon.collectable;
}

test('the horizon follows the clock at a distance of W and a few beats', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  putNow(nodes[0]!, 'k', 'v');
  world.run(10_000);
  for (const node of nodes) {
    expect(lag(node)).toBeLessThan(LAG_MS);
    expect(lag(node)).toBeGreaterThan(0);
    expect(node.core!.horizon.blockedBy).toEqual([]);
  }
});

test('a member that is silent holds it up, and is named', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, , c] = nodes as [SimNode, SimNode, SimNode];
  world.run(10_000);
  c.kill();
  const was = world.wall();
  world.run(60_000);
  expect(a.core!.horizon.collectable).toBeLessThanOrEqual(was - W);
  expect(a.core!.horizon.blockedBy).toMatchObject([{ who: 'c', why: 'silent' }]);
  c.start();
  expect(world.runUntil(() => nodes.every((node) => lag(node) < LAG_MS), 20_000)).toBe(true);
  expect(a.core!.horizon.blockedBy).toEqual([]);
});

test('no report rests on what a loss of power may take', () => {
  const { world, nodes } = staged(['a', 'b']);
  const [a, b] = nodes as [SimNode, SimNode];
  world.run(10_000);
  b.diskFaults.slowMs = 12_000;
  let exposed = 0;
  for (let i = 0; i < 20; i++) {
    const key = `k${i}`;
    put(a, key, 'v', { replicas: 1 });
    const at = world.wall();
    world.afterInput = () => {
      if (!b.disk.image.rows.has(key) || b.disk.durable.rows.has(key)) return;
      exposed += 1;
      expect(b.core!.horizon.report.asOf).toBeLessThan(at);
    };
    world.run(20_000);
  }
  expect(exposed).toBeGreaterThan(20);
});

test('a client may be late by W and no more', () => {
  const { world, nodes } = staged(['a', 'b']);
  world.run(10_000);
  const [a] = nodes as [SimNode];
  expect(code(putNow(a, 'k', 'v', { stamp: stampAt(world, -W + 1_500) }))).toBe('ok');
  expect(code(putNow(a, 'k', 'v', { stamp: stampAt(world, -W - 1_500) }))).toBe('STALE_STAMP');
});

test('a clock that is set back over a restart does not open the door again', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  world.run(20_000);
  const [, b] = nodes as [SimNode, SimNode];
  const before = b.core!.horizon.report.clock;
  const tooOld = stampAt(world, -W - 3_000);
  expect(code(putNow(b, 'k', 'v', { stamp: tooOld, replicas: 1 }))).toBe('STALE_STAMP');
  b.kill();
  world.partition([b]);
  b.clockOffsetMs = -10_000;
  b.start();
  expect(world.runUntil(() => b.ready, 5_000)).toBe(true);
  expect(b.core!.horizon.report.clock).toBeGreaterThanOrEqual(before);
  expect(code(putNow(b, 'k', 'v', { stamp: tooOld, replicas: 1 }))).not.toBe('ok');
});

test('a clock that is set far ahead does not carry the horizon along', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  world.run(10_000);
  const [a] = nodes as [SimNode];
  a.clockOffsetMs = 86_400_000;
  world.run(30_000);
  for (const node of nodes) expect(node.core!.horizon.collectable).toBeLessThan(world.wall());
  a.clockOffsetMs = 0;
  expect(world.runUntil(() => nodes.every((node) => lag(node) < LAG_MS), 60_000)).toBe(true);
  expect(code(putNow(a, 'k', 'v'))).toBe('ok');
});

test('a cluster that was off as a whole resumes, for however long it was', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  putNow(nodes[0]!, 'k', 'v', { replicas: 3 });
  del(nodes[0]!, 'k', { replicas: 3 });
  world.run(20_000);
  expect(nodes.every(({ core }) => core!.horizon.collected > 0)).toBe(true);
  for (const node of nodes) node.kill();
  world.run(100 * W);
  for (const node of nodes) node.start();
  expect(world.runUntil(() => nodes.every((node) => node.ready && lag(node) < LAG_MS), 60_000)).toBe(true);
});

test('a newcomer holds it up until it has copied everything, and takes over how far its sources were', () => {
  const { world, nodes } = stage(['a', 'b'], { options: { ...OPTIONS, chunkRowsMax: 1, chunksInFlight: 1 } });
  const [a] = nodes as [SimNode];
  for (let i = 0; i < 40; i++) putNow(a, `k${i}`, 'v');
  world.run(10_000);
  const c = world.add({ name: 'c', join: ['a:1'] });
  c.start();
  expect(world.runUntil(() => c.disk.image.rows.size > 5 && !c.ready, 10_000)).toBe(true);
  const { collectable } = a.core!.horizon;
  world.partition([c]);
  world.run(30_000);
  expect(a.core!.horizon.collectable).toBeLessThanOrEqual(collectable + 1_000);
  expect(a.core!.horizon.blockedBy).toMatchObject([{ who: 'c' }]);
  world.healAll();
  expect(world.runUntil(() => c.ready, 60_000)).toBe(true);
  expect(c.core!.horizon.asOf).toBeGreaterThan(0);
  expect(world.runUntil(() => [...nodes, c].every((node) => lag(node) < LAG_MS), 60_000)).toBe(true);
});
