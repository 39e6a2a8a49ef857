import { describe, expect, test } from 'vitest';
import { LEAF_KEYS } from '../../../src/core/digest-tree.js';
import { checkDigest } from '../finish.js';
import type { SimNode } from '../node.js';
import { expectEqual, putNow, putOp, stage, writeOps } from './stage.js';

/** More than make a leaf that is cut although the node is busy. */
const MANY = 10_000;
const BATCH = 500;

const keyOf = (i: number): string => `row/${String(i).padStart(6, '0')}`;

/** Loads so many keys in an order: the one of the first, or the reverse. */
function load(node: SimNode, count: number, rising: boolean): void {
  for (let from = 0; from < count; from += BATCH) {
    const ops = Array.from({ length: BATCH }, (_, i) =>
      putOp(keyOf(rising ? from + i : count - from - i), 'v'),
    );
    writeOps(node, ops, { replicas: 1 });
    node.world.run(20);
  }
}

/** Writes on, never at rest for long. */
function keepBusy(node: SimNode, ms: number): void {
  const { scheduler } = node.world;
  for (const until = scheduler.now + ms; scheduler.now < until; node.world.run(50))
    putNow(node, 'busy', `at ${scheduler.now}`, { replicas: 1 });
}

describe('the digest of what is loaded', () => {
  test('against the order of keys is cut once the node is at rest', () => {
    const { world, nodes } = stage(['a']);
    const [a] = nodes as [SimNode];
    load(a, MANY, false);
    expect(a.core!.digest.leaves).toBe(1);
    expect(world.runUntil(() => a.core!.digest.leaves >= MANY / LEAF_KEYS, 5_000)).toBe(true);
    checkDigest(a);
  }, 60_000);

  test('against the order of keys is cut after half a minute, if the node comes to no rest', () => {
    const { nodes } = stage(['a']);
    const [a] = nodes as [SimNode];
    load(a, MANY, false);
    keepBusy(a, 25_000);
    expect(a.core!.digest.leaves).toBe(1);
    keepBusy(a, 10_000);
    expect(a.core!.digest.leaves).toBeGreaterThanOrEqual(MANY / LEAF_KEYS);
    checkDigest(a);
  }, 60_000);

  test('in order of keys has its leaves at once, and so has the one of a member that copies it', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    load(a, MANY, true);
    expect(a.core!.digest.leaves).toBeGreaterThanOrEqual(MANY / LEAF_KEYS);
    expectEqual(nodes);
    b.kill();
    b.wipe();
    b.start();
    expect(world.runUntil(() => b.core?.ready === true, 30_000)).toBe(true);
    expect(b.core!.digest.leaves).toBeGreaterThanOrEqual(MANY / LEAF_KEYS);
    expectEqual(nodes);
    for (const node of nodes) checkDigest(node);
  }, 60_000);
});
