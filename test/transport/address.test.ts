import { describe, expect, test } from 'vitest';
import { formatAddress, isIpLiteral, isLoopback, parseAddress } from '../../src/transport/address.js';

describe('parseAddress', () => {
  test.each([
    ['127.0.0.1:7700', { host: '127.0.0.1', port: 7700 }],
    ['DB-1.internal:1', { host: 'db-1.internal', port: 1 }],
    ['my_service:65535', { host: 'my_service', port: 65_535 }],
    ['[::1]:7700', { host: '::1', port: 7700 }],
    ['[FE80::1]:0', { host: 'fe80::1', port: 0 }],
  ])('reads %s, and formatAddress writes it back', (text, address) => {
    expect(parseAddress(text)).toEqual(address);
    expect(formatAddress(address)).toBe(text.toLowerCase());
  });

  test('takes the host or the port from the defaults only where they are missing', () => {
    expect(parseAddress(':7701', { host: '127.0.0.1' })).toEqual({ host: '127.0.0.1', port: 7701 });
    expect(parseAddress('db1', { port: 7700 })).toEqual({ host: 'db1', port: 7700 });
    expect(parseAddress('[::1]', { port: 7700 })).toEqual({ host: '::1', port: 7700 });
    expect(parseAddress('db1:1', { host: 'x', port: 7700 })).toEqual({ host: 'db1', port: 1 });
  });

  test.each([
    '',
    'db1',
    ':7700',
    'db1:',
    'db1:65536',
    'db1:-1',
    'db1:7700 ',
    'db1:7700/peer',
    'user@db1:7700',
    'http://db1:7700',
    '::1',
    '::1:7700',
    '[::1',
    '[127.0.0.1]:7700',
    '[db1]:7700',
    '-db1:7700',
    'd\u00e9:7700',
    'a\r\nb:7700',
    `${'a'.repeat(300)}:1`,
  ])('refuses %j with the reason', (text) => {
    expect(() => parseAddress(text)).toThrowError(
      expect.objectContaining({
        code: 'INVALID_OPTION',
        message: expect.stringContaining('is no address: '),
      }),
    );
  });
});

test('isLoopback knows every spelling of this machine, and takes other names for reachable', () => {
  for (const host of [
    'localhost',
    'LOCALHOST',
    '127.0.0.1',
    '127.9.9.9',
    '::1',
    '[::1]',
    '0:0::1',
    '::ffff:127.0.0.1',
  ])
    expect(isLoopback(host), host).toBe(true);
  for (const host of [
    '',
    '0.0.0.0',
    '::',
    '10.0.0.1',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '::2',
    '128.0.0.1',
  ])
    expect(isLoopback(host), host).toBe(false);
});

test('isIpLiteral tells address literals from names', () => {
  for (const host of ['10.0.0.1', '::1', '[fe80::1]']) expect(isIpLiteral(host), host).toBe(true);
  for (const host of ['db1', '10.0.0', 'x10.0.0.1', '']) expect(isIpLiteral(host), host).toBe(false);
});
