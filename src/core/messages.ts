/**
 * What peers say to each other, as values. The bytes are src/protocol.ts's concern, so that the node and the
 * simulator send the same encoded frames and the core never sees an encoding.
 *
 * A link begins with one `hello` from each side; nothing else is accepted before it. `refuse` says why a link
 * is closed. All integers are non-negative and below 2^53; times are milliseconds.
 */
import type { SealReport, SealRow } from './seal-table.js';
import type { Excluded, MemberRow, OriginId, Row } from './types.js';

/** Where a node stands, as its peers see it. */
export type PeerPhase = 'new' | 'bootstrapping' | 'ready';

export interface Hello {
  readonly type: 'hello';
  /** Version of this protocol that the sender speaks. */
  readonly version: number;
  readonly cluster: string;
  /** Which founding of the cluster the sender belongs to; empty while it is new. */
  readonly clusterUid: string;
  readonly name: string;
  readonly host: string;
  readonly address: string;
  readonly origin: OriginId;
  /** Random per opening of the store: two live runs of one origin are a clone. 16 hex digits. */
  readonly run: string;
  readonly phase: PeerPhase;
  /** True when the sender founded its cluster and no other member has ever joined. */
  readonly alone: boolean;
  readonly wallMs: number;
  /** Head that the sender has for its own origin. */
  readonly head: number;
}

export interface Refuse {
  readonly type: 'refuse';
  readonly code: string;
  readonly message: string;
}

/** The member table, whole or in part; rows, removals and exclusions merge. */
export interface Members {
  readonly type: 'members';
  readonly rows: readonly MemberRow[];
  /** Origins that an operator removed. */
  readonly removed: readonly OriginId[];
  /** Those that a majority has excluded. */
  readonly excluded: readonly Excluded[];
}

/** Heartbeat. Announces what is written to the sender's disk. */
export interface Beat {
  readonly type: 'beat';
  readonly wallMs: number;
  readonly phase: PeerPhase;
  readonly clusterUid: string;
  readonly alone: boolean;
  /** Hash of the sender's whole vector and of its member table. */
  readonly vectorHash: string;
  readonly membersHash: string;
  /** True: `vector` is the whole vector. False: what changed since the previous beat on this link. */
  readonly whole: boolean;
  readonly vector: readonly VectorEntry[];
  readonly report: HorizonReport;
}

/**
 * What a member says of itself for the garbage horizon (horizon.ts). Times by clocks of acceptance, ms since 1970; neither
 * `asOf` nor `collected` is above `clock`.
 */
export interface HorizonReport {
  readonly clock: number;
  /** Whatever it accepts above this sequence number of its origin, it accepts at `clock` or later. */
  readonly accepted: number;
  /** Everything with a stamp up to this less `lateRetryMs` is on its disk. 0: not known. */
  readonly asOf: number;
  /** It may have collected tombstones up to here. */
  readonly collected: number;
  /** What it holds of origins that have ended: 0 nothing, 1 something that is not sealed yet, else a hash. */
  readonly ended: number;
}

export type VectorEntry = readonly [origin: OriginId, head: number, top: number];

/** Asks for the whole vector and the whole member table in the next beat. */
export interface Resend {
  readonly type: 'resend';
  readonly vector: boolean;
  readonly members: boolean;
}

/**
 * Records that origin accepted with sequence numbers in (from, to], or the current records of those keys.
 * `from === to` carries records only to have them acknowledged, and moves no head.
 */
export interface Push {
  readonly type: 'push';
  /** Named per link, rising; what an `ack` answers. 0: no acknowledgement wanted. */
  readonly frame: number;
  readonly origin: OriginId;
  readonly from: number;
  readonly to: number;
  readonly keys: readonly string[];
  readonly rows: readonly Row[];
}

/** Every record of each named frame, or what superseded it, is written here (flushed: and on stable storage). */
export interface Ack {
  readonly type: 'ack';
  readonly flushed: boolean;
  readonly frames: readonly number[];
}

