/**
 * Makes a data folder with a store that is filled before anybody may open it: the marker says `created` only after
 * the whole of it is on the disk. Cut short by a crash, it leaves a folder that no node opens (data-folder.ts: marked
 * new, yet it holds data); cut short by an error, it leaves nothing.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ReadmeshError } from '../errors.js';
import { DB, MARKER, newMarker, prepareFolder, writeMarker } from './data-folder.js';
import { openFailure } from './disk-errors.js';
import { FolderLock, isLockFile } from './folder-lock.js';
import { syncFolder } from './folder-sync.js';
import { LevelStore } from './level-store.js';
import { thisMachine } from './run-record.js';
import type { Store } from './store.js';

/** Throws NOT_A_STORE unless the folder is missing or empty. */
export function assertFillable(path: string): void {
  const folder = resolve(path);
  if (!existsSync(folder)) return;
  try {
    // The one is in every fresh volume, the other is asked for next.
    const found = readdirSync(folder).filter((name) => name !== 'lost+found' && !isLockFile(name));
    if (found.length > 0)
      throw new ReadmeshError(
        'NOT_A_STORE',
        `${folder} is not empty (${found.slice(0, 3).join(', ')}): choose an empty or missing folder; nothing was touched`,
      );
  } catch (error) {
    throw openFailure(folder, error);
  }
}

/**
 * Makes the folder if it is missing, and the store that `fill` writes into; nothing is flushed before the end. Throws
 * NOT_A_STORE, STORE_IN_USE, STORE_FAILED, and whatever `fill` throws; then all that was made is removed again.
 */
export async function fillDataFolder(path: string, fill: (store: Store) => Promise<void>): Promise<string> {
  assertFillable(path);
  const isNew = !existsSync(resolve(path));
  const folder = prepareFolder(path);
  const lock = await FolderLock.acquire(folder, thisMachine().bootId);
  let isDone = false;
  let isOurs = false;
  try {
    assertFillable(folder);
    isOurs = true;
    const marker = newMarker(folder);
    await fillStore(join(folder, DB), fill);
    syncFolder(folder);
    writeMarker(folder, { ...marker, state: 'created' });
    isDone = true;
    return folder;
  } catch (error) {
    throw openFailure(folder, error);
  } finally {
    if (isOurs && !isDone) remove(folder);
    lock.release();
    if (isNew && !isDone) removeIfEmpty(folder);
  }
}

async function fillStore(location: string, fill: (store: Store) => Promise<void>): Promise<void> {
  const run = randomBytes(8).toString('hex');
  const store = await LevelStore.open({ location, create: true, flush: false, run });
  try {
    await fill(store);
  } finally {
    await store.close();
  }
  for (const name of readdirSync(location)) syncFile(join(location, name));
  syncFolder(location);
}

function syncFile(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Only what this run of it made. */
function remove(folder: string): void {
  rmSync(join(folder, DB), { recursive: true, force: true });
  rmSync(join(folder, MARKER), { force: true });
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
    syncFolder(dirname(folder));
  } catch {
    // Somebody put something there meanwhile.
  }
}
