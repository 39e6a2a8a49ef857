/**
 * A batch as LevelDB takes it, put together row by row.
 *
 * Records and their dot rows come by the thousand. Their keys are laid out as bytes in shared buffers, since the
 * binding copies what it is given at once, and go to it by the method below abstract-level's own `put`: that one
 * resolves encodings and options anew for each row, which takes as long as all the rest of it and leaves 240 bytes
 * of garbage.
 */
import type { ChainedBatch } from 'classic-level';
import { checksumFrom, hashText } from '../checksum.js';
import { dotOf, KEY_BYTES_MAX, originOf, seqOf } from '../core/entry.js';
import type { BatchRow, Drop, OriginId, Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import type { Db } from './level-cursors.js';
import {
  CRC_BYTES,
  DOT_KEY_LENGTH,
  dotKey,
  ENTRY,
  encodeRun,
  HEX,
  META,
  META_RUN,
  type RunMark,
  seal,
  Views,
  writeChecksum,
  writeText,
} from './physical.js';

/** The methods that abstract-level asks of its implementors: what its own `put` and `del` come down to. */
interface Chain extends ChainedBatch<Db, string, Uint8Array> {
  _put(key: Uint8Array, value: Uint8Array): void;
  _del(key: string): void;
}

/** Checksum and text of a key: the value of its dot row. With `ENTRY` before the text: the key of its record. */
const keyBytes = Buffer.allocUnsafeSlow(CRC_BYTES + 3 * KEY_BYTES_MAX);
const dotValues = new Views(keyBytes, 0);
const entryKeys = new Views(keyBytes, CRC_BYTES - 1);
const ENTRY_BYTE = ENTRY.charCodeAt(0);

/** The key of the latest dot row. Dots come in order: all but its last two digits are mostly those of the one before. */
const dotBytes = Buffer.allocUnsafeSlow(DOT_KEY_LENGTH);
const STEM_LENGTH = DOT_KEY_LENGTH - 2;
let stemOrigin: OriginId = '';
let stemSeq = -1;
let stemHash = 0;

/** Lays out the key in `dotBytes`; returns its hash, which the row's checksum starts from. */
function layDotKey(origin: OriginId, seq: number): number {
  const high = Math.floor(seq / 256);
  if (high !== stemSeq || origin !== stemOrigin) {
    const stem = dotKey(origin, seq).slice(0, STEM_LENGTH);
    dotBytes.write(stem, 'latin1');
    stemHash = hashText(stem);
    stemOrigin = origin;
    stemSeq = high;
  }
  const digits = HEX[seq % 256]!;
  dotBytes[STEM_LENGTH] = digits.charCodeAt(0);
  dotBytes[STEM_LENGTH + 1] = digits.charCodeAt(1);
  return hashText(digits, stemHash);
}

/**
 * At most so much of LevelDB's memory does a row of so many bytes take: itself with its lengths and sequence number, a
 * node of the skip list, and what is left over at the end of a block of its arena.
 */
const memoryOf = (bytes: number): number => bytes + 48 + (bytes <= 256 ? bytes / 12 : bytes / 3);

export class LevelBatch {
  readonly #chain: Chain;
  /** Bytes that it takes of LevelDB's write buffer, at most. */
  memory = 0;

  constructor(db: Db) {
    this.#chain = db.batch() as Chain;
  }

  /** The record and its dot row; the dot row of the record that it replaces goes. */
  put(key: string, { row, replaces }: BatchRow): void {
    if (key.length === 0 || key.length > KEY_BYTES_MAX)
      throw new ReadmeshError(
        'INTERNAL',
        `a key of ${key.length} characters reached the store: report this bug`,
      );
    // Before the new one is put, which may be the same: a record that is written anew keeps its dot.
    if (replaces !== undefined) {
      this.#chain._del(dotKey(replaces.origin, replaces.seq));
      this.memory += memoryOf(DOT_KEY_LENGTH);
    }
    const end = CRC_BYTES + writeText(key, keyBytes, CRC_BYTES);
    keyBytes[CRC_BYTES - 1] = ENTRY_BYTE;
    this.#chain._put(entryKeys.upTo(end), row);
    const sealed = dotValues.upTo(end);
    writeChecksum(sealed, checksumFrom(layDotKey(originOf(row), seqOf(row)), sealed));
    this.#chain._put(dotBytes, sealed);
    this.memory += memoryOf(end + row.length) + memoryOf(DOT_KEY_LENGTH + end);
  }

  /** The record as it lies in the store, with its dot row. */
  remove(key: string, row: Row): void {
    const { origin, seq } = dotOf(row);
    this.#chain.del(ENTRY + key);
    this.#chain.del(dotKey(origin, seq));
    this.memory += memoryOf(3 * key.length) + memoryOf(DOT_KEY_LENGTH);
  }

  /** A damaged row. Before anything is put. */
  drop(drop: Drop): void {
    this.memory += memoryOf(4 * KEY_BYTES_MAX);
    if ('key' in drop) this.#chain.del(ENTRY + drop.key);
    else if ('dot' in drop) this.#chain.del(dotKey(drop.dot.origin, drop.dot.seq));
    else this.#chain.del(drop.raw as unknown as string, { keyEncoding: 'view' } as object);
  }

  /** A row of the store itself or of the node. */
  set(physicalKey: string, payload: Uint8Array): void {
    this.#chain.put(physicalKey, seal(physicalKey, payload));
    this.memory += memoryOf(3 * physicalKey.length + CRC_BYTES + payload.length);
  }

  delete(physicalKey: string): void {
    this.#chain.del(physicalKey);
    this.memory += memoryOf(3 * physicalKey.length);
  }

  /** The mark goes with it in every case; `write` would take a batch for empty that has rows of `put` only. */
  write(mark: RunMark): Promise<void> {
    this.set(META + META_RUN, encodeRun(mark));
    return this.#chain.write({ sync: false });
  }

  close(): Promise<void> {
    return this.#chain.close();
  }
}
