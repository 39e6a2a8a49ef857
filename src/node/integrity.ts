/**
 * What this node knows about the soundness of its own copy, and so whether a miss is one.
 *
 * A store that lost a record without a trace answers "missing". Until the store was read through since it was opened,
 * and found to hold what its digest says, a miss is therefore confirmed with a peer where the read can wait. Where it
 * cannot, it is refused, but only if there is local evidence that something is lost there. What the digest knows
 * (core/digest.ts) goes by ranges of keys; the evidence gathered here concerns all of the store.
 */

/** Why the copy is not taken to be whole. */
export type Evidence =
  /** A record failed its checksum, or is not where the dot index says. */
  | 'damaged-record'
  /** A block, or a row of the store's own, could not be read. */
  | 'unreadable'
  /** The store may have lost its latest writes when it was opened (DataFolder.mayHaveLost), and not have them back yet. */
  | 'unclean-stop'
  | 'write-failed'
  /** The store did not hold what its digest says, or a peer's differs at an equal vector. */
  | 'digest';

/** Misses that a peer confirmed and that are remembered; when full, they are confirmed anew. */
export const CONFIRMED_MISSES_MAX = 65_536;

/** What the core knows (core/replica.ts). */
export interface CopyFacts {
  isProved(key: string): boolean;
  isSuspect(key: string): boolean;
  isSuspectWithin(after: string, until: string | undefined): boolean;
  readonly hasDoubt: boolean;
  readonly wasRead: boolean;
  readonly isSound: boolean;
  coversAnnouncedSince(mono: number): boolean;
}

export class Integrity {
  readonly #copy: () => CopyFacts;
  readonly #evidence = new Set<Evidence>();
  readonly #confirmed = new Set<string>();
  /** Everything was read by the scrub, and found whole or healed, since the latest evidence. */
  #scrubbed: boolean;
  /** When it was opened, monotonic ms, if what it lacks may not have come from the other members yet. */
  #behindSince: number | undefined;

  /** `empty`: there was no store before. */
  constructor(copy: () => CopyFacts, empty: boolean, behindSince: number | undefined) {
    this.#copy = copy;
    this.#scrubbed = empty;
    this.#behindSince = behindSince;
  }

  get evidence(): Evidence[] {
    const out = [...this.#evidence];
    if (this.#isBehind) out.push('unclean-stop');
    if (this.#copy().hasDoubt) out.push('digest');
    return out;
  }

  has(evidence: Evidence): boolean {
    return this.#evidence.has(evidence);
  }

  /** Whether anything is known to be wrong, or likely to be. */
  get isSuspect(): boolean {
    return this.#evidence.size > 0 || this.#copy().hasDoubt || this.#isBehind;
  }

  get isAllProved(): boolean {
    return this.#isRead && !this.isSuspect && this.#copy().isSound;
  }

  /** Whether a miss of this key is known to be one. */
  isProved(key: string): boolean {
    return this.#confirmed.has(key) || (this.#isRead && !this.#isBehind && this.#copy().isProved(key));
  }

  /** Whether there is local evidence that a record of this key may have been lost. */
  mayBeLost(key: string): boolean {
    const evidence = this.#evidence;
    if (evidence.size === 0 && this.#behindSince === undefined && this.#copy().isSound) return false;
    if (evidence.has('unreadable') || evidence.has('write-failed') || this.#isBehind) return true;
    const copy = this.#copy();
    // Before the digest is built, it suspects every key.
    if (copy.wasRead || evidence.size > 0 || copy.hasDoubt) return !copy.isSound && copy.isSuspect(key);
    return false;
  }

  /** Whether records with keys above `after`, up to `until`, may have been lost, there being evidence that some were. */
  mayBeLostWithin(after: string, until: string | undefined): boolean {
    return this.isSuspect && (!this.#isRead || this.#isBehind || this.#copy().isSuspectWithin(after, until));
  }

  /** Returns whether this is news. */
  note(evidence: Evidence): boolean {
    const news = this.#scrubbed || !this.#evidence.has(evidence);
    this.#evidence.add(evidence);
    this.#scrubbed = false;
    this.#confirmed.clear();
    return news;
  }

  confirmed(key: string): void {
    if (this.#confirmed.size >= CONFIRMED_MISSES_MAX) this.#confirmed.clear();
    this.#confirmed.add(key);
  }

  /** Everything was read, and what was lost is healed. */
  proved(): void {
    this.#scrubbed = true;
    this.#evidence.clear();
    this.#confirmed.clear();
  }

  get #isRead(): boolean {
    return this.#scrubbed || (this.#evidence.size === 0 && this.#copy().wasRead);
  }

  get #isBehind(): boolean {
    if (this.#behindSince === undefined) return false;
    if (this.#copy().coversAnnouncedSince(this.#behindSince)) this.#behindSince = undefined;
    return this.#behindSince !== undefined;
  }
}
