/**
 * Whom this node gets each origin's frames from, in a mesh that is not full: one broadcast tree per origin (after
 * Leitão et al., "Epidemic Broadcast Trees", 2007), so that each payload comes about once.
 *
 * The tree of an origin is found by its pulses, which are small and flooded over every link: the peer that
 * brings a pulse first is on the quickest path from the origin, and becomes the parent. Everybody else is asked
 * to announce only (`prune`), before there ever was a payload to get twice. The next to bring it is the spare; it
 * gets its own copy from elsewhere, so it is never downstream of this node. When the link to the parent goes, the
 * spare is told to take over at once (`graft`). A parent that is overtaken in two rounds running is replaced:
 * once may be a lost packet.
 *
 * Where this node passes an origin's frames on to several others, its spare sends them, too: a packet lost near
 * the root of a tree would else make many below wait until they fetch what was offered to them (offers.ts). Leaves,
 * which are most, have one way in.
 *
 * Nothing here decides about correctness: a wrong tree costs a duplicate, or a catch-up session.
 */
import { type Core, isSparse } from './core.js';
import type { Peer } from './peer.js';
import type { OriginId } from './types.js';

/** A parent whose pulse comes this much later than the first one, ms, was overtaken. Less is jitter. */
const OVERTAKEN_MS = 10;
/** Rounds in a row after which it is replaced. */
const ROUNDS_MAX = 2;

/**
 * Peers that want an origin's payloads from this node, from which on it has two ways in itself. Fewer make for
 * somewhat earlier payloads, and many more that come twice.
 */
const CHILDREN_MIN = 3;

/** Links on which a member without trees asks for everything. */
const GRAFTED_WHOLE_MAX = 2;

interface Branch {
  /** Get this origin's payloads from here. Few, as a rule. */
  children: Peer[];
  /** Sends this origin's payloads. */
  parent: Peer | undefined;
  spare: Peer | undefined;
  /** Sent the latest payload first, unasked. */
  stranger: Peer | undefined;
  /** The spare sends them, too, since others get them from here. */
  twofold: boolean;
  /** When the latest round of the pulse began, and whether the parent brought it in time. */
  firstAt: number;
  /** When the round before began. */
  previousAt: number;
  inTime: boolean;
  /** Rounds in a row in which the parent was overtaken. */
  overtaken: number;
  rounds: number;
}

export class Trees {
  readonly #core: Core;
  /** Of members only. */
  readonly #branches = new Map<OriginId, Branch>();
  /** Where a peer may have a part: so that the end of a link, which is often a mere probe, costs what it had. */
  readonly #parts = new Map<Peer, Set<OriginId>>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** Origins that a tree is kept for. */
  get size(): number {
    return this.#branches.size;
  }

  /** Whom to pass the origin's payloads on to. Everybody, until they say otherwise. */
  children(origin: OriginId): readonly Peer[] {
    const { uid } = this.#core.identity;
    const branch = this.#branch(origin);
    if (branch === undefined) return this.#core.partners().filter((peer) => peer.origin !== origin);
    return branch.children.filter((peer) => peer.clusterUid === uid);
  }

  /**
   * A link was accepted. In a full mesh it carries everything at first. Otherwise either end takes the other to be
   * supplied, unless it says that it is not.
   */
  accepted(peer: Peer): void {
    const core = this.#core;
    if (!isSparse(core)) return this.#wanted(peer, this.#branches.keys());
    // A newcomer has no trees. Two ways in will do for it: everybody else offers.
    const isNew = this.#branches.size * 2 < core.members.active().length;
    if (isNew && core.linked().length <= GRAFTED_WHOLE_MAX) core.send(peer, { type: 'graft', origins: [] });
  }

  /** The link is gone: spares take over. */
  gone(peer: Peer): void {
    const parts = this.#parts.get(peer);
    this.#parts.delete(peer);
    for (const origin of parts ?? []) {
      const branch = this.#branches.get(origin);
      if (branch === undefined) continue;
      if (branch.children.includes(peer)) branch.children = branch.children.filter((child) => child !== peer);
      if (branch.stranger === peer) branch.stranger = undefined;
      if (branch.spare === peer) branch.spare = undefined;
      if (branch.parent === peer) this.#turnToSpare(branch, origin);
    }
  }

