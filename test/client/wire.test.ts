/** Frames: how many there are, and what becomes of bad ones on either side. */

import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import { pack, unpack } from 'msgpackr/index-no-eval';
import { describe, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { openFrame } from '../../src/client/frame.js';
import { connect } from '../../src/client/index.js';
import { CLIENT_PROTOCOL_VERSION } from '../../src/client/wire.js';
import { isReadmeshError } from '../../src/errors.js';
import { encodeValue } from '../../src/values.js';
import { anyValue } from '../values/arbitrary-value.js';
import { Raw } from './raw.js';
import { client, clientOfAll, closeLater, host, until } from './support.js';

/** Frames in the place of one, at most. */
const STALLS_MAX = 5;

describe('frames', () => {
  test('of one tick hold all its requests, and one of the host all the answers that it has at once', async () => {
    const only = await host();
    for (let i = 0; i < 100; i++) only.service.apply(`k${i}`, i);
    const store = await clientOfAll([only]);
    const before = only.frames;
    const values = await Promise.all(Array.from({ length: 100 }, (_, i) => store.get(`k${i}`)));
    expect(values).toEqual(Array.from({ length: 100 }, (_, i) => i));
    // One each, but for a machine that stalls: then attempts are repeated, and answers leave in slices.
    expect(only.frames).toBeLessThanOrEqual(before + STALLS_MAX);
    const mixed = only.frames;
    await Promise.all([store.get('k1'), store.put('k2', 'x'), store.has('k3'), store.getMany(['k1', 'k2'])]);
    expect(only.frames).toBeLessThanOrEqual(mixed + STALLS_MAX);

    const raw = await Raw.greeted(only);
    const frames = raw.frames.length;
    raw.send(Array.from({ length: 50 }, (_, i) => [10 + i, 2, `k${i}`]));
    await raw.answer(59);
    expect(raw.frames.length).toBeLessThanOrEqual(frames + STALLS_MAX);
  });

  test('are split where one would become too large', async () => {
    const only = await host();
    const store = await clientOfAll([only]);
    const value = 'x'.repeat(60_000);
    await Promise.all(Array.from({ length: 10 }, (_, i) => store.put(`k${i}`, value)));
    expect(only.frames).toBeGreaterThan(3);
    expect(await store.getMany(Array.from({ length: 10 }, (_, i) => `k${i}`))).toEqual(Array(10).fill(value));
    const before = only.frames;
    await Promise.all(Array.from({ length: 10_000 }, () => store.has('k')));
    expect(only.frames).toBeGreaterThanOrEqual(before + 3);
  });

  test('begin with the clock: of the host, or of the newest record told', async () => {
    const only = await host();
    const raw = await Raw.greeted(only);
    const ahead = Date.now() + 4_000;
    const stamp = Buffer.alloc(16, 1);
    stamp.writeUIntBE(ahead, 0, 6);
    stamp.writeUInt16BE(77, 6);
    only.service.apply('k', 1, stamp);
    raw.send([[5, 2, 'k']]);
    await raw.answer(5);
    expect(raw.frames.at(-1)!.slice(0, 2)).toEqual([BigInt(ahead), 77]);
    raw.send([[6, 2, 'none']]);
    await raw.answer(6);
    expect(Number(raw.frames.at(-1)![0])).toBeLessThan(ahead);
  });
});

describe('the host', () => {
  test('greets first, and answers nothing but hello before hello', async () => {
    const only = await host();
    const raw = await Raw.to(only);
    const { origin, addresses } = only.service;
    const greeting = [1, 'default', '1111111111111111', origin, 'fake', true, addresses];
    expect(raw.responses[0]).toEqual([0, 0, ...greeting]);
    raw.send([[1, 2, 'k']]);
    await until(() => raw.closed !== undefined);
    expect(raw.closed).toMatchObject({ code: 1002, reason: expect.stringContaining('before hello') });
    expect(only.service.reads).toBe(0);
  });

  test('tells a client of another version which side to upgrade', async () => {
    const raw = await Raw.to(await host());
    raw.send([[1, 1, 99]]);
    const [, status, code, message] = await raw.answer(1);
    expect([status, code]).toEqual([1, 'VERSION_MISMATCH']);
    expect(message).toContain('upgrade');
  });

  test('answers an operation that it does not know, and goes on', async () => {
    const only = await host();
    const raw = await Raw.greeted(only);
    raw.send([
      [
        5,
        200,
        'a'.repeat(40),
        -1,
        -1e3,
        null,
        true,
        [1, [2, 'b']],
        Buffer.from('c'),
        1.5,
        2 ** 40,
        { a: { b: 1 } },
        new Date(0),
        Array(20).fill(300),
      ],
      [6, 4, 'k'],
    ]);
    expect((await raw.answer(5)).slice(0, 3)).toEqual([5, 1, 'UNSUPPORTED']);
    expect(await raw.answer(6)).toEqual([6, 0, false]);
  });

  test('reports its own faults as INTERNAL, without a word of the cause', async () => {
    const only = await host();
    only.service.failure = new TypeError('secret');
    const store = await client([only]);
    const error: unknown = await store.get('k').catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'INTERNAL' });
    expect((error as Error).message).not.toContain('secret');
    expect(only.faults).toEqual([only.service.failure]);
  });

  const OK = encodeValue(1);
  const STAMP = Buffer.alloc(16, 1);
  const BAD: [string, unknown][] = [
    ['no array', 7],
    ['no requests', []],
    ['too many requests', Array.from({ length: 4_097 }, (_, i) => [i + 2, 2, 'k'])],
    ['a request that is no array', [7]],
    ['a request without an operation', [[7]]],
    ['id 0', [[0, 2, 'k']]],
    ['a negative id', [[-1, 2, 'k']]],
    ['a huge id', [[2 ** 33, 2, 'k']]],
    ['a fractional id', [[1.5, 2, 'k']]],
    ['an operation that is text', [[7, 'get', 'k']]],
    ['too few arguments', [[7, 2]]],
    ['too many arguments', [[7, 2, 'k', 'l']]],
    ['a key that is a number', [[7, 2, 1]]],
    ['an empty key', [[7, 2, '']]],
    ['an oversized key', [[7, 2, 'k'.repeat(1_025)]]],
    ['too many keys', [[7, 3, Array(1_001).fill('k')]]],
    ['keys that are no list', [[7, 3, 'k']]],
    ['a scan without a limit', [[7, 5, null, null, null, null, null, false, 0, false]]],
    ['a scan of too many rows', [[7, 5, null, null, null, null, null, false, 1_001, false]]],
    ['a stamp that is too short', [[7, 6, Buffer.alloc(15), null, null, 10, [[1, 'k', OK]]]]],
    ['a deadline of 0', [[7, 6, STAMP, null, null, 0, [[1, 'k', OK]]]]],
    ['a deadline of years', [[7, 6, STAMP, null, null, 2 ** 40, [[1, 'k', OK]]]]],
    ['replicas below 0', [[7, 6, STAMP, -1, null, 10, [[1, 'k', OK]]]]],
    ['an operation of two elements', [[7, 6, STAMP, null, null, 10, [[1, 'k']]]]],
    ['a value that is text', [[7, 6, STAMP, null, null, 10, [[1, 'k', 'v']]]]],
    ['a level that is none', [[7, 9, 'soon', 10]]],
    ['a bucket beyond the last', [[7, 12, 256]]],
    ['a map', [[7, 2, { a: 1 }]]],
    [
      'an id that is in use',
      [
        [1_000, 9, 'local', 1_000],
        [1_000, 9, 'local', 1_000],
      ],
    ],
    ['deep nesting', [[7, 2, [[[[[[1]]]]]]]]],
  ];
  test.each(BAD)(
    'closes the connection of a client that sends %s, and serves the others',
    async (_name, frame) => {
      const only = await host();
      const store = await client([only]);
      const raw = await Raw.greeted(only);
      raw.send(frame);
      await until(() => raw.closed !== undefined);
      expect(raw.closed!.code).toBe(1002);
      expect(raw.closed!.reason).not.toBe('');
      expect(only.service.writes).toHaveLength(0);
      expect(only.faults).toEqual([]);
      expect(await store.has('k')).toBe(false);
    },
  );

  test('closes the connection of a client that sends text, or more than a frame holds', async () => {
    const only = await host();
    const text = await Raw.greeted(only);
    text.ws.send('hello');
    await until(() => text.closed !== undefined);
    expect(text.closed!.code).toBe(1003);
    const huge = await Raw.greeted(only);
    huge.ws.send(Buffer.alloc(9_000_000));
    await until(() => huge.closed !== undefined);
    expect(huge.closed!.code).toBe(1009);
  });

  test('answers well-formed requests whose content is bad with a code, and goes on', async () => {
    const only = await host();
    const raw = await Raw.greeted(only);
    raw.send([
      [5, 6, STAMP, null, null, 100, [[1, 'k', Buffer.from([0xc1])]]],
      [6, 6, STAMP, null, null, 100, [[1, 'k', Buffer.from([0x01, 0x01])]]],
      [7, 6, STAMP, null, null, 100, [[9, 'k', OK]]],
      [8, 6, STAMP, null, null, 100, [[2, 'k', OK]]],
      [9, 4, 'k'],
    ]);
    expect((await raw.answer(5)).slice(0, 3)).toEqual([5, 1, 'INVALID_VALUE']);
    expect((await raw.answer(6)).slice(0, 3)).toEqual([6, 1, 'INVALID_VALUE']);
    expect((await raw.answer(7)).slice(0, 3)).toEqual([7, 1, 'UNSUPPORTED']);
    expect((await raw.answer(8)).slice(0, 3)).toEqual([8, 1, 'INVALID_VALUE']);
    expect(await raw.answer(9)).toEqual([9, 0, false]);
    expect(only.service.writes).toHaveLength(0);
  });

  test('survives any bytes: only the connection that sent them ends', async () => {
    const only = await host();
    const store = await client([only]);
    const valid = pack([
      [5, 6, STAMP, 2, true, 100, [[1, 'key', OK]]],
      [6, 5, 'a', null, 'z', null, null, false, 10, true],
      [7, 3, ['a', 'b']],
    ]);
    const mutated = fc
      .array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
      .map((changes) => {
        const bytes = Buffer.from(valid);
        for (const [at, byte] of changes) bytes[at] = byte;
        return bytes;
      });
    const frames = fc.oneof(
      fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
      mutated,
    );
    await fc.assert(
      fc.asyncProperty(frames, async (frame) => {
        const raw = await Raw.greeted(only);
        raw.ws.send(frame, { binary: true });
        raw.send([[90, 4, 'k']]);
        // Either it is answered, or the connection is closed.
        await raw.answer(90);
        raw.ws.terminate();
      }),
      { numRuns: 150 },
    );
    expect(only.faults).toEqual([]);
    expect(await store.has('none')).toBe(false);
  });
});

