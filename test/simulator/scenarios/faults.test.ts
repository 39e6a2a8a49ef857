import { describe, expect, test } from 'vitest';
import { KIND_REGISTER } from '../../../src/core/entry.js';
import { CONFIRMATIONS_MAX, HELD_BYTES_MAX, HELD_MAX, SUSPECT_RANGES_MAX } from '../../../src/core/heal.js';
import { ReplicaCore } from '../../../src/core/replica.js';
import type { SimNode } from '../node.js';
import { takesLateOne } from './damage.js';
import {
  code,
  del,
  expectEqual,
  issuesOf,
  linkedNames,
  put,
  putNow,
  reset,
  stage,
  stampAt,
  stampOn,
  valueAt,
} from './stage.js';

const ALONE = { replicas: 1 };
const originOf = (node: SimNode): string => node.core!.identity.origin;

describe('processes', () => {
  test('a node that is killed again and again under writes keeps its origin, and loses nothing that was acknowledged', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b] = nodes as [SimNode, SimNode, SimNode];
    const origin = originOf(b);
    const acked: string[] = [];
    for (let round = 0; round < 40; round++) {
      for (let i = 0; i < 10; i++) {
        const key = `${round}/${i}`;
        const node = i % 2 === 0 ? a : b;
        node.write(
          [{ key, kind: KIND_REGISTER, value: Buffer.from(key) }],
          {},
          ({ ok }) => ok && acked.push(key),
        );
      }
      world.run(world.random.between(0.1, 3));
      b.kill();
      world.run(world.random.between(1, 200));
      b.start();
      world.runUntil(() => b.core!.linked().length === 2, 5_000);
      expect(originOf(b)).toBe(origin);
    }
    expectEqual(nodes);
    expect(acked.length).toBeGreaterThan(20);
    for (const key of acked) expect(valueAt(b, key)).toBe(key);
    expect(world.ledger.faults.tornBatchLost).toBeGreaterThan(0);
    expect(world.ledger.faults.tornBatchLanded).toBeGreaterThan(0);
  });

  test('a process that was stopped for a minute is behind when it goes on, and catches up without suspecting others', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, , c] = nodes as [SimNode, SimNode, SimNode];
    c.pause();
    world.run(30_000);
    putNow(a, 'k', 'v');
    world.run(30_000);
    c.proceed();
    expect(c.core!.memberViews().filter(({ self, state }) => !self && state === 'suspect')).toEqual([]);
    expectEqual(nodes);
    expect(linkedNames(c)).toEqual(['a', 'b']);
  });

  test('a node whose event loop was blocked for a while neither drops its links nor suspects anybody', () => {
    const { world, nodes } = stage(['a', 'b']);
    const b = nodes[1]!;
    const links = [...b.wires.keys()];
    for (let i = 0; i < 10; i++) {
      b.pause();
      world.run(900);
      b.proceed();
      world.run(1_100);
    }
    expect([...b.wires.keys()]).toEqual(links);
    expect(b.core!.memberViews().map(({ state }) => state)).toEqual(['alive', 'alive']);
  });

  test('a whole cluster that loses power comes back with everything that was acknowledged, under new origins', () => {
    const { world, nodes } = stage(['a', 'b', 'c', 'd']);
    const before = nodes.map(originOf);
    for (const node of nodes) putNow(node, node.name, 'acknowledged');
    for (const node of nodes) node.powerCut();
    world.run(1_000);
    for (const node of nodes) node.start();
    expectEqual(nodes);
    for (const node of nodes) {
      expect(before).not.toContain(originOf(node));
      expect(valueAt(nodes[0]!, node.name)).toBe('acknowledged');
    }
    expect(code(putNow(nodes[1]!, 'k', 'v', { replicas: 4 }))).toBe('ok');
  });
});

