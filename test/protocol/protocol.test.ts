import { deepStrictEqual } from 'node:assert/strict';
import fc from 'fast-check';
import { Packr } from 'msgpackr/index-no-eval';
import { describe, expect, it } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { SILENT_MAX } from '../../src/core/membership.js';
import type { PeerMessage } from '../../src/core/messages.js';
import { isReadmeshError, type ReadmeshError } from '../../src/errors.js';
import { decodeMessage, encodeMessage, PROTOCOL_VERSION } from '../../src/protocol.js';
import { FRAME_ENTRIES_MAX, FRAME_MEMBERS_MAX, FRAME_RECORDS_MAX } from '../../src/wire-words.js';
import { anyMessage, messages } from './arbitrary-message.js';

const ORIGIN = '00112233aabbccdd';
const msgpackr = new Packr({ useRecords: false, variableMapSize: true });
/** A frame as anyone might write it, with a library of their own. */
const pack = (fields: unknown): Uint8Array => Uint8Array.from(msgpackr.pack(fields));

const row = (key: string, seq = 1) =>
  makeRow(
    key,
    {
      kind: KIND_REGISTER,
      stamp: new Uint8Array(16),
      origin: ORIGIN,
      seq,
      value: Uint8Array.of(0xa1, 0x61),
    },
    checksum,
  );

/** Clock, accepted, clock - asOf, clock - collected, ended. */
const REPORT = [9, 0, 9, 9, 0];

