/**
 * What the oracle knows of entries that were collected: a key that is not there is as good as the newest of its
 * entries that was. Whoever collects one must hold it, must be told to by its horizon, and all members must be past
 * it; and nothing older of its key may ever be written again, anywhere.
 */
import { decodeMeta } from '../../src/core/core.js';
import { compareEntries, dotOf, endOf, originOf, stampHexOf } from '../../src/core/entry.js';
import { storedCollected } from '../../src/core/horizon.js';
import type { Row, StampHex, StoreBatch } from '../../src/core/types.js';
import type { Image } from './disk.js';
import { Violation } from './faults.js';
import { isReadyOnDisk, originOnDisk } from './inject.js';
import type { SimNode } from './node.js';
import { show } from './oracle.js';
import type { World } from './world.js';

/** Up to when the node may have collected entries, as its disk has it. */
export function cutOf(node: SimNode): number {
  return decodeMeta<{ begun: number }>(node.disk.image.meta.get('collected'))?.begun ?? 0;
}

/** What the disks hold but for what one of the nodes may have collected, and another not yet. */
export function uncollected(nodes: readonly SimNode[]): ReadonlyMap<string, Row>[] {
  const cut = Math.max(...nodes.map(cutOf));
  return nodes.map(
    ({ disk }) =>
      new Map([...disk.image.rows].filter(([, row]) => (endOf(row) ?? Number.POSITIVE_INFINITY) > cut)),
  );
}

/** Its heads cover it, or it says that as much was collected there, or where it was copied from. */
function isKnownBy({ heads, meta }: Image, grave: Row): boolean {
  const { origin, seq } = dotOf(grave);
  return (heads.get(origin) ?? 0) >= seq || storedCollected(meta) >= endOf(grave)!;
}

export class Graves {
  readonly #world: World;
  readonly #newest = new Map<string, Row>();
  collected = 0;

  constructor(world: World) {
    this.#world = world;
  }

  /** Whether nothing under the key says as much as this record, or more. */
  covers(key: string, row: Row): boolean {
    const grave = this.#newest.get(key);
    return grave !== undefined && compareEntries(grave, row) >= 0;
  }

  coversStamp(key: string, stamp: StampHex): boolean {
    const grave = this.#newest.get(key);
    return grave !== undefined && stampHexOf(grave) >= stamp;
  }

  /** Before the batch is on the node's disk. */
  check(node: SimNode, batch: StoreBatch): void {
    for (const [key, { row }] of batch.rows) {
      const grave = this.#newest.get(key);
      if (grave === undefined || compareEntries(row, grave) >= 0) continue;
      if (!this.#isKnown(key, grave)) this.#newest.delete(key);
      else
        throw new Violation(
          'garbage',
          `${node.name} writes ${key} ${show(row)}, older than ${show(grave)}, which was collected`,
        );
    }
    if (batch.collects !== true) return;
    for (const [key, row] of batch.removals ?? []) this.#collect(node, key, row);
  }

  /** Whether the disk is as good as one that holds, of a collected entry, as much as this stamp says. */
  isKnownTo(image: Image, key: string, stamp: StampHex): boolean {
    return this.coversStamp(key, stamp) && isKnownBy(image, this.#newest.get(key)!);
  }

  /**
   * Whether any disk is left that knows of it. When all have lost theirs (a clone that had it in the place of its
   * original, and the only other member), nobody can fence off what is older.
   */
  #isKnown(key: string, grave: Row): boolean {
    return this.#world.nodes.some(({ disk: { image } }) => {
      const held = image.rows.get(key);
      return (held !== undefined && compareEntries(held, grave) >= 0) || isKnownBy(image, grave);
    });
  }

  #collect(node: SimNode, key: string, row: Row): void {
    const { image } = node.disk;
    const held = image.rows.get(key);
    if (held === undefined || Buffer.compare(held, row) !== 0)
      throw new Violation(
        'garbage',
        `${node.name} collects ${key} ${show(row)}, but holds ${held === undefined ? 'nothing' : show(held)}`,
      );
    const end = endOf(row);
    if (end === undefined || end > Math.max(node.core!.horizon.collectable, cutOf(node)))
      throw new Violation('garbage', `${node.name} collects ${key} ${show(row)} before its time`);
    const { origin, seq } = dotOf(row);
    for (const other of this.#world.nodes) {
      const member = originOnDisk(other);
      if (member === undefined || !node.core!.members.isMember(member)) continue;
      // A backup in its place: it is fenced off when it meets the others.
      if (this.#world.oracle.horizons.hasLost(member)) continue;
      // A newcomer copies from those that hold it, or are past it.
      if (!isReadyOnDisk(other)) continue;
      // It may hold the very record above its head, across a gap that its origin was sealed with.
      const theirs = other.disk.image.rows.get(key);
      if (theirs !== undefined && compareEntries(theirs, row) >= 0) continue;
      const head = other.disk.image.heads.get(origin);
      // Without a head it was forgotten, or never heard of.
      if (head !== undefined && head < seq)
        throw new Violation(
          'garbage',
          `${node.name} collects ${key} ${show(row)}, but ${other.name} holds ${originOf(row)} up to ${head} only`,
        );
    }
    this.collected += 1;
    const grave = this.#newest.get(key);
    if (grave === undefined || compareEntries(row, grave) > 0) this.#newest.set(key, row);
  }
}
