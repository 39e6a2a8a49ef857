/** A host of the transport (listener and links) that records its events, and raw sockets to attack it with. */
import { connect, type Socket } from 'node:net';
import type { TransportOptions } from '../../src/options.js';
import { type LinkEvents, Links } from '../../src/transport/links.js';
import { Listener, type ListenerOptions } from '../../src/transport/listener.js';

export interface Opened {
  link: number;
  dialed: string | undefined;
  remote: string;
}

/** Records every event, and lets a test wait until the record satisfies it. */
export class Recorder implements LinkEvents {
  readonly opened: Opened[] = [];
  readonly messages: { link: number; bytes: Uint8Array }[] = [];
  readonly alive: number[] = [];
  readonly closed: { link: number; reason: string; dialed: string | undefined }[] = [];
  readonly failed: { address: string; reason: string }[] = [];
  /** Names of events in order, with the link's number. */
  readonly log: string[] = [];
  /** Called first in `onMessage`. */
  handle: (link: number, bytes: Uint8Array) => void = () => {};
  #waiters: (() => void)[] = [];

  onOpen(link: number, info: { dialed: string | undefined; remote: string }): void {
    this.opened.push({ link, ...info });
    this.#note(`open ${link}`);
  }
  onMessage(link: number, bytes: Uint8Array): void {
    this.handle(link, bytes);
    this.messages.push({ link, bytes });
    this.#note(`message ${link}`);
  }
  onAlive(link: number): void {
    this.alive.push(link);
    this.#note(`alive ${link}`);
  }
  onCongested(link: number): void {
    this.#note(`congested ${link}`);
  }
  onDrained(link: number): void {
    this.#note(`drained ${link}`);
  }
  onClosed(link: number, reason: string, dialed: string | undefined): void {
    this.closed.push({ link, reason, dialed });
    this.#note(`closed ${link}`);
  }
  onDialFailed(address: string, reason: string): void {
    this.failed.push({ address, reason });
    this.#note(`failed ${address}`);
  }

  count(event: string): number {
    return this.log.filter((entry) => entry === event).length;
  }

  /** Resolves when `condition` holds; looked at after each event. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }

  #note(entry: string): void {
    this.log.push(entry);
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}

export interface Host {
  events: Recorder;
  links: Links;
  listener: Listener;
  port: number;
  address: string;
  stop(): Promise<void>;
}

export async function startHost(options: ListenerOptions = {}): Promise<Host> {
  const events = new Recorder();
  const links = new Links(options, events);
  const listener = new Listener(links, options);
  const { port } = await listener.listen('127.0.0.1', 0);
  return {
    events,
    links,
    listener,
    port,
    address: `127.0.0.1:${port}`,
    stop: async () => {
      await links.closeAll();
      await listener.close();
    },
  };
}

export interface Pair {
  /** Dialed `b`. */
  a: { events: Recorder; links: Links; link: number };
  b: Host;
  /** The link as `b` knows it. */
  link: number;
  stop(): Promise<void>;
}

/** A host and links that have dialed it, at `address` if given (a proxy's). */
export async function startPair(
  options: {
    a?: Partial<TransportOptions>;
    b?: ListenerOptions;
    through?: (host: Host) => Promise<string>;
  } = {},
): Promise<Pair> {
  const b = await startHost(options.b);
  const events = new Recorder();
  const links = new Links(options.a ?? {}, events);
  links.dial((await options.through?.(b)) ?? b.address);
  await events.until(() => events.opened.length + events.failed.length > 0);
  await b.events.until(() => b.events.opened.length > 0);
  return {
    a: { events, links, link: events.opened[0]!.link },
    b,
    link: b.events.opened[0]!.link,
    stop: async () => {
      await links.closeAll();
      await b.stop();
    },
  };
}

/** A bare TCP client that collects what it is sent. */
export class RawClient {
  readonly socket: Socket;
  #received = Buffer.alloc(0);
  readonly closed: Promise<void>;
  #waiters: (() => void)[] = [];
  #ended = false;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('error', () => {});
    this.socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      this.socket.once('close', () => {
        this.#ended = true;
        this.#wake();
        resolve();
      });
    });
  }

  get bytes(): Buffer {
    return this.#received;
  }

  get text(): string {
    return this.#received.toString('latin1');
  }

  write(data: string | Uint8Array): this {
    this.socket.write(data);
    return this;
  }

  /** Resolves when what was received satisfies `condition`; throws when the connection ends before. */
  async until(condition: (text: string) => boolean): Promise<string> {
    while (!condition(this.text)) {
      if (this.#ended) throw new Error(`the connection ended after ${JSON.stringify(this.text)}`);
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    return this.text;
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}

/** The head of a WebSocket upgrade. */
export function upgradeHead(path: string, headers: Record<string, string> = {}): string {
  const all: Record<string, string> = {
    Host: 'localhost',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

/** One frame as a client sends it: masked with zeros, so that the payload stands as it is. */
export function frame(first: number, payload: Uint8Array = new Uint8Array(0)): Buffer {
  const length = payload.length;
  const head =
    length < 126
      ? [first, 0x80 | length]
      : length < 65_536
        ? [first, 0xfe, length >> 8, length & 0xff]
        : [
            first,
            0xff,
            0,
            0,
            0,
            0,
            length >>> 24,
            (length >> 16) & 0xff,
            (length >> 8) & 0xff,
            length & 0xff,
          ];
  return Buffer.concat([Uint8Array.from([...head, 0, 0, 0, 0]), payload]);
}

export const BINARY = 0x82;

/** A raw client whose upgrade at `/peer` is done. */
export async function rawPeer(port: number): Promise<RawClient> {
  const raw = new RawClient(port).write(upgradeHead('/peer'));
  await raw.until((text) => text.startsWith('HTTP/1.1 101') && text.includes('\r\n\r\n'));
  return raw;
}

/** Resources that keep a process busy, by kind, without the ones that are there anyway. */
export function activeSockets(): string[] {
  return process.getActiveResourcesInfo().filter((kind) => /TCP|Timeout|Immediate|GetAddrInfo/.test(kind));
}

export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');
