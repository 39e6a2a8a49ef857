/**
 * Hosts that return when the cluster went on without them: what becomes of their stores, and of what only those held
 * (src/core/returning.ts). The oracle checks that nothing of an old store is lost, and that the file gets no more than
 * what is too old.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ReplicaCore } from '../../../src/core/replica.js';
import { Violation } from '../faults.js';
import { RETURN_MUTANTS } from '../mutants.js';
import { type Copies, copyWithBugs } from '../mutate.js';
import type { SimNode } from '../node.js';
import {
  code,
  del,
  expectEqual,
  issuesOf,
  putNow,
  putOp,
  type Stage,
  stage,
  valueAt,
  writeOps,
} from './stage.js';

const LEASE_MS = 20_000;
const SLACK_MS = 8_000;
const SHORT_MS = 4_000;
const ALONE = { replicas: 1 };
const RETURN_MS = 60_000;

type Build = typeof ReplicaCore;

function staged(names: readonly string[], lateRetryMs?: number, Core?: Build): Stage {
  const late = lateRetryMs === undefined ? {} : { lateRetryMs };
  return stage(names, {
    options: { leaseMs: LEASE_MS, maxClockDriftMs: 1_000, ...late },
    node: { returns: true },
    ...(Core === undefined ? {} : { Core }),
  });
}

/** Each of these has an old store, and everything of it was dealt with. */
function haveReturned(nodes: readonly SimNode[]): boolean {
  const { world } = nodes[0]!;
  return world.runUntil(() => nodes.every((node) => node.ready && node.aside.isDone), RETURN_MS);
}

/** Written and deleted, and the deletion collected by these. */
function deletedForGood(nodes: readonly SimNode[], key: string): boolean {
  const [first] = nodes as [SimNode];
  const { world } = first;
  del(first, key, { replicas: nodes.length });
  return world.runUntil(
    () => nodes.every(({ disk }) => !disk.image.rows.has(key)) && first.open.size === 0,
    RETURN_MS,
  );
}

test('one that was cut off for longer than a lease brings its writes back, and newer ones stand', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'deleted', 'v', { replicas: 3 });
  world.partition([c]);
  for (const key of ['own', 'newer']) expect(code(putNow(c, key, 'of c', ALONE))).toBe('ok');
  del(c, 'deleted', ALONE);
  world.run(LEASE_MS + SLACK_MS);
  putNow(a, 'newer', 'of a');
  world.healAll();
  expect(haveReturned([c])).toBe(true);
  expectEqual(nodes);
  expect(['own', 'newer', 'deleted'].map((key) => valueAt(b, key))).toEqual(['of c', 'of a', 'deleted']);
  expect([c.aside.returned, c.aside.kept.size, issuesOf(c)]).toEqual([2, 0, []]);
});

test('killed again and again on its way back, it loses nothing, and founds nothing', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, , c] = nodes as [SimNode, SimNode, SimNode];
  world.partition([c]);
  const keys = Array.from({ length: 60 }, (_, i) => `own${i}`);
  for (const key of keys) putNow(c, key, 'v', ALONE);
  world.run(LEASE_MS + SLACK_MS);
  world.healAll();
  for (let i = 0; i < 40; i++) {
    world.run(40 + i * 35);
    c.kill();
    c.start();
  }
  expect(haveReturned([c])).toBe(true);
  expectEqual(nodes);
  expect(keys.every((key) => valueAt(a, key) === 'v')).toBe(true);
  expect(c.core!.identity.uid).toBe(a.core!.identity.uid);
});

test('two of five, cut off beyond the lease: what they acknowledged before they stopped is back', () => {
  const { world, nodes } = staged(['a', 'b', 'c', 'd', 'e']);
  const [a, , , d, e] = nodes as [SimNode, SimNode, SimNode, SimNode, SimNode];
  world.partition([d, e]);
  world.mend(d, e);
  for (const key of ['k1', 'k2', 'k3']) expect(code(putNow(d, key, 'v', { replicas: 2 }))).toBe('ok');
  world.run(LEASE_MS + SLACK_MS);
  expect(code(putNow(e, 'late', 'v', { replicas: 2 }))).toBe('NO_MAJORITY');
  world.healAll();
  expect(haveReturned([d, e])).toBe(true);
  expectEqual(nodes);
  expect(['k1', 'k2', 'k3', 'late'].map((key) => valueAt(a, key))).toEqual(['v', 'v', 'v', undefined]);
  expect([...d.aside.kept, ...e.aside.kept]).toEqual([]);
});

/** c is away for so long that its writes are too old, and that a deletion is collected. */
function awayTooLong(Core?: Build): Stage & { c: SimNode } {
  const { world, nodes } = staged(['a', 'b', 'c'], SHORT_MS, Core);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'gone', 'v', { replicas: 3 });
  world.partition([c]);
  putNow(c, 'own', 'v', ALONE);
  putNow(c, 'gone', 'of c', ALONE);
  world.run(LEASE_MS + SLACK_MS);
  expect(deletedForGood([a, b], 'gone')).toBe(true);
  world.healAll();
  return { world, nodes, c };
}

