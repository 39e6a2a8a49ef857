/**
 * JSON forms of values, for HTTP and the command line. JSON has no words for some of them, so they are written
 * as objects with one member whose name begins with `$`:
 *
 *     bigint               {"$bigint": "-12345678901234567890"}     (from 2^32768 on in hex: "-0x1f...")
 *     binary               {"$bytes": "<base64, padded>"}
 *     Date                 {"$date": "2024-05-06T07:08:09.123Z"}    (read: any ISO 8601 date, or time with its zone)
 *     NaN, infinities, -0  {"$number": "NaN" | "Infinity" | "-Infinity" | "-0"}
 *
 * An object that really has one member whose name begins with `$` is wrapped: `{"$literal": {"$price": 1}}`. The
 * member of the wrapped object may hold forms again. Everything else is plain JSON. What is written is read back
 * exactly.
 */
import { isDate, isUint8Array } from 'node:util/types';
import { ReadmeshError } from './errors.js';
import { jsonErrorPosition } from './json-position.js';
import type { Value } from './read-store.js';
import { isPlainObject, pathText, VALUE_DEPTH_MAX } from './values.js';
import { isWellFormed } from './wire-text.js';

type Json = null | boolean | number | string | Json[] | { [member: string]: Json };
type Path = (string | number)[];

const NUMBER_FORMS: Readonly<Record<string, number>> = {
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  '-Infinity': Number.NEGATIVE_INFINITY,
  '-0': -0,
};

const FORMS =
  '{"$bigint":"1"}, {"$bytes":"<base64>"}, {"$date":"<ISO 8601>"}, {"$number":"NaN"}, or {"$literal":{...}} around an object whose only member begins with $';

/** Decimal digits cost time that grows faster than their number, so that beyond these bits hex takes over. */
const DECIMAL_BITS_MAX = 32_768n;
/** Digits of 2^32768. */
const DECIMAL_DIGITS_MAX = 9_865;

/** The value as what `JSON.stringify` writes exactly. Throws INVALID_VALUE for what is no value. */
export function toJson(value: Value): unknown {
  return write(value, []);
}

/** The value as one line of JSON. Throws INVALID_VALUE for what is no value. */
export function stringifyValue(value: Value): string {
  return JSON.stringify(toJson(value));
}

/** The value that parsed JSON stands for. Throws INVALID_VALUE, which names the place and says how to write it. */
export function fromJson(json: unknown): Value {
  return read(json, []);
}

/** The value that a JSON text stands for. Throws INVALID_JSON with `details.position` (from 0), or INVALID_VALUE. */
export function parseValue(text: string): Value {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    const position = jsonErrorPosition(text);
    throw new ReadmeshError(
      'INVALID_JSON',
      `not JSON at position ${position}: ${whatIsThere(text, position)}`,
      {
        cause,
        details: { position },
      },
    );
  }
  return fromJson(json);
}

function whatIsThere(text: string, position: number): string {
  if (position === text.length) return 'it ends too soon';
  const hint = /['A-Za-z]/.test(text[position]!) ? '; a string needs double quotes around it' : '';
  return `unexpected ${JSON.stringify(text.slice(position, position + 16))}${hint}`;
}

function refuse(path: Path, why: string): never {
  throw new ReadmeshError('INVALID_VALUE', `${pathText(path)} ${why}`);
}

/** `path` is the way down to `value`, and is as it was when this returns. */
function write(value: unknown, path: Path): Json {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (Number.isFinite(value) && !Object.is(value, -0)) return value;
      return { $number: Object.is(value, -0) ? '-0' : String(value) };
    case 'bigint':
      return { $bigint: bigintText(value) };
    case 'object':
      return value === null ? null : writeObject(value, path);
    default:
      return refuse(path, `is ${typeof value}, which is no value`);
  }
}

