/**
 * The digest of a set of entries: how many, and the sum modulo 2^128 of their hashes. Sums can be added and
 * subtracted, so that a set's digest follows its changes one by one, in any order, and sets can be cut apart
 * anywhere. Live entries are summed apart from mortal ones (tombstones, and entries with an expiry), since the
 * latter may be collected at one replica before another.
 */
import type { EntryDigest } from './entry-hash.js';

/** Hex digits of both sums: the first half is that of the live ones. */
export const SUM_DIGITS = 64;
/** Bytes of one digest: twice a count of 6 bytes and a sum of 16, big-endian. */
export const SUM_BYTES = 44;
const COUNT_RANGE = 2 ** 48;
const WORD_RANGE = 2 ** 32;

export class DigestSum {
  live = 0;
  mortal = 0;
  // Four words of each sum, the lowest first.
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 0;
  #e = 0;
  #f = 0;
  #g = 0;
  #h = 0;

  get count(): number {
    return this.live + this.mortal;
  }

  add({ a, b, c, d, mortal }: EntryDigest): void {
    if (mortal) {
      this.mortal += 1;
      this.#addMortal(a, b, c, d);
    } else {
      this.live += 1;
      this.#addLive(a, b, c, d);
    }
  }

  remove({ a, b, c, d, mortal }: EntryDigest): void {
    if (mortal) {
      this.mortal -= 1;
      this.#subtractMortal(a, b, c, d);
    } else {
      this.live -= 1;
      this.#subtractLive(a, b, c, d);
    }
  }

  addSum(other: DigestSum): void {
    this.live += other.live;
    this.mortal += other.mortal;
    this.#addLive(other.#a, other.#b, other.#c, other.#d);
    this.#addMortal(other.#e, other.#f, other.#g, other.#h);
  }

  subtractSum(other: DigestSum): void {
    this.live -= other.live;
    this.mortal -= other.mortal;
    this.#subtractLive(other.#a, other.#b, other.#c, other.#d);
    this.#subtractMortal(other.#e, other.#f, other.#g, other.#h);
  }

  /** `mortal` false: by the live entries alone. */
  equals(other: DigestSum, mortal = true): boolean {
    return (
      this.live === other.live &&
      this.#a === other.#a &&
      this.#b === other.#b &&
      this.#c === other.#c &&
      this.#d === other.#d &&
      (!mortal || this.#equalsMortal(other))
    );
  }

  #equalsMortal(other: DigestSum): boolean {
    return (
      this.mortal === other.mortal &&
      this.#e === other.#e &&
      this.#f === other.#f &&
      this.#g === other.#g &&
      this.#h === other.#h
    );
  }

  copy(): DigestSum {
    const out = new DigestSum();
    out.addSum(this);
    return out;
  }

  /** SUM_BYTES from `at` on. */
  write(into: Uint8Array, at = 0): void {
    writeCount(this.live, into, at);
    writeWords(into, at + 6, this.#d, this.#c, this.#b, this.#a);
    writeCount(this.mortal, into, at + 22);
    writeWords(into, at + 28, this.#h, this.#g, this.#f, this.#e);
  }

  static read(from: Uint8Array, at = 0): DigestSum {
    const out = new DigestSum();
    out.live = readCount(from, at);
    out.#d = readWord(from, at + 6);
    out.#c = readWord(from, at + 10);
    out.#b = readWord(from, at + 14);
    out.#a = readWord(from, at + 18);
    out.mortal = readCount(from, at + 22);
    out.#h = readWord(from, at + 28);
    out.#g = readWord(from, at + 32);
    out.#f = readWord(from, at + 36);
    out.#e = readWord(from, at + 40);
    return out;
  }

  bytes(): Uint8Array {
    const out = new Uint8Array(SUM_BYTES);
    this.write(out);
    return out;
  }

  /** Both sums as text: `SUM_DIGITS` hex digits. */
  get hex(): string {
    const words = [this.#d, this.#c, this.#b, this.#a, this.#h, this.#g, this.#f, this.#e];
    return words.map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
  }

  #addLive(a: number, b: number, c: number, d: number): void {
    let sum = (this.#a >>> 0) + (a >>> 0);
    this.#a = sum | 0;
    sum = (this.#b >>> 0) + (b >>> 0) + (sum >= WORD_RANGE ? 1 : 0);
    this.#b = sum | 0;
    sum = (this.#c >>> 0) + (c >>> 0) + (sum >= WORD_RANGE ? 1 : 0);
    this.#c = sum | 0;
    this.#d = (this.#d + d + (sum >= WORD_RANGE ? 1 : 0)) | 0;
  }

  #subtractLive(a: number, b: number, c: number, d: number): void {
    let difference = (this.#a >>> 0) - (a >>> 0);
    this.#a = difference | 0;
    difference = (this.#b >>> 0) - (b >>> 0) - (difference < 0 ? 1 : 0);
    this.#b = difference | 0;
    difference = (this.#c >>> 0) - (c >>> 0) - (difference < 0 ? 1 : 0);
    this.#c = difference | 0;
    this.#d = (this.#d - d - (difference < 0 ? 1 : 0)) | 0;
  }

  #addMortal(a: number, b: number, c: number, d: number): void {
    let sum = (this.#e >>> 0) + (a >>> 0);
    this.#e = sum | 0;
    sum = (this.#f >>> 0) + (b >>> 0) + (sum >= WORD_RANGE ? 1 : 0);
    this.#f = sum | 0;
    sum = (this.#g >>> 0) + (c >>> 0) + (sum >= WORD_RANGE ? 1 : 0);
    this.#g = sum | 0;
    this.#h = (this.#h + d + (sum >= WORD_RANGE ? 1 : 0)) | 0;
  }

  #subtractMortal(a: number, b: number, c: number, d: number): void {
    let difference = (this.#e >>> 0) - (a >>> 0);
    this.#e = difference | 0;
    difference = (this.#f >>> 0) - (b >>> 0) - (difference < 0 ? 1 : 0);
    this.#f = difference | 0;
    difference = (this.#g >>> 0) - (c >>> 0) - (difference < 0 ? 1 : 0);
    this.#g = difference | 0;
    this.#h = (this.#h - d - (difference < 0 ? 1 : 0)) | 0;
  }
}

/** A count may be negative for a while: of an entry that was replaced and could not be read. */
function writeCount(count: number, into: Uint8Array, at: number): void {
  const value = count < 0 ? count + COUNT_RANGE : count;
  const high = Math.floor(value / WORD_RANGE);
  into[at] = high >>> 8;
  into[at + 1] = high;
  writeWord(value | 0, into, at + 2);
}

function readCount(from: Uint8Array, at: number): number {
  const value = ((from[at]! << 8) | from[at + 1]!) * WORD_RANGE + (readWord(from, at + 2) >>> 0);
  return value >= COUNT_RANGE / 2 ? value - COUNT_RANGE : value;
}

function writeWords(into: Uint8Array, at: number, ...values: readonly number[]): void {
  for (let i = 0; i < values.length; i++) writeWord(values[i]!, into, at + 4 * i);
}

function writeWord(value: number, into: Uint8Array, at: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

function readWord(from: Uint8Array, at: number): number {
  return (from[at]! << 24) | (from[at + 1]! << 16) | (from[at + 2]! << 8) | from[at + 3]!;
}
