/** Planted bugs of the digest and of mending, each in a scenario that the sound core stands, and that it fails. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DigestSum } from '../../../src/core/digest-sum.js';
import { dotOf } from '../../../src/core/entry.js';
import { digestEntry } from '../../../src/core/entry-hash.js';
import { ReplicaCore } from '../../../src/core/replica.js';
import { DIGEST_MUTANTS } from '../mutants.js';
import { type Copies, copyWithBugs } from '../mutate.js';
import type { SimNode } from '../node.js';
import { expectEqual, putNow, stage, stampAt, valueAt } from './stage.js';

/** Whether two members that took one retried write each hold entries with one digest. */
function sameDigestOfTwoDots(Core: typeof ReplicaCore): boolean {
  const { world, nodes } = stage(['a', 'b'], { Core });
  const [a, b] = nodes as [SimNode, SimNode];
  putNow(a, 'shifts the numbers of a', 'v');
  expectEqual(nodes);
  world.cut(a, b);
  const stamp = stampAt(world, 0);
  for (const node of nodes) putNow(node, 'k', 'v', { stamp, replicas: 1 });
  return a.core!.digest.root === b.core!.digest.root;
}

/** Whether a record whose deletion was collected at two of three members, and that the third shows again, is spread. */
function resurrects(Core: typeof ReplicaCore): boolean {
  const { world, nodes } = stage(['a', 'b', 'c'], { Core });
  putNow(nodes[0]!, 'k', 'old', { replicas: 3 });
  putNow(nodes[0]!, 'other', 'v', { replicas: 3 });
  expectEqual(nodes);
  for (const node of nodes) node.kill();
  for (const { disk } of nodes.slice(0, 2)) {
    const { image } = disk;
    const { origin, seq } = dotOf(image.rows.get('k')!);
    image.rows.delete('k');
    image.dots.delete(`${origin}:${seq}`);
    // What the store says of itself, by the hash that this build has.
    image.meta.delete('digest');
  }
  for (const node of nodes) node.start();
  world.run(60_000);
  return nodes.slice(0, 2).some((node) => valueAt(node, 'k') !== undefined);
}

describe('a planted bug is caught', () => {
  let copies: Copies;
  beforeAll(() => {
    copies = copyWithBugs(Object.values(DIGEST_MUTANTS));
  });
  afterAll(() => copies?.remove());

  test('that hashes the dot along with the entry', async () => {
    expect(sameDigestOfTwoDots(ReplicaCore)).toBe(true);
    expect(sameDigestOfTwoDots(await copies.load(DIGEST_MUTANTS.dot))).toBe(false);
  }, 60_000);

  test('that mends by union, whatever the others say', async () => {
    expect(resurrects(ReplicaCore)).toBe(false);
    expect(resurrects(await copies.load(DIGEST_MUTANTS.union))).toBe(true);
  }, 60_000);
});

test('what the test takes for the digest of a store is what a node takes for it', () => {
  const { nodes } = stage(['a']);
  const a = nodes[0]!;
  putNow(a, 'k', 'v');
  const sum = new DigestSum();
  for (const [key, row] of a.disk.image.rows) sum.add(digestEntry(key, row));
  expect(a.core!.digest.root).toBe(sum.hex);
});
