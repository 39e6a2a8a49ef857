/**
 * The host's side of the client protocol (wire.ts): one session per connection, over whatever implements
 * `NodeService`. Reads of keys are answered on the spot; everything else is answered when it is done.
 *
 * Bounds. Requests are worked off for a few milliseconds at a time, and none is begun while too much waits for
 * the socket; meanwhile the socket is not read. What is in progress is counted and capped. A client that does
 * not read is cut off: at a cap of bytes, or when nothing has left for a minute. A frame that breaks the
 * protocol ends its connection with a reason, and nothing else.
 */
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import { CLIENT_SERVER_DEFAULTS, type ClientServerOptions } from '../options.js';
import type { NodeService } from '../service.js';
import { type ClientFrame, openFrame, truncate, writeGreeting } from './frame.js';
import { Outbound } from './server-outbound.js';
import { Requests } from './server-requests.js';
import { SessionWatches } from './server-watch.js';
import {
  ADDRESSES_MAX,
  CLIENT_PROTOCOL_VERSION,
  GREETING_ELEMENTS,
  ID_MAX,
  OP_CANCEL,
  OP_HELLO,
  OP_WATCH,
  PREFIX_BYTES_MAX,
  REQUESTS_PER_FRAME_MAX,
} from './wire.js';

const CLOSE_NORMAL = 1001;
const CLOSE_PROTOCOL_ERROR = 1002;
const CLOSE_UNSUPPORTED_DATA = 1003;
const CLOSE_INTERNAL_ERROR = 1011;
/** How long the close frame may take to leave, ms. */
const CLOSE_FLUSH_MS = 1_000;
/** Requests between two looks at the clock. */
const REQUESTS_PER_LOOK = 16;

export interface ServeOptions extends Partial<ClientServerOptions> {
  /** The connection's socket: with it, a long message on its way counts as a sign of life. */
  readonly socket?: Socket;
  /** Told of faults of ours, which the client sees as INTERNAL. Default: a process warning. */
  readonly onFault?: (error: unknown) => void;
}

export interface ClientSession {
  /** Flushes what is queued, within a second. */
  close(reason: string): void;
}

interface OpenFrame {
  readonly frame: ClientFrame;
  /** Requests not begun yet. */
  left: number;
}

/** Serves one client over an open WebSocket until either side closes it. Never throws. */
export function serveClient(ws: WebSocket, service: NodeService, options: ServeOptions = {}): ClientSession {
  return new Session(ws, service, options);
}

class Session implements ClientSession {
  readonly #ws: WebSocket;
  readonly #service: NodeService;
  readonly #options: ClientServerOptions;
  readonly #socket: Socket | undefined;
  readonly #onFault: (error: unknown) => void;
  readonly #outbound: Outbound;
  readonly #requests: Requests;
  readonly #watches: SessionWatches;
  readonly #inbox: OpenFrame[] = [];
  readonly #poll: NodeJS.Timeout;
  #open = true;
  #greeted = false;
  #working = false;
  #paused = false;
  #heardAt = performance.now();
  #bytesRead = 0;

