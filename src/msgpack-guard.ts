/**
 * Proves that bytes from outside are one well-formed msgpack value of the kinds this project writes, without
 * building anything: one pass over the headers, no allocation. A reader that runs after it (frame-reader.ts)
 * needs no bounds checks of its own.
 *
 * What passes: null, booleans, integers, floats, strings of well-formed UTF-8, binary, arrays, maps whose
 * members are strings other than `__proto__`, and three extensions: -1 (timestamp within the range of a Date),
 * 0x42 (an integer of any size, two's complement, big-endian) and 0x01 (text that begins with U+FEFF). What does
 * not: anything before or after the value, a length that runs past the end, the unused byte 0xc1, every other
 * extension, nesting or element counts above the limits. A decoder may allocate several times the bytes it reads
 * (an empty map of one byte is an object); the limit of elements is what bounds that.
 */
import { isUtf8 } from 'node:buffer';
import { type ErrorCode, ReadmeshError } from './errors.js';

export interface MsgpackLimits {
  /** Levels of nesting. Default 128, which is also the most that is ever allowed. */
  readonly depthMax?: number;
  /** Values of all levels, map members included. Default 262,144. */
  readonly elementsMax?: number;
}

export const MSGPACK_DEPTH_MAX = 128;
export const MSGPACK_ELEMENTS_MAX = 262_144;
export const EXT_TIMESTAMP = 0xff;
/** The number under which other msgpack libraries for JavaScript write bigints beyond 64 bits. */
export const EXT_BIGINT = 0x42;
/** Text that begins with U+FEFF (values.ts says why). */
export const EXT_TEXT = 0x01;

/** Seconds from 1970 to either end of what a Date can hold. */
export const DATE_SECONDS_MAX = 8_640_000_000_000;
const NANOS_PER_SECOND = 1_000_000_000;

// What a first byte says: the class of the value, how many bytes of length follow, and the length if none does.
const BAD = 0;
const SCALAR = 1;
const STR = 2;
const BIN = 3;
const ARRAY = 4;
const MAP = 5;
const EXT = 6;
const CLASS = new Uint8Array(256);
const LENGTH_BYTES = new Uint8Array(256);
const FIXED_LENGTH = new Uint8Array(256);

function fill(
  from: number,
  to: number,
  kind: number,
  lengthBytes: number,
  fixed: (byte: number) => number,
): void {
  for (let byte = from; byte <= to; byte++) {
    CLASS[byte] = kind;
    LENGTH_BYTES[byte] = lengthBytes;
    FIXED_LENGTH[byte] = fixed(byte);
  }
}
fill(0x00, 0x7f, SCALAR, 0, () => 0);
fill(0x80, 0x8f, MAP, 0, (byte) => byte & 0x0f);
fill(0x90, 0x9f, ARRAY, 0, (byte) => byte & 0x0f);
fill(0xa0, 0xbf, STR, 0, (byte) => byte & 0x1f);
fill(0xc0, 0xc0, SCALAR, 0, () => 0);
fill(0xc2, 0xc3, SCALAR, 0, () => 0);
for (let size = 0; size < 3; size++) {
  fill(0xc4 + size, 0xc4 + size, BIN, 1 << size, () => 0);
  fill(0xc7 + size, 0xc7 + size, EXT, 1 << size, () => 0);
  fill(0xd9 + size, 0xd9 + size, STR, 1 << size, () => 0);
}
fill(0xca, 0xcb, SCALAR, 0, (byte) => (byte === 0xca ? 4 : 8));
fill(0xcc, 0xcf, SCALAR, 0, (byte) => 1 << (byte - 0xcc));
fill(0xd0, 0xd3, SCALAR, 0, (byte) => 1 << (byte - 0xd0));
fill(0xd4, 0xd8, EXT, 0, (byte) => 1 << (byte - 0xd4));
fill(0xe0, 0xff, SCALAR, 0, () => 0);
fill(0xdc, 0xdd, ARRAY, 0, () => 0);
fill(0xde, 0xdf, MAP, 0, () => 0);
for (let size = 1; size < 3; size++) LENGTH_BYTES[0xdb + size] = LENGTH_BYTES[0xdd + size] = 1 << size;

/** `__proto__`, whose assignment would change what an object is. */
const PROTO = Uint8Array.from('__proto__', (letter) => letter.charCodeAt(0));
/** Longer strings are cheaper to check in one native call. */
const SHORT_STRING = 64;

// Containers that are open at the moment: elements still to come, and whether they are a map's. The walk never
// calls out, so that one pair serves every call.
const left = new Float64Array(MSGPACK_DEPTH_MAX);
const inMap = new Uint8Array(MSGPACK_DEPTH_MAX);

/**
 * Returns if `bytes` from `from` to `to` (default: all) hold exactly one acceptable value.
 * Throws `code` (default PROTOCOL_ERROR) with the offset and the reason.
 */
