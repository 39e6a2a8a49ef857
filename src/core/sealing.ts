/**
 * Origins whose run has ended, so that vectors do not grow with history. Hosts that start with an empty disk, or
 * with one that may have lost its tail, mint origins for ever.
 *
 * An origin that stands in vectors and belongs to no member has ended: its node bears a newer one, or was removed.
 * Its course, each step taken by any member that sees the condition, and gossiped as a row:
 *
 *     held       all counted members come to hold the same of it, by ordinary replication
 *     sealed     all counted members reported equal heads and tops, without a gap (or identical data): nothing
 *                more of it will come. Heads above a gap that nobody can fill rise to the seal.
 *     forgotten  all counted members reported the seal as known and held, and no session token is as old: it
 *                leaves vectors, beats and stored heads. Records keep their dots; a dot of a forgotten origin
 *                counts as held.
 *     dropped    no counted member has it in its vector any more: the row goes, too.
 *
 * Whom a step counts. A report bears the hash of the member table it was made by, and a step needs reports of all
 * members of one table, made by that very table. So whoever joined has either a snapshot that was taken after its
 * sponsor had reported, and thus holds what the step rests on, or a say in it. A member that is down holds every
 * step up.
 *
 * Who missed a step. A store that does not go on under its origin (restored, copied, cut off from power, or whose
 * place somebody else had taken) may lack records of origins that were forgotten without it, and nothing in the
 * vectors tells. Each member keeps the greatest stamp of a forgetting that it knows of (stamps are logical time,
 * above every report that the forgetting rests on). Whoever is in doubt compares: somebody with a greater one has
 * forgotten an origin without it, so it bootstraps again, by key range, and keeps what it has. Once every counted
 * member has reported by a table that includes it, and none was ahead, nothing can have been missed: later
 * steps ask it. A joiner takes over what its sources' standings have in common.
 *
 * A seal raises heads and never lowers or refuses anything: should an ended origin turn out to live (a node comes
 * back whose name a copy bore), its further writes are in its vector, and replicate like those of any other.
 */
import { type Core, decodeMeta, encodeMeta } from './core.js';
import { originOf } from './entry.js';
import type { Seals } from './messages.js';
import type { Peer } from './peer.js';
import {
  FORGOTTEN,
  HELD,
  REPORT_ENTRIES_MAX,
  type ReportEntry,
  SEALED,
  type SealNews,
  type SealReport,
  type SealRow,
  SealTable,
} from './seal-table.js';
import type { Dot, OriginId, Row } from './types.js';

/** Forgotten origins that are remembered, the latest ones. A further one may come back, and is forgotten anew. */
const REMEMBERED_MAX = 65_536;
/** Reports of one message. */
const MESSAGE_REPORTS_MAX = 64;
/** Hashes must differ at so many beats in a row before the whole table is sent: news is on its way by itself. */
const MISMATCHES_MAX = 2;
/** Above every sequence number. */
const ALL = 2 ** 48 - 1;

interface StoredSeals {
  rows: SealRow[];
  forgotten: number;
  proven: boolean;
  version: number;
}

/** Which forgettings a store has, or may have, missed. */
export interface Standing {
  /** It is known to have missed none. */
  readonly proven: boolean;
  /** Greatest stamp of a forgetting that it knows of. */
  readonly forgotten: number;
}

const NO_STANDING: Standing = { proven: false, forgotten: 0 };

/** Of a store that was filled from both. */
export function joinStandings(a: Standing, b: Standing): Standing {
  return { proven: a.proven && b.proven, forgotten: Math.min(a.forgotten, b.forgotten) };
}

export interface SealingHooks {
  /** This store has missed a forgetting: it has to bootstrap again. */
  onMissed(): void;
  /** What an unfinished bootstrap has brought so far may lack what was forgotten since. */
  onDoubt(): void;
}

