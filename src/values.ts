/**
 * Values and their bytes. A value is encoded once, at its origin; the same bytes then travel, lie on disk and
 * are hashed, and each reader decodes them for itself.
 *
 * Carried exactly: null, booleans, numbers (NaN, the infinities and -0 included), bigints of any size, strings,
 * binary (any Uint8Array; comes back as a Uint8Array), Dates, arrays, plain objects (also those without a
 * prototype; they come back with the usual one). Everything else is refused rather than bent: undefined and
 * holes, functions, symbols, instances of classes (Map, Set, RegExp, Error, boxed primitives, ...), invalid
 * Dates, lone surrogates, members named `__proto__`, by a symbol, or with a leading U+FEFF, cycles. `toJSON`
 * methods are not asked, since functions are no values.
 *
 * msgpackr decodes, after msgpack-guard.ts has proved the structure; it does not encode, since it turns -0 into
 * 0, asks a member called `toJSON` as if it were a method, and carries lone surrogates as something else without
 * a word (msgpack-writer.ts refuses in the pass that writes). Its decoder drops a leading U+FEFF from long
 * strings, so those are written as an extension of our own.
 */
import { isDate, isUint8Array } from 'node:util/types';
import { addExtension, Unpackr } from 'msgpackr/index-no-eval';
import { valueOffset } from './core/entry.js';
import type { Row } from './core/types.js';
import { isReadmeshError, ReadmeshError } from './errors.js';
import { EXT_TEXT, guardMsgpack, MSGPACK_DEPTH_MAX, MSGPACK_ELEMENTS_MAX } from './msgpack-guard.js';
import { MsgpackWriter } from './msgpack-writer.js';
import { CLUSTER_DEFAULTS } from './options.js';
import type { Value } from './read-store.js';
import { textOf } from './wire-text.js';

/** Levels of arrays and objects within each other. */
export const VALUE_DEPTH_MAX = MSGPACK_DEPTH_MAX;
/** Elements and members of all levels; a member counts twice, with its name. */
export const VALUE_ELEMENTS_MAX = MSGPACK_ELEMENTS_MAX;

const BYTE_ORDER_MARK = 0xfeff;

const tooLarge = (bytesMax: number): ReadmeshError =>
  new ReadmeshError(
    'VALUE_TOO_LARGE',
    `the value takes more than ${bytesMax} bytes: split it over several keys`,
  );

/** One walk over a value, which checks it and writes it at once. */
class ValueEncoder {
  readonly #writer = new MsgpackWriter(tooLarge);
  /** Members and indices from the value down to where the walk is. */
  readonly #path = new Array<string | number>(VALUE_DEPTH_MAX);
  #elementsLeft = 0;
  /** A getter of the value that is being encoded may encode another one. */
  busy = false;

  encode(value: Value, bytesMax: number): Uint8Array {
    this.#writer.start(bytesMax);
    this.#elementsLeft = VALUE_ELEMENTS_MAX;
    this.busy = true;
    try {
      this.#any(value, 0);
      return this.#writer.take();
    } finally {
      this.busy = false;
    }
  }

  #any(value: unknown, depth: number): void {
    if (--this.#elementsLeft < 0)
      this.#refuse(
        depth,
        `is one of more than ${VALUE_ELEMENTS_MAX} elements: split the value over several keys`,
      );
    switch (typeof value) {
      case 'string':
        if (!this.#text(value)) this.#refuse(depth, 'holds a lone surrogate: use well-formed Unicode');
        return;
      case 'number':
        return this.#writer.number(value);
      case 'boolean':
        return this.#writer.bool(value);
      case 'bigint':
        return this.#writer.bigint(value);
      case 'object':
        return value === null ? this.#writer.nil() : this.#object(value, depth);
      case 'undefined':
        return this.#refuse(depth, 'is undefined: use null, or leave it out');
      default:
        return this.#refuse(depth, `is a ${typeof value}, which cannot be stored`);
    }
  }

