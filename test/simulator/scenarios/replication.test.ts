import { describe, expect, test } from 'vitest';
import { originOf, seqOf } from '../../../src/core/entry.js';
import type { SimNode } from '../node.js';
import {
  areEqual,
  code,
  del,
  expectEqual,
  put,
  putNow,
  putOp,
  reset,
  stage,
  stampAt,
  stampOn,
  tune,
  valueAt,
  writeOps,
} from './stage.js';

const ALONE = { replicas: 1 };
/** Long enough that no session repairs what a scenario is about. */
const NEVER_MS = 10_000_000;

const headOf = (node: SimNode, origin: string): number => node.disk.image.heads.get(origin) ?? 0;
const originOn = (node: SimNode): string => node.core!.identity.origin;

describe('heads', () => {
  test('a session that is cut raises no head, so that a superseded record is never claimed without its superseder', () => {
    const { world, nodes } = stage(['y', 'a', 'b'], { options: { chunkRowsMax: 1, chunksInFlight: 1 } });
    const [y, a, b] = nodes as [SimNode, SimNode, SimNode];
    world.partition([b]);
    world.run(5_000);
    // a:n is replaced by y:n: only b, which is cut off, never sees it.
    expect(code(putNow(a, 'k', 'older'))).toBe('ok');
    for (let i = 0; i < 10; i++) putNow(y, `other/${i}`, 'x');
    expect(code(putNow(y, 'k', 'newer'))).toBe('ok');
    const fromA = originOn(a);
    const fromY = originOn(y);
    world.healAll();
    let cuts = 0;
    world.afterInput = () => {
      const held = b.disk.image.rows.size;
      // In the middle of the session, when some records have come but not all, every link of b breaks.
      if (cuts < 3 && held > cuts * 3 + 1 && held < 10) {
        cuts += 1;
        expect(headOf(b, fromA)).toBe(0);
        expect(headOf(b, fromY)).toBe(0);
        reset(world, b, y);
        reset(world, b, a);
      }
      if (headOf(b, fromA) > 0) expect(valueAt(b, 'k')).toBe('newer');
    };
    expectEqual(nodes);
    expect(cuts).toBe(3);
    expect(b.core!.counters.sessionsFailed).toBeGreaterThan(0);
  });

  test('a record above the head, the only one left to supersede an older one, is handed on', () => {
    const { world, nodes } = stage(['x', 'b', 'c'], { options: { pullGraceMs: NEVER_MS } });
    const [x, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(x, 'k', 'older', { replicas: 3 });
    // c loses touch; b misses x:2 and gets x:3, which replaces x:1.
    world.partition([c]);
    world.run(5_000);
    world.cut(x, b);
    world.run(5_000);
    putNow(x, 'lost', 'only on x', ALONE);
    world.mend(x, b);
    world.runUntil(() => x.core!.linked().length === 1, 10_000);
    putNow(x, 'k', 'newer', ALONE);
    world.run(100);
    const from = originOn(x);
    expect([headOf(b, from), valueAt(b, 'k'), valueAt(b, 'lost')]).toEqual([1, 'newer', undefined]);
    x.kill();
    tune(world, { pullGraceMs: 50 });
    world.mend(b, c);
    expect(valueAt(c, 'k')).toBe('older');
    expectEqual([b, c]);
    expect(valueAt(c, 'k')).toBe('newer');
    x.start();
    world.healAll();
    expectEqual(nodes);
    expect(valueAt(c, 'lost')).toBe('only on x');
  });

  test('a frame that comes after a gap is applied, and the head waits for what is missing', () => {
    const { world, nodes } = stage(['x', 'b'], { options: { pullGraceMs: NEVER_MS } });
    const [x, b] = nodes as [SimNode, SimNode];
    putNow(x, 'one', '1');
    world.cut(x, b);
    world.run(5_000);
    putNow(x, 'two', '2', ALONE);
    world.mend(x, b);
    world.runUntil(() => b.core!.linked().length === 1, 10_000);
    putNow(x, 'three', '3', ALONE);
    world.run(100);
    expect([valueAt(b, 'two'), valueAt(b, 'three'), headOf(b, originOn(x))]).toEqual([undefined, '3', 1]);
    expect(b.core!.counters.gaps).toBe(1);
    tune(world, { pullGraceMs: 50 });
    expectEqual(nodes);
    expect(headOf(b, originOn(x))).toBe(3);
  });

  test('a relay passes a frame on whole, also what was no news to itself, so that the next one may advance', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], { options: { pullGraceMs: NEVER_MS } });
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    world.cut(a, c);
    world.run(5_000);
    const stamp = stampAt(world, 0);
    const pulled = c.core!.counters.sessionsPulled;
    // b has the record already, under a dot of its own, when the same comes in a batch from a.
    writeOps(b, [putOp('again', 'same', stamp)], ALONE);
    writeOps(a, [putOp('fresh', 'new'), putOp('again', 'same', stamp), putOp('last', 'new')], ALONE);
    world.run(500);
    expect(b.core!.counters.framesRelayed).toBeGreaterThan(0);
    expect(headOf(c, originOn(a))).toBe(3);
    expect([valueAt(c, 'fresh'), valueAt(c, 'last')]).toEqual(['new', 'new']);
    expect(c.core!.counters.sessionsPulled).toBe(pulled);
    expect(areEqual(nodes)).toBe(true);
  });

  test('equal vectors above gaps do not hide that two nodes hold different records of a dead origin', () => {
    const { world, nodes } = stage(['x', 'a', 'b'], { options: { pullGraceMs: NEVER_MS } });
    const [x, a, b] = nodes as [SimNode, SimNode, SimNode];
    putNow(x, 'one', '1', { replicas: 3 });
    const from = originOn(x);
    const only = (to: SimNode[], key: string): void => {
      for (const node of [a, b]) {
        if (to.includes(node)) world.mend(x, node);
        else world.cut(x, node);
      }
      world.cut(a, b);
      world.run(5_000);
      world.runUntil(() => to.every((node) => node.core!.linked().some((peer) => peer.name === 'x')), 20_000);
      putNow(x, key, key, ALONE);
      world.run(200);
    };
    only([], 'two');
    only([a], 'three');
    only([b], 'four');
    only([a, b], 'five');
    x.kill();
    expect([headOf(a, from), headOf(b, from)]).toEqual([1, 1]);
    expect([a, b].map((node) => node.core!.written.top(from))).toEqual([5, 5]);
    expect([valueAt(a, 'four'), valueAt(b, 'three')]).toEqual([undefined, undefined]);
    tune(world, { pullGraceMs: 50 });
    world.mend(a, b);
    expectEqual([a, b]);
    expect([valueAt(a, 'four'), valueAt(b, 'three')]).toEqual(['four', 'three']);
    expect([a, b].map((node) => headOf(node, from))).toEqual([1, 1]);
  });

  test('a node asks no more once it has what was announced, though the announced record is superseded', () => {
    const { world, nodes } = stage(['x', 'a', 'b'], { options: { pullGraceMs: NEVER_MS } });
    const [x, a, b] = nodes as [SimNode, SimNode, SimNode];
    putNow(x, 'one', '1', { replicas: 3 });
    world.partition([b]);
    world.cut(x, a);
    world.run(5_000);
    putNow(x, 'two', '2', ALONE);
    world.mend(x, a);
    world.runUntil(() => a.core!.linked().length === 1, 10_000);
    putNow(x, 'k', 'of x', ALONE);
    world.run(100);
    x.kill();
    // a holds x:3 above its head, and replaces it itself: no disk holds x:3 any more, but a has announced it.
    putNow(a, 'k', 'of a', ALONE);
    tune(world, { pullGraceMs: 50 });
    world.mend(a, b);
    expectEqual([a, b]);
    const pulled = b.core!.counters.sessionsPulled;
    world.run(60_000);
    expect(b.core!.counters.sessionsPulled - pulled).toBeLessThan(10);
  });

  test('a bootstrap from several sources claims no more than all of its snapshots held', () => {
    const { world, nodes } = stage(['a', 'b'], { options: { chunkRowsMax: 1, chunksInFlight: 1 } });
    const [a, b] = nodes as [SimNode, SimNode];
    for (let i = 0; i < 60; i++) putNow(a, `k${String(i).padStart(2, '0')}`, 'both');
    const c = world.add({ name: 'c', join: ['a:1', 'b:1'] });
    world.cut(a, c);
    c.start();
    world.runUntil(() => c.disk.image.rows.size >= 1, 10_000);
    world.cut(a, b);
    // Only a has the newer value of a key that c has already passed when its source changes from b to a.
    putNow(a, 'k01', 'only a', ALONE);
    world.runUntil(() => c.disk.image.rows.size >= 8, 10_000);
    expect(c.ready).toBe(false);
    world.cut(b, c);
    reset(world, b, c);
    world.mend(a, c);
    expect(world.runUntil(() => c.ready, 30_000)).toBe(true);
    world.healAll();
    expectEqual([a, b, c]);
    expect(valueAt(c, 'k01')).toBe('only a');
  });
});

