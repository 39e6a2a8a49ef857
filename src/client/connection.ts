/**
 * One connection of the light client to one host: it dials, waits for the greeting, gathers the requests of a
 * tick into one frame, and hands each response to whoever asked. It decides nothing about retries.
 *
 * Whoever asks is told exactly once how it ended (`onResult`, `onFailed` or `onLost`), unless it forgot the
 * request before. A frame that breaks the protocol ends the connection, which loses all its requests.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { WebSocket } from 'ws';
import { STAMP_MS_MAX } from '../core/hlc.js';
import { ERRORS, type ErrorCode, type ErrorDetails, isReadmeshError, ReadmeshError } from '../errors.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { ClientOptions } from '../options.js';
import { RequestTable } from '../request-table.js';
import { CLIENT_PATH } from '../transport/address.js';
import { type ClientFrame, FRAME_BYTES_MAX, FrameBuilder, openFrame, truncate } from './frame.js';
import {
  CLIENT_PROTOCOL_VERSION,
  FRAME_BYTES_SOFT,
  GREETING_ELEMENTS,
  type Greeting,
  ID_MAX,
  OP_CANCEL,
  OP_HELLO,
  REQUESTS_PER_FRAME_MAX,
  STATUS_DONE,
  STATUS_PART,
} from './wire.js';

/** One who asks. */
export interface Pending {
  /** About how many bytes `write` writes. */
  readonly size: number;
  /** Writes the whole request, under this id. Called within `send`. */
  write(writer: MsgpackWriter, id: number, now: number): void;
  /** Reads exactly `elements` elements. Throws PROTOCOL_ERROR. */
  onResult(frame: ClientFrame, elements: number, connection: Connection): void;
  /** The same for a part; more follow. */
  onPart(frame: ClientFrame, elements: number, connection: Connection): void;
  onFailed(error: ReadmeshError, connection: Connection): void;
  /** The connection ended first: what became of the request is unknown. */
  onLost(connection: Connection): void;
}

export interface ConnectionOwner {
  /** The host greeted, or answered a ping. Throws a ReadmeshError to refuse it. */
  onGreeting(connection: Connection, greeting: Greeting, elapsedMs: number): void;
  /** Each frame tells the host's time. */
  onClock(connection: Connection, ms: number, counter: number): void;
  /** Once. `refused` is set when it will be no better next time. */
  onClosed(connection: Connection, reason: string, refused: ReadmeshError | undefined): void;
}

const SEND_OPTIONS = { binary: true, compress: false } as const;
const CLOSE_NORMAL = 1000;
/** How long a closed connection may still flush, ms. */
const CLOSE_FLUSH_MS = 50;
const MESSAGE_CHARS_MAX = 2_048;
/** A refusal's body is read up to here, bytes. */
const REFUSAL_BYTES_MAX = 2_048;

export class Connection {
  readonly address: string;
  readonly #options: ClientOptions;
  readonly #owner: ConnectionOwner;
  readonly #ws: WebSocket;
  #socket: Socket | undefined;
  #state: 'dialing' | 'open' | 'closed' = 'dialing';
  readonly #builder = new FrameBuilder(false);
  readonly #pending = new RequestTable<Pending>();
  #flushing = false;
  #reason: string | undefined;
  #refused: ReadmeshError | undefined;
  readonly #dialDeadline: NodeJS.Timeout;
  #onGone: (() => void) | undefined;
  /** When the last frame came, on the monotonic clock. */
  heardAt = performance.now();
  /** When a call was last sent here; pings do not count. */
  usedAt = this.heardAt;
  #pingedAt: number | undefined;
  /** The socket's count, and since when it has not changed. */
  #bytesRead = 0;
  #quietSince = this.heardAt;