  #text(value: string): boolean {
    return value.charCodeAt(0) === BYTE_ORDER_MARK
      ? this.#writer.textExtension(value)
      : this.#writer.str(value);
  }

  #object(value: object, depth: number): void {
    if (Array.isArray(value) && isArrayPrototype(Object.getPrototypeOf(value))) {
      this.#enter(depth);
      // Read once: a getter within may change it.
      const { length } = value;
      this.#writer.array(length);
      for (let i = 0; i < length; i++) {
        this.#path[depth] = i;
        this.#any(value[i], depth + 1);
      }
    } else if (isPlainObject(value)) {
      this.#enter(depth);
      this.#members(value as Record<string, unknown>, depth);
    } else if (isUint8Array(value)) {
      this.#writer.bin(value);
    } else if (isDate(value)) {
      const ms = Date.prototype.getTime.call(value);
      if (Number.isNaN(ms)) this.#refuse(depth, 'is an invalid Date');
      this.#writer.timestamp(ms);
    } else {
      this.#refuse(depth, `is ${describe(value)}: store a plain object, an array or binary instead`);
    }
  }

  #members(value: Record<string, unknown>, depth: number): void {
    const names = Object.keys(value);
    if (Object.getOwnPropertySymbols(value).length > 0) this.#refuse(depth, 'has a member named by a symbol');
    this.#writer.map(names.length);
    this.#elementsLeft -= names.length;
    for (let i = 0; i < names.length; i++) {
      const name = names[i]!;
      this.#path[depth] = name;
      if (name === '__proto__') this.#refuse(depth + 1, 'is a member named __proto__: rename it');
      if (name.charCodeAt(0) === BYTE_ORDER_MARK)
        this.#refuse(depth + 1, 'is a member whose name begins with U+FEFF: rename it');
      if (!this.#writer.str(name))
        this.#refuse(depth + 1, 'is a member whose name holds a lone surrogate: use well-formed Unicode');
      this.#any(value[name], depth + 1);
    }
  }

  #enter(depth: number): void {
    if (depth >= VALUE_DEPTH_MAX)
      this.#refuse(0, `is nested deeper than ${VALUE_DEPTH_MAX} levels, or contains itself`);
  }

  #refuse(depth: number, why: string): never {
    throw new ReadmeshError('INVALID_VALUE', `${pathText(this.#path.slice(0, depth))} ${why}`);
  }
}

