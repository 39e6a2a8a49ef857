/**
 * `DIR/untrusted` says in one line why the database must not be opened again: it has damage that cannot be healed in
 * place. It goes when the database is set aside.
 */
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { syncFolder } from './folder-sync.js';

const UNTRUSTED = 'untrusted';

/** Why the database of the folder must not be opened; undefined: nothing is known against it. */
export function readDistrust(folder: string): string | undefined {
  try {
    return readFileSync(join(folder, UNTRUSTED), 'utf8').trim() || 'it was found to be damaged';
  } catch {
    return undefined;
  }
}

/** Never throws. */
export function writeDistrust(folder: string, why: string): void {
  try {
    writeFileSync(join(folder, UNTRUSTED), `${why.split('\n', 1)[0]}\n`);
    syncFolder(folder);
  } catch {
    // The disk is bad enough; whoever opens it next will see for himself.
  }
}

export function clearDistrust(folder: string): void {
  if (readDistrust(folder) !== undefined) unlinkSync(join(folder, UNTRUSTED));
}
