/** Copying everything: by ranges, from several sources, through crashes, over bad lines, beside live traffic. */
import { describe, expect, test } from 'vitest';
import { decodeMeta } from '../../../src/core/core.js';
import type { CoreOptions } from '../../../src/options.js';
import type { SimNode } from '../node.js';
import type { World } from '../world.js';
import { code, expectEqual, put, putNow, reset, type Stage, stage, valueAt } from './stage.js';

const SMALL: Partial<CoreOptions> = { bootstrapRangeBytes: 2_000, chunkRowsMax: 4, chunksInFlight: 2 };
const key = (i: number): string => `k${String(i).padStart(5, '0')}`;

/** A cluster whose members all hold `rows` entries. */
function filled(
  names: readonly string[],
  rows: number,
  options: Partial<CoreOptions>,
  valueBytes = 20,
): Stage {
  const made = stage(names, { options });
  for (let i = 0; i < rows; i += 50) {
    for (let j = i; j < Math.min(rows, i + 50); j++) put(made.nodes[0]!, key(j), 'x'.repeat(valueBytes));
    made.world.run(20);
  }
  expectEqual(made.nodes);
  expect(made.nodes[0]!.disk.image.rows.size).toBe(rows);
  return made;
}

/** Like `runUntil`, to the millisecond. */
function runTo(world: World, holds: () => boolean, msMax = 20_000): boolean {
  const until = world.scheduler.now + msMax;
  while (!holds() && world.scheduler.now < until) world.run(1);
  return holds();
}

const addressesOf = (nodes: readonly SimNode[]): string[] => nodes.map((node) => node.address);
const bootstrapOf = (node: SimNode) => node.core!.bootstrap!;

