/**
 * What the process that reads a set-aside store tells, on its standard output: frames of 4 bytes of length (of what
 * follows them, big-endian), 1 byte of type, and a payload.
 *
 *     OPENED   JSON, see `Opened`; first
 *     ROW      2 bytes of length, the key in UTF-8, the row; in byte order of keys
 *     DAMAGED  nothing: here was a record that fails its checksum, or a table of which a part is lost
 *     END      nothing: that was all
 */
import type { Row } from '../core/types.js';

/** Its only argument, as JSON. */
export interface Reading {
  readonly location: string;
  /** Let LevelDB put together what it can still find: this is a copy. */
  readonly repair: boolean;
  /** Begin behind this key. */
  readonly after?: string | undefined;
}

export interface Opened {
  readonly heads: readonly (readonly [origin: string, head: number])[];
  /** Base64. */
  readonly meta: readonly (readonly [name: string, bytes: string])[];
}

export const OPENED = 1;
export const ROW = 2;
export const DAMAGED = 3;
export const END = 4;

const PREFIX_BYTES = 4;
const KEY_LENGTH_BYTES = 2;

export function frame(type: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(PREFIX_BYTES + 1 + payload.length);
  bytes.writeUInt32BE(1 + payload.length, 0);
  bytes[PREFIX_BYTES] = type;
  bytes.set(payload, PREFIX_BYTES + 1);
  return bytes;
}

export function rowPayload(key: string, row: Row): Buffer {
  const text = Buffer.from(key);
  const bytes = Buffer.allocUnsafe(KEY_LENGTH_BYTES + text.length + row.length);
  bytes.writeUInt16BE(text.length, 0);
  text.copy(bytes, KEY_LENGTH_BYTES);
  bytes.set(row, KEY_LENGTH_BYTES + text.length);
  return bytes;
}

export function parseRow(payload: Buffer): { key: string; row: Row } {
  const end = KEY_LENGTH_BYTES + payload.readUInt16BE(0);
  return { key: payload.toString('utf8', KEY_LENGTH_BYTES, end), row: payload.subarray(end) };
}

export interface Frame {
  readonly type: number;
  readonly payload: Buffer;
}

/** Cuts a stream of bytes into frames. */
export class FrameCutter {
  #rest: Buffer = Buffer.alloc(0);

  /** Whole frames in what has come so far. */
  cut(chunk: Buffer): Frame[] {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const out: Frame[] = [];
    let at = 0;
    while (at + PREFIX_BYTES <= bytes.length) {
      const end = at + PREFIX_BYTES + bytes.readUInt32BE(at);
      if (end > bytes.length) break;
      out.push({ type: bytes[at + PREFIX_BYTES]!, payload: bytes.subarray(at + PREFIX_BYTES + 1, end) });
      at = end;
    }
    this.#rest = bytes.subarray(at);
    return out;
  }
}