test('what is too old is kept in a file, and nothing that was deleted comes back', () => {
  const { world, nodes, c } = awayTooLong();
  expect(haveReturned([c])).toBe(true);
  expectEqual(nodes);
  expect([...c.aside.kept.keys()].sort()).toEqual(['gone', 'own']);
  expect([...nodes[0]!.disk.image.rows.keys()]).toEqual([]);
  world.run(10_000);
  expect(c.aside.returned).toBe(0);
});

test('what expired while its store waited to be brought back is neither brought back nor kept, and no loss', () => {
  const { world, nodes } = staged(['a', 'b', 'c']);
  const [a, , c] = nodes as [SimNode, SimNode, SimNode];
  world.partition([c]);
  const pending = writeOps(c, [{ ...putOp('short', 'lived'), ttlMs: LEASE_MS }], ALONE);
  const own = putNow(c, 'own', 'v', ALONE);
  expect([code(pending), code(own)]).toEqual(['ok', 'ok']);
  world.run(LEASE_MS + SLACK_MS);
  world.healAll();
  expect(haveReturned([c])).toBe(true);
  expectEqual(nodes);
  expect([valueAt(a, 'own'), valueAt(a, 'short'), c.aside.kept.size]).toEqual(['v', undefined, 0]);
  const stamp = pending.result!.stamp!;
  expect([c.aside.holds('short', stamp), c.aside.holds('never written', stamp)]).toEqual([true, false]);
});

test('an old backup, and a copy of it at another host, are recognised: no deleted key comes back', () => {
  const { world, nodes } = staged(['a', 'b', 'c'], SHORT_MS);
  const [a, b] = nodes as [SimNode, SimNode, SimNode];
  for (const key of ['gone', 'stays']) putNow(a, key, 'v', { replicas: 3 });
  world.partition([b]);
  putNow(b, 'only backup', 'v', ALONE);
  // Until its links are given up: what waits in them would arrive.
  world.run(SLACK_MS);
  const backup = b.disk.image.clone();
  b.wipe();
  world.healAll();
  b.start();
  expect(world.runUntil(() => nodes.every(({ ready }) => ready), 20_000)).toBe(true);
  expect(deletedForGood(nodes, 'gone')).toBe(true);
  world.run(2 * SHORT_MS);
  b.restore(backup);
  b.start();
  expect(haveReturned([b])).toBe(true);
  const copy = world.add({ name: 'd', join: ['a:1'], returns: true });
  copy.restore(backup);
  copy.start();
  expect(haveReturned([copy])).toBe(true);
  expectEqual([...nodes, copy]);
  expect([...a.disk.image.rows.keys()]).toEqual(['stays']);
  for (const node of [b, copy]) expect([...node.aside.kept.keys()]).toContain('only backup');
});

test('an old backup of a cluster that has deleted nothing since is as good as ever', () => {
  const { world, nodes } = staged(['a', 'b', 'c'], SHORT_MS);
  const [a, , c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'k', 'v', { replicas: 3 });
  const backup = c.disk.image.clone();
  world.run(10 * SHORT_MS);
  c.restore(backup);
  c.start();
  expect(world.runUntil(() => c.ready, RETURN_MS)).toBe(true);
  expectEqual(nodes);
  expect([world.ledger.faults.outdated, valueAt(c, 'k')]).toEqual([0, 'v']);
});

test('a whole cluster that was off for longer than any lease resumes, and nobody sets anything aside', () => {
  const { world, nodes } = staged(['a', 'b', 'c'], SHORT_MS);
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  putNow(a, 'k', 'v', { replicas: 3 });
  world.partition([c]);
  putNow(c, 'own', 'v', ALONE);
  for (const node of nodes) node.kill();
  world.run(3 * LEASE_MS);
  world.healAll();
  for (const node of nodes) node.start();
  world.run(SLACK_MS);
  expectEqual(nodes);
  expect([valueAt(b, 'own'), nodes.some(({ aside }) => aside.isDone)]).toEqual(['v', false]);
});

describe('a planted bug is caught', () => {
  let copies: Copies;
  beforeAll(() => {
    copies = copyWithBugs(Object.values(RETURN_MUTANTS));
  });
  afterAll(() => copies?.remove());

  /** By the oracle, or by what the file lacks and the copies have. */
  const isCaught = (Core: Build): boolean => {
    try {
      const { nodes, c } = awayTooLong(Core);
      haveReturned([c]);
      return c.aside.kept.size !== 2 || nodes[0]!.disk.image.rows.size > 0;
    } catch (error) {
      if (error instanceof Violation) return true;
      throw error;
    }
  };

  test('that drops what only the old store held', async () => {
    expect(isCaught(ReplicaCore)).toBe(false);
    expect(isCaught(await copies.load(RETURN_MUTANTS.drops))).toBe(true);
  }, 60_000);

  test('that takes old records back though they are too old', async () => {
    expect(isCaught(await copies.load(RETURN_MUTANTS.takesOld))).toBe(true);
  }, 60_000);
});