describe('a bootstrap from several sources', () => {
  test('copies from all of them at once, and nothing twice', () => {
    const { world, nodes } = filled(['a', 'b', 'c'], 400, SMALL);
    const d = world.add({ name: 'd', join: addressesOf(nodes) });
    let most = 0;
    world.afterInput = () => {
      most = Math.max(most, nodes.filter((node) => node.scans.size > 0).length);
    };
    d.start();
    expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
    expect(most).toBe(3);
    const { sources, entries, ranges, rangesDone, totalEntries } = bootstrapOf(d);
    expect(sources.map(({ name }) => name).sort()).toEqual(['a', 'b', 'c']);
    expect(Math.min(...sources.map((source) => source.entries))).toBeGreaterThan(50);
    expect([entries, totalEntries]).toEqual([400, 400]);
    expect(ranges).toBeGreaterThan(5);
    expect(rangesDone).toBe(ranges);
    expect([...d.disk.image.meta.keys()].filter((name) => name.startsWith('bootstrap'))).toEqual([]);
    expectEqual([...nodes, d]);
  });

  test('is divided only where there is much to copy, and runs at one peer when there is no other', () => {
    const { world, nodes } = filled(['a'], 100, {});
    const b = world.add({ name: 'b', join: addressesOf(nodes) });
    b.start();
    expect(world.runUntil(() => b.ready, 10_000)).toBe(true);
    expect(bootstrapOf(b)).toMatchObject({ ranges: 1, entries: 100 });
    expect(b.core!.counters.sessionsPulled).toBe(1);
  });

  test('that is killed again and again fetches only what was on its way once more', () => {
    const { world, nodes } = filled(['a', 'b', 'c'], 400, SMALL);
    const d = world.add({ name: 'd', join: addressesOf(nodes) });
    let fetched = 0;
    let kills = 0;
    d.start();
    for (const share of [0.1, 0.3, 0.5, 0.6, 0.8, 0.95]) {
      runTo(world, () => d.disk.image.rows.size >= 400 * share);
      world.run(world.random.between(0, 2));
      if (d.ready) break;
      fetched += bootstrapOf(d).entries;
      const onDisk = d.disk.image.rows.size;
      d.kill();
      kills += 1;
      d.start();
      runTo(world, () => d.core!.bootstrap !== undefined);
      // What its disk says it has copied is on its disk.
      expect(bootstrapOf(d).resumedEntries).toBeLessThanOrEqual(d.disk.image.rows.size);
      expect(bootstrapOf(d).resumedEntries).toBeGreaterThan(onDisk - 3 * 4 * 3);
    }
    expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
    fetched += bootstrapOf(d).entries;
    expect(kills).toBe(6);
    // Per kill and source: two chunks of four on the way, and two that were not written yet.
    expect(fetched).toBeLessThanOrEqual(400 + kills * 3 * 4 * 4);
    expectEqual([...nodes, d]);
  });

  test('goes on while its sources die and come back one after the other', () => {
    const { world, nodes } = filled(['a', 'b', 'c'], 400, SMALL);
    const d = world.add({ name: 'd', join: addressesOf(nodes) });
    d.start();
    for (const [i, share] of [0.1, 0.3, 0.5, 0.7].entries()) {
      runTo(world, () => d.disk.image.rows.size >= 400 * share);
      expect(d.ready).toBe(false);
      const source = nodes[i % 3]!;
      source.kill();
      expect(code(putNow(d, 'early', 'v'))).toBe('NOT_READY');
      world.run(20);
      source.start();
    }
    expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
    expect(bootstrapOf(d).entries).toBeLessThan(400 * 1.2);
    expectEqual([...nodes, d]);
  });

  test('resumes with its plan and its heads after the whole cluster was restarted at once', () => {
    const { world, nodes } = filled(['a', 'b', 'c'], 300, SMALL);
    const d = world.add({ name: 'd', join: addressesOf(nodes) });
    d.start();
    runTo(world, () => d.disk.image.rows.size >= 150);
    const had = d.disk.image.rows.size;
    for (const node of [...nodes, d]) node.kill();
    for (const node of [...nodes, d]) node.start();
    expect(world.runUntil(() => d.ready, 20_000)).toBe(true);
    expect(bootstrapOf(d).entries).toBeLessThanOrEqual(300 - had + 3 * 4 * 4);
    expectEqual([...nodes, d]);
  });

  test('does not count what only one of its snapshots held, and fetches it afterwards', () => {
    const { world, nodes } = filled(['a', 'b'], 200, { ...SMALL, pullGraceMs: 60_000 });
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b);
    world.run(1_000);
    // Only a has these; b answers for half of the ranges.
    for (let i = 0; i < 200; i += 10) put(a, key(i), 'newer', { replicas: 1 });
    world.run(100);
    const c = world.add({ name: 'c', join: addressesOf(nodes) });
    c.start();
    expect(world.runUntil(() => c.ready, 20_000)).toBe(true);
    expect(bootstrapOf(c).sources.length).toBe(2);
    world.oracle.checkAllHeads(c);
    const head = c.disk.image.heads.get(a.core!.identity.origin) ?? 0;
    expect(head).toBe(b.disk.image.heads.get(a.core!.identity.origin));
    Object.assign(world.options, { pullGraceMs: 50 });
    world.healAll();
    expectEqual([a, b, c]);
    expect(valueAt(c, key(190))).toBe('newer');
  });

  test('takes a snapshot only of a source whose disk holds the row of the joiner', () => {
    const { world, nodes } = filled(['a', 'b', 'c'], 200, SMALL);
    for (const node of nodes) node.diskFaults.slowMs = 50;
    const d = world.add({ name: 'd', join: addressesOf(nodes) });
    let opened = 0;
    world.afterInput = (node) => {
      if (node === d || node.scans.size === 0) return;
      opened += 1;
      const table = decodeMeta<{ rows: { origin: string }[] }>(node.disk.image.meta.get('members'));
      expect(table!.rows.map((row) => row.origin)).toContain(d.core!.identity.origin);
    };
    d.start();
    expect(world.runUntil(() => d.ready, 60_000)).toBe(true);
    expect(opened).toBeGreaterThan(0);
  });

  test('takes the ranges of a slow source away from it', () => {
    const { world, nodes } = filled(['a', 'b'], 400, { ...SMALL, bootstrapRangeBytes: 8_000 }, 200);
    const [a, b] = nodes as [SimNode, SimNode];
    const c = world.add({ name: 'c', join: addressesOf(nodes) });
    c.start();
    // What b says of its standing is not to come when a has brought everything.
    expect(world.runUntil(() => c.core!.bootstrap?.sources.length === 2, 5_000)).toBe(true);
    Object.assign(world.network.path(b, c), { bandwidth: 0.5 });
    expect(world.runUntil(() => c.ready, 60_000)).toBe(true);
    // Alone, b would need three minutes for all, and a quarter of a minute for one range.
    expect(world.scheduler.now).toBeLessThan(20_000);
    const bySource = new Map(bootstrapOf(c).sources.map((source) => [source.name, source.entries]));
    expect(bySource.get('a')).toBeGreaterThan(300);
    expect(bySource.get('b')).toBeGreaterThan(0);
    expectEqual([a, b, c], 60_000);
  });

  test('gives up no session on a line so slow that one chunk takes longer than a session may stall', () => {
    const { world, nodes } = filled(['a', 'b', 'c'], 300, { bootstrapRangeBytes: 200_000 }, 2_000);
    const d = world.add({ name: 'd', join: addressesOf(nodes) });
    for (const node of nodes)
      for (const path of [world.network.path(node, d), world.network.path(d, node)])
        Object.assign(path, { bandwidth: 10, extraDelayMs: 300 });
    d.start();
    expect(world.runUntil(() => d.ready, 180_000)).toBe(true);
    expect(d.core!.counters.sessionsFailed).toBe(0);
    expect(bootstrapOf(d).entries).toBe(300);
    expectEqual([...nodes, d], 60_000);
  });
});

