import { describe, expect, test } from 'vitest';
import { joinStandings } from '../../../src/core/standing.js';
import type { SimNode } from '../node.js';
import type { World } from '../world.js';
import {
  code,
  del,
  expectEqual,
  type Pending,
  put,
  putNow,
  type Stage,
  stage,
  tune,
  valueAt,
} from './stage.js';

const TOKEN_MS = 2_000;
/** More than it takes until all members have sealed and forgotten an origin. */
const FORGETTING_MS = 15_000;
const ALONE = { replicas: 1 };

const originOf = (node: SimNode): string => node.core!.identity.origin;
const vectorOf = (node: SimNode): string[] => [...node.core!.written.origins()].sort();
const membersOf = (node: SimNode): string[] => node.core!.members.active().map(({ origin }) => origin);

function short(names: readonly string[], options: object = {}): Stage {
  return stage(names, { options: { tokenAgeMaxMs: TOKEN_MS, ...options } });
}

const isProved = (node: SimNode): boolean => node.core!.provedAt !== undefined;

function restartEmpty(world: World, node: SimNode): void {
  node.wipe();
  world.run(500);
  node.start();
  expect(world.runUntil(() => node.ready, 20_000)).toBe(true);
}

describe('origins that have ended', () => {
  test('a host that comes back with an empty disk thirty times leaves vectors and stored heads of three origins', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, , c] = nodes as [SimNode, SimNode, SimNode];
    const seen = new Set<string>();
    for (let i = 0; i < 30; i++) {
      expect(code(putNow(c, `k${i}`, `v${i}`, { replicas: 3, timeoutMs: 8_000 }))).toBe('ok');
      seen.add(originOf(c));
      restartEmpty(world, c);
    }
    expect(seen.size).toBe(30);
    putNow(a, 'last', 'v', { replicas: 3, timeoutMs: 8_000 });
    world.run(FORGETTING_MS);
    expectEqual(nodes);
    for (const node of nodes) {
      expect(vectorOf(node)).toEqual([originOf(a)]);
      expect([...node.disk.image.heads.keys()]).toEqual([originOf(a)]);
      for (let i = 0; i < 30; i++) expect(valueAt(node, `k${i}`)).toBe(`v${i}`);
    }
    // Nothing is left to settle, and nothing is said about it any more.
    expect(nodes.map((node) => node.core!.sealing.isIdle)).toEqual([true, true, true]);
  });

  test('an origin is not sealed while a loss of power may take what somebody has of it', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [, b, c] = nodes as [SimNode, SimNode, SimNode];
    b.diskFaults.slowMs = 30_000;
    put(c, 'k', 'v', ALONE);
    const isExposed = (): boolean => b.disk.image.rows.has('k') && !b.disk.durable.rows.has('k');
    expect(world.runUntil(isExposed, 60_000)).toBe(true);
    const { faults } = world.ledger;
    const sealed = faults.originSealed;
    let exposed = 0;
    world.afterInput = () => {
      if (!isExposed()) return;
      exposed += 1;
      expect(faults.originSealed).toBe(sealed);
    };
    restartEmpty(world, c);
    world.run(60_000);
    expect(exposed).toBeGreaterThan(20);
    b.diskFaults.slowMs = 0;
    world.run(FORGETTING_MS);
    expectEqual(nodes);
    expect(faults.originSealed).toBeGreaterThan(sealed);
  });

  test('a restarted node tells what it has forgotten from what it lacks', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'old', 'v', { replicas: 3 });
    restartEmpty(world, c);
    world.run(FORGETTING_MS);
    b.kill();
    b.start();
    putNow(a, 'new', 'v', { replicas: 3, timeoutMs: 8_000 });
    expectEqual(nodes);
    expect(vectorOf(b)).toEqual([originOf(a)]);
    // The new record, perhaps by two ways; no word of the old one, which the others' vectors do not name.
    expect(b.core!.counters.recordsReceived).toBeLessThanOrEqual(2);
    expect(b.core!.counters.rebuilds).toBe(0);
  });

  test('a record of a forgotten origin that a store lost unnoticed is found out, and comes back from a peer', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    for (let i = 0; i < 10; i++) putNow(c, `k${i}`, 'v', { replicas: 3 });
    restartEmpty(world, c);
    world.run(FORGETTING_MS);
    expect(vectorOf(a)).toEqual([]);
    b.kill();
    b.disk.image.rows.delete('k5');
    for (const [dot, key] of b.disk.image.dots) if (key === 'k5') b.disk.image.dots.delete(dot);
    b.start();
    expect(world.runUntil(() => valueAt(b, 'k5') === 'v', 30_000)).toBe(true);
    expect(b.core!.counters).toMatchObject({ digestDamages: 1, recordsRepaired: 1, rebuilds: 0 });
    expect(nodes.map((node) => node.core!.counters.recordsSetAside)).toEqual([0, 0, 0]);
    expect(vectorOf(b)).toEqual([]);
  });

  test('a newcomer that copies from several members takes over what their standings have in common', () => {
    const sound = { proven: true, forgotten: 7 };
    expect(joinStandings(sound, { proven: true, forgotten: 3 })).toEqual({ proven: true, forgotten: 3 });
    expect(joinStandings({ proven: false, forgotten: 9 }, sound)).toEqual({ proven: false, forgotten: 7 });
    const { world, nodes } = short(['a', 'b', 'c'], { bootstrapRangeBytes: 500 });
    const [a, , c] = nodes as [SimNode, SimNode, SimNode];
    for (let i = 0; i < 60; i++) putNow(c, `k${i}`, 'v'.repeat(100), { replicas: 3 });
    restartEmpty(world, c);
    world.run(FORGETTING_MS);
    const d = world.add({ name: 'd', join: ['a:1', 'b:1', 'c:1'] });
    d.start();
    expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
    expect(d.core!.bootstrap!.sources.length).toBeGreaterThan(1);
    expect(code(putNow(a, 'new', 'v', { replicas: 4, timeoutMs: 8_000 }))).toBe('ok');
    expectEqual([...nodes, d]);
    for (const node of [...nodes, d]) expect(vectorOf(node)).toEqual([originOf(a)]);
    expect([d.core!.counters.rebuilds, d.core!.sealing.isIdle]).toEqual([0, true]);
  });

  test('a newcomer after the forgetting gets every record, and brings no forgotten origin back', () => {
    const { world, nodes } = short(['a', 'b']);
    const [a, b] = nodes as [SimNode, SimNode];
    for (let i = 0; i < 10; i++) putNow(b, `k${i}`, 'v');
    restartEmpty(world, b);
    world.run(FORGETTING_MS);
    const d = world.add({ name: 'd', join: ['a:1'] });
    d.start();
    expect(world.runUntil(() => d.ready, 10_000)).toBe(true);
    expect(code(putNow(d, 'new', 'v', { replicas: 3, timeoutMs: 8_000 }))).toBe('ok');
    expectEqual([a, b, d]);
    expect(d.disk.image.rows.size).toBe(11);
    for (const node of [a, b, d]) expect(vectorOf(node)).toEqual([originOf(d)]);
  });

  test('a member that is down holds up the sealing of what it may lack, and catches up when it is back', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    b.kill();
    putNow(c, 'k', 'missed by b', { replicas: 2 });
    const ended = originOf(c);
    restartEmpty(world, c);
    world.run(FORGETTING_MS);
    expect([vectorOf(a).includes(ended), a.core!.counters.originsSealed]).toEqual([true, 0]);
    b.start();
    expectEqual([a, b, c]);
    expect(valueAt(b, 'k')).toBe('missed by b');
    world.run(FORGETTING_MS);
    for (const node of nodes) expect(vectorOf(node)).toEqual([]);
  });

  test('a member that was down for the forgetting had known the seal, and forgets when it is back', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'k', 'v', { replicas: 3 });
    const ended = originOf(c);
    restartEmpty(world, c);
    const settled = (): boolean => a.core!.sealing.covers({ origin: ended, seq: 2 }) === 'lost';
    expect(world.runUntil(settled, 10_000)).toBe(true);
    world.run(1_200);
    b.kill();
    world.run(FORGETTING_MS);
    expect([vectorOf(a), b.disk.image.heads.has(ended)]).toEqual([[], true]);
    b.start();
    world.run(5_000);
    expectEqual(nodes);
    expect([vectorOf(b), b.core!.counters.rebuilds]).toEqual([[], 0]);
  });

  test('a gap that nobody can fill leaves vectors once all members report identical data, and no sooner', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    const ended = originOf(c);
    const { pullGraceMs } = world.options;
    putNow(c, 'one', '1', { replicas: 3 });
    tune(world, { pullGraceMs: 600_000 });
    world.partition([c]);
    world.run(3_000);
    putNow(c, 'lost with c', 'v', ALONE);
    world.healAll();
    world.run(6_000);
    putNow(c, 'three', '3', { replicas: 3, timeoutMs: 8_000 });
    expect([a.core!.written.head(ended), a.core!.written.top(ended)]).toEqual([1, 3]);
    tune(world, { pullGraceMs });
    let writes = 0;
    const writeOn = (): void => {
      if (writes++ < 100) put(a, 'busy', `${writes}`);
      world.scheduler.after(200, writeOn);
    };
    writeOn();
    restartEmpty(world, c);
    world.run(10_000);
    // Copies that change all the time cannot be told to be equal.
    expect([writes < 100, a.core!.counters.originsSealed + b.core!.counters.originsSealed]).toEqual([
      true,
      0,
    ]);
    world.run(10_000 + FORGETTING_MS);
    expectEqual(nodes);
    for (const node of nodes) {
      expect([vectorOf(node), node.core!.written.hasGaps]).toEqual([[originOf(a)], false]);
      expect([valueAt(node, 'three'), valueAt(node, 'lost with c')]).toEqual(['3', undefined]);
    }
    expect(nodes.map((node) => node.core!.sealing.isIdle)).toEqual([true, true, true]);
  });

  test('a seal is taken anew, lower, when all disks lost what it counted', () => {
    const { world, nodes } = short(['a', 'b'], { tokenAgeMaxMs: 20_000 });
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(a, 'one', '1');
    const backups = nodes.map(({ disk }) => disk.image.clone());
    putNow(a, 'two', '2');
    const origin = originOf(a);
    const covers = (node: SimNode): string[] =>
      [1, 2, 3].map((seq) => node.core!.sealing.covers({ origin, seq }));
    a.kill();
    a.disk.distrust();
    a.start();
    expect(world.runUntil(() => covers(b)[2] === 'lost', 10_000)).toBe(true);
    expect(covers(b)).toEqual(['held', 'held', 'lost']);
    // The seal reaches the restored store before the record does, and then the other store is restored.
    const { pullGraceMs } = world.options;
    tune(world, { pullGraceMs: 600_000 });
    a.restore(backups[0]!);
    a.start();
    expect(world.runUntil(() => a.disk.image.meta.has('seals') && covers(a)[2] === 'lost', 10_000)).toBe(
      true,
    );
    expect(valueAt(a, 'two')).toBeUndefined();
    b.restore(backups[1]!);
    b.start();
    tune(world, { pullGraceMs });
    const anew = (): boolean => nodes.every((node) => covers(node)[1] === 'lost');
    expect(world.runUntil(anew, 10_000)).toBe(true);
    expect(nodes.map(covers)).toEqual([
      ['held', 'lost', 'lost'],
      ['held', 'lost', 'lost'],
    ]);
    world.run(20_000 + FORGETTING_MS);
    expect(nodes.map(vectorOf)).toEqual([[], []]);
    expectEqual(nodes);
  });

  test('what a store says of itself and lost is written anew, heads of nothing and what is known of ends included', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, , c] = nodes as [SimNode, SimNode, SimNode];
    const { pullGraceMs } = world.options;
    tune(world, { pullGraceMs: 600_000 });
    world.partition([c]);
    world.run(3_000);
    putNow(c, 'one', '1', ALONE);
    world.healAll();
    world.run(6_000);
    putNow(c, 'two', '2', { replicas: 3, timeoutMs: 8_000 });
    const origin = originOf(c);
    expect([a.disk.image.heads.get(origin), a.core!.written.top(origin)]).toEqual([0, 2]);
    a.disk.image.heads.clear();
    a.disk.image.meta.delete('seals');
    a.input({ type: 'rewrite-own', row: undefined });
    world.run(500);
    expect([a.disk.image.heads.get(origin), a.disk.image.meta.has('seals')]).toEqual([0, true]);
    a.kill();
    a.start();
    tune(world, { pullGraceMs });
    expectEqual(nodes);
    expect(valueAt(a, 'one')).toBe('1');
  });

  test('the origin of a removed member is sealed without it', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'k', 'v', { replicas: 3 });
    c.kill();
    a.input({ type: 'remove-member', id: 1, name: 'c' });
    world.run(FORGETTING_MS);
    for (const node of [a, b]) expect([vectorOf(node), valueAt(node, 'k')]).toEqual([[], 'v']);
  });

  test('a token is held up to the seal, lost beyond it, and lost once its origin is forgotten', () => {
    const { world, nodes } = short(['a', 'b'], { tokenAgeMaxMs: 20_000 });
    const [a, b] = nodes as [SimNode, SimNode];
    putNow(b, 'one', '1');
    putNow(b, 'two', '2');
    const origin = originOf(b);
    const covers = (seq: number): string => a.core!.sealing.covers({ origin, seq });
    expect([covers(2), covers(3)]).toEqual(['held', 'behind']);
    restartEmpty(world, b);
    expect(world.runUntil(() => covers(3) === 'lost', 10_000)).toBe(true);
    expect([covers(1), covers(2), covers(3)]).toEqual(['held', 'held', 'lost']);
    world.run(20_000 + FORGETTING_MS);
    expect([vectorOf(a), covers(3)]).toEqual([[], 'lost']);
    expect(a.core!.sealing.covers({ origin: 'f'.repeat(16), seq: 1 })).toBe('behind');
  });
});