export function guardMsgpack(
  bytes: Uint8Array,
  from = 0,
  to = bytes.length,
  limits: MsgpackLimits = {},
  code: ErrorCode = 'PROTOCOL_ERROR',
): void {
  const depthMax = Math.min(limits.depthMax ?? MSGPACK_DEPTH_MAX, MSGPACK_DEPTH_MAX);
  let elementsLeft = limits.elementsMax ?? MSGPACK_ELEMENTS_MAX;
  let depth = 0;
  let at = from;
  do {
    if (at >= to) refuse(code, at, 'it is cut short');
    if (--elementsLeft < 0) refuse(code, at, 'it holds too many elements: split it');
    const start = at;
    const byte = bytes[at++]!;
    const kind = CLASS[byte]!;
    const lengthBytes = LENGTH_BYTES[byte]!;
    let length = FIXED_LENGTH[byte]!;
    if (lengthBytes !== 0) {
      if (to - at < lengthBytes) refuse(code, start, 'a length is cut short');
      length = bytes[at++]!;
      for (let i = 1; i < lengthBytes; i++) length = length * 256 + bytes[at++]!;
    }
    const isMember = depth > 0 && inMap[depth - 1] === 1 && left[depth - 1]! % 2 === 0;
    if (isMember && kind !== STR) refuse(code, start, 'a map member is not a string');
    if (kind === ARRAY || kind === MAP) {
      const elements = kind === MAP ? length * 2 : length;
      if (elements > to - at) refuse(code, start, 'it claims more elements than there are bytes');
      if (depth >= depthMax) refuse(code, start, `it is nested deeper than ${depthMax} levels`);
      left[depth] = elements;
      inMap[depth] = kind === MAP ? 1 : 0;
      depth++;
    } else {
      if (kind === EXT) length++;
      if (length > to - at) refuse(code, start, 'it claims more bytes than there are');
      if (kind === STR) checkString(bytes, at, length, code);
      else if (kind === EXT) checkExtension(bytes, at, length - 1, code);
      else if (kind === BAD) refuse(code, start, 'it holds the unused byte 0xc1');
      if (isMember && length === PROTO.length && isProto(bytes, at))
        refuse(code, start, 'it has a member named __proto__: rename it');
      at += length;
      if (depth > 0) left[depth - 1]!--;
    }
    while (depth > 0 && left[depth - 1] === 0) if (--depth > 0) left[depth - 1]!--;
  } while (depth > 0);
  if (at !== to) refuse(code, at, 'something follows the value');
}

function refuse(code: ErrorCode, at: number, why: string): never {
  throw new ReadmeshError(code, `not an acceptable msgpack value (byte ${at}): ${why}`);
}

function checkString(bytes: Uint8Array, from: number, length: number, code: ErrorCode): void {
  if (length <= SHORT_STRING) {
    const to = from + length;
    let at = from;
    while (at < to && bytes[at]! < 0x80) at++;
    if (at === to) return;
  }
  if (!isUtf8(bytes.subarray(from, from + length))) refuse(code, from, 'a string is not well-formed UTF-8');
}

function isProto(bytes: Uint8Array, from: number): boolean {
  for (let i = 0; i < PROTO.length; i++) if (bytes[from + i] !== PROTO[i]) return false;
  return true;
}

/** `from` is the extension's type byte; `length` that of what follows it. */
function checkExtension(bytes: Uint8Array, from: number, length: number, code: ErrorCode): void {
  const type = bytes[from]!;
  if (type === EXT_BIGINT) {
    if (length === 0) refuse(code, from, 'an integer has no bytes');
  } else if (type === EXT_TEXT) {
    if (!isUtf8(bytes.subarray(from + 1, from + 1 + length)))
      refuse(code, from, 'a string is not well-formed UTF-8');
  } else if (type !== EXT_TIMESTAMP) {
    refuse(code, from, `extension ${type > 127 ? type - 256 : type} is not known`);
  } else if (!isTimestamp(bytes, from + 1, length)) {
    refuse(code, from, 'a timestamp is malformed, or beyond what a Date holds');
  }
}

function isTimestamp(bytes: Uint8Array, from: number, length: number): boolean {
  if (length === 4) return true;
  if (length !== 8 && length !== 12) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset + from, length);
  const nanos = length === 8 ? view.getUint32(0) >>> 2 : view.getUint32(0);
  if (nanos >= NANOS_PER_SECOND) return false;
  if (length === 8) return true;
  const seconds = view.getBigInt64(4);
  // The last second counts only whole: a Date ends exactly there.
  return seconds >= -DATE_SECONDS_MAX && seconds + (nanos === 0 ? 0n : 1n) <= DATE_SECONDS_MAX;
}
