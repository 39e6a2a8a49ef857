/**
 * The words of the core. Nothing here knows a socket, a disk or a clock.
 */

/** 64 random bits that name one unbroken run of sequence numbers; 16 lower-case hex digits. */
export type OriginId = string;

/** HLC stamp as text: 32 lower-case hex digits; their order is the order of writes. */
export type StampHex = string;

/**
 * One record in its canonical bytes (see entry.ts for the layout): the same bytes travel on the wire and lie
 * on disk. Treated as immutable everywhere.
 */
export type Row = Uint8Array;

/** Names one accepted write: the node's origin that accepted it and its sequence number there, from 1. */
export interface Dot {
  readonly origin: OriginId;
  readonly seq: number;
}

/** Records as parallel arrays: `rows[i]` belongs to `keys[i]`. */
export interface Records {
  readonly keys: readonly string[];
  readonly rows: readonly Row[];
}

/** So many entries with keys up to `key`, and above that of the share before. */
export interface KeyShare {
  readonly key: string;
  readonly count: number;
}

/** What one clock reading holds. `mono` never goes back; `wall` may. Both in milliseconds. */
export interface Instant {
  readonly wall: number;
  readonly mono: number;
}

/** What this node remembers of a member. Last writer (greatest `stamp`) wins, per name. */
export interface MemberRow {
  readonly name: string;
  /** Label by which acknowledging hosts are counted. */
  readonly host: string;
  /** `host:port` to dial; empty for a member that does not listen. */
  readonly address: string;
  readonly origin: OriginId;
  readonly stamp: StampHex;
  /** Members that it has not heard for a lease, and votes to exclude; rising, at most `SILENT_MAX`. Absent: none. */
  readonly silent?: readonly OriginId[];
}

/** A member that a majority has excluded. */
export interface Excluded {
  readonly origin: OriginId;
  /** Its name then. */
  readonly name: string;
  /** When the first of those who saw the majority saw it, ms since 1970. For people to read. */
  readonly at: number;
}

/**
 * What one atomic write to the store holds. The store derives the physical rows: for each of `rows` the entry
 * and its dot row; for each `replaces` the removal of that dot row.
 */
export interface StoreBatch {
  readonly id: number;
  readonly rows: ReadonlyMap<string, BatchRow>;
  /** Records that go without a successor, as they lie in the store: entry and dot row. Their keys are not in `rows`. */
  readonly removals?: ReadonlyMap<string, Row>;
  /** They are entries that were over, whose time has come. */
  readonly collects?: boolean;
  /** Heads that changed, with their new value. */
  readonly heads: ReadonlyMap<OriginId, number>;
  /** Origins whose head is removed; their records stay. */
  readonly forgets?: ReadonlySet<OriginId>;
  /** Highest stamp this store has seen: milliseconds and counter. Absent when unchanged. */
  readonly hlc?: { readonly ms: number; readonly counter: number };
  /** Named small records of the node (identity, members, bootstrap progress). null deletes. */
  readonly meta: ReadonlyMap<string, Uint8Array | null>;
  /** Damaged rows to be removed, before anything of the above is put. */
  readonly drops?: readonly Drop[];
}

/** A row that is removed for being damaged: an entry, a dot row, or whatever bears this physical key. */
export type Drop = { readonly key: string } | { readonly dot: Dot } | { readonly raw: Uint8Array };

export interface BatchRow {
  readonly row: Row;
  /** Dot of the row that this one replaces in the store, if any. Its dot row goes in the same batch. */
  readonly replaces: Dot | undefined;
}

/** What the store says about itself when it is opened. */
export interface Recovered {
  readonly heads: ReadonlyMap<OriginId, number>;
  /** Greatest dot held per origin, also of those without a head: they are forgotten ones, and hold no gap. */
  readonly tops: ReadonlyMap<OriginId, number>;
  readonly hlc: { readonly ms: number; readonly counter: number };
  readonly meta: ReadonlyMap<string, Uint8Array>;
}
