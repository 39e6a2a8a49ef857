import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import type { WebSocket } from 'ws';
import { Links } from '../../src/transport/links.js';
import { Listener } from '../../src/transport/listener.js';
import {
  activeSockets,
  BINARY,
  frame,
  RawClient,
  Recorder,
  rawPeer,
  startHost,
  startPair,
  text,
  upgradeHead,
} from './harness.js';

const stops: (() => Promise<unknown>)[] = [];
const bytes = (content: string): Uint8Array => Buffer.from(content);

/** Has the value ended when the test ends. */
function ending<T extends { stop(): Promise<unknown> }>(value: T): T {
  stops.push(() => value.stop());
  return value;
}

afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

async function bareServer(onSocket: (socket: Socket) => void): Promise<{ server: Server; address: string }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    onSocket(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  stops.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { server, address: `127.0.0.1:${address.port}` };
}

describe('a link', () => {
  test('carries frames of every size both ways, whole and in order', async () => {
    const { a, b, link } = ending(await startPair());
    expect(a.events.opened).toEqual([{ link: a.link, dialed: b.address, remote: b.address }]);
    expect(b.events.opened[0]?.dialed).toBeUndefined();
    const sizes = [0, 1, 125, 126, 65_535, 65_536, 3_000_000, 5];
    for (const [from, to, via] of [
      [a.links, b.events, a.link],
      [b.links, a.events, link],
    ] as const) {
      const sent = sizes.map((size, at) => new Uint8Array(size).fill(at + 1));
      for (const each of sent) expect(from.send(via, each, true)).toBe(true);
      await to.until(() => to.messages.length === sizes.length);
      expect(
        to.messages.map((message) => Buffer.compare(message.bytes, sent[to.messages.indexOf(message)]!)),
      ).toEqual(sizes.map(() => 0));
    }
  });

  test('gives bytes away for good: what follows never changes them', async () => {
    const { a, b } = ending(await startPair());
    const kept: [Uint8Array, string][] = [];
    b.events.handle = (_link, received) => kept.push([received, text(received)]);
    for (let i = 0; i < 2_000; i++) a.links.send(a.link, bytes(`frame ${i} ${'x'.repeat(i % 300)}`), false);
    await b.events.until(() => kept.length === 2_000);
    for (const [received, then] of kept) expect(text(received)).toBe(then);
    expect(kept[1_999]?.[1]).toMatch(/^frame 1999 /);
  });

  test('sends the frames of one tick in one write', async () => {
    let writes = 0;
    const events = new Recorder();
    const links = new Links({}, events);
    const listener = new Listener({
      full: false,
      accept(ws: WebSocket, socket: Socket) {
        links.accept(ws, socket);
        const { _write, _writev } = socket;
        socket._write = (...args) => {
          writes++;
          _write.apply(socket, args);
        };
        socket._writev = (...args) => {
          writes++;
          _writev?.apply(socket, args);
        };
      },
    });
    const { port } = await listener.listen('127.0.0.1', 0);
    stops.push(async () => {
      await links.closeAll();
      await listener.close();
    });
    const raw = await rawPeer(port);
    // The answer to the upgrade is on its way in a write of its own.
    await new Promise(setImmediate);
    writes = 0;
    for (let i = 0; i < 20; i++) links.send(1, bytes('frame'), false);
    const before = raw.bytes.length;
    await raw.until(() => raw.bytes.length >= before + 20 * 7);
    expect(writes).toBe(1);
    raw.socket.destroy();
  });

  test('hands out what came before a close, then says why it closed', async () => {
    const { a, b } = ending(await startPair({ b: { sliceMs: 0 } }));
    for (let i = 0; i < 20; i++) a.links.send(a.link, bytes(`${i}`), false);
    a.links.close(a.link, 'you are \u0007 refused');
    await b.events.until(() => b.events.closed.length > 0);
    expect(b.events.messages.map((message) => text(message.bytes))).toEqual(
      Array.from({ length: 20 }, (_, i) => `${i}`),
    );
    expect(b.events.closed[0]?.reason).toBe('closed by the peer (1000): "you are \\u0007 refused"');
    expect(a.events.closed).toEqual([{ link: a.link, reason: 'you are \u0007 refused', dialed: b.address }]);
  });

  test('a reason too long for a close frame is cut between characters', async () => {
    const { a, b } = ending(await startPair());
    a.links.close(a.link, '\u20ac'.repeat(100));
    await b.events.until(() => b.events.closed.length > 0);
    expect(b.events.closed[0]?.reason).toBe(`closed by the peer (1000): "${'\u20ac'.repeat(41)}"`);
  });

  test('receives nothing more once it is closed from here', async () => {
    const { a, b, link } = ending(await startPair({ b: { sliceMs: 0 } }));
    b.events.handle = () => {
      if (b.events.messages.length === 1) b.links.close(link, 'enough');
    };
    for (let i = 0; i < 20; i++) a.links.send(a.link, bytes(`${i}`), false);
    await a.events.until(() => a.events.closed.length > 0);
    await b.events.until(() => b.events.closed.length > 0);
    expect(b.events.messages).toHaveLength(2);
    expect(b.links.send(link, bytes('x'), false)).toBe(false);
    expect([b.links.count, b.links.bufferedBytes(link)]).toEqual([0, 0]);
  });

  test('closes in order while its inbox is full, without waiting for any deadline', async () => {
    const { a, b, link } = await startPair({
      a: { closeTimeoutMs: 600_000 },
      b: { sliceMs: 0, inboxFramesMax: 4, closeTimeoutMs: 600_000 },
    });
    b.events.handle = () => b.links.close(link, 'enough');
    for (let i = 0; i < 5_000; i++) a.links.send(a.link, new Uint8Array(1_000), false);
    await a.events.until(() => a.events.closed.length > 0);
    expect(a.events.closed[0]?.reason).toBe('closed by the peer (1000): "enough"');
    expect(b.events.messages).toHaveLength(1);
    await a.links.closeAll();
    await b.stop();
  });

  test('calls nothing back within send or close', async () => {
    const { a } = ending(await startPair({ a: { linkQueueBytesMax: 10, frameBytesMax: 100_000 } }));
    const seen = a.events.log.length;
    expect(a.links.send(a.link, new Uint8Array(100_000), false)).toBe(true);
    expect(a.links.send(a.link, new Uint8Array(1), false)).toBe(false);
    a.links.close(a.link);
    a.links.close(a.link);
    expect(a.events.log).toHaveLength(seen);
    await a.events.until(() => a.events.closed.length > 0);
    await new Promise(setImmediate);
    expect(a.events.count(`closed ${a.link}`)).toBe(1);
  });

  test('a frame over the cap is not sent: the link closes and names it', async () => {
    const { a } = ending(await startPair({ a: { frameBytesMax: 1_000 } }));
    expect(a.links.send(a.link, new Uint8Array(1_001), true)).toBe(false);
    await a.events.until(() => a.events.closed.length > 0);
    expect(a.events.closed[0]?.reason).toMatch(/1001 bytes.*frameBytesMax/);
  });

  test('a handler that throws costs its own link, not the process or another link', async () => {
    const { a, b, link } = ending(await startPair());
    const other = await rawPeer(b.port);
    b.events.handle = (_link, received) => {
      if (text(received) === 'bad') throw new Error('cannot be decoded');
    };
    a.links.send(a.link, bytes('bad'), false);
    a.links.send(a.link, bytes('good'), false);
    await b.events.until(() => b.events.closed.length > 0);
    expect(b.events.closed[0]).toMatchObject({ link, reason: expect.stringContaining('cannot be decoded') });
    await a.events.until(() => a.events.closed.length > 0);
    expect(a.events.closed[0]?.reason).toBe('closed by the peer (1011): "internal error"');
    other.write(frame(BINARY, bytes('still here')));
    await b.events.until(() => b.events.messages.length > 0);
    expect(b.events.messages.map((message) => text(message.bytes))).toEqual(['still here']);
    other.socket.destroy();
  });

  test('numbers of links are never used again', async () => {
    const host = ending(await startHost());
    for (let i = 0; i < 3; i++) (await rawPeer(host.port)).socket.destroy();
    await host.events.until(() => host.events.closed.length === 3);
    expect(host.events.opened.map((opened) => opened.link)).toEqual([1, 2, 3]);
    expect(host.events.closed.map((closed) => closed.reason)).toEqual(
      Array.from({ length: 3 }, () => 'the connection was lost'),
    );
  });
});

