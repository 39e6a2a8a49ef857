/**
 * Expiry: an entry that was written with a `ttlMs` ends at its stamp's milliseconds plus that, which is fixed with the
 * stamp and part of the entry. Whether it has ended is a function of the entry and of a clock, and nothing else: no
 * message says so, no record changes, and the entry stays as it is on every disk, and in every digest, until garbage
 * collection takes it as it takes tombstones, with the greater of stamp and expiry for the tombstone's stamp.
 *
 * It goes on winning over older writes of its key: what it replaced does not come back.
 *
 * The clock is the node's hybrid one, max(wall clock, greatest stamp given or seen).
 */
import { ReadmeshError } from '../errors.js';
import { expiresAtOf, isTombstone } from './entry.js';
import type { Row } from './types.js';

/** Longest `ttlMs`: with any stamp of the next four thousand years the sum still fits the 48 bits of a stamp. */
export const TTL_MS_MAX = 2 ** 47 - 1;

export function isTtl(ttlMs: unknown): ttlMs is number {
  return Number.isSafeInteger(ttlMs) && (ttlMs as number) >= 1 && (ttlMs as number) <= TTL_MS_MAX;
}

/** Throws INVALID_OPTION; undefined passes. */
export function assertTtl(ttlMs: unknown): void {
  if (ttlMs !== undefined && !isTtl(ttlMs))
    throw new ReadmeshError(
      'INVALID_OPTION',
      `ttlMs is an integer of milliseconds from 1 to ${TTL_MS_MAX}: leave it out for an entry that stays`,
    );
}

export function endlessDeletion(): ReadmeshError {
  return new ReadmeshError('INVALID_OPTION', 'a deletion does not expire: leave ttlMs out, or put a value');
}

/** `clock` is only asked about entries that expire. */
export function isExpired(row: Row, clock: () => number): boolean {
  const expiresAt = expiresAtOf(row);
  return expiresAt !== undefined && expiresAt <= clock();
}

/** Whether readers get to see it. */
export function isVisible(row: Row, clock: () => number): boolean {
  return !isTombstone(row) && !isExpired(row, clock);
}

/** Milliseconds that are left, at least 1; undefined: it stays. */
export function remainingMs(row: Row, nowMs: number): number | undefined {
  const expiresAt = expiresAtOf(row);
  return expiresAt === undefined ? undefined : Math.max(1, expiresAt - nowMs);
}