describe('what a bootstrap takes from others', () => {
  test('stays under its limit of bytes per second, without a session given up', () => {
    const options = { ...SMALL, bootstrapRangeBytes: 10_000, bootstrapBytesPerSecond: 5_000 };
    const { world, nodes } = filled(['a', 'b'], 400, options, 200);
    const c = world.add({ name: 'c', join: addressesOf(nodes) });
    c.start();
    world.runUntil(() => c.core!.bootstrap !== undefined, 5_000);
    const began = world.scheduler.now;
    let most = 0;
    world.afterInput = () => {
      const { bytes } = bootstrapOf(c);
      // Two sources with two chunks of four on their way each may come at once.
      most = Math.max(most, bytes - (5_000 * (world.scheduler.now - began)) / 1_000);
    };
    expect(world.runUntil(() => c.ready, 120_000)).toBe(true);
    const { bytes } = bootstrapOf(c);
    expect(bytes).toBeGreaterThan(80_000);
    expect(most).toBeLessThan(2 * 3 * 4 * 300);
    expect(world.scheduler.now - began).toBeLessThan((bytes / 5_000) * 1_000 * 1.3);
    expect(c.core!.counters.sessionsFailed).toBe(0);
    expectEqual([a(nodes), c]);
  });

  test('is told by an estimate, which closes in on what it was', () => {
    const options = { ...SMALL, bootstrapBytesPerSecond: 5_000 };
    const { world, nodes } = filled(['a'], 400, options, 100);
    const b = world.add({ name: 'b', join: addressesOf(nodes) });
    b.start();
    world.runUntil(() => b.core!.bootstrap !== undefined && bootstrapOf(b).bytes > 20_000, 60_000);
    const { totalBytes, bytes, rate } = bootstrapOf(b);
    const perSecond = rate.perSecond(b.now().mono);
    expect(perSecond).toBeGreaterThan(3_000);
    expect(perSecond).toBeLessThan(8_000);
    const left = ((totalBytes - bytes) / perSecond) * 1_000;
    const at = world.scheduler.now;
    expect(world.runUntil(() => b.ready, 60_000)).toBe(true);
    expect((world.scheduler.now - at) / left).toBeGreaterThan(0.7);
    expect((world.scheduler.now - at) / left).toBeLessThan(1.4);
  });
});