describe('disks', () => {
  test('a node whose disk is full acknowledges nothing more until it was restarted, and then has all it had acknowledged', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'before', 'v');
    a.diskFaults.full = true;
    expect(code(putNow(a, 'full', 'v'))).toBe('STORE_FAILED');
    expect(issuesOf(a)).toContain('STORE_FAILED');
    a.diskFaults.full = false;
    expect(code(putNow(a, 'space again', 'v'))).toBe('STORE_FAILED');
    expect(valueAt(a, 'before')).toBe('v');
    const origin = originOf(a);
    a.kill();
    a.start();
    expect(world.runUntil(() => a.ready, 5_000)).toBe(true);
    expect(originOf(a)).not.toBe(origin);
    expect(code(putNow(a, 'after', 'v', { timeoutMs: 8_000 }))).toBe('ok');
    expectEqual([a, b]);
    expect(valueAt(b, 'before')).toBe('v');
  });

  test.each(['lost', 'kept'] as const)(
    'a write that failed and was %s is indeterminate, and a retry with its stamp is safe',
    (what) => {
      const { world, nodes } = stage(['a', 'b']);
      const [a, b] = nodes as [SimNode, SimNode];
      const stamp = stampAt(world, 0);
      a.diskFaults.nextWrite = what;
      expect(code(putNow(a, 'k', 'v', { stamp }))).toBe('STORE_FAILED');
      a.kill();
      a.start();
      expect(putNow(b, 'k', 'v', { stamp, timeoutMs: 8_000 })).toMatchObject({ ok: true, stamp });
      expectEqual([a, b]);
      expect(stampOn(a, 'k')).toBe(stamp);
    },
  );

  test('a failed node takes no part any more: it neither links nor writes', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    b.diskFaults.nextWrite = 'lost';
    put(a, 'k', 'v', { timeoutMs: 500 });
    world.run(20_000);
    expect(b.core!.identity.phase).toBe('failed');
    expect([a, b].map(linkedNames)).toEqual([[], []]);
    expect(b.wires.size).toBe(0);
  });

  test('a damaged record is neither served nor sent: it is healed from a peer, and then sent', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(a, 'k', 'precious', { replicas: 3 });
    world.oracle.diskDamaged(b);
    b.disk.image.flipBit('k', 300);
    const d = world.add({ name: 'd', join: ['b:1'] });
    world.cut(d, a);
    world.cut(d, c);
    d.start();
    expect(world.runUntil(() => d.ready, 10_000)).toBe(true);
    expect(b.core!.counters).toMatchObject({ damageFound: 1, damageHealed: 1, recordsLost: 0 });
    expect([b, d].map((node) => valueAt(node, 'k'))).toEqual(['precious', 'precious']);
    world.healAll();
    expectEqual([a, b, c, d]);
  });

  test('a damaged record that no peer can replace ends the session: nobody is ready without it', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'precious', { replicas: 2 });
    world.cut(a, b);
    world.oracle.diskDamaged(b);
    b.disk.image.flipBit('k', 300);
    const d = world.add({ name: 'd', join: ['b:1'] });
    world.cut(d, a);
    d.start();
    world.run(10_000);
    expect([d.ready, valueAt(d, 'k')]).toEqual([false, undefined]);
    world.healAll();
    expectEqual([a, b, d]);
    expect(valueAt(b, 'k')).toBe('precious');
  });

  test('a newer write stands against the healing of its key, and an older one that comes late does not win meanwhile', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    const late = stampAt(world, -500);
    putNow(a, 'k', 'lost', { replicas: 3 });
    putNow(a, 'j', 'lost', { replicas: 3 });
    world.cut(b, a);
    world.cut(b, c);
    world.oracle.diskDamaged(b);
    b.disk.image.flipBit('k', 300);
    b.disk.image.flipBit('j', 300);
    put(b, 'k', 'newer', ALONE);
    expect(code(putNow(b, 'j', 'older', { ...ALONE, stamp: late }))).toBe('DAMAGED');
    world.healAll();
    expectEqual([a, b, c]);
    expect([valueAt(c, 'k'), valueAt(b, 'j')]).toEqual(['newer', 'lost']);
  });

  test('a write in the batch of a record that was just healed leaves no row in the dot index for the lost one', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'lost', { replicas: 2 });
    world.oracle.diskDamaged(b);
    b.disk.flip('k', 300);
    b.diskFaults.slowMs = 1_000;
    put(b, 'in flight', 'v');
    b.heal('k');
    expect(world.runUntil(() => b.core!.counters.damageHealed === 1, 5_000)).toBe(true);
    expect(b.core!.queue.pending('k')).toBeDefined();
    put(b, 'k', 'newer');
    b.diskFaults.slowMs = 0;
    expectEqual([a, b]);
    expect([valueAt(a, 'k'), b.disk.image.inconsistency()]).toEqual(['newer', undefined]);
  });

  test.each(['pushed', 'caught up with'] as const)(
    'an older record that is %s late waits for the healing of its key, heads unmoved, and does not win',
    (how) => expect(takesLateOne(ReplicaCore, how)).toBe(false),
  );

  test('of a range that cannot be read, what vanished is fetched, and so is what replaced an older record that shows again', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    for (const key of ['k1', 'k2', 'k3', 'k4']) putNow(a, key, `old ${key}`, { replicas: 2 });
    const { rows } = b.disk.image;
    const old = rows.get('k2')!;
    putNow(a, 'k2', 'new k2', { replicas: 2 });
    world.oracle.diskDamaged(b);
    for (const key of ['k1', 'k4']) rows.delete(key);
    rows.set('k2', old);
    let healed: boolean | undefined;
    b.core!.heal.suspect('k1', 'k3', (ok) => {
      healed = ok;
    });
    b.input({ type: 'tick' });
    expect(world.runUntil(() => healed !== undefined, 10_000)).toBe(true);
    expect([healed, ...['k1', 'k2', 'k3', 'k4'].map((key) => valueAt(b, key))]).toEqual([
      true,
      undefined,
      'new k2',
      'old k3',
      undefined,
    ]);
    b.core!.heal.suspect(null, null, () => {});
    b.input({ type: 'tick' });
    expect(world.runUntil(() => rows.size === 4 && valueAt(b, 'k4') !== undefined, 10_000)).toBe(true);
    expect(b.core!.counters).toMatchObject({ damageFound: 3, damageHealed: 3, recordsLost: 0 });
    world.oracle.damaged.delete(b);
    expectEqual([a, b]);
  });

  test('what waits for a healing is bounded, and what is too much comes again', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(a, 'k', 'lost', { replicas: 3 });
    world.cut(a, b);
    world.cut(a, c);
    world.oracle.diskDamaged(b);
    world.oracle.diskDamaged(c);
    for (const node of [b, c]) node.disk.image.flipBit('k', 300);
    const { heal } = b.core!;
    heal.damaged('k');
    const nothing = { keys: [], rows: [] };
    for (let i = 0; i < HELD_MAX; i++) expect(heal.whenHealed(['k'], nothing, () => {})).toBe(true);
    expect(heal.whenHealed(['k'], nothing, () => {})).toBe(false);
    const late = stampAt(world, -9_000);
    putNow(c, 'j', 'beside it', ALONE);
    expect(code(putNow(c, 'k', 'older', { ...ALONE, stamp: late }))).toBe('DAMAGED');
    world.healAll();
    expectEqual([a, b, c]);
    expect(valueAt(b, 'k')).toBe('lost');
    const large = { keys: ['k'], rows: [new Uint8Array(HELD_BYTES_MAX)] };
    expect([heal.whenHealed([], large, () => {}), heal.lost]).toEqual([true, 0]);
  });

  test('misses that are being confirmed, and ranges that are suspect, are bounded: more of them are refused at once', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b);
    world.run(5_000);
    const { heal } = b.core!;
    const answers: boolean[] = [];
    for (let i = 0; i <= CONFIRMATIONS_MAX; i++) heal.confirm(`${i}`, ({ ok }) => answers.push(ok));
    expect(answers).toEqual([false]);
    for (let i = 0; i <= SUSPECT_RANGES_MAX; i++) heal.suspect(`${i}`, null, (ok) => answers.push(ok));
    expect(answers).toEqual([false, false]);
    world.healAll();
    expectEqual([a, b]);
  });

  test('the absence of a record is believed of a peer that has what this node had, and of no other', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    world.cut(b, c);
    world.cut(a, c);
    putNow(a, 'k', 'v', { replicas: 2 });
    world.cut(a, b);
    reset(world, b, c);
    world.network.setCut(b, c, undefined);
    world.network.setCut(c, b, undefined);
    world.oracle.diskDamaged(b);
    b.flip('k', 300);
    world.run(6_000);
    // c has never heard of it.
    expect(b.disk.image.lookup('k')).toBe('damaged');
    world.healAll();
    expectEqual([a, b, c]);
    expect(valueAt(c, 'k')).toBe('v');
  });

  test('a miss is confirmed by a peer, and a record that vanished without a trace comes back', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'k', 'v', { replicas: 2 });
    world.oracle.diskDamaged(b);
    const row = b.disk.image.rows.get('k')!;
    b.disk.image.rows.delete('k');
    const answers: unknown[] = [];
    b.confirm('never written', (ok, found) => answers.push([ok, found]));
    b.confirm('k', (ok, found) => answers.push([ok, found === undefined ? found : Buffer.from(found)]));
    world.run(1_500);
    expect(answers).toEqual([
      [true, undefined],
      [true, Buffer.from(row)],
    ]);
    world.oracle.damaged.delete(b);
    expectEqual([a, b]);
  });

  test('a power cut takes the tail of a store that does not flush, and no sequence number is given twice', () => {
    const { world, nodes } = stage(['a', 'b'], { node: { flushes: false } });
    const [a, b] = nodes as [SimNode, SimNode];
    const fsync = false;
    const origin = originOf(a);
    for (let i = 0; i < 10; i++) putNow(a, `k${i}`, 'before', { ...ALONE, fsync });
    world.run(1_000);
    expect(a.powerCut(0)).toBeGreaterThan(0);
    a.start();
    world.run(5_000);
    expect(originOf(a)).not.toBe(origin);
    for (let i = 0; i < 10; i++) putNow(a, `k${i}`, 'after', { fsync });
    expectEqual([a, b]);
    for (let i = 0; i < 10; i++) expect(valueAt(b, `k${i}`)).toBe('after');
  });

  test('a power cut takes what was written and not flushed: others may have it, nobody was promised it', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    const origin = originOf(a);
    a.diskFaults.slowMs = 400;
    const write = put(a, 'k', 'seen', { replicas: 3 });
    expect(world.runUntil(() => valueAt(b, 'k') === 'seen', 5_000)).toBe(true);
    expect([valueAt(a, 'k'), a.disk.unflushed > 0, write.result]).toEqual(['seen', true, undefined]);
    expect(a.powerCut(0)).toBeGreaterThan(0);
    expect([valueAt(a, 'k'), write.result]).toEqual([undefined, { ok: false, code: 'KILLED' }]);
    // One that nobody else has is gone with it.
    world.partition([b]);
    b.diskFaults.slowMs = 400;
    const alone = put(b, 'mine', 'v', ALONE);
    expect(world.runUntil(() => valueAt(b, 'mine') === 'v', 5_000)).toBe(true);
    expect(b.powerCut(0)).toBeGreaterThan(0);
    expect(alone.result).toEqual({ ok: false, code: 'KILLED' });
    a.diskFaults.slowMs = 0;
    b.diskFaults.slowMs = 0;
    world.healAll();
    a.start();
    b.start();
    expectEqual([a, b, c]);
    expect(originOf(a)).not.toBe(origin);
    expect([valueAt(a, 'k'), valueAt(c, 'k'), valueAt(c, 'mine')]).toEqual(['seen', 'seen', undefined]);
  });

  test('a node that is killed before it could store its new origin does not fall back on the old one', () => {
    const { world, nodes } = stage(['a', 'b'], { node: { flushes: false } });
    const [a, b] = nodes as [SimNode, SimNode];
    const fsync = false;
    const origin = originOf(a);
    for (let i = 0; i < 10; i++) putNow(a, `k${i}`, 'before', { ...ALONE, fsync });
    world.run(1_000);
    expect(a.powerCut(0)).toBeGreaterThan(0);
    world.partition([a]);
    a.diskFaults.slowMs = 1_000;
    a.start();
    a.kill();
    a.diskFaults.slowMs = 0;
    a.start();
    world.run(1_000);
    expect(originOf(a)).not.toBe(origin);
    for (let i = 0; i < 10; i++) putNow(a, `k${i}`, 'after', { ...ALONE, fsync });
    world.healAll();
    expectEqual([a, b]);
    expect(valueAt(b, 'k3')).toBe('after');
  });

  test('writes faster than the disk are refused at a bounded queue, and those that were taken are answered', () => {
    const { world, nodes } = stage(['a', 'b'], { options: { pendingRowsMax: 100, pendingBytesMax: 20_000 } });
    const [a, b] = nodes as [SimNode, SimNode];
    a.diskFaults.slowMs = 400;
    const writes = Array.from({ length: 500 }, (_, i) => put(a, `k${i}`, 'v', { timeoutMs: 30_000 }));
    expect(a.core!.queue.rows).toBeLessThanOrEqual(100);
    expect(writes.filter((write) => code(write) === 'OVERLOADED').length).toBeGreaterThan(300);
    world.run(35_000);
    expect(new Set(writes.map(code))).toEqual(new Set(['ok', 'OVERLOADED']));
    expectEqual([a, b]);
  });
});

