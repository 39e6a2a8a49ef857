/**
 * One opener per data folder.
 *
 * LevelDB's own lock does not suffice. It is a lock of the process, so a second opening within one process
 * passes the kernel and, when LevelDB then refuses it, drops the first one's lock as well: another process can
 * write from then on. So LevelDB is not even asked until two guards of our own are passed: a registry of what
 * this process has open (shared by every copy of this module), and a lock file beside the database that names
 * its holder. LevelDB's lock stays the third guard, for processes that cannot see each other (two containers on
 * one volume).
 *
 * A killed process leaves its lock file. It is stale when the process that it names is gone, started at another
 * time (its number was given to another one), or ran under another boot of the kernel.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, linkSync, openSync, readFileSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { inUse, openFailure } from './disk-errors.js';

export const LOCK_FILE = 'lock';
const ASIDE = `${LOCK_FILE}.stale-`;

/** A lock file is written in one go right after it is made: an empty one is young, or its maker died in between. */
const EMPTY_RETRIES_MAX = 20;
const EMPTY_RETRY_MS = 10;
/** Each turn of the race either wins, finds a living holder, or removes one stale file. */
const ATTEMPTS_MAX = 50;

export function isLockFile(name: string): boolean {
  return name === LOCK_FILE || name.startsWith(ASIDE);
}

interface Holder {
  readonly pid: number;
  /** Clock ticks from boot to the start of the process; 0 where that cannot be known. */
  readonly startTime: number;
  readonly bootId: string;
}

const OPEN_FOLDERS = Symbol.for('readmesh.open-folders');
const registry = globalThis as { [OPEN_FOLDERS]?: Set<string> };

function openFolders(): Set<string> {
  registry[OPEN_FOLDERS] ??= new Set();
  return registry[OPEN_FOLDERS];
}

export class FolderLock {
  readonly #folder: string;
  readonly #path: string;
  readonly #content: string;
  #held = true;

  private constructor(folder: string, content: string) {
    this.#folder = folder;
    this.#path = join(folder, LOCK_FILE);
    this.#content = content;
  }

  /** `folder` is a real path. Throws STORE_IN_USE, or STORE_FAILED when the file cannot be made. */
  static async acquire(folder: string, bootId: string | undefined): Promise<FolderLock> {
    const open = openFolders();
    if (open.has(folder)) throw inUse(folder, 'this very process');
    open.add(folder);
    try {
      const holder: Holder = {
        pid: process.pid,
        startTime: startTimeOf(process.pid) ?? 0,
        bootId: bootId ?? '',
      };
      // The nonce tells this lock from every other one of the same process.
      const content = `${JSON.stringify({ ...holder, nonce: randomBytes(8).toString('hex') })}\n`;
      await take(folder, content, holder.bootId);
      return new FolderLock(folder, content);
    } catch (error) {
      open.delete(folder);
      throw openFailure(folder, error);
    }
  }

  /** Idempotent. Never throws: a lock file that stays behind is stale once this process is gone. */
  release(): void {
    if (!this.#held) return;
    this.#held = false;
    try {
      if (readFileSync(this.#path, 'utf8') === this.#content) unlinkSync(this.#path);
    } catch {
      // The folder is gone or read-only by now.
    }
    openFolders().delete(this.#folder);
  }
}

async function take(folder: string, content: string, bootId: string): Promise<void> {
  const path = join(folder, LOCK_FILE);
  let empties = 0;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    if (create(path, content)) return;
    const found = readIfThere(path);
    if (found === undefined) continue;
    if (found === '' && empties++ < EMPTY_RETRIES_MAX) {
      await delay(EMPTY_RETRY_MS);
      continue;
    }
    const holder = parse(found);
    if (found !== '' && holder === undefined)
      throw inUse(folder, `whoever made the file ${path}, which is not a lock of ours`);
    if (holder !== undefined && isAlive(holder, bootId)) throw inUse(folder, `process ${holder.pid}`);
    removeStale(folder, found);
  }
  throw inUse(folder, 'several processes that start at once');
}

function create(path: string, content: string): boolean {
  let fd: number;
  try {
    fd = openSync(path, 'wx', 0o600);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
  try {
    writeSync(fd, content);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(fd);
  }
  return true;
}

/**
 * Another starter may have judged the same file stale, removed it and made its own: what is renamed must be
 * what was judged. A fresh lock taken by mistake is put back; should a third starter have slipped in meanwhile,
 * LevelDB's lock decides between the two.
 */
function removeStale(folder: string, judged: string): void {
  const path = join(folder, LOCK_FILE);
  const aside = join(folder, ASIDE + randomBytes(8).toString('hex'));
  try {
    renameSync(path, aside);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    throw error;
  }
  try {
    if (readFileSync(aside, 'utf8') !== judged) linkSync(aside, path);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  } finally {
    unlinkSync(aside);
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function parse(content: string): Holder | undefined {
  try {
    const { pid, startTime, bootId } = JSON.parse(content) as Partial<Record<keyof Holder, unknown>>;
    if (!Number.isSafeInteger(pid) || typeof startTime !== 'number' || typeof bootId !== 'string')
      return undefined;
    return { pid: pid as number, startTime, bootId };
  } catch {
    return undefined;
  }
}

function isAlive(holder: Holder, bootId: string): boolean {
  if (holder.bootId !== bootId) return false;
  const startTime = startTimeOf(holder.pid);
  if (startTime !== undefined) return startTime === holder.startTime;
  if (holder.startTime !== 0) return false;
  try {
    process.kill(holder.pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

/** Field 22 of /proc/PID/stat; the second one, the command's name, may hold anything but ends at the last `)`. */
function startTimeOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const field = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    return field === undefined ? undefined : Number(field);
  } catch {
    return undefined;
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
