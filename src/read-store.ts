/**
 * The one interface that applications program against. A full replica in the process (`openReplica`)
 * and a light client of nearby daemons (`connect`) both implement it, so that moving between them is
 * a change of one line.
 */
import type { Receipt } from './core/acknowledgements.js';

/** What msgpack carries. Objects are plain; a member named `__proto__` is refused. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date
  | readonly Value[]
  | { readonly [member: string]: Value };

/** Key range in byte order of UTF-8. `prefix` combines with the bounds (the intersection is read). */
export interface Range {
  gt?: string;
  gte?: string;
  lt?: string;
  lte?: string;
  prefix?: string;
  /** Descending order. Default false. */
  reverse?: boolean;
  /** Greatest number of entries. Default: no limit. */
  limit?: number;
}

export interface WriteOptions {
  /** Hosts (by label) that must hold the write before it is acknowledged. Default 2 (1 while the cluster has one member). */
  replicas?: number;
  /** Whether each of them must have flushed it to disk. Default true. */
  fsync?: boolean;
  /** Deadline of the acknowledgement in milliseconds. Default 3,000. */
  timeoutMs?: number;
  /**
   * The entry reads as missing so many milliseconds after its stamp: an integer from 1 to 2^47 - 1. Without it the entry
   * stays, whatever the one before had. For a batch: of each put that has none of its own; not with `del`.
   */
  ttlMs?: number;
  /** Stamp (32 hex digits) of an earlier attempt of this very write, which makes the retry idempotent. For a batch: of its first operation. */
  stamp?: string;
}

export type { Receipt };

export type BatchOperation =
  | { type: 'put'; key: string; value: Value; ttlMs?: number }
  | { type: 'del'; key: string };

export type Change<T = Value> =
  | { type: 'put'; key: string; value: T; stamp: string }
  | { type: 'del'; key: string; stamp: string };

export interface WatchOptions {
  /** Ends the iteration. */
  signal?: AbortSignal;
}

export interface ReadyOptions {
  /** `local`: reads are served. `synced`: and everything that a majority of members had announced by the call is here. Default `local`. */
  level?: 'local' | 'synced';
  /** Default 30,000. */
  timeoutMs?: number;
}

/** `degraded`: the store refuses writes; reads go on where they can. */
export type Phase =
  | 'founding'
  | 'joining'
  | 'bootstrapping'
  | 'ready'
  | 'expelled'
  | 'outdated'
  | 'degraded'
  | 'closed';

export interface MemberStatus {
  name: string;
  host: string;
  address: string;
  /** Origin id, 16 hex digits. */
  origin: string;
  self: boolean;
  /** `alive`: heard of lately (phi-accrual); `suspect`: overdue; `unknown`: never heard since the start. */
  state: 'alive' | 'suspect' | 'unknown';
  /** Whether this node has a live link to it. */
  linked: boolean;
  /** Milliseconds since it was last heard of, absent when never. */
  lastHeardMs?: number;
  /** How many members vote to exclude it, having not heard it for `leaseMs`: it takes more than half of all. Absent: none. */
  votes?: number;
}

/** A member that a majority has excluded, and that has not come back yet. */
export interface ExcludedStatus {
  name: string;
  /** Its origin then, 16 hex digits. */
  origin: string;
  /** When, ms since 1970, by the clock of the member that saw it first. */
  at: number;
}

export interface HealthIssue {
  code: string;
  message: string;
}

export interface BootstrapStatus {
  /** Members copied from since the start. */
  sources: { name: string; entries: number; bytes: number }[];
  /** Received since the start of this process. */
  entries: number;
  bytes: number;
  /** Copied by an earlier one, and not fetched again. */
  resumedEntries: number;
  resumedBytes: number;
  /** Estimates of all there is to copy; absent while unknown. */
  totalEntries?: number;
  totalBytes?: number;
  /** Ranges of keys, and how many of them are complete. */
  ranges: number;
  rangesDone: number;
  /** Of the last seconds. */
  bytesPerSecond: number;
  /** Estimate; absent when there is no basis for one. */
  remainingMs?: number;
  elapsedMs: number;
  complete: boolean;
}

export interface ScrubStatus {
  running: boolean;
  /** Of the current or the last pass, by the size of files. */
  percent: number;
  /** Rows read since the start. */
  rows: number;
  /** Damage found since the start. */
  found: number;
  /** Of the current or the last pass: what nobody could replace. */
  unhealed: number;
  /** Complete passes since the start. */
  passes: number;
  /** When the last one ended, ms since 1970. */
  lastPassAt?: number;
}

/** Stores that this node had before: the cluster went on without them, or they could not be trusted. */
export interface SetAsideStatus {
  stores: {
    path: string;
    /** What only it holds is yet to be brought back (`waiting`, `reading`), or is (`read`), or cannot be. */
    state: 'waiting' | 'reading' | 'read' | 'unreadable';
    /** Why LevelDB could not read it as it is: it reads a repaired copy, in which what was damaged may be missing. */
    failure?: string;
    /** Entries so far: held by the cluster anyway, over, brought back, put into a file, damaged (or parts of files). */
    held: number;
    expired: number;
    returned: number;
    kept: number;
    damaged: number;
  }[];
  /** Files with what is too old to be brought back unasked; `readmesh import` reads them. */
  files: string[];
}

