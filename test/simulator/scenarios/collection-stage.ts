/** What the scenarios of collection share: members that collect when a scenario says so, rather than as soon as they may. */
import { expect } from 'vitest';
import type { Counters } from '../../../src/core/core.js';
import type { Row } from '../../../src/core/types.js';
import type { SimNode, WriteOptions } from '../node.js';
import type { World } from '../world.js';
import { del, putNow, type Stage, stage } from './stage.js';

/** Cuts lie a second apart. */
export const LATE_RETRY_MS = 4_000;
export const ALL = { replicas: 3 };

export interface Trio extends Stage {
  readonly a: SimNode;
  readonly b: SimNode;
  readonly c: SimNode;
}

export function trio(options: Parameters<typeof stage>[1] = {}): Trio {
  const { world, nodes } = stage(['a', 'b', 'c'], {
    ...options,
    options: { lateRetryMs: LATE_RETRY_MS, maxClockDriftMs: 1_000, ...options.options },
  });
  const [a, b, c] = nodes as [SimNode, SimNode, SimNode];
  holdBack(nodes);
  return { world, nodes, a, b, c };
}

/** Keeps them from collecting what is over after then, ms, though their horizon has passed it, until they are restarted. */
export function holdBack(nodes: readonly SimNode[], ms = 0): void {
  for (const { core } of nodes) {
    Object.defineProperty(core!.horizon, 'collectable', { configurable: true, get: () => ms });
    core!.collection.follow = () => undefined;
  }
}

/** Written and deleted at all members. */
export function deleted(
  world: World,
  node: SimNode,
  keys: readonly string[],
  options: WriteOptions = ALL,
): void {
  for (const key of keys) putNow(node, key, `value of ${key}`, options);
  for (const key of keys) del(node, key, options);
  expect(world.runUntil(() => node.open.size === 0, 10_000)).toBe(true);
}

/** Every host's word that its copy is as the others have it, given since now. */
export function proved(world: World, nodes: readonly SimNode[]): boolean {
  const since = new Map(nodes.map((node) => [node, node.now().mono]));
  return world.runUntil(
    () => nodes.every((node) => (node.core!.provedAt ?? Number.NEGATIVE_INFINITY) > since.get(node)!),
    60_000,
  );
}

/** Those that were held back collect no more than they may, but as far as a member with the same vector does. */
export function letFollow(nodes: readonly SimNode[]): void {
  for (const { core } of nodes) Reflect.deleteProperty(core!.collection, 'follow');
}

/** These collect what was over up to then, ms, once they may. */
export function swept(world: World, nodes: readonly SimNode[], ms = world.wall()): void {
  const mayCollect = ({ core }: SimNode): boolean => core!.horizon.asOf - LATE_RETRY_MS >= ms;
  expect(world.runUntil(() => nodes.every(mayCollect), 100_000)).toBe(true);
  holdBack(nodes, ms);
  const isSwept = ({ core }: SimNode): boolean =>
    core!.collection.begun > ms - LATE_RETRY_MS / 2 &&
    core!.collection.isSwept &&
    core!.queue.last() === undefined;
  expect(world.runUntil(() => nodes.every(isSwept), 20_000)).toBe(true);
}

export const counters = (node: SimNode): Counters => node.core!.counters;

/** An older record of the key, as it was once on the disk of `node`, and what was written since. */
export function older(world: World, node: SimNode, key: string): Row {
  putNow(node, key, 'old', ALL);
  const row = node.disk.image.rows.get(key)!;
  del(node, key, ALL);
  expect(world.runUntil(() => node.open.size === 0, 10_000)).toBe(true);
  world.run(3_000);
  return row;
}

/** The frame that once brought it comes once more. */
export function pushAgain(to: SimNode, from: SimNode, key: string, row: Row): void {
  const [link] = [...to.wires].find(([, { directions }]) => directions.some((way) => way.to === from))!;
  const origin = from.core!.identity.origin;
  const message = { type: 'push', frame: 77, origin, from: 0, to: 1, keys: [key], rows: [row] } as const;
  to.input({ type: 'message', link, message });
}
