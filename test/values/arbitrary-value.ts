/** Generators of everything that a value can hold, with the awkward ones over-represented. */
import fc from 'fast-check';
import type { Value } from '../../src/read-store.js';

/** Well-formed text: short ASCII, any script, names that mean something to JavaScript or to JSON forms. */
export const anyText: fc.Arbitrary<string> = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc.string({ minLength: 60, maxLength: 300 }),
  fc.string({ unit: 'binary', minLength: 60, maxLength: 90 }).map((text) => `\uFEFF${text}`),
  fc.constantFrom(
    '',
    '$bigint',
    '$literal',
    '$price',
    'constructor',
    'toString',
    'hasOwnProperty',
    'toJSON',
    'length',
  ),
);

const anyNumber = fc.oneof(
  fc.double(),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.constantFrom(0, -0, 31, 32, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53),
  fc.constantFrom(
    -32,
    -33,
    -128,
    -129,
    -32_768,
    -32_769,
    -(2 ** 31),
    -(2 ** 31) - 1,
    Number.NaN,
    Number.MIN_VALUE,
  ),
);

const anyBigint = fc.oneof(
  fc.bigInt(),
  fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }),
  fc
    .tuple(fc.nat({ max: 700 }), fc.bigInt({ min: -2n, max: 2n }), fc.boolean())
    .map(([bits, near, negative]) => (negative ? -(2n ** BigInt(bits)) : 2n ** BigInt(bits)) + near),
);

const anyDate = fc.oneof(
  fc.date({ noInvalidDate: true }),
  fc
    .constantFrom(0, -1, 1, 999, 1_000, 2 ** 32 * 1_000, 2 ** 34 * 1_000, 8.64e15, -8.64e15)
    .map((ms) => new Date(ms)),
);

export const anyScalar: fc.Arbitrary<Value> = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  anyNumber,
  anyBigint,
  anyText,
  anyDate,
  fc.uint8Array({ maxLength: 300 }),
);

/** U+FEFF at the beginning of a name is refused: see values.ts. */
const memberName = anyText.filter((name) => name !== '__proto__' && name.charCodeAt(0) !== 0xfeff);

export const anyValue: fc.Arbitrary<Value> = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    anyScalar,
    fc.array(tie('value'), { maxLength: 20 }),
    fc.dictionary(memberName, tie('value'), { maxKeys: 20, noNullPrototype: true }),
  ),
})).value;
