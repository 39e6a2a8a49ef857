import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Links } from '../../src/transport/links.js';
import { Listener } from '../../src/transport/listener.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { BINARY, frame, type Host, Recorder, rawPeer, startHost, startPair, text } from './harness.js';

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

/** The newest link. */
const id = (events: Recorder): number => events.opened.at(-1)?.link ?? 0;

describe('bytes of a hostile peer', () => {
  const cases: [name: string, sent: Uint8Array, reason: RegExp][] = [
    ['a text frame', frame(0x81, bytes('hi')), /text frame/],
    ['an unmasked frame', Uint8Array.of(0x82, 0x01, 0x00), /MASK must be set/],
    ['a compressed frame that was not agreed on', frame(0xc2, bytes('x')), /RSV1/],
    ['reserved bits', frame(0xb2, bytes('x')), /RSV2 and RSV3/],
    ['an unknown opcode', frame(0x83, bytes('x')), /opcode 3/],
    ['a continuation of nothing', frame(0x80, bytes('x')), /opcode 0/],
    ['a fragmented ping', frame(0x09, bytes('x')), /FIN must be set/],
    ['a frame over the cap', frame(BINARY, new Uint8Array(1_001)), /Max payload size/],
    ['a length over 2^53', Uint8Array.of(0x82, 0xff, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0), /2\^53/],
    ['a close code that does not exist', frame(0x88, Uint8Array.of(0, 1)), /status code 1/],
    [
      'many empty fragments',
      Buffer.concat(Array.from({ length: 1_100 }, (_, i) => frame(i ? 0 : 2))),
      /fragments/,
    ],
    ['HTTP once more', bytes('GET / HTTP/1.1\r\n\r\n'), /RSV|MASK|opcode/],
    ['half a frame and the end', frame(BINARY, bytes('abcdef')).subarray(0, 8), /lost/],
  ];
  let host: Host;
  beforeEach(async () => {
    host = ending(await startHost({ frameBytesMax: 1_000, closeTimeoutMs: 200 }));
  });

  test.each(cases)('%s ends its own link only, with the reason', async (_name, sent, reason) => {
    const good = await rawPeer(host.port);
    const evil = await rawPeer(host.port);
    evil.write(frame(BINARY, bytes('before'))).write(sent);
    evil.socket.end();
    await host.events.until(() => host.events.closed.length > 0);
    expect(host.events.closed[0]).toMatchObject({ link: 2, reason: expect.stringMatching(reason) });
    await evil.closed;
    good.write(frame(BINARY, bytes('good')));
    await host.events.until(() => host.events.messages.some((message) => message.link === 1));
    expect(host.links.count).toBe(1);
    expect(host.events.messages.map((message) => text(message.bytes))).not.toContain('hi');
    good.socket.destroy();
  });

  test('a flood of pings ends the link', async () => {
    const evil = await rawPeer(host.port);
    evil.write(Buffer.concat(Array.from({ length: 5_000 }, () => frame(0x8a))));
    await host.events.until(() => host.events.closed.length > 0);
    expect(host.events.closed[0]?.reason).toMatch(/pings and pongs within/);
    await evil.closed;
  });

  test('a trickle of pongs over the cap ends the link at the next poll', async () => {
    const strict = ending(await startHost({ controlFramesMax: 4, alivePollMs: 20 }));
    const evil = await rawPeer(strict.port);
    evil.write(Buffer.concat(Array.from({ length: 5 }, () => frame(0x8a))));
    await strict.events.until(() => strict.events.closed.length > 0);
    expect(strict.events.closed[0]?.reason).toBe('5 pings and pongs within 20 ms');
  });

  test('a peer that never finishes closing is cut', async () => {
    const evil = await rawPeer(host.port);
    host.links.close(1, 'go away');
    await evil.closed;
    expect(host.events.closed).toHaveLength(1);
  });

  test('a flood does not starve the event loop, and arrives whole and in order', async () => {
    const slow = ending(await startHost({ sliceMs: 0, inboxFramesMax: 8 }));
    let turnsSeen = 0;
    let counting = true;
    const turn = (): void => {
      turnsSeen++;
      if (counting) setImmediate(turn);
    };
    const turnAt: number[] = [];
    slow.events.handle = () => turnAt.push(turnsSeen);
    const flood = await rawPeer(slow.port);
    flood.write(Buffer.concat(Array.from({ length: 500 }, (_, i) => frame(BINARY, bytes(`${i}`)))));
    setImmediate(turn);
    await slow.events.until(() => slow.events.messages.length === 500);
    counting = false;
    expect(slow.events.messages.map((message) => text(message.bytes))).toEqual(
      Array.from({ length: 500 }, (_, i) => `${i}`),
    );
    for (let i = 1; i < 500; i++) expect(turnAt[i]! - turnAt[i - 1]!).toBeGreaterThanOrEqual(1);
    flood.socket.destroy();
  });

  test('a link whose frames are not handled in time is not read any further', async () => {
    const events = new Recorder();
    const caps = { sliceMs: 0, inboxBytesMax: 100_000, frameBytesMax: 100_000 };
    const links = new Links(caps, events);
    let socket: Socket | undefined;
    const listener = new Listener(
      {
        full: false,
        accept: (ws, accepted) => {
          socket = accepted;
          links.accept(ws, accepted);
        },
      },
      caps,
    );
    const { port } = await listener.listen('127.0.0.1', 0);
    stops.push(async () => {
      await links.closeAll();
      await listener.close();
    });
    const flood = await rawPeer(port);
    const frames = 1_000;
    let mostAhead = 0;
    let handled = 0;
    events.handle = (_link, received) => {
      handled += received.length;
      mostAhead = Math.max(mostAhead, (socket?.bytesRead ?? Number.POSITIVE_INFINITY) - handled);
    };
    const big = frame(BINARY, new Uint8Array(65_536));
    for (let sent = 0; sent < frames; sent++) flood.write(big);
    await events.until(() => events.messages.length === frames);
    // The inbox over its cap by a frame, a frame in the making, and the reads that were under way.
    expect(mostAhead).toBeLessThan(100_000 + 6 * 65_536);
    expect(mostAhead).toBeGreaterThan(100_000);
    flood.socket.destroy();
  });
});

