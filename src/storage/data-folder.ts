/**
 * A node's data folder, and every reason not to touch it.
 *
 *     DIR/readmesh.json   marker: what this folder is, its format, and whether its store was ever completed
 *     DIR/lock            who has it open (folder-lock.ts)
 *     DIR/opening         how often in a row the process ended while it opened the store (opening-count.ts)
 *     DIR/reclaim         ranges whose space is still to be given back (reclaim.ts)
 *     DIR/db/             LevelDB
 *     DIR/untrusted       why the database must not be opened again (distrust.ts)
 *     DIR/db.set-aside-*  a store that was not trusted, or that the cluster went on without (set-aside.ts)
 *
 * LevelDB makes an empty database wherever it is told that it may, over the ruins of a full one, too. So the
 * marker decides: it is written and flushed as `new` before LevelDB is first created and becomes `created` once
 * that is done. A folder marked `created` must hold a database; a folder without a marker must be empty.
 * Nothing here ever deletes data.
 */
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ReadmeshError } from '../errors.js';
import { openFailure, untrusted } from './disk-errors.js';
import { clearDistrust, readDistrust, writeDistrust } from './distrust.js';
import { FolderLock, isLockFile } from './folder-lock.js';
import { syncFolder } from './folder-sync.js';
import { type Inspection, inspectDatabase } from './level-files.js';
import { LevelStore } from './level-store.js';
import { OpeningCount } from './opening-count.js';
import type { RunMark } from './physical.js';
import { type Machine, RunRecord, thisMachine } from './run-record.js';
import { type Rejoin, readRejoin, SET_ASIDE, timeName, writeRejoin } from './set-aside.js';
import { DRAFT, replaceFile } from './small-file.js';
import type { Store } from './store.js';

export const FORMAT_VERSION = 1;
const PRODUCT = 'readmesh';
export const MARKER = 'readmesh.json';
const MARKER_DRAFT = MARKER + DRAFT;
export const DB = 'db';
const RECLAIM = 'reclaim';

export interface Marker {
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

/**
 * What speaks against a store: `unproved`, it may be an older state than the last one (another boot, a copy, a
 * backup, a failed write before); `lost-batches`, acknowledged batches are missing for certain; `torn-log`, the end
 * of its log was damaged; `write-error`, it was reopened after a write failed. Whatever was lost is a tail: heads
 * never claim what is not there.
 */
export type Evidence = 'unproved' | 'lost-batches' | 'torn-log' | 'write-error';

export interface DataFolder {
  readonly store: Store;
  /** Real path of the folder. */
  readonly path: string;
  /** Whether there was no store before. */
  readonly created: boolean;
  /** Whether the store is provably what its last opening left: only then may its origin number new writes. */
  readonly originReusable: boolean;
  /** Why its origin is not reusable; empty for a new store, and when it is. */
  readonly evidence: readonly Evidence[];
  /** Whether it may have lost its latest writes, rather than merely being of another boot, a copy or a backup. */
  readonly mayHaveLost: boolean;
  /** Random name of this opening, 16 hex digits. */
  readonly run: string;
  /** Makes the next opening mint a new origin. Done by itself when a write fails. Idempotent. */
  invalidate(): void;
  /** What of the folder was removed or replaced since it was opened; undefined: it is all there. */
  missing(): string | undefined;
  /** Closes the store but keeps the folder locked, for `reopen`. Idempotent. */
  closeStore(): Promise<void>;
  /**
   * Opens the store anew after `closeStore`, checked as at any opening; the folder stays locked throughout. Takes the
   * place of this one, unless it throws: STORE_FAILED (it may be tried again), STORE_UNTRUSTED.
   */
  reopen(): Promise<DataFolder>;
  /** As `reopen`, but with a new, empty store; the old one is set aside (`aside`: where), and nothing of it deleted. */
  rebuild(): Promise<{ folder: DataFolder; aside: string | undefined }>;
  /**
   * As `rebuild`, of a store that the cluster went on without: who its owner is, and by whom it finds the cluster again,
   * is written down first. Cut short by a crash, it is completed by the next opening.
   */
  replace(who: { name: string; join: readonly string[] }): Promise<{ folder: DataFolder; aside: string }>;
  /** What `replace` wrote down, until `clearRejoin` (set-aside.ts); undefined: nothing. */
  readonly rejoin: Rejoin | undefined;
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
    const rejoin = readRejoin(folder);
    if (rejoin !== undefined) completeReplacing(folder, rejoin);
    return await openLocked({ folder, lock, flush: options.flush, machine });
  } catch (error) {
    lock.release();
    throw openFailure(folder, error);
  }
}

