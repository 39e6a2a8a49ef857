/**
 * The garbage horizon: up to which time tombstones and ended entries may leave the store, and which stores come from
 * before that and may not be listened to any more.
 *
 * **The clock of acceptance.** Each store has a clock that never goes back, restarts included: what it tells others of
 * it is never beyond a reservation on its disk, from which the next start goes on. It steps once a beat. It is no clock
 * for stamps, and need not be right: what follows compares a store's clock with itself only. It follows the wall clock
 * while nothing speaks against that one.
 *
 * **The door.** A write whose stamp is not later than clock - W (`lateRetryMs`) is refused when it would get its sequence
 * number, and nowhere else. So whatever is accepted from clock c on has a stamp above c - W.
 *
 * **Reports.** With every beat, or pulse, a member says (c, a): "what I accept above sequence number a, I accept at c or
 * later". It stays true when a tail of the store is lost: its numbers are given again at a later clock. Whoever has
 * written the origin's head up to a holds everything of it with a stamp up to c - W: asOf of that origin is c.
 *
 * **asOf.** The least of them over all members is the store's asOf: everything with a stamp up to asOf - W that was ever
 * accepted, or ever will be, was written here, or what superseded it. Ever, since it rises only under two conditions:
 *
 *   - All members have reported by the very member table known here. A member unknown here was let in by one that is
 *     known, or by one that was let in so; its reports name another table from then on, so that those counted here come
 *     from before. And the newcomer starts with a clock not below its sponsor's: all that it ever accepts is later.
 *   - All members hold the same of all origins that have ended, and these are sealed. A dead host's last deletion may be
 *     on one disk only, and then there is one member that reports an origin which is not settled.
 *
 * So a new origin does not lower asOf, and asOf is one number on the disk, rather than one for each origin.
 *
 * **The horizon.** What all members have reported, by the table known here, less W. A tombstone up to it is on all disks,
 * as are the deletions of whatever it superseded, and nothing that it would have to win over can be accepted any more.
 * Should an older record of its key come from anywhere, a late frame for instance, its dot is at or below the head of its
 * origin, and nothing is here: it was superseded (replication.ts). A member that is silent, or bootstraps, holds the
 * horizon up. Each report tells an asOf that is on the disk.
 *
 * **The fence.** A store whose asOf is less than another's `collected` plus W, the time of the latest entry that was
 * removed there, may hold what was deleted and collected without it. The batch that removes it, or one before, stores
 * that time. It never befalls a counted member, as the horizon rests on its own report; it befalls one that was excluded, a
 * restored backup, a copy. Such a store is `outdated`. A newcomer that has nothing yet is not; one that has copied a
 * part, and then slept, is.
 */
import { type Core, decodeMeta, encodeMeta } from './core.js';
import type { HorizonReport } from './messages.js';
import { OriginProgress } from './origin-progress.js';
import type { Peer } from './peer.js';
import { UNSETTLED } from './sealing.js';
import type { MemberRow, OriginId } from './types.js';

/** A reservation is at most so far ahead, ms; at most a quarter of W. A new one is stored before the last quarter of it. */
const RESERVE_MS_MAX = 10_000;

export const NO_REPORT: HorizonReport = { clock: 0, accepted: 0, asOf: 0, collected: 0, ended: 0 };

interface StoredHorizon {
  /** No time beyond this was ever told to anybody. */
  clock: number;
  /** Absent: the store holds nothing yet. */
  asOf?: number | undefined;
  /** Of all that was collected from this store, and from those it was copied from, the greatest time. */
  collected: number;
  /** What it held, as asOf, when it founded its cluster, should it have to give way to another one. */
  since?: number | undefined;
  /** It has not gone on under its origin, and has not met anybody since: its member table may be an old one. */
  alone?: true;
}

/** Up to when a store had collected, ms; 0: it had not. */
export function storedCollected(meta: ReadonlyMap<string, Uint8Array>): number {
  return decodeMeta<StoredHorizon>(meta.get('horizon'))?.collected ?? 0;
}

/** What a snapshot's server says of itself, as of the snapshot. */
export type Handover = Pick<HorizonReport, 'clock' | 'asOf' | 'collected'>;

