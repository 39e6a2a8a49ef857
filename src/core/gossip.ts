/**
 * Gossip: heartbeats that carry what changed. A beat goes out on every link once per `beatMs`, and sooner
 * (`ANNOUNCE_MS` after a change) when there are heads to announce. It holds the changed entries of the version
 * vector, and hashes of the whole vector and of the member table; a receiver whose copy does not match asks
 * for the whole (`resend`). State is thus reconciled whatever was missed, and an idle link carries two hashes.
 *
 * In a mesh that is not full, beats tell a node about its neighbours only. There each member also sends a pulse
 * now and then, which floods to everybody; the more members, the rarer (`PULSES_PER_BEAT`), so that what a node
 * hears in an idle cluster stays about the same. A member that dialed another, lost the link and cannot get it
 * back within the time in which silence becomes suspicion, floods its suspicion as a pulse; the suspect, if it
 * lives, answers with a newer one (as in SWIM, Das et al., 2002). So a failure is known to all soon after its
 * neighbours know, however rare pulses are.
 *
 * Beats and pulses carry the sender's report for the garbage horizon (horizon.ts).
 *
 * Only what is written to disk is announced.
 */
import { type Core, isSparse } from './core.js';
import { PHI_SUSPECT } from './failure-detector.js';
import { NO_REPORT } from './horizon.js';
import type { LinkId } from './io.js';
import { EXCLUDED_TEXT, type Lifecycle } from './lifecycle.js';
import type { Links } from './links.js';
import { type MembersNews, noNews } from './membership.js';
import type { Beat, Members, Pulse, Resend, VectorEntry } from './messages.js';
import type { Peer } from './peer.js';
import { PulseClock } from './pulse-clock.js';
import type { Trees } from './trees.js';
import type { OriginId } from './types.js';

const ANNOUNCE_MS = 100;
/** Members that pulse within one beat, all together. */
const PULSES_PER_BEAT = 10;
/**
 * A pulse counts as come, and goes on, only this much later, ms: about what a hop costs on average by the packets
 * that are lost on it, so that a way with fewer hops is preferred to one that is a few milliseconds shorter.
 */
const HOP_MS = 5;
/** A longer vector is greeted with by its hash; whoever's differs asks for the whole. */
const GREETED_ENTRIES_MAX = 64;
/** A peer is asked for its whole state at most this often, ms: the answer takes a round trip. */
const RESEND_MS = 500;

/** What this node says of another member's pulses. */
function hearsay(origin: OriginId, counter: number, suspect: boolean): Pulse {
  return { type: 'pulse', origin, counter, suspect, membersHash: '', report: NO_REPORT };
}

interface Copy {
  readonly from: Peer;
  /** When it counts as come, monotonic ms. */
  readonly at: number;
}

interface HeldPulse {
  readonly pulse: Pulse;
  readonly first: Copy;
  readonly others: Copy[];
}

export class Gossip {
  readonly #core: Core;
  readonly #lifecycle: Lifecycle;
  readonly #links: Links;
  readonly #trees: Trees;
  /** The newest pulse of every member heard of, this node's own included. */
  readonly #pulses = new Map<OriginId, { counter: number; suspect: boolean }>();
  readonly #clock: PulseClock;
  /** Pulses that came, and do not count yet: by origin. */
  readonly #held = new Map<OriginId, HeldPulse>();
  /** Members that this node dialed and lost: when they were last heard. */
  readonly #lost = new Map<OriginId, number>();
  #membersAskedAt = Number.NEGATIVE_INFINITY;

  readonly #resend: (peer: Peer) => void;

  /** `resend` sends a peer that came to belong to this cluster what awaits acknowledgements. */
  constructor(core: Core, lifecycle: Lifecycle, links: Links, trees: Trees, resend: (peer: Peer) => void) {
    this.#resend = resend;
    this.#core = core;
    this.#lifecycle = lifecycle;
    this.#links = links;
    this.#trees = trees;
    this.#clock = new PulseClock(core.deps.random);
  }

