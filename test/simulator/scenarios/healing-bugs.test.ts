/** Planted bugs of healing, each in a scenario that the sound core stands, and that the bug fails. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ReplicaCore } from '../../../src/core/replica.js';
import { Violation } from '../faults.js';
import { HEALING_MUTANTS } from '../mutants.js';
import { type Copies, copyWithBugs } from '../mutate.js';
import { type Build, takesLateOne, trio } from './damage.js';
import { expectEqual, putNow, reset, valueAt } from './stage.js';

/**
 * Whether b, whose record of `k` is damaged, makes do with what c says of it: c was cut off when it was written, and has
 * an `older` one, or none.
 */
function trustsOneBehind(Core: Build, older: boolean): boolean {
  const { world, nodes, a, b, c } = trio(Core);
  if (older) putNow(a, 'k', 'older', { replicas: 3 });
  world.cut(c, a);
  world.cut(c, b);
  putNow(a, 'k', 'newer', { replicas: 2 });
  world.cut(a, b);
  world.oracle.diskDamaged(b);
  b.disk.image.flipBit('k', 300);
  reset(world, b, c);
  world.mend(b, c);
  world.run(3_000);
  b.core!.heal.damaged('k');
  b.input({ type: 'tick' });
  world.run(5_000);
  if (b.disk.image.lookup('k') !== 'damaged') return true;
  world.healAll();
  expectEqual(nodes);
  expect([valueAt(b, 'k'), valueAt(c, 'k')]).toEqual(['newer', 'newer']);
  return false;
}

/** By the scenario, or by the oracle before it. */
function isCaught(run: () => boolean): boolean {
  try {
    return run();
  } catch (error) {
    if (error instanceof Violation) return true;
    throw error;
  }
}

describe('a planted bug is caught', () => {
  let copies: Copies;
  beforeAll(() => {
    copies = copyWithBugs(Object.values(HEALING_MUTANTS));
  });
  afterAll(() => copies?.remove());

  test('that heals with an older record than the lost one', async () => {
    expect(trustsOneBehind(ReplicaCore, true)).toBe(false);
    const Core = await copies.load(HEALING_MUTANTS.older);
    expect(isCaught(() => trustsOneBehind(Core, true))).toBe(true);
  }, 60_000);

  test('that takes the absence of a record from a peer that is behind', async () => {
    expect(trustsOneBehind(ReplicaCore, false)).toBe(false);
    const Core = await copies.load(HEALING_MUTANTS.absent);
    expect(isCaught(() => trustsOneBehind(Core, false))).toBe(true);
  }, 60_000);

  test('that treats a damaged key as a missing one in a merge', async () => {
    expect(takesLateOne(ReplicaCore, 'pushed')).toBe(false);
    const Core = await copies.load(HEALING_MUTANTS.merge);
    expect(isCaught(() => takesLateOne(Core, 'pushed'))).toBe(true);
  }, 60_000);

  test('that raises its heads over a chunk that a lost record kept from being merged', async () => {
    expect(takesLateOne(ReplicaCore, 'caught up with')).toBe(false);
    const Core = await copies.load(HEALING_MUTANTS.chunk);
    expect(isCaught(() => takesLateOne(Core, 'caught up with'))).toBe(true);
  }, 60_000);
});
