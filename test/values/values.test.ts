import { deepStrictEqual } from 'node:assert/strict';
import vm from 'node:vm';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { isReadmeshError, type ReadmeshError } from '../../src/errors.js';
import type { Value } from '../../src/read-store.js';
import {
  decodeRow,
  decodeValue,
  encodeValue,
  VALUE_DEPTH_MAX,
  VALUE_ELEMENTS_MAX,
} from '../../src/values.js';
import { anyValue } from './arbitrary-value.js';

const msgpackr = new Packr({
  useRecords: false,
  variableMapSize: true,
  useBigIntExtension: true,
  useToJSON: false,
});

function errorOf(call: () => unknown): ReadmeshError {
  try {
    call();
  } catch (error) {
    if (isReadmeshError(error)) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** What TypeScript would refuse, too. */
const encodeAnything = (value: unknown): Uint8Array => encodeValue(value as Value);

const nested = (levels: number): Value => {
  let value: Value = [];
  for (let i = 1; i < levels; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
};

function isDeepFrozen(value: Value): boolean {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array || value instanceof Date)
    return true;
  return Object.isFrozen(value) && Object.values(value).every((member) => isDeepFrozen(member as Value));
}

describe('a value', () => {
  it('comes back exactly, whatever it is', () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        deepStrictEqual(decodeValue(encodeValue(value)), value);
      }),
      { numRuns: 1_000 },
    );
  });

  it('is found in the middle of other bytes', () => {
    fc.assert(
      fc.property(anyValue, fc.nat(50), fc.nat(50), (value, before, after) => {
        const bytes = encodeValue(value);
        const around = new Uint8Array(before + bytes.length + after).fill(0xc1);
        around.set(bytes, before);
        deepStrictEqual(decodeValue(around, before, before + bytes.length), value);
      }),
    );
  });

  it('is msgpack that other libraries read, and theirs is read', () => {
    // Strings that begin with U+FEFF are left out: the library drops it from long ones, and ours are an extension.
    const comparable = anyValue.filter((value) => !inspectText(value).includes('\uFEFF'));
    fc.assert(
      fc.property(comparable, (value) => {
        const normal = msgpackr.unpack(msgpackr.pack(value));
        deepStrictEqual(plain(msgpackr.unpack(Buffer.from(encodeValue(value))), value), plain(normal, value));
        deepStrictEqual(plain(decodeValue(msgpackr.pack(value)), value), plain(normal, value));
      }),
      { numRuns: 500 },
    );
  });

  it('keeps a leading byte order mark at every length', () => {
    for (const length of [0, 1, 31, 60, 61, 62, 63, 64, 100, 70_000])
      expect(decodeValue(encodeValue(`\uFEFF${'x'.repeat(length)}`))).toBe(`\uFEFF${'x'.repeat(length)}`);
  });

  it('keeps strings at every border between the forms of msgpack', () => {
    for (const letter of ['x', 'ü', '語', '😀'])
      for (const bytes of [28, 31, 32, 33, 47, 48, 49, 252, 255, 256, 260, 65_532, 65_535, 65_536, 65_540]) {
        const text = letter.repeat(Math.ceil(bytes / Buffer.byteLength(letter)));
        expect(decodeValue(encodeValue(text))).toBe(text);
        expect(decodeValue(encodeValue({ [text]: 1 }))).toEqual({ [text]: 1 });
      }
  });

  it('keeps a bigint of a hundred thousand bits', () => {
    for (const value of [
      3n ** 63_000n,
      -(3n ** 63_000n),
      2n ** 100_000n,
      -(2n ** 100_000n),
      -(2n ** 100_000n) - 1n,
    ])
      expect(decodeValue(encodeValue(value)) === value).toBe(true);
  });

  it('may come from another realm, or have no prototype', () => {
    const foreign = vm.runInNewContext('({ a: [1, { b: new Date(5) }], c: new Uint8Array([7]) })');
    deepStrictEqual(decodeValue(encodeAnything(foreign)), {
      a: [1, { b: new Date(5) }],
      c: Uint8Array.of(7),
    });
    deepStrictEqual(decodeValue(encodeAnything(Object.assign(Object.create(null), { a: 1 }))), { a: 1 });
  });

  it('may be a Buffer, and comes back as a plain Uint8Array', () => {
    const value = decodeValue(encodeValue([Buffer.from('abc')])) as Uint8Array[];
    expect(Object.getPrototypeOf(value[0])).toBe(Uint8Array.prototype);
    expect(Object.getPrototypeOf(decodeValue(encodeValue(Buffer.from('abc'))))).toBe(Uint8Array.prototype);
  });

  it('stays as it was encoded when others are encoded after it', () => {
    for (const value of ['abc', 'x'.repeat(5_000), { a: 1 }, 'x'.repeat(900_000)]) {
      const bytes = encodeValue(value);
      for (let i = 0; i < 1_000; i++) encodeValue('something else');
      deepStrictEqual(decodeValue(bytes), value);
    }
  });

  it('may have a getter that encodes another value', () => {
    const value = {
      a: 'before',
      get b(): string {
        return Buffer.from(encodeValue(['inner', { deep: 1 }])).toString('hex');
      },
      c: 'after',
    };
    const inner = Buffer.from(encodeValue(['inner', { deep: 1 }])).toString('hex');
    deepStrictEqual(decodeValue(encodeValue(value)), { a: 'before', b: inner, c: 'after' });
  });
});

