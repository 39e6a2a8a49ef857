/**
 * The msgpack encoder that values (values.ts) and frames share; msgpack-guard.ts says what the subset is. Other
 * msgpack libraries read what this writes.
 *
 * Why it is not msgpackr's: what is replicated must come back exactly. That one turns -0 into 0, lone surrogates
 * into U+FFFD, and calls a member named `toJSON`. Here the encoder refuses what it cannot carry, in the pass that
 * writes it, so that what was checked is what is written; and frames are written field by field, without arrays
 * that only live until they are encoded.
 */
import type { ReadmeshError } from './errors.js';
import { EXT_BIGINT, EXT_TEXT, EXT_TIMESTAMP } from './msgpack-guard.js';
import { isWellFormed } from './wire-text.js';

/** Native, and works on any Uint8Array; Node's own types leave it out. */
const { utf8Write } = Buffer.prototype as unknown as {
  utf8Write: { call(bytes: Uint8Array, text: string, at: number, length: number): number };
};

const SCRATCH_BYTES = 16_384;
/** A scratch buffer that grew beyond this is not kept. */
const SCRATCH_KEPT_MAX = 1_048_576;
/** Strings up to this many characters are written in JavaScript while they are ASCII; a native call costs more. */
const SHORT_STRING = 48;
/** The same for binary, of which a view would have to be made. */
const SHORT_BINARY = 48;

const TWO_32 = 0x1_0000_0000;
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
const UINT64_MAX = 2n ** 64n - 1n;

const SLAB_BYTES = 8_192;
/** Longer results get a buffer of their own, which is then copied by one call. */
const SLAB_TAKE_MAX = 64;
let slab = new ArrayBuffer(SLAB_BYTES);
let slabUsed = 0;

/** Writes one message after the other into a scratch buffer of its own; `take` copies each out. */
export class MsgpackWriter {
  #bytes = new Uint8Array(SCRATCH_BYTES);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;
  #bytesMax = 0;
  readonly #tooLarge: (bytesMax: number) => ReadmeshError;

  /** `tooLarge` makes the error that is thrown when more than `bytesMax` bytes would be written. */
  constructor(tooLarge: (bytesMax: number) => ReadmeshError) {
    this.#tooLarge = tooLarge;
  }