function errorOf(call: () => unknown): ReadmeshError {
  try {
    call();
  } catch (error) {
    if (isReadmeshError(error)) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

const refusal = (fields: unknown): string => {
  const error = errorOf(() => decodeMessage(pack(fields)));
  expect(error.code).toBe('PROTOCOL_ERROR');
  return error.message;
};

/** Uint8Array views and copies alike. */
const plain = (message: PeerMessage): unknown =>
  'rows' in message && 'keys' in message
    ? { ...message, rows: message.rows.map((bytes) => Buffer.from(bytes).toString('hex')) }
    : message;

describe('every message comes back as it was sent', () => {
  for (const [type, arbitrary] of Object.entries(messages))
    it(type, () => {
      fc.assert(
        fc.property(arbitrary as fc.Arbitrary<PeerMessage>, (message) => {
          deepStrictEqual(plain(decodeMessage(encodeMessage(message))), plain(message));
        }),
      );
    });
});

describe('a frame', () => {
  it('is one flat msgpack array that any library reads', () => {
    const frame = encodeMessage({
      type: 'push',
      frame: 9,
      origin: ORIGIN,
      from: 3,
      to: 5,
      keys: ['k'],
      rows: [row('k')],
    });
    const fields = msgpackr.unpack(Buffer.from(frame));
    expect(fields.slice(0, 5)).toEqual([5, 9, ORIGIN, 3, 5]);
    expect(fields[5][0]).toBe('k');
    expect(Uint8Array.from(fields[5][1])).toEqual(row('k'));
  });

  it('stays as it is when others are encoded after it', () => {
    const frame = encodeMessage({ type: 'resend', vector: true, members: false });
    for (let i = 0; i < 10_000; i++) encodeMessage({ type: 'prune', origins: [ORIGIN] });
    expect(decodeMessage(frame)).toEqual({ type: 'resend', vector: true, members: false });
  });

  it('may lie anywhere in a larger buffer, and its rows are views into it', () => {
    const frame = encodeMessage({
      type: 'push',
      frame: 1,
      origin: ORIGIN,
      from: 0,
      to: 1,
      keys: ['k'],
      rows: [row('k')],
    });
    const around = Buffer.alloc(frame.length + 20, 0xc1);
    around.set(frame, 7);
    const message = decodeMessage(around.subarray(7, 7 + frame.length));
    expect(plain(message)).toMatchObject({ keys: ['k'], rows: [Buffer.from(row('k')).toString('hex')] });
    expect(message.type === 'push' && message.rows[0]!.buffer).toBe(around.buffer);
  });

  it('of a type that this version does not know is told from a bad one', () => {
    const error = errorOf(() => decodeMessage(pack([99, 'from', { the: 'future' }])));
    expect(error.code).toBe('PROTOCOL_ERROR');
    expect(error.details.unknownType).toBe(99);
    expect(errorOf(() => decodeMessage(pack([4, true]))).details.unknownType).toBeUndefined();
  });

  it('that says hello or refuses may hold more fields in later versions; no other may', () => {
    const hello = [0, 7, 'default', '', 'a', 'a', '', ORIGIN, ORIGIN, 0, true, 1, 0];
    expect(decodeMessage(pack([...hello, 'new', [{ field: 1 }]]))).toMatchObject({
      type: 'hello',
      version: 7,
      name: 'a',
    });
    expect(decodeMessage(pack([1, 'WRONG_CLUSTER', 'why', 3]))).toEqual({
      type: 'refuse',
      code: 'WRONG_CLUSTER',
      message: 'why',
    });
    expect(refusal(hello.slice(0, -1))).toBe('bad hello: it has 12 fields, not 13');
    expect(refusal([4, true, true, 1])).toBe('bad resend: it has 4 fields, not 3');
    expect(PROTOCOL_VERSION).toBeGreaterThan(0);
  });

  it('carries a reason cut to what the peer takes, whatever it quotes', () => {
    const message = `a\ud800${'語'.repeat(2_000)}`;
    const read = decodeMessage(encodeMessage({ type: 'refuse', code: 'FORBIDDEN', message }));
    expect(read.type === 'refuse' && read.message).toBe(`a\ufffd${'語'.repeat(254)}`);
  });
});

describe('a frame of ours is refused as our own mistake', () => {
  const push = (key: string, size: number): PeerMessage => ({
    type: 'push',
    frame: 1,
    origin: ORIGIN,
    from: 0,
    to: 1,
    keys: [key],
    rows: [new Uint8Array(size)],
  });
  it('when it is larger than frames may be', () => {
    expect(errorOf(() => encodeMessage(push('k', 9_000_000))).code).toBe('INTERNAL');
    expect(errorOf(() => encodeMessage(push('k', 500), 500)).code).toBe('INTERNAL');
  });
  it('when it holds a lone surrogate or a number that is no count', () => {
    expect(errorOf(() => encodeMessage(push('\ud800', 40))).code).toBe('INTERNAL');
    for (const session of [-1, 1.5, Number.NaN, 2 ** 53])
      expect(errorOf(() => encodeMessage({ type: 'chunk-ack', session, count: 0 })).code).toBe('INTERNAL');
  });
});

describe('decoding refuses', () => {
  it('a frame above its size cap, before it looks inside', () => {
    expect(refusal(Buffer.alloc(9_000_000))).toMatch(/^a frame of 9000005 bytes exceeds 8388608$/);
    const frame = encodeMessage({ type: 'prune', origins: [ORIGIN] });
    expect(errorOf(() => decodeMessage(frame, frame.length - 1)).code).toBe('PROTOCOL_ERROR');
    expect(decodeMessage(frame, frame.length).type).toBe('prune');
  });

  const bad: [string, unknown, RegExp][] = [
    ['what is no array', { type: 4 }, /bad frame: it is not an array/],
    ['an empty array', [], /bad frame: it is empty/],
    ['a type that is text', ['push'], /its type is not an integer/],
    ['a negative integer', [12, -1, 0], /bad chunk-ack: session is not an integer from 0/],
    ['a fraction', [12, 1.5, 0], /session is not an integer/],
    ['NaN', [12, Number.NaN, 0], /session is not an integer/],
    ['a whole float', [12, 2 ** 40, 0], /session is not an integer/],
    ['2^53', [12, 2n ** 64n - 1n, 0], /session is not an integer/],
    ['a signed 64-bit integer', [12, 5n, 0], /session is not an integer/],
    ['an integer where a boolean stands', [4, 1, 0], /bad resend: vector is not a boolean/],
    ['text where a list stands', [7, ORIGIN], /bad prune: origins is not an array/],
    ['an origin in upper case', [7, [ORIGIN.toUpperCase()]], /origins is not lower-case hex/],
    ['an origin that is too short', [7, [ORIGIN.slice(1)]], /origins is not 16 hex digits/],
    ['an origin that is too long', [7, [`${ORIGIN}0`]], /origins takes 17 bytes/],
    ['an origin in binary', [7, [Buffer.from(ORIGIN)]], /origins is not text/],
    [
      'an offer of 257 frames',
      [16, Array.from({ length: 257 }, () => [ORIGIN, 1]).flat()],
      /bad offer: frames has more than 256 entries/,
    ],
    ['an incomplete pair', [8, 1, [ORIGIN]], /bad pull: heads holds an incomplete entry/],
    [
      'a head beyond 48 bits',
      [8, 1, [ORIGIN, 2n ** 63n]],
      /heads is not an integer from 0 to 281474976710655/,
    ],
    [
      'a top below its head',
      [3, 1, 0, '', true, '', '', true, [ORIGIN, 5, 4], ...REPORT],
      /bad beat: vector has a top below its head/,
    ],
    [
      'a phase that there is not',
      [3, 1, 3, '', true, '', '', true, [], ...REPORT],
      /phase is not an integer from 0 to 2/,
    ],
    [
      'an asOf above its clock',
      [3, 1, 0, '', true, '', '', true, [], 9, 0, 10, 9, 0],
      /asOf is not an integer from 0 to 9/,
    ],
    [
      'a uid of another length',
      [3, 1, 0, 'ab', true, '', '', true, [], ...REPORT],
      /clusterUid is not 16 hex digits/,
    ],
    [
      'a hash of 33 digits',
      [3, 1, 0, '', true, 'a'.repeat(33), '', true, [], ...REPORT],
      /vectorHash takes 33 bytes/,
    ],
    [
      'an empty name',
      [2, ['', 'h', '', ORIGIN, '0'.repeat(32), []], [], []],
      /bad members: name takes 0 bytes, not 1 to 128/,
    ],
    [
      'a name of 129 bytes',
      [2, [`${'ä'.repeat(64)}a`, 'h', '', ORIGIN, '0'.repeat(32), []], [], []],
      /name takes 129 bytes/,
    ],
    [
      'an address of 257 bytes',
      [2, ['n', 'h', 'a'.repeat(257), ORIGIN, '0'.repeat(32), []], [], []],
      /address takes 257 bytes/,
    ],
    [
      'a stamp of 31 digits',
      [2, ['n', 'h', '', ORIGIN, '0'.repeat(31), []], [], []],
      /stamp is not 32 hex digits/,
    ],
    ['a push backwards', [5, 1, ORIGIN, 6, 5, []], /bad push: from is above to/],
    ['a key without its row', [5, 1, ORIGIN, 0, 1, ['k']], /records holds an incomplete entry/],
    ['an empty key', [5, 1, ORIGIN, 0, 1, ['', row('')]], /key takes 0 bytes, not 1 to 1024/],
    ['a key of 1,025 bytes', [9, 1, 'k'.repeat(1_025), null], /bad pull-range: after takes 1025 bytes/],
    ['a key that is binary', [5, 1, ORIGIN, 0, 1, [Buffer.from('k'), row('k')]], /key is not text/],
    ['a row that is text', [5, 1, ORIGIN, 0, 1, ['k', 'row']], /row is not binary/],
    [
      'a row that is too short',
      [5, 1, ORIGIN, 0, 1, ['k', Buffer.alloc(35)]],
      /a record for key "k" is too short/,
    ],
    [
      'a row under another key',
      [5, 1, ORIGIN, 0, 1, ['k', Buffer.from(row('j'))]],
      /a record for key "k" has a bad checksum/,
    ],
    [
      'a row with sequence number 0',
      [11, 1, 0, false, [], ['k', Buffer.from(row('k', 0))]],
      /has sequence number 0/,
    ],
    [
      'tops before the last chunk',
      [11, 1, 0, false, [ORIGIN, 1], []],
      /bad chunk: tops come with the last chunk only/,
    ],
    [
      'a session end without a known code',
      [13, 1, true, 4],
      /bad session-end: code is not an integer from 0 to 3/,
    ],
  ];
  for (const [what, fields, message] of bad)
    it(what, () => {
      expect(refusal(fields)).toMatch(message);
    });

  it('a record with any bit of its row flipped', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(7), (place, bit) => {
        const rows = [row('k')];
        rows[0]![place % rows[0]!.length]! ^= 1 << bit;
        const frame = encodeMessage({
          type: 'push',
          frame: 1,
          origin: ORIGIN,
          from: 0,
          to: 1,
          keys: ['k'],
          rows,
        });
        expect(errorOf(() => decodeMessage(frame)).code).toBe('PROTOCOL_ERROR');
      }),
    );
  });

  it('lists above their caps, and takes them up to there', () => {
    const frames = (count: number): unknown => [6, true, new Array(count).fill(1)];
    expect(decodeMessage(pack(frames(FRAME_ENTRIES_MAX))).type).toBe('ack');
    expect(refusal(frames(FRAME_ENTRIES_MAX + 1))).toMatch(/frames has more than 65536 entries/);
    const removed = (count: number): unknown => [2, [], new Array(count).fill(ORIGIN), []];
    expect(decodeMessage(pack(removed(FRAME_MEMBERS_MAX))).type).toBe('members');
    expect(refusal(removed(FRAME_MEMBERS_MAX + 1))).toMatch(/removed has more than 4096 entries/);
    const silent = (count: number): unknown => [
      2,
      ['n', 'h', '', ORIGIN, '0'.repeat(32), new Array(count).fill(ORIGIN)],
      [],
      [],
    ];
    expect(decodeMessage(pack(silent(SILENT_MAX))).type).toBe('members');
    expect(refusal(silent(SILENT_MAX + 1))).toMatch(/silent has more than 64 entries/);
    const records = (count: number): unknown => [
      5,
      1,
      ORIGIN,
      0,
      1,
      new Array(count).fill(['k', Buffer.from(row('k'))]).flat(),
    ];
    expect(decodeMessage(pack(records(FRAME_RECORDS_MAX))).type).toBe('push');
    expect(refusal(records(FRAME_RECORDS_MAX + 1))).toMatch(/records has more than 65536 entries/);
    const vector = (count: number): unknown => [
      3,
      1,
      0,
      '',
      true,
      '',
      '',
      true,
      new Array(count).fill([ORIGIN, 1, 1]).flat(),
      ...REPORT,
    ];
    expect(decodeMessage(pack(vector(FRAME_ENTRIES_MAX))).type).toBe('beat');
    expect(refusal(vector(FRAME_ENTRIES_MAX + 1))).toMatch(/vector has more than 65536 entries/);
  });
});

