/**
 * The msgpack decoder that values (values.ts) and frames (protocol.ts) share. It runs only on bytes that
 * msgpack-guard.ts has passed, and therefore checks no bounds. msgpack-writer.ts says why it is not a library.
 */
import type { ErrorCode } from './errors.js';
import { EXT_BIGINT, guardMsgpack, type MsgpackLimits } from './msgpack-guard.js';

/** Native, and work on any Uint8Array; Node's own types leave them out. */
const { latin1Slice, utf8Slice } = Buffer.prototype as unknown as Record<
  'latin1Slice' | 'utf8Slice',
  { call(bytes: Uint8Array, from: number, to: number): string }
>;

/** Above this many bytes the native decoder finds out faster than a loop that a string is ASCII. */
const SHORT_STRING = 48;

/** Member names and origins repeat all the time: the last ones, by a hash of their bytes. ASCII only. */
const NAME_CACHE = new Array<string>(1_024).fill('');
const CACHED_NAME_MAX = 32;

/** The text of well-formed UTF-8 in `bytes` from `from` to `to`. */
export function textOf(bytes: Uint8Array, from: number, to: number): string {
  if (to - from > SHORT_STRING) return utf8Slice.call(bytes, from, to);
  for (let at = from; at < to; at++) if (bytes[at]! >= 0x80) return utf8Slice.call(bytes, from, to);
  return latin1Slice.call(bytes, from, to);
}

/** The same, for names that are likely to have been seen before: no new string if so. */
export function nameOf(bytes: Uint8Array, from: number, to: number): string {
  const length = to - from;
  if (length === 0) return '';
  if (length > CACHED_NAME_MAX) return textOf(bytes, from, to);
  let hash = length;
  for (let at = from; at < to; at++) hash = (hash * 31 + bytes[at]!) | 0;
  const place = (hash ^ (hash >>> 10)) & (NAME_CACHE.length - 1);
  const known = NAME_CACHE[place]!;
  if (known.length === length) {
    let i = 0;
    while (i < length && bytes[from + i] === known.charCodeAt(i)) i++;
    if (i === length) return known;
  }
  const name = textOf(bytes, from, to);
  // Fewer characters than bytes: it is not ASCII, and could not be compared byte by byte.
  if (name.length !== length) return name;
  // The engine keeps one instance of each property name; as such it is found without hashing it again.
  return (NAME_CACHE[place] = Object.keys({ [name]: 0 })[0]!);
}

/** What `MsgpackReader.read` gives: a `Value` of read-store.ts. */
export type Decoded =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date
  | Decoded[]
  | { [member: string]: Decoded };

// Rough bytes that decoded values take in memory on a 64-bit machine.
const HEAP_STRING = 24;
const HEAP_NUMBER = 16;
const HEAP_BINARY = 144;
const HEAP_DATE = 96;
const HEAP_ARRAY = 40;
const HEAP_OBJECT = 56;
const HEAP_ELEMENT = 8;
const HEAP_MEMBER = 24;

const SCRATCH = new DataView(new ArrayBuffer(8));
const SCRATCH_BYTES = new Uint8Array(SCRATCH.buffer);

/**
 * Reads what the guard has passed, one value after the other, from offset `at`. `detached` values keep nothing
 * of `bytes` alive: binary is copied, and arrays and objects are frozen. Otherwise binary is a view.
 */
export class MsgpackReader {
  at: number;
  readonly bytes: Uint8Array;
  readonly #detached: boolean;
  /** Estimated memory of what was read, bytes. */
  heapBytes = 0;
  /** Whether something was read that cannot be frozen: binary or a Date. */
  mutable = false;

  constructor(bytes: Uint8Array, at: number, detached: boolean) {
    this.bytes = bytes;
    this.at = at;
    this.#detached = detached;
  }

  read(): Decoded {
    const byte = this.bytes[this.at++]!;
    if (byte < 0x80) return byte;
    if (byte < 0x90) return this.#object(byte & 0x0f);
    if (byte < 0xa0) return this.#array(byte & 0x0f);
    if (byte < 0xc0) return this.#text(byte & 0x1f);
    if (byte >= 0xe0) return byte - 0x100;
    switch (byte) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.length(1 << (byte - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.#array(this.length(2 << (byte - 0xdc)));
      case 0xde:
      case 0xdf:
        return this.#object(this.length(2 << (byte - 0xde)));
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#binary(this.length(1 << (byte - 0xc4)));
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.length(1 << (byte - 0xc7)));
      default:
        return byte >= 0xd4 ? this.#extension(1 << (byte - 0xd4)) : this.#number(byte);
    }
  }

