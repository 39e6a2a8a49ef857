/**
 * The one port of a daemon: HTTP, links of peers (`/peer`) and WebSocket clients (`/client`).
 *
 * Everything passes the request policy first (request-policy.ts), upgrades as well as plain requests. Every
 * place is counted, each kind apart, so that no kind can crowd out another:
 *
 * - a connection without a request in progress waits (fresh, silent, or kept alive). One over the cap evicts
 *   the one that has waited longest, so a flood of silent sockets cannot keep a peer from being heard;
 * - a request in progress (a stream, too) takes one of `httpRequestsMax` places, else gets 503;
 * - an upgraded connection takes a peer's or a client's place, else gets 503 before the upgrade.
 *
 * Time limits: `headersTimeoutMs` for a request head or an upgrade, `requestTimeoutMs` for a whole request,
 * `keepAliveTimeoutMs` between requests.
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, ReadmeshError } from '../errors.js';
import { TRANSPORT_DEFAULTS, type TransportOptions } from '../options.js';
import { type Address, CLIENT_PATH, formatAddress, PEER_PATH } from './address.js';
import { webSocketOptions } from './dial.js';
import { RequestPolicy } from './request-policy.js';
import { type WebSocket, WebSocketServer } from './ws.js';

/** Answers one request. What it throws, at once or by the promise that it may return, becomes a 500, or cuts an answer already begun. */
export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => unknown;

/** Takes over an upgraded client connection. Bounded frames, no compression; an `error` listener is in place. */
export type ClientAcceptor = (ws: WebSocket, remote: string, socket: Socket) => void;

/** What the listener asks of `Links`. */
export interface PeerAcceptor {
  readonly full: boolean;
  accept(ws: WebSocket, socket: Socket): void;
}

export interface ListenerOptions extends Partial<TransportOptions> {
  /** Host names that requests may use beside localhost and the one listened on: the advertised one above all. */
  allowedHosts?: readonly string[];
  /** Told of faults that no caller sees: an exception out of the request handler (the request gets 500), or a connection that could not be accepted. */
  onFault?: (error: unknown) => void;
}

interface Connection {
  /** Responses not finished yet: more than one when the client pipelines. */
  readonly responses: Set<ServerResponse>;
}

const KEEPALIVE_PROBE_MS = 5_000;

export class Listener {
  readonly #options: TransportOptions;
  readonly #onFault: (error: unknown) => void;
  readonly #peers: PeerAcceptor;
  readonly #policy = new RequestPolicy();
  readonly #server: Server;
  readonly #webSockets: WebSocketServer;
  readonly #sockets = new Set<Socket>();
  /** Plain HTTP connections. */
  readonly #connections = new Map<Socket, Connection>();
  /** Those without a request in progress; the one that has waited longest comes first. */
  readonly #waiting = new Set<Socket>();
  readonly #clients = new Set<WebSocket>();
  #requests = 0;
  #handler: RequestHandler | undefined;
  #acceptClient: ClientAcceptor | undefined;
  #closing: Promise<void> | undefined;