describe('whatever comes in, there is a message or PROTOCOL_ERROR', () => {
  const survives = (bytes: Uint8Array): 'message' | 'error' => {
    try {
      decodeMessage(bytes);
      return 'message';
    } catch (error) {
      expect(isReadmeshError(error) && error.code).toBe('PROTOCOL_ERROR');
      return 'error';
    }
  };

  it('from random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => survives(bytes) !== undefined),
      { numRuns: 3_000 },
    );
  });

  it('from frames in which some bytes were changed, cut off or added', () => {
    const outcomes = { message: 0, error: 0 };
    fc.assert(
      fc.property(
        anyMessage,
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
        fc.integer({ min: -5, max: 5 }),
        (message, changes, longer) => {
          const frame = encodeMessage(message);
          const bytes = new Uint8Array(Math.max(0, frame.length + longer));
          bytes.set(frame.subarray(0, bytes.length));
          for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte;
          outcomes[survives(bytes)]++;
        },
      ),
      { numRuns: 3_000 },
    );
    // Otherwise this would have tested something else than it says.
    expect(Math.min(outcomes.message, outcomes.error)).toBeGreaterThan(50);
  });

  it('from frames whose fields were swapped for anything', () => {
    const field = fc.oneof(
      fc.integer(),
      fc.string(),
      fc.boolean(),
      fc.constantFrom(null, ORIGIN, 2n ** 63n, Number.NaN, [], {}, [[]], new Date(0), Buffer.alloc(40)),
      fc.array(fc.constantFrom(ORIGIN, 'k', 1, Buffer.alloc(40)), { maxLength: 6 }),
    );
    fc.assert(
      fc.property(fc.nat(16), fc.array(field, { maxLength: 13 }), (type, fields) => {
        expect(['message', 'error']).toContain(survives(pack([type, ...fields])));
      }),
      { numRuns: 3_000 },
    );
  });

  it('from bombs of 8 MiB', () => {
    const filled = (byte: number, head: readonly number[]): Uint8Array => {
      const bytes = new Uint8Array(8_388_608).fill(byte);
      bytes.set(head);
      return bytes;
    };
    const heads: [number, number[]][] = [
      [0x91, []],
      [0x81, []],
      [0x90, [0xdd, 0x00, 0x7f, 0xff, 0xfb]],
      [0x80, [0x93, 0x06, 0xc3, 0xdd, 0x00, 0x7f, 0xff, 0xf8]],
      [0x00, [0x93, 0x06, 0xc3, 0xdd, 0x00, 0x7f, 0xff, 0xf8]],
      [0xff, [0x92, 0x07, 0xdd, 0xff, 0xff, 0xff, 0xff]],
      [0xa0, [0xdf, 0x00, 0x3f, 0xff, 0xfd]],
      [0x00, [0x92, 0x07, 0xc9, 0x00, 0x7f, 0xff, 0xf8, 0x42]],
    ];
    for (const [byte, head] of heads) expect(survives(filled(byte, head))).toBe('error');
  });
});
