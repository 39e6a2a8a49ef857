import { describe, expect, test } from 'vitest';
import type { SimNode } from '../node.js';
import { expectEqual, put, type Stage, stage, valueAt } from './stage.js';

const ALONE = { replicas: 1 };
/** What an offer waits for, and what it then takes to fetch; well under what the vectors take. */
const FETCHED_MS = 200;

/** Six members, of which each keeps two or three links; an origin's trees have formed. */
function sparse(): Stage {
  const made = stage(['a', 'b', 'c', 'd', 'e', 'f'], {
    rates: { delayMs: 2, jitterMs: 1 },
    options: { fullMeshMax: 2, meshLinks: 3 },
  });
  const { world, nodes } = made;
  world.run(20_000);
  for (let i = 0; i < 5; i++) {
    put(nodes[0]!, `first${i}`, 'v', ALONE);
    world.run(2_000);
  }
  return made;
}

const linkOf = (node: SimNode, other: SimNode): boolean =>
  node.core!.linked().some((peer) => peer.name === other.name);

describe('relays in a mesh that is not full', () => {
  test('a frame that is held up on one link is fetched from whoever offers it, long before the vectors bring it', () => {
    const { world, nodes } = sparse();
    const [writer] = nodes as [SimNode];
    let held = 0;
    for (const from of nodes)
      for (const to of nodes) {
        if (from === to || !linkOf(from, to) || to === writer) continue;
        const key = `${from.name}${to.name}`;
        world.network.path(from, to).extraDelayMs = 1_000;
        put(writer, key, 'v', ALONE);
        world.run(FETCHED_MS);
        expect(nodes.filter((node) => valueAt(node, key) !== 'v').map(({ name }) => name)).toEqual([]);
        world.network.path(from, to).extraDelayMs = 0;
        world.run(2_000);
        held += 1;
      }
    const fetched = nodes.reduce((sum, node) => sum + node.core!.counters.framesFetched, 0);
    expect([held > 8, fetched > 3, nodes.every((node) => node.core!.counters.sessionsFailed === 0)]).toEqual([
      true,
      true,
      true,
    ]);
    expectEqual(nodes);
  });

  test('a frame that only an offer named is not taken for held: what its holders lose comes another way', () => {
    const { world, nodes } = sparse();
    const [writer, ...others] = nodes as [SimNode, ...SimNode[]];
    for (let i = 0; i < 20; i++) {
      const victim = others[i % others.length]!;
      put(writer, `k${i}`, 'v', ALONE);
      world.run(8);
      victim.kill();
      world.run(300);
      victim.start();
      world.run(3_000);
    }
    expectEqual(nodes, 60_000);
  });
});

test('a peer that takes less than is written is spared what does not fit, and gets it once it takes more', () => {
  const { world, nodes } = stage(['a', 'b', 'c'], { options: { linkQueueBytesMax: 20_000 } });
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  world.network.path(a, b).bandwidth = 2;
  world.network.path(c, b).bandwidth = 2;
  for (let i = 0; i < 60; i++) {
    put(a, `k${i}`, 'x'.repeat(2_000), ALONE);
    world.run(20);
  }
  world.run(500);
  const [wire] = [...a.wires.values()].filter((each) => each.direction(a).to === b);
  expect(a.core!.linked().find((peer) => peer.name === 'b')?.congested).toBe(true);
  expect(wire!.direction(a).queuedBytes).toBeLessThan(2 * 20_000);
  expect([valueAt(c, 'k59') !== undefined, valueAt(b, 'k59') !== undefined]).toEqual([true, false]);
  world.network.path(a, b).bandwidth = undefined;
  world.network.path(c, b).bandwidth = undefined;
  expectEqual(nodes, 60_000);
});