  /** Big-endian, of 1, 2 or 4 bytes. */
  length(size: number): number {
    let value = this.bytes[this.at++]!;
    for (let i = 1; i < size; i++) value = value * 256 + this.bytes[this.at++]!;
    return value;
  }

  #number(byte: number): number | bigint {
    this.heapBytes += HEAP_NUMBER;
    switch (byte) {
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.length(1 << (byte - 0xcc));
      case 0xd0:
        return (this.length(1) << 24) >> 24;
      case 0xd1:
        return (this.length(2) << 16) >> 16;
      case 0xd2:
        return this.length(4) | 0;
      case 0xca:
        return this.#scratch(4).getFloat32(0);
      case 0xcb:
        return this.#scratch(8).getFloat64(0);
      case 0xcf:
        return this.#scratch(8).getBigUint64(0);
      default:
        return this.#scratch(8).getBigInt64(0);
    }
  }

  /** The next bytes, for conversion. A view of the whole would have to be made anew for each value. */
  #scratch(count: number): DataView {
    for (let i = 0; i < count; i++) SCRATCH_BYTES[i] = this.bytes[this.at++]!;
    return SCRATCH;
  }

  #text(length: number): string {
    const from = this.at;
    this.at += length;
    this.heapBytes += HEAP_STRING + length;
    return textOf(this.bytes, from, this.at);
  }

  #binary(length: number): Uint8Array {
    const from = this.at;
    this.at += length;
    this.heapBytes += HEAP_BINARY + length;
    this.mutable = true;
    const view = new Uint8Array(this.bytes.buffer, this.bytes.byteOffset + from, length);
    return this.#detached ? view.slice() : view;
  }

  #array(length: number): Decoded[] {
    const out = new Array<Decoded>(length);
    this.heapBytes += HEAP_ARRAY + length * HEAP_ELEMENT;
    for (let i = 0; i < length; i++) out[i] = this.read();
    return this.#detached ? (Object.freeze(out) as Decoded[]) : out;
  }

  #object(members: number): { [member: string]: Decoded } {
    const out: { [member: string]: Decoded } = {};
    this.heapBytes += HEAP_OBJECT + members * HEAP_MEMBER;
    for (let i = 0; i < members; i++) {
      const byte = this.bytes[this.at++]!;
      const length = byte < 0xc0 ? byte & 0x1f : this.length(1 << (byte - 0xd9));
      const from = this.at;
      this.at += length;
      const name = nameOf(this.bytes, from, this.at);
      out[name] = this.read();
    }
    return this.#detached ? Object.freeze(out) : out;
  }

  #extension(length: number): bigint | Date {
    if (this.bytes[this.at++] === EXT_BIGINT) {
      const from = this.at;
      this.at += length;
      this.heapBytes += HEAP_STRING + length;
      return bigintOf(this.bytes.subarray(from, this.at));
    }
    this.heapBytes += HEAP_DATE;
    this.mutable = true;
    return new Date(this.#timestamp(length));
  }

  #timestamp(length: number): number {
    if (length === 4) return this.length(4) * 1_000;
    const first = this.length(4);
    const [nanos, seconds] =
      length === 8
        ? [first >>> 2, (first & 3) * 0x1_0000_0000 + this.length(4)]
        : [first, Number(this.#scratch(8).getBigInt64(0))];
    return seconds * 1_000 + Math.floor(nanos / 1_000_000);
  }
}

function bigintOf(digits: Uint8Array): bigint {
  const hex = (bytes: Uint8Array): bigint =>
    BigInt(`0x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`);
  return digits[0]! < 0x80 ? hex(digits) : ~hex(digits.map((digit) => ~digit));
}

/**
 * Any one msgpack value from outside, guarded, then decoded; binary comes out as views into `bytes`. Throws
 * `code` (default PROTOCOL_ERROR). Integers of 64 bits are bigints.
 */
export function unpack(bytes: Uint8Array, limits?: MsgpackLimits, code?: ErrorCode): Decoded {
  guardMsgpack(bytes, 0, bytes.length, limits, code);
  return new MsgpackReader(bytes, 0, false).read();
}
