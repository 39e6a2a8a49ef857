/**
 * A node's data folder, and every reason not to touch it.
 *
 *     DIR/readmesh.json   marker: what this folder is, its format, and whether its store was ever completed
 *     DIR/lock            who has it open (folder-lock.ts)
 *     DIR/db/             LevelDB
 *     DIR/untrusted       why the database must not be opened again: blocks of its tables are damaged
 *     DIR/db.set-aside-*  a store that was not trusted, kept for whoever wants to look
 *
 * LevelDB makes an empty database wherever it is told that it may, over the ruins of a full one, too. So the
 * marker decides: it is written and flushed as `new` before LevelDB is first created and becomes `created` once
 * that is done. A folder marked `created` must hold a database; a folder without a marker must be empty.
 * Nothing here ever deletes data.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ReadmeshError } from '../errors.js';
import { openFailure, untrusted } from './disk-errors.js';
import { FolderLock, isLockFile } from './folder-lock.js';
import { syncFolder } from './folder-sync.js';
import { LevelStore } from './level-store.js';
import { type Machine, RunRecord, thisMachine } from './run-record.js';
import type { Store } from './store.js';

export const FORMAT_VERSION = 1;
const PRODUCT = 'readmesh';
const MARKER = 'readmesh.json';
const MARKER_DRAFT = `${MARKER}.tmp`;
const DB = 'db';
/** Says in one line why the database must not be opened again. */
const UNTRUSTED = 'untrusted';
const SET_ASIDE = '.set-aside-';

interface Marker {
  readonly product: typeof PRODUCT;
  readonly format: number;
  /** `new`: the store was never completed and holds nothing. */
  readonly state: 'new' | 'created';
  /** When the folder was first made, ISO 8601. */
  readonly created: string;
}

export interface DataFolderOptions {
  /** Whether each batch is flushed to stable storage before it counts as written. */
  readonly flush: boolean;
  /** Default: this machine. */
  readonly machine?: Machine;
}

export interface DataFolder {
  readonly store: Store;
  /** Real path of the folder. */
  readonly path: string;
  /** Whether there was no store before. */
  readonly created: boolean;
  /** Whether the store is provably what its last opening left: only then may its origin number new writes. */
  readonly originReusable: boolean;
  /** Random name of this opening, 16 hex digits. */
  readonly run: string;
  /** Makes the next opening mint a new origin. Done by itself when a write fails. Idempotent. */
  invalidate(): void;
  /** The database has damage that cannot be healed in place: the next opening refuses it. Never throws. */
  distrust(why: string): void;
  /** Closes the store and gives the folder up. Idempotent. */
  close(): Promise<void>;
}

/**
 * Opens the store in `path`, which is made if it is missing or empty. Throws NOT_A_STORE (a file, or a folder
 * with other things in it), STORE_IN_USE, STORE_UNTRUSTED (damaged, incomplete, or from a newer version),
 * STORE_FAILED (no space, no permission, too many files); the folder is then as it was.
 */
export async function openDataFolder(path: string, options: DataFolderOptions): Promise<DataFolder> {
  const machine = options.machine ?? thisMachine();
  const folder = prepareFolder(path);
  const lock = await FolderLock.acquire(folder, machine.bootId);
  try {
    return await openLocked(folder, lock, options.flush, machine);
  } catch (error) {
    lock.release();
    throw openFailure(folder, error);
  }
}

async function openLocked(
  folder: string,
  lock: FolderLock,
  flush: boolean,
  machine: Machine,
): Promise<DataFolder> {
  const marker = readMarker(folder) ?? newMarker(folder);
  if (marker === 'damaged') throw untrusted(folder, `its marker ${MARKER} is damaged`);
  const location = join(folder, DB);
  const isNew = marker.state === 'new';
  if (!isNew && !existsSync(join(location, 'CURRENT')))
    throw untrusted(folder, 'its database is missing, or has lost the file CURRENT');
  const why = readUntrusted(folder);
  if (why !== undefined) throw untrusted(folder, why);
  const run = randomBytes(8).toString('hex');
  const record = RunRecord.of(folder, machine);
  const store = await LevelStore.open({
    location,
    create: isNew,
    flush,
    run,
    onWritten: (batches) => record.count(batches),
    onFailed: () => record.invalidate(),
  });
  try {
    if (isNew) completeNew(folder, marker, store);
  } catch (error) {
    await store.close();
    throw error;
  }
  const originReusable = !isNew && record.vouchesFor(store.previousRun);
  record.begin(run);
  return {
    store,
    path: folder,
    created: isNew,
    originReusable,
    run,
    invalidate: () => record.invalidate(),
    distrust: (reason) => {
      try {
        writeFileSync(join(folder, UNTRUSTED), `${reason.split('\n', 1)[0]}\n`);
        syncFolder(folder);
      } catch {
        // The disk is bad enough; whoever opens it next will see for himself.
      }
    },
    close: async () => {
      // Should LevelDB not close, the folder stays locked: nobody may open it a second time meanwhile.
      await store.close();
      record.release();
      lock.release();
    },
  };
}