  /** Members whose pulses are known, and those on hold. */
  get sizes(): { pulses: number; held: number } {
    return { pulses: this.#pulses.size, held: this.#held.size };
  }

  start(): void {
    const { timers, now, options } = this.#core;
    timers.set('beat', now.mono + this.#core.jitter(options.beatMs));
    this.#clock.start(now.mono, options.beatMs);
  }

  /** A link was accepted: say who we are, and what we have. */
  greet(peer: Peer): void {
    this.#lost.delete(peer.origin);
    this.#beat(peer, this.#core.written.size <= GREETED_ENTRIES_MAX);
    this.#tellMembers(peer, false);
    this.#core.sealing.greet(peer);
  }

  /** The link is gone; `lost`: not by our own choice. */
  gone(peer: Peer, lost: boolean): void {
    const { detector, now } = this.#core;
    this.#core.sealing.gone(peer);
    if (!isSparse(this.#core)) return;
    detector.expect(peer.origin, this.#pulseMs);
    if (lost && peer.dialed !== undefined) this.#lost.set(peer.origin, Math.min(now.mono, peer.heardAt));
  }

  /** This node's standing changed. */
  greetAll(): void {
    for (const peer of this.#core.linked()) this.greet(peer);
  }

  /** The beat is due. */
  beat(): void {
    const core = this.#core;
    core.timers.set('beat', core.now.mono + core.options.beatMs);
    core.exclusion.beat();
    this.#publishOwn();
    core.horizon.beat();
    this.#beatAll();
    core.sealing.beat();
    if (!isSparse(core)) return;
    if (this.#clock.isDue(core.now.mono)) this.#pulse(0);
    this.#accuse();
  }

  /**
   * Another node may have borne this node's name while it was away: a copy of its store, or a new start with an
   * empty one. Whoever is back says so again, or its peers would go on to dial the other's address, and count no
   * acknowledgement of its. Once a beat, since the two may be up at the same time for a while. This node's votes are in
   * its row, too.
   */
  #publishOwn(): void {
    const { identity } = this.#core;
    if (identity.uid === '' || (identity.phase !== 'ready' && identity.phase !== 'bootstrapping')) return;
    const row = this.#lifecycle.publishSelf();
    if (row !== undefined) this.membersChanged({ ...noNews(), rows: [row] });
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

  /** The member table changed: tell everybody the news now rather than at a mismatch of hashes. */
  membersChanged(news: MembersNews, from?: Peer): void {
    const core = this.#core;
    this.#lifecycle.storeMembers();
    const excluded = core.exclusion.decide();
    if (core.members.isRemoved(core.identity.origin)) this.#lifecycle.expel();
    else if (core.members.isExcluded(core.identity.origin))
      this.#lifecycle.outdate(from?.name ?? '', EXCLUDED_TEXT);
    if (core.identity.uid !== '')
      for (const peer of core.linked()) if (peer !== from) core.send(peer, { type: 'members', ...news });
    if (excluded.length > 0) return this.membersChanged({ ...noNews(), excluded });
    this.#forgetStrangers();
    this.#links.reconcile();
  }

  onMembers(peer: Peer, message: Members): void {
    const { identity, members } = this.#core;
    // Rows of another founding are not ours to keep; a newcomer asks again once it belongs.
    if (identity.uid === '' || peer.clusterUid !== identity.uid) return;
    const news = noNews();
    if (members.merge(message.rows, message.removed, message.excluded, news)) this.membersChanged(news, peer);
  }

  onResend(peer: Peer, message: Resend): void {
    if (message.members) this.#tellMembers(peer, true);
    if (message.vector) this.#beat(peer, true);
  }

  onBeat(peer: Peer, beat: Beat): void {
    const core = this.#core;
    if (!this.#links.checkClock(peer, beat.wallMs)) return;
    core.detector.heard(peer.origin, core.now.mono);
    core.exclusion.heard(peer.origin, beat.wallMs);
    peer.beatAt = core.now.mono;
    peer.roundTripMs ??= core.now.mono - peer.openedAt;
    const joined = peer.clusterUid !== beat.clusterUid && beat.clusterUid === core.identity.uid;
    peer.phase = beat.phase;
    peer.clusterUid = beat.clusterUid;
    peer.alone = beat.alone;
    peer.membersHash = beat.membersHash;
    if (beat.whole) peer.vector.clear();
    for (const [origin, head, top] of beat.vector) peer.vector.set(origin, head, top);
    this.#lifecycle.consider(peer);
    this.#considerHorizon(peer, beat);
    if (peer.clusterUid === core.identity.uid && beat.membersHash === core.members.hash)
      this.#lifecycle.met();
    this.#compare(peer, beat);
    if (joined) this.#resend(peer);
    if (peer.vector.top(core.identity.origin) > core.taken.top(core.identity.origin)) this.#originLost();
  }

  #considerHorizon(peer: Peer, { report, membersHash, phase }: Beat): void {
    const { identity, horizon } = this.#core;
    if (identity.uid === '' || peer.clusterUid !== identity.uid) return;
    if (horizon.isBehind(peer, report)) this.#lifecycle.outdate(peer.name);
    horizon.onReport(peer.origin, report, membersHash, phase === 'ready');
  }

  /** Someone holds writes of this origin that this store does not: it lost them, so it may not number on. */
  #originLost(): void {
    this.#lifecycle.mintOrigin();
    this.#links.closeAll('a new origin');
  }

  /** Whoever is to hear of no change hears the same as the others: that is put into bytes once. */
  #beatAll(): void {
    const unchanged: LinkId[] = [];
    for (const peer of this.#core.linked()) {
      if (peer.dirty.size > 0) this.#beat(peer, false);
      else {
        unchanged.push(peer.link);
        this.#prune(peer);
      }
    }
    if (unchanged.length === 0) return;
    this.#core.emit({ type: 'send', links: unchanged, message: this.#beatOf([], false), bestEffort: false });
  }

  #beat(peer: Peer, whole: boolean): void {
    const { written } = this.#core;
    const vector: VectorEntry[] = [];
    if (whole) vector.push(...written.entries());
    else for (const origin of peer.dirty) vector.push([origin, written.head(origin), written.top(origin)]);
    peer.dirty.clear();
    this.#core.send(peer, this.#beatOf(vector, whole));
    this.#prune(peer);
  }

  #beatOf(vector: VectorEntry[], whole: boolean): Beat {
    const { written, identity, members, now, horizon } = this.#core;
    return {
      type: 'beat',
      wallMs: now.wall,
      phase: this.#lifecycle.peerPhase,
      clusterUid: identity.uid,
      alone: this.#lifecycle.alone,
      vectorHash: written.hash,
      membersHash: members.hash,
      whole,
      vector,
      report: horizon.report,
    };
  }

  #prune(peer: Peer): void {
    if (peer.unwanted.size === 0) return;
    this.#core.send(peer, { type: 'prune', origins: [...peer.unwanted] });
    peer.unwanted.clear();
  }

  #tellMembers(peer: Peer, all: boolean): void {
    const { members, identity, config } = this.#core;
    if (identity.uid === '') return;
    const own = members.row(config.name);
    const rows = all ? members.rows() : own === undefined ? [] : [own];
    const [removed, excluded] = all ? [members.removed(), members.excluded()] : [[], []];
    this.#core.send(peer, { type: 'members', rows, removed, excluded });
  }

  /** Asks for the whole of what differs. */
  #compare(peer: Peer, beat: Beat): void {
    const core = this.#core;
    const { identity, members, now, written } = core;
    if (peer.vector.hash !== beat.vectorHash && beat.vectorHash === written.hash) {
      peer.vector.clear();
      for (const [origin, head, top] of written.entries()) peer.vector.set(origin, head, top);
    }
    const vector = peer.vector.hash !== beat.vectorHash && now.mono - peer.resendAskedAt >= RESEND_MS;
    const sameCluster = identity.uid !== '' && peer.clusterUid === identity.uid;
    const table = sameCluster && beat.membersHash !== members.hash && this.#mayAskForMembers(peer);
    if (!table && beat.membersHash === members.hash) peer.membersDifferSince = undefined;
    if (!vector && !table) return;
    if (vector) peer.resendAskedAt = now.mono;
    core.send(peer, { type: 'resend', vector, members: table });
    if (table) this.#tellMembers(peer, true);
  }

