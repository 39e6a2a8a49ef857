/** What named scenarios are written in: clusters, writes, and what must be equal in the end. */
import { expect } from 'vitest';
import {
  isTombstone,
  KIND_REGISTER,
  KIND_TOMBSTONE,
  stampHexOf,
  valueOffset,
} from '../../../src/core/entry.js';
import { stampBytes, stampToHex } from '../../../src/core/hlc.js';
import type { LocalOp } from '../../../src/core/io.js';
import type { CoreOptions } from '../../../src/options.js';
import { uncollected } from '../graves.js';
import type { NodeSettings, SimNode, WriteOptions, WriteResult } from '../node.js';
import { World, type WorldSettings } from '../world.js';

export const SEED = 20_26;

export interface Stage {
  readonly world: World;
  readonly nodes: SimNode[];
}

/** A formed cluster: the first founds, the others join it; all are ready. */
export function stage(
  names: readonly string[],
  settings: WorldSettings & { readonly node?: Omit<NodeSettings, 'name'> } = {},
): Stage {
  const world = new World(SEED, settings);
  const nodes = world.cluster(names, settings.node);
  const formed = (): boolean =>
    nodes.every((node) => node.ready && node.core!.members.active().length === names.length);
  expect(world.runUntil(formed, 10_000)).toBe(true);
  world.run(1_000);
  return { world, nodes };
}

/** Options of which a scenario may change some while it runs. */
export function tune(world: World, options: Partial<CoreOptions>): void {
  Object.assign(world.options, options);
}

export interface Pending {
  result: WriteResult | undefined;
}

export function put(
  node: SimNode,
  key: string,
  text: string,
  options: WriteOptions & { stamp?: string } = {},
): Pending {
  return writeOps(node, [putOp(key, text, options.stamp)], options);
}

export function del(node: SimNode, key: string, options: WriteOptions & { stamp?: string } = {}): Pending {
  const stamp = options.stamp === undefined ? {} : { stamp: options.stamp };
  return writeOps(node, [{ key, kind: KIND_TOMBSTONE, value: new Uint8Array(0), ...stamp }], options);
}

export function putOp(key: string, text: string, stamp?: string): LocalOp {
  return { key, kind: KIND_REGISTER, value: Buffer.from(text), ...(stamp === undefined ? {} : { stamp }) };
}

export function writeOps(node: SimNode, ops: readonly LocalOp[], options: WriteOptions): Pending {
  const pending: Pending = { result: undefined };
  const { replicas, fsync, timeoutMs } = options;
  node.write(
    ops,
    {
      ...(replicas === undefined ? {} : { replicas }),
      ...(fsync === undefined ? {} : { fsync }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    },
    (result) => {
      pending.result = result;
    },
  );
  return pending;
}

/** Writes and waits until it is answered. */
export function putNow(
  node: SimNode,
  key: string,
  text: string,
  options: WriteOptions & { stamp?: string } = {},
): WriteResult {
  const pending = put(node, key, text, options);
  node.world.runUntil(() => pending.result !== undefined, 10_000);
  return pending.result!;
}

export function code(pending: Pending | WriteResult | undefined): string | undefined {
  const result =
    pending !== undefined && 'result' in pending ? pending.result : (pending as WriteResult | undefined);
  return result === undefined ? undefined : result.ok ? 'ok' : result.code;
}

/** The value on the node's disk; 'deleted', or undefined when it has none. */
export function valueAt(node: SimNode, key: string): string | undefined {
  const row = node.disk.image.rows.get(key);
  if (row === undefined) return undefined;
  return isTombstone(row) ? 'deleted' : Buffer.from(row.subarray(valueOffset(row))).toString();
}

export function stampOn(node: SimNode, key: string): string | undefined {
  const row = node.disk.image.rows.get(key);
  return row === undefined ? undefined : stampHexOf(row);
}

/** A client's stamp, `ms` after (or before) true time. */
export function stampAt(world: World, ms: number, writer = 'c0ffee'): string {
  return stampToHex(stampBytes(world.wall() + ms, 0, writer.padStart(16, '0')));
}

function dumps(nodes: readonly SimNode[]): string[][] {
  return uncollected(nodes).map((rows) =>
    [...rows].map(([key, row]) => `${key}=${Buffer.from(row).toString('hex')}`).sort(),
  );
}

export function areEqual(nodes: readonly SimNode[]): boolean {
  const [first, ...others] = dumps(nodes).map((dump) => JSON.stringify(dump));
  return (
    others.every((dump) => dump === first) &&
    nodes.every((node) => node.ready && node.core!.queue.last() === undefined)
  );
}

/** Equal entries, dots included; equal vectors, which the disk bears out. */
export function expectEqual(nodes: readonly SimNode[], withinMs = 20_000): void {
  const { world } = nodes[0]!;
  const hash = (node: SimNode): string => node.core!.written.hash;
  world.runUntil(() => areEqual(nodes) && nodes.every((node) => hash(node) === hash(nodes[0]!)), withinMs);
  const [first, ...others] = dumps(nodes);
  for (const dump of others) expect(dump).toEqual(first);
  for (const node of nodes) {
    expect(hash(node)).toBe(hash(nodes[0]!));
    expect(node.disk.image.inconsistency()).toBeUndefined();
    world.oracle.checkAllHeads(node);
  }
}

/** Codes in the node's health. */
export function issuesOf(node: SimNode): string[] {
  return node.core!.issues().map((issue) => issue.code);
}

export function linkedNames(node: SimNode): string[] {
  return node
    .core!.linked()
    .map((peer) => peer.name)
    .sort();
}

/** Breaks every link between the two, as a reset would. */
export function reset(world: World, a: SimNode, b: SimNode): void {
  for (const wire of [...a.wires.values()])
    if (wire.directions.some(({ to }) => to === b)) world.network.breakWire(wire);
}