interface Locked {
  readonly folder: string;
  readonly lock: FolderLock;
  readonly flush: boolean;
  readonly machine: Machine;
}

/** `before`: the opening of this process that a write error ended. */
async function openLocked(locked: Locked, before?: RunMark): Promise<DataFolder> {
  const { folder, machine } = locked;
  const marker = readMarker(folder) ?? newMarker(folder);
  if (marker === 'damaged') throw untrusted(folder, `its marker ${MARKER} is damaged`);
  const location = join(folder, DB);
  const isNew = marker.state === 'new';
  if (!isNew && !existsSync(join(location, 'CURRENT')))
    throw untrusted(folder, 'its database is missing, or has lost the file CURRENT');
  const count = new OpeningCount(folder);
  const { tornLog } = isNew ? { tornLog: false } : inspect(folder, location, count);
  const why = readDistrust(folder);
  if (why !== undefined) throw untrusted(folder, why);
  const run = randomBytes(8).toString('hex');
  const record = RunRecord.of(folder, machine);
  count.begin();
  let store: LevelStore | undefined;
  try {
    store = await LevelStore.open({
      location,
      create: isNew,
      flush: locked.flush,
      run,
      reclaimFile: join(folder, RECLAIM),
      onDurable: (batches) => record.count(batches),
      onFailed: () => record.invalidate(),
    });
    if (isNew) completeNew(folder, marker, store);
    const evidence = isNew ? [] : evidenceOf(store, record, tornLog, before);
    const opened = new OpenFolder(locked, { store, record, count, run, evidence, created: isNew });
    record.begin(run);
    count.opened();
    return opened;
  } catch (error) {
    await store?.close();
    count.clear();
    throw error;
  }
}

function inspect(folder: string, location: string, count: OpeningCount): Inspection {
  if (count.hopeless) throw untrusted(folder, 'opening it has crashed again and again');
  const inspection = inspectDatabase(location, count.checkedBytesMax);
  if (inspection.damage !== undefined) throw untrusted(folder, inspection.damage);
  return inspection;
}

function evidenceOf(
  store: LevelStore,
  record: RunRecord,
  tornLog: boolean,
  before: RunMark | undefined,
): Evidence[] {
  const torn: Evidence[] = tornLog ? ['torn-log'] : [];
  if (before === undefined) {
    const verdict = record.judge(store.previousRun);
    return verdict === 'complete' ? [] : [verdict, ...torn];
  }
  const found = store.previousRun;
  const whole = found?.nonce === before.nonce && found.batches >= before.batches;
  return whole ? ['write-error', ...torn] : ['write-error', 'lost-batches', ...torn];
}

class OpenFolder implements DataFolder {
  readonly store: LevelStore;
  readonly path: string;
  readonly created: boolean;
  readonly originReusable: boolean;
  readonly evidence: readonly Evidence[];
  readonly mayHaveLost: boolean;
  readonly run: string;
  readonly rejoin: Rejoin | undefined;
  readonly #locked: Locked;
  readonly #record: RunRecord;
  readonly #count: OpeningCount;
  readonly #places: readonly Place[];
  #replacing: Rejoin | undefined;

  constructor(
    locked: Locked,
    opened: {
      store: LevelStore;
      record: RunRecord;
      count: OpeningCount;
      run: string;
      evidence: readonly Evidence[];
      created: boolean;
    },
  ) {
    this.#locked = locked;
    this.store = opened.store;
    this.path = locked.folder;
    this.created = opened.created;
    this.evidence = opened.evidence;
    this.mayHaveLost =
      opened.evidence.some((evidence) => evidence !== 'unproved') ||
      (opened.evidence.length > 0 && opened.count.unclosed);
    this.originReusable = !opened.created && opened.evidence.length === 0;
    this.run = opened.run;
    this.rejoin = readRejoin(locked.folder);
    this.#record = opened.record;
    this.#count = opened.count;
    this.#places = [locked.folder, join(locked.folder, MARKER), join(locked.folder, DB)].map(placeOf);
  }

