/** What a batch that mends lost records does to the digest (digest.ts), and how the root is stored with any. */
import { DigestSum, SUM_BYTES } from './digest-sum.js';
import { digestEntry, type EntryDigest } from './entry-hash.js';
import type { Batch } from './write-queue.js';

const FLAG_DOUBT = 1;

export interface Change {
  readonly key: string;
  readonly old: EntryDigest | undefined;
  readonly now: EntryDigest | undefined;
  /** Of what could be read before. Differs from `old` where the record was lost, and what it was is known. */
  readonly read: EntryDigest | undefined;
  /** In place of a record that was lost. `unknown`: it stands in the sums, and nobody knows which it was. */
  readonly mended?: 'known' | 'unknown';
}

export function changesOf(batch: Batch): Change[] {
  const { rows, removals, mended } = batch;
  const changes: Change[] = [];
  for (const [key, { row, replaced }] of rows) {
    const read = replaced === undefined ? undefined : digestEntry(key, replaced);
    const now = digestEntry(key, row);
    if (mended.size === 0 || !mended.has(key)) {
      changes.push({ key, old: read, now, read });
      continue;
    }
    const lost = mended.get(key);
    const old = lost === undefined ? undefined : digestEntry(key, lost);
    changes.push({ key, old, now, read, mended: lost === undefined ? 'unknown' : 'known' });
  }
  for (const [key, row] of removals) {
    const old = digestEntry(key, row);
    changes.push({ key, old, now: undefined, read: old });
  }
  for (const key of mended.keys())
    if (!rows.has(key))
      changes.push({ key, old: undefined, now: undefined, read: undefined, mended: 'unknown' });
  return changes;
}

export function encodeRoot(root: DigestSum, doubt: boolean): Uint8Array {
  const bytes = new Uint8Array(1 + SUM_BYTES);
  bytes[0] = doubt ? FLAG_DOUBT : 0;
  root.write(bytes, 1);
  return bytes;
}

export function decodeRoot(bytes: Uint8Array | undefined): { root: DigestSum; doubt: boolean } | undefined {
  if (bytes?.length !== 1 + SUM_BYTES) return undefined;
  return { root: DigestSum.read(bytes, 1), doubt: (bytes[0]! & FLAG_DOUBT) !== 0 };
}
