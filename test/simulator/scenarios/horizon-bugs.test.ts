/** Planted bugs of the garbage horizon, each in a scenario that the sound core stands, and that the bug fails. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ReplicaCore } from '../../../src/core/replica.js';
import { Violation } from '../faults.js';
import { HORIZON_MUTANTS } from '../mutants.js';
import { type Copies, copyWithBugs } from '../mutate.js';
import type { SimNode } from '../node.js';
import { code, del, putNow, type Stage, stage, stampAt, tune, valueAt } from './stage.js';

type Build = typeof ReplicaCore;

const W = 4_000;
/** Longer than any scenario. */
const NEVER_MS = 10_000_000;
const OPTIONS = { lateRetryMs: W, maxClockDriftMs: 1_000 };

function trio(
  Core: Build,
  options: Stage['world']['options'] | object = {},
): Stage & Record<'a' | 'b' | 'c', SimNode> {
  const { world, nodes } = stage(['a', 'b', 'c'], { Core, options: { ...OPTIONS, ...options } });
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  return { world, nodes, a, b, c };
}

/** Whether the oracle objects. */
function isViolated(run: () => void): boolean {
  try {
    run();
    return false;
  } catch (error) {
    if (error instanceof Violation) return true;
    throw error;
  }
}

/** Whether a deletion is past the horizon while a member that is cut off has never heard of it. */
function passesSilentMember(Core: Build): boolean {
  return isViolated(() => {
    const { world, a, c } = trio(Core);
    putNow(a, 'k', 'v', { replicas: 3 });
    world.partition([c]);
    world.run(3_000);
    del(a, 'k', { replicas: 2 });
    world.run(30_000);
  });
}

/** Whether a write that is late, but not too late, comes below the horizon. */
function comesTooLate(Core: Build): boolean {
  return isViolated(() => {
    const { world, a } = trio(Core, { lateRetryMs: 4 * W });
    world.run(15_000);
    const stamp = stampAt(world, -3 * W);
    expect(code(putNow(a, 'k', 'late', { replicas: 3, stamp }))).toBe('ok');
  });
}

/** Whether a deletion that a dead host left on one disk only is past the horizon before the others have it. */
function passesDeadOrigin(Core: Build): boolean {
  return isViolated(() => {
    const { world, nodes, a, b, c } = trio(Core);
    putNow(a, 'k', 'v', { replicas: 3 });
    tune(world, { pullGraceMs: NEVER_MS });
    world.cut(a, c);
    world.run(3_000);
    expect(code(putNow(a, 'k', 'of the dead', { replicas: 2 }))).toBe('ok');
    expect(valueAt(c, 'k')).toBe('v');
    a.kill();
    b.input({ type: 'remove-member', id: 1, name: 'a' });
    nodes.shift();
    world.run(30_000);
  });
}

/** Whether a record that is older than the window of late writes is kept from a member that was cut off. */
function keepsLateEntryOut(Core: Build): boolean {
  return isViolated(() => {
    // Its own clock stands while it is cut off, and goes on before it asks.
    const { world, nodes, a, c } = trio(Core, { pullGraceMs: 3_000 });
    world.partition([c]);
    putNow(a, 'k', 'v', { replicas: 2 });
    world.run(3 * W);
    world.healAll();
    world.run(20_000);
    if (nodes.some((node) => valueAt(node, 'k') !== 'v')) throw new Violation('horizon', 'it is missing');
  });
}

/** Whether a deletion is past the horizon while a newcomer is still copying. */
function passesJoiner(Core: Build): boolean {
  return isViolated(() => {
    const { world, a } = trio(Core, { chunkRowsMax: 1, chunksInFlight: 1 });
    for (let i = 0; i < 60; i++) putNow(a, `k${10 + i}`, 'v', { replicas: 3 });
    const joiner = world.add({ name: 'd', join: ['a:1'] });
    joiner.start();
    world.runUntil(() => joiner.disk.image.rows.size > 5, 10_000);
    expect(joiner.ready).toBe(false);
    world.partition([joiner]);
    world.run(3_000);
    del(a, 'k10', { replicas: 3 });
    world.run(30_000);
  });
}

/** Whether what was deleted for good is served by a member that was restored from an older state. */
function comesBackWithBackup(Core: Build): boolean {
  const { world, a, c } = trio(Core);
  putNow(c, 'k', 'v', { replicas: 3 });
  world.run(1_000);
  const backup = c.disk.image.clone();
  del(a, 'k', { replicas: 3 });
  expect(world.runUntil(() => !a.disk.image.rows.has('k') && !c.disk.image.rows.has('k'), 60_000)).toBe(true);
  c.restore(backup);
  c.start();
  return isViolated(() => world.run(20_000)) || (c.ready && valueAt(c, 'k') === 'v');
}

describe('a planted bug is caught', () => {
  let copies: Copies;
  beforeAll(() => {
    copies = copyWithBugs(Object.values(HORIZON_MUTANTS));
  });
  afterAll(() => copies?.remove());

  test.each([
    ['that collects without a member that is silent', 'silent', passesSilentMember],
    ['that collects what a late retry may still contradict', 'window', comesTooLate],
    ['that forgets a dead origin that is not sealed', 'dead', passesDeadOrigin],
    ['that refuses late entries from peers', 'door', keepsLateEntryOut],
    ['that counts a joiner only after its snapshot', 'joiner', passesJoiner],
    ['that takes up again with a store that missed what was collected', 'fence', comesBackWithBackup],
  ] as const)(
    '%s',
    async (_name, bug, shows) => {
      expect(shows(ReplicaCore)).toBe(false);
      expect(shows(await copies.load(HORIZON_MUTANTS[bug]))).toBe(true);
    },
    120_000,
  );
});
