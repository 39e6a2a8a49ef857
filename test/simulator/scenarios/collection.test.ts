/** Entries that are over leave every store, and nothing that they had won over comes back. */
import { describe, expect, test } from 'vitest';
import { originOf, seqOf, stampMsOf } from '../../../src/core/entry.js';
import { checkDigest } from '../finish.js';
import { cutOf } from '../graves.js';
import type { SimNode } from '../node.js';
import {
  ALL,
  counters,
  deleted,
  holdBack,
  LATE_RETRY_MS,
  letFollow,
  older,
  proved,
  pushAgain,
  swept,
  trio,
} from './collection-stage.js';
import { expectEqual, issuesOf, put, putNow, putOp, stage, valueAt, writeOps } from './stage.js';

const KEYS = Array.from({ length: 40 }, (_, i) => `gone/${i}`);

describe('once the horizon has passed them', () => {
  test('deletions and expired entries leave every disk, with their dots; heads stay, and digests agree', () => {
    const { world, nodes, a, b } = trio();
    putNow(a, 'stays', 'here', ALL);
    deleted(world, a, KEYS);
    writeOps(b, [{ ...putOp('short', 'lived'), ttlMs: 1_500 }], ALL);
    writeOps(b, [{ ...putOp('long', 'lived'), ttlMs: 3_600_000 }], ALL);
    world.run(3_000);
    const heads = nodes.map((node) => new Map(node.disk.image.heads));
    swept(world, nodes);
    for (const [i, node] of nodes.entries()) {
      expect([...node.disk.image.rows.keys()].sort()).toEqual(['long', 'stays']);
      expect(node.disk.image.inconsistency()).toBeUndefined();
      expect(node.disk.image.heads).toEqual(heads[i]);
      expect(counters(node).recordsCollected).toBe(KEYS.length + 1);
      expect(node.core!.digest.keys).toBe(2);
      checkDigest(node);
    }
    expect(world.oracle.graves.collected).toBe(3 * (KEYS.length + 1));
    expect(proved(world, nodes)).toBe(true);
    expectEqual(nodes);
  });

  test('nobody is told, since readers saw nothing of them any more', () => {
    const { world, nodes, a } = trio();
    deleted(world, a, ['k']);
    world.run(3_000);
    const told: string[] = [];
    for (const node of nodes) {
      const { core } = node;
      const handle = core!.handle.bind(core);
      core!.handle = (input, now) => {
        const effects = handle(input, now);
        for (const effect of effects)
          if (effect.type === 'changed' || effect.type === 'collected')
            told.push(`${effect.type} ${effect.keys.join()}`);
        return effects;
      };
    }
    swept(world, nodes);
    expect(told).toEqual(['collected k', 'collected k', 'collected k']);
  });

  test('what is not over yet stays, and is not looked at again before it is', () => {
    const { world, nodes, a } = trio();
    for (let i = 0; i < 20; i++) writeOps(a, [{ ...putOp(`e${i}`, 'v'), ttlMs: 150_000 }], ALL);
    deleted(world, a, ['k']);
    world.run(3_000);
    swept(world, nodes);
    world.run(2_000);
    swept(world, nodes);
    let scans = 0;
    world.afterInput = (node) => {
      scans += node.scans.size;
    };
    for (let i = 0; i < 5; i++) {
      world.run(2_000);
      swept(world, nodes);
    }
    expect(scans).toBe(0);
    expect(a.disk.image.rows.size).toBe(20);
    world.afterInput = undefined;
    world.run(150_000);
    swept(world, nodes);
    for (const node of nodes) expect(node.disk.image.rows.size).toBe(0);
  });

  test('a sweep that a kill interrupts is completed by the next start', () => {
    const { world, nodes, a, b } = trio({ options: { lateRetryMs: LATE_RETRY_MS, commitRowsMax: 4 } });
    const many = Array.from({ length: 600 }, (_, i) => `gone/${i}`);
    writeOps(
      a,
      many.map((key) => putOp(key, 'v')),
      ALL,
    );
    writeOps(
      a,
      many.map((key) => ({ key, kind: 2, value: new Uint8Array(0) })),
      ALL,
    );
    expect(world.runUntil(() => a.open.size === 0, 20_000)).toBe(true);
    world.run(3_000);
    const ms = world.wall();
    expect(
      world.runUntil(() => nodes.every(({ core }) => core!.horizon.asOf - LATE_RETRY_MS > ms), 60_000),
    ).toBe(true);
    holdBack(nodes, ms);
    const isHalf = (): boolean => b.disk.image.rows.size > 0 && b.disk.image.rows.size < many.length;
    world.afterInput = (node) => {
      if (node === b && isHalf() && !b.core!.collection.isSwept) {
        world.afterInput = undefined;
        world.scheduler.after(0, () => b.kill());
      }
    };
    expect(world.runUntil(() => !b.alive, 10_000)).toBe(true);
    expect(isHalf()).toBe(true);
    expect(cutOf(b)).toBeGreaterThan(0);
    b.start();
    holdBack([b], ms);
    // It remembers how far it had set out to go, whatever its horizon says.
    expect(world.runUntil(() => b.ready && b.core!.collection.isSwept, 20_000)).toBe(true);
    expect(b.disk.image.rows.size).toBe(0);
    expectEqual(nodes);
    expect(proved(world, nodes)).toBe(true);
  });
});

