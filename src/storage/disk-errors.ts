/**
 * What LevelDB and the file system complain of, as errors that say how to mend it. LevelDB's own errors carry a
 * text with the system's message inside and, some of them, a code; a database that could not be opened carries
 * the reason in `cause`.
 */
import { type ErrorCode, isReadmeshError, ReadmeshError } from '../errors.js';

interface Trouble {
  readonly code: string;
  readonly text: string;
}

function troubleOf(error: unknown): Trouble {
  let inner = error;
  while (inner instanceof Error && inner.cause instanceof Error) inner = inner.cause;
  if (!(inner instanceof Error)) return { code: '', text: String(inner) };
  const code = 'code' in inner && typeof inner.code === 'string' ? inner.code : '';
  return { code, text: inner.message.split('\n', 1)[0]! };
}

/** Troubles of the machine rather than of the store: error code, the system's wording, what to do. */
const MACHINE_TROUBLES: readonly (readonly [codes: RegExp, text: RegExp, mend: string])[] = [
  [/^(EMFILE|ENFILE)$/, /too many open files/i, 'too many open files: raise the limit (ulimit -n)'],
  [
    /^(EACCES|EPERM)$/,
    /permission denied|operation not permitted/i,
    'permission denied: let this user own the folder, or choose another one',
  ],
  [/^EROFS$/, /read-only file system/i, 'the file system is read-only: remount it, or choose another folder'],
  [/^(ENOSPC|EDQUOT)$/, /no space left|quota exceeded/i, 'no space left on the device: free some'],
  [/^EFBIG$/, /file too large/i, 'a file reached its size limit: raise it (ulimit -f)'],
  [/^EIO$/, /input\/output error/i, 'the device reports an input/output error: replace it, then rebuild'],
];

/** Whether it is file descriptors that are wanting: those can be had by giving up something else. */
export function isOutOfFiles(error: unknown): boolean {
  const { code, text } = troubleOf(error);
  const [codes, wording] = MACHINE_TROUBLES[0]!;
  return codes.test(code) || wording.test(text);
}

/** Removed or replaced while the store was open: what is written now cannot be found again. */
export function folderGone(path: string): ReadmeshError {
  return new ReadmeshError(
    'STORE_FAILED',
    `${path} was removed or replaced while this node was running: nothing more is acknowledged, and the node ends; ` +
      'put the folder back, or start it with an empty one and --join to copy the data from the other members',
  );
}

function machineTrouble(trouble: Trouble): string | undefined {
  return MACHINE_TROUBLES.find(([codes, text]) => codes.test(trouble.code) || text.test(trouble.text))?.[2];
}

export function untrusted(path: string, why: string, cause?: unknown): ReadmeshError {
  return new ReadmeshError(
    'STORE_UNTRUSTED',
    `the store in ${path} cannot be trusted: ${why}; start with --rebuild to set it aside and copy the data from the other members`,
    { cause },
  );
}

export function inUse(path: string, holder: string): ReadmeshError {
  return new ReadmeshError(
    'STORE_IN_USE',
    `${path} is in use by ${holder}: stop it first, or choose another data folder`,
  );
}

/** A folder that could not be opened, read or prepared; nothing in it was changed for the worse. */
export function openFailure(path: string, error: unknown): ReadmeshError {
  if (isReadmeshError(error)) return error;
  const trouble = troubleOf(error);
  if (trouble.code === 'LEVEL_LOCKED') return inUse(path, 'another process');
  const machine = machineTrouble(trouble);
  if (machine !== undefined)
    return new ReadmeshError('STORE_FAILED', `cannot open the store in ${path}: ${machine}`, {
      cause: error,
    });
  // Of what is left, LevelDB's complaints are about the contents of its files; the system's are not.
  if (/^E[A-Z0-9]+$/.test(trouble.code))
    return new ReadmeshError(
      'STORE_FAILED',
      `cannot open the store in ${path}: ${trouble.text}; mend the folder, or choose another one`,
      { cause: error },
    );
  return untrusted(path, trouble.text, error);
}

/** Why, if the contents of the database are what failed, rather than the machine. */
export function corruptionOf(error: unknown): string | undefined {
  const { code, text } = troubleOf(error);
  return code === 'LEVEL_CORRUPTION' || /^corruption/i.test(text) ? text : undefined;
}

/** After a write failed: no more is known of it than that it may or may not come back. */
export function writeFailure(path: string, error: unknown): ReadmeshError {
  const trouble = troubleOf(error);
  const why = machineTrouble(trouble) ?? trouble.text;
  return new ReadmeshError(
    'STORE_FAILED',
    `writing to ${path} failed, and nothing more is written until the store could be reopened: ${why}`,
    { cause: error },
  );
}

const CLOSED_CODES = new Set([
  'LEVEL_DATABASE_NOT_OPEN',
  'LEVEL_ITERATOR_NOT_OPEN',
  'LEVEL_SNAPSHOT_NOT_OPEN',
  'LEVEL_BATCH_NOT_OPEN',
]);

/** A read that failed. With `key`, if it was about one. */
export function readFailure(path: string, error: unknown, key?: string): ReadmeshError {
  if (isReadmeshError(error)) return error;
  const trouble = troubleOf(error);
  if (CLOSED_CODES.has(trouble.code)) return closed(path);
  const details = key === undefined ? {} : { key };
  const damaged = trouble.code === 'LEVEL_CORRUPTION' || /^corruption/i.test(trouble.text);
  const code: ErrorCode = damaged ? 'DAMAGED' : 'STORE_FAILED';
  const mend = damaged
    ? 'read from another host, and start this one with --rebuild'
    : (machineTrouble(trouble) ?? 'restart this node');
  return new ReadmeshError(code, `reading from ${path} failed: ${trouble.text}: ${mend}`, {
    cause: error,
    details,
  });
}

export function closed(path: string): ReadmeshError {
  return new ReadmeshError('CLOSED', `the store in ${path} is closed: open it again`);
}
