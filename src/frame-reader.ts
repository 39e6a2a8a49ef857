/**
 * Reads the fields of a frame in their fixed order, each as exactly what it must be, and refuses anything else
 * with PROTOCOL_ERROR, which names the field. The guard has proved beforehand that the frame is well-formed
 * msgpack, so that no bounds are checked here: reading one element too many cannot happen while the caller
 * compares the counts of arrays first, which `array` makes it do.
 */
import { ReadmeshError } from './errors.js';
import { nameOf, textOf } from './wire-text.js';

const HEX = /^[0-9a-f]*$/;

export class FrameReader {
  readonly bytes: Uint8Array;
  at = 0;
  /** What is being read, for errors. */
  what = 'frame';

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  fail(field: string, why: string): never {
    throw new ReadmeshError('PROTOCOL_ERROR', `bad ${this.what}: ${field} ${why}`);
  }

  /** Number of elements, at most `lengthMax`; a multiple of `each`. */
  array(field: string, lengthMax: number, each = 1): number {
    const byte = this.bytes[this.at++]!;
    let length: number;
    if (byte >= 0x90 && byte < 0xa0) length = byte & 0x0f;
    else if (byte === 0xdc || byte === 0xdd) length = this.#big(byte === 0xdc ? 2 : 4);
    else return this.fail(field, 'is not an array');
    if (length > lengthMax * each) this.fail(field, `has more than ${lengthMax} entries`);
    if (length % each !== 0) this.fail(field, 'holds an incomplete entry');
    return length / each;
  }

  /** An integer from 0 to `max` (default: 2^53 - 1). Floats are refused, even those that are whole. */
  uint(field: string, max: number = Number.MAX_SAFE_INTEGER): number {
    const byte = this.bytes[this.at++]!;
    if (byte < 0x80 && byte <= max) return byte;
    if (byte < 0xcc || byte > 0xcf) return this.fail(field, `is not an integer from 0 to ${max}`);
    const value = byte === 0xcf ? this.#big(4) * 0x1_0000_0000 + this.#big(4) : this.#big(1 << (byte - 0xcc));
    return value <= max ? value : this.fail(field, `is not an integer from 0 to ${max}`);
  }

  bool(field: string): boolean {
    const byte = this.bytes[this.at++]!;
    if (byte === 0xc3) return true;
    return byte === 0xc2 ? false : this.fail(field, 'is not a boolean');
  }

  /** Text of `bytesMin` to `bytesMax` bytes of UTF-8, which the guard has found well-formed. */
  str(field: string, bytesMin: number, bytesMax: number): string {
    const from = this.strFrom(field, bytesMin, bytesMax);
    return textOf(this.bytes, from, this.at);
  }

  /** Passes over a text as `str` reads it; returns where it begins. It ends at `at`. */
  strFrom(field: string, bytesMin: number, bytesMax: number): number {
    const length = this.#strLength(field, bytesMin, bytesMax);
    const from = this.at;
    this.at += length;
    return from;
  }

  strOrNil(field: string, bytesMin: number, bytesMax: number): string | null {
    if (this.bytes[this.at] !== 0xc0) return this.str(field, bytesMin, bytesMax);
    this.at++;
    return null;
  }

  /** Lower-case hex digits, `digits` of them; with `orEmpty`, possibly none. */
  hex(field: string, digits: number, orEmpty = false): string {
    const text = this.hexUpTo(field, digits);
    if (text.length === digits || (orEmpty && text === '')) return text;
    return this.fail(field, `is not ${digits} hex digits`);
  }

  hexUpTo(field: string, digitsMax: number): string {
    const length = this.#strLength(field, 0, digitsMax);
    const from = this.at;
    this.at += length;
    const text = nameOf(this.bytes, from, this.at);
    return HEX.test(text) ? text : this.fail(field, 'is not lower-case hex');
  }

  /** A view into the frame, not a copy. */
  bin(field: string): Uint8Array {
    const byte = this.bytes[this.at++]!;
    if (byte < 0xc4 || byte > 0xc6) this.fail(field, 'is not binary');
    const length = this.#big(1 << (byte - 0xc4));
    const from = this.at;
    this.at += length;
    return new Uint8Array(this.bytes.buffer, this.bytes.byteOffset + from, length);
  }

  #strLength(field: string, bytesMin: number, bytesMax: number): number {
    const byte = this.bytes[this.at++]!;
    let length: number;
    if (byte >= 0xa0 && byte < 0xc0) length = byte & 0x1f;
    else if (byte >= 0xd9 && byte <= 0xdb) length = this.#big(1 << (byte - 0xd9));
    else return this.fail(field, 'is not text');
    if (length < bytesMin || length > bytesMax)
      this.fail(field, `takes ${length} bytes, not ${bytesMin} to ${bytesMax}`);
    return length;
  }

  #big(size: number): number {
    let value = this.bytes[this.at++]!;
    for (let i = 1; i < size; i++) value = value * 256 + this.bytes[this.at++]!;
    return value;
  }
}