  constructor(address: string, options: ClientOptions, owner: ConnectionOwner) {
    this.address = address;
    this.#options = options;
    this.#owner = owner;
    this.#ws = new WebSocket(`ws://${address}${CLIENT_PATH}`, {
      perMessageDeflate: false,
      maxPayload: FRAME_BYTES_MAX,
    });
    const { dialTimeoutMs } = options;
    this.#dialDeadline = setTimeout(
      () => this.close(`no greeting within ${dialTimeoutMs} ms`),
      dialTimeoutMs,
    );
    this.#listen();
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** True while too much waits for this host to read it. */
  get congested(): boolean {
    return this.#ws.bufferedAmount > this.#options.outboundBytesMax;
  }

  /** Requests that wait for an answer. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Asks, at the time `now`. Only while open. Returns the id by which the request can be forgotten. */
  send(pending: Pending, now: number): number {
    this.usedAt = now;
    return this.#ask(pending, now);
  }

  #ask(pending: Pending, now: number): number {
    const { size } = pending;
    if (this.#builder.count > 0 && this.#builder.bytes + size > FRAME_BYTES_SOFT) this.#flush();
    const id = this.#pending.add(pending);
    pending.write(this.#builder.add(size), id, now);
    this.#added();
    return id;
  }

  /** The answer is of no interest any more. */
  forget(id: number): void {
    if (!this.#pending.delete(id) || !this.isOpen) return;
    const writer = this.#builder.add(16);
    writer.array(3);
    writer.uint(this.#pending.unusedId());
    writer.uint(OP_CANCEL);
    writer.uint(id);
    this.#added();
  }

  /** Asks for a sign of life and the state of the host, unless one is under way. */
  ping(): void {
    if (this.#pingedAt !== undefined || !this.isOpen) return;
    const at = performance.now();
    this.#pingedAt = at;
    const ping: Pending = {
      size: 16,
      write: (writer, id) => {
        writer.array(3);
        writer.uint(id);
        writer.uint(OP_HELLO);
        writer.uint(CLIENT_PROTOCOL_VERSION);
      },
      onResult: (frame, elements) => {
        this.#pingedAt = undefined;
        this.#greeted(frame, elements, performance.now() - at);
      },
      onPart: (frame) => frame.fail('hello', 'has parts'),
      onFailed: (error) => this.#refuse(error),
      onLost: () => {},
    };
    this.#ask(ping, at);
  }

  /** Ends a connection from which nothing comes though it was asked. Also when bytes only trickle, it lives. */
  poll(now: number): void {
    if (!this.isOpen) return;
    const read = this.#socket?.bytesRead ?? 0;
    if (read !== this.#bytesRead || this.#pingedAt === undefined) {
      this.#bytesRead = read;
      this.#quietSince = now;
    } else if (now - Math.max(this.#quietSince, this.#pingedAt) > this.#options.silentMs) {
      this.close(`silent for ${this.#options.silentMs} ms`);
    }
  }

  /** Ends it at once, as far as its owner is concerned. Resolves when the socket is closed. */
  close(reason: string): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      if (this.#ws.readyState === WebSocket.CLOSED) resolve();
      else this.#onGone = resolve;
    });
    const wasOpen = this.isOpen;
    this.#end(reason);
    if (wasOpen) this.#ws.close(CLOSE_NORMAL, truncate(reason));
    // The host may be the very one that does not answer: its part of the handshake is not waited for.
    if (wasOpen) setTimeout(() => this.#ws.terminate(), CLOSE_FLUSH_MS);
    else this.#ws.terminate();
    return gone;
  }

  #listen(): void {
    const ws = this.#ws;
    ws.on('upgrade', (response) => {
      this.#socket = response.socket;
      response.socket.setNoDelay(true);
    });
    ws.on('unexpected-response', (_request, response) => {
      readRefusal(response, (reason) => this.close(reason));
    });
    ws.on('message', (data, isBinary) => {
      if (this.#state === 'closed') return;
      if (isBinary) this.#receive(data as Buffer);
      else void this.close('the host sent a text frame: is this a readmesh host?');
    });
    ws.on('error', (error) => {
      this.#reason ??=
        error.message === '' ? ((error as NodeJS.ErrnoException).code ?? error.name) : error.message;
    });
    ws.on('close', (code, reason) => {
      const text = reason.toString();
      this.#end(this.#reason ?? `closed by the host (${code})${text === '' ? '' : `: ${text}`}`);
      this.#onGone?.();
    });
  }

  #receive(bytes: Buffer): void {
    this.heardAt = performance.now();
    try {
      const frame = openFrame(bytes, 'frame from the host');
      const elements = frame.array('frame', Number.MAX_SAFE_INTEGER);
      if (elements < 2) frame.fail('frame', 'has no clock');
      const ms = frame.uint('hlcMs', STAMP_MS_MAX);
      this.#owner.onClock(this, ms, frame.uint('hlcCounter', 0xffff));
      for (let i = 2; i < elements && this.#state !== 'closed'; i++) this.#response(frame);
    } catch (error) {
      if (!isReadmeshError(error)) throw error;
      void this.close(error.message);
    }
  }

  #response(frame: ClientFrame): void {
    const elements = frame.array('response', Number.MAX_SAFE_INTEGER) - 2;
    if (elements < 0) frame.fail('response', 'has no id and status');
    const id = frame.uint('id', ID_MAX);
    const status = frame.uint('status');
    if (status > STATUS_PART) frame.fail('status', `is ${status}`);
    if (id === 0) {
      if (this.#state !== 'dialing') frame.fail('greeting', 'came twice');
      return this.#greeted(frame, elements, 0);
    }
    const pending = this.#pending.get(id);
    if (pending === undefined) return frame.skip(elements);
    if (status === STATUS_PART) return pending.onPart(frame, elements, this);
    // Only what was read well is answered: if it throws, the request is lost with the connection.
    if (status === STATUS_DONE) {
      pending.onResult(frame, elements, this);
      this.#pending.delete(id);
    } else {
      const error = readError(frame, elements);
      this.#pending.delete(id);
      pending.onFailed(error, this);
    }
  }

  #greeted(frame: ClientFrame, elements: number, elapsedMs: number): void {
    if (elements !== GREETING_ELEMENTS) frame.fail('greeting', `has ${elements} elements`);
    const greeting = frame.greeting();
    try {
      if (greeting.version !== CLIENT_PROTOCOL_VERSION)
        throw new ReadmeshError(
          'VERSION_MISMATCH',
          `the host speaks version ${greeting.version} of the client protocol, not ${CLIENT_PROTOCOL_VERSION}: upgrade the older side`,
        );
      const first = this.#state === 'dialing';
      if (first) {
        clearTimeout(this.#dialDeadline);
        this.#state = 'open';
        this.ping();
      }
      this.#owner.onGreeting(this, greeting, elapsedMs);
    } catch (error) {
      if (!isReadmeshError(error)) throw error;
      this.#refuse(error);
    }
  }

  #refuse(error: ReadmeshError): void {
    if (!error.info.retry) this.#refused ??= error;
    void this.close(error.message);
  }

  #added(): void {
    if (this.#builder.count >= REQUESTS_PER_FRAME_MAX) this.#flush();
    else if (!this.#flushing) {
      this.#flushing = true;
      process.nextTick(this.#onTick);
    }
  }

  readonly #onTick = (): void => {
    this.#flushing = false;
    this.#flush();
  };

  #flush(): void {
    if (this.#builder.count === 0 || !this.isOpen) return;
    this.#ws.send(this.#builder.take(), SEND_OPTIONS, noop);
  }

  #end(reason: string): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    clearTimeout(this.#dialDeadline);
    this.#owner.onClosed(this, reason, this.#refused);
    for (const pending of this.#pending.clear()) pending.onLost(this);
  }
}

function noop(): void {
  // The `close` event reports what went wrong.
}

function readError(frame: ClientFrame, elements: number): ReadmeshError {
  if (elements !== 3) frame.fail('failure', `has ${elements} elements`);
  const code = frame.str('code', 1, 64);
  const message = frame.str('message', 0, FRAME_BYTES_MAX).slice(0, MESSAGE_CHARS_MAX);
  const details: Record<string, string | number | boolean> = {};
  for (const [name, detail] of Object.entries(frame.json('details')))
    if (typeof detail === 'string' || typeof detail === 'number' || typeof detail === 'boolean')
      details[name] = detail;
  // A newer host may know codes that we do not.
  if (!Object.hasOwn(ERRORS, code)) return new ReadmeshError('INTERNAL', `${code}: ${message}`, { details });
  return new ReadmeshError(code as ErrorCode, message, { details: details as ErrorDetails });
}

/** The host answered the upgrade with an HTTP status: its one-line message says why. */
function readRefusal(response: IncomingMessage, done: (reason: string) => void): void {
  let body = '';
  const finish = (): void => {
    let said = '';
    try {
      const { code, message } = JSON.parse(body) as { code?: unknown; message?: unknown };
      if (typeof code === 'string' && typeof message === 'string')
        said = ` ${JSON.stringify(`${code}: ${message}`.slice(0, 300))}`;
    } catch {
      // Not one of ours: the status has to do.
    }
    done(`refused with HTTP ${response.statusCode}${said}`);
  };
  response.setEncoding('utf8');
  response.on('data', (chunk: string) => {
    body += chunk;
    if (body.length > REFUSAL_BYTES_MAX) finish();
  });
  response.on('end', finish);
  response.on('error', finish);
}