describe('a store that missed a forgetting', () => {
  function backupThenForget(): Stage & { before: string } {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'kept', 'v', { replicas: 3 });
    const backup = b.disk.image.clone();
    putNow(c, 'unknown to the backup', 'v', { replicas: 3 });
    putNow(c, 'kept', 'newer', { replicas: 3 });
    const before = originOf(c);
    restartEmpty(world, c);
    world.run(FORGETTING_MS);
    expect(vectorOf(nodes[0]!)).toEqual([originOf(b)]);
    b.restore(backup);
    return { world, nodes, before };
  }

  test('an old backup lacks records that no vector names: it is filled anew, and not ready until then', () => {
    const { world, nodes } = backupThenForget();
    const b = nodes[1]!;
    b.start();
    expect([b.ready, valueAt(b, 'unknown to the backup')]).toEqual([true, undefined]);
    let early: Pending | undefined;
    world.afterInput = (node) => {
      if (node !== b || b.ready || early !== undefined) return;
      early = { result: undefined };
      world.scheduler.after(0, () => {
        early = put(b, 'early', 'v', ALONE);
      });
    };
    expect(world.runUntil(() => b.core!.counters.rebuilds === 1, 10_000)).toBe(true);
    expectEqual(nodes);
    expect(code(early)).toBe('NOT_READY');
    expect([valueAt(b, 'unknown to the backup'), valueAt(b, 'kept')]).toEqual(['v', 'newer']);
    world.run(FORGETTING_MS);
    for (const node of nodes) for (const origin of vectorOf(node)) expect(membersOf(node)).toContain(origin);
    expect(b.core!.counters.rebuilds).toBe(1);
  });

  test('a host whose name a copy bore hears of what was forgotten before it hears of the copy, and is filled anew', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'kept', 'v', { replicas: 3 });
    c.kill();
    const copy = world.add({ ...c.settings, address: 'c:2' });
    copy.disk.replace(c.disk.image.clone());
    copy.start();
    expect(world.runUntil(() => copy.ready && copy.core!.linked().length === 2, 20_000)).toBe(true);
    const ended = originOf(b);
    putNow(b, 'missed by c', 'v', { replicas: 3 });
    restartEmpty(world, b);
    expect(world.runUntil(() => !vectorOf(a).includes(ended), FORGETTING_MS)).toBe(true);
    // Before its row is dropped.
    copy.kill();
    c.start();
    expectEqual(nodes, 60_000);
    expect([valueAt(c, 'missed by c'), c.core!.counters.rebuilds]).toEqual(['v', 1]);
    world.run(FORGETTING_MS);
    expectEqual(nodes);
    for (const node of nodes) for (const origin of vectorOf(node)) expect(membersOf(node)).toContain(origin);
  });

  test('such a host is not compared before it has heard of the copy, and nobody takes a sound store for a damaged one', () => {
    // The host says its name again with a beat of its own, somewhere between those of the others.
    for (const pauseMs of [0, 250, 500, 750]) {
      const { world, nodes } = short(['a', 'b', 'c']);
      const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
      putNow(a, 'kept', 'v', { replicas: 3 });
      c.kill();
      const copy = world.add({ ...c.settings, address: 'c:2' });
      copy.disk.replace(c.disk.image.clone());
      copy.start();
      expect(world.runUntil(() => copy.ready && copy.core!.linked().length === 2, 20_000)).toBe(true);
      // Of an origin that the host has never heard of.
      const ended = originOf(b);
      putNow(b, 'missed by c', 'v', { replicas: 3 });
      restartEmpty(world, b);
      expect(world.runUntil(() => !vectorOf(a).includes(ended), FORGETTING_MS)).toBe(true);
      copy.kill();
      world.run(pauseMs);
      c.start();
      expectEqual(nodes, 60_000);
      expect([valueAt(c, 'missed by c'), c.core!.counters.rebuilds]).toEqual(['v', 1]);
      expect(nodes.map((node) => node.core!.counters.digestMismatches)).toEqual([0, 0, 0]);
      expect(world.runUntil(() => nodes.every(isProved), 20_000)).toBe(true);
    }
  });

  test('it is filled anew though its only source has damaged records, of which it holds one itself and nobody the other', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    const isWhole = (key: string): boolean => !a.disk.image.flipped.has(key);
    putNow(a, 'in the backup', 'v', { replicas: 3 });
    const backup = b.disk.image.clone();
    putNow(c, 'of c', 'v', { replicas: 3 });
    restartEmpty(world, c);
    world.run(FORGETTING_MS);
    c.kill();
    b.restore(backup);
    world.oracle.diskDamaged(a);
    a.disk.image.flipBit('in the backup', 300);
    a.disk.image.flipBit('of c', 300);
    b.start();
    expect(world.runUntil(() => b.core!.counters.rebuilds === 1, 10_000)).toBe(true);
    expect(world.runUntil(() => isWhole('in the backup'), 5_000)).toBe(true);
    // Until all others have said that they do not hold it either, the other one may be anywhere.
    world.run(30_000);
    expect([b.ready, isWhole('of c'), a.core!.counters.recordsLost]).toEqual([false, false, 0]);
    a.input({ type: 'remove-member', id: 1, name: 'c' });
    // The oracle takes no record for lost: that it is given up now is its complaint.
    expect(() => world.runUntil(() => b.ready, 30_000)).toThrow('a gives up its record of of c');
    expect(a.core!.counters.recordsLost).toBe(1);
  });

  test('a backup that knows the seal of what was forgotten since ends with the vector of the others', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(c, 'k', 'v', { replicas: 3 });
    const dot = { origin: originOf(c), seq: 2 };
    restartEmpty(world, c);
    expect(world.runUntil(() => b.core!.sealing.covers(dot) === 'lost', 10_000)).toBe(true);
    const backup = b.disk.image.clone();
    expect(backup.heads.has(dot.origin)).toBe(true);
    world.run(FORGETTING_MS);
    // Whoever is down keeps all others from taking a further step.
    c.kill();
    b.restore(backup);
    b.start();
    expectEqual([a, b]);
    expect([b.core!.counters.rebuilds, vectorOf(b)]).toEqual([1, []]);
  });

  test('what it wrote before it met the others is kept, and reaches them', () => {
    const { world, nodes } = backupThenForget();
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    world.partition([b]);
    b.start();
    world.run(3_000);
    expect(code(putNow(b, 'own', 'of the restored', ALONE))).toBe('ok');
    world.healAll();
    expectEqual(nodes);
    for (const node of [a, b, c]) expect(valueAt(node, 'own')).toBe('of the restored');
    expect(valueAt(b, 'unknown to the backup')).toBe('v');
  });

  test('nobody joins by way of it without being filled anew, too', () => {
    const { world, nodes } = backupThenForget();
    const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
    const d = world.add({ name: 'd', join: ['b:1'] });
    world.partition([b, d]);
    b.start();
    d.start();
    expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
    expect(valueAt(d, 'unknown to the backup')).toBeUndefined();
    world.healAll();
    expectEqual([a, b, c, d], 60_000);
    expect(valueAt(d, 'unknown to the backup')).toBe('v');
  });

  test('a deletion that was forgotten with its origin is not undone by the backup', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [, b, c] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'k', 'v', { replicas: 3 });
    const backup = b.disk.image.clone();
    del(c, 'k', { replicas: 3 });
    world.run(1_000);
    restartEmpty(world, c);
    world.run(FORGETTING_MS);
    b.restore(backup);
    b.start();
    expectEqual(nodes);
    for (const node of nodes) expect(valueAt(node, 'k')).toBe('deleted');
  });

  test('a node whose name a copy bore until its origin was forgotten is heard again, with all that it wrote', () => {
    const { world, nodes } = short(['a', 'b', 'c']);
    const [a, b] = nodes as [SimNode, SimNode, SimNode];
    putNow(b, 'k', 'v', { replicas: 3 });
    world.partition([b]);
    world.run(3_000);
    expect(code(putNow(b, 'only here', 'v', ALONE))).toBe('ok');
    const image = b.disk.image.clone();
    b.kill();
    world.healAll();
    const copy = world.add({ ...b.settings, address: 'b:2' });
    copy.disk.replace(image);
    copy.start();
    world.run(FORGETTING_MS);
    copy.kill();
    world.nodes.splice(world.nodes.indexOf(copy), 1);
    b.start();
    world.run(FORGETTING_MS);
    expect(code(putNow(b, 'again', 'v', { replicas: 3, timeoutMs: 8_000 }))).toBe('ok');
    expectEqual(nodes, 60_000);
    expect([valueAt(a, 'only here'), valueAt(a, 'again')]).toEqual(['v', 'v']);
    expect(a.core!.members.byName('b')!.origin).toBe(originOf(b));
  });
});
