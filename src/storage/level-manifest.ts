/** What a LevelDB manifest says: which logs and tables make up the database (LevelDB, db/version_edit.cc). */
import { scanLog } from './level-log.js';

export interface Manifest {
  /** Logs from this number on are replayed. */
  readonly logNumber: number;
  /** Replayed, too; 0 for none. */
  readonly previousLog: number;
  /** Sequence number of the last operation that the tables held when it was written, or a later one. */
  readonly lastSequence: number;
  /** It ends within a record, which is then not counted: its writer was killed, or it was cut. */
  readonly endsWithin: boolean;
  /** Size in bytes, by number. */
  readonly tables: ReadonlyMap<number, number>;
}

const COMPARATOR = 1;
const LOG_NUMBER = 2;
const NEXT_FILE = 3;
const LAST_SEQUENCE = 4;
const COMPACT_POINTER = 5;
const DELETED_FILE = 6;
const NEW_FILE = 7;
const PREVIOUS_LOG = 9;

/** Little-endian base-128 numbers and the texts that they measure. Throws RangeError beyond the end. */
export class VarintReader {
  readonly #bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }

  get done(): boolean {
    return this.at >= this.#bytes.length;
  }

  number(): number {
    let value = 0;
    for (let scale = 1; scale <= 2 ** 56; scale *= 128) {
      if (this.done) throw new RangeError('a number beyond the end');
      const byte = this.#bytes[this.at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new RangeError('a number of more than nine bytes');
  }

  text(): Buffer {
    const length = this.number();
    const end = this.at + length;
    if (end > this.#bytes.length) throw new RangeError('a text beyond the end');
    const text = this.#bytes.subarray(this.at, end);
    this.at = end;
    return text;
  }
}

/** undefined: it is damaged, or is none. */
export function readManifest(bytes: Buffer): Manifest | undefined {
  const edits = new Edits();
  try {
    const { damagedAt, records, endsWithin } = scanLog(bytes, (record) => edits.apply(record));
    edits.endsWithin = endsWithin;
    return damagedAt === undefined && records > 0 ? edits : undefined;
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

class Edits implements Manifest {
  logNumber = 0;
  previousLog = 0;
  lastSequence = 0;
  endsWithin = false;
  readonly tables = new Map<number, number>();

  apply(record: Buffer): void {
    const reader = new VarintReader(record);
    // Deletions of one edit come first, whatever their place in it: a table may move between levels.
    const added: [number, number][] = [];
    while (!reader.done) {
      switch (reader.number()) {
        case COMPARATOR:
          reader.text();
          break;
        case LOG_NUMBER:
          this.logNumber = reader.number();
          break;
        case PREVIOUS_LOG:
          this.previousLog = reader.number();
          break;
        case NEXT_FILE:
          reader.number();
          break;
        case LAST_SEQUENCE:
          this.lastSequence = reader.number();
          break;
        case COMPACT_POINTER:
          reader.number();
          reader.text();
          break;
        case DELETED_FILE:
          reader.number();
          this.tables.delete(reader.number());
          break;
        case NEW_FILE:
          reader.number();
          added.push([reader.number(), reader.number()]);
          reader.text();
          reader.text();
          break;
        default:
          throw new RangeError('an unknown entry');
      }
    }
    for (const [table, size] of added) this.tables.set(table, size);
  }
}
