/**
 * Flushes what LevelDB has written into its log, apart from the writing: a batch is readable, and survives the end of
 * the process, a disk's time before it survives a loss of power.
 *
 * LevelDB's own flush comes with a write only, and into whichever log that write goes: it changes logs without
 * flushing the one that it leaves. So the logs are flushed by descriptors of our own. A log that grew by the latest
 * batch holds it whole, since logs change between batches only; one that did not was left for a newer one.
 */
import { closeSync, fdatasync, fstatSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const fdatasyncAsync = promisify(fdatasync);

const LOG = /^(\d+)\.log$/;

interface Log {
  readonly number: number;
  readonly fd: number;
}

export class LogSync {
  readonly #folder: string;
  readonly #flush: (fd: number) => Promise<void>;
  /** Oldest first. All but the last one take no more batches, and are closed once they are flushed. */
  #logs: Log[] = [];
  #size = 0;
  /** Holds a descriptor for the next log: a shortage of them must not fail a batch that is written. */
  #reserve: number | undefined;

  /** Of an open database. `flush` replaces the system's call in tests. */
  constructor(folder: string, flush: (fd: number) => Promise<void> = fdatasyncAsync) {
    this.#folder = folder;
    this.#flush = flush;
    this.#openNewer();
    this.#size = fstatSync(this.#logs.at(-1)!.fd).size;
    this.#reserve = reserve(folder);
  }

  /** Right after a batch was written. Returns whether it went into another log than the one before it. */
  written(): boolean {
    const { size } = fstatSync(this.#logs.at(-1)!.fd);
    const isNew = size <= this.#size;
    if (isNew) this.#openNewer();
    this.#size = isNew ? fstatSync(this.#logs.at(-1)!.fd).size : size;
    return isNew;
  }

  /** What was written before the call is on stable storage. One call at a time. */
  async flush(): Promise<void> {
    const logs = [...this.#logs];
    // In this order: what was written later never outlives what came before it.
    for (const { fd } of logs) await this.#flush(fd);
    for (const { fd } of logs.slice(0, -1)) closeSync(fd);
    this.#logs = this.#logs.slice(logs.length - 1);
    this.#reserve ??= reserve(this.#folder);
  }

  close(): void {
    for (const { fd } of this.#logs) closeSync(fd);
    this.#logs = [];
    if (this.#reserve !== undefined) closeSync(this.#reserve);
    this.#reserve = undefined;
  }

  /** The newest, and any between it and the one that was: LevelDB may have changed logs more than once. */
  #openNewer(): void {
    if (this.#reserve !== undefined) closeSync(this.#reserve);
    this.#reserve = undefined;
    const after = this.#logs.at(-1)?.number ?? 0;
    const numbers = readdirSync(this.#folder)
      .map((name) => Number(LOG.exec(name)?.[1] ?? 0))
      .filter((number) => number > after)
      .sort((a, b) => a - b);
    if (numbers.length === 0) throw Object.assign(new Error('the log is gone'), { code: 'ENOENT' });
    for (const number of after === 0 ? numbers.slice(-1) : numbers) {
      const fd = openLog(this.#folder, number);
      if (fd !== undefined) this.#logs.push({ number, fd });
    }
  }
}

/** undefined: it is gone, so that what it held is in a table, which LevelDB has flushed. */
function openLog(folder: string, number: number): number | undefined {
  try {
    // For writing, though nothing is written by it: some systems flush no descriptor that is only for reading.
    return openSync(join(folder, `${String(number).padStart(6, '0')}.log`), 'r+');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function reserve(folder: string): number | undefined {
  try {
    return openSync(folder, 'r');
  } catch {
    return undefined;
  }
}
