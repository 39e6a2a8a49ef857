/**
 * The format of a backup: a magic number, then frames, of which the last one vouches for all before it. The same
 * bytes travel from the node and lie in the file. docs/backup-format.md is the reference; in short:
 *
 *     magic    89 52 4d 42 4b 0d 0a 1a   ("\x89RMBK\r\n\x1a": what mangles line ends or the eighth bit shows here)
 *     frame    type (1), length of the payload (4), CRC-32C of these five bytes (4), CRC-32C of the payload (4), payload
 *
 *     H header   JSON: BackupHeader; the first frame
 *     R records  for each: bytes of the key (2), bytes of the row (4), key in UTF-8, row as on disk (core/entry.ts)
 *     T trailer  JSON: {"entries", "sha256"}; the sum is over every byte before this frame. Nothing follows
 *     X failure  JSON: {"code", "message"}; only on the wire: the node could not go on, and this is no backup
 *
 * Integers are big-endian. Keys rise in byte order. Rows bear their own checksums, so that damage is named to the
 * record. Whoever reads needs memory for one frame.
 */
import { createHash } from 'node:crypto';
import { checksum } from '../checksum.js';
import { assertRow } from '../core/entry.js';
import { compareKeys } from '../core/key-order.js';
import type { OriginId, Records, Row } from '../core/types.js';
import { ERRORS, type ErrorCode, isReadmeshError, ReadmeshError } from '../errors.js';
import { ByteSource } from './byte-source.js';
import { crc32c } from './crc32c.js';

export const BACKUP_FORMAT = 1;
/** Largest payload of a frame: far above what one record can take. */
const FRAME_BYTES_MAX = 256 * 1_048_576;

const MAGIC = Buffer.from('\x89RMBK\r\n\x1a', 'latin1');
const FRAME_HEAD = 13;
const CHECKED_HEAD = 5;
const RECORD_HEAD = 6;
const HEADER = 0x48;
const RECORDS = 0x52;
const TRAILER = 0x54;
const FAILURE = 0x58;

export interface BackupHeader {
  readonly format: number;
  readonly cluster: string;
  /** Founding of the cluster, 16 hex digits. */
  readonly clusterUid: string;
  /** Node that it was taken from. */
  readonly node: string;
  /** Version of the program that wrote it. */
  readonly version: string;
  /** Wall clock of that node when the snapshot was taken, ms since 1970. */
  readonly takenAtMs: number;
  /** Its hybrid logical clock: no stamp in the backup is greater. */
  readonly hlc: { readonly ms: number; readonly counter: number };
  /** The version vector that the backup is consistent at. */
  readonly heads: Readonly<Record<OriginId, number>>;
  /** Origins of members that were removed from the cluster. */
  readonly removed: readonly OriginId[];
  /** Small records of the node that belong to the data, by name, in base64, as they stand in the same snapshot. */
  readonly meta: Readonly<Record<string, string>>;
  /** How many entries there are, about; absent if that was not known. For progress alone. */
  readonly entriesAbout?: number;
}

export interface BackupSummary {
  readonly header: BackupHeader;
  /** Tombstones and expired entries included. */
  readonly entries: number;
  readonly bytes: number;
}

export type BackupPart =
  | { readonly type: 'header'; readonly header: BackupHeader }
  | { readonly type: 'records'; readonly records: Records }
  | { readonly type: 'end'; readonly summary: BackupSummary };

export class BackupEncoder {
  readonly #hash = createHash('sha256');
  #entries = 0;

  header(header: BackupHeader): Buffer {
    return this.#summed(Buffer.concat([MAGIC, frame(HEADER, json(header))]));
  }

