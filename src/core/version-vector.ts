/**
 * Version vector: per origin the head and the top.
 *
 * Head h: for every sequence number up to h, this store holds the record, or one that superseded it.
 * Top: the greatest sequence number of which it holds a record (or held one that was superseded), gaps below it
 * allowed. top >= head always. Two stores with equal vectors hold the same entries, unless one is damaged, or both
 * have gaps below their tops: then each may hold what the other lacks, and only a session tells.
 *
 * The hash covers heads and tops; equal vectors travel as this hash. It is brought up to date when it is asked
 * for, by the origins that changed since.
 */
import { addTo, hashText, type Lanes, lanesHex, subtractFrom } from './hash.js';
import type { VectorEntry } from './messages.js';
import type { OriginId } from './types.js';

interface Point {
  head: number;
  top: number;
  /** What this point adds to the sum; stale while the origin is among the changed ones. */
  hash: Lanes;
}

const NO_HASH: Lanes = { a: 0, b: 0 };

export class VersionVector {
  readonly #points = new Map<OriginId, Point>();
  readonly #changed = new Set<OriginId>();
  /** Origins whose top is above their head. */
  #gaps = 0;
  readonly #sum: Lanes = { a: 0, b: 0 };
  /** Counts whenever a point may have fallen. */
  #falls = 0;
  /** Who last asked whether it is behind this one, and as of which fall of it; origins it may be behind in. */
  #asker: VersionVector | undefined;
  #askerFalls = 0;
  readonly #unchecked = new Set<OriginId>();

  head(origin: OriginId): number {
    return this.#points.get(origin)?.head ?? 0;
  }

  top(origin: OriginId): number {
    return this.#points.get(origin)?.top ?? 0;
  }

  has(origin: OriginId): boolean {
    return this.#points.has(origin);
  }

  get size(): number {
    return this.#points.size;
  }

  /** Whether something is held above a head. */
  get hasGaps(): boolean {
    return this.#gaps > 0;
  }

  get hash(): string {
    this.#refresh();
    return lanesHex(this.#sum);
  }

  #refresh(): void {
    for (const origin of this.#changed) {
      const point = this.#points.get(origin)!;
      subtractFrom(this.#sum, point.hash);
      const { head, top } = point;
      point.hash = head === 0 && top === 0 ? NO_HASH : hashText(`${origin}:${head}:${top}`);
      addTo(this.#sum, point.hash);
    }
    this.#changed.clear();
  }

  origins(): IterableIterator<OriginId> {
    return this.#points.keys();
  }

  *entries(): Generator<VectorEntry> {
    for (const [origin, point] of this.#points) yield [origin, point.head, point.top];
  }

  heads(): [OriginId, number][] {
    const out: [OriginId, number][] = [];
    for (const [origin, point] of this.#points) if (point.head > 0) out.push([origin, point.head]);
    return out;
  }

  tops(): [OriginId, number][] {
    return Array.from(this.#points, ([origin, point]) => [origin, point.top]);
  }

  /** Raises head and top, never lowers them. True if either moved. */
  raise(origin: OriginId, head: number, top: number): boolean {
    if (head === 0 && top === 0) return false;
    const point = this.#point(origin);
    const newHead = Math.max(point.head, head);
    const newTop = Math.max(point.top, top, newHead);
    if (newHead === point.head && newTop === point.top) return false;
    this.#replace(origin, point, newHead, newTop);
    return true;
  }

  /** Takes the values as given, also lower ones: for the copy of a peer's vector, which may have lost its disk. */
  set(origin: OriginId, head: number, top: number): void {
    if (head === 0 && top === 0) return this.drop(origin);
    this.#falls += 1;
    this.#replace(origin, this.#point(origin), head, Math.max(head, top));
  }

  /** Nothing is said of the origin any more. */
  drop(origin: OriginId): void {
    const point = this.#points.get(origin);
    if (point === undefined) return;
    this.#falls += 1;
    this.#unchecked.delete(origin);
    this.#gaps -= Number(point.top > point.head);
    subtractFrom(this.#sum, point.hash);
    this.#changed.delete(origin);
    this.#points.delete(origin);
  }

  clear(): void {
    this.#falls += 1;
    this.#points.clear();
    this.#changed.clear();
    this.#unchecked.clear();
    this.#gaps = 0;
    this.#sum.a = 0;
    this.#sum.b = 0;
  }

  /**
   * Whether the other has anything that this one lacks, and that is not known to be covered all the same. Asked again
   * and again by one that only rises, as a node asks about its peers, this looks only at what changed in the other.
   */
  isBehind(other: VersionVector, isCovered?: (origin: OriginId, top: number) => boolean): boolean {
    const unchecked = other.#unchecked;
    if (other.#asker !== this || other.#askerFalls !== this.#falls) {
      other.#asker = this;
      other.#askerFalls = this.#falls;
      for (const origin of other.#points.keys()) unchecked.add(origin);
    }
    for (const origin of unchecked) {
      if (other.head(origin) <= this.head(origin) && other.top(origin) <= this.top(origin))
        unchecked.delete(origin);
      // What covers it may cease to: it is looked at again.
      else if (isCovered?.(origin, other.top(origin)) !== true) return true;
    }
    return false;
  }

  #replace(origin: OriginId, point: Point, head: number, top: number): void {
    this.#gaps += Number(top > head) - Number(point.top > point.head);
    point.head = head;
    point.top = top;
    this.#changed.add(origin);
    this.#unchecked.add(origin);
  }

  #point(origin: OriginId): Point {
    let point = this.#points.get(origin);
    if (point === undefined) {
      point = { head: 0, top: 0, hash: NO_HASH };
      this.#points.set(origin, point);
    }
    return point;
  }
}

/** Pointwise minimum of head maps; origins that either lacks drop out. */
export function minimumOfHeads(
  a: ReadonlyMap<OriginId, number>,
  b: ReadonlyMap<OriginId, number>,
): Map<OriginId, number> {
  const out = new Map<OriginId, number>();
  for (const [origin, head] of a) {
    const other = b.get(origin);
    if (other !== undefined) out.set(origin, Math.min(head, other));
  }
  return out;
}
