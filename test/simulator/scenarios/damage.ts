/** What scenarios of damaged records share with those of the bugs planted in their healing. */
import type { ReplicaCore } from '../../../src/core/replica.js';
import type { SimNode } from '../node.js';
import { expectEqual, putNow, reset, type Stage, stage, stampAt, valueAt } from './stage.js';

export type Build = typeof ReplicaCore;

const ALONE = { replicas: 1 };

export function trio(Core: Build): Stage & { a: SimNode; b: SimNode; c: SimNode } {
  const { world, nodes } = stage(['a', 'b', 'c'], { Core });
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  return { world, nodes, a, b, c };
}

/** Whether b, whose record of `k` is damaged, takes a late older one for news, or a head that covers it. */
export function takesLateOne(Core: Build, how: 'pushed' | 'caught up with'): boolean {
  const { world, nodes, a, b, c } = trio(Core);
  const late = stampAt(world, -500);
  world.cut(c, a);
  world.cut(c, b);
  putNow(a, 'k', 'lost', { replicas: 2 });
  world.cut(a, b);
  if (how === 'caught up with') putNow(c, 'k', 'older', { ...ALONE, stamp: late });
  world.oracle.diskDamaged(b);
  b.disk.image.flipBit('k', 300);
  const { origin } = c.core!.identity;
  const before = b.disk.image.heads.get(origin);
  reset(world, b, c);
  world.mend(b, c);
  world.run(3_000);
  if (how === 'pushed') putNow(c, 'k', 'older', { ...ALONE, stamp: late });
  world.run(5_000);
  if (b.disk.image.lookup('k') !== 'damaged' || b.disk.image.heads.get(origin) !== before) return true;
  world.healAll();
  expectEqual(nodes);
  return valueAt(b, 'k') !== 'lost';
}
