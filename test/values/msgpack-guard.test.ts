import { deepStrictEqual } from 'node:assert/strict';
import fc from 'fast-check';
import { Packr } from 'msgpackr/index-no-eval';
import { describe, expect, it } from 'vitest';
import { isReadmeshError, type ReadmeshError } from '../../src/errors.js';
import { guardMsgpack, type MsgpackLimits } from '../../src/msgpack-guard.js';
import { encodeValue, decodeValue as unpack } from '../../src/values.js';
import { anyValue } from './arbitrary-value.js';

const msgpackr = new Packr({ useRecords: false, variableMapSize: true, copyBuffers: true });

function refusal(bytes: Uint8Array, limits?: MsgpackLimits): ReadmeshError | undefined {
  try {
    guardMsgpack(bytes, 0, bytes.length, limits);
    return undefined;
  } catch (error) {
    if (isReadmeshError(error)) return error;
    throw error;
  }
}

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));

/** Bytes that look like msgpack more often than random ones do. */
const almostMsgpack = fc.oneof(
  fc.uint8Array({ maxLength: 64 }),
  fc
    .tuple(
      anyValue,
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }),
    )
    .map(([value, changes]) => {
      const bytes = encodeValue(value);
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
      return bytes;
    }),
  fc
    .array(
      fc.constantFrom(
        ...hex(
          '00 7f 80 81 82 90 91 92 a0 a1 61 c0 c1 c2 c4 c7 ca cb cf d3 d4 d6 d9 dc dd de df e0 ff 42 72 01',
        ),
      ),
    )
    .map((bytes) => Uint8Array.from(bytes)),
);