export class Sealing {
  readonly #core: Core;
  readonly #hooks: SealingHooks;
  readonly #table = new SealTable();
  /** Origins of which this store holds everything, and which its vector does not hold any more. */
  readonly #forgotten = new Set<OriginId>();
  /** Origins in the vectors of the snapshots of the present bootstrap. */
  readonly #announced = new Set<OriginId>();
  /** When a seal came to be known here, monotonic ms. */
  readonly #sealedAt = new Map<OriginId, number>();
  readonly #mismatches = new Map<number, number>();
  #proven = false;
  #forgottenTo = 0;
  #version = 0;
  #published = '';
  #stored = '';
  /** Whether all counted members are known to hold identical entries; until somebody can tell, gaps stay open. */
  identical: () => boolean = () => false;

  constructor(core: Core, hooks: SealingHooks) {
    this.#core = core;
    this.#hooks = hooks;
    const { heads, tops } = core.deps.recovered;
    for (const origin of tops.keys()) if (!heads.has(origin)) this.#remember(origin);
  }

  start(): void {
    const { deps, now } = this.#core;
    const stored = decodeMeta<StoredSeals>(deps.recovered.meta.get('seals'));
    if (stored === undefined) {
      this.#proven = decodeMeta<{ phase: string }>(deps.recovered.meta.get('node'))?.phase === 'ready';
      return;
    }
    for (const row of stored.rows) {
      this.#table.mergeRow(row);
      this.#sealedAt.set(row.origin, now.mono);
    }
    this.#forgottenTo = stored.forgotten;
    this.#proven = stored.proven;
    this.#version = stored.version;
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

  /** Whether to ask this peer for records: not while its standing, or ours beside it, is unclear. */
  mayPull(peer: Peer): boolean {
    if (this.#proven && this.#core.identity.phase === 'ready') return true;
    const report = this.#table.reports.get(peer.origin);
    if (report === undefined) return false;
    return this.#core.identity.phase !== 'ready' || report.forgotten <= this.#forgottenTo;
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

  /** Whether a session by dots tells this peer the whole: it cannot name what it lacks of forgotten origins. */
  mayServe(peer: Peer): boolean {
    const report = this.#table.reports.get(peer.origin);
    return report === undefined || report.proven || report.forgotten >= this.#forgottenTo;
  }

  /** Whether equal vectors promise equal copies: not while one of the two may lack what was forgotten without it. */
  mayCompare(peer: Peer): boolean {
    return this.mayPull(peer) && this.mayServe(peer);
  }

  /** Heads by which to judge what a peer with these lacks, or what to stream to it: dots of forgotten origins are held by everybody. */
  above(heads: ReadonlyMap<OriginId, number>): Map<OriginId, number> {
    const out = new Map(heads);
    for (const origin of this.#forgotten) if (!out.has(origin)) out.set(origin, ALL);
    return out;
  }

  /** Nothing is to be settled, so nothing of all this is sent. */
  get isIdle(): boolean {
    return !this.#hasBusiness();
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
      this.#remember(origin);
    }
  }

  /** What is known of forgettings at a source, whose snapshot is just open. */
  standingOf(source: Peer): Standing {
    const report = this.#table.reports.get(source.origin);
    return { proven: report?.proven ?? false, forgotten: report?.forgotten ?? 0 };
  }

  /** Everything that the sources held is here: so is what their standings have in common. */
  bootstrapped(standing: Standing = NO_STANDING): void {
    this.#proven = standing.proven;
    this.#forgottenTo = standing.forgotten;
    this.#announced.clear();
    this.#store();
  }

  /** A new cluster begins, or an operator vouches for what is here. */
  founded(): void {
    this.#proven = true;
    this.#store();
  }

  /** Gives way to another founding: nothing of this one counts there. */
  adopted(): void {
    this.#table.clear();
    this.#proven = false;
    this.#forgottenTo = 0;
    this.#store();
  }

  /** This store does not go on where it left off, or somebody else was counted in its place. */
  doubt(): void {
    if (this.#core.identity.phase === 'bootstrapping') return this.#hooks.onDoubt();
    if (!this.#proven) return;
    this.#proven = false;
    this.#store();
    this.#publish();
  }

  // Gossip.

  greet(peer: Peer): void {
    if (this.#core.identity.uid === '' || !this.#hasBusiness()) return;
    this.#publish();
    this.#tell(peer, true);
  }

  beat(): void {
    const core = this.#core;
    this.#table.keepReports((member) => core.members.isMember(member));
    this.#evaluate();
    if (core.identity.uid === '' || !this.#hasBusiness()) return;
    this.#publish();
    const links = core.partners().map((peer) => peer.link);
    if (links.length === 0) return;
    core.emit({
      type: 'send',
      links,
      message: { type: 'seals-hash', hash: this.#table.hash },
      bestEffort: true,
    });
  }

  gone(peer: Peer): void {
    this.#mismatches.delete(peer.link);
  }

  onSealsHash(peer: Peer, hash: string): void {
    if (!this.#isPartner(peer)) return;
    if (hash === this.#table.hash) {
      this.#mismatches.delete(peer.link);
      return;
    }
    const count = (this.#mismatches.get(peer.link) ?? 0) + 1;
    this.#mismatches.set(peer.link, count % MISMATCHES_MAX);
    if (count < MISMATCHES_MAX) return;
    this.#publish(true);
    this.#tell(peer, true);
  }

  onSeals(peer: Peer, message: Seals): void {
    if (!this.#isPartner(peer)) return;
    const core = this.#core;
    const news: SealNews = { rows: [], reports: [] };
    for (const row of message.rows) if (this.#mergeRow(row)) news.rows.push(row);
    for (const report of message.reports) {
      this.#version = Math.max(this.#version, report.version);
      if (report.member === core.identity.origin) {
        // Of an earlier start, whose count was not written: what this one says has to be later.
        if (report.version > (this.#table.reports.get(report.member)?.version ?? 0)) this.#published = '';
      } else if (core.members.isMember(report.member) && this.#table.mergeReport(report))
        news.reports.push(report);
    }
    if (news.rows.length > 0) this.#store();
    if (news.rows.length > 0 || news.reports.length > 0) this.#flood(news, peer);
    this.#publish(message.reply);
    if (message.reply) this.#tell(peer, false);
    this.#checkStanding();
  }

  #isPartner(peer: Peer): boolean {
    const { uid } = this.#core.identity;
    return uid !== '' && peer.clusterUid === uid;
  }

  #hasBusiness(): boolean {
    if (!this.#proven || this.#table.rows.size > 0) return true;
    for (const report of this.#table.reports.values())
      if (!report.proven || report.entries.length > 0) return true;
    for (const origin of this.#core.written.origins()) if (this.#hasEnded(origin)) return true;
    return false;
  }

  #hasEnded(origin: OriginId): boolean {
    const { members, identity } = this.#core;
    return origin !== identity.origin && !members.isMember(origin);
  }

  /** Says what is on this disk, if that has changed since the last time and there is business (or somebody asks). */
  #publish(asked = false): void {
    const core = this.#core;
    const { identity, members } = core;
    if (identity.phase !== 'ready' || !members.isMember(identity.origin)) return;
    if (!asked && !this.#hasBusiness()) return;
    const entries = this.#entries();
    const content = JSON.stringify([identity.origin, members.hash, this.#forgottenTo, this.#proven, entries]);
    if (content === this.#published) return;
    this.#published = content;
    this.#version += 1;
    const report: SealReport = {
      member: identity.origin,
      version: this.#version,
      membersHash: members.hash,
      forgotten: this.#forgottenTo,
      proven: this.#proven,
      entries,
    };
    this.#table.mergeReport(report);
    // A newcomer that asks for our standing is no news to the others.
    if (this.#hasBusiness()) this.#flood({ rows: [], reports: [report] });
  }

  #entries(): ReportEntry[] {
    const { written } = this.#core;
    const { rows } = this.#table;
    const ended = new Set<OriginId>();
    for (const origin of written.origins()) if (this.#hasEnded(origin)) ended.add(origin);
    for (const origin of rows.keys())
      if (this.#hasEnded(origin) && this.#forgotten.has(origin)) ended.add(origin);
    const origins = [...ended].sort().slice(0, REPORT_ENTRIES_MAX);
    return origins.map((origin): ReportEntry => {
      const head = written.head(origin);
      const top = written.top(origin);
      const seal = rows.get(origin)?.seal;
      if (!written.has(origin)) return [origin, 0, 0, FORGOTTEN];
      return [origin, head, top, head === seal && top === seal ? SEALED : HELD];
    });
  }

  #tell(peer: Peer, reply: boolean): void {
    const rows = [...this.#table.rows.values()];
    const reports = [...this.#table.reports.values()];
    let at = 0;
    do {
      const part = reports.slice(at, at + MESSAGE_REPORTS_MAX);
      const first = at === 0;
      at += MESSAGE_REPORTS_MAX;
      const last = at >= reports.length;
      this.#core.send(peer, { type: 'seals', reply: reply && last, rows: first ? rows : [], reports: part });
    } while (at < reports.length);
  }

  #flood(news: SealNews, except?: Peer): void {
    const links: number[] = [];
    if (this.#core.identity.phase !== 'ready') return;
    for (const peer of this.#core.partners()) if (peer !== except) links.push(peer.link);
    if (links.length === 0) return;
    this.#core.emit({
      type: 'send',
      links,
      message: { type: 'seals', reply: false, ...news },
      bestEffort: true,
    });
  }

  // Steps.

  #evaluate(): void {
    if (this.#core.identity.phase !== 'ready') return;
    this.#checkStanding();
    for (const row of [...this.#table.rows.values()]) if (this.#hasEnded(row.origin)) this.#carryOut(row);
    const reports = this.#reportsOfAll();
    if (reports === undefined) return;
    const ended = new Map<OriginId, (ReportEntry | undefined)[]>();
    for (const origin of this.#table.rows.keys()) if (this.#hasEnded(origin)) ended.set(origin, []);
    for (const [origin] of this.#table.reports.get(this.#core.identity.origin)?.entries ?? [])
      ended.set(origin, []);
    for (const report of reports) {
      const byOrigin = new Map(report.entries.map((entry) => [entry[0], entry]));
      for (const [origin, entries] of ended) entries.push(byOrigin.get(origin));
    }
    for (const [origin, entries] of ended) this.#step(origin, entries);
  }

  /** The reports of all counted members, if all were made by the member table that is known here. */
  #reportsOfAll(): SealReport[] | undefined {
    const { members } = this.#core;
    const out: SealReport[] = [];
    for (const { origin } of members.active()) {
      const report = this.#table.reports.get(origin);
      if (report === undefined || report.membersHash !== members.hash) return undefined;
      out.push(report);
    }
    return out;
  }

  #step(origin: OriginId, entries: readonly (ReportEntry | undefined)[]): void {
    const { now, options } = this.#core;
    const row = this.#table.rows.get(origin);
    if (row?.forgotten === true && entries.every((entry) => entry === undefined || entry[3] === FORGOTTEN)) {
      this.#table.dropRow(origin);
      this.#sealedAt.delete(origin);
      return this.#store();
    }
    if (row !== undefined && !row.forgotten && entries.every((entry) => isSettled(entry, row.seal))) {
      if (now.mono - (this.#sealedAt.get(origin) ?? now.mono) < options.tokenAgeMaxMs) return;
      return this.#propose({ ...row, forgotten: true, stamp: this.#version + 1 });
    }
    const [first] = entries;
    if (first === undefined || first[3] === FORGOTTEN) return;
    const [, head, top] = first;
    if (row !== undefined && row.seal >= top) return;
    if (!entries.every((entry) => entry !== undefined && entry[1] === head && entry[2] === top)) return;
    if (head === top || this.identical())
      this.#propose({ origin, head, seal: top, forgotten: false, stamp: this.#version + 1 });
  }

  #propose(row: SealRow): void {
    if (!this.#mergeRow(row)) return;
    const { counters } = this.#core;
    if (row.forgotten) counters.originsForgotten += 1;
    else counters.originsSealed += 1;
    const { origin, seal } = row;
    this.#core.log('info', row.forgotten ? 'origin-forgotten' : 'origin-sealed', { origin, seal });
    this.#flood({ rows: [row], reports: [] });
    this.#carryOut(row);
    this.#store();
  }

  #mergeRow(row: SealRow): boolean {
    if (row.forgotten && !this.#table.rows.has(row.origin) && this.#isSettledEverywhere(row.origin))
      return false;
    if (!this.#table.mergeRow(row)) return false;
    this.#version = Math.max(this.#version, row.stamp);
    if (!row.forgotten) this.#sealedAt.set(row.origin, this.#core.now.mono);
    return true;
  }

  /** All members have forgotten it, as far as is known here: its row has come round once more. */
  #isSettledEverywhere(origin: OriginId): boolean {
    if (this.#core.written.has(origin)) return false;
    const reports = this.#reportsOfAll();
    if (reports === undefined) return false;
    return reports.every(({ entries }) =>
      entries.every((entry) => entry[0] !== origin || entry[3] === FORGOTTEN),
    );
  }

  /** Brings this node's vector in line with the row, where what it holds allows for it. */
  #carryOut(row: SealRow): void {
    const { taken, queue } = this.#core;
    const { origin, head, seal } = row;
    if (taken.has(origin)) {
      if (taken.top(origin) > seal) return;
      // Whoever missed nothing holds all of it, whatever an older vector of its own still says.
      const holdsAll = taken.head(origin) === seal || (this.#proven && row.forgotten);
      if (!holdsAll) {
        // Its records above the gap are those that all had when it was sealed.
        if (!this.#proven || taken.head(origin) < head || taken.top(origin) < seal) return;
        taken.raise(origin, seal, seal);
        queue.raiseHead(queue.batch(), origin, seal);
      }
      if (!row.forgotten) return;
      taken.drop(origin);
      queue.forget(queue.batch(), origin);
      this.#remember(origin);
    }
    // In doubt the mark stays, to be compared with.
    if (!row.forgotten || !this.#proven || row.stamp <= this.#forgottenTo) return;
    this.#forgottenTo = row.stamp;
    this.#store();
  }

  #remember(origin: OriginId): void {
    this.#forgotten.delete(origin);
    this.#forgotten.add(origin);
    if (this.#forgotten.size <= REMEMBERED_MAX) return;
    for (const oldest of this.#forgotten) {
      this.#forgotten.delete(oldest);
      return;
    }
  }

  /** Compares this node's standing with what others reported. */
  #checkStanding(): void {
    const { identity, members } = this.#core;
    if (identity.phase !== 'ready') return;
    let ahead = this.#forgottenTo;
    for (const report of this.#table.reports.values())
      if (members.isMember(report.member)) ahead = Math.max(ahead, report.forgotten);
    if (ahead > this.#forgottenTo && !this.#proven) {
      this.#core.counters.rebuilds += 1;
      this.#core.log('warn', 'rebuilding', { why: 'origins were forgotten that this store may lack' });
      this.#hooks.onMissed();
      return;
    }
    const proven = this.#proven || this.#reportsOfAll() !== undefined;
    if (ahead === this.#forgottenTo && proven === this.#proven) return;
    this.#forgottenTo = ahead;
    this.#proven = proven;
    this.#store();
    this.#publish();
  }

  #store(): void {
    const stored: StoredSeals = {
      rows: [...this.#table.rows.values()],
      forgotten: this.#forgottenTo,
      proven: this.#proven,
      version: this.#version,
    };
    const text = JSON.stringify(stored);
    if (text === this.#stored) return;
    this.#stored = text;
    this.#core.queue.batch().meta.set('seals', encodeMeta(stored));
  }
}

/** Whether the member needs the origin in nobody's vector any more. */
function isSettled(entry: ReportEntry | undefined, seal: number): boolean {
  if (entry === undefined) return false;
  return entry[3] === FORGOTTEN || (entry[3] === SEALED && entry[1] === seal && entry[2] === seal);
}
