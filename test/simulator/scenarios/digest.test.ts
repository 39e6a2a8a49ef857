import { describe, expect, test } from 'vitest';
import { DigestSum } from '../../../src/core/digest-sum.js';
import { dotOf, isTombstone, stampHexOf } from '../../../src/core/entry.js';
import { digestEntry } from '../../../src/core/entry-hash.js';
import type { Row } from '../../../src/core/types.js';
import { checkDigest, rest } from '../finish.js';
import type { SimNode } from '../node.js';
import { expectEqual, issuesOf, putNow, putOp, stage, stampOn, tune, valueAt } from './stage.js';

const counters = (node: SimNode) => node.core!.counters;

/** Takes the record from the disk as if it had never been there, or had been collected. */
function forget(node: SimNode, key: string): Row {
  const { image } = node.disk;
  const row = image.rows.get(key)!;
  const { origin, seq } = dotOf(row);
  image.rows.delete(key);
  image.dots.delete(`${origin}:${seq}`);
  node.world.oracle.horizons.exempt(node);
  return row;
}

/** Makes the store say of itself what it holds: no evidence is left of what was done to it. */
function coverUp(node: SimNode): void {
  const { image } = node.disk;
  const sum = new DigestSum();
  for (const [key, row] of image.rows) sum.add(digestEntry(key, row));
  image.meta.set('digest', Uint8Array.from([0, ...sum.bytes()]));
}

function crash(nodes: readonly SimNode[]): void {
  for (const node of nodes) node.kill();
}

function start(nodes: readonly SimNode[]): void {
  for (const node of nodes) node.start();
}

/** Until everybody's copy is proved equal to everybody else's. */
function proved(nodes: readonly SimNode[], withinMs = 60_000): boolean {
  return nodes[0]!.world.runUntil(
    () => nodes.every((node) => node.core?.provedAt !== undefined && !node.core.digest.doubt),
    withinMs,
  );
}

/** A formed cluster that has written this. */
function filled(names: readonly string[], keys: readonly string[]): SimNode[] {
  const { nodes } = stage(names);
  for (const key of keys) putNow(nodes[0]!, key, `value of ${key}`);
  expectEqual(nodes);
  return nodes;
}

const KEYS = Array.from({ length: 12 }, (_, i) => `k${String(i).padStart(2, '0')}`);

describe('members at rest', () => {
  test('are what the oracle compares with their disks: not in the middle of a batch', () => {
    const { world, nodes } = stage(['a']);
    const [a] = nodes as [SimNode];
    a.write([putOp('k', 'v')], {});
    for (let i = 0; i < 10_000 && !a.disk.image.rows.has('k'); i++) world.run(0.01);
    expect(() => checkDigest(a)).toThrow('its disk holds');
    rest(world, nodes);
    checkDigest(a);
  });

  test('prove their copies equal, and know since when', () => {
    const nodes = filled(['a', 'b', 'c'], KEYS);
    expect(proved(nodes)).toBe(true);
    for (const node of nodes) {
      expect(KEYS.every((key) => node.core!.isProved(key))).toBe(true);
      expect(node.core!.digest).toMatchObject({ keys: KEYS.length, builtPercent: 100 });
      checkDigest(node);
    }
    const at = nodes[0]!.core!.provedAt!;
    nodes[0]!.world.run(30_000);
    expect(nodes[0]!.core!.provedAt!).toBeGreaterThan(at + 10_000);
  });

  test('have the same digest though a retry gave one entry two dots', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    const stamp = `${(BigInt(world.wall()) << 16n).toString(16).padStart(16, '0')}${'c'.repeat(16)}`;
    world.cut(a, b);
    putNow(a, 'k', 'v', { stamp, replicas: 1, timeoutMs: 500 });
    putNow(b, 'k', 'v', { stamp, replicas: 1, timeoutMs: 500 });
    expect(a.core!.digest.root).toBe(b.core!.digest.root);
    world.mend(a, b);
    expectEqual(nodes);
    expect(proved(nodes)).toBe(true);
    expect(counters(a).digestMismatches + counters(b).digestMismatches).toBe(0);
  });
});

