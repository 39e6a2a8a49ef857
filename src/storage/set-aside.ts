/**
 * Stores that were set aside, in a node's data folder:
 *
 *     DIR/rejoin.json                the node is to set its store aside, or has done so and is not ready again yet
 *     DIR/db.set-aside-TIME          a database, as it was
 *     DIR/db.set-aside-TIME.json     how far it was read, to bring back what only it holds (node/returning.ts)
 *     DIR/db.set-aside-TIME.reading  while it is read: what LevelDB opens in its place
 *     DIR/set-aside-TIME.jsonl       what of it is too old to be brought back without an operator
 *
 * LevelDB changes what it opens, and a damaged database all the more. So a reader opens a second folder, whose tables
 * are hard links (nobody ever writes into a table again), and whose few other files are copies.
 */
import { copyFileSync, existsSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { syncFolder } from './folder-sync.js';
import { removeFile, replaceFile } from './small-file.js';

export const SET_ASIDE = '.set-aside-';
const REJOIN = 'rejoin.json';
const STORE = /^db\.set-aside-[0-9TZ.-]+$/;
const KEPT = /^set-aside-[0-9TZ.-]+\.jsonl$/;

/** ISO 8601, in characters that any file system takes. */
export function timeName(): string {
  return new Date().toISOString().replaceAll(':', '-');
}

/** How a node whose store is set aside finds its cluster again, whatever it is started with. */
export interface Rejoin {
  readonly name: string;
  /** Members to join through, `host:port`. */
  readonly join: readonly string[];
  /** Name of the folder that its old store gets. */
  readonly aside: string;
}

/** undefined: there is nothing of the kind under way. */
export function readRejoin(folder: string): Rejoin | undefined {
  try {
    const { name, join: members, aside } = JSON.parse(readFileSync(join(folder, REJOIN), 'utf8')) as Rejoin;
    return { name, join: members, aside };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** From here on the store will be set aside, whatever happens. Flushed when it returns. */
export function writeRejoin(folder: string, who: { name: string; join: readonly string[] }): Rejoin {
  const known = readRejoin(folder);
  if (known !== undefined && !existsSync(join(folder, known.aside))) return known;
  const rejoin: Rejoin = { name: who.name, join: who.join, aside: `db${SET_ASIDE}${timeName()}` };
  writeProgress(join(folder, rejoin.aside), { ...UNREAD, isWhole: true });
  replaceFile(join(folder, REJOIN), `${JSON.stringify(rejoin)}\n`);
  return rejoin;
}

export function clearRejoin(folder: string): void {
  if (existsSync(join(folder, REJOIN))) removeFile(join(folder, REJOIN));
}

/** How far a store that was set aside was read. Counts are of entries. */
export interface Progress {
  /** It was set aside because the cluster had gone on without it, and nothing speaks against its disk. */
  readonly isWhole: boolean;
  /** How often its reader was started since it last got on, and ended badly. */
  readonly attempts: number;
  /** Why it ended so. */
  readonly failure?: string | undefined;
  /** The last key that was dealt with. */
  readonly after?: string | undefined;
  readonly done: boolean;
  readonly held: number;
  readonly expired: number;
  readonly returned: number;
  readonly kept: number;
  /** Records that failed their checksums. */
  readonly damaged: number;
  /** Bytes of the file of those kept that count; more was written by a process that was killed. */
  readonly keptBytes: number;
}

export const UNREAD: Progress = {
  isWhole: false,
  attempts: 0,
  done: false,
  held: 0,
  expired: 0,
  returned: 0,
  kept: 0,
  damaged: 0,
  keptBytes: 0,
};

/** `store`: path of the set-aside store. */
export function readProgress(store: string): Progress {
  try {
    return { ...UNREAD, ...(JSON.parse(readFileSync(`${store}.json`, 'utf8')) as Progress) };
  } catch {
    // Never read, or set aside by an older version: from the beginning, which is safe.
    return UNREAD;
  }
}

export function writeProgress(store: string, progress: Progress): void {
  replaceFile(`${store}.json`, `${JSON.stringify(progress)}\n`);
}

/** Paths of all stores that were set aside, the oldest first. */
export function setAsideStores(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => STORE.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/** Where what is too old in the store is kept. */
export function keptFile(store: string): string {
  return join(store, '..', `${basename(store).slice('db.'.length)}.jsonl`);
}

/** Paths of the files with what was kept, until an operator removes them. */
export function keptFiles(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => KEPT.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/** What LevelDB may open in place of the store; made anew. */
export function openableCopy(store: string): string {
  const copy = `${store}.reading`;
  rmSync(copy, { recursive: true, force: true });
  mkdirSync(copy);
  for (const name of readdirSync(store)) {
    if (name === 'LOCK' || name === 'LOG' || name === 'LOG.old') continue;
    const isTable = name.endsWith('.ldb') || name.endsWith('.sst');
    if (!isTable || !link(join(store, name), join(copy, name)))
      copyFileSync(join(store, name), join(copy, name));
  }
  return copy;
}

/** False where the file system knows no links. */
function link(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch {
    return false;
  }
}

export function removeCopy(store: string): void {
  rmSync(`${store}.reading`, { recursive: true, force: true });
}

/** A store that is read through, and behind which there is a later one: nobody needs it any more. */
export function removeStore(store: string): void {
  rmSync(store, { recursive: true, force: true });
  rmSync(`${store}.json`, { force: true });
  syncFolder(join(store, '..'));
}