  /**
   * A large table is asked for from one peer at a time, and, by a member that has it already, only after the
   * difference has lasted: the row that makes it is on its way by itself.
   */
  #mayAskForMembers(peer: Peer): boolean {
    const { now, options, identity } = this.#core;
    peer.membersDifferSince ??= now.mono;
    const patience = isSparse(this.#core) && identity.phase === 'ready' ? options.beatMs * 2 : 0;
    if (now.mono - peer.membersDifferSince < patience) return false;
    const askedAt = isSparse(this.#core) ? this.#membersAskedAt : peer.membersAskedAt;
    if (now.mono - askedAt < RESEND_MS) return false;
    this.#membersAskedAt = now.mono;
    peer.membersAskedAt = now.mono;
    return true;
  }

  get #pulseMs(): number {
    const { members, options } = this.#core;
    return options.beatMs * Math.max(1, members.active().length / PULSES_PER_BEAT);
  }

  /** This node's own sign of life, newer than `known`. */
  #pulse(known: number): void {
    const { identity, now } = this.#core;
    const { origin } = identity;
    const counter = Math.max(known, this.#pulses.get(origin)?.counter ?? now.wall) + 1;
    this.#pulses.set(origin, { counter, suspect: false });
    this.#clock.pulsed(now.mono, this.#pulseMs);
    this.#flood(this.#ownPulse(counter));
  }

