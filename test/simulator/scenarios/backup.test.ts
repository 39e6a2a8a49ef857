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
  const { forgotten } = node.core!.sealing.standing;
  const from = { cluster: config.cluster, uid: identity.uid, removed: members.removed(), forgotten };
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

  test('is filled anew if origins were forgotten since: no vector names what it lacks of them', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], { options: { tokenAgeMaxMs: 2_000 } });
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'kept', 'v', { replicas: 3 });
    const backup = restored(b);
    putNow(c, 'unknown to the backup', 'v', { replicas: 3 });
    const origin = c.core!.identity.origin;
    c.wipe();
    c.start();
    expect(world.runUntil(() => c.ready && !a.core!.written.has(origin), 30_000)).toBe(true);
    world.run(5_000);
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(backup);
    r.start();
    expectEqual([...nodes, r]);
    expect([valueAt(r, 'unknown to the backup'), r.core!.counters.rebuilds]).toEqual(['v', 1]);
  });

  test('a backup that was taken after a forgetting needs no more than what is new', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], { options: { tokenAgeMaxMs: 2_000 } });
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'k', 'v', { replicas: 3 });
    const origin = c.core!.identity.origin;
    c.wipe();
    c.start();
    expect(world.runUntil(() => c.ready && !b.core!.written.has(origin), 30_000)).toBe(true);
    world.run(5_000);
    const backup = restored(b);
    putNow(a, 'new', 'v', { replicas: 3 });
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(backup);
    r.start();
    expectEqual([...nodes, r]);
    world.run(5_000);
    expect([valueAt(r, 'new'), r.core!.counters.rebuilds, r.core!.sealing.isIdle]).toEqual(['v', 0, true]);
  });

  test('told to join, and alone for longer than tokens are used, ends no origin by itself', () => {
    const { world, nodes } = stage(['a', 'b'], { options: { tokenAgeMaxMs: 2_000 } });
    const [a, b] = nodes as [SimNode, SimNode];
    for (const node of nodes) putNow(node, `of ${node.name}`, 'v', { replicas: 2 });
    const heads = [...a.disk.image.heads.keys()].sort();
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(restored(a));
    world.partition([r]);
    r.start();
    world.run(20_000);
    expect([...r.disk.image.heads.keys()].sort()).toEqual(heads);
    expect(r.core!.counters.originsSealed).toBe(0);
    putNow(b, 'meanwhile', 'v', { replicas: 2 });
    world.healAll();
    expectEqual([...nodes, r]);
    expect(valueAt(r, 'meanwhile')).toBe('v');
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

  test('alone it ends no origin of the backup, so that a member thought lost gets what it lacks of them', () => {
    const { world, nodes } = stage(['a', 'b'], { options: { tokenAgeMaxMs: 2_000 } });
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'v', { replicas: 2 });
    b.kill();
    putNow(a, 'missed by b', 'v', { replicas: 1 });
    const backup = restored(a);
    const heads = [...backup.heads.keys()].sort();
    a.kill();
    const r = world.add({ name: 'r' });
    r.restore(backup);
    r.start();
    world.run(10_000);
    // Also after a restart, by which it has forgotten that it was restored and met nobody.
    r.kill();
    r.start();
    world.run(10_000);
    expect([...r.disk.image.heads.keys()].sort()).toEqual(heads);
    b.start();
    const m = world.add({ name: 'm', join: ['b:1', 'r:1'] });
    m.start();
    expectEqual([r, b, m], 60_000);
    expect(valueAt(b, 'missed by b')).toBe('v');
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
