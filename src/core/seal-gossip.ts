/**
 * How members tell each other of origins that have ended: each what is on its own disk (reports), and all of them
 * what follows (rows). News is flooded; beats carry a hash of all of it, so that what was lost on its way is found.
 * While there is nothing to settle, none of this is sent.
 */
import type { Core } from './core.js';
import type { ForgottenOrigins } from './forgotten-origins.js';
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
  type SealTable,
} from './seal-table.js';
import type { OwnStanding } from './standing.js';
import type { OriginId } from './types.js';

/** Reports of one message. */
const MESSAGE_REPORTS_MAX = 64;
/** Hashes must differ at so many beats in a row before the whole table is sent: news is on its way by itself. */
const MISMATCHES_MAX = 2;

/** It stands in vectors and belongs to no member: its node bears a newer one, or was removed. */
export function hasEnded(core: Core, origin: OriginId): boolean {
  return origin !== core.identity.origin && !core.members.isMember(origin);
}

/**
 * Whether something of an ended origin is on its way to the disk: taken from the removed member a moment ago, for instance.
 * What the disk has is not the last word then, and nothing may be concluded from it.
 */
export function isLanding({ taken, written, queue }: Core, origin: OriginId): boolean {
  if (taken.top(origin) > written.top(origin) || taken.head(origin) > written.head(origin)) return true;
  return queue.isUnflushed(origin);
}

export interface SealGossipHooks {
  /** True if the row was news. */
  mergeRow(row: SealRow): boolean;
  /** Rows have come in. */
  onRows(): void;
  /** Digest of all entries written here, 64 hex digits; empty while it is not known, or doubted. */
  root(): string;
}

export class SealGossip {
  readonly #core: Core;
  readonly #table: SealTable;
  readonly #standing: OwnStanding;
  readonly #forgotten: ForgottenOrigins;
  readonly #hooks: SealGossipHooks;
  readonly #mismatches = new Map<number, number>();
  #published = '';
  /** The digest at the last beat, and what is told of it. */
  #lastRoot = '';
  #toldRoot = '';

  constructor(
    core: Core,
    table: SealTable,
    standing: OwnStanding,
    forgotten: ForgottenOrigins,
    hooks: SealGossipHooks,
  ) {
    this.#core = core;
    this.#table = table;
    this.#standing = standing;
    this.#forgotten = forgotten;
    this.#hooks = hooks;
  }

  /** Whether there is anything to settle. */
  get hasBusiness(): boolean {
    if (!this.#standing.proven || this.#table.rows.size > 0) return true;
    for (const report of this.#table.reports.values())
      if (!report.proven || report.entries.length > 0) return true;
    for (const origin of this.#core.written.origins()) if (hasEnded(this.#core, origin)) return true;
    return false;
  }

  greet(peer: Peer): void {
    if (this.#core.identity.uid === '' || !this.hasBusiness) return;
    this.publish();
    this.#tell(peer, true);
  }

  beat(): void {
    const core = this.#core;
    const root = this.#hasGap() ? this.#hooks.root() : '';
    this.#toldRoot = root === this.#lastRoot ? root : '';
    this.#lastRoot = root;
    if (core.identity.uid === '' || !this.hasBusiness) return;
    this.publish();
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
    this.publish(true);
    this.#tell(peer, true);
  }

  onSeals(peer: Peer, message: Seals): void {
    if (!this.#isPartner(peer)) return;
    const core = this.#core;
    const news: SealNews = { rows: [], reports: [] };
    for (const row of message.rows) if (this.#hooks.mergeRow(row)) news.rows.push(row);
    for (const report of message.reports) {
      this.#table.witness(report.version);
      if (report.member === core.identity.origin) {
        // Of an earlier start, whose count was not written: what this one says has to be later.
        if (report.version > (this.#table.reports.get(report.member)?.version ?? 0)) this.#published = '';
      } else if (core.members.isMember(report.member) && this.#table.mergeReport(report))
        news.reports.push(report);
    }
    if (news.rows.length > 0) this.#hooks.onRows();
    if (news.rows.length > 0 || news.reports.length > 0) this.flood(news, peer);
    this.publish(message.reply);
    if (message.reply) this.#tell(peer, false);
  }

  /** Says what is on this disk, if that has changed since the last time and there is business (or somebody asks). */
  publish(asked = false): void {
    const core = this.#core;
    const { identity, members } = core;
    if (identity.phase !== 'ready' || !members.isMember(identity.origin)) return;
    if (!asked && !this.hasBusiness) return;
    for (const origin of core.taken.origins()) if (hasEnded(core, origin) && isLanding(core, origin)) return;
    const { forgotten, proven } = this.#standing;
    const root = this.#toldRoot;
    const entries = this.#entries();
    const content = JSON.stringify([identity.origin, members.hash, forgotten, proven, root, entries]);
    if (content === this.#published) return;
    this.#published = content;
    this.#table.time += 1;
    const report: SealReport = {
      member: identity.origin,
      version: this.#table.time,
      membersHash: members.hash,
      forgotten,
      proven,
      root,
      entries,
    };
    this.#table.mergeReport(report);
    // A newcomer that asks for our standing is no news to the others.
    if (this.hasBusiness) this.flood({ rows: [], reports: [report] });
  }

  flood(news: SealNews, except?: Peer): void {
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

  /** The reports of all counted members, if all were made by the member table that is known here. */
  reportsOfAll(): SealReport[] | undefined {
    const { members } = this.#core;
    const out: SealReport[] = [];
    for (const { origin } of members.active()) {
      const report = this.#table.reports.get(origin);
      if (report === undefined || report.membersHash !== members.hash) return undefined;
      out.push(report);
    }
    return out;
  }

  #isPartner(peer: Peer): boolean {
    const { uid } = this.#core.identity;
    return uid !== '' && peer.clusterUid === uid;
  }

  #hasGap(): boolean {
    const core = this.#core;
    if (!core.written.hasGaps) return false;
    for (const [origin, head, top] of core.written.entries())
      if (top > head && hasEnded(core, origin)) return true;
    return false;
  }

  #entries(): ReportEntry[] {
    const { written } = this.#core;
    const { rows } = this.#table;
    const ended = new Set<OriginId>();
    for (const origin of written.origins()) if (hasEnded(this.#core, origin)) ended.add(origin);
    for (const origin of rows.keys())
      if (hasEnded(this.#core, origin) && this.#forgotten.has(origin)) ended.add(origin);
    const origins = [...ended].sort().slice(0, REPORT_ENTRIES_MAX);
    return origins.map((origin): ReportEntry => {
      if (!written.has(origin)) return [origin, 0, 0, FORGOTTEN];
      const head = written.head(origin);
      const top = written.top(origin);
      const row = rows.get(origin);
      return [origin, head, top, row !== undefined && isSealedAs(row, head, top) ? SEALED : HELD];
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
}

/** Whether this is what there is of the origin: everything up to the seal, or all but the gap that it was sealed with. */
export function isSealedAs({ head, seal }: SealRow, ownHead: number, ownTop: number): boolean {
  return ownTop === seal && (ownHead === seal || ownHead === head);
}