describe('liveness', () => {
  test('bytes in the middle of a frame count as a sign of life, silence does not', async () => {
    const host = ending(await startHost({ alivePollMs: 20 }));
    const silent = await rawPeer(host.port);
    const dripping = await rawPeer(host.port);
    dripping.write(frame(BINARY, new Uint8Array(1_000)).subarray(0, 8));
    const drip = setInterval(() => dripping.write(Uint8Array.of(0)), 5);
    await host.events.until(() => host.events.count('alive 2') >= 5);
    clearInterval(drip);
    expect(host.events.count('alive 1')).toBe(0);
    expect(host.events.messages).toHaveLength(0);
    silent.socket.destroy();
    dripping.socket.destroy();
  });
});

describe('a peer that does not read', () => {
  test('congests the link at the cap: best effort is refused, the rest passes, and draining ends it', async () => {
    const host = ending(await startHost({ linkQueueBytesMax: 1_000_000 }));
    const lazy = await rawPeer(host.port);
    lazy.socket.pause();
    const chunk = new Uint8Array(100_000);
    let refused = false;
    for (let i = 0; i < 1_000 && !refused; i++) {
      refused = !host.links.send(1, chunk, true);
      await new Promise(setImmediate);
    }
    expect(refused).toBe(true);
    expect(host.events.count('congested 1')).toBe(1);
    const queued = host.links.bufferedBytes(1);
    expect(queued).toBeGreaterThan(1_000_000);
    expect(queued).toBeLessThan(1_200_000);
    expect(host.links.send(1, chunk, false)).toBe(true);
    expect(host.links.send(1, chunk, true)).toBe(false);
    expect(host.events.count('drained 1')).toBe(0);
    lazy.socket.resume();
    await host.events.until(() => host.events.count('drained 1') > 0);
    expect(host.links.bufferedBytes(1)).toBeLessThanOrEqual(250_000);
    expect(host.links.send(1, chunk, true)).toBe(true);
    lazy.socket.destroy();
    await host.events.until(() => host.events.closed.length > 0);
    expect(host.events.count('congested 1')).toBe(1);
  });

  test('is cut at twice the cap, without waiting for it', async () => {
    const host = ending(await startHost({ linkQueueBytesMax: 500_000 }));
    const lazy = await rawPeer(host.port);
    lazy.socket.pause();
    let sent = 0;
    while (host.links.send(1, new Uint8Array(100_000), false) && sent < 1_000) {
      sent++;
      await new Promise(setImmediate);
    }
    expect(host.links.bufferedBytes(1)).toBeLessThan(1_200_000);
    await host.events.until(() => host.events.closed.length > 0);
    expect(host.events.closed[0]?.reason).toMatch(/does not read: \d+ bytes are queued/);
    lazy.socket.destroy();
  });
});

