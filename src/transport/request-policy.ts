/**
 * Who may speak to the port: decided from `Host` and `Origin` before anything else looks at a request.
 *
 * The daemon trusts whoever can open a connection to it, and a web browser on the same machine can. Two
 * tricks let a foreign page use that:
 *
 * - a plain cross-site request or WebSocket: browsers then always send `Origin`, and scripts cannot forge it.
 *   An Origin that is not this very server's is refused. (WebSockets know no same-origin rule of their own.)
 * - DNS rebinding: the page's own name is made to resolve to 127.0.0.1, so that Origin and Host agree. But Host
 *   then bears that foreign name, so only names known to be ours pass. An address literal needs no name and
 *   cannot be rebound: loopback ones always pass, others when the server listens beyond loopback.
 */
import type { IncomingMessage } from 'node:http';
import type { ErrorCode } from '../errors.js';
import { isIpLiteral, isLoopback } from './address.js';

export interface Refusal {
  /** HTTP status. */
  readonly status: number;
  readonly code: ErrorCode;
  readonly message: string;
}

export class RequestPolicy {
  readonly #names = new Set<string>(['localhost']);
  #listensBeyondLoopback = false;

  /** Lets requests name this host. Names compare without regard to case; a port does not matter. */
  allowHost(name: string): void {
    this.#names.add(name.toLowerCase());
  }

  listensOn(host: string): void {
    this.#listensBeyondLoopback = !isLoopback(host);
    this.allowHost(host);
  }

  /** Undefined when the request may pass. */
  refusal(request: IncomingMessage): Refusal | undefined {
    const hosts = request.headersDistinct.host ?? [];
    const origin = request.headers.origin;
    const [host] = hosts;
    if (hosts.length > 1 || (host === undefined && request.httpVersion !== '1.0'))
      return bad('a request names its host once: send one Host header');
    if (host !== undefined) {
      const parsed = parseHost('http:', host);
      if (parsed === undefined) return bad('the Host header is not HOST or HOST:PORT');
      if (!this.#isOurs(parsed.hostname))
        return forbidden(
          `host ${quote(host)} is not known here: use an IP address or localhost, or advertise that name`,
        );
    }
    if (origin !== undefined && (host === undefined || !isSameOrigin(origin, host)))
      return forbidden(`origin ${quote(origin)} is foreign: web pages of other sites may not use this port`);
    return undefined;
  }

  #isOurs(hostname: string): boolean {
    if (this.#names.has(hostname) || isLoopback(hostname)) return true;
    return this.#listensBeyondLoopback && isIpLiteral(hostname);
  }
}

function isSameOrigin(origin: string, host: string): boolean {
  let theirs: URL;
  try {
    theirs = new URL(origin);
  } catch {
    return false; // `null`, the origin of sandboxed pages and local files, ends here
  }
  if (theirs.protocol !== 'http:' && theirs.protocol !== 'https:') return false;
  // The Origin's scheme decides which port a Host without one means: a proxy may have ended TLS before us.
  return parseHost(theirs.protocol, host)?.host === theirs.host;
}

function parseHost(protocol: string, host: string): URL | undefined {
  if (!/^[A-Za-z0-9_.:[\]-]+$/.test(host)) return undefined;
  try {
    return new URL(`${protocol}//${host}`);
  } catch {
    return undefined;
  }
}

function bad(message: string): Refusal {
  return { status: 400, code: 'PROTOCOL_ERROR', message };
}

function forbidden(message: string): Refusal {
  return { status: 403, code: 'FORBIDDEN', message };
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}...` : text);
}
