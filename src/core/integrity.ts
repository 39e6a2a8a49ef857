/**
 * What this node knows about the soundness of its own copy, and so whether a miss is one.
 *
 * A store that lost a record without a trace answers "missing". Until everything on the disk was proved since it was
 * opened, a miss is therefore confirmed with a peer where the read can wait. Where it cannot, it is refused, but only
 * if there is evidence that something is lost.
 */

/** Why the copy is not taken to be whole. */
export type Evidence =
  /** A record failed its checksum, or is not where the dot index says. */
  | 'damaged-record'
  /** A block, or a row of the store's own, could not be read. */
  | 'unreadable'
  /** The last opening did not end in a way that vouches for what it wrote. */
  | 'unclean-stop'
  | 'write-failed'
  /** Equal vectors, unequal digests. */
  | 'digest';

/** Misses that a peer confirmed and that are remembered; when full, they are confirmed anew. */
export const CONFIRMED_MISSES_MAX = 65_536;

export class Integrity {
  readonly #evidence = new Set<Evidence>();
  readonly #confirmed = new Set<string>();
  /** Everything was read, and found whole, since the latest evidence. */
  #proved: boolean;

  constructor(proved: boolean) {
    this.#proved = proved;
  }

  get evidence(): ReadonlySet<Evidence> {
    return this.#evidence;
  }

  /** Whether anything is known to be wrong, or likely to be. */
  get isSuspect(): boolean {
    return this.#evidence.size > 0;
  }

  get isAllProved(): boolean {
    return this.#proved;
  }

  /** Whether a miss of this key is known to be one. */
  isProved(key: string): boolean {
    return this.#proved || this.#confirmed.has(key);
  }

  /** Whether this node may tell a peer that there is no such key. */
  vouchesFor(key: string): boolean {
    const { evidence } = this;
    const damaged = evidence.has('damaged-record') || evidence.has('unreadable') || evidence.has('digest');
    return !damaged || this.isProved(key);
  }

  /** Returns whether this is news. */
  note(evidence: Evidence): boolean {
    const news = this.#proved || !this.#evidence.has(evidence);
    this.#evidence.add(evidence);
    this.#proved = false;
    this.#confirmed.clear();
    return news;
  }

  confirmed(key: string): void {
    if (this.#confirmed.size >= CONFIRMED_MISSES_MAX) this.#confirmed.clear();
    this.#confirmed.add(key);
  }

  /** Everything was read, and what was lost is healed. */
  proved(): void {
    this.#proved = true;
    this.#evidence.clear();
    this.#confirmed.clear();
  }
}
