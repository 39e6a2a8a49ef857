/**
 * Origins that this store has forgotten: it holds everything of them, and its vector does not name them any more.
 * Of each the greatest sequence number that is known to be held, should the origin have to come back.
 */
import type { OriginId } from './types.js';

/** Forgotten origins that are remembered, the latest ones. A further one may come back, and is forgotten anew. */
const REMEMBERED_MAX = 65_536;
/** Above every sequence number. */
const ALL = 2 ** 48 - 1;

export class ForgottenOrigins {
  readonly #tops = new Map<OriginId, number>();
  /** Of those that were forgotten since the start: up to where nothing was missing. */
  readonly #heads = new Map<OriginId, number>();

  has(origin: OriginId): boolean {
    return this.#tops.has(origin);
  }

  /** Whether the record with this dot was here, or what superseded it, when the origin was forgotten; false if nobody knows. */
  held(origin: OriginId, seq: number): boolean {
    return seq <= (this.#heads.get(origin) ?? 0);
  }

  add(origin: OriginId, top: number, head = 0): void {
    if (head > 0) this.#heads.set(origin, head);
    const known = this.#tops.get(origin) ?? 0;
    this.#tops.delete(origin);
    this.#tops.set(origin, Math.max(known, top));
    if (this.#tops.size <= REMEMBERED_MAX) return;
    for (const oldest of this.#tops.keys()) {
      this.delete(oldest);
      return;
    }
  }

  delete(origin: OriginId): void {
    this.#tops.delete(origin);
    this.#heads.delete(origin);
  }

  /** All of them, with what is held of each; none is left. */
  take(): [OriginId, number][] {
    const all = [...this.#tops];
    this.#tops.clear();
    this.#heads.clear();
    return all;
  }

  /** Heads by which to judge what a peer with these lacks: of forgotten origins it holds everything. */
  above(heads: ReadonlyMap<OriginId, number>): Map<OriginId, number> {
    const out = new Map(heads);
    for (const origin of this.#tops.keys()) if (!out.has(origin)) out.set(origin, ALL);
    return out;
  }
}