  /** Forgets what was written. */
  start(bytesMax: number): void {
    if (this.#bytes.length > SCRATCH_KEPT_MAX) this.#scratch(new Uint8Array(SCRATCH_BYTES));
    this.#at = 0;
    this.#bytesMax = bytesMax;
  }

  /** What was written since `start`, as bytes of its own. */
  take(): Uint8Array {
    if (this.#at > this.#bytesMax) throw this.#tooLarge(this.#bytesMax);
    return this.#at <= SLAB_TAKE_MAX ? this.#takeShort() : this.#bytes.slice(0, this.#at);
  }

  /** A view into a slab: an array buffer of its own costs more than everything else about a short value. */
  #takeShort(): Uint8Array {
    const length = this.#at;
    if (slabUsed + length > SLAB_BYTES) {
      slab = new ArrayBuffer(SLAB_BYTES);
      slabUsed = 0;
    }
    const out = new Uint8Array(slab, slabUsed, length);
    slabUsed += length;
    const bytes = this.#bytes;
    for (let i = 0; i < length; i++) out[i] = bytes[i]!;
    return out;
  }

  nil(): void {
    this.#reserve(1);
    this.#bytes[this.#at++] = 0xc0;
  }

  bool(value: boolean): void {
    this.#reserve(1);
    this.#bytes[this.#at++] = value ? 0xc3 : 0xc2;
  }

  /** Any number: as an integer of up to 32 bits if it is one, else as a float of 64, -0 and NaN included. */
  number(value: number): void {
    if (value >>> 0 === value && (value !== 0 || 1 / value > 0)) return this.uint(value);
    this.#reserve(9);
    const bytes = this.#bytes;
    if (value >> 0 !== value || value === 0) {
      bytes[this.#at++] = 0xcb;
      this.#view.setFloat64(this.#at, value);
      this.#at += 8;
    } else if (value >= -32) {
      bytes[this.#at++] = value;
    } else if (value >= -0x80) {
      bytes[this.#at++] = 0xd0;
      bytes[this.#at++] = value;
    } else if (value >= -0x8000) {
      bytes[this.#at++] = 0xd1;
      this.#big(value, 2);
    } else {
      bytes[this.#at++] = 0xd2;
      this.#big(value, 4);
    }
  }

  /** A non-negative integer below 2^53, always as a msgpack integer. */
  uint(value: number): void {
    this.#reserve(9);
    const bytes = this.#bytes;
    if (value < 0x80) {
      bytes[this.#at++] = value;
    } else if (value < 0x100) {
      bytes[this.#at++] = 0xcc;
      bytes[this.#at++] = value;
    } else if (value < 0x1_0000) {
      bytes[this.#at++] = 0xcd;
      this.#big(value, 2);
    } else if (value < TWO_32) {
      bytes[this.#at++] = 0xce;
      this.#big(value, 4);
    } else {
      bytes[this.#at++] = 0xcf;
      this.#big(Math.floor(value / TWO_32), 4);
      this.#big(value >>> 0, 4);
    }
  }

  bigint(value: bigint): void {
    if (value < INT64_MIN || value > UINT64_MAX) return this.#largeBigint(value);
    this.#reserve(9);
    if (value <= INT64_MAX) {
      this.#bytes[this.#at++] = 0xd3;
      this.#view.setBigInt64(this.#at, value);
    } else {
      this.#bytes[this.#at++] = 0xcf;
      this.#view.setBigUint64(this.#at, value);
    }
    this.#at += 8;
  }

  /** False, with nothing written, if the string holds a lone surrogate. */
  str(text: string): boolean {
    const { length } = text;
    if (length > SHORT_STRING) return this.#longStr(text);
    this.#reserve(length + 2);
    const bytes = this.#bytes;
    let at = this.#at;
    if (length >= 32) {
      bytes[at++] = 0xd9;
      bytes[at++] = length;
    } else {
      bytes[at++] = 0xa0 | length;
    }
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(i);
      if (unit >= 0x80) return this.#longStr(text);
      bytes[at++] = unit;
    }
    this.#at = at;
    return true;
  }

  /** The same as an extension of our own: for strings that begin with U+FEFF (values.ts says why). */
  textExtension(text: string): boolean {
    if (!isWellFormed(text)) return false;
    const length = Buffer.byteLength(text);
    this.#reserve(length + 6);
    this.#lengthOf(length, 0xc7, 0xc8, 0xc9);
    this.#bytes[this.#at++] = EXT_TEXT;
    utf8Write.call(this.#bytes, text, this.#at, length);
    this.#at += length;
    return true;
  }

  /** The bytes of `value` from `from` to `to`. */
  bin(value: Uint8Array, from = 0, to = value.length): void {
    const length = to - from;
    this.#reserve(length + 5);
    this.#lengthOf(length, 0xc4, 0xc5, 0xc6);
    const at = this.#at;
    if (length <= SHORT_BINARY) {
      const bytes = this.#bytes;
      for (let i = 0; i < length; i++) bytes[at + i] = value[from + i]!;
    } else this.#bytes.set(length === value.length ? value : value.subarray(from, to), at);
    this.#at = at + length;
  }

  array(length: number): void {
    this.#reserve(5);
    if (length < 16) this.#bytes[this.#at++] = 0x90 | length;
    else this.#lengthOf(length, undefined, 0xdc, 0xdd);
  }

  map(length: number): void {
    this.#reserve(5);
    if (length < 16) this.#bytes[this.#at++] = 0x80 | length;
    else this.#lengthOf(length, undefined, 0xde, 0xdf);
  }

  /** Milliseconds since 1970 within the range of a Date, in the shortest of the three forms of msgpack. */
  timestamp(ms: number): void {
    this.#reserve(15);
    const seconds = Math.floor(ms / 1_000);
    const nanos = (ms - seconds * 1_000) * 1_000_000;
    const bytes = this.#bytes;
    if (nanos === 0 && seconds >= 0 && seconds < TWO_32) {
      bytes[this.#at++] = 0xd6;
      bytes[this.#at++] = EXT_TIMESTAMP;
      this.#big(seconds, 4);
    } else if (seconds >= 0 && seconds < 2 ** 34) {
      bytes[this.#at++] = 0xd7;
      bytes[this.#at++] = EXT_TIMESTAMP;
      this.#big(nanos * 4 + Math.floor(seconds / TWO_32), 4);
      this.#big(seconds >>> 0, 4);
    } else {
      bytes[this.#at++] = 0xc7;
      bytes[this.#at++] = 12;
      bytes[this.#at++] = EXT_TIMESTAMP;
      this.#big(nanos, 4);
      this.#view.setBigInt64(this.#at, BigInt(seconds));
      this.#at += 8;
    }
  }

  #longStr(text: string): boolean {
    if (!isWellFormed(text)) return false;
    const length = Buffer.byteLength(text);
    this.#reserve(length + 5);
    if (length < 32) this.#bytes[this.#at++] = 0xa0 | length;
    else this.#lengthOf(length, 0xd9, 0xda, 0xdb);
    utf8Write.call(this.#bytes, text, this.#at, length);
    this.#at += length;
    return true;
  }

  /** Two's complement, big-endian, in as few bytes as leave room for the sign. */
  #largeBigint(value: bigint): void {
    const flip = value < 0n;
    const magnitude = flip ? ~value : value;
    // Writing out a number that is far too large could take longer than anything else here.
    if (magnitude >> (BigInt(this.#bytesMax) * 8n) !== 0n) throw this.#tooLarge(this.#bytesMax);
    let hex = magnitude.toString(16);
    if (hex.length % 2 === 1) hex = `0${hex}`;
    else if (hex.charCodeAt(0) > 0x37) hex = `00${hex}`;
    const digits = Buffer.from(hex, 'hex');
    if (flip) for (let i = 0; i < digits.length; i++) digits[i] = ~digits[i]!;
    this.#reserve(digits.length + 6);
    this.#lengthOf(digits.length, 0xc7, 0xc8, 0xc9);
    this.#bytes[this.#at++] = EXT_BIGINT;
    this.#bytes.set(digits, this.#at);
    this.#at += digits.length;
  }

  #lengthOf(length: number, one: number | undefined, two: number, four: number): void {
    const bytes = this.#bytes;
    if (one !== undefined && length < 0x100) {
      bytes[this.#at++] = one;
      bytes[this.#at++] = length;
    } else if (length < 0x1_0000) {
      bytes[this.#at++] = two;
      this.#big(length, 2);
    } else {
      bytes[this.#at++] = four;
      this.#big(length, 4);
    }
  }

  #big(value: number, size: 2 | 4): void {
    if (size === 4) {
      this.#bytes[this.#at++] = value >>> 24;
      this.#bytes[this.#at++] = value >>> 16;
    }
    this.#bytes[this.#at++] = value >>> 8;
    this.#bytes[this.#at++] = value;
  }

  #reserve(count: number): void {
    if (this.#at + count > this.#bytes.length) this.#grow(this.#at + count);
  }

  #grow(needed: number): void {
    // Reservations are a few bytes generous; `take` counts exactly.
    if (needed > this.#bytesMax + 16) throw this.#tooLarge(this.#bytesMax);
    const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#scratch(larger);
  }

  #scratch(bytes: Uint8Array<ArrayBuffer>): void {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }
}
