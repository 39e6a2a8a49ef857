/**
 * What a running node offers to its faces: the HTTP routes (http.ts) and the server side of the client
 * protocol (client/server.ts) see this and nothing else of the node. Values pass through as the bytes that
 * their writer encoded. Implemented by node.ts.
 */
import type { SettledWrite } from './core/acknowledgements.js';
import type { GivenStamp } from './core/hlc.js';
import type { Row, StampHex } from './core/types.js';
import type { EncodedCache } from './encoded-cache.js';
import type { Range, Receipt, Status } from './read-store.js';

/** One operation of a write, already encoded. */
export interface WriteOp {
  readonly key: string;
  /** KIND_REGISTER or KIND_TOMBSTONE (core/entry.ts). */
  readonly kind: number;
  /** msgpack bytes; empty for a tombstone. */
  readonly value: Uint8Array;
  /** Fixed by the writer (light client, HTTP retry), or absent: the node stamps it. */
  readonly stamp?: GivenStamp;
  /** The entry ends so long after its stamp (core/expiry.ts). Only with a value. */
  readonly ttlMs?: number;
}

export interface WriteRequest {
  readonly ops: readonly WriteOp[];
  readonly replicas?: number;
  readonly fsync?: boolean;
  readonly timeoutMs?: number;
}

/** A write that is told, once, how it ended. */
export interface SubmittedWrite extends WriteRequest {
  /** For whom it is submitted to. */
  id: number;
  settled(write: SettledWrite): void;
  failed(error: unknown): void;
}

/** A change as it was written to this node's disk. */
export interface RowChange {
  readonly key: string;
  readonly row: Row;
}

/** Live rows (no tombstones, nothing expired) in byte order of keys. */
export interface RowScan {
  /** Up to `rowsMax` rows; empty at the end. */
  next(rowsMax: number): Promise<{ keys: readonly string[]; rows: readonly Row[] }>;
  close(): Promise<void>;
}

export interface VerifyReport {
  /** True when every member holds the same entries at one version vector. */
  identical: boolean;
  /** Live entries and tombstones at the asked node. */
  entries: number;
  members: {
    name: string;
    address: string;
    state: 'identical' | 'differs' | 'unreachable';
    message?: string;
  }[];
  /** Some of the keys that differ (at most 20), with the stamp that each member holds ('' for none). */
  differing: { key: string; stamps: Record<string, string> }[];
}

/** Sums over all entries of one node, read from its disk in one snapshot. */
export interface DigestReport {
  /** origin -> head, of the snapshot. */
  heads: Record<string, number>;
  entries: number;
  /** Sums over all of them, 64 hex digits: equal on members that hold the same (core/digest-sum.ts). */
  root: string;
  /** Entries that were over by then may have been collected, ms (0: none was), and whether all of them were. */
  collected: number;
  swept: boolean;
  /** Records that failed their checksum; they are in no sum. */
  damaged: number;
  /** 256 sums, one per bucket of keys. */
  buckets: string[];
}

export interface NodeService {
  /** Milliseconds of the node's hybrid logical clock; a client merges it before it stamps, and entries expire by it. */
  clockMs(): number;
  /**
   * Values that may be answered without a look at the disk, at this moment and no later; undefined while this node
   * answers no reads from its own data. Whoever has just read a live row of it may put it there, in the same step.
   */
  readonly encoded?: EncodedCache | undefined;
  /** The live row; a promise only when a peer has to be asked for it. Throws NOT_READY, DAMAGED, UNPROVED, CLOSED. */
  readRow(key: string): Row | undefined | Promise<Row | undefined>;
  /** A face met a record that it cannot decode (UNREADABLE): it is counted, and shows in health. */
  noteUnreadable(error: unknown): void;
  readRows(keys: readonly string[]): Promise<(Row | undefined)[]>;
  scanRows(range: Range): RowScan;
  /** Resolves once the asked hosts hold it. */
  write(request: WriteRequest): Promise<Receipt>;
  /** The same without a promise: thousands may wait at once. Throws what is wrong with the request itself. */
  submit(write: SubmittedWrite): void;
  /** Calls back for each change of a key under `prefix`, after it is written. Returns the unsubscriber. */
  subscribe(prefix: string, onChange: (change: RowChange) => void): () => void;
  status(): Status;
  ready(level: 'local' | 'synced', timeoutMs: number): Promise<void>;
  /** Removes a member by name; resolves once this node has written the removal. Throws NOT_FOUND. */
  removeMember(name: string): Promise<void>;
  /** Hash of this node alone. */
  digest(): Promise<DigestReport>;
  /** Key and stamp of each entry (tombstones included) in one bucket of `digest`. */
  digestBucket(bucket: number): Promise<{ key: string; stamp: StampHex }[]>;
  /**
   * The bytes of a backup of this node (storage/backup-format.ts), from one snapshot, which is held until the end or
   * `return()`. Throws NOT_READY, DAMAGED, CLOSED.
   */
  backup(): AsyncIterableIterator<Uint8Array>;
  /** Compares all members at equal vectors. */
  verify(timeoutMs: number): Promise<VerifyReport>;
}
