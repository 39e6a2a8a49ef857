/**
 * Tells whether a store is exactly what its last opening left, so that its origin may go on numbering writes. A
 * sequence number used twice would make peers take a new write for one that they have.
 *
 * Each opening draws a random nonce. It goes into the database, with the number of batches written, and into a
 * small file outside the data folder, in the system's folder for temporary files, with the same number and the
 * kernel's boot id. At the next opening the origin may be kept only if
 *
 * - both name the same opening: a restored backup or a copy carries an older nonce, or finds no file, since the
 *   file's name is drawn from the folder's path, device and inode;
 * - the database has at least as many batches as were acknowledged: a damaged log that lost its end shows;
 * - that opening wrote a batch: its first one says which origin it uses. Had the opening before lost writes, and this
 *   one been killed before it could store a new origin, the old one would stand there still, and look trustworthy;
 * - the boot is the same one: what was written but not flushed outlives a killed process, not a kernel.
 *
 * Anything else, any doubt, a failed batch, a system without a boot id: the origin is not kept. That costs one
 * new origin, nothing more.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunMark } from './physical.js';

/** What of the machine decides: replaced in tests. */
export interface Machine {
  /** Identity of this run of the kernel; undefined where there is none to be had. */
  readonly bootId: string | undefined;
  /** Folder for files that need not survive a reboot. */
  readonly temporary: string;
}

export function thisMachine(): Machine {
  return { bootId: readBootId(), temporary: tmpdir() };
}

function readBootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}

/** `nonce batches boot`: the number has a fixed width, so that it is overwritten in place after each batch. */
const RECORD = /^([0-9a-f]{16}) ([0-9a-f]{12}) (\S+)\n$/;
const BATCHES_AT = 17;

const hex12 = (batches: number): string => batches.toString(16).padStart(12, '0');

export class RunRecord {
  readonly #machine: Machine;
  readonly #file: string | undefined;
  #fd: number | undefined;

  private constructor(machine: Machine, file: string | undefined) {
    this.#machine = machine;
    this.#file = file;
  }

  /** For the data folder at this real path. Never throws: without a usable place no origin is kept. */
  static of(folder: string, machine: Machine): RunRecord {
    return new RunRecord(machine, recordPath(folder, machine));
  }

  /**
   * Whether the store, which bears this mark, has lost nothing since its previous opening (`complete`), has lost
   * batches that were acknowledged (`lost-batches`), or neither can be proved.
   */
  judge(mark: RunMark | undefined): 'complete' | 'lost-batches' | 'unproved' {
    if (mark === undefined || this.#file === undefined) return 'unproved';
    const match = RECORD.exec(readOrEmpty(this.#file));
    if (match === null) return 'unproved';
    const [, nonce, batches, boot] = match;
    if (nonce !== mark.nonce || boot !== this.#machine.bootId) return 'unproved';
    if (mark.batches < Number.parseInt(batches!, 16)) return 'lost-batches';
    return mark.batches >= 1 ? 'complete' : 'unproved';
  }

  /** Begins the record of this opening, after its nonce is in the database. */
  begin(nonce: string): void {
    if (this.#file === undefined) return;
    const { O_CREAT, O_TRUNC, O_WRONLY, O_NOFOLLOW } = constants;
    try {
      this.#fd = openSync(this.#file, O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW, 0o600);
      writeSync(this.#fd, `${nonce} ${hex12(0)} ${this.#machine.bootId}\n`, 0);
    } catch {
      this.invalidate();
    }
  }

  /** Notes a batch that is about to be acknowledged. */
  count(batches: number): void {
    if (this.#fd === undefined) return;
    try {
      writeSync(this.#fd, hex12(batches), BATCHES_AT);
    } catch {
      this.invalidate();
    }
  }

  /** The next opening of the store gets a new origin. */
  invalidate(): void {
    if (this.#file === undefined) return;
    try {
      // Emptied first: should it not be possible to remove it, it still vouches for nothing.
      if (this.#fd !== undefined) ftruncateSync(this.#fd);
      unlinkSync(this.#file);
    } catch {
      // Gone already.
    }
    this.release();
  }

  /** Ends the record of this opening; it stays for the next one. */
  release(): void {
    if (this.#fd === undefined) return;
    const fd = this.#fd;
    this.#fd = undefined;
    closeSync(fd);
  }
}

function readOrEmpty(file: string): string {
  let fd: number | undefined;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW);
    return readFileSync(fd, 'utf8');
  } catch {
    return '';
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function recordPath(folder: string, machine: Machine): string | undefined {
  if (machine.bootId === undefined) return undefined;
  try {
    const user = process.getuid?.() ?? 0;
    const home = join(machine.temporary, `readmesh-${user}`);
    mkdirSync(home, { mode: 0o700, recursive: true });
    // Others may make files in the folder for temporary files: nobody but us may vouch for our store.
    const place = lstatSync(home);
    if (!place.isDirectory() || place.uid !== user || (place.mode & 0o022) !== 0) return undefined;
    const { dev, ino } = statSync(folder, { bigint: true });
    const name = createHash('sha256').update(`${folder}\0${dev}:${ino}`).digest('hex').slice(0, 32);
    return join(home, name);
  } catch {
    return undefined;
  }
}