describe('through a faulty network', () => {
  test.each(['toTarget', 'toClient'] as const)(
    'a connection reset at any byte %s fails its dial or closes its link once, and the next one opens',
    async (way) => {
      const host = ending(await startHost());
      const proxy = await TcpProxy.start({ port: host.port });
      stops.push(() => proxy.close());
      const events = new Recorder();
      const links = new Links({}, events);
      stops.push(() => links.closeAll());
      const ends = (): number => events.failed.length + events.closed.length;
      let dials = 0;
      let cutInUpgrade = 0;
      for (let at = 0; ; at += 13) {
        proxy.resetAfter(at, way);
        links.dial(proxy.address);
        dials++;
        await events.until(() => ends() === dials || links.count === 1);
        if (links.count === 0) cutInUpgrade++;
        // The upgrade got through: a frame each way sets off the fault.
        else
          for (const side of [links, host.links])
            side.send(side === links ? id(events) : id(host.events), bytes('x'.repeat(600)), false);
        await events.until(() => ends() === dials);
        if (proxy.counts.resets !== dials) throw new Error('the reset did not fire');
        if (at > 400) break;
      }
      expect(cutInUpgrade).toBeGreaterThan(5);
      expect(events.closed.length).toBeGreaterThan(5);
      proxy.heal();
      links.dial(proxy.address);
      await events.until(() => links.count === 1);
      links.send(id(events), bytes('healed'), false);
      await host.events.until(() => host.events.messages.some((message) => text(message.bytes) === 'healed'));
    },
  );

  test('a frame cut off within is never handed out', async () => {
    let proxy: TcpProxy | undefined;
    const { a, b } = ending(
      await startPair({
        through: async (host) => (proxy = await TcpProxy.start({ port: host.port })).address,
      }),
    );
    proxy?.truncateAfter(proxy.counts.toTarget + 1_000, 'toTarget');
    for (let i = 0; i < 30; i++) a.links.send(a.link, bytes(`${i}`.padEnd(100, '.')), false);
    await b.events.until(() => b.events.closed.length === 1);
    expect(b.events.messages.map((message) => message.bytes.length)).toEqual(
      Array.from({ length: 9 }, () => 100),
    );
    expect(b.events.closed[0]?.reason).toBe('the connection was lost');
    await a.events.until(() => a.events.closed.length === 1);
    expect(proxy?.counts.truncations).toBe(1);
    await proxy?.close();
  });

  test('a half-open link shows no sign of life, and can be closed all the same', async () => {
    let proxy: TcpProxy | undefined;
    const { a, b } = ending(
      await startPair({
        a: { alivePollMs: 10, closeTimeoutMs: 50 },
        through: async (host) => (proxy = await TcpProxy.start({ port: host.port })).address,
      }),
    );
    const chatter = setInterval(() => b.links.send(1, bytes('beat'), false), 2);
    await a.events.until(() => a.events.alive.length >= 2);
    proxy?.blackhole('toClient');
    await new Promise((resolve) => setTimeout(resolve, 60));
    const alive = a.events.alive.length;
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(a.events.alive).toHaveLength(alive);
    a.links.close(a.link, 'silent');
    await a.links.closeAll();
    clearInterval(chatter);
    expect(a.events.closed).toMatchObject([{ reason: 'silent' }]);
    await proxy?.close();
  });
});