/** `value.a[3]["b c"]`, cut to a length that fits a line. */
export function pathText(path: readonly (string | number)[]): string {
  let text = 'value';
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`;
    else text += /^[A-Za-z_][A-Za-z0-9_]*$/.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
    if (text.length > 200) return `${text.slice(0, 200)}...`;
  }
  return text;
}

/** Of this or of another realm: in each of them the prototype of arrays is an array itself. */
function isArrayPrototype(prototype: unknown): boolean {
  return prototype === Array.prototype || Array.isArray(prototype);
}

/** Whether an object is no instance of a class: `{}`, from whatever realm, or without a prototype. */
export function isPlainObject(value: object): boolean {
  const prototype: object | null = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return true;
  return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'isPrototypeOf');
}

function describe(value: object): string {
  const name: unknown = value.constructor?.name;
  return typeof name === 'string' && name !== ''
    ? `an instance of ${name.slice(0, 64)}`
    : 'an instance of a class';
}

const shared = new ValueEncoder();

/**
 * The msgpack bytes of a value, as bytes of their own.
 * Throws INVALID_VALUE, which names the place and the reason; VALUE_TOO_LARGE above `bytesMax` (default 1 MiB).
 */
export function encodeValue(value: Value, bytesMax: number = CLUSTER_DEFAULTS.valueBytesMax): Uint8Array {
  return (shared.busy ? new ValueEncoder() : shared).encode(value, bytesMax);
}

export interface DecodedValue {
  readonly value: Value;
  /**
   * True if nothing in it can be changed, so that one decoded instance may be handed to many readers. Binary
   * and Dates cannot be frozen: decode those anew for each reader.
   */
  readonly isShareable: boolean;
  /** Estimated memory that the decoded value takes, bytes. */
  readonly heapBytes: number;
}

/** Strings up to this length need no guard of their own: the check is one loop. */
const PLAIN_TEXT_MAX = 31;

/**
 * The value in `bytes` from `from` to `to` (default: their end). Objects and arrays are deeply frozen; binary is
 * copied; nothing of it keeps `bytes` alive. Throws UNREADABLE if the bytes are not a value.
 */
export function decodeValue(bytes: Uint8Array, from = 0, to = bytes.length): Value {
  return plainText(bytes, from, to) ?? decode(bytes, from, to).value;
}

/** The value of a live row. `key` is named in the error if its bytes are not a value (UNREADABLE). */
export function decodeRow(key: string, row: Row): DecodedValue {
  const from = valueOffset(row);
  const text = plainText(row, from, row.length);
  if (text !== undefined) return { value: text, isShareable: true, heapBytes: text.length + HEAP_SCALAR };
  try {
    return decode(row, from, row.length);
  } catch (error) {
    if (!isReadmeshError(error)) throw error;
    throw new ReadmeshError(
      error.code,
      `the value of key ${JSON.stringify(key)} cannot be read: ${error.message}`,
      {
        cause: error,
        details: { key },
      },
    );
  }
}

/** The shortcut for the commonest values of all: short ASCII strings. Undefined: not one of those. */
function plainText(bytes: Uint8Array, from: number, to: number): string | undefined {
  const length = to - from - 1;
  if (length < 0 || length > PLAIN_TEXT_MAX || bytes[from] !== (0xa0 | length)) return undefined;
  for (let at = from + 1; at < to; at++) if (bytes[at]! >= 0x80) return undefined;
  return textOf(bytes, from + 1, to);
}

// Rough bytes that decoded values take in memory on a 64-bit machine.
const HEAP_SCALAR = 24;
const HEAP_BINARY = 144;
const HEAP_DATE = 96;
const HEAP_OBJECT = 56;
const HEAP_SLOT = 24;

/** Freezes what was decoded, all the way down, copies its binary, and takes its measure. */
class Settling {
  heapBytes = 0;
  mutable = false;

  settle(value: Value): Value {
    if (typeof value === 'string') this.heapBytes += HEAP_SCALAR + value.length;
    else if (typeof value !== 'object' || value === null) this.heapBytes += HEAP_SCALAR;
    else if (isUint8Array(value)) return this.#binary(value);
    else if (isDate(value)) {
      this.heapBytes += HEAP_DATE;
      this.mutable = true;
    } else this.#container(value as Value[] | Record<string, Value>);
    return value;
  }

  /** Binary is a view into the bytes that were decoded until it is copied here. */
  #binary(value: Uint8Array): Uint8Array {
    this.heapBytes += HEAP_BINARY + value.length;
    this.mutable = true;
    return new Uint8Array(value);
  }

  #container(value: Value[] | Record<string, Value>): void {
    this.heapBytes += HEAP_OBJECT;
    if (Array.isArray(value)) for (let i = 0; i < value.length; i++) this.#slot(value, i);
    else for (const name of Object.keys(value)) this.#slot(value, name);
    Object.freeze(value);
  }

  #slot<Place extends string | number>(holder: Record<Place, Value>, place: Place): void {
    this.heapBytes += HEAP_SLOT;
    const held = holder[place];
    const settled = this.settle(held);
    if (settled !== held) holder[place] = settled;
  }
}

class MarkedText {}
addExtension({
  Class: MarkedText,
  type: EXT_TEXT,
  // A string, not an instance of a class; the class and `pack` are there because msgpackr asks for them.
  pack: () => Buffer.alloc(0),
  unpack: (bytes: Uint8Array) => textOf(bytes, 0, bytes.length) as unknown as MarkedText,
} as Parameters<typeof addExtension>[0]);

const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  useBigIntExtension: true,
});

function decode(bytes: Uint8Array, from: number, to: number): DecodedValue {
  guardMsgpack(bytes, from, to, undefined, 'UNREADABLE');
  const header = textHeader(bytes[from]!);
  if (header > 0) {
    const value = textOf(bytes, from + header, to);
    return { value, isShareable: true, heapBytes: HEAP_SCALAR + to - from };
  }
  const settling = new Settling();
  const view = Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from);
  const value = settling.settle(unpackr.unpack(view) as Value);
  return { value, isShareable: !settling.mutable, heapBytes: settling.heapBytes };
}

/** Bytes before the text of a value that is one string, and nothing but a string; 0 for any other value. */
function textHeader(first: number): number {
  if (first >= 0xa0 && first < 0xc0) return 1;
  return first >= 0xd9 && first <= 0xdb ? 1 + (1 << (first - 0xd9)) : 0;
}