/** The sender gets these origins' frames sooner from elsewhere: announce heads only, until it grafts or pulls. */
export interface Prune {
  readonly type: 'prune';
  readonly origins: readonly OriginId[];
}

/** The opposite: pass these origins' frames on to the sender. Empty: those of every origin. */
export interface Graft {
  readonly type: 'graft';
  readonly origins: readonly OriginId[];
}

/** The sender has passed on these frames, each named by its end: ask for what does not come by itself. */
export interface Offer {
  readonly type: 'offer';
  readonly frames: readonly (readonly [origin: OriginId, to: number])[];
}

/** Asks for frames that were offered. What is no longer kept is not answered. */
export interface Fetch {
  readonly type: 'fetch';
  readonly frames: readonly (readonly [origin: OriginId, to: number])[];
}

/**
 * A sign of life of one member, flooded over every link of a mesh that is not full: the higher counter is the
 * newer, and of equal ones the suspicion. Whoever finds itself suspected answers with a higher counter.
 */
export interface Pulse {
  readonly type: 'pulse';
  readonly origin: OriginId;
  readonly counter: number;
  /** Not from the member itself: a neighbour has lost its link to it, and cannot reach it again. */
  readonly suspect: boolean;
  /** The member table that the report was made by; empty: there is none, as when suspected or not ready. */
  readonly membersHash: string;
  readonly report: HorizonReport;
}

/** Origins that have ended, and what members reported of them, whole or in part; both merge. */
export interface Seals {
  readonly type: 'seals';
  /** Asks for all that the receiver has. */
  readonly reply: boolean;
  readonly rows: readonly SealRow[];
  readonly reports: readonly SealReport[];
}

/** Hash of the sender's rows and reports, while there is anything to settle. */
export interface SealsHash {
  readonly type: 'seals-hash';
  readonly hash: string;
}

/** Opens a catch-up session by dots: everything above `heads`, from one snapshot. */
export interface Pull {
  readonly type: 'pull';
  readonly session: number;
  readonly heads: readonly (readonly [origin: OriginId, head: number])[];
}

/**
 * Opens a bootstrap session by key range: everything with a key greater than `after` (null: from the first) and
 * not greater than `until` (null: to the last).
 */
export interface PullRange {
  readonly type: 'pull-range';
  readonly session: number;
  readonly after: string | null;
  readonly until: string | null;
}

/** Asks how to divide a bootstrap into ranges of about `rangeBytes` each, at most `rangesMax`. */
export interface PlanAsk {
  readonly type: 'plan-ask';
  readonly plan: number;
  readonly rangeBytes: number;
  readonly rangesMax: number;
}

/** The answer. It is advice: any rising keys divide the key space, and nothing depends on the estimates. */
export interface Plan {
  readonly type: 'plan';
  readonly plan: number;
  /** Last key of each range but the last one, rising. None: one range. */
  readonly keys: readonly string[];
  /** Estimates for all ranges together; 0: unknown. */
  readonly entries: number;
  readonly bytes: number;
}

/** The answer to either: the snapshot is open and these are its heads. */
export interface SessionOpened {
  readonly type: 'session-opened';
  readonly session: number;
  readonly heads: readonly (readonly [origin: OriginId, head: number])[];
  /** As in a report of the time when the snapshot was taken. */
  readonly clock: number;
  readonly asOf: number;
  readonly collected: number;
}

export interface Chunk {
  readonly type: 'chunk';
  readonly session: number;
  /** From 0, rising by one. */
  readonly index: number;
  readonly keys: readonly string[];
  readonly rows: readonly Row[];
  readonly last: boolean;
  /** Greatest dot per origin held by the snapshot; only with `last` of a session by dots. */
  readonly tops: readonly (readonly [origin: OriginId, top: number])[];
}

/**
 * So many chunks are applied: the sender may go on. Said again with the same number, also with 0, it only says that
 * the session lives, while a slow line or a limit of the asker's lets nothing through.
 */
export interface ChunkAck {
  readonly type: 'chunk-ack';
  readonly session: number;
  readonly count: number;
}