  constructor(peers: PeerAcceptor, options: ListenerOptions = {}) {
    const { allowedHosts = [], onFault = () => {}, ...caps } = options;
    this.#options = { ...TRANSPORT_DEFAULTS, ...caps };
    this.#onFault = onFault;
    this.#peers = peers;
    for (const name of allowedHosts) this.#policy.allowHost(name);
    this.#webSockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      ...webSocketOptions(this.#options),
    });
    const { headersTimeoutMs, requestTimeoutMs } = this.#options;
    this.#server = createServer({
      headersTimeout: headersTimeoutMs,
      requestTimeout: Math.max(requestTimeoutMs, headersTimeoutMs),
      connectionsCheckingInterval: Math.max(10, Math.min(1_000, headersTimeoutMs / 5)),
      keepAliveTimeout: this.#options.keepAliveTimeoutMs,
      maxHeaderSize: this.#options.headerBytesMax,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEPALIVE_PROBE_MS,
      // The policy asks for it, for upgrades as well.
      requireHostHeader: false,
    });
    this.#server.on('connection', (socket: Socket) => this.#onConnection(socket));
    this.#server.on('request', (request, response) => this.#onRequest(request, response));
    this.#server.on('upgrade', (request, socket, head) => this.#onUpgrade(request, socket as Socket, head));
    this.#server.on('clientError', (error, socket) => this.#onClientError(error, socket as Socket));
  }

  /** Until this is called, requests get 503 NOT_READY. */
  handle(handler: RequestHandler): void {
    this.#handler = handler;
  }

  /** Until this is called, clients get 503 NOT_READY. */
  acceptClients(acceptor: ClientAcceptor): void {
    this.#acceptClient = acceptor;
  }

  /** Lets requests name this host, too. */
  allowHost(name: string): void {
    this.#policy.allowHost(name);
  }

  /** Places taken now. `sockets`: open connections of every kind. */
  get counts(): { sockets: number; waiting: number; requests: number; clients: number } {
    return {
      sockets: this.#sockets.size,
      waiting: this.#waiting.size,
      requests: this.#requests,
      clients: this.#clients.size,
    };
  }

  /**
   * Port 0 takes a free one. Resolves to the host as given and the port in use. Throws PORT_IN_USE, or
   * INVALID_OPTION when the address cannot be had.
   */
  async listen(host: string, port: number): Promise<Address> {
    this.#policy.listensOn(host);
    await new Promise<void>((resolve, reject) => {
      const onError = (error: NodeJS.ErrnoException): void => reject(listenError(error, { host, port }));
      this.#server.once('error', onError);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', onError);
        // Running out of descriptors, for one: that connection is lost, the server goes on.
        this.#server.on('error', this.#onFault);
        resolve();
      });
    });
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string')
      throw new ReadmeshError('INTERNAL', 'the listener was closed while it was being opened');
    return { host, port: bound.port };
  }

  /** Gives up connections that can come back, for want of descriptors: idle ones and clients, never peers. Returns how many. */
  shed(): number {
    const given = this.#waiting.size + this.#clients.size;
    for (const socket of [...this.#waiting]) socket.destroy();
    for (const ws of [...this.#clients]) ws.terminate();
    return given;
  }

  /**
   * Takes on nothing new, lets requests in progress finish for `closeTimeoutMs`, then cuts whatever is left,
   * links and clients included: close those first if they are to be flushed. May be called again.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const closed: Promise<void>[] = [new Promise((resolve) => this.#server.close(() => resolve()))];
    // The server is done before its sockets have said so.
    for (const socket of this.#sockets)
      closed.push(new Promise((resolve) => socket.once('close', () => resolve())));
    for (const socket of this.#waiting) socket.destroy();
    const deadline = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, this.#options.closeTimeoutMs);
    await Promise.all(closed);
    clearTimeout(deadline);
    // WebSockets notice the end of theirs a turn later.
    await new Promise(setImmediate);
  }

  #onConnection(socket: Socket): void {
    // An upgraded socket has no listener of the HTTP server any more; without one an error ends the process.
    socket.on('error', () => {});
    const connection: Connection = { responses: new Set() };
    this.#sockets.add(socket);
    this.#connections.set(socket, connection);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#leaveHttp(socket);
    });
    this.#wait(socket);
  }

  #wait(socket: Socket): void {
    if (this.#closing !== undefined) {
      // What is written is flushed first.
      socket.end();
      return;
    }
    this.#waiting.add(socket);
    if (this.#waiting.size <= this.#options.waitingSocketsMax) return;
    const [longest] = this.#waiting;
    this.#waiting.delete(longest!);
    longest!.destroy();
  }

  /** The socket is closed or upgraded: its places are free. */
  #leaveHttp(socket: Socket): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    this.#connections.delete(socket);
    this.#waiting.delete(socket);
    // Pipelined responses that never got their turn emit no `close` of their own.
    this.#requests -= connection.responses.size;
    connection.responses.clear();
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const connection = this.#connections.get(request.socket);
    if (connection === undefined) return;
    const overloaded = this.#requests >= this.#options.httpRequestsMax;
    connection.responses.add(response);
    this.#requests++;
    this.#waiting.delete(request.socket);
    response.once('close', () => {
      if (!connection.responses.delete(response)) return;
      this.#requests--;
      if (connection.responses.size === 0 && !request.socket.destroyed) this.#wait(request.socket);
    });
    const refusal = this.#policy.refusal(request);
    if (refusal !== undefined) return answer(response, refusal.status, refusal.code, refusal.message);
    if (overloaded)
      return answer(response, 503, 'OVERLOADED', 'too many requests at once: try again, or another host');
    if (this.#handler === undefined)
      return answer(response, 503, 'NOT_READY', 'this node is starting: try again, or another host');
    const fail = (error: unknown): void => {
      this.#onFault(error);
      if (response.headersSent) response.destroy();
      else answer(response, 500, 'INTERNAL', 'the request failed by a fault of this node: see its log');
    };
    try {
      const answered = this.#handler(request, response);
      if (answered instanceof Promise) answered.catch(fail);
    } catch (error) {
      fail(error);
    }
  }

  #onUpgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    this.#leaveHttp(socket);
    const refuse = (status: number, code: ErrorCode, message: string): void =>
      refuseRaw(socket, status, code, message, this.#options.closeTimeoutMs);
    const refusal = this.#policy.refusal(request);
    if (refusal !== undefined) return refuse(refusal.status, refusal.code, refusal.message);
    if (request.headers.upgrade?.toLowerCase() !== 'websocket')
      return refuse(400, 'UNSUPPORTED', 'only WebSocket upgrades are known: leave the Upgrade header out');
    if (this.#closing !== undefined)
      return refuse(503, 'NOT_READY', 'this node is shutting down: try another host');
    const path = request.url?.split('?', 1)[0];
    if (path === PEER_PATH) {
      if (this.#peers.full) return refuse(503, 'OVERLOADED', 'all places for links of peers are taken');
      this.#webSockets.handleUpgrade(request, socket, head, (ws) => this.#peers.accept(ws, socket));
    } else if (path === CLIENT_PATH) {
      if (this.#acceptClient === undefined)
        return refuse(503, 'NOT_READY', 'this node is starting: try again, or another host');
      if (this.#clients.size >= this.#options.clientLinksMax)
        return refuse(503, 'OVERLOADED', 'all places for clients are taken: try another host');
      this.#webSockets.handleUpgrade(request, socket, head, (ws) => this.#openClient(ws, socket));
    } else refuse(404, 'NOT_FOUND', `WebSockets are at ${PEER_PATH} and ${CLIENT_PATH}`);
  }

  #openClient(ws: WebSocket, socket: Socket): void {
    this.#clients.add(ws);
    ws.on('close', () => this.#clients.delete(ws));
    ws.on('error', () => {});
    const remote = formatAddress({ host: socket.remoteAddress ?? 'unknown', port: socket.remotePort ?? 0 });
    this.#acceptClient?.(ws, remote, socket);
  }

  /** Bytes that are no HTTP request, a head over the cap, or a time limit. */
  #onClientError(error: NodeJS.ErrnoException, socket: Socket): void {
    const responses = this.#connections.get(socket)?.responses ?? [];
    // Amid a response there is no room for another one.
    const begun = [...responses].some((response) => response.headersSent);
    if (!socket.writable || begun || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    this.#leaveHttp(socket);
    const [status, code, message] = describeClientError(error, this.#options);
    refuseRaw(socket, status, code, message, this.#options.closeTimeoutMs);
  }
}

function describeClientError(
  error: NodeJS.ErrnoException,
  options: TransportOptions,
): [status: number, code: ErrorCode, message: string] {
  switch (error.code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return [408, 'TIMEOUT', 'the request was not complete in time'];
    case 'HPE_HEADER_OVERFLOW':
      return [
        431,
        'PROTOCOL_ERROR',
        `the request head is over ${options.headerBytesMax} bytes: shorten the URL or the headers`,
      ];
    default:
      return [400, 'PROTOCOL_ERROR', 'this is no HTTP/1.1 request'];
  }
}

function errorBody(code: ErrorCode, message: string): Buffer {
  return Buffer.from(JSON.stringify({ code, message }));
}

function answer(response: ServerResponse, status: number, code: ErrorCode, message: string): void {
  const body = errorBody(code, message);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
  response.end(body);
}

/** Answers on a bare socket, then closes it; one that does not close in turn is cut after `lingerMs`. */
function refuseRaw(socket: Socket, status: number, code: ErrorCode, message: string, lingerMs: number): void {
  const body = errorBody(code, message);
  const head =
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
  socket.end(Buffer.concat([Buffer.from(head), body]));
  const deadline = setTimeout(() => socket.destroy(), lingerMs);
  socket.once('close', () => clearTimeout(deadline));
  // Unread bytes would turn the close into a reset, which can overtake the answer.
  socket.resume();
}

function listenError(error: NodeJS.ErrnoException, address: Address): ReadmeshError {
  const { host, port } = address;
  const text = formatAddress(address);
  const details = { host, port };
  switch (error.code) {
    case 'EADDRINUSE':
      return new ReadmeshError(
        'PORT_IN_USE',
        `port ${port} on ${host} is in use: stop the other process, or listen on another port (0 takes a free one)`,
        { cause: error, details },
      );
    case 'EACCES':
      return new ReadmeshError(
        'INVALID_OPTION',
        `listening on ${text} is not permitted: choose a port above 1023`,
        { cause: error, details },
      );
    case 'EADDRNOTAVAIL':
      return new ReadmeshError(
        'INVALID_OPTION',
        `this machine has no address ${host}: listen on one that it has, and advertise the other`,
        { cause: error, details },
      );
    default:
      return new ReadmeshError('INVALID_OPTION', `cannot listen on ${text}: ${error.message}`, {
        cause: error,
        details,
      });
  }
}