  records({ keys, rows }: Records): Buffer {
    let size = 0;
    const keyBytes = keys.map((key) => Buffer.byteLength(key));
    for (let i = 0; i < keys.length; i++) size += RECORD_HEAD + keyBytes[i]! + rows[i]!.length;
    const bytes = Buffer.allocUnsafe(FRAME_HEAD + size);
    let at = FRAME_HEAD;
    for (let i = 0; i < keys.length; i++) {
      const row = rows[i]!;
      bytes.writeUInt16BE(keyBytes[i]!, at);
      bytes.writeUInt32BE(row.length, at + 2);
      at += RECORD_HEAD;
      at += bytes.write(keys[i]!, at);
      bytes.set(row, at);
      at += row.length;
    }
    this.#entries += keys.length;
    return this.#summed(seal(RECORDS, bytes));
  }

  trailer(): Buffer {
    return frame(TRAILER, json({ entries: this.#entries, sha256: this.#hash.digest('hex') }));
  }

  #summed(bytes: Buffer): Buffer {
    this.#hash.update(bytes);
    return bytes;
  }
}

/** What is sent in place of the rest when a backup cannot be finished. */
export function encodeFailure(error: ReadmeshError): Buffer {
  return frame(FAILURE, json({ code: error.code, message: error.message }));
}

function json(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function frame(type: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEAD + payload.length);
  payload.copy(bytes, FRAME_HEAD);
  return seal(type, bytes);
}

/** Fills in the head of a frame whose payload is in place. */
function seal(type: number, bytes: Buffer): Buffer {
  bytes[0] = type;
  bytes.writeUInt32BE(bytes.length - FRAME_HEAD, 1);
  bytes.writeUInt32BE(crc32c(bytes, 0, CHECKED_HEAD), CHECKED_HEAD);
  bytes.writeUInt32BE(crc32c(bytes, FRAME_HEAD, bytes.length), CHECKED_HEAD + 4);
  return bytes;
}

/**
 * Reads a backup and checks every byte of it. `source`: for messages. What was handed out before an error is intact;
 * the backup as a whole is known to be so only with the part `end`. Throws BACKUP_DAMAGED (`details.offset`, in
 * bytes, and `details.record`, from 1), INVALID_OPTION when it is no backup, UNSUPPORTED for a newer format, and what
 * a node says that could not finish it.
 */
export async function* readBackup(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
): AsyncGenerator<BackupPart, void, undefined> {
  yield* new BackupReader(chunks, source).parts();
}

class BackupReader {
  readonly #bytes: ByteSource;
  readonly #source: string;
  readonly #hash = createHash('sha256');
  #entries = 0;
  #lastKey: string | undefined;

  constructor(chunks: AsyncIterable<Uint8Array>, source: string) {
    this.#bytes = new ByteSource(chunks);
    this.#source = source;
  }

  async *parts(): AsyncGenerator<BackupPart, void, undefined> {
    const magic = await this.#bytes.take(MAGIC.length);
    if (!magic.equals(MAGIC.subarray(0, magic.length)))
      throw new ReadmeshError(
        'INVALID_OPTION',
        `${this.#source} is no backup: name a file that \`readmesh backup\` wrote`,
      );
    if (magic.length < MAGIC.length) throw this.#damage(magic.length, 'it ends here');
    this.#hash.update(magic);
    const header = await this.#header();
    yield { type: 'header', header };
    for (;;) {
      const at = this.#bytes.offset;
      const { type, payload, head } = await this.#frame();
      if (type === TRAILER) {
        await this.#end(at, payload);
        yield { type: 'end', summary: { header, entries: this.#entries, bytes: this.#bytes.offset } };
        return;
      }
      if (type !== RECORDS) throw this.#damage(at, `a frame of type ${type} has no place here`);
      this.#hash.update(head).update(payload);
      const records = this.#records(payload, at + FRAME_HEAD);
      yield { type: 'records', records };
    }
  }

  async #header(): Promise<BackupHeader> {
    const at = this.#bytes.offset;
    const { type, payload, head } = await this.#frame();
    if (type !== HEADER) throw this.#damage(at, 'it does not begin with a header');
    this.#hash.update(head).update(payload);
    const header = this.#json<BackupHeader>(payload, at);
    if (header.format > BACKUP_FORMAT)
      throw new ReadmeshError(
        'UNSUPPORTED',
        `${this.#source} was written by a newer version (format ${header.format}, this one knows ${BACKUP_FORMAT}): use version ${header.version} or later`,
      );
    return header;
  }

  async #frame(): Promise<{ type: number; payload: Buffer; head: Buffer }> {
    const at = this.#bytes.offset;
    const head = await this.#bytes.take(FRAME_HEAD);
    if (head.length < FRAME_HEAD) throw this.#damage(this.#bytes.offset, 'it ends here, before its trailer');
    if (crc32c(head, 0, CHECKED_HEAD) !== head.readUInt32BE(CHECKED_HEAD))
      throw this.#damage(at, 'the head of a frame does not match its checksum');
    const length = head.readUInt32BE(1);
    if (length > FRAME_BYTES_MAX) throw this.#damage(at, `a frame of ${length} bytes has no place here`);
    const payload = await this.#bytes.take(length);
    if (payload.length < length) throw this.#damage(this.#bytes.offset, 'it ends here, in mid-frame');
    if (crc32c(payload, 0, length) !== head.readUInt32BE(CHECKED_HEAD + 4)) {
      if (head[0] === RECORDS) this.#records(payload, at + FRAME_HEAD);
      throw this.#damage(at, 'a frame does not match its checksum');
    }
    if (head[0] === FAILURE) throw this.#failure(payload, at);
    return { type: head[0]!, payload, head };
  }

  /** Throws at the first record that is damaged. */
  #records(payload: Buffer, at: number): Records {
    const keys: string[] = [];
    const rows: Row[] = [];
    let from = 0;
    while (from < payload.length) {
      const fits = from + RECORD_HEAD <= payload.length;
      const keyEnd = fits ? from + RECORD_HEAD + payload.readUInt16BE(from) : 0;
      const end = fits ? keyEnd + payload.readUInt32BE(from + 2) : Number.POSITIVE_INFINITY;
      if (end > payload.length) throw this.#damage(at + from, 'a record is longer than its frame');
      const key = payload.toString('utf8', from + RECORD_HEAD, keyEnd);
      const row = payload.subarray(keyEnd, end);
      this.#assertInPlace(key, row, at + from);
      keys.push(key);
      rows.push(row);
      this.#entries += 1;
      from = end;
    }
    return { keys, rows };
  }

  #assertInPlace(key: string, row: Row, at: number): void {
    try {
      assertRow(key, row, checksum);
    } catch (error) {
      throw this.#damage(at, isReadmeshError(error) ? error.message : String(error));
    }
    if (this.#lastKey !== undefined && compareKeys(this.#lastKey, key) >= 0)
      throw this.#damage(at, 'a key is not behind the one before it');
    this.#lastKey = key;
  }

  async #end(at: number, payload: Buffer): Promise<void> {
    const { entries, sha256 } = this.#json<{ entries: number; sha256: string }>(payload, at);
    if (entries !== this.#entries)
      throw this.#damage(at, `it holds ${this.#entries} records, its trailer says ${entries}`);
    if (sha256 !== this.#hash.digest('hex')) throw this.#damage(at, 'the whole does not match its checksum');
    const { offset } = this.#bytes;
    if ((await this.#bytes.take(1)).length > 0) throw this.#damage(offset, 'something follows its trailer');
  }

  #json<T>(payload: Buffer, at: number): T {
    try {
      return JSON.parse(payload.toString()) as T;
    } catch {
      throw this.#damage(at, 'a frame holds no JSON');
    }
  }

  #failure(payload: Buffer, at: number): ReadmeshError {
    const { code, message } = this.#json<{ code: string; message: string }>(payload, at);
    const known: ErrorCode = Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'INTERNAL';
    return new ReadmeshError(known, `${this.#source} could not finish the backup: ${message}`);
  }

  #damage(offset: number, what: string): ReadmeshError {
    const record = this.#entries + 1;
    return new ReadmeshError(
      'BACKUP_DAMAGED',
      `${this.#source} is damaged at byte ${offset} (record ${record}): ${what}; use another backup`,
      { details: { offset, record } },
    );
  }
}