describe('a store that lost a record unnoticed', () => {
  test('is found out at its next start, says so, and gets the record back from a peer', () => {
    const nodes = filled(['a', 'b'], KEYS);
    const [a, b] = nodes as [SimNode, SimNode];
    const { world } = a;
    crash([b]);
    forget(b, 'k05');
    world.cut(a, b);
    start([b]);
    expect(world.runUntil(() => b.core!.digest.builtPercent === 100, 5_000)).toBe(true);
    expect(issuesOf(b)).toContain('DAMAGED');
    expect(b.core!.isProved('k05')).toBe(false);
    expect(counters(b).digestDamages).toBe(1);
    world.mend(a, b);
    expect(proved(nodes)).toBe(true);
    expect(valueAt(b, 'k05')).toBe('value of k05');
    expect(counters(b)).toMatchObject({ recordsRepaired: 1, rangesRepaired: 1, recordsSetAside: 0 });
    expect(counters(b).digestMismatches).toBeGreaterThan(0);
    expect(issuesOf(b)).toEqual([]);
    expect(b.core!.isProved('k05')).toBe(true);
    expectEqual(nodes);
  });

  test('gets it back though an ended origin left a gap, which goes only once all copies are proved equal', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], { options: { tokenAgeMaxMs: 2_000 } });
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    for (const key of KEYS) putNow(a, key, `value of ${key}`, { replicas: 3 });
    const { pullGraceMs } = world.options;
    tune(world, { pullGraceMs: 600_000 });
    world.partition([c]);
    world.run(3_000);
    putNow(c, 'lost with c', 'v', { replicas: 1 });
    world.healAll();
    world.run(6_000);
    putNow(c, 'above the gap', 'v', { replicas: 3, timeoutMs: 8_000 });
    tune(world, { pullGraceMs });
    const ended = c.core!.identity.origin;
    crash([b]);
    forget(b, 'k05');
    c.wipe();
    start([c]);
    expect(world.runUntil(() => c.ready, 20_000)).toBe(true);
    expect([a.core!.written.head(ended), a.core!.written.top(ended)]).toEqual([0, 2]);
    start([b]);
    expect(world.runUntil(() => b.core!.digest.builtPercent === 100, 5_000)).toBe(true);
    expect([issuesOf(b), b.core!.written.hasGaps]).toEqual([expect.arrayContaining(['DAMAGED']), true]);
    expect(proved(nodes)).toBe(true);
    expect([valueAt(b, 'k05'), issuesOf(b)]).toEqual(['value of k05', []]);
    expect(counters(b)).toMatchObject({ recordsRepaired: 1, recordsSetAside: 0 });
    // Where there is a gap, copies that differ are no evidence of damage.
    expect(nodes.map((node) => counters(node).digestMismatches)).toEqual([0, 0, 0]);
    expect(world.runUntil(() => nodes.every((node) => !node.core!.written.has(ended)), 20_000)).toBe(true);
    expectEqual(nodes);
  });

  test('does not forget its doubt in a second crash', () => {
    const nodes = filled(['a', 'b'], KEYS);
    const [a, b] = nodes as [SimNode, SimNode];
    const { world } = a;
    crash([b]);
    forget(b, 'k05');
    world.cut(a, b);
    start([b]);
    world.runUntil(() => issuesOf(b).includes('DAMAGED'), 5_000);
    world.run(100);
    crash([b]);
    start([b]);
    world.run(1_000);
    expect(issuesOf(b)).toContain('DAMAGED');
    expect(b.core!.isProved('k07')).toBe(false);
    world.mend(a, b);
    expect(proved(nodes)).toBe(true);
    expect(valueAt(b, 'k05')).toBe('value of k05');
  });

  test('that serves an old record in place of a newer one gets the newer one', () => {
    const nodes = filled(['a', 'b', 'c'], KEYS);
    const [a, , c] = nodes as [SimNode, SimNode, SimNode];
    const old = c.disk.image.rows.get('k03')!;
    putNow(a, 'k03', 'newer', { replicas: 3 });
    crash([c]);
    forget(c, 'k03');
    c.disk.image.rows.set('k03', old);
    c.disk.image.dots.set(`${dotOf(old).origin}:${dotOf(old).seq}`, 'k03');
    start([c]);
    expect(proved(nodes)).toBe(true);
    expect(valueAt(c, 'k03')).toBe('newer');
    expect(counters(a).recordsRepaired).toBe(0);
  });

  test('a record with a flipped bit is found by the start and by a look-up alike, and mended', () => {
    const nodes = filled(['a', 'b', 'c'], KEYS);
    const [a, b] = nodes as [SimNode, SimNode, SimNode];
    const { world } = a;
    crash([b]);
    b.disk.image.flipBit('k02', 333);
    start([b]);
    expect(proved(nodes)).toBe(true);
    expect(valueAt(b, 'k02')).toBe('value of k02');
    world.oracle.diskDamaged(b);
    b.disk.image.flipBit('k04', 333);
    putNow(a, 'k04', 'stale', { replicas: 1, stamp: `${'0'.repeat(15)}1${'c'.repeat(16)}` });
    putNow(a, 'k04', 'newest', { replicas: 1 });
    world.runUntil(() => counters(b).damageHealed === 2, 20_000);
    expect(counters(b)).toMatchObject({ damageFound: 2, damageHealed: 2, recordsLost: 0, digestDamages: 1 });
    expect(proved(nodes)).toBe(true);
    expect(valueAt(b, 'k04')).toBe('newest');
  });
});