const a = (nodes: readonly SimNode[]): SimNode => nodes[0]!;

describe('live traffic comes first', () => {
  test('while a large difference is repaired a write waits only for the few batches before it', () => {
    const { world, nodes } = stage(['a', 'b'], { diskMs: 4 });
    const [a, b] = nodes as [SimNode, SimNode];
    world.cut(a, b);
    world.run(5_000);
    for (let i = 0; i < 20_000; i += 500) {
      a.writeAll(
        Array.from({ length: 500 }, (_, j) => [
          { key: key(i + j), kind: 1, value: Buffer.from('x'.repeat(100)) },
        ]),
        { replicas: 1, timeoutMs: 60_000 },
      );
      world.run(50);
    }
    world.run(5_000);
    expect(a.disk.image.rows.size).toBe(20_000);
    world.mend(a, b);
    runTo(world, () => b.disk.image.rows.size > 1_000);
    const waits: number[] = [];
    let batches = 0;
    let waiting: (() => void) | undefined;
    let written = 0;
    world.afterInput = (node) => {
      if (node !== b) return;
      const count = b.disk.image.run.batches;
      if (count > batches) {
        batches = count;
        waiting?.();
      }
    };
    const origin = a.core!.identity.origin;
    const isBehind = (): boolean => b.core!.written.head(origin) < a.core!.written.head(origin);
    for (let i = 0; isBehind() && i < 200; i++) {
      const from = b.disk.image.run.batches;
      const pending = put(b, `live${i}`, 'v', { replicas: 1 });
      waiting = () => {
        if (valueAt(b, `live${i}`) === undefined) return;
        waits.push(b.disk.image.run.batches - from);
        waiting = undefined;
      };
      runTo(world, () => pending.result !== undefined);
      written += code(pending) === 'ok' ? 1 : 0;
    }
    expect(written).toBe(waits.length);
    expect(waits.length).toBeGreaterThan(5);
    // The batch in flight, its own, and those of four chunks.
    expect(Math.max(...waits)).toBeLessThanOrEqual(7);
    expectEqual([a, b]);
  });

  test('a source that is written to faster than its disk still serves, a chunk now and then', () => {
    const { world, nodes } = filled(['a'], 200, { ...SMALL, commitBytesMax: 2_000, commitRowsMax: 16 });
    const source = nodes[0]!;
    source.diskFaults.slowMs = 20;
    let i = 0;
    const load = (): void => {
      while (source.core!.queue.bytes < 10_000)
        source.write([{ key: `live${i++ % 50}`, kind: 1, value: Buffer.from('x'.repeat(300)) }], {
          replicas: 1,
        });
    };
    const b = world.add({ name: 'b', join: addressesOf(nodes) });
    b.start();
    let queued = 0;
    for (let t = 0; t < 4_000 && !b.ready; t++) {
      load();
      queued = Math.max(queued, source.core!.queue.bytes);
      world.run(10);
    }
    expect(queued).toBeGreaterThan(4_000);
    expect(b.ready).toBe(true);
    expectEqual([source, b], 60_000);
  });
});

test('a cluster that is restarted as a whole comes together again, without dialing in step', () => {
  const { world, nodes } = filled(['a', 'b', 'c', 'd', 'e'], 50, {});
  for (const node of nodes) node.kill();
  world.run(1_000);
  for (const node of nodes) node.start();
  for (const node of nodes) for (const other of nodes) if (node !== other) reset(world, node, other);
  expect(world.runUntil(() => nodes.every((node) => node.core!.linked().length === 4), 10_000)).toBe(true);
  expect(code(putNow(nodes[4]!, 'k', 'v', { replicas: 5 }))).toBe('ok');
  expectEqual(nodes);
});