describe('acknowledgements', () => {
  test('writes that wait for other hosts are bounded, however small they are, and further ones are refused', () => {
    const { world, nodes } = stage(['a', 'b'], { options: { pendingRowsMax: 100 } });
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b);
    const writes: ReturnType<typeof put>[] = [];
    for (let i = 0; i < 30; i++) {
      for (let j = 0; j < 10; j++) writes.push(put(a, `k${i}/${j}`, 'v', { timeoutMs: 60_000 }));
      // They are written in between: only their acknowledgements are missing.
      world.run(100);
    }
    expect(a.core!.queue.rows).toBe(0);
    expect(writes.filter((write) => code(write) === 'OVERLOADED').length).toBe(200);
    world.healAll();
    world.run(30_000);
    expect(writes.filter((write) => code(write) === 'ok').length).toBe(100);
    expectEqual([a, b]);
  });
});

describe('the network', () => {
  test('two halves that are cut apart go on by themselves and agree once healed', () => {
    const { world, nodes } = stage(['a', 'b', 'c', 'd']);
    const [a, b, c, d] = nodes as [SimNode, SimNode, SimNode, SimNode];
    world.partition([a, b]);
    world.run(5_000);
    for (let i = 0; i < 50; i++) {
      expect(code(putNow(a, `k${i % 20}`, `left ${i}`))).toBe('ok');
      expect(code(putNow(c, `k${i % 20}`, `right ${i}`))).toBe('ok');
    }
    expect([valueAt(b, 'k0'), valueAt(d, 'k0')]).toEqual(['left 40', 'right 40']);
    world.run(300_000);
    world.healAll();
    expectEqual(nodes);
    expect(valueAt(a, 'k0')).toBe('right 40');
  });

  test('a link of which one direction is cut is given up by both ends within little more than two heartbeats', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b, true);
    const since = world.scheduler.now;
    const noticed = new Map<string, number>();
    world.afterInput = (node) => {
      if (linkedNames(node).length === 0 && !noticed.has(node.name))
        noticed.set(node.name, world.scheduler.now - since);
    };
    world.run(10_000);
    expect([...noticed.keys()].sort()).toEqual(['a', 'b']);
    // Two heartbeats, a quarter of one until it is looked at, and a heartbeat that was under way.
    for (const [, ms] of noticed) expect(ms).toBeLessThanOrEqual(3.5 * world.options.beatMs);
    putNow(a, 'k', 'v', ALONE);
    world.healAll();
    expectEqual(nodes);
  });

  test('the other end of a host that lost power is noticed, and dials do not turn into a storm', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    b.powerCut();
    world.run(5_000);
    expect(linkedNames(a)).toEqual([]);
    const before = world.ledger.faults.dialTimeout;
    world.run(120_000);
    const dials = world.ledger.faults.dialTimeout - before;
    expect(dials).toBeGreaterThan(5);
    // A dial takes two seconds to fail; then the longest pause is five.
    expect(dials).toBeLessThan(40);
    b.start();
    expectEqual(nodes);
  });

  test('a flapping link costs no data, and the nodes agree once it is steady', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    const writes = [];
    for (let i = 0; i < 60; i++) {
      if (i % 2 === 0) world.cut(a, b);
      else world.mend(a, b);
      writes.push(put(i % 3 === 0 ? b : a, `k${i % 10}`, `v${i}`, { timeoutMs: 1_000 }));
      world.run(world.random.between(20, 1_500));
    }
    world.healAll();
    expectEqual(nodes);
    expect(writes.filter((write) => code(write) === 'ok').length).toBeGreaterThan(5);
  });

  test('frames that come twice and late, resets at any byte and lost packets change nothing in the end', () => {
    const { world, nodes } = stage(['a', 'b', 'c'], {
      rates: { delayMs: 5, jitterMs: 30, loss: 0.05, duplicate: 0.5 },
      options: { chunkRowsMax: 2 },
    });
    for (let i = 0; i < 200; i++) {
      put(nodes[i % 3]!, `k${i % 40}`, `v${i}`);
      world.run(world.random.between(1, 30));
      if (i % 7 === 0) reset(world, nodes[i % 3]!, nodes[(i + 1) % 3]!);
    }
    expectEqual(nodes, 60_000);
    const { duplicateFrame, truncatedTail, loss } = world.ledger.faults;
    expect(Math.min(duplicateFrame, truncatedTail, loss)).toBeGreaterThan(0);
  });

  test('a bootstrap over 256 kbit/s with 300 ms of jitter makes progress and ends, without one session given up', () => {
    const { world, nodes } = stage(['a']);
    const a = nodes[0]!;
    for (let i = 0; i < 100; i++) put(a, `k${String(i).padStart(3, '0')}`, 'x'.repeat(2_000));
    world.run(1_000);
    const b = world.add({ name: 'b', join: ['a:1'] });
    for (const path of [world.network.path(a, b), world.network.path(b, a)])
      Object.assign(path, { bandwidth: 32, extraDelayMs: 300 });
    b.start();
    expect(world.runUntil(() => b.ready, 60_000)).toBe(true);
    expectEqual([a, b]);
    expect(b.core!.counters.sessionsFailed).toBe(0);
    expect(world.ledger.faults.slowLink).toBeGreaterThan(0);
  });

  test('in a line of nodes everything comes through, and after the middle one died what it had passed on stays', () => {
    const { world, nodes } = stage(['a', 'm', 'z']);
    const [a, m, z] = nodes as [SimNode, SimNode, SimNode];
    world.cut(a, z);
    world.run(5_000);
    for (let i = 0; i < 20; i++) put(i % 2 === 0 ? a : z, `k${i}`, `v${i}`, { replicas: 2 });
    expectEqual(nodes);
    m.kill();
    put(a, 'late', 'v', ALONE);
    world.run(20_000);
    expect(valueAt(z, 'late')).toBeUndefined();
    m.start();
    expectEqual(nodes);
    expect(valueAt(z, 'late')).toBe('v');
  });

  test('when the source of a bootstrap dies half way another takes over, and nothing is served before it is complete', () => {
    const { world, nodes } = stage(['a', 'b'], { options: { chunkRowsMax: 2, chunksInFlight: 1 } });
    const [a, b] = nodes as [SimNode, SimNode];
    for (let i = 0; i < 60; i++) put(a, `k${String(i).padStart(2, '0')}`, 'v', { replicas: 2 });
    world.run(2_000);
    const c = world.add({ name: 'c', join: ['a:1', 'b:1'] });
    c.start();
    world.runUntil(() => c.disk.image.rows.size >= 20, 5_000);
    const source = c.core!.bootstrap!.sources[0]!.name;
    (source === 'a' ? a : b).kill();
    expect([c.ready, code(putNow(c, 'early', 'v'))]).toEqual([false, 'NOT_READY']);
    expect(world.runUntil(() => c.ready, 30_000)).toBe(true);
    expect(c.core!.bootstrap!.sources.map(({ name }) => name).sort()).toEqual(['a', 'b']);
    expect(c.disk.image.rows.size).toBe(60);
  });
});

