/** Planted bugs of collection, each in a scenario that the sound core stands, and that the bug fails. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ReplicaCore } from '../../../src/core/replica.js';
import { Violation } from '../faults.js';
import { COLLECTION_MUTANTS } from '../mutants.js';
import { type Copies, copyWithBugs } from '../mutate.js';
import { ALL, counters, deleted, older, pushAgain, swept, trio } from './collection-stage.js';
import { put, putOp, writeOps } from './stage.js';

type Build = typeof ReplicaCore;

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

/** Whether a record comes back when the frame that once brought it comes once more. */
function comesBackByPush(Core: Build): boolean {
  return isViolated(() => {
    const { world, nodes, a, b } = trio({ Core });
    const row = older(world, a, 'k');
    swept(world, nodes);
    pushAgain(b, a, 'k', row);
    world.run(1_000);
  });
}

/** Whether a sweep takes what was written since it read the key. */
function takesNewer(Core: Build): boolean {
  return isViolated(() => {
    const { world, nodes, a } = trio({ Core, options: { chunkRowsMax: 1 } });
    // So many that what is written after the first was read lands before the last one is.
    deleted(world, a, ['a', ...Array.from({ length: 40 }, (_, i) => `b${i}`)]);
    world.run(3_000);
    let written = false;
    world.afterInput = () => {
      if (written || a.core!.collection.isSwept || ![...a.scans.values()].some(({ at }) => at > 0)) return;
      written = true;
      world.scheduler.after(0, () => put(a, 'a', 'anew', { replicas: 1 }));
    };
    swept(world, nodes);
    expect(written).toBe(true);
  });
}

/** Whether members that have not swept equally far take each other for damaged, or give each other things back. */
function areConfused(Core: Build): boolean {
  const { world, nodes, a } = trio({ Core });
  deleted(world, a, ['k', 'l']);
  writeOps(a, [{ ...putOp('short', 'lived'), ttlMs: 500 }], ALL);
  world.run(3_000);
  swept(world, [a]);
  world.run(60_000);
  return nodes.some((node) => {
    const { digestMismatches, recordsRepaired, recordsSetAside } = counters(node);
    return digestMismatches + recordsRepaired + recordsSetAside > 0;
  });
}

/** Whether what one member has collected comes back to it from those that have not. */
function isGivenBack(Core: Build): boolean {
  const { world, a } = trio({ Core });
  deleted(world, a, ['k', 'l']);
  world.run(3_000);
  swept(world, [a]);
  let comesBack = false;
  world.afterInput = () => {
    comesBack ||= a.disk.image.rows.size > 0;
  };
  return isViolated(() => world.run(10_000)) || comesBack;
}

describe('a planted bug is caught', () => {
  let copies: Copies;
  beforeAll(() => {
    copies = copyWithBugs(Object.values(COLLECTION_MUTANTS));
  });
  afterAll(() => copies?.remove());

  test.each([
    ['that takes an older record of a collected key for a new one', 'forgetful', comesBackByPush],
    ['that collects what was written since', 'hasty', takesNewer],
    ['that compares what may be collected with those who collected it', 'strict', areConfused],
    ['that mends by union what was collected', 'union', isGivenBack],
    ['that sums expiring entries as live ones', 'live', areConfused],
  ] as const)(
    '%s',
    async (_name, bug, shows) => {
      expect(shows(ReplicaCore)).toBe(false);
      expect(shows(await copies.load(COLLECTION_MUTANTS[bug]))).toBe(true);
    },
    60_000,
  );
});