describe('acknowledgements', () => {
  test('a record that arrived by way of others is no acknowledgement until its holder answers for it', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b);
    world.run(5_000);
    const write = put(a, 'k', 'v', { replicas: 3, timeoutMs: 2_000 });
    world.runUntil(() => valueAt(b, 'k') === 'v', 1_500);
    expect([valueAt(b, 'k'), write.result]).toEqual(['v', undefined]);
    world.run(3_000);
    expect(write.result).toMatchObject({ ok: false, code: 'ACK_TIMEOUT', hosts: 2 });
    world.mend(a, b);
    world.run(6_000);
    const stamp = stampOn(a, 'k')!;
    expect(putNow(a, 'k', 'v', { replicas: 3, stamp })).toMatchObject({
      ok: true,
      replicas: 3,
      superseded: false,
    });
  });

  test('a write that waits is sent again to whoever connects later', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    b.kill();
    const write = put(a, 'k', 'v', { replicas: 2, timeoutMs: 60_000 });
    world.run(2_000);
    expect(write.result).toBeUndefined();
    b.start();
    world.runUntil(() => write.result !== undefined, 30_000);
    expect(code(write)).toBe('ok');
  });

  test('a write that waits is acknowledged by a host whose name a copy bore until it came back', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    b.kill();
    const copy = world.add({ ...b.settings, address: 'b:2' });
    copy.disk.replace(b.disk.image.clone());
    copy.start();
    world.run(10_000);
    copy.wipe();
    const write = put(a, 'k', 'v', { replicas: 2, timeoutMs: 60_000 });
    world.run(1_000);
    b.start();
    world.runUntil(() => write.result !== undefined, 30_000);
    expect(code(write)).toBe('ok');
  });

  test('a write that waits at an emptied founder is acknowledged by the cluster that it gives way to', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const a = nodes[0]!;
    a.wipe();
    world.partition([a]);
    a.start();
    world.run(1_000);
    const write = put(a, 'alone', 'v', { replicas: 3, timeoutMs: 60_000 });
    world.run(1_000);
    world.healAll();
    world.runUntil(() => write.result !== undefined, 30_000);
    expect(code(write)).toBe('ok');
  });

  test('a frame that was refused is sent again once its records came another way, and is acknowledged then', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b);
    world.run(5_000);
    a.clockOffsetMs = 60_000;
    a.kill();
    a.start();
    const write = put(a, 'k', 'a minute ahead', { replicas: 2, timeoutMs: 200_000 });
    world.run(500);
    a.clockOffsetMs = 0;
    world.mend(a, b);
    world.run(20_000);
    expect([write.result, b.core!.counters.framesDropped > 0]).toEqual([undefined, true]);
    world.runUntil(() => write.result !== undefined, 90_000);
    expect(code(write)).toBe('ok');
  });

  test('a retry that a newer write covers is settled only once that newer one is held by as many hosts', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    const old = stampAt(world, -500);
    world.cut(a, b);
    putNow(a, 'k', 'newer, only here', ALONE);
    const retry = put(a, 'k', 'older', { replicas: 2, stamp: old, timeoutMs: 1_500 });
    world.run(2_000);
    expect(code(retry)).toBe('ACK_TIMEOUT');
    world.mend(a, b);
    const again = putNow(a, 'k', 'older', { replicas: 2, stamp: old, timeoutMs: 20_000 });
    expect(again).toMatchObject({ ok: true, stamp: old, superseded: true, replicas: 2 });
    expect(valueAt(b, 'k')).toBe('newer, only here');
  });

  test('two members on one machine are one host', () => {
    const { world, nodes } = stage(['a', 'b'], { node: { host: 'machine' } });
    const write = put(nodes[0]!, 'k', 'v', { replicas: 2, timeoutMs: 1_000 });
    world.run(2_000);
    expect(write.result).toMatchObject({ ok: false, code: 'ACK_TIMEOUT', hosts: 1 });
    expect(valueAt(nodes[1]!, 'k')).toBe('v');
  });

  test('a host that does not flush acknowledges, but never as flushed', () => {
    const { world, nodes } = stage(['a']);
    const a = nodes[0]!;
    const b = world.add({ name: 'b', join: ['a:1'], flushes: false });
    b.start();
    expect(world.runUntil(() => b.ready, 10_000)).toBe(true);
    const flushed = put(a, 'k', 'v', { replicas: 2, timeoutMs: 1_000 });
    world.run(2_000);
    expect(code(flushed)).toBe('ACK_TIMEOUT');
    expect(code(putNow(a, 'k', 'w', { replicas: 2, fsync: false }))).toBe('ok');
  });
});

