/**
 * Physical rows of the LevelDB store.
 *
 *     e + key                              -> row in canonical bytes, which bears its own checksum
 *     d + origin (16 hex) + seq (12 hex)   -> sealed key: whose current record has this dot
 *     h + origin                           -> sealed head, 48 bits
 *     m + name                             -> sealed bytes
 *
 * A sealed value begins with the same checksum as a row (checksum.ts), under the physical key: LevelDB can return
 * another row's value when a block is damaged. Integers are big-endian, so that dots of one origin lie in order
 * of sequence.
 */
import { checksum, FNV_OFFSET, hashText, hashUnit, isIntact, isIntactFrom } from '../checksum.js';
import { KEY_BYTES_MAX } from '../core/entry.js';
import type { Dot, OriginId, Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';

export const ENTRY = 'e';
export const DOT = 'd';
export const HEAD = 'h';
export const META = 'm';

/** Names of meta rows that belong to the store itself and never show in `Recovered.meta`. */
export const META_HLC = 'hlc';
export const META_RUN = 'run';

const SEQ_DIGITS = 12;
const ORIGIN_END = 17;
export const DOT_KEY_LENGTH = ORIGIN_END + SEQ_DIGITS;
const SEQ_MAX = 2 ** 48 - 1;
export const CRC_BYTES = 4;

export const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
/** Dots come in order: all but the last two digits are mostly those of the dot before. */
let stemOrigin: OriginId = '';
let stemSeq = -1;
let stem = '';

export function dotKey(origin: OriginId, seq: number): string {
  const high = Math.floor(seq / 256);
  if (high !== stemSeq || origin !== stemOrigin) {
    stem = DOT + origin + high.toString(16).padStart(SEQ_DIGITS - 2, '0');
    stemOrigin = origin;
    stemSeq = high;
  }
  return stem + HEX[seq % 256]!;
}

/** Where to look for the first dot of `origin` above `head`. A head comes from a peer and may be any integer. */
export function dotKeyAbove(origin: OriginId, head: number): string {
  // 'g' sorts behind every hex digit: behind all dots of the origin.
  return head >= SEQ_MAX ? `${DOT}${origin}g` : dotKey(origin, head + 1);
}

export function parseDotKey(physical: string): Dot {
  const seq = Number(`0x${physical.slice(ORIGIN_END)}`);
  if (physical.length !== DOT_KEY_LENGTH || !(seq >= 0))
    throw new ReadmeshError('DAMAGED', `a row of the dot index is damaged: ${JSON.stringify(physical)}`);
  return { origin: physical.slice(1, ORIGIN_END), seq };
}

const VIEWS_MAX = 512;

/** Parts of a shared buffer from one place on, made when first needed: a view for each row would be most of its cost. */
export class Views {
  readonly #buffer: Buffer;
  readonly #from: number;
  readonly #views: Uint8Array[] = [];

  constructor(buffer: Buffer, from: number) {
    this.#buffer = buffer;
    this.#from = from;
  }

  upTo(end: number): Uint8Array {
    if (end > VIEWS_MAX) return this.#buffer.subarray(this.#from, end);
    return (this.#views[end] ??= this.#buffer.subarray(this.#from, end));
  }
}

/** Grows to the largest sealed row seen: small records of the node. */
let scratch = Buffer.allocUnsafeSlow(8_192);
let sealedValues = new Views(scratch, 0);

function room(bytes: number): Buffer {
  if (scratch.length < bytes) {
    scratch = Buffer.allocUnsafeSlow(bytes * 2);
    sealedValues = new Views(scratch, 0);
  }
  return scratch;
}

/** Texts up to this length are written here while they are ASCII; a native call costs more. */
const SHORT_TEXT = 64;

/** Returns how many bytes it takes. */
export function writeText(text: string, into: Buffer, at: number): number {
  if (text.length <= SHORT_TEXT) {
    let i = 0;
    for (; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      if (unit >= 0x80) break;
      into[at + i] = unit;
    }
    if (i === text.length) return i;
  }
  return into.write(text, at);
}

/** The key of an entry that is looked up: laid out and hashed in one pass, in a buffer that the next one takes over. */
export class LookupKey {
  readonly #bytes = Buffer.allocUnsafeSlow(ENTRY.length + 3 * KEY_BYTES_MAX);
  readonly #views = new Views(this.#bytes, 0);
  #hash = FNV_OFFSET;

  constructor() {
    this.#bytes.write(ENTRY);
  }

  /** The physical key, valid until the next call. `key` has at most `KEY_BYTES_MAX` code units. */
  lay(key: string): Uint8Array {
    const bytes = this.#bytes;
    let hash = FNV_OFFSET;
    let end = ENTRY.length;
    for (let i = 0; i < key.length; i++) {
      const unit = key.charCodeAt(i);
      hash = hashUnit(hash, unit);
      bytes[end++] = unit;
      if (unit >= 0x80) {
        this.#hash = hashText(key);
        return this.#views.upTo(ENTRY.length + bytes.write(key, ENTRY.length));
      }
    }
    this.#hash = hash;
    return this.#views.upTo(end);
  }

  /** Whether the row is one of the key that was laid out last. */
  isOf(row: Row): boolean {
    return isIntactFrom(this.#hash, row);
  }
}

/**
 * The sealed value, in a shared buffer: valid until the next call. LevelDB copies what it is given at once, and
 * a batch of thousands of dot rows would otherwise allocate as many buffers.
 */
export function seal(physicalKey: string, payload: string | Uint8Array): Uint8Array {
  // Three bytes of UTF-8 at most for each UTF-16 unit.
  const buffer = room(CRC_BYTES + 3 * payload.length);
  let end = CRC_BYTES;
  if (typeof payload === 'string') end += writeText(payload, buffer, end);
  else {
    buffer.set(payload, end);
    end += payload.length;
  }
  const sealed = sealedValues.upTo(end);
  writeChecksum(sealed, checksum(physicalKey, sealed));
  return sealed;
}

/** The payload, or undefined when the row is damaged. Shares the memory of `value`. */
export function unseal(physicalKey: string, value: Uint8Array): Buffer | undefined {
  if (!isIntact(physicalKey, value)) return undefined;
  return Buffer.from(value.buffer, value.byteOffset + CRC_BYTES, value.length - CRC_BYTES);
}

export function writeChecksum(sealed: Uint8Array, sum: number): void {
  sealed[0] = sum >>> 24;
  sealed[1] = sum >>> 16;
  sealed[2] = sum >>> 8;
  sealed[3] = sum;
}

export function encodeHead(head: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(6);
  bytes.writeUIntBE(head, 0, 6);
  return bytes;
}

export function decodeHead(payload: Buffer): number {
  return payload.length === 6 ? payload.readUIntBE(0, 6) : Number.NaN;
}

export interface HlcBound {
  readonly ms: number;
  readonly counter: number;
}

export function encodeHlc(hlc: HlcBound): Uint8Array {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeUIntBE(hlc.ms, 0, 6);
  bytes.writeUInt16BE(hlc.counter, 6);
  return bytes;
}

export function decodeHlc(payload: Buffer): HlcBound | undefined {
  if (payload.length !== 8) return undefined;
  return { ms: payload.readUIntBE(0, 6), counter: payload.readUInt16BE(6) };
}

/** Which opening of the store wrote last, and how many batches it had written. */
export interface RunMark {
  /** 16 hex digits. */
  readonly nonce: string;
  readonly batches: number;
}

export function encodeRun(run: RunMark): Uint8Array {
  const bytes = Buffer.allocUnsafe(14);
  bytes.write(run.nonce, 0, 8, 'hex');
  bytes.writeUIntBE(run.batches, 8, 6);
  return bytes;
}

export function decodeRun(payload: Buffer): RunMark | undefined {
  if (payload.length !== 14) return undefined;
  return { nonce: payload.toString('hex', 0, 8), batches: payload.readUIntBE(8, 6) };
}