describe('the client', () => {
  const greeting = [0, 0, CLIENT_PROTOCOL_VERSION, 'default', '', 'aa', 'raw', true, []];
  const hello = (id: number): unknown[] => [id, ...greeting.slice(1)];

  /** A host that answers `get` with the frames that `answer` makes. */
  async function rawHost(
    answer: (id: number) => (Buffer | string)[],
  ): Promise<{ address: string; closes: string[] }> {
    const server = new WebSocketServer({
      port: 0,
      host: '127.0.0.1',
      path: '/client',
      perMessageDeflate: false,
    });
    await new Promise((resolve) => server.once('listening', resolve));
    const closes: string[] = [];
    server.on('connection', (ws) => {
      ws.on('error', () => {});
      ws.on('close', (_code, reason) => closes.push(reason.toString()));
      ws.send(pack([1, 0, greeting]));
      ws.on('message', (data: Buffer) => {
        for (const [id, op] of unpack(data) as [number, number][]) {
          if (op === 1) ws.send(pack([1, 0, hello(id)]));
          else if (op === 2) for (const frame of answer(id)) ws.send(frame);
        }
      });
    });
    closeLater(async () => {
      for (const ws of server.clients) ws.terminate();
      await new Promise((resolve) => server.close(resolve));
    });
    return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, closes };
  }

  const answers: [string, (id: number) => (Buffer | string)[]][] = [
    ['no msgpack', () => [Buffer.from([0xc1])]],
    ['no array', () => [pack(7)]],
    ['no clock', () => [pack([])]],
    ['a clock beyond all stamps', (id) => [pack([2 ** 50, 0, [id, 0, null]])]],
    ['a response that is no array', () => [pack([1, 0, 5])]],
    ['a response without a status', (id) => [pack([1, 0, [id]])]],
    ['a status that is none', (id) => [pack([1, 0, [id, 3, null]])]],
    ['a result of the wrong length', (id) => [pack([1, 0, [id, 0, null, null]])]],
    ['a result of the wrong kind', (id) => [pack([1, 0, [id, 0, 'text']])]],
    ['a part of what has none', (id) => [pack([1, 0, [id, 2, null]])]],
    ['a failure without details', (id) => [pack([1, 0, [id, 1, 'NOT_READY', 'why']])]],
    ['details that are no JSON', (id) => [pack([1, 0, [id, 1, 'NOT_READY', 'why', '{']])]],
    ['a second greeting', () => [pack([1, 0, greeting])]],
    ['text', () => ['hello']],
  ];
  test.each(answers)('gives up a host that answers %s, and goes to the next', async (_name, answer) => {
    const bad = await rawHost(answer);
    const good = await host();
    good.service.apply('k', 'good');
    const store = await client([bad.address, good.address]);
    await until(() => good.service.statusCalls >= 2);
    expect(await store.get('k')).toBe('good');
    await until(() => bad.closes.length > 0);
    expect(bad.closes[0]).not.toBe('');
  });

  test('takes a code that it does not know for INTERNAL, and shows it', async () => {
    const newer = await rawHost((id) => [pack([1, 0, [id, 1, 'FROM_THE_FUTURE', 'why', '{"a":1}']])]);
    const store = await client([newer.address]);
    const details = { a: 1 };
    await expect(store.get('k')).rejects.toMatchObject({
      code: 'INTERNAL',
      message: 'FROM_THE_FUTURE: why',
      details,
    });
  });

  test('ends only the read of a value that cannot be decoded, and names the key', async () => {
    const broken = await rawHost((id) => [pack([1, 0, [id, 0, Buffer.from([0xc1])]])]);
    const store = await client([broken.address]);
    await expect(store.get('k')).rejects.toMatchObject({
      code: 'UNREADABLE',
      message: expect.stringContaining('"k"'),
    });
    expect(broken.closes).toEqual([]);
  });

  test('ignores answers to what nobody asked', async () => {
    const odd = await rawHost((id) => [pack([1, 0, [id + 1_000, 0, ['x', [1]], null], [id, 0, null]])]);
    const store = await client([odd.address]);
    expect(await store.get('k')).toBeUndefined();
  });

  test('refuses a host of another version of the protocol', async () => {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await new Promise((resolve) => server.once('listening', resolve));
    server.on('connection', (ws) => ws.send(pack([1, 0, [0, 0, 9, 'default', '', 'aa', 'raw', true, []]])));
    closeLater(async () => void server.close());
    const { port } = server.address() as AddressInfo;
    const connecting = connect({ hosts: [`127.0.0.1:${port}`], timeoutMs: 50_000 });
    await expect(connecting).rejects.toMatchObject({ code: 'VERSION_MISMATCH' });
  });
});

test('whatever the guard passes is passed over to its end, and everything else is refused', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    anyValue.map((value) => encodeValue(value)),
  );
  fc.assert(
    fc.property(bytes, (frameBytes) => {
      try {
        const frame = openFrame(frameBytes, 'frame');
        frame.skip(1);
        expect(frame.at).toBe(frameBytes.length);
      } catch (error) {
        if (!isReadmeshError(error)) throw error;
        expect(error.code).toBe('PROTOCOL_ERROR');
      }
    }),
    { numRuns: 3_000 },
  );
});