function readUntrusted(folder: string): string | undefined {
  try {
    return readFileSync(join(folder, UNTRUSTED), 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** Makes the folder if need be; its real path. Refuses what is not ours before anything is written into it. */
function prepareFolder(path: string): string {
  const wanted = resolve(path);
  try {
    if (!existsSync(wanted)) {
      mkdirSync(wanted, { recursive: true });
      syncFolder(dirname(wanted));
    }
    const folder = realpathSync(wanted);
    if (!statSync(folder).isDirectory())
      throw new ReadmeshError('NOT_A_STORE', `${folder} is not a folder: choose another data folder`);
    if (readMarker(folder) === undefined) assertEmpty(folder);
    return folder;
  } catch (error) {
    throw openFailure(wanted, error);
  }
}

/** `lost+found` is in every fresh volume; the rest is ours, of a start or a setting aside that was cut short. */
function assertEmpty(folder: string): void {
  const others = readdirSync(folder).filter(
    (name) =>
      !(isLockFile(name) || name === MARKER_DRAFT || name.includes(SET_ASIDE) || name === 'lost+found'),
  );
  if (others.length > 0)
    throw new ReadmeshError(
      'NOT_A_STORE',
      `${folder} holds other things (${others.slice(0, 3).join(', ')}) and no ${MARKER}: choose an empty or new data folder`,
    );
}

/** undefined: there is none. */
function readMarker(folder: string): Marker | 'damaged' | undefined {
  let text: string;
  try {
    text = readFileSync(join(folder, MARKER), 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  const marker = parseMarker(text);
  if (marker === undefined) return 'damaged';
  if (marker.format > FORMAT_VERSION)
    throw new ReadmeshError(
      'STORE_UNTRUSTED',
      `the store in ${folder} was written by a newer version (format ${marker.format}, this one knows ${FORMAT_VERSION}) and is left untouched: use that version, or another data folder`,
    );
  return marker;
}

function parseMarker(text: string): Marker | undefined {
  try {
    const { product, format, state, created } = JSON.parse(text) as Partial<Record<keyof Marker, unknown>>;
    if (product !== PRODUCT || !Number.isSafeInteger(format) || (format as number) < 1) return undefined;
    // A newer format may well know other states: its number alone decides.
    const known = state === 'new' || state === 'created';
    if ((format as number) <= FORMAT_VERSION && !known) return undefined;
    return {
      product,
      format: format as number,
      state: state === 'new' ? 'new' : 'created',
      created: String(created),
    };
  } catch {
    return undefined;
  }
}

/** Atomic and flushed: whatever happens, there is an old or a new marker, never half of one. */
function writeMarker(folder: string, marker: Marker): void {
  const draft = join(folder, MARKER_DRAFT);
  const fd = openSync(draft, 'w', 0o644);
  try {
    writeSync(fd, `${JSON.stringify(marker, null, 2)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(draft, join(folder, MARKER));
  syncFolder(folder);
}

function newMarker(folder: string): Marker {
  const marker: Marker = {
    product: PRODUCT,
    format: FORMAT_VERSION,
    state: 'new',
    created: new Date().toISOString(),
  };
  writeMarker(folder, marker);
  return marker;
}

function completeNew(folder: string, marker: Marker, store: LevelStore): void {
  // The marker turns `created` before anybody gets to write: data under `new` was put there by hand.
  if (store.recovered.heads.size > 0 || store.recovered.tops.size > 0 || store.recovered.meta.size > 0)
    throw untrusted(folder, `its marker ${MARKER} says that it is new, but its database holds data`);
  syncFolder(folder);
  writeMarker(folder, { ...marker, state: 'created' });
}

/**
 * Puts the store in `path` out of the way, so that the next `openDataFolder` makes a new one: renames the
 * database, and a marker that cannot be read. Deletes nothing. Returns the path to which the database went, or
 * undefined when there was none. Throws NOT_A_STORE, STORE_IN_USE, STORE_FAILED, and STORE_UNTRUSTED for a
 * store from a newer version, which is left untouched.
 */
export async function setAside(path: string, machine: Machine = thisMachine()): Promise<string | undefined> {
  const wanted = resolve(path);
  if (!existsSync(wanted)) return undefined;
  const folder = prepareFolder(wanted);
  const lock = await FolderLock.acquire(folder, machine.bootId);
  try {
    const time = new Date().toISOString().replaceAll(':', '-');
    const db = existsSync(join(folder, DB)) ? moveAside(folder, DB, time) : undefined;
    // In this order: marked `new` while the database is still in place, it would be taken for a new one.
    syncFolder(folder);
    if (readMarker(folder) === 'damaged') moveAside(folder, MARKER, time);
    newMarker(folder);
    if (readUntrusted(folder) !== undefined) unlinkSync(join(folder, UNTRUSTED));
    return db;
  } catch (error) {
    throw openFailure(folder, error);
  } finally {
    lock.release();
  }
}

function moveAside(folder: string, name: string, time: string): string {
  const base = join(folder, `${name}${SET_ASIDE}${time}`);
  let target = base;
  for (let i = 2; existsSync(target); i++) target = `${base}-${i}`;
  renameSync(join(folder, name), target);
  return target;
}
