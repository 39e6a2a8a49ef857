import { deepStrictEqual } from 'node:assert/strict';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isReadmeshError, type ReadmeshError } from '../../src/errors.js';
import { fromJson, parseValue, stringifyValue, toJson } from '../../src/json.js';
import { jsonErrorPosition } from '../../src/json-position.js';
import type { Value } from '../../src/read-store.js';
import { anyValue } from './arbitrary-value.js';

function errorOf(call: () => unknown): ReadmeshError {
  try {
    call();
  } catch (error) {
    if (isReadmeshError(error)) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('the JSON forms', () => {
  it('carry every value exactly', () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        deepStrictEqual(fromJson(JSON.parse(JSON.stringify(toJson(value)))), value);
        deepStrictEqual(parseValue(stringifyValue(value)), value);
      }),
      { numRuns: 1_000 },
    );
  });

  it('are these', () => {
    const forms: [Value, string][] = [
      [{ a: [1, 'b', null, true], $c: 2 }, '{"a":[1,"b",null,true],"$c":2}'],
      [1n, '{"$bigint":"1"}'],
      [-(2n ** 70n), '{"$bigint":"-1180591620717411303424"}'],
      [Uint8Array.of(1, 2, 255, 0), '{"$bytes":"AQL/AA=="}'],
      [Buffer.from('hi'), '{"$bytes":"aGk="}'],
      [new Date(-1), '{"$date":"1969-12-31T23:59:59.999Z"}'],
      [new Date(8.64e15), '{"$date":"+275760-09-13T00:00:00.000Z"}'],
      [Number.NaN, '{"$number":"NaN"}'],
      [Number.POSITIVE_INFINITY, '{"$number":"Infinity"}'],
      [Number.NEGATIVE_INFINITY, '{"$number":"-Infinity"}'],
      [-0, '{"$number":"-0"}'],
      [{ $price: 1n }, '{"$literal":{"$price":{"$bigint":"1"}}}'],
      [{ $bigint: '1' }, '{"$literal":{"$bigint":"1"}}'],
      [{ $literal: { $literal: 1 } }, '{"$literal":{"$literal":{"$literal":{"$literal":1}}}}'],
      [{ $: 1 }, '{"$literal":{"$":1}}'],
      [{ a$: 1 }, '{"a$":1}'],
      [[{}], '[{}]'],
    ];
    for (const [value, text] of forms) expect(stringifyValue(value)).toBe(text);
  });

  it('write bigints of more than 32,768 bits in hex, and read both', () => {
    for (const value of [2n ** 32_768n - 1n, 1n - 2n ** 32_768n]) {
      expect(stringifyValue(value)).toMatch(/^\{"\$bigint":"-?[0-9]+"\}$/);
      expect(parseValue(stringifyValue(value)) === value).toBe(true);
    }
    for (const value of [2n ** 32_768n, -(2n ** 32_768n), 7n ** 500_000n]) {
      expect(stringifyValue(value)).toMatch(/^\{"\$bigint":"-?0x[0-9a-f]+"\}$/);
      expect(parseValue(stringifyValue(value)) === value).toBe(true);
    }
    expect(parseValue('{"$bigint":"-0x10"}')).toBe(-16n);
  });

  it('read dates of ISO 8601 that name one moment', () => {
    const dates: [string, number][] = [
      ['2024-02-29', Date.UTC(2024, 1, 29)],
      ['2024-05-06T07:08Z', Date.UTC(2024, 4, 6, 7, 8)],
      ['2024-05-06T07:08:09+02:00', Date.UTC(2024, 4, 6, 5, 8, 9)],
      ['2024-12-31T23:59:59.5-01:30', Date.UTC(2025, 0, 1, 1, 29, 59, 500)],
      ['0001-01-01T00:00:00Z', new Date('0001-01-01T00:00:00Z').getTime()],
    ];
    for (const [text, ms] of dates) expect(parseValue(`{"$date":"${text}"}`)).toEqual(new Date(ms));
  });

  const bad: [string, RegExp][] = [
    ['{"$bigint":"x"}', /^value has a bad \$bigint: write its digits in a string/],
    ['{"$bigint":1}', /bad \$bigint/],
    ['{"$bigint":"1.5"}', /bad \$bigint/],
    ['{"$bigint":""}', /bad \$bigint/],
    [`{"$bigint":"${'9'.repeat(9_866)}"}`, /write it in hex/],
    ['{"$bytes":"a"}', /bad \$bytes: write base64 with its padding/],
    ['{"$bytes":"aGk"}', /bad \$bytes/],
    ['{"$bytes":"a Gk="}', /bad \$bytes/],
    ['{"$bytes":[1]}', /bad \$bytes/],
    ['{"$date":"2024-02-30"}', /bad \$date/],
    ['{"$date":"2023-02-29T00:00:00Z"}', /bad \$date/],
    ['{"$date":"2024-13-01"}', /bad \$date/],
    ['{"$date":"2024-05-06T07:08:09"}', /bad \$date/],
    ['{"$date":"yesterday"}', /bad \$date/],
    ['{"$date":0}', /bad \$date/],
    ['{"$number":"1"}', /bad \$number: write "NaN", "Infinity", "-Infinity" or "-0"/],
    ['{"$number":1}', /bad \$number/],
    ['{"$number":"toString"}', /bad \$number/],
    ['{"$literal":{}}', /bad \$literal: it goes around an object whose only member begins with \$/],
    ['{"$literal":{"a":1}}', /bad \$literal/],
    ['{"$literal":{"$a":1,"b":2}}', /bad \$literal/],
    ['{"$literal":["$a"]}', /bad \$literal/],
    ['{"$literal":null}', /bad \$literal/],
    [
      '{"a":[{"$price":1}]}',
      /^value\.a\[0\] has only the member "\$price"; what begins with \$ is a form: .*\$literal/,
    ],
    ['{"a":{"__proto__":{"b":1}}}', /^value\.a\.__proto__ is a member named __proto__: rename it/],
    ['{"$literal":{"$a":{"__proto__":1}}}', /__proto__/],
    ['"\\ud800"', /lone surrogate/],
    ['{"\\ud800":1}', /lone surrogate/],
    [`${'['.repeat(200_000)}${']'.repeat(200_000)}`, /^value is nested deeper than 128 levels/],
    ['1e999', /is a number that JSON cannot carry/],
  ];
  for (const [text, message] of bad)
    it(`refuse ${text.slice(0, 60)}`, () => {
      const error = errorOf(() => parseValue(text));
      expect(error.code).toBe('INVALID_VALUE');
      expect(error.message).toMatch(message);
    });

  it('refuse to write what is no value', () => {
    const none: unknown[] = [
      undefined,
      () => 1,
      Symbol('s'),
      new Map(),
      new Date(Number.NaN),
      [undefined],
      { a: undefined },
    ];
    for (const value of [...none, JSON.parse('{"__proto__":1}')])
      expect(errorOf(() => toJson(value as Value)).code).toBe('INVALID_VALUE');
  });
});