describe('a record that one lacks though its head covers it', () => {
  /** `k06` is gone from all of `from`, as after a deletion whose tombstone was collected. */
  function collected(names: readonly string[], from: readonly number[]): SimNode[] {
    const nodes = filled(names, KEYS);
    crash(nodes);
    for (const i of from) {
      forget(nodes[i]!, 'k06');
      coverUp(nodes[i]!);
    }
    return nodes;
  }

  test('and which a majority lacks is set aside by its holder, and spread by nobody', () => {
    const nodes = collected(['a', 'b', 'c'], [0, 1]);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    start(nodes);
    expect(proved(nodes)).toBe(true);
    for (const node of nodes) expect(valueAt(node, 'k06')).toBeUndefined();
    expect(counters(c).recordsSetAside).toBe(1);
    expect(counters(a).recordsRepaired + counters(b).recordsRepaired).toBe(0);
    for (const node of nodes) expect(node.disk.image.inconsistency()).toBeUndefined();
    expect(nodes.map((node) => node.core!.digest.root)).toEqual(nodes.map(() => a.core!.digest.root));
    putNow(a, 'k06', 'written anew', { replicas: 3 });
    expect(nodes.map((node) => valueAt(node, 'k06'))).toEqual(nodes.map(() => 'written anew'));
  });

  test('and which a majority holds is fetched by who lacks it, though nothing shows that it lost it', () => {
    const nodes = collected(['a', 'b', 'c'], [2]);
    start(nodes);
    expect(proved(nodes)).toBe(true);
    for (const node of nodes) expect(valueAt(node, 'k06')).toBe('value of k06');
    expectEqual(nodes);
  });

  test('is set aside by one of two that is known to show what it should not hold', () => {
    const nodes = filled(['a', 'b'], KEYS);
    const [a, b] = nodes as [SimNode, SimNode];
    crash(nodes);
    forget(a, 'k06');
    coverUp(a);
    const row = forget(b, 'k06');
    coverUp(b);
    b.disk.image.rows.set('k06', row);
    b.disk.image.dots.set(`${dotOf(row).origin}:${dotOf(row).seq}`, 'k06');
    start(nodes);
    expect(proved(nodes)).toBe(true);
    expect([valueAt(a, 'k06'), valueAt(b, 'k06')]).toEqual([undefined, undefined]);
    expect(counters(b)).toMatchObject({ digestDamages: 1, recordsSetAside: 1 });
  });

  test('stays where it is between two without evidence, shows in health, is asked about ever more rarely, and ends with a new write', () => {
    const nodes = collected(['a', 'b'], [0]);
    const [a, b] = nodes as [SimNode, SimNode];
    start(nodes);
    const { world } = a;
    // What was taken from the disk by hand is not there when the horizon passes it.
    tune(world, { lateRetryMs: 3_600_000 });
    world.run(1_200_000);
    expect([valueAt(a, 'k06'), valueAt(b, 'k06')]).toEqual([undefined, 'value of k06']);
    for (const node of nodes) {
      expect(issuesOf(node)).toContain('DAMAGED');
      expect(counters(node).recordsDisputed).toBeGreaterThan(3);
      expect(counters(node).recordsDisputed).toBeLessThan(20);
    }
    putNow(a, 'k06', 'anew');
    expect(proved(nodes)).toBe(true);
    for (const node of nodes) expect(issuesOf(node)).toEqual([]);
    expectEqual(nodes);
  });
});

