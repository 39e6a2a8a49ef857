/**
 * One entry in its canonical bytes, and the total order that decides every conflict.
 *
 *     offset  size  what
 *          0     4  checksum: crc32 of the bytes from 4 on, seeded with a hash of the key (checksum.ts)
 *          4     1  kind: 1 register, 2 tombstone; 3 is kept for the map; greater ones are unknown to us
 *          5     1  flags: bit 0 = an expiry follows; the others are kept as they came
 *          6    16  stamp: 48 bits of milliseconds, 16 bits of counter, 64 bits of writer
 *         22     8  dot: origin
 *         30     6  dot: sequence number
 *         36     8  expiry, milliseconds since 1970 (only with flag bit 0)
 *              ...  value bytes, as the writer encoded them
 *
 * Integers are big-endian, so that the order of bytes is the order of numbers. The checksum is last writer's
 * work: whoever makes a row seals it, nobody changes it after.
 *
 * The order (join): the greater stamp wins; of equal stamps the smaller (kind, expiry, value bytes) wins; of
 * entries equal in all that the smaller dot stays, which makes the join total. It is therefore commutative,
 * associative and idempotent for every pair of kinds, unknown ones included.
 */
import { ReadmeshError } from '../errors.js';
import type { Dot, OriginId, Row, StampHex } from './types.js';

export const KIND_REGISTER = 1;
export const KIND_TOMBSTONE = 2;

const FLAG_EXPIRY = 1;
const AT_KIND = 4;
const AT_FLAGS = 5;
export const AT_STAMP = 6;
const AT_ORIGIN = 22;
const AT_SEQ = 30;
const HEADER = 36;
const EXPIRY_BYTES = 8;

/** Longest key in bytes of UTF-8. */
export const KEY_BYTES_MAX = 1_024;
/** Bytes a row adds to its value. */
export const ROW_OVERHEAD_MAX = HEADER + EXPIRY_BYTES;

/** Computes the checksum of a row under its key. Injected, so that the core needs no native code. */
export type Checksum = (key: string, row: Row) => number;

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

export function toHex(bytes: Uint8Array, from: number, to: number): string {
  let out = '';
  let at = from;
  for (; at + 8 <= to; at += 8) out += hexOfEight(bytes, at);
  for (; at < to; at++) out += HEX[bytes[at]!];
  return out;
}

/** Units of the sixteen digits. */
const DIGITS = Uint8Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));

/** In one call: text that is put together two digits at a time is eight texts until somebody reads it. */
function hexOfEight(bytes: Uint8Array, at: number): string {
  const high = u32(bytes, at);
  const low = u32(bytes, at + 4);
  return String.fromCharCode(
    DIGITS[high >>> 28]!,
    DIGITS[(high >>> 24) & 15]!,
    DIGITS[(high >>> 20) & 15]!,
    DIGITS[(high >>> 16) & 15]!,
    DIGITS[(high >>> 12) & 15]!,
    DIGITS[(high >>> 8) & 15]!,
    DIGITS[(high >>> 4) & 15]!,
    DIGITS[high & 15]!,
    DIGITS[low >>> 28]!,
    DIGITS[(low >>> 24) & 15]!,
    DIGITS[(low >>> 20) & 15]!,
    DIGITS[(low >>> 16) & 15]!,
    DIGITS[(low >>> 12) & 15]!,
    DIGITS[(low >>> 8) & 15]!,
    DIGITS[(low >>> 4) & 15]!,
    DIGITS[low & 15]!,
  );
}

/** Of digits that are known to be hex. Each write of a client comes with a stamp: no strings are cut out here. */
export function writeHex(hex: string, into: Uint8Array, at: number): void {
  for (let i = 0; i < hex.length; i += 2)
    into[at + (i >> 1)] = (digitOf(hex.charCodeAt(i)) << 4) | digitOf(hex.charCodeAt(i + 1));
}

function digitOf(unit: number): number {
  // '0' to '9', or 'a' to 'f' of either case.
  return unit < 0x3a ? unit - 0x30 : (unit | 0x20) - 0x57;
}

/** Ids repeat in almost every row: the text and the bytes of those seen lately. */
const idTexts = new Map<number, Map<number, OriginId>>();
const idBytes = new Map<OriginId, Uint8Array>();
const IDS_CACHED_MAX = 4_096;

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** The id found last: rows come in runs of one origin. */
let lastHigh = -1;
let lastLow = -1;
let lastId: OriginId = '';

