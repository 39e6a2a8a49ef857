/**
 * Gossip: heartbeats that carry what changed. A beat goes out on every link once per `beatMs`, and sooner
 * (`ANNOUNCE_MS` after a change) when there are heads to announce. It holds the changed entries of the version
 * vector, and hashes of the whole vector and of the member table; a receiver whose copy does not match asks
 * for the whole (`resend`). State is thus reconciled whatever was missed, and an idle link carries two hashes.
 *
 * Only what is written to disk is announced.
 */
import type { Core } from './core.js';
import type { Lifecycle } from './lifecycle.js';
import type { Links } from './links.js';
import type { Beat, Members, Resend, VectorEntry } from './messages.js';
import type { Peer } from './peer.js';
import type { OriginId } from './types.js';

const ANNOUNCE_MS = 100;
/** Liveness counters of third members told per beat, in a mesh that is not full. */
const HEARD_MAX = 64;
/** A peer is asked for its whole state at most this often, ms: the answer takes a round trip. */
const RESEND_MS = 500;

export class Gossip {
  readonly #core: Core;
  readonly #lifecycle: Lifecycle;
  readonly #links: Links;
  /** Beat counters of all members heard of, this node's own included. */
  readonly #counters = new Map<OriginId, number>();

  readonly #resend: (peer: Peer) => void;

  /** `resend` sends a peer that came to belong to this cluster what awaits acknowledgements. */
  constructor(core: Core, lifecycle: Lifecycle, links: Links, resend: (peer: Peer) => void) {
    this.#resend = resend;
    this.#core = core;
    this.#lifecycle = lifecycle;
    this.#links = links;
  }

  start(): void {
    const { timers, now, options } = this.#core;
    timers.set('beat', now.mono + this.#core.jitter(options.beatMs));
  }

  /** A link was accepted: say who we are, and everything we have. */
  greet(peer: Peer): void {
    this.#beat(peer, true);
    this.#tellMembers(peer, false);
  }

  /** This node's standing changed. */
  greetAll(): void {
    for (const peer of this.#core.linked()) this.greet(peer);
  }

  /** The beat is due. */
  beat(): void {
    const core = this.#core;
    core.timers.set('beat', core.now.mono + core.options.beatMs);
    const own = core.identity.origin;
    this.#counters.set(own, (this.#counters.get(own) ?? core.now.wall) + 1);
    for (const peer of core.linked()) this.#beat(peer, false);
  }

  /** Heads that were written since the last beat are due to be announced. */
  announce(): void {
    for (const peer of this.#core.linked()) if (peer.dirty.size > 0) this.#beat(peer, false);
  }

  /** Entries of the written vector changed. */
  changed(origins: Iterable<OriginId>): void {
    const core = this.#core;
    const peers = core.linked();
    if (peers.length === 0) return;
    for (const origin of origins) for (const peer of peers) peer.dirty.add(origin);
    core.timers.atMost('announce', core.now.mono + ANNOUNCE_MS);
  }

  /** The member table changed: tell everybody now rather than at a mismatch of hashes. */
  membersChanged(from?: Peer): void {
    const { members } = this.#core;
    this.#lifecycle.storeMembers();
    if (members.isRemoved(this.#core.identity.origin)) this.#lifecycle.expel();
    for (const peer of this.#core.linked()) if (peer !== from) this.#tellMembers(peer, true);
    this.#links.reconcile();
  }

  onMembers(peer: Peer, message: Members): void {
    const { identity, members } = this.#core;
    // Rows of another founding are not ours to keep; a newcomer asks again once it belongs.
    if (identity.uid === '' || peer.clusterUid !== identity.uid) return;
    if (members.merge(message.rows, message.removed)) this.membersChanged(peer);
  }

  onResend(peer: Peer, message: Resend): void {
    if (message.members) this.#tellMembers(peer, true);
    if (message.vector) this.#beat(peer, true);
  }

  onBeat(peer: Peer, beat: Beat): void {
    const core = this.#core;
    if (!this.#links.checkClock(peer, beat.wallMs)) return;
    core.detector.heard(peer.origin, core.now.mono);
    peer.beatAt = core.now.mono;
    this.#hearOfOthers(peer, beat);
    const joined = peer.clusterUid !== beat.clusterUid && beat.clusterUid === core.identity.uid;
    peer.phase = beat.phase;
    peer.clusterUid = beat.clusterUid;
    peer.alone = beat.alone;
    peer.membersHash = beat.membersHash;
    if (beat.whole) peer.vector.clear();
    for (const [origin, head, top] of beat.vector) peer.vector.set(origin, head, top);
    this.#lifecycle.consider(peer);
    const sameCluster = core.identity.uid !== '' && peer.clusterUid === core.identity.uid;
    const vector = peer.vector.hash !== beat.vectorHash;
    const members = sameCluster && beat.membersHash !== core.members.hash;
    if ((vector || members) && core.now.mono - peer.resendAskedAt >= RESEND_MS) {
      peer.resendAskedAt = core.now.mono;
      core.send(peer, { type: 'resend', vector, members });
      if (members) this.#tellMembers(peer, true);
    }
    if (joined) this.#resend(peer);
    if (peer.vector.top(core.identity.origin) > core.taken.top(core.identity.origin)) this.#originLost();
  }

  /** Someone holds writes of this origin that this store does not: it lost them, so it may not number on. */
  #originLost(): void {
    this.#lifecycle.mintOrigin();
    this.#links.closeAll('a new origin');
  }

  #beat(peer: Peer, whole: boolean): void {
    const core = this.#core;
    const { written, identity, members, now } = core;
    const vector: VectorEntry[] = [];
    if (whole) vector.push(...written.entries());
    else for (const origin of peer.dirty) vector.push([origin, written.head(origin), written.top(origin)]);
    peer.dirty.clear();
    core.send(peer, {
      type: 'beat',
      wallMs: now.wall,
      phase: this.#lifecycle.peerPhase,
      clusterUid: identity.uid,
      alone: this.#lifecycle.alone,
      vectorHash: written.hash,
      membersHash: members.hash,
      whole,
      vector,
      heard: this.#heardFor(peer),
    });
  }

  #tellMembers(peer: Peer, all: boolean): void {
    const { members, identity, config } = this.#core;
    if (identity.uid === '') return;
    const rows = all ? members.rows() : members.rows().filter((row) => row.name === config.name);
    this.#core.send(peer, { type: 'members', rows, removed: all ? members.removed() : [] });
  }

  /** In a full mesh everybody hears everybody; otherwise counters are passed on. */
  #heardFor(peer: Peer): [OriginId, number][] {
    const core = this.#core;
    if (core.members.active().length <= core.options.fullMeshMax) return [];
    const out: [OriginId, number][] = [];
    for (const [origin, counter] of this.#counters) {
      if (origin === peer.origin || peer.toldCounters.get(origin) === counter) continue;
      peer.toldCounters.set(origin, counter);
      if (out.push([origin, counter]) >= HEARD_MAX) break;
    }
    return out;
  }

  #hearOfOthers(peer: Peer, beat: Beat): void {
    const { identity, detector, now, members } = this.#core;
    for (const [origin, counter] of beat.heard) {
      if (origin === identity.origin || (origin !== peer.origin && !members.isMember(origin))) continue;
      const known = this.#counters.get(origin);
      if (known !== undefined && known >= counter) continue;
      this.#counters.set(origin, counter);
      // The first one may be an old echo: it starts the record, and proves nothing.
      if (known !== undefined && origin !== peer.origin) detector.heard(origin, now.mono);
    }
  }
}