describe('clocks', () => {
  test.each([3_600_000, 10 * 365 * 86_400_000])(
    'a host whose clock is %d ms ahead is left alone, and says why',
    (ahead) => {
      const { world, nodes } = stage(['a', 'b', 'c']);
      const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
      c.clockOffsetMs = ahead;
      world.run(3_000);
      expect(issuesOf(c)).toContain('CLOCK_SKEW');
      expect(code(putNow(c, 'k', 'from the future', ALONE))).toBe('CLOCK_SKEW');
      expect([linkedNames(a), linkedNames(b)]).toEqual([['b'], ['a']]);
      expect(code(putNow(a, 'k', 'now'))).toBe('ok');
      for (const node of [a, b])
        expect(node.core!.hlc.ms - node.wall()).toBeLessThanOrEqual(world.options.maxClockDriftMs);
      c.clockOffsetMs = 0;
      world.run(30_000);
      expectEqual(nodes);
      expect(valueAt(c, 'k')).toBe('now');
    },
  );

  test('a record that is too far ahead is not skipped: heads wait for it until its time has come', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b);
    world.run(5_000);
    // Cut off, a cannot know that its clock is wrong.
    a.clockOffsetMs = 60_000;
    a.kill();
    a.start();
    expect(code(putNow(a, 'k', 'a minute ahead', ALONE))).toBe('ok');
    a.clockOffsetMs = 0;
    const origin = originOf(a);
    world.mend(a, b);
    world.run(20_000);
    expect([valueAt(b, 'k'), b.disk.image.heads.get(origin) ?? 0]).toEqual([undefined, 0]);
    expect(b.core!.counters.futureStamps).toBeGreaterThan(0);
    world.run(60_000);
    expectEqual(nodes);
    expect(valueAt(b, 'k')).toBe('a minute ahead');
  });

  test('a clock that is set back two hours before a restart gives no lower stamp, and says that it is off', () => {
    const { world, nodes } = stage(['a']);
    const a = nodes[0]!;
    putNow(a, 'k', 'before');
    const before = stampOn(a, 'k')!;
    a.kill();
    a.clockOffsetMs = -7_200_000;
    a.start();
    world.run(1_000);
    expect(code(putNow(a, 'k', 'after'))).toBe('CLOCK_SKEW');
    expect(issuesOf(a)).toContain('CLOCK_SKEW');
    a.clockOffsetMs = -1_000;
    world.run(500);
    expect(code(putNow(a, 'k', 'after'))).toBe('ok');
    expect(stampOn(a, 'k')! > before).toBe(true);
  });

  test('a clock that stands still gives rising stamps all the same, past the end of the counter', () => {
    const { world, nodes } = stage(['a']);
    const a = nodes[0]!;
    a.frozenWall = a.wall();
    a.core!.hlc.receive(a.frozenWall, 0xffff - 500);
    let last = '';
    for (let i = 0; i < 50; i++) {
      for (let j = 0; j < 20; j++) put(a, `k${j}`, `v${i}`);
      world.run(5);
      const stamp = stampOn(a, 'k19')!;
      expect(stamp > last).toBe(true);
      last = stamp;
    }
    expect(a.core!.hlc.ms).toBe(a.frozenWall + 1);
  });

  test('a delete stamped in the future is refused at the door, and does not capture the key', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    const { ms } = a.core!.hlc;
    const refused = del(a, 'k', { stamp: stampAt(world, 3_600_000) });
    expect(code(refused)).toBe('FUTURE_STAMP');
    expect(a.core!.hlc.ms).toBe(ms);
    expect(code(putNow(b, 'k', 'v'))).toBe('ok');
    expectEqual(nodes);
    expect(valueAt(a, 'k')).toBe('v');
  });
});

