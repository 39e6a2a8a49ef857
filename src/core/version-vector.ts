/**
 * Version vector: per origin the head and the top.
 *
 * Head h: for every sequence number up to h, this store holds the record, or one that superseded it.
 * Top: the greatest sequence number of which it holds a record (or held one that was superseded), gaps below it
 * allowed. top >= head always. Two stores with equal vectors hold the same entries, unless one is damaged.
 *
 * The hash covers heads and tops, and is kept up to date with each change; equal vectors travel as this hash.
 */
import { addTo, hashText, type Lanes, lanesHex, subtractFrom } from './hash.js';
import type { VectorEntry } from './messages.js';
import type { OriginId } from './types.js';

interface Point {
  head: number;
  top: number;
  hash: Lanes;
}

const NO_POINT: Point = { head: 0, top: 0, hash: { a: 0, b: 0 } };

function hashOf(origin: OriginId, head: number, top: number): Lanes {
  return head === 0 && top === 0 ? NO_POINT.hash : hashText(`${origin}:${head}:${top}`);
}

export class VersionVector {
  readonly #points = new Map<OriginId, Point>();
  readonly #sum: Lanes = { a: 0, b: 0 };

  head(origin: OriginId): number {
    return this.#points.get(origin)?.head ?? 0;
  }

  top(origin: OriginId): number {
    return this.#points.get(origin)?.top ?? 0;
  }

  get size(): number {
    return this.#points.size;
  }

  get hash(): string {
    return lanesHex(this.#sum);
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
    const old = this.#points.get(origin) ?? NO_POINT;
    const newHead = Math.max(old.head, head);
    const newTop = Math.max(old.top, top, newHead);
    if (newHead === old.head && newTop === old.top) return false;
    this.#replace(origin, old, newHead, newTop);
    return true;
  }

  /** Takes the values as given, also lower ones: for the copy of a peer's vector, which may have lost its disk. */
  set(origin: OriginId, head: number, top: number): void {
    this.#replace(origin, this.#points.get(origin) ?? NO_POINT, head, Math.max(head, top));
  }

  clear(): void {
    this.#points.clear();
    this.#sum.a = 0;
    this.#sum.b = 0;
  }

  /** Whether the other has anything that this one lacks. */
  isBehind(other: VersionVector): boolean {
    for (const [origin, point] of other.#points) {
      const mine = this.#points.get(origin) ?? NO_POINT;
      if (point.head > mine.head || point.top > mine.top) return true;
    }
    return false;
  }

  #replace(origin: OriginId, old: Point, head: number, top: number): void {
    const hash = hashOf(origin, head, top);
    subtractFrom(this.#sum, old.hash);
    addTo(this.#sum, hash);
    this.#points.set(origin, { head, top, hash });
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
