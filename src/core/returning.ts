/**
 * What becomes of the entries of a store that was set aside, once its node holds everything that the cluster holds: the
 * cluster went on without it, or it could not be trusted any more. Nearly all of them are held by the others, or were
 * superseded there. What is left was written through this node and reached nobody else.
 *
 *     held     here, or superseded by what is here, or by what was deleted and collected since: nothing is to be done
 *     expired  nobody could read it any more
 *     return   it is brought back as a late retry of its write at another host: with its stamp, kind, expiry and bytes.
 *              It loses to whatever is newer. What would have had to win over it cannot have been collected, as its
 *              stamp would still pass the door (horizon.ts).
 *     keep     it is too old for that: whether it was deleted, and the deletion collected, nobody knows any more. It goes
 *              into a file, and what to do with it is the operator's.
 *
 * Pure: the node and the simulator decide by the same function.
 */
import { type Core, decodeMeta } from './core.js';
import {
  compareEntries,
  dotOf,
  expiresAtOf,
  isTombstone,
  KIND_REGISTER,
  KIND_TOMBSTONE,
  kindOf,
  stampCounterOf,
  stampMsOf,
  valueOffset,
  writerOf,
} from './entry.js';
import { isExpired } from './expiry.js';
import { DAMAGED } from './heal.js';
import { storedCollected } from './horizon.js';
import type { LocalOp } from './io.js';
import type { OriginId, Row } from './types.js';

export type Verdict = 'held' | 'expired' | 'return' | 'keep';

/** What a store that was set aside says of itself. */
export interface OldStore {
  /** Its heads, and its small records (those of the `node`, the `horizon`). */
  readonly heads: ReadonlyMap<OriginId, number>;
  readonly meta: ReadonlyMap<string, Uint8Array>;
}

/** Of an old store, what of it all members have held: that is for nobody to bring back. */
export class KnownToAll {
  readonly #heads: ReadonlyMap<OriginId, number> | undefined;
  readonly #collected: number;

  /** `old`: undefined if nothing that the store says of itself may be believed, as when it was damaged. */
  constructor(old: OldStore | undefined) {
    const isWhole = decodeMeta<{ phase: string }>(old?.meta.get('node'))?.phase === 'ready';
    this.#heads = isWhole ? old!.heads : undefined;
    this.#collected = isWhole ? storedCollected(old!.meta) : 0;
  }

  has(row: Row): boolean {
    if (this.#heads === undefined) return false;
    // It collects what all members hold, and nothing as old was accepted by it ever since.
    if (stampMsOf(row) <= this.#collected) return true;
    // It has forgotten the origin, as all members did after all of them had come to hold the same of it.
    return !this.#heads.has(dotOf(row).origin);
  }
}

/** `core`: of the new store, which is ready and in step with the members. The row's checksum was verified. */
export function verdictOn(core: Core, known: KnownToAll, key: string, row: Row): Verdict {
  if (core.sealing.covers(dotOf(row)) === 'held') return 'held';
  // Not what is on its way to the disk: a crash may still take that.
  const current = core.deps.lookup(key);
  const found = current === DAMAGED ? undefined : current;
  if (found !== undefined && compareEntries(found, row) >= 0) return 'held';
  if (isExpired(row, () => Math.max(core.now.wall, core.hlc.ms))) return 'expired';
  // Of a kind that this version cannot write.
  if (kindOf(row) !== KIND_REGISTER && kindOf(row) !== KIND_TOMBSTONE) return 'keep';
  if (stampMsOf(row) > core.horizon.floor) return 'return';
  if (known.has(row)) return 'held';
  // A deletion has nothing to delete.
  if (isTombstone(row) && current !== DAMAGED && (found === undefined || isTombstone(found))) return 'held';
  return 'keep';
}

/** The write that made this row, once more. */
export function retryOf(key: string, row: Row): LocalOp {
  const expiresAt = expiresAtOf(row);
  return {
    key,
    kind: kindOf(row),
    // Rows of a reader share its buffers.
    value: row.slice(valueOffset(row)),
    stamp: { ms: stampMsOf(row), counter: stampCounterOf(row), writer: writerOf(row) },
    ...(expiresAt === undefined ? {} : { ttlMs: expiresAt - stampMsOf(row) }),
  };
}