/** The parts in which the library differs by design: -0, and Buffers for binary. */
function plain(value: unknown, like: unknown): unknown {
  if (value instanceof Uint8Array) return Uint8Array.from(value);
  if (value === 0) return 0;
  if (Array.isArray(value)) return value.map((element) => plain(element, like));
  if (typeof value === 'object' && value !== null && !(value instanceof Date))
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member, like)]));
  return value;
}

function inspectText(value: Value): string {
  return JSON.stringify(value, (_, member) => (typeof member === 'bigint' ? 0 : member)) ?? '';
}

describe('encoding refuses', () => {
  class Point {
    x = 1;
  }
  const cyclic: unknown[] = [];
  cyclic.push(cyclic, cyclic);
  const refused: [string, unknown, RegExp][] = [
    ['undefined', undefined, /^value is undefined: use null/],
    ['an undefined member', { a: [{ 'b c': undefined }] }, /^value\.a\[0\]\["b c"\] is undefined/],
    ['a hole', new Array(2).fill(1, 0, 1), /^value\[1\] is undefined/],
    ['a function', { f: () => 1 }, /^value\.f is a function/],
    ['a symbol', [Symbol('s')], /^value\[0\] is a symbol/],
    ['a member named by a symbol', { [Symbol('s')]: 1 }, /^value has a member named by a symbol/],
    ['a Map', new Map([[1, 2]]), /^value is an instance of Map: store a plain object/],
    ['a Set', { s: new Set() }, /^value\.s is an instance of Set/],
    ['an instance of a class', new Point(), /^value is an instance of Point/],
    [
      'an instance of a subclass of Array',
      new (class Rows extends Array {})(),
      /^value is an instance of Rows/,
    ],
    ['a regular expression', /x/, /^value is an instance of RegExp/],
    ['an error', new Error('x'), /^value is an instance of Error/],
    ['a boxed number', Object(1), /^value is an instance of Number/],
    ['another typed array', new Uint16Array(2), /^value is an instance of Uint16Array/],
    ['an ArrayBuffer', new ArrayBuffer(2), /^value is an instance of ArrayBuffer/],
    [
      'an object that inherits',
      Object.create({ a: 1 }),
      /^value is an instance of Object|^value is an instance/,
    ],
    ['an invalid Date', [new Date(Number.NaN)], /^value\[0\] is an invalid Date/],
    ['a lone surrogate', 'a\ud800', /^value holds a lone surrogate/],
    ['a lone surrogate in a long string', `${'x'.repeat(100)}\udc00`, /^value holds a lone surrogate/],
    ['a lone surrogate in a name', { a: { '\ud800': 1 } }, /^value\.a\["\\ud800"\] is a member whose name/],
    [
      'a leading U+FEFF in a name',
      { a: { '\uFEFFb': 1 } },
      /^value\.a\["\uFEFFb"\] is a member whose name begins with U\+FEFF/,
    ],
    ['__proto__', JSON.parse('{"a":{"__proto__":1}}'), /^value\.a\.__proto__ is a member named __proto__/],
    ['a cycle', cyclic, /^value is nested deeper than 128 levels, or contains itself/],
  ];
  for (const [what, value, message] of refused)
    it(what, () => {
      const error = errorOf(() => encodeAnything(value));
      expect(error.code).toBe('INVALID_VALUE');
      expect(error.message).toMatch(message);
    });

  it('one level of nesting too many, and takes one less', () => {
    deepStrictEqual(decodeValue(encodeValue(nested(VALUE_DEPTH_MAX))), nested(VALUE_DEPTH_MAX));
    expect(errorOf(() => encodeValue(nested(VALUE_DEPTH_MAX + 1))).code).toBe('INVALID_VALUE');
  });

  it('one element too many, and takes one less', () => {
    const full = new Array<number>(VALUE_ELEMENTS_MAX - 1).fill(1);
    expect(decodeValue(encodeValue(full))).toHaveLength(full.length);
    const error = errorOf(() => encodeValue([...full, 1]));
    expect(error.code).toBe('INVALID_VALUE');
    expect(error.message).toContain('262144 elements');
    const names = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`n${i}`, 1]));
    const members = new Array<Value>(Math.floor((VALUE_ELEMENTS_MAX - 1) / 81)).fill(names);
    expect(decodeValue(encodeValue(members, 4e6))).toHaveLength(members.length);
    expect(errorOf(() => encodeValue([...members, names], 4e6)).code).toBe('INVALID_VALUE');
  });

  it('one byte more than the limit, and takes exactly the limit', () => {
    const text = 'x'.repeat(1_000);
    expect(encodeValue(text, 1_003)).toHaveLength(1_003);
    const error = errorOf(() => encodeValue(text, 1_002));
    expect(error.code).toBe('VALUE_TOO_LARGE');
    expect(error.message).toBe('the value takes more than 1002 bytes: split it over several keys');
    expect(encodeValue('x'.repeat(1_048_571))).toHaveLength(1_048_576);
    for (const large of ['x'.repeat(1_048_572), new Uint8Array(2e6), 1n << 9_000_000n, [['y'.repeat(5e6)]]])
      expect(errorOf(() => encodeValue(large)).code).toBe('VALUE_TOO_LARGE');
  });

  it('and goes on as before after a refusal', () => {
    expect(errorOf(() => encodeAnything([1, 2, undefined])).code).toBe('INVALID_VALUE');
    deepStrictEqual(decodeValue(encodeValue([1, 2])), [1, 2]);
  });
});