describe('identity', () => {
  test('a node that comes back with an empty disk takes its name and place again under a new origin', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'before', 'v', { replicas: 3 });
    const origin = originOf(c);
    c.wipe();
    world.run(500);
    c.start();
    expect(world.runUntil(() => c.ready, 20_000)).toBe(true);
    expect(originOf(c)).not.toBe(origin);
    expect(code(putNow(c, 'after', 'v', { replicas: 3, timeoutMs: 8_000 }))).toBe('ok');
    expectEqual(nodes);
    expect(a.core!.members.active().map(({ name, origin: id }) => [name, id])).toEqual(
      [a, b, c].map((node) => [node.name, originOf(node)]),
    );
    expect(valueAt(c, 'before')).toBe('v');
  });

  test('an emptied founder that is started as ever becomes a member again, and keeps what was written meanwhile', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a] = nodes as [SimNode, SimNode, SimNode];
    putNow(a, 'before', 'v', { replicas: 3 });
    const { uid } = a.core!.identity;
    a.wipe();
    world.partition([a]);
    a.start();
    world.run(1_000);
    expect([a.ready, a.core!.identity.uid === uid]).toEqual([true, false]);
    expect(code(putNow(a, 'alone', 'v'))).toBe('ok');
    world.healAll();
    expectEqual(nodes);
    expect([a.core!.identity.uid, valueAt(a, 'before'), valueAt(nodes[1]!, 'alone')]).toEqual([
      uid,
      'v',
      'v',
    ]);
  });

  test('a node restored from an old backup gets a new origin, catches up and brings nothing back', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'deleted later', 'v', { replicas: 3 });
    putNow(b, 'kept', 'v1', { replicas: 3 });
    const backup = b.disk.image.clone();
    del(c, 'deleted later', { replicas: 3 });
    putNow(b, 'kept', 'v2', { replicas: 3 });
    const origin = originOf(b);
    b.restore(backup);
    b.start();
    world.runUntil(() => b.core!.linked().length === 2, 10_000);
    expect(originOf(b)).not.toBe(origin);
    expect(code(putNow(b, 'after', 'v', { timeoutMs: 8_000 }))).toBe('ok');
    expectEqual(nodes);
    expect([valueAt(b, 'deleted later'), valueAt(b, 'kept')]).toEqual(['deleted', 'v2']);
  });

  test('a copy of a store that runs beside the original, to the last bit, is fenced on both sides of the quarrel', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'k', 'v');
    // As of a whole machine: what it remembers of the last opening was copied with it.
    const copy = world.add({ ...b.settings, address: 'b:2' });
    copy.disk.replace(b.disk.image.clone());
    copy.disk.record = { ...b.disk.record! };
    copy.start();
    world.run(5_000);
    expect(originOf(copy)).toBe(originOf(b));
    expect(issuesOf(copy)).toContain('DUPLICATE_ORIGIN');
    expect(linkedNames(copy)).toEqual([]);
    expect(code(putNow(copy, 'k', 'of the copy', ALONE))).toBe('DUPLICATE_ORIGIN');
    expect(code(putNow(a, 'k', 'w', { replicas: 3 }))).toBe('ok');
    expect(valueAt(copy, 'k')).toBe('v');
  });

  test('a node whose name a copy bore while it was away is counted again once it is back', () => {
    const { world, nodes } = stage(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    b.kill();
    const copy = world.add({ ...b.settings, address: 'b:2' });
    copy.disk.replace(b.disk.image.clone());
    copy.start();
    world.run(10_000);
    expect(a.core!.members.byName('b')!.address).toBe('b:2');
    copy.wipe();
    b.start();
    world.run(10_000);
    expect(a.core!.members.byName('b')).toMatchObject({ address: 'b:1', origin: originOf(b) });
    expect(code(putNow(a, 'k', 'v', { replicas: 2 }))).toBe('ok');
  });

  test('a member of another cluster, and a node that dials itself, get no link', () => {
    const { world, nodes } = stage(['a']);
    const a = nodes[0]!;
    const stranger = world.add({ name: 's', cluster: 'other', join: ['a:1', 's:1'] });
    stranger.start();
    world.run(10_000);
    expect([linkedNames(a), linkedNames(stranger), stranger.ready]).toEqual([[], [], false]);
    expect(issuesOf(stranger)).toContain('WRONG_CLUSTER');
    const { operations } = world.oracle;
    expect(code(putNow(stranger, 'k', 'v'))).toBe('NOT_READY');
    expect([a.disk.image.rows.size, world.oracle.operations]).toEqual([0, operations + 1]);
  });

  test('hosts that are all started with the same list form one cluster, though their founder dies at the worst time', () => {
    for (let killAt = 300; killAt < 420; killAt += 4) {
      const { world, nodes } = allJoining(['a', 'b', 'c'], killAt);
      const smallest = nodes.reduce((x, y) => (originOf(x) < originOf(y) ? x : y));
      world.run(killAt);
      smallest.kill();
      world.run(2_000);
      smallest.start();
      expect(
        world.runUntil(() => nodes.every((node) => node.ready), 30_000),
        `killed at ${killAt}`,
      ).toBe(true);
      expect(new Set(nodes.map((node) => node.core!.identity.uid)).size).toBe(1);
      expectEqual(nodes);
    }
  });

  test('an expelled member takes part no more, and its name is free for an empty disk', () => {
    const { world, nodes } = stage(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'k', 'v', { replicas: 3 });
    a.input({ type: 'remove-member', id: 1, name: 'c' });
    world.run(5_000);
    expect(issuesOf(c)).toContain('REMOVED');
    expect(code(putNow(c, 'k', 'w', ALONE))).toBe('REMOVED');
    expect([linkedNames(a), linkedNames(b), linkedNames(c)]).toEqual([['b'], ['a'], []]);
    c.wipe();
    c.start();
    expect(world.runUntil(() => c.ready, 20_000)).toBe(true);
    expectEqual(nodes);
    expect(valueAt(c, 'k')).toBe('v');
  });
});

function allJoining(names: readonly string[], seed: number): ReturnType<typeof stage> {
  const { world } = stage(['spare'], { diskMs: 20 });
  world.nodes.length = 0;
  const join = names.map((name) => `${name}:1`);
  for (let i = 0; i < seed % 7; i++) world.random.next();
  const nodes = names.map((name) => world.add({ name, join }));
  for (const node of nodes) node.start();
  return { world, nodes };
}