function writeObject(value: object, path: Path): Json {
  if (Array.isArray(value)) return mapArray(value, path, write);
  if (isPlainObject(value)) {
    const out = mapMembers(value, path, write);
    return formName(out) === undefined ? out : { $literal: out };
  }
  if (isUint8Array(value))
    return { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64') };
  if (isDate(value) && !Number.isNaN(value.getTime())) return { $date: value.toISOString() };
  return refuse(path, 'is an invalid Date or an instance of a class, which is no value');
}

function bigintText(value: bigint): string {
  const magnitude = value < 0n ? -value : value;
  if (magnitude >> DECIMAL_BITS_MAX === 0n) return value.toString();
  return `${value < 0n ? '-' : ''}0x${magnitude.toString(16)}`;
}

function mapArray<T>(from: readonly unknown[], path: Path, map: (element: unknown, path: Path) => T): T[] {
  enter(path);
  const out: T[] = [];
  for (let i = 0; i < from.length; i++) {
    path.push(i);
    out.push(map(from[i], path));
    path.pop();
  }
  return out;
}

function mapMembers<T>(
  from: object,
  path: Path,
  map: (member: unknown, path: Path) => T,
): { [member: string]: T } {
  enter(path);
  const out: { [member: string]: T } = {};
  for (const [name, member] of Object.entries(from)) {
    path.push(name);
    if (name === '__proto__') refuse(path, 'is a member named __proto__: rename it');
    if (!isWellFormed(name))
      refuse(path, 'is a member whose name holds a lone surrogate: use well-formed Unicode');
    out[name] = map(member, path);
    path.pop();
  }
  return out;
}

function enter(path: Path): void {
  if (path.length >= VALUE_DEPTH_MAX) refuse([], `is nested deeper than ${VALUE_DEPTH_MAX} levels`);
}

/** The name of the only member, if it begins with `$`. */
function formName(json: object): string | undefined {
  let only: string | undefined;
  for (const name in json) {
    if (only !== undefined) return undefined;
    only = name;
  }
  return only?.startsWith('$') ? only : undefined;
}

function read(json: unknown, path: Path): Value {
  switch (typeof json) {
    case 'boolean':
      return json;
    case 'number':
      if (Number.isFinite(json)) return json;
      return refuse(path, 'is a number that JSON cannot carry: write {"$number":"NaN"} and the like');
    case 'string':
      if (isWellFormed(json)) return json;
      return refuse(path, 'holds a lone surrogate: use well-formed Unicode');
    case 'object':
      if (json === null) return null;
      if (Array.isArray(json)) return mapArray(json, path, read);
      if (!isPlainObject(json)) break;
      return formName(json) === undefined ? mapMembers(json, path, read) : readForm(json, path);
    default:
  }
  return refuse(path, 'is not JSON');
}

function readForm(json: object, path: Path): Value {
  const [name, content] = Object.entries(json)[0] as [string, unknown];
  switch (name) {
    case '$bigint':
      return readBigint(content, path);
    case '$bytes':
      return readBytes(content, path);
    case '$date':
      return readDate(content, path);
    case '$number':
      if (typeof content === 'string' && Object.hasOwn(NUMBER_FORMS, content)) return NUMBER_FORMS[content]!;
      return refuse(
        path,
        'has a bad $number: write "NaN", "Infinity", "-Infinity" or "-0"; others are plain numbers',
      );
    case '$literal':
      if (typeof content === 'object' && content !== null && !Array.isArray(content) && formName(content))
        return mapMembers(content, path, read);
      return refuse(path, 'has a bad $literal: it goes around an object whose only member begins with $');
    default:
      return refuse(
        path,
        `has only the member ${JSON.stringify(name.slice(0, 64))}; what begins with $ is a form: ${FORMS}`,
      );
  }
}

function readBigint(content: unknown, path: Path): bigint {
  const parts = typeof content === 'string' ? /^(-?)([0-9]+|0x[0-9a-f]+)$/.exec(content) : null;
  if (parts === null)
    return refuse(path, 'has a bad $bigint: write its digits in a string, such as {"$bigint":"-1"}');
  const digits = parts[2]!;
  if (!digits.startsWith('0x') && digits.length > DECIMAL_DIGITS_MAX)
    return refuse(
      path,
      `has a $bigint of more than ${DECIMAL_DIGITS_MAX} decimal digits: write it in hex, "0x..."`,
    );
  return parts[1] === '-' ? -BigInt(digits) : BigInt(digits);
}

function readBytes(content: unknown, path: Path): Uint8Array {
  if (typeof content === 'string') {
    const bytes = Buffer.from(content, 'base64');
    // Buffer skips what is not base64; only the canonical text comes back as it was.
    if (bytes.toString('base64') === content) return Uint8Array.from(bytes);
  }
  return refuse(path, 'has bad $bytes: write base64 with its padding, such as {"$bytes":"aGk="}');
}

const ISO_DATE =
  /^(\d{4}|[+-]\d{6})-(\d\d)-(\d\d)(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d))?$/;

function readDate(content: unknown, path: Path): Date {
  const parts = typeof content === 'string' ? ISO_DATE.exec(content) : null;
  if (parts !== null) {
    const date = new Date(parts[0]);
    // V8 reads the 30th of February as the 1st of March. Calendars repeat every 400 years.
    const daysInMonth = new Date(Date.UTC(2000 + (Number(parts[1]) % 400), Number(parts[2]), 0)).getUTCDate();
    if (!Number.isNaN(date.getTime()) && Number(parts[3]) <= daysInMonth) return date;
  }
  return refuse(path, 'has a bad $date: write {"$date":"2024-05-06T07:08:09.123Z"}');
}