describe('a newer write of a key that is about to be collected', () => {
  test.each([
    ['while the sweep has read it', (node: SimNode) => !node.core!.collection.isSwept],
    ['while its removal waits for the disk', (node: SimNode) => node.core!.queue.isRemoving('k')],
  ])('%s stays', (_name, isTime) => {
    const { world, nodes, a } = trio({ diskMs: 20 });
    deleted(world, a, ['k', 'l']);
    world.run(3_000);
    let written = false;
    world.afterInput = (node) => {
      if (node !== a || written || !isTime(a)) return;
      written = true;
      world.scheduler.after(0, () => put(a, 'k', 'anew', { replicas: 1 }));
    };
    swept(world, nodes);
    world.run(2_000);
    expect(written).toBe(true);
    for (const node of nodes) {
      expect([...node.disk.image.rows.keys()]).toEqual(['k']);
      expect(valueAt(node, 'k')).toBe('anew');
    }
    expectEqual(nodes);
    for (const node of nodes) checkDigest(node);
    expect(proved(world, nodes)).toBe(true);
  });
});

describe('members that have not swept up to the same cut', () => {
  test('do not take each other for damaged, and give each other nothing back', () => {
    const { world, nodes, a, b, c } = trio();
    putNow(a, 'stays', 'here', ALL);
    deleted(world, a, KEYS);
    world.run(3_000);
    swept(world, [a]);
    world.run(60_000);
    expect(a.disk.image.rows.size).toBe(1);
    for (const node of [b, c]) expect(node.disk.image.rows.size).toBe(KEYS.length + 1);
    for (const node of nodes) {
      expect(counters(node)).toMatchObject({ digestMismatches: 0, recordsRepaired: 0, recordsSetAside: 0 });
      expect(issuesOf(node)).toEqual([]);
    }
    swept(world, nodes);
    expectEqual(nodes);
    expect(proved(world, nodes)).toBe(true);
  });

  test('still see that a live record is lost, and mend that alone', () => {
    const { world, nodes, a, b, c } = trio();
    for (let i = 0; i < 10; i++) putNow(a, `k${i}`, 'v', ALL);
    deleted(world, a, KEYS);
    world.run(3_000);
    swept(world, [a, b]);
    for (const node of nodes) node.kill();
    const { image } = a.disk;
    image.rows.delete('k4');
    for (const [dot, key] of image.dots) if (key === 'k4') image.dots.delete(dot);
    image.wasDamaged = true;
    world.oracle.damaged.add(a);
    for (const node of nodes) node.start();
    holdBack(nodes);
    expect(world.runUntil(() => valueAt(a, 'k4') === 'v', 60_000)).toBe(true);
    world.run(30_000);
    expect(a.disk.image.rows.size).toBe(10);
    expect(c.disk.image.rows.size).toBe(10 + KEYS.length);
    expect(counters(a)).toMatchObject({ recordsRepaired: 1, recordsSetAside: 0 });
    for (const node of nodes) expect(node.core!.issues()).toEqual([]);
  });
});

describe('a cut that one member has passed', () => {
  test('is followed by members with the same vector, though their own horizons stand still', () => {
    const { world, nodes, a, b, c } = trio();
    deleted(world, a, KEYS);
    world.run(3_000);
    swept(world, [a]);
    letFollow([b, c]);
    expect(world.runUntil(() => [b, c].every(({ disk }) => disk.image.rows.size === 0), 30_000)).toBe(true);
    expect(proved(world, nodes)).toBe(true);
    expect([cutOf(b), cutOf(c)]).toEqual([cutOf(a), cutOf(a)]);
    expectEqual(nodes);
  });

  test('is not followed beyond what this member itself is past', () => {
    const { world, a, b } = trio();
    deleted(world, a, KEYS);
    world.run(3_000);
    swept(world, [a]);
    letFollow([b]);
    Object.defineProperty(b.core!.horizon, 'asOf', { get: () => cutOf(a) + LATE_RETRY_MS - 1 });
    world.run(20_000);
    expect(b.disk.image.rows.size).toBe(KEYS.length);
  });

  test('means nothing any more to a node that gives way to another founding', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], {
      options: { lateRetryMs: LATE_RETRY_MS, maxClockDriftMs: 1_000 },
    });
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'k', 'v', ALL);
    world.partition([a]);
    a.wipe();
    a.start();
    expect(world.runUntil(() => a.ready, 10_000)).toBe(true);
    deleted(world, a, KEYS, { replicas: 1 });
    expect(world.runUntil(() => counters(a).recordsCollected === KEYS.length, 60_000)).toBe(true);
    let begun = Number.POSITIVE_INFINITY;
    world.afterInput = (node) => {
      if (node === a && a.core?.identity.phase === 'bootstrapping')
        begun = Math.min(begun, a.core.collection.begun);
    };
    world.healAll();
    expect(world.runUntil(() => a.ready && valueAt(a, 'k') === 'v', 60_000)).toBe(true);
    expect(begun).toBe(0);
    expectEqual([a, b, c]);
  });
});