  #ownPulse(counter: number): Pulse {
    const { identity, members, horizon } = this.#core;
    const membersHash = identity.phase === 'ready' ? members.hash : '';
    return {
      type: 'pulse',
      origin: identity.origin,
      counter,
      suspect: false,
      membersHash,
      report: membersHash === '' ? NO_REPORT : horizon.report,
    };
  }

  onPulse(peer: Peer, pulse: Pulse): void {
    const core = this.#core;
    const { origin, counter, suspect } = pulse;
    if (core.identity.uid === '' || peer.clusterUid !== core.identity.uid) return;
    const known = this.#pulses.get(origin);
    if (origin === core.identity.origin) {
      // Suspected, or its clock was set back since it last pulsed: either way it is to say something newer.
      if (suspect ? counter >= (known?.counter ?? 0) : counter > (known?.counter ?? 0)) this.#pulse(counter);
      return;
    }
    if (!core.members.isMember(origin)) return;
    const fresh =
      known === undefined ||
      counter > known.counter ||
      (counter === known.counter && suspect && !known.suspect);
    if (fresh) return this.#take(peer, pulse);
    if (counter === known.counter && !suspect) this.#compete(peer, origin);
    else if (peer.origin === origin && counter < known.counter)
      core.send(peer, hearsay(origin, known.counter, false));
  }

  #copy(from: Peer): Copy {
    return { from, at: this.#core.now.mono + HOP_MS };
  }

  /** One more copy of the newest pulse. */
  #compete(peer: Peer, origin: OriginId): void {
    const copy = this.#copy(peer);
    const held = this.#held.get(origin);
    if (held === undefined) this.#trees.followed(peer, origin, copy.at);
    else held.others.push(copy);
  }

  #take(from: Peer, pulse: Pulse): void {
    const { detector, now, options, timers } = this.#core;
    const { origin, counter, suspect, report, membersHash } = pulse;
    this.#pulses.set(origin, { counter, suspect });
    if (membersHash !== '') this.#core.horizon.onReport(origin, report, membersHash, true);
    const isNeighbour = this.#core.linked().some((peer) => peer.origin === origin);
    if (!suspect) {
      this.#lost.delete(origin);
      this.#core.exclusion.heard(origin);
      if (!isNeighbour) detector.heard(origin, now.mono, this.#pulseMs);
    } else if (!isNeighbour || (detector.silence(origin, now.mono) ?? 0) > options.beatMs * 2)
      detector.accuse(origin);
    if (suspect) return this.#flood(pulse, from);
    const first = this.#copy(from);
    this.#held.set(origin, { pulse, first, others: [] });
    timers.atMost('pulses', first.at);
  }

  /** Held pulses count now: they shape the tree, and go on. */
  relayPulses(): void {
    const { now, timers, peers } = this.#core;
    for (const [origin, { pulse, first, others }] of this.#held) {
      if (first.at > now.mono) {
        timers.atMost('pulses', first.at);
        continue;
      }
      this.#held.delete(origin);
      for (const { from, at } of [first, ...others]) {
        if (!peers.has(from.link)) continue;
        if (from === first.from) this.#trees.led(from, origin, at);
        else this.#trees.followed(from, origin, at);
      }
      this.#flood(pulse, first.from);
    }
  }

  /** Links that were lost for too long. */
  #accuse(): void {
    const { now, options, detector, members } = this.#core;
    for (const [origin, heardAt] of this.#lost) {
      if (now.mono - heardAt < PHI_SUSPECT * options.beatMs) continue;
      this.#lost.delete(origin);
      const known = this.#pulses.get(origin);
      if (!members.isMember(origin) || known?.suspect === true) continue;
      const counter = known?.counter ?? 0;
      this.#pulses.set(origin, { counter, suspect: true });
      detector.accuse(origin);
      this.#flood(hearsay(origin, counter, true));
    }
  }

  #flood(pulse: Pulse, except?: Peer): void {
    const peers = this.#core
      .partners()
      .filter(
        (peer) => peer !== except && !peer.congested && (pulse.suspect || peer.origin !== pulse.origin),
      );
    if (peers.length === 0) return;
    const links = peers.map((peer) => peer.link);
    this.#core.emit({ type: 'send', links, message: pulse, bestEffort: true });
  }

  /** Drops what is kept of origins that are no members any more. */
  #forgetStrangers(): void {
    const { members, detector, identity } = this.#core;
    for (const origin of [...this.#pulses.keys()]) {
      if (origin === identity.origin || members.isMember(origin)) continue;
      this.#pulses.delete(origin);
      this.#lost.delete(origin);
      detector.forget(origin);
    }
    this.#trees.sweep();
  }
}