/** The 64-bit id at this place, as text. */
export function idAt(bytes: Uint8Array, at: number): OriginId {
  const high = u32(bytes, at);
  const low = u32(bytes, at + 4);
  if (high !== lastHigh || low !== lastLow) {
    lastId = idOf(high, low, bytes, at);
    lastHigh = high;
    lastLow = low;
  }
  return lastId;
}

function idOf(high: number, low: number, bytes: Uint8Array, at: number): OriginId {
  const known = idTexts.get(high)?.get(low);
  if (known !== undefined) return known;
  if (idTexts.size >= IDS_CACHED_MAX) idTexts.clear();
  const id = toHex(bytes, at, at + 8);
  const lows = idTexts.get(high) ?? new Map<number, OriginId>();
  idTexts.set(high, lows.set(low, id));
  return id;
}

/** Writes the 8 bytes of an id of 16 hex digits. */
export function writeId(id: OriginId, into: Uint8Array, at: number): void {
  let bytes = idBytes.get(id);
  if (bytes === undefined) {
    bytes = new Uint8Array(8);
    writeHex(id, bytes, 0);
    if (idBytes.size >= IDS_CACHED_MAX) idBytes.clear();
    idBytes.set(id, bytes);
  }
  for (let i = 0; i < 8; i++) into[at + i] = bytes[i]!;
}

export function originOf(row: Row): OriginId {
  return idAt(row, AT_ORIGIN);
}

export function seqOf(row: Row): number {
  return ((row[AT_SEQ]! << 8) | row[AT_SEQ + 1]!) * 0x1_0000_0000 + u32(row, AT_SEQ + 2);
}

export function dotOf(row: Row): Dot {
  return { origin: originOf(row), seq: seqOf(row) };
}

export function kindOf(row: Row): number {
  return row[AT_KIND]!;
}

export function isTombstone(row: Row): boolean {
  return row[AT_KIND] === KIND_TOMBSTONE;
}

/** The time last put into text, but for its last byte: stamps given together share it. */
let textMs = -1;
let textHigh = -1;
let timeText = '';

export function stampHexOf(row: Row): StampHex {
  return stampHexAt(row, AT_STAMP);
}

/** The stamp whose 16 bytes begin at this place. */
export function stampHexAt(bytes: Uint8Array, at: number): StampHex {
  const ms = msAt(bytes, at);
  const high = bytes[at + 6]!;
  if (ms !== textMs || high !== textHigh) {
    timeText = toHex(bytes, at, at + 7);
    textMs = ms;
    textHigh = high;
  }
  return timeText + HEX[bytes[at + 7]!]! + idAt(bytes, at + 8);
}

/** What a session remembers of a write. */
export function tokenOf(origin: OriginId, seq: number, stamp: StampHex): string {
  return `${origin}.${seq}.${stamp}`;
}

/** The stamp whose 16 bytes begin at this place, in its parts. */
export function stampAt(bytes: Uint8Array, at: number): StampParts {
  return {
    ms: msAt(bytes, at),
    counter: (bytes[at + 6]! << 8) | bytes[at + 7]!,
    writer: idAt(bytes, at + 8),
  };
}

function msAt(bytes: Uint8Array, at: number): number {
  return u32(bytes, at) * 0x1_0000 + ((bytes[at + 4]! << 8) | bytes[at + 5]!);
}

export function stampMsOf(row: Row): number {
  return msAt(row, AT_STAMP);
}

export function writerOf(row: Row): OriginId {
  return idAt(row, AT_STAMP + 8);
}

export function stampCounterOf(row: Row): number {
  return (row[AT_STAMP + 6]! << 8) | row[AT_STAMP + 7]!;
}

/** Milliseconds since 1970 at which the entry ends, or undefined. */
export function expiresAtOf(row: Row): number | undefined {
  if ((row[AT_FLAGS]! & FLAG_EXPIRY) === 0) return undefined;
  return u32(row, HEADER) * 0x1_0000_0000 + u32(row, HEADER + 4);
}

/** When the entry is over and nothing but a grave, ms since 1970: a deletion by its stamp, others with their expiry; undefined: never. */
export function endOf(row: Row): number | undefined {
  const expiresAt = expiresAtOf(row);
  if (expiresAt === undefined) return isTombstone(row) ? stampMsOf(row) : undefined;
  return Math.max(expiresAt, stampMsOf(row));
}

/** Whether garbage collection up to that time takes it. */
export function isOverBy(row: Row, ms: number): boolean {
  const end = endOf(row);
  return end !== undefined && end <= ms;
}

