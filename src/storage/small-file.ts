/** Small files that are replaced as a whole: whatever happens, there is the old or the new one, never half of one. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncFolder } from './folder-sync.js';

export const DRAFT = '.tmp';

/** Flushed when it returns. */
export function replaceFile(path: string, text: string): void {
  const draft = path + DRAFT;
  const fd = openSync(draft, 'w', 0o644);
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(draft, path);
  syncFolder(dirname(path));
}

/** Flushed when it returns. Nothing happens if there is none. */
export function removeFile(path: string): void {
  rmSync(path, { force: true });
  syncFolder(dirname(path));
}