describe('a dial', () => {
  async function dialed(address: string, options = {}): Promise<Recorder> {
    const events = new Recorder();
    const links = new Links(options, events);
    stops.push(() => links.closeAll());
    links.dial(address);
    expect(events.log).toEqual([]);
    await events.until(() => events.log.length > 0);
    return events;
  }

  test('of something that is no address fails with the reason', async () => {
    for (const address of ['db1', 'http://db1:7700', '127.0.0.1:7700/client'])
      expect((await dialed(address)).failed).toEqual([
        { address, reason: expect.stringContaining('is no address') },
      ]);
  });

  test('of a closed port fails', async () => {
    const { server, address } = await bareServer(() => {});
    await new Promise((resolve) => server.close(resolve));
    const events = await dialed(address);
    expect(events.failed).toEqual([{ address, reason: expect.stringContaining('ECONNREFUSED') }]);
  });

  test.each([
    ['says nothing', (_socket: Socket) => {}],
    [
      'drips its answer',
      (socket: Socket) => {
        const drip = setInterval(() => socket.write('H'), 10);
        socket.write('HTTP/1.1 101 ');
        socket.once('close', () => clearInterval(drip));
      },
    ],
  ])('of a host that %s fails at its deadline', async (_name, onSocket) => {
    const { address } = await bareServer(onSocket);
    const events = await dialed(address, { dialTimeoutMs: 100 });
    expect(events.failed).toEqual([{ address, reason: 'no answer within 100 ms' }]);
  });

  test.each([
    ['hangs up', (socket: Socket) => socket.destroy()],
    ['speaks something else', (socket: Socket) => socket.end('SSH-2.0-x\r\n')],
    [
      'answers with a wrong key',
      (socket: Socket) =>
        socket.write(
          'HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n',
        ),
    ],
    ['redirects', (socket: Socket) => socket.end('HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n')],
    [
      'refuses at length',
      (socket: Socket) => socket.write(`HTTP/1.1 500 x\r\nContent-Length: 99999\r\n\r\n${'x'.repeat(9_000)}`),
    ],
  ])('of a host that %s fails once', async (_name, onSocket) => {
    const { address } = await bareServer((socket) => {
      socket.once('data', () => onSocket(socket));
    });
    const events = await dialed(address);
    await new Promise(setImmediate);
    expect(events.log).toEqual([`failed ${address}`]);
  });

  test('that is refused repeats what the other side says', async () => {
    const host = ending(await startHost({ peerLinksMax: 0 }));
    const events = await dialed(host.address);
    expect(events.failed[0]?.reason).toBe(
      'refused with HTTP 503 "OVERLOADED: all places for links of peers are taken"',
    );
  });
});

