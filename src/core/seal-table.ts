/**
 * What members tell each other about origins whose run has ended: a row per such origin, and the last report of
 * every member. Both are joined: of two rows of one origin, as of two reports of one member, the later one wins. Equal tables have equal hashes.
 */
import { addTo, hashText, type Lanes, lanesHex } from './hash.js';
import type { OriginId } from './types.js';

/** Most rows a table takes; further origins wait until earlier ones are forgotten. */
export const SEALS_MAX = 4_096;
/** Most entries of one report: the smallest origins come first, so that all members report the same ones. */
export const REPORT_ENTRIES_MAX = 1_024;

export interface SealRow {
  readonly origin: OriginId;
  /** Head that all members had when it was sealed; below `seal` if there is a gap that nobody could fill. */
  readonly head: number;
  /** The last sequence number that counts. */
  readonly seal: number;
  /** Members drop the origin from their vectors. */
  readonly forgotten: boolean;
  /** Logical time of the sealing, or of the forgetting: above that of every report it rests on. */
  readonly stamp: number;
}

/** What a member says of an ended origin. */
export const HELD = 0;
/** Held as far as the seal says, no less and no more, and the seal is known. */
export const SEALED = 1;
/** Dropped from the vector. */
export const FORGOTTEN = 2;

export type ReportEntry = readonly [
  origin: OriginId,
  head: number,
  top: number,
  state: typeof HELD | typeof SEALED | typeof FORGOTTEN,
];

/** What one member has on its disk of origins whose run has ended. Given by members that hold all data only. */
export interface SealReport {
  readonly member: OriginId;
  /** Logical time. */
  readonly version: number;
  /** The member table that it judged by. */
  readonly membersHash: string;
  /** Greatest stamp of a forgetting that it knows of. */
  readonly forgotten: number;
  /** Whether it is known to have missed no forgetting. */
  readonly proven: boolean;
  /**
   * Digest of all entries on its disk, 64 hex digits. Told only while an ended origin has a gap and the digest has not
   * changed for a beat; else empty.
   */
  readonly root: string;
  readonly entries: readonly ReportEntry[];
}

export interface SealNews {
  readonly rows: SealRow[];
  readonly reports: SealReport[];
}

function isLater(a: SealRow, b: SealRow): boolean {
  if (a.stamp !== b.stamp) return a.stamp > b.stamp;
  if (a.seal !== b.seal) return a.seal > b.seal;
  return a.forgotten !== b.forgotten ? a.forgotten : a.head > b.head;
}

export class SealTable {
  readonly rows = new Map<OriginId, SealRow>();
  readonly reports = new Map<OriginId, SealReport>();
  /** Logical time: no stamp and no version that was seen here is later. */
  time = 0;
  #hash: string | undefined;

  witness(time: number): void {
    this.time = Math.max(this.time, time);
  }

  /** True if it is news. */
  mergeRow(row: SealRow): boolean {
    const old = this.rows.get(row.origin);
    if (old === undefined ? this.rows.size >= SEALS_MAX : !isLater(row, old)) return false;
    this.rows.set(row.origin, row);
    this.witness(row.stamp);
    this.#hash = undefined;
    return true;
  }

  mergeReport(report: SealReport): boolean {
    const old = this.reports.get(report.member);
    if (old !== undefined && old.version >= report.version) return false;
    this.reports.set(report.member, report);
    this.#hash = undefined;
    return true;
  }

  dropRow(origin: OriginId): void {
    if (this.rows.delete(origin)) this.#hash = undefined;
  }

  /** Keeps the reports of members that count. */
  keepReports(counts: (member: OriginId) => boolean): void {
    for (const member of [...this.reports.keys()])
      if (!counts(member) && this.reports.delete(member)) this.#hash = undefined;
  }

  clear(): void {
    this.rows.clear();
    this.reports.clear();
    this.#hash = undefined;
  }

  get hash(): string {
    if (this.#hash === undefined) {
      const sum: Lanes = { a: 0, b: 0 };
      for (const row of this.rows.values())
        addTo(sum, hashText(`${row.origin}:${row.head}:${row.seal}:${row.forgotten}:${row.stamp}`));
      for (const { member, version } of this.reports.values()) addTo(sum, hashText(`${member}@${version}`));
      this.#hash = lanesHex(sum);
    }
    return this.#hash;
  }
}