describe('an older record of a key that was collected', () => {
  test('is dropped when it comes in a frame once more, and the frame is acknowledged', () => {
    const { world, nodes, a, b } = trio();
    const row = older(world, a, 'k');
    swept(world, nodes);
    pushAgain(b, a, 'k', row);
    world.run(10_000);
    expect(counters(b).recordsOutdated).toBe(1);
    for (const node of nodes) expect(node.disk.image.rows.has('k')).toBe(false);
    putNow(a, 'k', 'anew', ALL);
    for (const node of nodes) expect(valueAt(node, 'k')).toBe('anew');
  });

  test('of an origin that was forgotten since is dropped, too', () => {
    const { world, nodes, a, b, c } = trio({ options: { lateRetryMs: LATE_RETRY_MS, tokenAgeMaxMs: 500 } });
    const row = older(world, c, 'k');
    const gone = c.core!.identity.origin;
    c.wipe();
    c.start();
    expect(
      world.runUntil(() => nodes.every((node) => node.ready && !node.core!.written.has(gone)), 60_000),
    ).toBe(true);
    swept(world, nodes);
    const wire = [...b.wires.keys()][0]!;
    b.input({
      type: 'message',
      link: wire,
      message: { type: 'push', frame: 78, origin: gone, from: 0, to: 1, keys: ['k'], rows: [row] },
    });
    world.run(10_000);
    expect(counters(b).recordsOutdated).toBe(1);
    for (const node of nodes) expect(node.disk.image.rows.has('k')).toBe(false);
    expect(a.core!.written.has(gone)).toBe(false);
  });

  test('that a lost table file lets show through again is spread by nobody, and set aside by its holder', () => {
    const { world, nodes, a, b, c } = trio();
    const row = older(world, a, 'k');
    putNow(a, 'other', 'v', ALL);
    swept(world, nodes);
    for (const node of nodes) node.kill();
    c.disk.image.rows.set('k', row);
    c.disk.image.dots.set(`${originOf(row)}:${seqOf(row)}`, 'k');
    c.disk.image.wasDamaged = true;
    for (const node of nodes) node.start();
    expect(world.runUntil(() => !c.disk.image.rows.has('k'), 60_000)).toBe(true);
    expect(counters(c).recordsSetAside).toBe(1);
    for (const node of [a, b]) {
      expect(node.disk.image.rows.has('k')).toBe(false);
      expect(counters(node).recordsRepaired).toBe(0);
    }
  });

  test('is not what a joiner gets, whether its sources have collected or not', () => {
    const { world, nodes, a } = trio({ options: { lateRetryMs: LATE_RETRY_MS, bootstrapRangeBytes: 400 } });
    for (let i = 0; i < 20; i++) putNow(a, `k${i}`, 'v', ALL);
    const row = older(world, a, 'gone/x');
    deleted(world, a, KEYS);
    world.run(3_000);
    swept(world, [a]);
    const d = world.add({ name: 'd', join: ['a:1'] });
    d.start();
    expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
    world.run(3_000);
    swept(world, [...nodes, d]);
    pushAgain(d, a, 'gone/x', row);
    world.run(5_000);
    expectEqual([...nodes, d]);
    expect(d.disk.image.rows.size).toBe(20);
    expect(proved(world, [...nodes, d])).toBe(true);
  });
});

describe('a deletion that comes back to a store that had swept', () => {
  test('when its record is healed: it is swept once more', () => {
    const { world, nodes, a, b } = trio();
    deleted(world, a, ['k', 'l']);
    world.run(3_000);
    expect(stampMsOf(b.disk.image.rows.get('k')!)).toBeLessThan(world.wall() - 2_000);
    b.disk.image.flipBit('k', 300);
    world.oracle.diskDamaged(b);
    swept(world, [b]);
    b.heal('k');
    expect(world.runUntil(() => b.disk.image.rows.size === 0 && b.core!.collection.isSwept, 20_000)).toBe(
      true,
    );
    expect(counters(b).damageHealed).toBe(1);
    swept(world, nodes);
    expectEqual(nodes);
  });
});
