import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { Links } from '../../src/transport/links.js';
import { Listener, type ListenerOptions } from '../../src/transport/listener.js';
import {
  activeSockets,
  BINARY,
  frame,
  type Host,
  RawClient,
  Recorder,
  rawPeer,
  startHost,
  upgradeHead,
} from './harness.js';

const stops: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

async function start(options: ListenerOptions = {}): Promise<Host> {
  const host = await startHost(options);
  stops.push(() => host.stop());
  return host;
}

const get = (path: string, headers = 'Host: localhost\r\n'): string =>
  `GET ${path} HTTP/1.1\r\n${headers}\r\n`;
const whole = (got: string): boolean => got.includes('}');
const hello = (_request: IncomingMessage, response: ServerResponse): void => {
  response.end('{"hello":true}');
};

async function ask(port: number, request: string): Promise<string> {
  const raw = new RawClient(port).write(request);
  const answer = await raw.until(whole);
  raw.socket.destroy();
  return answer;
}

/** Lets the server see what was done on the client's side of its sockets. */
async function settle(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

describe('one port', () => {
  test('serves HTTP, peers and clients', async () => {
    const host = await start();
    host.listener.handle(hello);
    host.listener.acceptClients((ws, remote) => ws.send(`welcome ${remote.split(':')[0]}`));
    expect(await ask(host.port, get('/'))).toMatch(/^HTTP\/1.1 200 .*\{"hello":true\}/s);
    const peer = new WebSocket(`ws://${host.address}/peer`);
    await host.events.until(() => host.events.opened.length === 1);
    const client = new WebSocket(`ws://${host.address}/client?x=1`);
    const welcome = await new Promise((resolve) => client.once('message', (data) => resolve(String(data))));
    expect(welcome).toBe('welcome 127.0.0.1');
    expect(client.extensions).toBe('');
    expect(host.listener.counts).toMatchObject({ clients: 1 });
    expect(host.links.count).toBe(1);
    peer.terminate();
    client.terminate();
    await settle(() => host.listener.counts.clients === 0 && host.listener.counts.sockets === 0);
  });

  test('answers 503 until the node is ready to serve', async () => {
    const host = await start();
    expect(await ask(host.port, get('/'))).toMatch(/^HTTP\/1.1 503 .*"code":"NOT_READY"/s);
    expect(await ask(host.port, upgradeHead('/client'))).toMatch(/^HTTP\/1.1 503 .*"code":"NOT_READY"/s);
  });

  test.each([
    ['another path', upgradeHead('/other'), 404, 'NOT_FOUND'],
    ['a path that only begins alike', upgradeHead('/peerage'), 404, 'NOT_FOUND'],
    ['another protocol', upgradeHead('/peer', { Upgrade: 'h2c' }), 400, 'UNSUPPORTED'],
  ])('refuses an upgrade to %s', async (_name, request, status, code) => {
    const host = await start();
    expect(await ask(host.port, request)).toMatch(new RegExp(`^HTTP/1.1 ${status} .*"code":"${code}"`, 's'));
  });

  test('an upgrade that is no WebSocket handshake opens no link', async () => {
    const host = await start();
    const raw = new RawClient(host.port).write(upgradeHead('/peer', { 'Sec-WebSocket-Key': 'short' }));
    await raw.closed;
    expect(raw.text).toMatch(/^HTTP\/1.1 400 /);
    expect(host.events.log).toEqual([]);
  });

  test('a client that sends a bad frame does not end the process, even without a listener for errors', async () => {
    const host = await start();
    host.listener.acceptClients(() => {});
    const raw = new RawClient(host.port).write(upgradeHead('/client'));
    await raw.until((got) => got.includes('\r\n\r\n'));
    raw.write(frame(0xff));
    await raw.closed;
    await settle(() => host.listener.counts.clients === 0);
  });
});

describe('a foreign page', () => {
  const foreign = [
    ['Origin', 'Host: localhost\r\nOrigin: http://evil.example\r\n'],
    ['Host', 'Host: evil.example\r\n'],
    ['Host and Origin alike', 'Host: evil.example\r\nOrigin: http://evil.example\r\n'],
  ] as const;

  test.each(foreign)('by its %s is refused before its request is handled', async (_name, headers) => {
    const host = await start();
    let handled = 0;
    host.listener.handle((_request, response) => {
      handled++;
      response.end();
    });
    const answer = await ask(host.port, get('/v1/kv/x', headers));
    expect(answer).toMatch(/^HTTP\/1.1 403 Forbidden\r\n.*content-type: application\/json/s);
    expect(JSON.parse(answer.slice(answer.indexOf('{')))).toEqual({
      code: 'FORBIDDEN',
      message: expect.stringMatching(/evil\.example/),
    });
    expect(handled).toBe(0);
  });

  test.each(foreign)('by its %s is refused before the upgrade', async (_name, headers) => {
    const host = await start();
    let accepted = 0;
    host.listener.acceptClients(() => accepted++);
    for (const path of ['/peer', '/client']) {
      const head = upgradeHead(path).replace('Host: localhost\r\n', headers);
      const raw = new RawClient(host.port).write(head).write(frame(BINARY, Buffer.from('x')));
      await raw.closed;
      expect(raw.text).toMatch(/^HTTP\/1.1 403 Forbidden\r\n.*"code":"FORBIDDEN"/s);
      expect(raw.text).not.toContain('101');
    }
    expect(accepted).toBe(0);
    expect(host.events.log).toEqual([]);
  });

  test('of our own origin passes, and so does an advertised host', async () => {
    const host = await start({ allowedHosts: ['db1.internal'] });
    host.listener.handle(hello);
    const own = `Host: localhost:${host.port}\r\nOrigin: http://localhost:${host.port}\r\n`;
    expect(await ask(host.port, get('/', own))).toMatch(/^HTTP\/1.1 200 /);
    expect(await ask(host.port, get('/', 'Host: db1.internal:7700\r\n'))).toMatch(/^HTTP\/1.1 200 /);
    expect(await ask(host.port, get('/', 'Host: db2.internal:7700\r\n'))).toMatch(/^HTTP\/1.1 403 /);
    host.listener.allowHost('db2.internal');
    expect(await ask(host.port, get('/', 'Host: db2.internal:7700\r\n'))).toMatch(/^HTTP\/1.1 200 /);
  });

  test('a request without Host gets 400, upgrades too', async () => {
    const host = await start();
    host.listener.handle(hello);
    expect(await ask(host.port, get('/', ''))).toMatch(/^HTTP\/1.1 400 .*"code":"PROTOCOL_ERROR"/s);
    expect(await ask(host.port, upgradeHead('/peer').replace('Host: localhost\r\n', ''))).toMatch(
      /^HTTP\/1.1 400 .*"code":"PROTOCOL_ERROR"/s,
    );
  });
});

describe('slow and silent connections', () => {
  test.each([
    ['says nothing', ''],
    ['stops within a request head', 'GET / HTTP/1.1\r\nHost: local'],
    ['stops within an upgrade', upgradeHead('/peer').slice(0, -4)],
  ])('one that %s is closed', async (_name, sent) => {
    const host = await start({ headersTimeoutMs: 60, requestTimeoutMs: 60 });
    const raw = new RawClient(host.port).write(sent);
    await raw.closed;
    expect(raw.text).toMatch(/^HTTP\/1.1 408 .*"code":"TIMEOUT"/s);
    expect(host.events.log).toEqual([]);
  });

  test('one that drips its head is closed', async () => {
    const host = await start({ headersTimeoutMs: 60, requestTimeoutMs: 60 });
    const raw = new RawClient(host.port).write(get('/').slice(0, -2));
    const drip = setInterval(() => raw.write('X: y\r\n'), 5);
    await raw.closed;
    clearInterval(drip);
    expect(raw.text).toMatch(/^HTTP\/1.1 408 /);
  });

  test('one that does not finish its body is closed', async () => {
    const host = await start({ headersTimeoutMs: 60, requestTimeoutMs: 60 });
    host.listener.handle((request) => request.resume());
    const raw = new RawClient(host.port).write(
      'PUT /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc',
    );
    await raw.closed;
    expect(raw.text).toMatch(/^HTTP\/1.1 408 /);
    expect(host.listener.counts).toMatchObject({ requests: 0, waiting: 0 });
  });

  test('one that idles after a request is closed', async () => {
    const host = await start({ keepAliveTimeoutMs: 30 });
    host.listener.handle(hello);
    const raw = new RawClient(host.port).write(get('/'));
    await raw.closed;
    expect(raw.text).toMatch(/^HTTP\/1.1 200 /);
  });

  test('one that sends garbage gets 400 and is closed', async () => {
    const host = await start();
    const raw = new RawClient(host.port).write('\u0000\u0001 SSH-2.0\r\n\r\n');
    await raw.closed;
    expect(raw.text).toMatch(/^HTTP\/1.1 400 .*"code":"PROTOCOL_ERROR"/s);
  });

  test('one that does not close after it was refused is cut', async () => {
    const host = await start({ closeTimeoutMs: 50 });
    const raw = new RawClient(host.port);
    raw.socket.allowHalfOpen = true;
    raw.write(upgradeHead('/other'));
    await settle(() => raw.text.includes('}') && host.listener.counts.sockets === 0);
    raw.socket.destroy();
  });
});

describe('request heads', () => {
  test('two percent-encoded keys of the longest kind fit', async () => {
    const host = await start();
    host.listener.handle((request, response) =>
      response.end(JSON.stringify({ length: request.url?.length })),
    );
    const key = '%E2%82%AC'.repeat(341);
    const path = `/v1/kv?prefix=${key}&after=${key}`;
    expect(await ask(host.port, get(path))).toContain(`{"length":${path.length}}`);
  });

  test('one over the cap gets 431', async () => {
    const host = await start();
    const raw = new RawClient(host.port).write(get(`/${'x'.repeat(20_000)}`));
    await raw.closed;
    expect(raw.text).toMatch(/^HTTP\/1.1 431 .*"code":"PROTOCOL_ERROR"/s);
  });
});

describe('places', () => {
  test('requests in progress are capped, streams included, and end with their sockets', async () => {
    const host = await start({ httpRequestsMax: 2 });
    host.listener.handle((_request, response) => response.write('{"streaming":true}'));
    const streams = [new RawClient(host.port), new RawClient(host.port)];
    for (const stream of streams) await stream.write(get('/v1/watch')).until(whole);
    expect(host.listener.counts.requests).toBe(2);
    expect(await ask(host.port, get('/'))).toMatch(/^HTTP\/1.1 503 .*"code":"OVERLOADED"/s);
    streams[0]?.socket.destroy();
    await settle(() => host.listener.counts.requests === 1);
    const third = new RawClient(host.port).write(get('/v1/watch'));
    expect(await third.until(whole)).toMatch(/^HTTP\/1.1 200 /);
    for (const stream of [...streams, third]) stream.socket.destroy();
    await settle(() => host.listener.counts.requests === 0);
  });

  test('pipelined requests give their places back when their connection is cut', async () => {
    const host = await start();
    let handled = 0;
    host.listener.handle(() => handled++);
    const raw = new RawClient(host.port).write(get('/').repeat(5));
    await settle(() => handled === 5);
    expect(host.listener.counts).toMatchObject({ requests: 5, waiting: 0 });
    raw.socket.destroy();
    await settle(() => host.listener.counts.sockets === 0);
    expect(host.listener.counts).toEqual({ sockets: 0, waiting: 0, requests: 0, clients: 0 });
  });

  test('a waiting connection over the cap evicts the one that waited longest', async () => {
    const host = await start({ waitingSocketsMax: 2 });
    host.listener.handle(hello);
    const [first, second, third] = [0, 1, 2].map(() => new RawClient(host.port));
    await settle(() => host.listener.counts.sockets === 2);
    const [gone, ...left] = [first!, second!, third!].sort(
      (one, other) => Number(one.socket.readyState === 'open') - Number(other.socket.readyState === 'open'),
    );
    await gone?.closed;
    for (const raw of left) expect(await raw.write(get('/')).until(whole)).toMatch(/^HTTP\/1.1 200 /);
    for (const raw of left) raw.socket.destroy();
  });

  test('silent sockets, streams and clients at their caps leave peers their places', async () => {
    const host = await start({ waitingSocketsMax: 2, httpRequestsMax: 1, clientLinksMax: 1 });
    host.listener.handle((_request, response) => response.write('{"streaming":true}'));
    host.listener.acceptClients(() => {});
    const stream = new RawClient(host.port).write(get('/v1/watch'));
    await stream.until(whole);
    const client = new RawClient(host.port).write(upgradeHead('/client'));
    await client.until((got) => got.includes('101'));
    expect(await ask(host.port, upgradeHead('/client'))).toMatch(/^HTTP\/1.1 503 .*all places for clients/s);
    const silent = Array.from({ length: 20 }, () => new RawClient(host.port));
    await settle(() => silent.filter((raw) => raw.socket.destroyed).length === 18);
    const peer = await rawPeer(host.port);
    expect(host.links.count).toBe(1);
    for (const raw of [stream, client, peer, ...silent]) raw.socket.destroy();
  });
});

describe('a handler that throws', () => {
  test('costs its request, is reported, and the next one is served', async () => {
    const faults: unknown[] = [];
    const host = await start({ onFault: (fault) => faults.push(fault) });
    const fault = new Error('a bug');
    host.listener.handle((request, response) => {
      if (request.url === '/promise') return Promise.reject(fault);
      if (request.url === '/late') response.write('{"half"');
      if (request.url !== '/') throw fault;
      return hello(request, response);
    });
    expect(await ask(host.port, get('/bug'))).toMatch(/^HTTP\/1.1 500 .*"code":"INTERNAL"/s);
    expect(await ask(host.port, get('/promise'))).toMatch(/^HTTP\/1.1 500 .*"code":"INTERNAL"/s);
    const late = new RawClient(host.port).write(get('/late'));
    await late.closed;
    expect(await ask(host.port, get('/'))).toMatch(/^HTTP\/1.1 200 /);
    expect(faults).toEqual([fault, fault, fault]);
  });
});

describe('listen', () => {
  const listenerOf = (): Listener => new Listener(new Links({}, new Recorder()));

  test('on a port in use says which and how to mend it', async () => {
    const host = await start();
    await expect(listenerOf().listen('127.0.0.1', host.port)).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      message: expect.stringMatching(new RegExp(`port ${host.port} on 127\\.0\\.0\\.1 .*another port`)),
      details: { port: host.port },
    });
  });

  test.each(['192.0.2.1', 'no host at all'])(
    'on %j, which this machine does not have, is refused',
    async (host) => {
      await expect(listenerOf().listen(host, 0)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    },
  );

  test('answers to the address it gives back', async () => {
    const listener = listenerOf();
    const { host, port } = await listener.listen('localhost', 0);
    expect(host).toBe('localhost');
    expect(port).toBeGreaterThan(0);
    await listener.close();
  });
});