export interface GcBlocker {
  /** Name of the member. */
  who: string;
  /** `silent`, `another table`, `bootstrapping`, `behind`, `unsealed origin` or `in doubt` (docs/operations.md). */
  why: string;
  forMs: number;
}

export interface Status {
  cluster: string;
  /** Identity of this founding of the cluster, 16 hex digits. Empty while joining. */
  clusterUid: string;
  name: string;
  host: string;
  address: string;
  origin: string;
  phase: Phase;
  ready: boolean;
  /** Empty when all is well. */
  issues: HealthIssue[];
  members: MemberStatus[];
  /** Members that were excluded and are not back. Absent: none. */
  excluded?: ExcludedStatus[];
  /** Version vector of what is written to this node's disk: head per origin. */
  heads: Record<string, number>;
  /** How the copying of everything from other members goes, or went; absent if there was none since the start. */
  bootstrap?: BootstrapStatus;
  /** What this node knows about its copy being whole and equal to the others'. */
  digest: {
    /** Entries, tombstones included. */
    keys: number;
    /** Sums over all entries, 64 hex digits: equal on members with equal heads. Empty until it is known. */
    root: string;
    /** How much of the store was read since the start, if it was not closed in order; else 100. */
    builtPercent: number;
    /** The store lost or changed records, and no peer's equal digest has removed the doubt since. */
    doubt: boolean;
    /** Since when this copy has been proved equal to that of every linked member, ms ago. Absent: not yet. */
    lastProvedMs?: number;
  };
  /** Collection of deletions and of expired entries. */
  garbage: {
    /** Those that were over by then may be gone from this node, ms since 1970; 0: none was collected yet. */
    collectedTo: number;
    /** Some of them are still being removed. */
    sweeping: boolean;
  };
  /** What is known of the soundness of this node's own copy. */
  integrity: {
    /** Everything on the disk was read since the start, and found whole or healed. */
    proved: boolean;
    /** Why it is not taken to be whole; empty when nothing is amiss. */
    evidence: string[];
    /** Keys known to be lost and not yet healed. */
    lost: number;
    /** Blocks of the disk cannot be read; the store is rebuilt at the next start with --rebuild, and refused without. */
    broken: boolean;
  };
  /** Reading the whole disk in the background; absent where it is turned off. */
  scrub?: ScrubStatus;
  queues: {
    /** Local and received records not yet written, and their bytes. */
    pendingRows: number;
    pendingBytes: number;
    /** Local writes that wait for their acknowledgement. */
    unacknowledged: number;
  };
  /** State of the store on disk. */
  store?: {
    /** Why writes are refused at present; reads go on unless `readable` is false. */
    failure?: { message: string; forMs: number; attempts: number };
    readable: boolean;
    /** Reopenings after a write error since the start. */
    reopenings: number;
    /** What spoke against the store when it was last opened: `unproved`, `lost-batches`, `torn-log`, `write-error`. */
    evidence: string[];
    /** It was made from a backup: of which node, taken and restored when (ISO 8601). */
    restored?: { node: string; takenAt: string; restoredAt: string };
  };
  /** Absent if there are none. */
  setAside?: SetAsideStatus;
  /**
   * Deletions and expired entries leave the disk up to `horizonMs`. Everything that was stamped up to `asOfMs` less
   * `lateRetryMs` is here. Both ms since 1970 by the clocks of the members; 0: not known.
   */
  horizonMs: number;
  asOfMs: number;
  /** Who holds the horizon up, the longest first; empty while nobody does for more than a few beats. */
  gcBlockedBy: GcBlocker[];
  counters: Record<string, number>;
  /** The longest that the event loop was held within the last 30 to 60 s, ms. */
  loopLagMs: number;
  uptimeMs: number;
  version: string;
}

/** Rows of a range, in order. */
export interface Rows<T> extends AsyncIterableIterator<T> {
  /** All that is left of them. A loop costs a promise for each row, and this does not: for ranges that fit into memory. */
  toArray(): Promise<T[]>;
}

export interface ReadStore extends AsyncDisposable {
  /** The value, or undefined when the key is missing. Objects and arrays are frozen. */
  get<T = Value>(key: string): Promise<T | undefined>;
  /** Values in the order of `keys`. */
  getMany<T = Value>(keys: readonly string[]): Promise<(T | undefined)[]>;
  has(key: string): Promise<boolean>;
  keys(range?: Range): Rows<string>;
  values<T = Value>(range?: Range): Rows<T>;
  entries<T = Value>(range?: Range): Rows<[string, T]>;
  put(key: string, value: Value, options?: WriteOptions): Promise<Receipt>;
  del(key: string, options?: WriteOptions): Promise<Receipt>;
  /** Atomic on the accepting host's disk; stamps are consecutive, in order; a key may repeat. At most 1,024 operations and 4 MiB. */
  batch(operations: readonly BatchOperation[], options?: WriteOptions): Promise<Receipt>;
  /** Changes of keys under `prefix` from now on, the expiry (a `del`) of entries among them. Ends by `signal`, `return()` or `close()`. */
  watch<T = Value>(prefix?: string, options?: WatchOptions): AsyncIterableIterator<Change<T>>;
  ready(options?: ReadyOptions): Promise<void>;
  status(): Promise<Status>;
  close(): Promise<void>;
}

/** A full replica in this process: reads may be synchronous. */
export interface Replica extends ReadStore {
  getSync<T = Value>(key: string): T | undefined;
  /** `host:port` that this replica listens on; undefined when it does not listen. */
  readonly address: string | undefined;
}