/** Offset of the value bytes in the row. */
export function valueOffset(row: Row): number {
  return (row[AT_FLAGS]! & FLAG_EXPIRY) === 0 ? HEADER : HEADER + EXPIRY_BYTES;
}

/** The checksum that the row claims. */
export function claimedChecksum(row: Row): number {
  return u32(row, 0);
}

export interface NewEntry {
  readonly kind: number;
  /** 16 bytes. */
  readonly stamp: Uint8Array;
  readonly origin: OriginId;
  readonly seq: number;
  readonly expiresAt?: number;
  readonly value: Uint8Array;
}

const NOTHING = new Uint8Array(0);
export const NO_VALUE: Uint8Array = NOTHING;

/** Builds and seals a row. */
export function makeRow(key: string, entry: NewEntry, checksum: Checksum): Row {
  const offset = entry.expiresAt === undefined ? HEADER : HEADER + EXPIRY_BYTES;
  const row = new Uint8Array(offset + entry.value.length);
  row[AT_KIND] = entry.kind;
  row[AT_FLAGS] = entry.expiresAt === undefined ? 0 : FLAG_EXPIRY;
  row.set(entry.stamp, AT_STAMP);
  writeId(entry.origin, row, AT_ORIGIN);
  writeSeq(entry.seq, row);
  if (entry.expiresAt !== undefined) {
    writeU32(row, HEADER, Math.floor(entry.expiresAt / 0x1_0000_0000));
    writeU32(row, HEADER + 4, entry.expiresAt >>> 0);
  }
  row.set(entry.value, offset);
  writeU32(row, 0, checksum(key, row));
  return row;
}

/** A stamp in its parts. */
export interface StampParts {
  readonly ms: number;
  readonly counter: number;
  readonly writer: OriginId;
}

/**
 * Rows are views into slabs: an array buffer of its own for each would be allocated, tracked and freed outside the
 * heap, which costs more than everything else about a small row. A row that is kept keeps its slab.
 */
const SLAB_BYTES = 32_768;
/** Larger rows get a buffer of their own. */
const SLAB_ROW_MAX = 1_024;
let slab = new ArrayBuffer(SLAB_BYTES);
let slabUsed = 0;

function allocateRow(bytes: number): Row {
  if (bytes > SLAB_ROW_MAX) return new Uint8Array(bytes);
  if (slabUsed + bytes > SLAB_BYTES) {
    slab = new ArrayBuffer(SLAB_BYTES);
    slabUsed = 0;
  }
  const row = new Uint8Array(slab, slabUsed, bytes);
  slabUsed += bytes;
  return row;
}

/** The same as `makeRow` for an entry without an expiry, without a stamp's bytes in between: the path of every local write. */
export function makeLocalRow(
  key: string,
  kind: number,
  stamp: StampParts,
  dot: Dot,
  value: Uint8Array,
  checksum: Checksum,
): Row {
  const row = allocateRow(HEADER + value.length);
  row[AT_KIND] = kind;
  writeStamp(stamp.ms, stamp.counter, stamp.writer, row, AT_STAMP);
  writeId(dot.origin, row, AT_ORIGIN);
  writeSeq(dot.seq, row);
  row.set(value, HEADER);
  writeU32(row, 0, checksum(key, row));
  return row;
}

/** The same for an entry that expires. */
export function makeMortalRow(
  key: string,
  stamp: StampParts,
  dot: Dot,
  expiresAt: number,
  value: Uint8Array,
  checksum: Checksum,
): Row {
  const bytes = new Uint8Array(AT_ORIGIN - AT_STAMP);
  writeStamp(stamp.ms, stamp.counter, stamp.writer, bytes, 0);
  return makeRow(key, { kind: KIND_REGISTER, stamp: bytes, ...dot, expiresAt, value }, checksum);
}

/** How a record that is gone without a tombstone shows to those who watch. */
export function asDeleted(key: string, row: Row, checksum: Checksum): Row {
  const { origin, seq } = dotOf(row);
  const stamp = row.subarray(AT_STAMP, AT_ORIGIN);
  return makeRow(key, { kind: KIND_TOMBSTONE, stamp, origin, seq, value: NOTHING }, checksum);
}

function writeSeq(seq: number, row: Uint8Array): void {
  const high = Math.floor(seq / 0x1_0000_0000);
  row[AT_SEQ] = high >>> 8;
  row[AT_SEQ + 1] = high;
  writeU32(row, AT_SEQ + 2, seq >>> 0);
}

