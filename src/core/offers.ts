/**
 * Lazy links (the other half of the trees; Leitão et al., 2007). A tree brings each payload about once, but by one
 * way: a packet lost near its root makes everybody below wait for a retransmission, which takes longer than to
 * cross the world. So whoever passes a frame on tells the links by which it does not that it has it (`offer`, some
 * 30 bytes), and whoever is offered a frame that does not come by itself soon asks for it (`fetch`): the
 * nearest that offered it first, then the next.
 *
 * An offer says nothing about the disk: it is no announcement, raises no head, and acknowledges nothing. Frames
 * are kept for a moment only, and what is asked for too late is left to the version vectors.
 */
import { type Core, isSparse } from './core.js';
import type { Fetch, Offer, Push } from './messages.js';
import type { Peer } from './peer.js';
import type { OriginId } from './types.js';

/** Frames kept to be fetched, their bytes, and for how long at most one is kept, ms. */
export const KEPT_FRAMES_MAX = 1_024;
export const KEPT_BYTES_MAX = 4_194_304;
const KEPT_MS = 5_000;
/** Offers on one link travel together if they come within this time, ms. */
const OFFER_MS = 5;
/** Most frames named by one offer or fetch; a receiver takes no more either. */
export const OFFERED_MAX = 256;
/**
 * A frame that was offered and has not come is asked for after half this time to all of it, ms: the tree is seldom
 * so much slower. Drawn, so that of all those below a lost packet some ask, and pass it on to the others.
 */
const PATIENCE_MS = 80;
/** Frames waited for, and peers remembered as having one; more are left to the version vectors. */
export const AWAITED_MAX = 1_024;
const OFFERERS_MAX = 4;

interface Kept {
  readonly push: Push;
  readonly bytes: number;
  readonly at: number;
}

interface Awaited {
  readonly origin: OriginId;
  readonly to: number;
  /** Have it, and were not asked yet. */
  offerers: Peer[];
  /** When the next is asked, monotonic ms. */
  at: number;
}

function frameId(origin: OriginId, to: number): string {
  return `${origin}:${to}`;
}

export class Offers {
  readonly #core: Core;
  readonly #kept = new Map<string, Kept>();
  #keptBytes = 0;
  readonly #due = new Map<Peer, [OriginId, number][]>();
  readonly #awaited = new Map<string, Awaited>();

  constructor(core: Core) {
    this.#core = core;
  }