describe('text that is not JSON', () => {
  const texts: [string, number, RegExp][] = [
    ['', 0, /^not JSON at position 0: it ends too soon$/],
    ['hello', 0, /unexpected "hello"; a string needs double quotes around it$/],
    ["'a'", 0, /double quotes/],
    ['{"a":1,}', 7, /unexpected "}"$/],
    ['[1,2', 4, /ends too soon/],
    ['{"a" 1}', 5, /unexpected "1}"/],
    ['{a:1}', 1, /unexpected "a:1}"; a string needs double quotes/],
    ['[1 2]', 3, /unexpected "2]"/],
    ['1 1', 2, /unexpected "1"/],
    ['[]]', 2, /unexpected "]"/],
    ['[}', 1, /unexpected "}"/],
    [' { "a" : [ 1 , tru ] } ', 15, /unexpected "tru ] } "/],
    ['"abc', 0, /unexpected "\\"abc"/],
    ['[01]', 2, /unexpected "1]"/],
    ['{"a":1 "b":2}', 7, /unexpected/],
    ['"a\nb"', 0, /unexpected/],
    ['\uFEFF1', 0, /unexpected/],
  ];
  for (const [text, position, message] of texts)
    it(`${JSON.stringify(text)} is refused at position ${position}`, () => {
      const error = errorOf(() => parseValue(text));
      expect(error.code).toBe('INVALID_JSON');
      expect(error.details.position).toBe(position);
      expect(error.message).toMatch(message);
    });

  it('is told from JSON the same way as JSON.parse does', () => {
    const piece = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"a"',
      '1',
      '-',
      'true',
      'null',
      ' ',
      '"',
      '\\',
      '0',
      'e',
      '.',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const text = pieces.join('');
        const position = jsonErrorPosition(text);
        expect(position).toBeLessThanOrEqual(text.length);
        try {
          JSON.parse(text);
        } catch {
          // What stands before the position can be part of JSON: it fails, if at all, only by ending too soon.
          expect(jsonErrorPosition(text.slice(0, position))).toBe(position);
          return;
        }
        expect(position).toBe(text.length);
      }),
      { numRuns: 2_000 },
    );
  });
});
