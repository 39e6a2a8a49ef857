/**
 * Origins whose run has ended, so that vectors do not grow with history. Hosts that start with an empty disk, or
 * with one that may have lost its tail, mint origins for ever.
 *
 * An origin that stands in vectors and belongs to no member has ended: its node bears a newer one, or was removed.
 * Its course, each step taken by any member that sees the condition, and gossiped as a row (seal-gossip.ts):
 *
 *     held       all counted members come to hold the same of it, by ordinary replication
 *     sealed     all counted members reported equal heads and tops, without a gap, or with equal digests of all that
 *                they hold: nothing more of it will come
 *     forgotten  all counted members reported the seal as known and held (and equal digests, if there is a gap),
 *                and no session token is as old: it leaves vectors, beats and stored heads. Records keep their dots;
 *                a dot of a forgotten origin counts as held.
 *     dropped    no counted member has it in its vector any more: the row goes, too.
 *
 * Whom a step counts. A report bears the hash of the member table it was made by, and a step needs reports of all
 * members of one table, made by that very table. So whoever joined has either a snapshot that was taken after its
 * sponsor had reported, and thus holds what the step rests on, or a say in it. A member that is down holds every
 * step up, until it is removed or excluded (exclusion.ts). Who missed a step: standing.ts.
 *
 * An exclusion changes the table and its hash, as a removal does, so no report from before it counts for a step after
 * it: all who are left have to report anew, by the table without that member. In the input by which a member takes the
 * exclusion into its table it ends its link to the excluded one, and lets it in no more. So what it reports from then
 * on of that origin it has from those who are left, and whatever they got from the excluded one until they heard of it
 * comes to all of them before a step, or holds the step up: a member reports nothing while some of it is on its way to
 * the disk. What the excluded one wrote after that is in nobody's vector, and stays out: its store is set aside, and its
 * node comes back empty, as a joiner. A partition that has not heard of the exclusion judges by another table, and takes
 * no step with those that have.
 *
 * No step moves a head. Should an ended origin turn out to live (a node comes back whose name a copy bore), its
 * further writes, and those that nobody else had, are in its vector, and replicate like those of any other.
 */
import { type Core, decodeMeta, encodeMeta } from './core.js';
import { originOf, seqOf } from './entry.js';
import { ForgottenOrigins } from './forgotten-origins.js';
import { addTo, hashText, type Lanes } from './hash.js';
import type { Seals } from './messages.js';
import type { Peer } from './peer.js';
import { hasEnded, isLanding, isSealedAs, SealGossip } from './seal-gossip.js';
import { FORGOTTEN, type ReportEntry, SEALED, type SealRow, SealTable } from './seal-table.js';
import { NO_STANDING, OwnStanding, type Standing } from './standing.js';
import type { Dot, OriginId, Row } from './types.js';

/** Some origin has ended and is not sealed as it lies here. */
export const UNSETTLED = 1;

interface StoredSeals {
  rows: SealRow[];
  forgotten: number;
  proven: boolean;
  version: number;
}

/** As a store restored from a backup begins: with what the backup knew, and in doubt whether that is still all. */
export function restoredSeals(carried: Uint8Array | undefined): Uint8Array {
  const known = decodeMeta<StoredSeals>(carried) ?? { rows: [], forgotten: 0, version: 0 };
  return encodeMeta({ ...known, proven: false } satisfies StoredSeals);
}

export interface SealingHooks {
  /** This store has missed a forgetting: it has to bootstrap again. */
  onMissed(): void;
  /** What an unfinished bootstrap has brought so far may lack what was forgotten since. */
  onDoubt(): void;
  /** Digest of all entries written here, 64 hex digits; empty while it is not known, or doubted. */
  root(): string;
}

export class Sealing {
  readonly standing: OwnStanding;
  readonly #core: Core;
  readonly #hooks: SealingHooks;
  readonly #table = new SealTable();
  readonly #gossip: SealGossip;
  readonly #forgotten = new ForgottenOrigins();
  /** Origins in the vectors of the snapshots of the present bootstrap. */
  readonly #announced = new Set<OriginId>();
  /** When a seal came to be known here, monotonic ms. */
  readonly #sealedAt = new Map<OriginId, number>();
  #stored = '';