describe('close', () => {
  test('lets a request in progress finish, and takes no new one', async () => {
    const host = await start();
    let finish = (): void => {};
    host.listener.handle((_request, response) => {
      response.write('{"begun":');
      finish = () => response.end('"done"}');
    });
    const idle = new RawClient(host.port);
    const busy = new RawClient(host.port).write(get('/'));
    await busy.until((got) => got.includes('begun'));
    const closing = host.listener.close();
    await idle.closed;
    const late = new RawClient(host.port).write(get('/'));
    await late.closed;
    finish();
    await busy.closed;
    expect(busy.text).toContain('"done"}');
    expect(late.text).toBe('');
    await closing;
  });

  test('is bounded by whatever hangs, and leaves nothing behind', async () => {
    await new Promise(setImmediate);
    const timers = activeSockets().filter((kind) => kind === 'Timeout').length;
    const host = await startHost({ closeTimeoutMs: 50 });
    host.listener.handle((_request, response) => response.write('{"streaming":true}'));
    host.listener.acceptClients(() => {});
    const stream = new RawClient(host.port).write(get('/v1/watch'));
    await stream.until(whole);
    const client = new RawClient(host.port).write(upgradeHead('/client'));
    await client.until((got) => got.includes('101'));
    const peer = await rawPeer(host.port);
    const silent = new RawClient(host.port);
    await settle(() => host.listener.counts.sockets === 4);
    await Promise.all([host.listener.close(), host.listener.close()]);
    expect(host.listener.counts).toEqual({ sockets: 0, waiting: 0, requests: 0, clients: 0 });
    for (const raw of [stream, client, peer, silent]) await raw.closed;
    await host.links.closeAll();
    expect(host.links.count).toBe(0);
    const after = activeSockets();
    expect(after.filter((kind) => kind !== 'Timeout')).toEqual([]);
    expect(after.length).toBeLessThanOrEqual(timers);
  });

  test('of a listener that never listened resolves', async () => {
    await new Listener(new Links({}, new Recorder())).close();
  });
});