/** Why the horizon stands still. */
export type BlockedWhy =
  /** The member has not reported, or not for long. */
  | 'silent'
  /** It judges by another member table than this node. */
  | 'another table'
  | 'bootstrapping'
  /** It, or this node, lacks writes of some member. */
  | 'behind'
  /** Members hold writes of origins that have ended (a removed member, a host with a new disk), and not all the same. */
  | 'unsealed origin'
  /** This node does not know yet who the members are, or whether it has missed a forgetting. */
  | 'in doubt';

export interface Blocker {
  /** Name of the member; the origin, if no member bears it. */
  readonly who: string;
  readonly why: BlockedWhy;
  /** For how long, ms. */
  readonly forMs: number;
}

interface Heard {
  readonly report: HorizonReport;
  readonly membersHash: string;
  readonly isReady: boolean;
  /** Monotonic ms. */
  readonly at: number;
}

export class Horizon {
  readonly #core: Core;
  /** The clock of acceptance, ms. */
  #clock = 0;
  #asOf: number | undefined;
  #horizon = 0;
  #collected = 0;
  #since: number | undefined;
  /** Since when it has been in doubt whether it is the only member, monotonic ms. */
  #aloneSince: number | undefined;
  /** As it is on the disk. */
  #stored: StoredHorizon = { clock: 0, collected: 0 };
  /** Members, and what of them is covered here. */
  readonly #origins = new Map<OriginId, OriginProgress>();
  readonly #heard = new Map<OriginId, Heard>();
  #report = NO_REPORT;
  #reportedBy = '';
  /** Since when each of them holds the horizon up, monotonic ms: by name and reason. */
  #blockers = new Map<string, { who: string; why: BlockedWhy; since: number }>();
  /** A client's stamp up to here is too old, ms. */
  floor = Number.NEGATIVE_INFINITY;

  constructor(core: Core) {
    this.#core = core;
  }

  start(): void {
    const { meta } = this.#core.deps.recovered;
    const stored = decodeMeta<StoredHorizon>(meta.get('horizon'));
    if (stored !== undefined) {
      this.#stored = stored;
      this.#clock = stored.clock;
      this.#asOf = stored.asOf;
      this.#collected = stored.collected;
      this.#since = stored.since;
      if (stored.alone === true) this.doubt();
    } else if (meta.has('node')) this.#asOf = 0;
    this.#advance();
    this.store();
    this.#state();
  }

  // What the other parts ask.

  /**
   * Entries that are over (tombstones by their stamp, others by the greater of stamp and expiry) may go up to here, ms;
   * 0: none. Whoever removes some says so before, by `collects`.
   */
  get collectable(): number {
    return this.#core.identity.phase === 'ready' ? this.#horizon : 0;
  }

