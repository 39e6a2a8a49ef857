/**
 * Addresses: `host:port`, with an IPv6 literal in brackets. Text from the command line and from peers goes
 * through `parseAddress` before anything is dialed, so that what reaches a URL is a host name or an IP
 * literal and nothing else.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { ReadmeshError } from '../errors.js';

export interface Address {
  /** Host name in lower case, IPv4 literal, or IPv6 literal without brackets. */
  readonly host: string;
  /** 0 to 65,535. 0 means "a free one" when listening, and cannot be dialed. */
  readonly port: number;
}

export interface AddressDefaults {
  /** For `:7700`. Without it, that form is refused: whether it means loopback or everywhere must be said. */
  readonly host?: string;
  /** For `db1` and `[::1]`. Without it, those forms are refused. */
  readonly port?: number;
}

const HOST_LENGTH_MAX = 253;
const FORM = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]*))|)(?::(\d{1,5}))?$/;

/** Throws INVALID_OPTION with the reason. */
export function parseAddress(text: string, defaults: AddressDefaults = {}): Address {
  const bad = (why: string): ReadmeshError =>
    new ReadmeshError(
      'INVALID_OPTION',
      `${JSON.stringify(text.slice(0, HOST_LENGTH_MAX))} is no address: ${why}`,
    );
  if (isIPv6(text)) throw bad('put an IPv6 address in brackets, as in [::1]:7700');
  if (text.length > HOST_LENGTH_MAX + 6) throw bad('a host name has at most 253 characters');
  const form = FORM.exec(text);
  if (text === '' || form === null) throw bad('write HOST:PORT, as in 127.0.0.1:7700');
  const [, bracketed, name, digits] = form;
  if (bracketed !== undefined && !isIPv6(bracketed)) throw bad('brackets hold an IPv6 address');
  const host = bracketed ?? name ?? defaults.host;
  if (host === undefined) throw bad('name the host before the colon, as in 127.0.0.1:7700');
  const port = digits === undefined ? defaults.port : Number(digits);
  if (port === undefined) throw bad('add the port, as in 127.0.0.1:7700');
  if (port > 65_535) throw bad('a port is at most 65535');
  return { host: host.toLowerCase(), port };
}

export function formatAddress(address: Address): string {
  return `${formatHost(address.host)}:${address.port}`;
}

/** The host as it stands in a URL or a Host header. */
export function formatHost(host: string): string {
  return isIPv6(host) ? `[${host}]` : host;
}

/** Whether only this machine can reach `host`: `localhost`, 127.0.0.0/8, ::1. Other names count as reachable. */
export function isLoopback(host: string): boolean {
  const bare = stripBrackets(host).toLowerCase();
  if (bare === 'localhost') return true;
  if (isIPv4(bare)) return bare.startsWith('127.');
  if (!isIPv6(bare) || bare.includes('%')) return false;
  // The URL parser gives every spelling of an IPv6 address its one short form.
  const short = new URL(`http://[${bare}]`).hostname;
  return short === '[::1]' || /^\[::ffff:7f[0-9a-f]{2}:/.test(short);
}

export function isIpLiteral(host: string): boolean {
  const bare = stripBrackets(host);
  return isIPv4(bare) || isIPv6(bare);
}

function stripBrackets(host: string): string {
  return host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host;
}

/** Path of the WebSocket upgrade of peers, and of clients. */
export const PEER_PATH = '/peer';
export const CLIENT_PATH = '/client';