describe('decoding', () => {
  it('freezes every object and array', () => {
    fc.assert(fc.property(anyValue, (value) => isDeepFrozen(decodeValue(encodeValue(value)))));
  });

  it('keeps nothing of the bytes that it read', () => {
    const bytes = encodeValue({ a: [Uint8Array.of(1, 2, 3)], text: 'abc' });
    const value = decodeValue(bytes) as { a: Uint8Array[]; text: string };
    bytes.fill(0xff);
    expect(value.text).toBe('abc');
    expect([...value.a[0]!]).toEqual([1, 2, 3]);
    expect(value.a[0]!.buffer).not.toBe(bytes.buffer);
  });

  it('of any bytes gives a value or UNREADABLE', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decodeValue(bytes);
        } catch (error) {
          expect(isReadmeshError(error) && error.code).toBe('UNREADABLE');
        }
      }),
      { numRuns: 3_000 },
    );
  });

  it('refuses every value that was cut short', () => {
    fc.assert(
      fc.property(anyValue, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (value, part) => {
        const bytes = encodeValue(value);
        const error = errorOf(() => decodeValue(bytes, 0, Math.floor(bytes.length * part)));
        expect(error.code).toBe('UNREADABLE');
      }),
    );
  });

  it('does not take two member names for one', () => {
    // The cache of names is direct-mapped: many names, over and over, so that places are shared.
    const names = Array.from({ length: 5_000 }, (_, i) => `name ${i % 2_500} ${i < 2_500 ? 'é' : 'e'}`);
    const value = Object.fromEntries(names.map((name, i) => [name, i]));
    for (let round = 0; round < 3; round++) deepStrictEqual(decodeValue(encodeValue(value)), value);
    // The bytes of the second one are the characters of the first.
    const alike = { '\u00c3\u00a9': 1, '\u00e9': 2 };
    deepStrictEqual(decodeValue(encodeValue(alike)), alike);
  });
});

describe('a row', () => {
  const rowOf = (key: string, value: Uint8Array, expiresAt?: number) =>
    makeRow(
      key,
      {
        kind: KIND_REGISTER,
        stamp: new Uint8Array(16),
        origin: '00000000000000aa',
        seq: 1,
        value,
        ...(expiresAt && { expiresAt }),
      },
      checksum,
    );

  it('gives its value, with an expiry before it or not', () => {
    for (const value of ['short', 'x'.repeat(100), { a: 1 }, null, 7])
      for (const expiresAt of [undefined, 1_000])
        deepStrictEqual(decodeRow('k', rowOf('k', encodeValue(value), expiresAt)).value, value);
  });

  it('says whether one decoded instance may be handed to many readers', () => {
    const isShareable = (value: Value): boolean => decodeRow('k', rowOf('k', encodeValue(value))).isShareable;
    for (const value of ['text', 'x'.repeat(500), 1.5, null, { a: [{ b: 2n ** 90n }] }])
      expect(isShareable(value)).toBe(true);
    for (const value of [new Date(0), Uint8Array.of(1), { a: [new Date(0)] }, [{ b: Uint8Array.of() }]])
      expect(isShareable(value)).toBe(false);
  });

  it('estimates more memory for more content', () => {
    const heap = (value: Value): number => decodeRow('k', rowOf('k', encodeValue(value))).heapBytes;
    expect(heap('x'.repeat(1_000))).toBeGreaterThan(1_000);
    expect(heap(new Array(1_000).fill({}))).toBeGreaterThan(56_000);
    expect(heap({ a: 'x'.repeat(1_000) })).toBeGreaterThan(heap({ a: 'x' }) + 900);
  });

  it('names its key when its bytes are not a value', () => {
    const error = errorOf(() => decodeRow('the key', rowOf('the key', Uint8Array.of(0xc1))));
    expect(error.code).toBe('UNREADABLE');
    expect(error.message).toContain('"the key"');
    expect(error.details.key).toBe('the key');
  });
});
