import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { TcpProxy } from '../support/tcp-proxy.js';
import { RawClient } from './harness.js';

let server: Server;
let proxy: TcpProxy;
/** The target's side of each connection, in order. */
let accepted: { socket: Socket; got: string; ended: boolean; closed: boolean }[];
let echo: boolean;

beforeEach(async () => {
  accepted = [];
  echo = true;
  server = createServer({ allowHalfOpen: true }, (socket) => {
    const side = { socket, got: '', ended: false, closed: false };
    accepted.push(side);
    socket.on('data', (chunk) => {
      side.got += chunk.toString('latin1');
      if (echo) socket.write(chunk);
    });
    socket.on('error', () => {});
    socket.on('end', () => {
      side.ended = true;
      socket.end();
    });
    socket.on('close', () => {
      side.closed = true;
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  proxy = await TcpProxy.start({ port: (server.address() as AddressInfo).port });
});

afterEach(async () => {
  await proxy.close();
  for (const { socket } of accepted) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});

async function settle(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

async function greeted(): Promise<RawClient> {
  const client = new RawClient(proxy.port).write('hi');
  await client.until((got) => got === 'hi');
  return client;
}

describe('without faults', () => {
  test('bytes and ends pass both ways, whole and in order', async () => {
    const client = await greeted();
    const big = Array.from({ length: 200_000 }, (_, i) => String(i)).join(' ');
    client.write(big);
    await client.until((got) => got.length === 2 + big.length);
    expect(client.text).toBe(`hi${big}`);
    client.socket.end();
    await client.closed;
    expect(accepted[0]?.ended).toBe(true);
    await settle(() => proxy.connections === 0);
    expect(proxy.counts).toMatchObject({ accepted: 1, toTarget: 2 + big.length, toClient: 2 + big.length });
  });

  test('a reset by one side resets the other', async () => {
    const client = await greeted();
    accepted[0]?.socket.resetAndDestroy();
    await client.closed;
    await settle(() => proxy.connections === 0);
  });

  test('a target that is not there closes the client', async () => {
    const lonely = await TcpProxy.start({ port: 1 });
    await new RawClient(lonely.port).closed;
    await lonely.close();
  });
});

test('a cut ends connections and refuses new ones until it is healed', async () => {
  const client = await greeted();
  proxy.cut();
  await client.closed;
  await new RawClient(proxy.port).closed;
  await settle(() => accepted[0]?.closed === true);
  expect(proxy.counts).toMatchObject({ accepted: 1, cut: 1, refused: 1 });
  proxy.heal();
  await greeted();
});

test('a drop ends connections, and new ones pass', async () => {
  const client = await greeted();
  proxy.drop();
  await client.closed;
  await greeted();
  expect(proxy.counts.cut).toBe(1);
});

test('a one-way blackhole holds that direction only, and what it held flows on after', async () => {
  const client = await greeted();
  proxy.blackhole('toClient');
  client.write(' one');
  await settle(() => accepted[0]?.got === 'hi one');
  proxy.heal();
  await client.until((got) => got === 'hi one');
  proxy.blackhole('toTarget');
  client.write(' two');
  accepted[0]?.socket.write(' back');
  await client.until((got) => got === 'hi one back');
  expect(accepted[0]?.got).toBe('hi one');
  proxy.heal();
  await client.until((got) => got === 'hi one back two');
});

test('a blackhole hides the end of a connection: the other side stays half-open', async () => {
  const client = await greeted();
  proxy.blackhole();
  client.socket.destroy();
  await client.closed;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(accepted[0]).toMatchObject({ ended: false, closed: false });
  expect(proxy.connections).toBe(1);
  proxy.heal();
  await settle(() => accepted[0]?.closed === true);
});

test('a blackhole fills up: a sender is held back, not buffered without end', async () => {
  const client = await greeted();
  proxy.blackhole('toTarget');
  const total = 64 * 1_048_576;
  client.write(new Uint8Array(total));
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(client.socket.writableLength).toBeGreaterThan(0);
  echo = false;
  proxy.heal();
  await settle(() => proxy.counts.toTarget === total + 2);
});

test('delay holds each chunk for at least that long, in order, jitter or not', async () => {
  const client = await greeted();
  proxy.delay(30, 20);
  const begun = performance.now();
  for (let i = 0; i < 10; i++) {
    client.write(String(i));
    await new Promise(setImmediate);
  }
  await client.until((got) => got === 'hi0123456789');
  // Once each way, at the least; timers may fire a fraction of a millisecond early.
  expect(performance.now() - begun).toBeGreaterThan(58);
});

test('a limit spreads bytes over time', async () => {
  const client = await greeted();
  proxy.limit(100_000);
  const begun = performance.now();
  client.write(new Uint8Array(10_000));
  await client.until((got) => got.length === 10_002);
  // Five slices, four waits of 20 ms, at the least.
  expect(performance.now() - begun).toBeGreaterThan(75);
});

describe('at a chosen byte', () => {
  test.each(['toTarget', 'toClient'] as const)(
    'a truncation %s lets exactly the bytes before it arrive',
    async (way) => {
      proxy.truncateAfter(5, way);
      const client = new RawClient(proxy.port).write('0123456789');
      await client.closed;
      await settle(() => accepted[0]?.closed === true);
      if (way === 'toTarget') expect(accepted[0]?.got).toBe('01234');
      else expect(client.text).toBe('01234');
      expect(proxy.counts).toMatchObject({ truncations: 1, [way]: 5 });
      await greeted();
    },
  );

  test('a reset ends both sides there, as often as asked', async () => {
    proxy.resetAfter(1, 'toTarget', 2);
    for (let i = 0; i < 2; i++) await new RawClient(proxy.port).write('xy').closed;
    expect(proxy.counts).toMatchObject({ resets: 2, toTarget: 2, toClient: expect.any(Number) });
    await greeted();
    expect(proxy.counts.resets).toBe(2);
  });

  test('a reset after nothing fires at the first byte', async () => {
    proxy.resetAfter(0, 'toTarget');
    await new RawClient(proxy.port).write('x').closed;
    expect(proxy.counts).toMatchObject({ resets: 1, toTarget: 0 });
  });

  test('bytes are counted over chunks, and those up to the fault pass without it', async () => {
    proxy.resetAfter(4, 'toTarget');
    const client = await greeted();
    client.write('jk');
    await client.until((got) => got === 'hijk');
    expect(proxy.counts.resets).toBe(0);
    client.write('l');
    await client.closed;
    expect(proxy.counts.resets).toBe(1);
  });
});

test('close ends everything', async () => {
  const client = await greeted();
  proxy.blackhole();
  await proxy.close();
  await client.closed;
  await settle(() => accepted[0]?.closed === true);
  expect(proxy.connections).toBe(0);
  proxy = await TcpProxy.start({ port: 1 });
});
