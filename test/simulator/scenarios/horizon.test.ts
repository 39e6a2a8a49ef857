/** The garbage horizon: how far it comes, what holds it up, and whom it leaves behind (src/core/horizon.ts). */
import { expect, test } from 'vitest';
import type { SimNode } from '../node.js';
import { code, putNow, type Stage, stage, stampAt } from './stage.js';

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

test('a client may be late by W and no more', () => {
  const { world, nodes } = staged(['a', 'b']);
  world.run(10_000);
  const [a] = nodes as [SimNode];
  expect(code(putNow(a, 'k', 'v', { stamp: stampAt(world, -W + 1_500) }))).toBe('ok');
  expect(code(putNow(a, 'k', 'v', { stamp: stampAt(world, -W - 1_500) }))).toBe('STALE_STAMP');
});