describe('the msgpack guard', () => {
  it('accepts what the encoder writes', () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        expect(refusal(encodeValue(value))).toBeUndefined();
      }),
    );
  });

  it('lets through only what decodes, here and in the library, and refuses the rest with one code', () => {
    let accepted = 0;
    fc.assert(
      fc.property(almostMsgpack, (bytes) => {
        const error = refusal(bytes);
        if (error === undefined) {
          accepted++;
          unpack(bytes);
          msgpackr.unpack(Buffer.from(bytes));
        } else {
          expect(error.code).toBe('PROTOCOL_ERROR');
        }
      }),
      { numRuns: 10_000 },
    );
    expect(accepted).toBeGreaterThan(1_000);
  });

  it('accepts nothing that the encoder would not carry', () => {
    fc.assert(
      fc.property(almostMsgpack, (bytes) => {
        if (refusal(bytes) !== undefined) return;
        const value = unpack(bytes);
        deepStrictEqual(unpack(encodeValue(value)), value);
      }),
      { numRuns: 2_000 },
    );
  });

  it('accepts each form of msgpack', () => {
    const forms = `00 7f e0 ff|c0|c2|c3|cc00|cd0000|ce00000000|cf0000000000000000|d000|d10000|d200000000|d30000000000000000
      |ca3f800000|cb3ff0000000000000|a0|a161|d900|d90161|da000161|db0000000161|c400|c40161|c5000161|c60000000161
      |90|9100|dc000100|dd0000000100|80|81a16100|de0001a16100|df00000001a16100
      |d44280|d5428000|d64280000000|d7428000000000000000|d84280000000000000000000000000000000|c7034280ffff|c800034280ffff|c9000000034280ffff
      |d6ff00000000|d7ff0000000000000000|c70cff000000000000000000000000|a2c3bc`;
    for (const form of forms
      .split('|')
      .flatMap((part) => (part.startsWith('00 ') ? part.split(' ') : [part.trim()]))) {
      expect(refusal(hex(form)), form).toBeUndefined();
      msgpackr.unpack(Buffer.from(hex(form)));
    }
  });

  const refused: [string, string, RegExp][] = [
    ['nothing at all', '', /cut short/],
    ['something after the value', 'c0 c0', /byte 1\): something follows/],
    ['the unused byte', 'c1', /0xc1/],
    ['a length cut short', 'da 00', /a length is cut short/],
    ['a string longer than the rest', 'a3 61 61', /more bytes than there are/],
    ['binary of 4 GiB', 'c6 ff ff ff ff 00', /more bytes than there are/],
    ['a number cut short', 'cb 00', /more bytes than there are/],
    ['an array of 4 G elements', 'dd ff ff ff ff c0', /more elements than there are bytes/],
    ['a map of 4 G members', 'df ff ff ff ff a0 c0', /more elements than there are bytes/],
    ['a map of one byte less', '82 a1 61 00 a0', /more elements than there are bytes|cut short/],
    ['an array without its last element', '92 c0', /more elements than there are bytes/],
    ['a member that is a number', '81 00 00', /a map member is not a string/],
    ['a member that is an array', '81 90 00', /a map member is not a string/],
    ['a later member that is nil', '82 a1 61 00 c0 00', /byte 4\): a map member is not a string/],
    ['a member __proto__', `81 a9 ${Buffer.from('__proto__').toString('hex')} 00`, /__proto__/],
    ['the same in a longer form', `81 d9 09 ${Buffer.from('__proto__').toString('hex')} 00`, /__proto__/],
    ['the same deep inside', `91 81 a1 61 81 a9 ${Buffer.from('__proto__').toString('hex')} 00`, /__proto__/],
    ['overlong UTF-8', 'a2 c0 80', /UTF-8/],
    ['a lone surrogate', 'a3 ed a0 80', /UTF-8/],
    ['UTF-8 cut short', 'a1 c3', /UTF-8/],
    ['bad UTF-8 in a long string', `d9 64 ${'61'.repeat(99)}ff`, /UTF-8/],
    ['a record definition', 'd4 72 40 91 a1 61 00', /extension 114 is not known/],
    ['undefined', 'd4 00 00', /extension 0 is not known/],
    ['a regular expression', 'd4 78 00 92 a1 61 a0', /extension 120 is not known/],
    ['a set', 'd4 73 00 90', /extension 115 is not known/],
    ['a pointer', 'd6 70 00 00 00 01', /extension 112 is not known/],
    ['bundled strings', 'd6 62 00 00 00 00', /extension 98 is not known/],
    ['an integer without bytes', 'c7 00 42', /an integer has no bytes/],
    ['a timestamp of five bytes', 'c7 05 ff 00 00 00 00 00', /a timestamp is malformed/],
    ['a timestamp with a billion nanoseconds', 'd7 ff ee 6b 28 00 00 00 00 00', /a timestamp is malformed/],
    [
      'a timestamp after the last Date',
      'c7 0c ff 00 00 00 01 00 00 07 db a8 21 80 00',
      /beyond what a Date holds/,
    ],
    [
      'a timestamp before the first Date',
      'c7 0c ff 00 00 00 00 ff ff f8 24 57 de 7f ff',
      /beyond what a Date holds/,
    ],
  ];
  for (const [what, bytes, message] of refused)
    it(`refuses ${what}`, () => {
      expect(refusal(hex(bytes))?.message).toMatch(message);
    });

  it('accepts a member __proto__ nowhere, but the text anywhere else', () => {
    const text = `a9 ${Buffer.from('__proto__').toString('hex')}`;
    expect(refusal(hex(`92 ${text} 81 a1 61 ${text}`))).toBeUndefined();
  });

  it('accepts the first and the last moment of a Date', () => {
    expect(unpack(hex('c7 0c ff 00 00 00 00 00 00 07 db a8 21 80 00'))).toEqual(new Date(8.64e15));
    expect(unpack(hex('c7 0c ff 00 00 00 00 ff ff f8 24 57 de 80 00'))).toEqual(new Date(-8.64e15));
  });

  it('allows 128 levels and no more, or as few as it is told', () => {
    const deep = (levels: number): Uint8Array => Uint8Array.from([...new Array(levels - 1).fill(0x91), 0x90]);
    expect(refusal(deep(128))).toBeUndefined();
    expect(refusal(deep(129))?.message).toMatch(/deeper than 128/);
    expect(refusal(deep(1_000_000), { depthMax: 1e9 })?.message).toMatch(/deeper than 128/);
    expect(refusal(deep(3), { depthMax: 3 })).toBeUndefined();
    expect(refusal(deep(4), { depthMax: 3 })?.message).toMatch(/deeper than 3/);
    expect(refusal(hex('90'), { depthMax: 0 })?.message).toMatch(/deeper than 0/);
    expect(refusal(hex('c0'), { depthMax: 0 })).toBeUndefined();
  });

  it('allows as many elements as it is told, names included', () => {
    expect(refusal(hex('81 a1 61 92 00 01'), { elementsMax: 5 })).toBeUndefined();
    expect(refusal(hex('81 a1 61 92 00 01'), { elementsMax: 4 })?.message).toMatch(/too many elements/);
    const bomb = new Uint8Array(8_388_608).fill(0x90);
    bomb.set(hex('dd 00 7f ff fb'));
    expect(refusal(bomb)?.message).toMatch(/too many elements/);
  });

  it('throws the code that it is given', () => {
    expect(() => guardMsgpack(hex('c1'), 0, 1, {}, 'INVALID_VALUE')).toThrow(
      expect.objectContaining({ code: 'INVALID_VALUE' }) as Error,
    );
  });
});