  /** Entries are about to be removed, the latest of which was over at this time, ms. */
  collects(upTo: number): void {
    if (upTo <= this.#collected) return;
    this.#collected = upTo;
    this.store();
  }

  /** The latest of all that may be gone from here without a trace was over by then, ms; 0: nothing is. */
  get collected(): number {
    return this.#collected;
  }

  /** Everything with a stamp up to this less W is here, ms; 0: unknown. */
  get asOf(): number {
    return this.#stored.asOf ?? 0;
  }

  /** Why no stamp can be given: it would not pass the door. */
  get setBackText(): string {
    const behindMs = Math.round(this.#clock - this.#core.now.wall);
    return `this host's clock is ${behindMs} ms behind what it was, longer than writes may be late: correct the clock, then retry`;
  }

  /** What this node says of itself with its beats. */
  get report(): HorizonReport {
    // It is made by the member table that it is sent with.
    if (this.#reportedBy !== this.#core.members.hash) this.#state();
    return this.#report;
  }

  /** What a source tells whoever copies from it: of a snapshot that is taken now. */
  get handover(): Handover {
    return { clock: Math.floor(this.#clock), asOf: this.asOf, collected: this.#stored.collected };
  }

  /** Who holds the horizon up; the longest first. Empty: nobody does for more than a few beats. */
  get blockedBy(): Blocker[] {
    const { now } = this.#core;
    return [...this.#blockers.values()]
      .map(({ who, why, since }) => ({ who, why, forMs: Math.round(now.mono - since) }))
      .filter(({ forMs }) => forMs > this.#patienceMs)
      .sort((a, b) => b.forMs - a.forMs);
  }

  // Course of this store.

  /** A new cluster begins with what is here, or an operator vouches for it. */
  founded(): void {
    this.#advance();
    this.#asOf ??= Math.floor(this.#clock);
    this.#since = this.#asOf;
    this.#aloneSince = undefined;
    this.store();
  }

  /** This store does not go on where it left off: others may have joined since. */
  doubt(): void {
    this.#aloneSince = this.#core.now.mono;
  }

  /** Gives way to another founding, or joins: of what happens there nothing is known here. */
  adopted(): void {
    this.#asOf = this.#core.taken.size === 0 ? undefined : Math.min(this.#asOf ?? 0, this.#since ?? 0);
    this.#since = undefined;
    this.#collected = 0;
    this.#horizon = 0;
    this.#stored = { ...this.#stored, asOf: this.#asOf, collected: 0 };
    this.#origins.clear();
    this.#heard.clear();
    this.store();
    this.#state();
  }

  /** A part of this store is copied from a snapshot of which its source says this. */
  copies(from: Handover): void {
    this.#clock = Math.max(this.#clock, from.clock);
    this.#asOf = Math.min(this.#asOf ?? from.asOf, from.asOf);
    this.#collected = Math.max(this.#collected, from.collected);
    this.#advance();
    this.store();
  }

  /**
   * Whoever is the only member as far as it knows takes its own word for everything. A copied folder may be older than
   * the members that joined, and those look for it: silence for as long as a lease says that there are none.
   */
  #mayHaveForgotten(): boolean {
    const { members, now, options } = this.#core;
    if (this.#aloneSince === undefined) return false;
    if (members.active().length === 1 && now.mono - this.#aloneSince < options.leaseMs) return true;
    this.#aloneSince = undefined;
    return false;
  }

  /** Whoever becomes ready does so in the batch that stores this: from then on it tells its clock to joiners. */
  store(): void {
    const { queue, identity } = this.#core;
    const { uid } = identity;
    const next: StoredHorizon = {
      clock: Math.max(this.#stored.clock, Math.ceil(this.#clock + this.#reserveMs)),
      asOf: this.#asOf,
      collected: this.#collected,
      since: this.#since,
      ...(this.#aloneSince === undefined ? {} : { alone: true }),
    };
    queue.batch().meta.set('horizon', encodeMeta(next));
    // What it rests on is written in this batch or before it, and so as durable as this is.
    this.#core.afterDurable(() => {
      // Nothing but the clock counts in another founding, should it have given way to one meanwhile.
      this.#stored = identity.uid === uid ? next : { ...this.#stored, clock: next.clock };
      this.#state();
    });
  }

  beat(): void {
    const { identity, taken } = this.#core;
    this.#advance();
    this.#progress(identity.origin).note(this.#told, taken.head(identity.origin));
    this.#evaluate();
    this.#state();
  }

  /** At the end of a beat: copies are compared with nothing on its way to the disk. */
  storeIfDue(): void {
    if (this.#clock > this.#stored.clock - this.#reserveMs / 4) this.store();
  }

  // Reports.

  /** A member's report came, from itself or by others. */
  onReport(origin: OriginId, report: HorizonReport, membersHash: string, isReady: boolean): void {
    const { members, now, identity } = this.#core;
    if (origin === identity.origin || !members.isMember(origin)) return;
    const known = this.#heard.get(origin);
    if (known !== undefined && known.report.clock > report.clock) return;
    this.#heard.set(origin, { report, membersHash, isReady, at: now.mono });
    if (membersHash === members.hash) this.#progress(origin).note(report.clock, report.accepted);
  }

  /** Whether this store has missed what the peer has collected. Notes whether the opposite is the case. */
  isBehind(peer: Peer, report: HorizonReport): boolean {
    const { lateRetryMs } = this.#core.options;
    const collected = this.#collected;
    peer.isOutdated = peer.phase === 'ready' && collected > 0 && report.asOf < collected + lateRetryMs;
    return this.#asOf !== undefined && report.collected > 0 && this.#asOf < report.collected + lateRetryMs;
  }

  // Within.

  get #reserveMs(): number {
    return Math.min(RESERVE_MS_MAX, this.#core.options.lateRetryMs / 4);
  }

  /** The clock as others may hear it, whole ms. */
  get #told(): number {
    return Math.floor(Math.min(this.#clock, this.#stored.clock));
  }

  /** Reports are this old at most while all is well, ms: those of a sparse mesh come with the pulses. */
  get #patienceMs(): number {
    const { options, members } = this.#core;
    return 2 * this.#reserveMs + options.beatMs * Math.max(5, members.active().length / 2);
  }

  #advance(): void {
    const { now, hlc, hasDoubtfulClock, options } = this.#core;
    this.#clock = Math.max(this.#clock, hlc.ms, hasDoubtfulClock ? 0 : now.wall);
    this.floor = this.#clock - options.lateRetryMs;
  }

  #progress(origin: OriginId): OriginProgress {
    let progress = this.#origins.get(origin);
    if (progress === undefined) this.#origins.set(origin, (progress = new OriginProgress()));
    return progress;
  }

  #evaluate(): void {
    const { identity, members, written, sealing, options } = this.#core;
    for (const origin of [...this.#origins.keys()])
      if (!members.isMember(origin)) this.#origins.delete(origin);
    for (const origin of [...this.#heard.keys()]) if (!members.isMember(origin)) this.#heard.delete(origin);
    const isCounted =
      identity.phase === 'ready' &&
      !identity.unmet &&
      members.isMember(identity.origin) &&
      sealing.standing.proven &&
      !this.#mayHaveForgotten();
    const { ended } = sealing;
    let isComplete = isCounted;
    let isSettled = ended !== UNSETTLED;
    let covered = Number.POSITIVE_INFINITY;
    let reported = this.asOf;
    for (const { origin } of members.active()) {
      covered = Math.min(covered, this.#progress(origin).settle(written.head(origin)));
      if (origin === identity.origin) continue;
      const heard = this.#heard.get(origin);
      isComplete &&= heard !== undefined && heard.membersHash === members.hash && heard.isReady;
      isSettled &&= heard?.report.ended === ended;
      reported = Math.min(reported, heard?.report.asOf ?? 0);
    }
    if (isComplete) this.#horizon = Math.max(this.#horizon, reported - options.lateRetryMs);
    if (isComplete && isSettled) this.#asOf = Math.max(this.#asOf ?? 0, covered);
    this.#watch(isCounted);
  }

  #state(): void {
    const { identity, taken, sealing, members } = this.#core;
    const clock = this.#told;
    const { collected } = this.#stored;
    this.#reportedBy = members.hash;
    this.#report = {
      clock,
      accepted: taken.head(identity.origin),
      asOf: Math.min(clock, this.asOf),
      collected: Math.min(clock, collected),
      ended: sealing.ended,
    };
  }

  // Who holds it up.

  #watch(isCounted: boolean): void {
    const { members, identity, now, config } = this.#core;
    const found: { who: string; why: BlockedWhy }[] = [];
    if (!isCounted && identity.phase === 'ready') found.push({ who: config.name, why: 'in doubt' });
    for (const row of members.active()) {
      const why = row.origin === identity.origin ? this.#ownTrouble() : this.#troubleOf(row);
      if (why !== undefined) found.push({ who: row.name, why });
    }
    const before = this.#blockers;
    this.#blockers = new Map();
    // Whoever waits for the silent is behind, too.
    const isFirst = found.every(({ why }) => why === 'behind');
    for (const { who, why } of found) {
      if (why === 'behind' && !isFirst) continue;
      const name = `${why} ${who}`;
      this.#blockers.set(name, before.get(name) ?? { who, why, since: now.mono });
    }
  }

  #ownTrouble(): BlockedWhy | undefined {
    const { identity, sealing } = this.#core;
    if (identity.phase === 'bootstrapping') return 'bootstrapping';
    return sealing.ended === UNSETTLED ? 'unsealed origin' : undefined;
  }

  #troubleOf({ origin }: MemberRow): BlockedWhy | undefined {
    const { members, now } = this.#core;
    const heard = this.#heard.get(origin);
    if (heard === undefined || now.mono - heard.at > this.#patienceMs) return 'silent';
    if (heard.membersHash !== members.hash) return 'another table';
    if (!heard.isReady) return 'bootstrapping';
    if (heard.report.ended === UNSETTLED) return 'unsealed origin';
    const isCovered = heard.report.clock - this.#progress(origin).asOf <= this.#patienceMs;
    const isCurrent = heard.report.clock - heard.report.asOf <= this.#patienceMs;
    return isCovered && isCurrent ? undefined : 'behind';
  }
}
