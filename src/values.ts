/**
 * Values and their bytes. A value is encoded once, at its origin; the same bytes then travel, lie on disk and
 * are hashed, and each reader decodes them for itself.
 *
 * Carried exactly: null, booleans, numbers (NaN, the infinities and -0 included), bigints of any size, strings,
 * binary (any Uint8Array; comes back as a Uint8Array), Dates, arrays, plain objects (also those without a
 * prototype; they come back with the usual one). Everything else is refused rather than bent: undefined and
 * holes, functions, symbols, instances of classes (Map, Set, RegExp, Error, boxed primitives, ...), invalid
 * Dates, lone surrogates, members named `__proto__` or by a symbol, cycles. `toJSON` methods are not asked, since functions
 * are no values.
 */
import { isDate, isUint8Array } from 'node:util/types';
import { valueOffset } from './core/entry.js';
import type { Row } from './core/types.js';
import { isReadmeshError, ReadmeshError } from './errors.js';
import { guardMsgpack, MSGPACK_DEPTH_MAX, MSGPACK_ELEMENTS_MAX } from './msgpack-guard.js';
import { MsgpackReader, textOf } from './msgpack-reader.js';
import { MsgpackWriter } from './msgpack-writer.js';
import { CLUSTER_DEFAULTS } from './options.js';
import type { Value } from './read-store.js';

/** Levels of arrays and objects within each other. */
export const VALUE_DEPTH_MAX = MSGPACK_DEPTH_MAX;
/** Elements and members of all levels; a member counts twice, with its name. */
export const VALUE_ELEMENTS_MAX = MSGPACK_ELEMENTS_MAX;

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
        if (!this.#writer.str(value)) this.#refuse(depth, 'holds a lone surrogate: use well-formed Unicode');
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
 * copied; nothing of it keeps `bytes` alive. Throws INVALID_VALUE if the bytes are not a value.
 */
export function decodeValue(bytes: Uint8Array, from = 0, to = bytes.length): Value {
  return plainText(bytes, from, to) ?? decode(bytes, from, to).read();
}

/** The value of a live row. `key` is named in the error if its bytes are not a value (INVALID_VALUE). */
export function decodeRow(key: string, row: Row): DecodedValue {
  const from = valueOffset(row);
  const text = plainText(row, from, row.length);
  if (text !== undefined) return { value: text, isShareable: true, heapBytes: text.length + 24 };
  try {
    const reader = decode(row, from, row.length);
    const value = reader.read();
    return { value, isShareable: !reader.mutable, heapBytes: reader.heapBytes };
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

function decode(bytes: Uint8Array, from: number, to: number): MsgpackReader {
  guardMsgpack(bytes, from, to, undefined, 'INVALID_VALUE');
  return new MsgpackReader(bytes, from, true);
}