/** Writes the 16 bytes of a stamp. */
export function writeStamp(
  ms: number,
  counter: number,
  writer: OriginId,
  into: Uint8Array,
  at: number,
): void {
  writeU32(into, at, Math.floor(ms / 0x1_0000));
  into[at + 4] = ms >>> 8;
  into[at + 5] = ms;
  into[at + 6] = counter >>> 8;
  into[at + 7] = counter;
  writeId(writer, into, at + 8);
}

function writeU32(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

/**
 * Refuses bytes that are not a row of ours before anything is merged: too short, kind 0, sequence number 0,
 * or a checksum that does not fit the key. Kinds that we do not know pass, and are stored and forwarded as
 * they came. Throws PROTOCOL_ERROR.
 */
export function assertRow(key: string, row: Row, checksum: Checksum): void {
  const why =
    row.length < HEADER || row.length < valueOffset(row)
      ? 'is too short'
      : row[AT_KIND] === 0
        ? 'has kind 0'
        : seqOf(row) === 0
          ? 'has sequence number 0'
          : claimedChecksum(row) !== checksum(key, row)
            ? 'has a bad checksum'
            : undefined;
  if (why !== undefined)
    throw new ReadmeshError('PROTOCOL_ERROR', `a record for key ${JSON.stringify(key)} ${why}`);
}

/** Whether it has the parts of a row; nothing is said about their contents. */
export function isWhole(row: Row): boolean {
  return row.length >= HEADER && row.length >= valueOffset(row);
}

export function compareBytes(
  a: Uint8Array,
  aFrom: number,
  aTo: number,
  b: Uint8Array,
  bFrom: number,
  bTo: number,
): number {
  const length = Math.min(aTo - aFrom, bTo - bFrom);
  for (let i = 0; i < length; i++) {
    const difference = a[aFrom + i]! - b[bFrom + i]!;
    if (difference !== 0) return difference;
  }
  return aTo - aFrom - (bTo - bFrom);
}

export function compareStamps(a: Row, b: Row): number {
  return compareBytes(a, AT_STAMP, AT_ORIGIN, b, AT_STAMP, AT_ORIGIN);
}

/** Positive: the content of `a` wins over that of `b`. 0: both say the same, whatever their dots. */
export function compareEntries(a: Row, b: Row): number {
  const stamps = compareStamps(a, b);
  if (stamps !== 0) return stamps;
  const kinds = b[AT_KIND]! - a[AT_KIND]!;
  if (kinds !== 0) return kinds;
  const expiries = (expiresAtOf(b) ?? 0) - (expiresAtOf(a) ?? 0);
  if (expiries !== 0) return expiries;
  return compareBytes(b, valueOffset(b), b.length, a, valueOffset(a), a.length);
}

/** Positive: `a` stays over `b`; 0 only for rows with equal content and equal dot. */
export function compareRows(a: Row, b: Row): number {
  const entries = compareEntries(a, b);
  return entries !== 0 ? entries : compareBytes(b, AT_ORIGIN, HEADER, a, AT_ORIGIN, HEADER);
}

export function join(a: Row, b: Row): Row {
  return compareRows(a, b) >= 0 ? a : b;
}

/** Length of a well-formed string in bytes of UTF-8, or -1 when it holds a lone surrogate. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) bytes += 1;
    else if (unit < 0x800) bytes += 2;
    else if (unit < 0xd800 || unit > 0xdfff) bytes += 3;
    else {
      const next = text.charCodeAt(i + 1);
      if (unit > 0xdbff || !(next >= 0xdc00 && next <= 0xdfff)) return -1;
      bytes += 4;
      i++;
    }
  }
  return bytes;
}

/** Throws INVALID_KEY unless the key is well-formed UTF-8 of 1 to 1,024 bytes. Returns its length in bytes. */
export function assertKey(key: unknown): number {
  if (typeof key !== 'string') throw new ReadmeshError('INVALID_KEY', `a key is a string, not ${typeof key}`);
  if (key.length === 0) throw new ReadmeshError('INVALID_KEY', 'a key has at least one character');
  const bytes = key.length > KEY_BYTES_MAX ? key.length : utf8Length(key);
  if (bytes === -1)
    throw new ReadmeshError('INVALID_KEY', 'the key holds a lone surrogate: use well-formed Unicode');
  if (bytes > KEY_BYTES_MAX)
    throw new ReadmeshError(
      'INVALID_KEY',
      `the key is longer than ${KEY_BYTES_MAX} bytes of UTF-8: shorten it`,
    );
  return bytes;
}
