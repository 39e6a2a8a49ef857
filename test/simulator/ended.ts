/**
 * What the oracle asks of origins that have ended. Whoever forgets one says that it holds all of it, though no
 * vector will name it any more: for each sequence number up to where it ended, the record or what superseded it. Not
 * asked for is what no disk of a counted member holds either: it went with the disks.
 */
import { compareEntries } from '../../src/core/entry.js';
import type { OriginId, Row } from '../../src/core/types.js';
import { Violation } from './faults.js';
import type { Graves } from './graves.js';
import { hasMissedNothing, originOnDisk } from './inject.js';
import type { SimNode } from './node.js';
import { show } from './oracle.js';
import type { World } from './world.js';

interface Accepted {
  readonly key: string;
  readonly row: Row;
}

export class EndedOrigins {
  readonly #world: World;
  readonly #accepted: (origin: OriginId) => readonly (Accepted | undefined)[];
  readonly #isDamaged: (node: SimNode) => boolean;
  readonly #graves: Graves;
  /** How far the origins had come that somebody forgot. */
  readonly #ends = new Map<OriginId, number>();

  constructor(
    world: World,
    accepted: (origin: OriginId) => readonly (Accepted | undefined)[],
    isDamaged: (node: SimNode) => boolean,
    graves: Graves,
  ) {
    this.#world = world;
    this.#accepted = accepted;
    this.#isDamaged = isDamaged;
    this.#graves = graves;
  }

  /** Where the origin ended; 0: nobody forgot it. */
  end(origin: OriginId): number {
    return this.#ends.get(origin) ?? 0;
  }

  /** The node takes the origin, of which it held so much, out of its vector. */
  forgets(node: SimNode, origin: OriginId, top: number): void {
    this.#ends.set(origin, Math.max(top, this.end(origin)));
    if (!this.#isDamaged(node)) this.#check(node, origin);
  }

  /** Of a disk that lost no data: every origin that is not in its vector, and that somebody forgot. */
  checkAll(node: SimNode): void {
    // Whoever may have missed a forgetting says nothing of what it lacks.
    if (!hasMissedNothing(node)) return;
    for (const origin of this.#ends.keys()) if (!node.disk.image.heads.has(origin)) this.#check(node, origin);
  }

  #check(node: SimNode, origin: OriginId): void {
    const list = this.#accepted(origin);
    for (let seq = 1; seq <= this.end(origin); seq++) {
      const known = list[seq];
      if (known === undefined || isHeld(node, known) || this.#graves.covers(known.key, known.row)) continue;
      const holder = this.#world.nodes.find(
        (other) => this.#counts(node, other) && !this.#isDamaged(other) && isHeld(other, known),
      );
      if (holder !== undefined)
        throw new Violation(
          'forgotten',
          `${node.name} counts ${origin} as held up to ${this.end(origin)}, but lacks ${known.key} ${show(known.row)}, which ${holder.name} holds`,
        );
    }
  }

  /** Whether the node must not take a step without the other. */
  #counts(node: SimNode, other: SimNode): boolean {
    const origin = originOnDisk(other);
    return origin !== undefined && node.core!.members.isMember(origin);
  }
}

function isHeld(node: SimNode, { key, row }: Accepted): boolean {
  const held = node.disk.image.rows.get(key);
  return held !== undefined && compareEntries(held, row) >= 0;
}