  /** The peer depends on this node for these origins (none: for all); so this node cannot depend on the peer. */
  grafted(peer: Peer, origins: readonly OriginId[]): void {
    if (origins.length === 0) return this.#wanted(peer, this.#branches.keys());
    for (const origin of origins) {
      const branch = this.#branch(origin);
      if (branch === undefined) continue;
      if (branch.spare === peer) branch.spare = undefined;
      if (branch.parent === peer) this.#turnToSpare(branch, origin);
    }
    this.#wanted(peer, origins);
  }

  /** The peer gets these from elsewhere. */
  pruned(peer: Peer, origins: readonly OriginId[]): void {
    for (const origin of origins) {
      const branch = this.#branch(origin);
      if (branch !== undefined) branch.children = branch.children.filter((child) => child !== peer);
    }
  }

  /** The peer had to ask for what it should have been sent: send it more of that from now on. */
  pulled(peer: Peer, heads: ReadonlyMap<OriginId, number>): void {
    const { written } = this.#core;
    const missed: OriginId[] = [];
    for (const origin of this.#branches.keys())
      if ((heads.get(origin) ?? 0) < written.head(origin)) missed.push(origin);
    this.#wanted(peer, missed);
  }

  /** The first copy of a payload came from this peer. */
  supplied(peer: Peer, origin: OriginId): void {
    const branch = this.#branch(origin);
    if (branch === undefined || this.#isSupplier(branch, peer)) return;
    // Twice in a row, and nothing from the parent in between: it does not know that it is the parent.
    if (branch.parent === undefined || branch.stranger === peer) {
      this.#setParent(branch, peer, origin);
      branch.stranger = undefined;
    } else {
      branch.stranger = peer;
      this.#takesPart(peer, origin);
    }
  }

  /** A payload came once more: whether from a peer that is meant to send it, too. */
  isWelcome(peer: Peer, origin: OriginId): boolean {
    const branch = this.#branches.get(origin);
    if (branch === undefined || !this.#isSupplier(branch, peer)) return false;
    if (branch.stranger !== undefined && branch.parent === peer) {
      this.#prune(branch.stranger, origin);
      branch.stranger = undefined;
    }
    return true;
  }

  /** A new pulse of the origin came, first from this peer, at this monotonic time. */
  led(peer: Peer, origin: OriginId, at: number): void {
    const branch = this.#branch(origin);
    if (branch !== undefined) this.#round(branch, peer, origin, at);
  }

  /** The newest pulse of the origin came from this peer, too. */
  followed(peer: Peer, origin: OriginId, at: number): void {
    const branch = this.#branch(origin);
    if (branch !== undefined) this.#follow(branch, peer, origin, at);
  }

  /** Drops what is kept of origins that are no members, and of links that are gone. */
  sweep(): void {
    const { members, peers } = this.#core;
    for (const peer of [...this.#parts.keys()]) if (peers.get(peer.link) !== peer) this.#parts.delete(peer);
    for (const origin of [...this.#branches.keys()])
      if (!members.isMember(origin)) this.#branches.delete(origin);
  }

  #branch(origin: OriginId): Branch | undefined {
    const known = this.#branches.get(origin);
    const { members, identity } = this.#core;
    if (known !== undefined || origin === identity.origin || !members.isMember(origin)) return known;
    const branch: Branch = {
      children: this.#core.linked().filter((peer) => peer.origin !== origin),
      parent: undefined,
      spare: undefined,
      stranger: undefined,
      twofold: false,
      firstAt: 0,
      previousAt: 0,
      inTime: true,
      overtaken: 0,
      rounds: 0,
    };
    this.#branches.set(origin, branch);
    for (const peer of branch.children) this.#takesPart(peer, origin);
    return branch;
  }

  #round(branch: Branch, peer: Peer, origin: OriginId, at: number): void {
    if (branch.rounds > 0 && !branch.inTime) branch.overtaken += 1;
    branch.rounds += 1;
    branch.previousAt = branch.firstAt;
    branch.firstAt = at;
    branch.inTime = branch.parent === undefined || branch.parent === peer;
    if (branch.parent === undefined) this.#adopt(branch, peer, origin);
    else if (branch.parent === peer) branch.overtaken = 0;
    else if (branch.overtaken >= ROUNDS_MAX) this.#replace(branch, peer, origin);
    // In the first round nobody has said yet what it does not want.
    if (branch.rounds > 1) this.#secure(branch, origin);
  }

  /** Asks for a second way in, or does without it, as others depend on this node or not. */
  #secure(branch: Branch, origin: OriginId): void {
    const twofold = branch.children.length >= CHILDREN_MIN;
    if (twofold === branch.twofold) return;
    branch.twofold = twofold;
    if (branch.spare === undefined) return;
    if (twofold) this.#graft(branch.spare, [origin]);
    else this.#prune(branch.spare, origin);
  }

  #follow(branch: Branch, peer: Peer, origin: OriginId, at: number): void {
    if (peer === branch.parent) {
      if (at - branch.firstAt > OVERTAKEN_MS) return;
      branch.inTime = true;
      branch.overtaken = 0;
      return;
    }
    // Whoever takes this origin from here is no second way to it.
    if (branch.spare === undefined && !branch.children.includes(peer)) {
      branch.spare = peer;
      this.#takesPart(peer, origin);
      if (branch.twofold) this.#graft(peer, [origin]);
    }
    // Whoever has had no answer on this link yet may take it that all its payloads are wanted.
    const isNew = branch.rounds === 1 || peer.openedAt >= branch.previousAt;
    if (isNew && !this.#isSupplier(branch, peer)) this.#prune(peer, origin);
  }

  #adopt(branch: Branch, peer: Peer, origin: OriginId): void {
    this.#setParent(branch, peer, origin);
    if (branch.spare === peer) branch.spare = undefined;
  }

  /** Without a spare, the next pulse finds a parent. */
  #turnToSpare(branch: Branch, origin: OriginId): void {
    const { spare } = branch;
    branch.parent = undefined;
    branch.spare = undefined;
    branch.overtaken = 0;
    if (spare === undefined) return;
    this.#setParent(branch, spare, origin);
  }

  #replace(branch: Branch, peer: Peer, origin: OriginId): void {
    const old = branch.parent!;
    this.#setParent(branch, peer, origin);
    if (branch.spare === peer || branch.spare === undefined) branch.spare = old;
    branch.overtaken = 0;
    branch.inTime = true;
    if (!this.#isSupplier(branch, old)) this.#prune(old, origin);
  }

  /**
   * Nothing goes back to where it comes from, even where another supplier is first once. The peer is told even
   * if it sends already: it must not depend on this node in turn.
   */
  #setParent(branch: Branch, peer: Peer, origin: OriginId): void {
    branch.parent = peer;
    this.#takesPart(peer, origin);
    branch.children = branch.children.filter((child) => child !== peer);
    if (peer.origin !== origin) this.#graft(peer, [origin]);
  }

  #takesPart(peer: Peer, origin: OriginId): void {
    const parts = this.#parts.get(peer);
    if (parts === undefined) this.#parts.set(peer, new Set([origin]));
    else parts.add(origin);
  }

  #isSupplier(branch: Branch, peer: Peer): boolean {
    return branch.parent === peer || (branch.twofold && branch.spare === peer);
  }

  /** The origin has its own, and nothing goes back to where it comes from. */
  #wanted(peer: Peer, origins: Iterable<OriginId>): void {
    for (const origin of origins) {
      const branch = this.#branches.get(origin);
      if (branch === undefined || branch.parent === peer || peer.origin === origin) continue;
      if (branch.children.includes(peer)) continue;
      branch.children.push(peer);
      this.#takesPart(peer, origin);
    }
  }

  #graft(peer: Peer, origins: readonly OriginId[]): void {
    for (const origin of origins) peer.unwanted.delete(origin);
    this.#core.send(peer, { type: 'graft', origins });
  }

  /** The origin itself is never pruned: acknowledgements answer its frames. */
  #prune(peer: Peer, origin: OriginId): void {
    if (peer.origin !== origin) peer.unwanted.add(origin);
  }
}