/** Either side gives the session up; `busy` asks to try elsewhere. */
export interface SessionEnd {
  readonly type: 'session-end';
  readonly session: number;
  /** Whether the sender is the one that asked for it: each end numbers its own. */
  readonly asked: boolean;
  readonly code: 'busy' | 'not-ready' | 'failed' | 'cancelled';
}

/**
 * Digest of everything that the sender holds at the vector with this hash. Sent while nothing is on its way to
 * the disk and nothing is held above a head, so that whoever has the same vector must have the same digest.
 */
export interface DigestRoot {
  readonly type: 'digest-root';
  readonly vectorHash: string;
  /** As `DigestSum` writes it. */
  readonly root: Uint8Array;
  /** Entries that end up to there may have been collected, and whether all of them were (collection.ts). */
  readonly collected: number;
  readonly swept: boolean;
}

/** Keys above `after`, up to and including `to`. Empty: from the first one on; null: to the last one. */
export interface KeySpan {
  readonly after: string;
  readonly to: string | null;
}

/** Asks for the digests of ranges, at most as many as the fan-out. */
export interface AskSums {
  readonly type: 'ask-sums';
  readonly question: number;
  readonly spans: readonly KeySpan[];
}

/** As many as were asked for, or none: not now. */
export interface Sums {
  readonly type: 'sums';
  readonly question: number;
  readonly sums: readonly Uint8Array[];
}

/** Asks for entries: of the keys, or, when there are none, of the range. */
export interface AskEntries extends KeySpan {
  readonly type: 'ask-entries';
  readonly question: number;
  /** Whole records, rather than what tells them apart. */
  readonly full: boolean;
  /** Entries that ended up to there may have been collected at the asker. */
  readonly collected: number;
  readonly keys: readonly string[];
}

/**
 * The answer. Of keys: one item for each; of whole records: of as many keys as fit, and are there. Of a range: what
 * is in it up to `reached` (null: all of it).
 */
export interface Entries {
  readonly type: 'entries';
  readonly question: number;
  /** False: not now. */
  readonly answered: boolean;
  readonly reached: string | null;
  /** The same of the answerer. Items of what ended up to the greater of the two bear a mark. */
  readonly collected: number;
  readonly keys: readonly string[];
  /** One for each key, as reconcile-item.ts has them; empty when `rows` has records. */
  readonly items: readonly Uint8Array[];
  readonly rows: readonly Row[];
}

/** Asks for these keys' records, which the sender has lost. */
export interface AskRecords {
  readonly type: 'ask-records';
  readonly request: number;
  readonly keys: readonly string[];
}

/** Answers `ask-records` and `ask-range`. Keys asked for that are in neither list have to be asked for again, or elsewhere. */
export interface Lent {
  readonly type: 'lent';
  readonly request: number;
  /** False: the sender cannot answer now, or bootstraps: what it does not hold it may lack. */
  readonly ready: boolean;
  /** What the sender had written when it looked; empty if it is not ready. */
  readonly heads: readonly (readonly [origin: OriginId, head: number])[];
  readonly keys: readonly string[];
  readonly rows: readonly Row[];
  /** The sender holds nothing of these. */
  readonly absent: readonly string[];
  /** Of a range: there is nothing more in it. */
  readonly end: boolean;
}

/** Asks for all records with keys above `after` (null: from the first on), up to `until` (null: to the last). */
export interface AskRange {
  readonly type: 'ask-range';
  readonly request: number;
  readonly after: string | null;
  readonly until: string | null;
}

export type PeerMessage =
  | Hello
  | Refuse
  | Members
  | Beat
  | Resend
  | Push
  | Ack
  | Prune
  | Graft
  | Offer
  | Fetch
  | Pulse
  | Seals
  | SealsHash
  | Pull
  | PullRange
  | SessionOpened
  | Chunk
  | ChunkAck
  | SessionEnd
  | PlanAsk
  | Plan
  | DigestRoot
  | AskSums
  | Sums
  | AskEntries
  | Entries
  | AskRecords
  | Lent
  | AskRange;