  invalidate(): void {
    this.#record.invalidate();
  }

  distrust(why: string): void {
    writeDistrust(this.path, why);
  }

  missing(): string | undefined {
    return this.#places.find(isGone)?.path;
  }

  async closeStore(): Promise<void> {
    await this.store.close();
    this.#record.release();
    this.#count.clear();
  }

  async reopen(): Promise<DataFolder> {
    await this.closeStore();
    try {
      return await openLocked(this.#locked, { nonce: this.run, batches: this.store.batches });
    } catch (error) {
      throw openFailure(this.path, error);
    }
  }

  async rebuild(): Promise<{ folder: DataFolder; aside: string | undefined }> {
    await this.closeStore();
    try {
      const aside = setAsideLocked(this.path);
      return { folder: await openLocked(this.#locked), aside };
    } catch (error) {
      throw openFailure(this.path, error);
    }
  }

  async replace(who: {
    name: string;
    join: readonly string[];
  }): Promise<{ folder: DataFolder; aside: string }> {
    await this.closeStore();
    try {
      // Once, should this have to be tried again.
      this.#replacing ??= writeRejoin(this.path, who);
      completeReplacing(this.path, this.#replacing);
      return { folder: await openLocked(this.#locked), aside: join(this.path, this.#replacing.aside) };
    } catch (error) {
      throw openFailure(this.path, error);
    }
  }

  async close(): Promise<void> {
    // Should LevelDB not close, the folder stays locked: nobody may open it a second time meanwhile.
    await this.closeStore();
    this.#locked.lock.release();
  }
}

interface Place {
  readonly path: string;
  readonly inode: bigint;
}

function placeOf(path: string): Place {
  return { path, inode: statSync(path, { bigint: true }).ino };
}

/** Only what is certain: a disk that does not answer for the moment is no reason to end. */
function isGone({ path, inode }: Place): boolean {
  try {
    return statSync(path, { bigint: true }).ino !== inode;
  } catch (error) {
    return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
  }
}

/** Makes the folder if need be; its real path. Refuses what is not ours before anything is written into it. */
export function prepareFolder(path: string): string {
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
export function readMarker(folder: string): Marker | 'damaged' | undefined {
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

export function writeMarker(folder: string, marker: Marker): void {
  replaceFile(join(folder, MARKER), `${JSON.stringify(marker, null, 2)}\n`);
}

export function newMarker(folder: string): Marker {
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
    throw untrusted(
      folder,
      `its marker ${MARKER} says that it is new, but its database holds data (a restore that was cut short?)`,
    );
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
    return setAsideLocked(folder);
  } catch (error) {
    throw openFailure(folder, error);
  } finally {
    lock.release();
  }
}

function setAsideLocked(folder: string): string | undefined {
  const time = timeName();
  const db = existsSync(join(folder, DB)) ? moveAside(folder, DB, time) : undefined;
  // In this order: marked `new` while the database is still in place, it would be taken for a new one.
  syncFolder(folder);
  if (readMarker(folder) === 'damaged') moveAside(folder, MARKER, time);
  beginAnew(folder);
  return db;
}

function beginAnew(folder: string): void {
  new OpeningCount(folder).clear();
  clearDistrust(folder);
  newMarker(folder);
}

/** Each step is taken once, however often this is cut short: a database in place beside the old one is the new one. */
function completeReplacing(folder: string, { aside }: Rejoin): void {
  const db = join(folder, DB);
  if (!existsSync(join(folder, aside)) && existsSync(db)) {
    renameSync(db, join(folder, aside));
    syncFolder(folder);
  }
  if (!existsSync(db)) beginAnew(folder);
}

function moveAside(folder: string, name: string, time: string): string {
  const base = join(folder, `${name}${SET_ASIDE}${time}`);
  let target = base;
  for (let i = 2; existsSync(target); i++) target = `${base}-${i}`;
  renameSync(join(folder, name), target);
  return target;
}
