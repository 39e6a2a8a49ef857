/**
 * Import: lines in, batches out, a few of them in flight. Memory is bounded by those batches, whatever the
 * length of the input. Batches are issued in the order of the lines, and stamps follow the order of issue, so
 * of two lines with one key the later wins, as it would when they were put one by one.
 *
 * The import is idempotent as a whole: repeated after a failure it writes the same entries again.
 */
import { isReadmeshError, ReadmeshError } from '../../src/errors.js';
import type { BatchOperation, ReadStore, WriteOptions } from '../../src/read-store.js';
import { type Line, parseEntry } from './entry-lines.js';
import { counted } from './format.js';

/** Operations of one batch; the interface allows 1,024. */
const BATCH_OPS_MAX = 500;
/** Bytes of the lines of one batch. JSON is at least half as long as what it encodes to, of which a batch takes 4 MiB. */
const BATCH_BYTES_MAX = 1_048_576;
const BATCHES_IN_FLIGHT = 4;

interface Batch {
  readonly ops: BatchOperation[];
  readonly firstLine: number;
  lastLine: number;
  bytes: number;
}

export class Importer {
  readonly #store: Pick<ReadStore, 'batch'>;
  readonly #options: WriteOptions;
  readonly #onProgress: (entries: number, bytes: number) => void;
  readonly #inFlight = new Set<Promise<void>>();
  #failure: ReadmeshError | undefined;
  /** Acknowledged entries, and bytes of the lines read so far. */
  imported = 0;
  #bytesRead = 0;

  constructor(
    store: Pick<ReadStore, 'batch'>,
    options: WriteOptions,
    onProgress: (entries: number, bytes: number) => void = () => {},
  ) {
    this.#store = store;
    this.#options = options;
    this.#onProgress = onProgress;
  }

  /** Writes every line's entry. Stops at the first failure, which says how many entries were imported. */
  async run(lines: AsyncIterable<Line>): Promise<number> {
    try {
      await this.#consume(lines);
    } catch (error) {
      await Promise.all(this.#inFlight);
      throw this.#describe(error);
    }
    await Promise.all(this.#inFlight);
    if (this.#failure !== undefined) throw this.#describe(this.#failure);
    return this.imported;
  }

  async #consume(lines: AsyncIterable<Line>): Promise<void> {
    let batch: Batch | undefined;
    try {
      for await (const line of lines) {
        const entry = parseEntry(line);
        this.#bytesRead += line.bytes.length + 1;
        if (entry === undefined) continue;
        if (batch !== undefined && batch.bytes + line.bytes.length > BATCH_BYTES_MAX) {
          await this.#send(batch);
          batch = undefined;
        }
        batch ??= { ops: [], firstLine: line.number, lastLine: line.number, bytes: 0 };
        batch.ops.push(entry);
        batch.lastLine = line.number;
        batch.bytes += line.bytes.length;
        if (batch.ops.length < BATCH_OPS_MAX) continue;
        await this.#send(batch);
        batch = undefined;
        if (this.#failure !== undefined) return;
      }
    } finally {
      // A bad line stops the import behind the good ones before it.
      if (batch !== undefined && this.#failure === undefined) await this.#send(batch);
    }
  }

  /** Resolves when there is room for another batch. */
  async #send(batch: Batch): Promise<void> {
    const writing = this.#write(batch).finally(() => this.#inFlight.delete(writing));
    this.#inFlight.add(writing);
    if (this.#inFlight.size >= BATCHES_IN_FLIGHT) await Promise.race(this.#inFlight);
  }

  async #write(batch: Batch): Promise<void> {
    try {
      await this.#store.batch(batch.ops, this.#options);
      this.imported += batch.ops.length;
      this.#onProgress(this.imported, this.#bytesRead);
    } catch (error) {
      if (this.#failure !== undefined) return;
      const { firstLine, lastLine } = batch;
      this.#failure = isReadmeshError(error)
        ? new ReadmeshError(error.code, `lines ${firstLine} to ${lastLine}: ${error.message}`, {
            cause: error,
            details: { ...error.details, firstLine, lastLine },
          })
        : new ReadmeshError('INTERNAL', `lines ${firstLine} to ${lastLine}: ${String(error)}`, {
            cause: error,
          });
    }
  }

  #describe(error: unknown): unknown {
    if (!isReadmeshError(error)) return error;
    const { code, message, details } = error;
    const advice = 'repeating the whole import is safe';
    return new ReadmeshError(
      code,
      `${message}; ${counted(this.imported, 'entry', 'entries')} imported before: ${advice}`,
      {
        cause: error,
        details: { ...details, imported: this.imported },
      },
    );
  }
}