  constructor(ws: WebSocket, service: NodeService, { socket, onFault, ...limits }: ServeOptions) {
    this.#ws = ws;
    this.#service = service;
    this.#options = { ...CLIENT_SERVER_DEFAULTS, ...limits };
    this.#socket = socket;
    this.#onFault = onFault ?? ((error) => process.emitWarning(faultText(error)));
    this.#outbound = new Outbound(
      ws,
      this.#options,
      () => service.clockMs(),
      () => this.#drained(),
    );
    this.#watches = new SessionWatches(service, this.#outbound, this.#options);
    this.#requests = new Requests(service, this.#outbound, this.#options, (error) => this.#onFault(error));
    const { idleMs, stallMs } = this.#options;
    this.#poll = setInterval(() => this.#look(), Math.min(idleMs, stallMs) / 4).unref();
    this.#listen();
    this.#guarded(() => this.#greet(0));
  }

  close(reason: string): void {
    this.#end(CLOSE_NORMAL, reason);
  }

  #listen(): void {
    const ws = this.#ws;
    ws.on('message', (data, isBinary) => {
      if (!this.#open) return;
      this.#heardAt = performance.now();
      if (isBinary) this.#guarded(() => this.#receive(data as Buffer));
      else this.#end(CLOSE_UNSUPPORTED_DATA, 'a text frame: the client protocol has binary frames only');
    });
    // ws answers pings by itself, also those of a client that reads no answers.
    ws.on('ping', () => this.#outbound.cutIfUnread());
    // ws closes by itself after an error; without a listener the process ends.
    ws.on('error', () => {});
    ws.on('close', () => this.#closed());
  }

  #receive(bytes: Buffer): void {
    const frame = openFrame(bytes, 'frame from the client');
    const left = frame.array('frame', REQUESTS_PER_FRAME_MAX);
    if (left === 0) frame.fail('frame', 'holds no request');
    this.#inbox.push({ frame, left });
    if (!this.#working && !this.#paused) this.#work();
  }

  /** Begins what is asked, in order, until the slice is over or the socket is full. */
  #work(): void {
    this.#working = false;
    const until = performance.now() + this.#options.sliceMs;
    let begun = 0;
    while (this.#open && this.#inbox.length > 0) {
      const next = this.#inbox[0]!;
      if (this.#outbound.blocked) return this.#pause();
      if (++begun % REQUESTS_PER_LOOK === 0 && performance.now() > until) {
        this.#working = true;
        setImmediate(() => this.#guarded(() => this.#work()));
        return this.#pause();
      }
      next.left--;
      if (next.left === 0) this.#inbox.shift();
      this.#request(next.frame);
    }
    // What could be answered on the spot goes out before anything else is read.
    this.#outbound.flush();
    if (!this.#paused || !this.#open) return;
    this.#paused = false;
    this.#ws.resume();
  }

  /** The socket is not read meanwhile, so that the inbox stays as small as what was read at once. */
  #pause(): void {
    this.#outbound.flush();
    if (this.#paused) return;
    this.#paused = true;
    this.#ws.pause();
  }

  #drained(): void {
    if (!this.#open) return;
    this.#watches.pump();
    if (this.#paused && !this.#working) this.#guarded(() => this.#work());
  }

  #request(frame: ClientFrame): void {
    const elements = frame.array('request', Number.MAX_SAFE_INTEGER) - 2;
    if (elements < 0) frame.fail('request', 'has no id and operation');
    const id = frame.uint('id', ID_MAX);
    if (id === 0 || this.#watches.has(id) || this.#requests.has(id)) frame.fail('id', `${id} is in use`);
    const op = frame.uint('operation');
    if (op === OP_HELLO) {
      if (elements !== 1) frame.fail('hello', `has ${elements} arguments`);
      this.#hello(id, frame.uint('version'));
    } else if (!this.#greeted) frame.fail('operation', `is ${op} before hello`);
    else if (op === OP_WATCH) {
      if (elements !== 1) frame.fail('watch', `has ${elements} arguments`);
      this.#watch(id, frame.str('prefix', 0, PREFIX_BYTES_MAX));
    } else if (op === OP_CANCEL) {
      if (elements !== 1) frame.fail('cancel', `has ${elements} arguments`);
      const cancelled = frame.uint('id', ID_MAX);
      this.#watches.remove(cancelled);
      this.#requests.cancel(cancelled);
    } else this.#requests.begin(id, op, frame, elements);
  }

  #hello(id: number, version: number): void {
    if (version === CLIENT_PROTOCOL_VERSION) {
      this.#greeted = true;
      return this.#greet(id);
    }
    const message = `this host speaks version ${CLIENT_PROTOCOL_VERSION} of the client protocol, not ${version}: upgrade the older side`;
    this.#outbound.failed(id, new ReadmeshError('VERSION_MISMATCH', message));
  }

  #greet(id: number): void {
    const { cluster, clusterUid, origin, name, ready, members } = this.#service.status();
    const addresses: string[] = [];
    for (const { address } of members)
      if (address !== '' && addresses.length < ADDRESSES_MAX) addresses.push(address);
    const writer = this.#outbound.done(id, GREETING_ELEMENTS, 128);
    writeGreeting(writer, {
      version: CLIENT_PROTOCOL_VERSION,
      cluster,
      clusterUid,
      origin,
      name,
      ready,
      addresses,
    });
  }

  #watch(id: number, prefix: string): void {
    try {
      this.#watches.add(id, prefix);
    } catch (error) {
      if (!isReadmeshError(error)) throw error;
      this.#outbound.failed(id, error);
    }
  }

  /** Whatever a client sends, only its own connection may suffer. */
  #guarded(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (isReadmeshError(error)) return this.#end(CLOSE_PROTOCOL_ERROR, error.message);
      this.#onFault(error);
      this.#end(CLOSE_INTERNAL_ERROR, 'internal error');
    }
  }

  #look(): void {
    const now = performance.now();
    const read = this.#socket?.bytesRead ?? 0;
    // A socket that we do not read is no sign of a silent client.
    if (read !== this.#bytesRead || this.#paused) this.#heardAt = now;
    this.#bytesRead = read;
    this.#outbound.poll(now);
    if (this.#open && now - this.#heardAt > this.#options.idleMs)
      this.#end(CLOSE_NORMAL, `nothing was heard for ${this.#options.idleMs} ms`);
  }

  #end(code: number, reason: string): void {
    if (!this.#open) return;
    this.#outbound.flush();
    this.#forget();
    this.#ws.close(code, truncate(reason));
    this.#ws.resume();
    setTimeout(() => this.#ws.terminate(), CLOSE_FLUSH_MS).unref();
  }

  #closed(): void {
    this.#forget();
    this.#outbound.closed();
    clearInterval(this.#poll);
  }

  #forget(): void {
    this.#open = false;
    this.#inbox.length = 0;
    this.#watches.close();
    this.#requests.close();
  }
}

function faultText(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