describe('places', () => {
  test('accepted links are capped, those dialed have places of their own, and a closed one frees its place', async () => {
    const a = ending(await startHost({ peerLinksMax: 1 }));
    const b = ending(await startHost());
    const first = await rawPeer(a.port);
    expect(a.links.full).toBe(true);
    const second = new RawClient(a.port).write(upgradeHead('/peer'));
    expect(await second.until((got) => got.includes('}'))).toMatch(/^HTTP\/1.1 503 .*"code":"OVERLOADED"/s);
    a.links.dial(b.address);
    await a.events.until(() => a.events.opened.length === 2);
    a.links.dial(b.address);
    await a.events.until(() => a.events.failed.length === 1);
    expect(a.events.failed[0]?.reason).toBe('all 1 places for dialed links are taken');
    first.socket.destroy();
    await a.events.until(() => a.events.closed.length === 1);
    expect(a.links.full).toBe(false);
    (await rawPeer(a.port)).socket.destroy();
  });
});

describe('closeAll', () => {
  test('ends every link and dial exactly once and leaves nothing behind, whatever state they are in', async () => {
    const before = activeSockets().filter((kind) => kind === 'Timeout').length;
    const { address: silent, server } = await bareServer(() => {});
    const { a, b } = await startPair({ a: { closeTimeoutMs: 100 }, b: { closeTimeoutMs: 100 } });
    const lazy = await rawPeer(b.port);
    lazy.socket.pause();
    b.links.send(2, new Uint8Array(8_000_000), false);
    a.links.dial(silent);
    a.links.dial('nonsense');
    await a.links.closeAll();
    await a.links.closeAll();
    expect(a.events.closed).toEqual([
      { link: a.link, reason: 'the node is shutting down', dialed: b.address },
    ]);
    expect(a.events.failed.map((failed) => failed.address).sort()).toEqual([silent, 'nonsense'].sort());
    await Promise.all([b.links.closeAll(), b.links.closeAll()]);
    expect(b.events.closed).toHaveLength(2);
    expect([a.links.count, b.links.count]).toEqual([0, 0]);
    a.links.dial(b.address);
    await a.events.until(() => a.events.failed.length === 3);
    await b.listener.close();
    lazy.socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    await lazy.closed;
    await new Promise(setImmediate);
    const after = activeSockets();
    expect(after.filter((kind) => kind !== 'Timeout')).toEqual([]);
    expect(after.length).toBeLessThanOrEqual(before);
  });

  test('stops the poll of the sockets, and a link that opens later starts it anew', async () => {
    const started = vi.spyOn(globalThis, 'setInterval');
    const stopped = vi.spyOn(globalThis, 'clearInterval');
    const polls = (): unknown[] =>
      started.mock.calls.flatMap(([, ms], call) =>
        ms === 12_345 ? [started.mock.results[call]?.value] : [],
      );
    try {
      const host = await startHost({ alivePollMs: 12_345 });
      for (let i = 1; i <= 2; i++) {
        (await rawPeer(host.port)).socket.destroy();
        await host.events.until(() => host.events.closed.length === i);
        expect(polls()).toHaveLength(i);
      }
      await host.stop();
      const cleared = stopped.mock.calls.map(([timer]) => timer);
      for (const timer of polls()) expect(cleared.includes(timer as NodeJS.Timeout)).toBe(true);
    } finally {
      started.mockRestore();
      stopped.mockRestore();
    }
  });

  test('of nothing resolves at once', async () => {
    await new Links({}, new Recorder()).closeAll();
  });
});
