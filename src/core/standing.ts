/**
 * Which forgettings of ended origins (sealing.ts) a store has, or may have, missed.
 *
 * A store that does not go on under its origin (restored, copied, cut off from power, or whose place somebody else
 * had taken) may lack records of origins that were forgotten without it, and nothing in the vectors tells. Each
 * member keeps the greatest stamp of a forgetting that it knows of (stamps are logical time, above every report
 * that the forgetting rests on). Whoever is in doubt compares: somebody with a greater one has forgotten an origin
 * without it, so it bootstraps again, by key range, and keeps what it has. Once every counted member has reported
 * by a table that includes it, and none was ahead, nothing can have been missed: later steps ask it. A joiner takes
 * over what its sources' standings have in common.
 *
 * Whoever comes back may hear of a forgetting before it hears that a copy bore its name meanwhile, and was asked in its
 * place. So a mark is taken over only from reports that were made by its own member table: had another row borne its
 * name there, only a newer row of its own, published in doubt, would have made the two tables equal again.
 */
import type { Core } from './core.js';
import type { Peer } from './peer.js';
import type { SealReport, SealTable } from './seal-table.js';

export interface Standing {
  /** It is known to have missed none. */
  readonly proven: boolean;
  /** Greatest stamp of a forgetting that it knows of. */
  readonly forgotten: number;
}

export const NO_STANDING: Standing = { proven: false, forgotten: 0 };

/** Of a store that was filled from both. */
export function joinStandings(a: Standing, b: Standing): Standing {
  return { proven: a.proven && b.proven, forgotten: Math.min(a.forgotten, b.forgotten) };
}

/** This store's own standing, and what follows from it and the peers'. */
export class OwnStanding implements Standing {
  readonly #core: Core;
  readonly #table: SealTable;
  proven = false;
  forgotten = 0;

  constructor(core: Core, table: SealTable) {
    this.#core = core;
    this.#table = table;
  }

  set({ proven, forgotten }: Standing): void {
    this.proven = proven;
    this.forgotten = forgotten;
  }

  /** What is known of forgettings at a peer. */
  of(peer: Peer): Standing {
    const report = this.#table.reports.get(peer.origin);
    return { proven: report?.proven ?? false, forgotten: report?.forgotten ?? 0 };
  }

  /** Whether to ask this peer for records: not while its standing, or ours beside it, is unclear. */
  mayPull(peer: Peer): boolean {
    if (this.proven && this.#core.identity.phase === 'ready') return true;
    const report = this.#table.reports.get(peer.origin);
    if (report === undefined) return false;
    return this.#core.identity.phase !== 'ready' || report.forgotten <= this.forgotten;
  }

  /** Whether a session by dots tells this peer the whole: it cannot name what it lacks of forgotten origins. */
  mayServe(peer: Peer): boolean {
    const report = this.#table.reports.get(peer.origin);
    return report === undefined || report.proven || report.forgotten >= this.forgotten;
  }

  /**
   * Whether equal vectors promise equal copies: not while one of the two may lack what was forgotten without it. Whose
   * name a copy bore, and was asked in its place, may not know yet: it does once its own row is in one table with all.
   */
  mayCompare(peer: Peer): boolean {
    const { members, identity } = this.#core;
    if (peer.membersHash !== members.hash) return false;
    if (!members.isMember(identity.origin) || !members.isMember(peer.origin)) return false;
    return this.mayPull(peer) && this.mayServe(peer);
  }

  /** Of several sources of a bootstrap those that missed nothing; else those that missed least. */
  bestSources(peers: readonly Peer[]): Peer[] {
    const rank = (peer: Peer): number => {
      const report = this.#table.reports.get(peer.origin);
      if (report === undefined) return -1;
      return report.proven ? Number.POSITIVE_INFINITY : report.forgotten;
    };
    const best = Math.max(...peers.map(rank));
    return peers.filter((peer) => rank(peer) === best);
  }

  /** Whether a forgetting with this stamp rests on a report of this store: never while it is in doubt. */
  wasCounted(stamp: number): boolean {
    const { members, identity } = this.#core;
    if (!this.proven || !members.isMember(identity.origin)) return false;
    if (members.active().length === 1) return true;
    for (const report of this.#table.reports.values())
      if (report.version > stamp && this.#isOfOurTable(report)) return true;
    return false;
  }

  /** The latest forgetting of those that other members reported by this node's own member table, or known here. */
  get latestCounted(): number {
    let latest = this.forgotten;
    if (!this.#core.members.isMember(this.#core.identity.origin)) return latest;
    for (const report of this.#table.reports.values())
      if (this.#isOfOurTable(report)) latest = Math.max(latest, report.forgotten);
    return latest;
  }

  #isOfOurTable({ member, membersHash }: SealReport): boolean {
    const { members, identity } = this.#core;
    return member !== identity.origin && membersHash === members.hash && members.isMember(member);
  }

  /** The latest forgetting that a member has reported, or that is known here. */
  get latest(): number {
    let latest = this.forgotten;
    for (const { member, forgotten } of this.#table.reports.values())
      if (this.#core.members.isMember(member)) latest = Math.max(latest, forgotten);
    return latest;
  }
}
