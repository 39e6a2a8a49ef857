/**
 * What goes into the core and what comes out of it: the whole contract with a driver.
 *
 * The driver calls `replica.handle(input, now)` with one input, carries out every effect it returns, in order,
 * and only then gives the next input. Nothing else leaves the core, and nothing else enters it but the
 * synchronous look-up of one row. The node (real clock, ws, LevelDB) and the simulator (virtual time) are the
 * two drivers.
 *
 * Every `persist` is answered by exactly one `persisted` or `persist-failed`, and where the store flushes, each
 * `persisted` is followed by a `flushed` that covers it, or by `persist-failed`; every `open-scan` by `scan-opened`
 * or `scan-failed`, every `read-scan` by `scan-read` or `scan-failed`; every `plan` by `planned`; every `dial` by `link-opened` or
 * `dial-failed`; every opened link by one `link-closed`.
 */
import type { ErrorCode, ErrorDetails } from '../errors.js';
import type { SettledWrite } from './acknowledgements.js';
import type { GivenStamp } from './hlc.js';
import type { PeerMessage } from './messages.js';
import type { Dot, KeyShare, OriginId, Records, Row, StoreBatch } from './types.js';

export type LinkId = number;

export interface LocalOp {
  readonly key: string;
  readonly kind: number;
  readonly value: Uint8Array;
  readonly stamp?: GivenStamp;
  /** The entry ends so long after its stamp. Only with a value. */
  readonly ttlMs?: number;
}

export interface LocalWrite {
  /** Names the write in its `settled` or `rejected`. */
  readonly id: number;
  readonly ops: readonly LocalOp[];
  /** Default: 2, or 1 while the cluster has one member. */
  readonly replicas?: number;
  /** Default true. */
  readonly fsync?: boolean;
  readonly timeoutMs?: number;
}

export type Input =
  /** Local writes, each on its own; those of one turn of the event loop come together. */
  | { readonly type: 'writes'; readonly writes: readonly LocalWrite[] }
  | { readonly type: 'start' }
  | { readonly type: 'tick' }
  | { readonly type: 'link-opened'; readonly link: LinkId; readonly dialed: string | undefined }
  | { readonly type: 'link-closed'; readonly link: LinkId }
  | { readonly type: 'dial-failed'; readonly address: string; readonly reason: string }
  | { readonly type: 'message'; readonly link: LinkId; readonly message: PeerMessage }
  /** Bytes arrived on the link, though perhaps no whole message yet. */
  | { readonly type: 'link-alive'; readonly link: LinkId }
  /** The queue towards the peer is over its cap (pushes are being dropped), or is drained again. */
  | { readonly type: 'link-congested'; readonly link: LinkId }
  | { readonly type: 'link-drained'; readonly link: LinkId }
  /** The batch is readable, and stays so should this node be killed. */
  | { readonly type: 'persisted'; readonly batch: number }
  /** This batch and all before it survive a loss of power. Only where `config.flushes`. */
  | { readonly type: 'flushed'; readonly batch: number }
  /** This batch, or the flush of an earlier one, failed: what is on the disk is unknown. */
  | { readonly type: 'persist-failed'; readonly batch: number; readonly message: string }
  | { readonly type: 'scan-opened'; readonly scan: number; readonly heads: ReadonlyMap<OriginId, number> }
  | {
      readonly type: 'scan-read';
      readonly scan: number;
      readonly records: Records;
      readonly last: boolean;
      /** Tops of the snapshot; with `last`. */
      readonly tops?: ReadonlyMap<OriginId, number>;
      /** Keys that were skipped, if the reader asked for that. */
      readonly damaged?: readonly string[];
    }
  /** `damaged`: this record could not be read; the next `read-scan` goes on behind it. Any other failure is final. */
  | {
      readonly type: 'scan-failed';
      readonly scan: number;
      readonly message: string;
      readonly damaged?: { readonly key: string; readonly dot?: Dot };
    }
  /** With no keys and zeros if it could not be found out. */
  | {
      readonly type: 'planned';
      readonly plan: number;
      readonly keys: readonly string[];
      readonly entries: number;
      readonly bytes: number;
    }
  | { readonly type: 'remove-member'; readonly id: number; readonly name: string }
  /** The record of the key is known to be lost; `dot`: a row of the dot index names it. Answered by `healed` with `id`. */
  | { readonly type: 'damaged'; readonly id: number; readonly key: string; readonly dot?: Dot }
  /** There is no record of the key, and that may be wrong. Answered by `healed`. */
  | { readonly type: 'confirm'; readonly id: number; readonly key: string }
  /** Some records above `after`, up to `until`, may be lost. Answered by `healed`. */
  | {
      readonly type: 'suspect';
      readonly id: number;
      readonly after: string | null;
      readonly until: string | null;
    }
  /** The record has no row in the dot index, or this row leads nowhere. */
  | { readonly type: 'mend-dot'; readonly key: string }
  | { readonly type: 'drop-row'; readonly row: Uint8Array }
  /** A head or a small record of the node is damaged on disk: all of them are written anew, in place of `row`. */
  | { readonly type: 'rewrite-own'; readonly row: Uint8Array | undefined }
  /** The node is about to be closed in order: nothing more is taken, what the next start can use is written. */
  | { readonly type: 'stop' };

