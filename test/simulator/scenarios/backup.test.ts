/** Stores restored from a backup: what they may claim, and what they must not bring back. */
import { describe, expect, test } from 'vitest';
import { CARRIED_META, restoredMeta, restoredOf } from '../../../src/core/lifecycle.js';
import { Image } from '../disk.js';
import type { SimNode } from '../node.js';
import { code, del, expectEqual, issuesOf, linkedNames, putNow, stage, valueAt } from './stage.js';

/** What restoring a backup of this node makes: rows, dots and heads are its own, identity and members are not. */
function restored(node: SimNode): Image {
  const { image } = node.disk;
  const out = new Image();
  for (const [key, row] of image.rows) out.rows.set(key, row);
  for (const [dot, key] of image.dots) out.dots.set(dot, key);
  for (const [origin, head] of image.heads) out.heads.set(origin, head);
  out.hlc = { ...image.hlc };
  const { identity, config, members } = node.core!;
  const carried = new Map([...image.meta].filter(([name]) => CARRIED_META.includes(name)));
  const from = { cluster: config.cluster, uid: identity.uid, removed: members.removed(), carried };
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
    expect(r.core!.identity.unmet).toBe(false);
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
    expect(world.runUntil(() => r.core!.identity.unmet === false, 20_000)).toBe(true);
    expect(code(putNow(r, 'met', 'v'))).toBe('ok');
    expectEqual([...nodes, r]);
  });

  test('alone it is a cluster of its own: it takes writes at once, newcomers join it, and a member thought lost is kept out', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'v', { replicas: 2 });
    const backup = restored(a);
    const { uid } = a.core!.identity;
    del(a, 'k', { replicas: 2 });
    world.run(1_000);
    a.kill();
    b.kill();
    const r = world.add({ name: 'r' });
    r.restore(backup);
    r.start();
    world.run(1_000);
    expect([r.ready, code(putNow(r, 'anew', 'v'))]).toEqual([true, 'ok']);
    expect(r.core!.identity.uid).not.toBe(uid);
    const n = world.add({ name: 'n', join: ['r:1'] });
    n.start();
    expectEqual([r, n]);
    // Its disk has what the operator went back behind, and what was sealed since only it may know.
    b.start();
    const stray = world.add({ ...b.settings, name: 'b2', address: 'b2:1', join: ['r:1'] });
    stray.restore(b.disk.image.clone());
    b.kill();
    stray.start();
    world.run(10_000);
    expect([linkedNames(stray), linkedNames(r)]).toEqual([[], ['n']]);
    expect(stray.core!.counters.linksRefused).toBeGreaterThan(0);
    expect([valueAt(r, 'k'), valueAt(stray, 'k')]).toEqual(['v', 'deleted']);
    expect(r.core!.members.active().map(({ name }) => name)).toEqual(['n', 'r']);
    // A restart goes on with the cluster that it founded.
    const founded = r.core!.identity.uid;
    r.kill();
    r.start();
    expectEqual([r, n]);
    expect(r.core!.identity.uid).toBe(founded);
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
    expect(world.runUntil(() => pair.every(({ core }) => core!.identity.unmet === false), 20_000)).toBe(true);
    expect(code(putNow(pair[0]!, 'anew', 'v'))).toBe('ok');
    expectEqual(pair);
    expect(new Set(pair.map(({ core }) => core!.identity.origin)).size).toBe(2);
  });

  test('that missed the forgetting of an origin is filled anew: no vector names what it lacks', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], { options: { tokenAgeMaxMs: 2_000 } });
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'kept', 'v', { replicas: 3 });
    const backup = restored(b);
    putNow(c, 'unknown to the backup', 'v', { replicas: 3 });
    c.wipe();
    world.run(500);
    c.start();
    world.run(20_000);
    const origins = [...a.core!.written.origins()];
    expect(origins).toEqual([b.core!.identity.origin]);
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(backup);
    // Alone for a while first: it may not take itself for all there are, and its doubt for settled.
    world.partition([r]);
    r.start();
    world.run(5_000);
    world.healAll();
    expect(world.runUntil(() => r.core!.counters.rebuilds === 1, 20_000)).toBe(true);
    expectEqual([...nodes, r]);
    expect(valueAt(r, 'unknown to the backup')).toBe('v');
  });

  test('says nothing of what it lacks to a member with a damaged record, as long as it may have missed a forgetting', () => {
    const { world, nodes } = stage(['a', 'b'], { options: { tokenAgeMaxMs: 2_000 } });
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'kept', 'v', { replicas: 2 });
    const backup = restored(a);
    putNow(b, 'unknown to the backup', 'v', { replicas: 2 });
    b.wipe();
    world.run(500);
    b.start();
    world.run(20_000);
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(backup);
    world.partition([b]);
    world.oracle.diskDamaged(a);
    a.disk.image.flipBit('unknown to the backup', 300);
    world.run(5_000);
    a.core!.heal.damaged('unknown to the backup');
    a.input({ type: 'tick' });
    r.start();
    world.run(5_000);
    expect([r.ready, a.core!.counters.damageHealed]).toEqual([false, 0]);
    world.healAll();
    expectEqual([a, b, r], 60_000);
    expect(valueAt(r, 'unknown to the backup')).toBe('v');
  });

  test('that missed nothing is not filled anew, though origins were forgotten before the backup', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], { options: { tokenAgeMaxMs: 2_000 } });
    const [, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'of an ended origin', 'v', { replicas: 3 });
    c.wipe();
    world.run(500);
    c.start();
    world.run(20_000);
    putNow(b, 'k', 'v', { replicas: 3 });
    const backup = restored(b);
    putNow(b, 'l', 'v', { replicas: 3 });
    const r = world.add({ name: 'r', join: ['a:1'] });
    r.restore(backup);
    r.start();
    expectEqual([...nodes, r]);
    world.run(20_000);
    expect([r.core!.counters.rebuilds, r.core!.sealing.standing.proven]).toEqual([0, true]);
    expectEqual([...nodes, r]);
  });
});