  get sizes(): { keptFrames: number; keptBytes: number; awaited: number } {
    return { keptFrames: this.#kept.size, keptBytes: this.#keptBytes, awaited: this.#awaited.size };
  }

  /** Whether the peer has said that it has this very frame. */
  hasOffered(peer: Peer, push: Push): boolean {
    return peer.offered.has(frameId(push.origin, push.to));
  }

  /** The frame went out to these peers: the others are offered it. `from` brought it. */
  passedOn(push: Push, to: readonly Peer[], from: Peer | undefined): void {
    const core = this.#core;
    if (!isSparse(core) || push.to <= push.from) return;
    const id = frameId(push.origin, push.to);
    this.#awaited.delete(id);
    this.#keep(id, push);
    for (const peer of core.partners()) {
      if (peer === from || peer.congested || peer.origin === push.origin) continue;
      if (to.includes(peer) || peer.offered.has(id)) continue;
      this.#offer(peer, push.origin, push.to);
    }
  }

  onOffer(peer: Peer, { frames }: Offer): void {
    const core = this.#core;
    const { now, timers, taken, identity } = core;
    if (identity.uid === '' || peer.clusterUid !== identity.uid) return;
    for (const [origin, to] of frames) {
      const id = frameId(origin, to);
      peer.remember(id);
      if (this.#kept.has(id) || taken.head(origin) >= to || origin === identity.origin) continue;
      const awaited = this.#awaited.get(id);
      if (awaited !== undefined) {
        if (awaited.offerers.length < OFFERERS_MAX) awaited.offerers.push(peer);
      } else if (this.#awaited.size < AWAITED_MAX) {
        const at = now.mono + core.jitter(PATIENCE_MS);
        this.#awaited.set(id, { origin, to, offerers: [peer], at });
        timers.atMost('offers', at);
      }
    }
  }

  onFetch(peer: Peer, { frames }: Fetch): void {
    const core = this.#core;
    if (peer.congested || peer.clusterUid !== core.identity.uid) return;
    for (const [origin, to] of frames) {
      const kept = this.#kept.get(frameId(origin, to));
      if (kept === undefined) continue;
      core.counters.framesFetched += 1;
      core.emit({ type: 'send', links: [peer.link], message: kept.push, bestEffort: true });
    }
  }

  /** Sends offers that are due, and asks for what has not come. */
  tick(): void {
    const core = this.#core;
    for (const [peer, frames] of this.#due)
      if (core.peers.has(peer.link))
        core.emit({ type: 'send', links: [peer.link], message: { type: 'offer', frames }, bestEffort: true });
    this.#due.clear();
    this.#fetch();
  }

  /** Forgets what nobody will ask for any more. */
  sweep(): void {
    for (const [id, kept] of this.#kept) {
      if (this.#core.now.mono - kept.at < KEPT_MS) return;
      this.#drop(id, kept);
    }
  }

  #fetch(): void {
    const { now, timers, taken, peers } = this.#core;
    const asks = new Map<Peer, [OriginId, number][]>();
    for (const [id, awaited] of this.#awaited) {
      if (awaited.at <= now.mono) {
        const { origin, to } = awaited;
        const from = taken.head(origin) >= to ? undefined : nearest(awaited.offerers, peers);
        if (from === undefined) {
          this.#awaited.delete(id);
          continue;
        }
        awaited.offerers = awaited.offerers.filter((peer) => peer !== from);
        awaited.at = now.mono + this.#core.jitter(PATIENCE_MS) + 2 * (from.roundTripMs ?? 0);
        const frames = asks.get(from) ?? [];
        if (frames.length < OFFERED_MAX) frames.push([origin, to]);
        asks.set(from, frames);
      }
      timers.atMost('offers', awaited.at);
    }
    for (const [peer, frames] of asks) this.#core.send(peer, { type: 'fetch', frames });
  }

  #offer(peer: Peer, origin: OriginId, to: number): void {
    const { now, timers } = this.#core;
    const frames = this.#due.get(peer) ?? [];
    if (frames.length < OFFERED_MAX) frames.push([origin, to]);
    this.#due.set(peer, frames);
    timers.atMost('offers', now.mono + OFFER_MS);
  }

  #keep(id: string, push: Push): void {
    if (this.#kept.has(id)) return;
    let bytes = 0;
    for (let i = 0; i < push.keys.length; i++) bytes += push.keys[i]!.length + push.rows[i]!.length;
    this.#kept.set(id, { push, bytes, at: this.#core.now.mono });
    this.#keptBytes += bytes;
    for (const [oldest, kept] of this.#kept) {
      if (this.#kept.size <= KEPT_FRAMES_MAX && this.#keptBytes <= KEPT_BYTES_MAX) return;
      this.#drop(oldest, kept);
    }
  }

  #drop(id: string, kept: Kept): void {
    this.#kept.delete(id);
    this.#keptBytes -= kept.bytes;
  }
}

/** Of those that are still linked. */
function nearest(offerers: readonly Peer[], linked: ReadonlyMap<number, Peer>): Peer | undefined {
  let best: Peer | undefined;
  for (const peer of offerers) {
    if (linked.get(peer.link) !== peer || peer.congested) continue;
    if (best === undefined || (peer.roundTripMs ?? 0) < (best.roundTripMs ?? 0)) best = peer;
  }
  return best;
}
