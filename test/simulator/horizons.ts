/**
 * What the oracle knows of the garbage horizon, whether or not anything is collected:
 *
 * - when a member's horizon rises, the disk of every member that it counts holds, or has something newer of,
 *   whatever any of them holds up to it: a deletion would otherwise be collected before all have heard of it
 * - nothing new with a stamp up to a member's horizon ever reaches its disk: it would come too late to lose against
 *   a deletion that is gone
 */
import { compareEntries, stampMsOf } from '../../src/core/entry.js';
import type { OriginId, Row, StoreBatch } from '../../src/core/types.js';
import type { Image } from './disk.js';
import { Violation } from './faults.js';
import type { Graves } from './graves.js';
import { originIn } from './inject.js';
import type { SimNode } from './node.js';
import { show } from './oracle.js';
import type { World } from './world.js';

export class Horizons {
  readonly #world: World;
  readonly #isDamaged: (node: SimNode) => boolean;
  readonly #graves: Graves;
  /** How far each node's was, in its present incarnation and founding. */
  readonly #reached = new Map<SimNode, { incarnation: number; uid: string; horizon: number }>();
  /** Origins whose disk lost something of what they had reported. */
  readonly #lost = new Set<OriginId>();
  readonly #exempt = new Set<SimNode>();
  /** Times that a horizon rose above something that was written. */
  passed = 0;

  constructor(world: World, isDamaged: (node: SimNode) => boolean, graves: Graves) {
    this.#world = world;
    this.#isDamaged = isDamaged;
    this.#graves = graves;
  }

  /** The node's disk holds less than before. It goes on under another origin. */
  diskChanged(before: Image): void {
    const origin = originIn(before);
    if (origin !== undefined) this.#lost.add(origin);
  }

  /** Whether what this origin has reported is no longer all on a disk. */
  hasLost(origin: OriginId): boolean {
    return this.#lost.has(origin);
  }

  /** A scenario takes records from the node's disk by hand: nothing is asked of it. */
  exempt(node: SimNode): void {
    this.#exempt.add(node);
  }

  /** Before the batch is on the node's disk. */
  check(node: SimNode, batch: StoreBatch): void {
    const horizon = this.#horizonOf(node);
    if (horizon === 0 || !this.#isAsked(node)) return;
    const { rows } = node.disk.image;
    for (const [key, { row }] of batch.rows) {
      const held = rows.get(key);
      if (stampMsOf(row) > horizon || (held !== undefined && compareEntries(row, held) <= 0)) continue;
      throw new Violation(
        'horizon',
        `${node.name} gets ${key} ${show(row)}, and its horizon is at ${horizon % 1e8} already`,
      );
    }
  }

  afterInput(node: SimNode): void {
    const before = this.#horizonOf(node);
    const horizon = node.core?.horizon.collectable ?? 0;
    if (horizon <= before) return;
    this.#reached.set(node, { incarnation: node.incarnation, uid: node.core!.identity.uid, horizon });
    const counted = this.#countedBy(node);
    for (const holder of counted)
      for (const [key, row] of holder.disk.image.rows) {
        if (stampMsOf(row) > horizon || stampMsOf(row) <= before) continue;
        this.passed += 1;
        for (const other of counted) this.#checkHeld(node, horizon, key, row, other);
      }
  }

  #horizonOf(node: SimNode): number {
    const known = this.#reached.get(node);
    const isPresent = known?.incarnation === node.incarnation && known.uid === node.core?.identity.uid;
    return isPresent ? known.horizon : 0;
  }

  #isAsked(node: SimNode): boolean {
    return !this.#isDamaged(node) && !this.#exempt.has(node);
  }

  #countedBy(node: SimNode): SimNode[] {
    const { members } = node.core!;
    return this.#world.nodes.filter((other) => {
      const origin = originIn(other.disk.image);
      if (other.core !== undefined && other.core.identity.origin !== origin) return false;
      if (origin === undefined || this.#lost.has(origin) || !this.#isAsked(other)) return false;
      return members.isMember(origin);
    });
  }

  #checkHeld(node: SimNode, horizon: number, key: string, row: Row, other: SimNode): void {
    const held = other.disk.image.rows.get(key);
    if (held === undefined ? this.#graves.covers(key, row) : compareEntries(held, row) >= 0) return;
    throw new Violation(
      'horizon',
      `the horizon of ${node.name} is at ${horizon % 1e8}, but ${other.name} has ${held === undefined ? 'nothing' : show(held)} instead of ${key} ${show(row)}`,
    );
  }
}