describe('one entry, several writes', () => {
  test('a retry at another host gives one entry two dots, and all hosts end with the smaller', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    const stamp = stampAt(world, 0);
    world.partition([b]);
    put(a, 'k', 'v', { ...ALONE, stamp });
    put(b, 'k', 'v', { ...ALONE, stamp });
    world.run(500);
    const dots = [a, b].map((node) => originOf(node.disk.image.rows.get('k')!));
    expect(dots[0]).not.toBe(dots[1]);
    world.healAll();
    expectEqual([a, b, c]);
    expect(originOf(c.disk.image.rows.get('k')!)).toBe([...dots].sort()[0]);
    expect(seqOf(c.disk.image.rows.get('k')!)).toBe(1);
  });

  test('a late retry of an older write, at another host, leaves the newer one standing', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    const old = stampAt(world, -2_000);
    putNow(a, 'k', 'newer');
    expect(putNow(b, 'k', 'older', { stamp: old })).toMatchObject({ ok: true, superseded: true });
    expectEqual([a, b]);
    expect(valueAt(a, 'k')).toBe('newer');
  });

  test('equal stamps with different contents have one winner everywhere, whichever came first', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    const stamp = stampAt(world, 0);
    world.partition([a]);
    world.cut(b, c);
    put(a, 'twin/1', 'zebra', { ...ALONE, stamp });
    put(b, 'twin/1', 'aardvark', { ...ALONE, stamp });
    del(c, 'twin/1', { ...ALONE, stamp });
    world.run(1_000);
    expect([a, b, c].map((node) => valueAt(node, 'twin/1'))).toEqual(['zebra', 'aardvark', 'deleted']);
    world.healAll();
    expectEqual(nodes);
    expect(valueAt(a, 'twin/1')).toBe('aardvark');
  });

  test('a deleted key stays deleted, whatever was cut off with its older value', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(a, 'k', 'v', { replicas: 3 });
    world.partition([c]);
    del(b, 'k');
    world.run(1_000);
    c.kill();
    c.start();
    world.run(3_000);
    expect(valueAt(c, 'k')).toBe('v');
    world.healAll();
    expectEqual(nodes);
    expect([a, b, c].map((node) => valueAt(node, 'k'))).toEqual(['deleted', 'deleted', 'deleted']);
  });
});
