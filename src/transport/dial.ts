/**
 * One attempt to open a link. The deadline covers name look-up, connect and upgrade together, and does not
 * start anew when a byte drips in. When the other side refuses with an HTTP status, its one-line message
 * becomes the reason, so that an operator reads there what is wrong.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { isReadmeshError } from '../errors.js';
import type { TransportOptions } from '../options.js';
import { formatAddress, PEER_PATH, parseAddress } from './address.js';
import { WebSocket } from './ws.js';

export interface DialEvents {
  /** The WebSocket is open; its listeners are the receiver's to add, at once. */
  onOpen(ws: WebSocket, socket: Socket): void;
  onFailed(reason: string): void;
}

/** A refusal's body is read up to here, bytes. */
const REFUSAL_BYTES_MAX = 2_048;
const REFUSAL_SHOWN_MAX = 300;

/** What ws needs on both sides of a link. Compression costs far more time than it saves on a local network. */
export function webSocketOptions(options: TransportOptions) {
  return {
    perMessageDeflate: false,
    maxPayload: options.frameBytesMax,
    // Nobody here splits messages; a proxy on the way might, a little.
    maxFragments: 1_024,
    maxBufferedChunks: 65_536,
    closeTimeout: options.closeTimeoutMs,
  } as const;
}

/** Exactly one of the events follows, never within this call. Returns what cancels the attempt (it then fails). */
export function startDial(address: string, options: TransportOptions, events: DialEvents): () => void {
  let ws: WebSocket;
  try {
    const target = parseAddress(address);
    ws = new WebSocket(`ws://${formatAddress(target)}${PEER_PATH}`, webSocketOptions(options));
  } catch (error) {
    const reason = isReadmeshError(error) || error instanceof Error ? error.message : String(error);
    process.nextTick(() => events.onFailed(reason));
    return () => {};
  }
  let socket: Socket | undefined;
  let reason: string | undefined;
  const giveUp = (why: string): void => {
    reason ??= why;
    ws.terminate();
  };
  const deadline = setTimeout(
    () => giveUp(`no answer within ${options.dialTimeoutMs} ms`),
    options.dialTimeoutMs,
  );
  const onError = (error: Error): void => {
    reason ??= error.message === '' ? (error.name ?? 'failed') : error.message;
  };
  const onClose = (): void => {
    clearTimeout(deadline);
    events.onFailed(reason ?? 'the connection was closed before the upgrade');
  };
  ws.on('upgrade', (response) => {
    socket = response.socket;
  });
  ws.on('unexpected-response', (_request, response) => readRefusal(response, giveUp));
  ws.on('error', onError);
  ws.on('close', onClose);
  ws.on('open', () => {
    clearTimeout(deadline);
    ws.off('close', onClose);
    // `upgrade` always comes before `open`.
    events.onOpen(ws, socket!);
    ws.off('error', onError);
  });
  return () => giveUp('cancelled');
}

function readRefusal(response: IncomingMessage, done: (reason: string) => void): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const finish = (): void => done(describeRefusal(response.statusCode ?? 0, Buffer.concat(chunks)));
  response.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > REFUSAL_BYTES_MAX) finish();
  });
  response.on('end', finish);
  response.on('error', finish);
  response.on('close', finish);
}

function describeRefusal(status: number, body: Buffer): string {
  try {
    const { code, message } = JSON.parse(body.toString('utf8')) as { code?: unknown; message?: unknown };
    if (typeof code === 'string' && typeof message === 'string') {
      const said = JSON.stringify(`${code}: ${message}`.slice(0, REFUSAL_SHOWN_MAX));
      return `refused with HTTP ${status} ${said}`;
    }
  } catch {
    // Not one of ours: the status has to do.
  }
  return `refused with HTTP ${status}`;
}