describe('the tree', () => {
  const MANY = 5_000;

  /** Two members with more rows than one slice of a survey has. */
  function large(): SimNode[] {
    const { world, nodes } = stage(['a', 'b']);
    for (let i = 0; i < MANY; i += 250) {
      const ops = Array.from({ length: 250 }, (_, j) => putOp(`row/${(i + j) * 7}`, `${i + j}`));
      nodes[0]!.writeAll(ops.map((op) => [op]));
      world.run(100);
    }
    expectEqual(nodes);
    return nodes;
  }

  test('is built at the start while writes go on, behind and ahead of where it reads', () => {
    const nodes = large();
    const [a, b] = nodes as [SimNode, SimNode];
    const { world } = a;
    crash([b]);
    start([b]);
    let during = 0;
    for (let i = 0; i < 2_000 && b.core!.digest.builtPercent < 100; i++) {
      const which = Math.floor(world.random.between(0, MANY * 1.1));
      b.write([putOp(`row/${which * 7}`, `during ${i}`)], { replicas: 1 });
      if (i % 3 === 0) a.write([putOp(`row/${which}`, `elsewhere ${i}`)], { replicas: 1 });
      world.run(1);
      during += 1;
    }
    expect(during).toBeGreaterThan(5);
    expect(b.core!.digest.leaves).toBeGreaterThan(5);
    expectEqual(nodes);
    for (const node of nodes) checkDigest(node);
    expect(proved(nodes)).toBe(true);
  }, 60_000);

  test('of a node that was closed in order is there at once, and proved without reading the store', () => {
    const nodes = large();
    const [a, b] = nodes as [SimNode, SimNode];
    const { world } = a;
    expect(proved(nodes)).toBe(true);
    b.input({ type: 'stop' });
    world.run(200);
    crash([b]);
    expect(b.disk.image.meta.has('digest-leaves')).toBe(true);
    world.cut(a, b);
    start([b]);
    expect(b.core!.digest.builtPercent).toBe(100);
    expect(b.core!.isProved('row/7')).toBe(true);
    expect(b.core!.digest.root).toBe(a.core!.digest.root);
    putNow(b, 'first', 'batch', { replicas: 1 });
    expect(b.disk.image.meta.has('digest-leaves')).toBe(false);
    crash([b]);
    start([b]);
    expect(b.core!.digest.builtPercent).toBeLessThan(100);
    world.mend(a, b);
    expectEqual(nodes);
    expect(proved(nodes)).toBe(true);
    for (const node of nodes) checkDigest(node);
  }, 60_000);

  test('leads a comparison of large stores to the records that differ, and to few others', () => {
    const nodes = large();
    const [a, b] = nodes as [SimNode, SimNode];
    const { world } = a;
    crash([b]);
    for (const i of [3, 1_234, 4_999]) forget(b, `row/${i * 7}`);
    start([b]);
    world.run(500);
    expect(proved(nodes)).toBe(true);
    expect(counters(b)).toMatchObject({ recordsRepaired: 3, digestDamages: 1 });
    expectEqual(nodes);
  }, 60_000);
});

test('a stop takes no more writes, and says so', () => {
  const { world, nodes } = stage(['a']);
  const a = nodes[0]!;
  a.input({ type: 'stop' });
  world.run(100);
  expect(putNow(a, 'k', 'v')).toMatchObject({ ok: false, code: 'CLOSED' });
  expect(stampOn(a, 'k')).toBeUndefined();
  expect([...a.disk.image.rows.values()].filter(isTombstone).map(stampHexOf)).toEqual([]);
});
