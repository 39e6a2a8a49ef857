/** What this node knows of the other end of one link. */
import type { LinkId } from './io.js';
import type { Hello, PeerPhase } from './messages.js';
import type { OriginId } from './types.js';
import { VersionVector } from './version-vector.js';

/** Frames that one peer is remembered to have. */
export const OFFERED_REMEMBERED_MAX = 1_024;

export class Peer {
  readonly link: LinkId;
  /** The address that was dialed, or undefined for an inbound link. */
  readonly dialed: string | undefined;
  readonly openedAt: number;
  /** Set once, when the handshake is accepted. */
  hello: Hello | undefined;
  /** Follow the peer's beats. */
  phase: PeerPhase = 'new';
  clusterUid = '';
  alone = false;
  membersHash = '';
  /** It has missed what this node has collected: nothing is taken from it, or given. */
  isOutdated = false;
  /** What the peer announced as written to its disk. */
  readonly vector = new VersionVector();
  /** Origins of ours that changed since the last beat on this link. */
  readonly dirty = new Set<OriginId>();
  /** Origins whose frames we get sooner from elsewhere: the peer is told with the next beat. */
  readonly unwanted = new Set<OriginId>();
  /** Frames that it said it has (offers.ts), the latest of them. */
  readonly offered = new Set<string>();
  /** Monotonic ms of the last sign of life. */
  heardAt: number;
  /** Since when it is known to have something that we lack. */
  aheadSince: number | undefined;
  /** Not before this time is it asked for another session. */
  pullNotBefore = 0;
  /** When it is next asked for what both hold above heads that do not rise, and the pause after that, ms. */
  gapPullAt: number | undefined;
  gapPauseMs = 0;
  /** When frames that it holds unacknowledged are looked for next, monotonic ms, and up to which frame. */
  remindNotBefore = 0;
  remindUpTo = 0;
  resendAskedAt = Number.NEGATIVE_INFINITY;
  membersAskedAt = Number.NEGATIVE_INFINITY;
  /** Since when its member table differs from ours. */
  membersDifferSince: number | undefined;
  congested = false;
  /** From our hello to the first beat, which answers it, ms. */
  roundTripMs: number | undefined;
  /** Monotonic ms of the last beat. */
  beatAt = Number.NEGATIVE_INFINITY;

  constructor(link: LinkId, dialed: string | undefined, now: number) {
    this.link = link;
    this.dialed = dialed;
    this.openedAt = now;
    this.heardAt = now;
  }

  remember(frame: string): void {
    this.offered.add(frame);
    if (this.offered.size <= OFFERED_REMEMBERED_MAX) return;
    for (const oldest of this.offered) {
      this.offered.delete(oldest);
      return;
    }
  }

  get origin(): OriginId {
    return this.hello?.origin ?? '';
  }

  get name(): string {
    return this.hello?.name ?? '';
  }

  get host(): string {
    return this.hello?.host ?? '';
  }
}
