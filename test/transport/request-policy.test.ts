import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { RequestPolicy } from '../../src/transport/request-policy.js';

/** The status that a request with these raw headers gets, 0 when it passes. */
function judge(policy: RequestPolicy, headers: [name: string, value: string][], version = '1.1'): number {
  const request = new IncomingMessage(new Socket());
  request.rawHeaders.push(...headers.flat());
  request.httpVersion = version;
  for (const [name, value] of headers) request.headers[name.toLowerCase()] ??= value;
  for (const [name, value] of headers) (request.headersDistinct[name.toLowerCase()] ??= []).push(value);
  return policy.refusal(request)?.status ?? 0;
}

function policyOn(listenHost: string, ...allowed: string[]): RequestPolicy {
  const policy = new RequestPolicy();
  policy.listensOn(listenHost);
  for (const name of allowed) policy.allowHost(name);
  return policy;
}

test.each([
  ['localhost', 0],
  ['localhost:7700', 0],
  ['LOCALHOST:7700', 0],
  ['127.0.0.1:7700', 0],
  ['127.0.0.2', 0],
  ['[::1]:7700', 0],
  ['[0:0:0:0:0:0:0:1]', 0],
  ['evil.example:7700', 403],
  ['localhost.evil.example', 403],
  ['127.0.0.1.evil.example', 403],
  ['10.0.0.1:7700', 403],
  ['[fe80::1]', 403],
  ['0.0.0.0:7700', 403],
  ['', 400],
  ['localhost:port', 400],
  ['localhost:99999', 400],
  ['user@localhost', 400],
  ['localhost/peer', 400],
  ['localhost, evil.example', 400],
])('a daemon on loopback judges Host %j as %d', (host, status) => {
  expect(judge(policyOn('127.0.0.1'), [['Host', host]])).toBe(status);
});

test.each([
  ['10.0.0.1:7700', 0],
  ['[fd00::1]:7700', 0],
  ['localhost', 0],
  ['db1.internal:7700', 0],
  ['DB1.internal', 0],
  ['seed', 0],
  ['db2.internal:7700', 403],
  ['evil.example', 403],
])('a daemon that listens everywhere and advertises names judges Host %j as %d', (host, status) => {
  expect(judge(policyOn('0.0.0.0', 'db1.internal', 'Seed'), [['Host', host]])).toBe(status);
});

test('a daemon that listens on a name answers to it', () => {
  expect(judge(policyOn('db1.internal'), [['Host', 'db1.internal:7700']])).toBe(0);
});

test.each([
  ['localhost:7700', 'http://localhost:7700', 0],
  ['localhost:7700', 'https://localhost:7700', 0],
  ['localhost', 'http://localhost', 0],
  ['localhost', 'https://localhost', 0],
  ['localhost:80', 'http://localhost', 0],
  ['LocalHost:7700', 'http://localhost:7700', 0],
  ['[::1]:7700', 'http://[::1]:7700', 0],
  ['localhost:7700', 'http://localhost:3000', 403],
  ['localhost:7700', 'http://localhost', 403],
  ['localhost:7700', 'http://127.0.0.1:7700', 403],
  ['localhost:7700', 'https://evil.example', 403],
  ['localhost:7700', 'null', 403],
  ['localhost:7700', '', 403],
  ['localhost:7700', 'chrome-extension://localhost:7700', 403],
  ['evil.example:7700', 'http://evil.example:7700', 403],
])('Host %j with Origin %j is judged as %d', (host, origin, status) => {
  expect(
    judge(policyOn('127.0.0.1'), [
      ['Host', host],
      ['Origin', origin],
    ]),
  ).toBe(status);
});

test('a request names its host once, unless it is older than that rule and has no Origin', () => {
  const policy = policyOn('127.0.0.1');
  expect(judge(policy, [])).toBe(400);
  expect(
    judge(policy, [
      ['Host', 'localhost'],
      ['Host', 'evil.example'],
    ]),
  ).toBe(400);
  expect(judge(policy, [], '1.0')).toBe(0);
  expect(judge(policy, [['Origin', 'http://localhost']], '1.0')).toBe(403);
});