export type Effect =
  | { readonly type: 'persist'; readonly batch: StoreBatch }
  /** A hint: this batch will be persisted next, and changes no more. Needs no answer. */
  | { readonly type: 'prepare'; readonly batch: StoreBatch }
  /** `bestEffort`: may be dropped when the link is congested. */
  | {
      readonly type: 'send';
      readonly links: readonly LinkId[];
      readonly message: PeerMessage;
      readonly bestEffort: boolean;
    }
  | { readonly type: 'dial'; readonly address: string }
  | { readonly type: 'close-link'; readonly link: LinkId; readonly reason: string }
  | {
      readonly type: 'open-scan';
      readonly scan: number;
      /** By dots, or by keys: greater than `after`, up to and including `until`; null: without bound. */
      readonly what:
        | { readonly above: ReadonlyMap<OriginId, number> }
        | { readonly after: string | null; readonly until: string | null };
    }
  /** Find keys that divide the entries into ranges of about `rangeBytes`, at most `rangesMax`; cheaply. */
  | {
      readonly type: 'plan';
      readonly plan: number;
      readonly rangeBytes: number;
      readonly rangesMax: number;
      /** All entries, in order of keys; empty when it is not known how they lie. The key of the last one is empty. */
      readonly shares: readonly KeyShare[];
    }
  | {
      readonly type: 'read-scan';
      readonly scan: number;
      readonly rowsMax: number;
      readonly bytesMax: number;
      /** Damaged records are named in the answer and passed over, rather than failing the scan. */
      readonly skipDamaged?: boolean;
    }
  | { readonly type: 'close-scan'; readonly scan: number }
  /** Held as they asked for; `receiptOf` (acknowledgements.ts) makes the receipt of each. */
  | { readonly type: 'settled'; readonly writes: readonly SettledWrite[] }
  | {
      readonly type: 'rejected';
      readonly id: number;
      readonly code: ErrorCode;
      readonly message: string;
      readonly details?: ErrorDetails;
    }
  /** Entries whose content changed, now written: refresh caches, tell watchers. */
  | { readonly type: 'changed'; readonly keys: readonly string[]; readonly rows: readonly Row[] }
  /** Entries that were over have left the store. Nobody is told, since readers saw nothing of them any more. */
  | { readonly type: 'collected'; readonly keys: readonly string[]; readonly rows: readonly Row[] }
  /** A hint: most of what lay in these ranges of keys was removed, so that space can be reclaimed there. Needs no answer. */
  | {
      readonly type: 'reclaim';
      readonly ranges: readonly { readonly after: string | null; readonly until: string | null }[];
    }
  /** A record that was superseded elsewhere is about to leave the store: what it held is to be kept somewhere. */
  | { readonly type: 'set-aside'; readonly key: string; readonly row: Row }
  /** Call back with `tick` at this monotonic time; replaces the previous one. null: nothing is due. */
  | { readonly type: 'wake'; readonly at: number | null }
  /** `ok` false: nobody could say in time. `row`: as written now; undefined when there is no such key (or for a range). */
  | { readonly type: 'healed'; readonly id: number; readonly ok: boolean; readonly row: Row | undefined }
  | { readonly type: 'removed-member'; readonly id: number; readonly found: boolean }
  /** The phase, readiness or health changed: read `replica.status()`. */
  | { readonly type: 'state' }
  | {
      readonly type: 'log';
      readonly level: 'info' | 'warn' | 'error';
      readonly event: string;
      readonly details: Readonly<Record<string, string | number | boolean>>;
    };
