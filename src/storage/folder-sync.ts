/**
 * Makes new names in a folder durable. LevelDB flushes what it writes into a log, but not the folder that names
 * a new log: after a power loss a flushed batch could be gone with its whole file.
 *
 * A flush of the folder costs as much as half a flushed batch, and a new log appears once in thousands of
 * batches, so the folder's modification time is asked first. File systems keep that time in ticks of up to 10
 * ms; a second change within one tick would not show, so a time is trusted only once it has aged.
 */
import { closeSync, fsync, fsyncSync, openSync, statSync } from 'node:fs';
import { promisify } from 'node:util';

const fsyncAsync = promisify(fsync);

/** Longer than any file system's tick. */
const TICK_NS = 100_000_000n;

/** Folders cannot be flushed on every system (Windows); where they cannot, there is nothing to be done. */
const UNSUPPORTED = new Set(['EPERM', 'EISDIR', 'EINVAL', 'ENOTSUP']);

function ignoreUnsupported(error: unknown): void {
  if (!(error instanceof Error && 'code' in error && UNSUPPORTED.has(String(error.code)))) throw error;
}

export function syncFolder(path: string): void {
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    fsyncSync(fd);
  } catch (error) {
    ignoreUnsupported(error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

export class FolderSync {
  readonly #path: string;
  readonly #inode: bigint;
  readonly #fsync: (fd: number) => Promise<void>;
  /** Held open: a shortage of descriptors must not fail a batch. undefined where folders cannot be flushed. */
  #fd: number | undefined;
  #flushedUpTo: bigint | undefined;

  /** `flush` replaces the system's call in tests. */
  constructor(path: string, flush: (fd: number) => Promise<void> = fsyncAsync) {
    this.#path = path;
    this.#fsync = flush;
    this.#inode = statSync(path, { bigint: true }).ino;
    try {
      this.#fd = openSync(path, 'r');
    } catch (error) {
      ignoreUnsupported(error);
    }
  }

  /**
   * Notices that the folder was removed or replaced under our feet (throws ENOENT): LevelDB would go on writing
   * into files that nobody can find again. Returns when it last changed.
   */
  check(): bigint {
    const { ino, mtimeNs } = statSync(this.#path, { bigint: true });
    if (ino !== this.#inode)
      throw Object.assign(new Error(`${this.#path} was replaced by another folder`), { code: 'ENOENT' });
    return mtimeNs;
  }

  /** Flushes the folder unless nothing changed in it since the last flush. */
  async flush(): Promise<void> {
    const changed = this.check();
    if (changed === this.#flushedUpTo || this.#fd === undefined) return;
    const now = BigInt(Date.now()) * 1_000_000n;
    try {
      await this.#fsync(this.#fd);
    } catch (error) {
      ignoreUnsupported(error);
    }
    this.#flushedUpTo = now - changed > TICK_NS ? changed : undefined;
  }

  close(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}
