/** Stores restored from a backup: what they may claim, and what they must not bring back. */
import { describe, expect, test } from 'vitest';
import { restoredMeta, restoredOf } from '../../../src/core/lifecycle.js';
import { Image } from '../disk.js';
import type { SimNode } from '../node.js';
import { code, del, expectEqual, issuesOf, putNow, stage, valueAt } from './stage.js';

/** What restoring a backup of this node makes: rows, dots and heads are its own, identity and members are not. */
function restored(node: SimNode): Image {
  const { image } = node.disk;
  const out = new Image();
  for (const [key, row] of image.rows) out.rows.set(key, row);
  for (const [dot, key] of image.dots) out.dots.set(dot, key);
  for (const [origin, head] of image.heads) out.heads.set(origin, head);
  out.hlc = { ...image.hlc };
  const { identity, config, members } = node.core!;
  const from = { cluster: config.cluster, uid: identity.uid, removed: members.removed() };
  for (const [name, bytes] of restoredMeta(from, { node: node.name, takenAtMs: 1, restoredAtMs: 2 }))
    out.meta.set(name, bytes);
  return out;
}

describe('a store restored from a backup', () => {
  test('joins as a new origin, catches up, and brings nothing back', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'deleted later', 'v', { replicas: 3 });
    putNow(b, 'kept', 'v1', { replicas: 3 });
    const backup = restored(b);
    del(c, 'deleted later', { replicas: 3 });
    putNow(a, 'kept', 'v2', { replicas: 3 });
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(backup);
    expect(restoredOf(r.disk.image.meta)).toMatchObject({ node: 'b', isUnmet: true });
    r.start();
    const origins = nodes.map((node) => node.core!.identity.origin);
    expect(origins).not.toContain(r.core!.identity.origin);
    expectEqual([...nodes, r]);
    expect([valueAt(r, 'deleted later'), valueAt(r, 'kept')]).toEqual(['deleted', 'v2']);
    expect(r.core!.unmet).toBe(false);
    expect(restoredOf(r.disk.image.meta)).toMatchObject({ node: 'b', isUnmet: false });
    expect(code(putNow(r, 'after', 'v', { replicas: 4 }))).toBe('ok');
    expect(issuesOf(r)).toEqual([]);
  });

  test('told to join, takes no write before it has met a member: one host alone would be enough to it', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'v', { replicas: 2 });
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(restored(a));
    world.partition([r]);
    r.start();
    world.run(3_000);
    expect([r.ready, code(putNow(r, 'lonely', 'v'))]).toEqual([true, 'NOT_READY']);
    // Nor after a restart.
    r.kill();
    r.start();
    world.run(3_000);
    expect(code(putNow(r, 'lonely', 'v'))).toBe('NOT_READY');
    world.healAll();
    expect(world.runUntil(() => r.core!.unmet === false, 20_000)).toBe(true);
    expect(code(putNow(r, 'met', 'v'))).toBe('ok');
    expectEqual([...nodes, r]);
  });

  test('alone it is the cluster again: it takes writes at once, newcomers join it, and a member thought lost is no stranger', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'v', { replicas: 2 });
    const backup = restored(a);
    putNow(a, 'after the backup', 'v', { replicas: 2 });
    a.kill();
    b.kill();
    const r = world.add({ name: 'r' });
    r.restore(backup);
    r.start();
    world.run(1_000);
    expect([r.ready, code(putNow(r, 'anew', 'v'))]).toEqual([true, 'ok']);
    const n = world.add({ name: 'n', join: ['r:1'] });
    n.start();
    expectEqual([r, n]);
    b.start();
    world.run(1_000);
    const again = world.add({ name: 'm', join: ['b:1', 'r:1'] });
    again.start();
    expectEqual([r, n, b, again], 60_000);
    expect([valueAt(n, 'after the backup'), valueAt(b, 'anew')]).toEqual(['v', 'v']);
  });

  test('two hosts restored from one backup are one cluster', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'v', { replicas: 2 });
    const backup = restored(a);
    a.kill();
    b.kill();
    const seeds = ['r:1', 's:1'];
    const pair = ['r', 's'].map((name) => world.add({ name, join: seeds }));
    for (const node of pair) {
      node.restore(backup);
      node.start();
    }
    expect(world.runUntil(() => pair.every(({ core }) => core!.unmet === false), 20_000)).toBe(true);
    expect(code(putNow(pair[0]!, 'anew', 'v'))).toBe('ok');
    expectEqual(pair);
    expect(new Set(pair.map(({ core }) => core!.identity.origin)).size).toBe(2);
  });
});