  constructor(core: Core, hooks: SealingHooks) {
    this.#core = core;
    this.#hooks = hooks;
    this.standing = new OwnStanding(core, this.#table);
    this.#gossip = new SealGossip(core, this.#table, this.standing, this.#forgotten, {
      mergeRow: (row) => this.#mergeRow(row),
      onRows: () => this.#store(),
      root: () => hooks.root(),
    });
    const { heads, tops } = core.deps.recovered;
    for (const [origin, top] of tops) if (!heads.has(origin)) this.#forgotten.add(origin, top);
  }

  start(): void {
    const { deps, now } = this.#core;
    const stored = decodeMeta<StoredSeals>(deps.recovered.meta.get('seals'));
    if (stored === undefined) {
      this.standing.proven =
        decodeMeta<{ phase: string }>(deps.recovered.meta.get('node'))?.phase === 'ready';
      return;
    }
    for (const row of stored.rows) {
      this.#table.mergeRow(row);
      this.#sealedAt.set(row.origin, now.mono);
    }
    this.standing.set(stored);
    this.#table.witness(stored.version);
  }

  // What the other parts ask.

  /** Whether a record's dot says nothing about what this store may lack: it does not enter the vector. */
  isForgotten(origin: OriginId): boolean {
    if (this.#forgotten.has(origin)) return true;
    const { identity, members } = this.#core;
    // A newcomer cannot tell yet; the snapshots' heads will.
    return identity.phase === 'bootstrapping' && !members.isMember(origin) && !this.#announced.has(origin);
  }

  /** Whether this store holds all of the origin up to there, though its vector has no word of it. */
  readonly isCovered = (origin: OriginId, top: number): boolean => {
    const row = this.#table.rows.get(origin);
    if (row === undefined || top > row.seal || !this.#forgotten.has(origin)) return false;
    // A copy may have borne the name of its node, which is back.
    return !this.#core.members.isMember(origin);
  };

  /** Whether frames of this origin are late copies: were it to live again, its vector would bring it back. */
  isOver(origin: OriginId): boolean {
    return this.#forgotten.has(origin);
  }

  /** Whether this store has had the record with this dot, or what superseded it: as far as is known. */
  hasHad(origin: OriginId, seq: number): boolean {
    return seq <= this.#core.taken.head(origin) || this.#forgotten.held(origin, seq);
  }

  /** A session ends with heads of the origin: whoever forgot it takes it up again. */
  revive(origin: OriginId): void {
    this.#forgotten.delete(origin);
  }

  /** Whether what a write's receipt names is held here: not yet (`behind`), or never any more (`lost`). */
  covers(dot: Dot): 'held' | 'behind' | 'lost' {
    const { written, members } = this.#core;
    if (dot.seq <= written.head(dot.origin)) return 'held';
    const row = members.isMember(dot.origin) ? undefined : this.#table.rows.get(dot.origin);
    if (row !== undefined && dot.seq > row.seal) return 'lost';
    if (!this.#forgotten.has(dot.origin)) return 'behind';
    // Without its row nobody knows where it ended, and every token of it is older than tokens get.
    return row === undefined ? 'lost' : 'held';
  }

  /** Heads by which to judge what a peer with these lacks, or what to stream to it: dots of forgotten origins are held by everybody. */
  above(heads: ReadonlyMap<OriginId, number>): Map<OriginId, number> {
    return this.#forgotten.above(heads);
  }

  /** What is written here of origins that have ended: 0 nothing, UNSETTLED, else a hash of their seals. */
  get ended(): number {
    const { written, taken } = this.#core;
    const sum: Lanes = { a: 0, b: 0 };
    let isAny = false;
    for (const origin of taken.origins())
      if (hasEnded(this.#core, origin) && isLanding(this.#core, origin)) return UNSETTLED;
    for (const origin of written.origins()) {
      if (!hasEnded(this.#core, origin)) continue;
      const row = this.#table.rows.get(origin);
      if (row === undefined || !isSealedAs(row, written.head(origin), written.top(origin))) return UNSETTLED;
      addTo(sum, hashText(`${origin}:${row.seal}`));
      isAny = true;
    }
    return isAny ? UNSETTLED + 1 + sum.a : 0;
  }

  /** Nothing is to be settled, so nothing of all this is sent. */
  get isIdle(): boolean {
    return !this.#gossip.hasBusiness;
  }

  // Bootstrap.

  /** A snapshot of a source has these heads: it has forgotten every other origin. */
  announced(origins: Iterable<OriginId>): void {
    for (const origin of origins) this.#announced.add(origin);
  }

  /** Rows of that snapshot, about to be merged. */
  learn(rows: readonly Row[]): void {
    const { taken, members } = this.#core;
    for (const row of rows) {
      const origin = originOf(row);
      if (this.#announced.has(origin) || taken.has(origin) || members.isMember(origin)) continue;
      this.#forgotten.add(origin, seqOf(row));
    }
  }

  /**
   * Everything that the sources held is here: so is what their standings have in common. `heads`: of the origins that
   * all of them have in their vectors. An origin of which an earlier life of this store knew the seal, and which is
   * not among them, was forgotten since.
   */
  bootstrapped(standing: Standing = NO_STANDING, heads: ReadonlyMap<OriginId, number> = new Map()): void {
    const { taken } = this.#core;
    if (standing.proven)
      for (const { origin, seal } of this.#table.rows.values())
        if (hasEnded(this.#core, origin) && !heads.has(origin) && taken.top(origin) <= seal)
          this.#forget(origin, seal);
    this.standing.set(standing);
    this.#announced.clear();
    this.#store();
  }

  /** A new cluster begins, or an operator vouches for what is here. */
  founded(): void {
    this.standing.proven = true;
    this.#store();
  }

  /**
   * Gives way to another founding: nothing of this one counts there. What was forgotten here nobody there has heard
   * of, so it comes back into the vector, which brings it to them.
   */
  adopted(): void {
    const { taken, queue } = this.#core;
    for (const [origin, top] of this.#forgotten.take()) {
      taken.raise(origin, top, top);
      queue.raiseHead(queue.batch(), origin, top);
    }
    this.#table.clear();
    this.#sealedAt.clear();
    this.standing.set(NO_STANDING);
    this.#store();
  }

  /** This store does not go on where it left off, or somebody else was counted in its place. */
  doubt(): void {
    if (this.#core.identity.phase === 'bootstrapping') return this.#hooks.onDoubt();
    if (!this.standing.proven) return;
    this.standing.proven = false;
    this.#store();
    this.#gossip.publish();
  }

  /** What is stored of this is stored anew. */
  rewrite(): void {
    this.#stored = '';
    this.#store();
  }

  // Gossip.

  greet(peer: Peer): void {
    this.#gossip.greet(peer);
  }

  beat(): void {
    const { members } = this.#core;
    this.#table.keepReports((member) => members.isMember(member));
    this.#evaluate();
    this.#gossip.beat();
  }

  gone(peer: Peer): void {
    this.#gossip.gone(peer);
  }

  onSealsHash(peer: Peer, hash: string): void {
    this.#gossip.onSealsHash(peer, hash);
  }

  onSeals(peer: Peer, message: Seals): void {
    this.#gossip.onSeals(peer, message);
    this.#checkStanding();
  }

  // Steps.

  /** Whoever does not know yet who the members are is not all of them. */
  get #maySettle(): boolean {
    const { phase, unmet } = this.#core.identity;
    return phase === 'ready' && !unmet;
  }

  #evaluate(): void {
    if (!this.#maySettle) return;
    this.#checkStanding();
    for (const row of [...this.#table.rows.values()])
      if (hasEnded(this.#core, row.origin)) this.#carryOut(row, this.standing.wasCounted(row.stamp));
    const reports = this.#gossip.reportsOfAll();
    if (reports === undefined) return;
    const ended = new Map<OriginId, (ReportEntry | undefined)[]>();
    for (const origin of this.#table.rows.keys()) if (hasEnded(this.#core, origin)) ended.set(origin, []);
    for (const [origin] of this.#table.reports.get(this.#core.identity.origin)?.entries ?? [])
      ended.set(origin, []);
    for (const report of reports) {
      const byOrigin = new Map(report.entries.map((entry) => [entry[0], entry]));
      for (const [origin, entries] of ended) entries.push(byOrigin.get(origin));
    }
    // Not at one moment, but what a disk holds only grows.
    const identical = reports.every(({ root }) => root !== '' && root === reports[0]!.root);
    for (const [origin, entries] of ended) this.#step(origin, entries, identical);
  }

  /** `identical`: all counted members reported the same digest of all that they hold. */
  #step(origin: OriginId, entries: readonly (ReportEntry | undefined)[], identical: boolean): void {
    const { now, options } = this.#core;
    const row = this.#table.rows.get(origin);
    if (row?.forgotten === true && entries.every((entry) => entry === undefined || entry[3] === FORGOTTEN)) {
      this.#table.dropRow(origin);
      this.#sealedAt.delete(origin);
      return this.#store();
    }
    const mayEnd = identical || !entries.some((entry) => entry !== undefined && entry[2] > entry[1]);
    if (row !== undefined && !row.forgotten && entries.every((entry) => isSettled(entry, row))) {
      if (!mayEnd || now.mono - (this.#sealedAt.get(origin) ?? now.mono) < options.tokenAgeMaxMs) return;
      return this.#propose({ ...row, forgotten: true, stamp: this.#table.time + 1 });
    }
    const [first] = entries;
    if (first === undefined || first[3] === FORGOTTEN) return;
    const [, head, top] = first;
    // All of them below an earlier seal: what lay between went with the disks, and the origin ends where they are.
    if (row !== undefined && (row.seal === top || (row.forgotten && row.seal > top))) return;
    if (!entries.every((entry) => entry !== undefined && entry[1] === head && entry[2] === top)) return;
    if (mayEnd) this.#propose({ origin, head, seal: top, forgotten: false, stamp: this.#table.time + 1 });
  }

  #propose(row: SealRow): void {
    if (!this.#mergeRow(row)) return;
    const { counters } = this.#core;
    if (row.forgotten) counters.originsForgotten += 1;
    else counters.originsSealed += 1;
    const { origin, head, seal } = row;
    this.#core.log('info', row.forgotten ? 'origin-forgotten' : 'origin-sealed', { origin, head, seal });
    this.#gossip.flood({ rows: [row], reports: [] });
    this.#carryOut(row, this.standing.proven);
    this.#store();
  }

  #mergeRow(row: SealRow): boolean {
    if (row.forgotten && !this.#table.rows.has(row.origin) && this.#isSettledEverywhere(row.origin))
      return false;
    if (!this.#table.mergeRow(row)) return false;
    if (!row.forgotten) this.#sealedAt.set(row.origin, this.#core.now.mono);
    return true;
  }

  /** All members have forgotten it, as far as is known here: its row has come round once more. */
  #isSettledEverywhere(origin: OriginId): boolean {
    if (this.#core.written.has(origin)) return false;
    const reports = this.#gossip.reportsOfAll();
    if (reports === undefined) return false;
    return reports.every(({ entries }) =>
      entries.every((entry) => entry[0] !== origin || entry[3] === FORGOTTEN),
    );
  }

  /**
   * Takes a forgotten origin out of this node's vector, where what it holds allows for it. `counted`: the forgetting
   * rests on a report of this store.
   */
  #carryOut(row: SealRow, counted: boolean): void {
    if (!row.forgotten) return;
    const { taken } = this.#core;
    const { origin, seal } = row;
    if (taken.has(origin)) {
      if (taken.top(origin) > seal) return;
      // Whoever missed nothing holds all of it, whatever an older vector of its own still says.
      if (taken.head(origin) < seal && !counted) return;
      this.#forget(origin, seal);
    }
    // In doubt the mark stays, to be compared with.
    if (!counted || row.stamp <= this.standing.forgotten) return;
    this.standing.forgotten = row.stamp;
    this.#store();
  }

  #forget(origin: OriginId, seal: number): void {
    const { taken, queue } = this.#core;
    if (!taken.has(origin)) return;
    const head = taken.head(origin);
    taken.drop(origin);
    queue.forget(queue.batch(), origin);
    this.#forgotten.add(origin, seal, head);
  }

  /** Compares this node's standing with what others reported. */
  #checkStanding(): void {
    const { standing } = this;
    if (!this.#maySettle) return;
    const { latest } = standing;
    if (latest > standing.forgotten && !standing.proven) {
      this.#core.counters.rebuilds += 1;
      this.#core.log('warn', 'rebuilding', { why: 'origins were forgotten that this store may lack' });
      this.#hooks.onMissed();
      return;
    }
    const proven = standing.proven || this.#gossip.reportsOfAll() !== undefined;
    const forgotten = standing.latestCounted;
    if (forgotten === standing.forgotten && proven === standing.proven) return;
    standing.set({ proven, forgotten });
    this.#store();
    this.#gossip.publish();
  }

  #store(): void {
    const { proven, forgotten } = this.standing;
    const rows = [...this.#table.rows.values()];
    const stored: StoredSeals = { rows, forgotten, proven, version: this.#table.time };
    const text = JSON.stringify(stored);
    if (text === this.#stored) return;
    this.#stored = text;
    this.#core.queue.batch().meta.set('seals', encodeMeta(stored));
  }
}

/** Whether the member needs the origin in nobody's vector any more. */
function isSettled(entry: ReportEntry | undefined, row: SealRow): boolean {
  if (entry === undefined) return false;
  return entry[3] === FORGOTTEN || (entry[3] === SEALED && isSealedAs(row, entry[1], entry[2]));
}
