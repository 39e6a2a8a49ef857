/**
 * One open link: a WebSocket that carries whole binary frames, with bounded queues both ways.
 *
 * Two lives are kept apart. The logical one (`open` until `LinkOwner.onClosed`) is what the rest of the node
 * sees: it ends at the first sign of an end. The physical one ends with `LinkOwner.onGone`, when the socket is
 * closed; between the two at most `closeTimeoutMs` pass, while queued bytes and the close frame are flushed.
 *
 * Who ends a link decides what becomes of frames already received. Ended from outside (closed by the peer,
 * cut, a bad frame): what came before is still handed out, since the last message often says why. Ended by us:
 * they are dropped, and nothing is called any more but `onClosed`.
 *
 * Outbound, frames of one tick are corked and leave in one write. Queued bytes (the socket's own count) above
 * `linkQueueBytesMax` make the link congested: best-effort frames are refused until a quarter is reached.
 * Others still pass, since dropping them would break a session half-way; but twice the cap means that the
 * peer does not read at all, and ends the link without flushing.
 *
 * No callback runs within a call of `send` or `close`: a caller may drain its effects without being re-entered.
 */
import type { Socket } from 'node:net';
import type { TransportOptions } from '../options.js';
import { formatAddress } from './address.js';
import type { Inbox, Pacer } from './pacer.js';
import { WebSocket } from './ws.js';

export interface LinkOwner {
  onMessage(link: Link, bytes: Uint8Array): void;
  onCongested(link: Link): void;
  onDrained(link: Link): void;
  /** Once. The link is of no further use. */
  onClosed(link: Link, reason: string): void;
  /** Once, after the socket closed. May come before `onClosed`, when frames are still to be handed out. */
  onGone(link: Link): void;
}

const CLOSE_NORMAL = 1000;
const CLOSE_UNSUPPORTED_DATA = 1003;
const CLOSE_INTERNAL_ERROR = 1011;
/** Bytes of UTF-8 that a close frame has room for. */
const CLOSE_REASON_BYTES_MAX = 123;
/** First keepalive probe after this much silence, ms. Only a second line: heartbeats notice sooner. */
const KEEPALIVE_MS = 5_000;

const SEND_OPTIONS = { binary: true, compress: false, fin: true } as const;

export class Link {
  /** The address as it was dialed; undefined for an accepted link. */
  readonly dialed: string | undefined;
  /** Address of the socket's other end. */
  readonly remote: string;
  readonly #ws: WebSocket;
  readonly #socket: Socket;
  readonly #options: TransportOptions;
  readonly #owner: LinkOwner;
  readonly #inbox: Inbox;
  #open = true;
  #gone = false;
  #corked = false;
  #congested = false;
  /** What an end of the socket is put down to. */
  #cause: string | undefined;
  /** The socket's count at the last poll. */
  #bytesRead: number;
  #controlFrames = 0;

  constructor(
    readonly id: number,
    connection: { ws: WebSocket; socket: Socket; dialed: string | undefined },
    pacer: Pacer,
    options: TransportOptions,
    owner: LinkOwner,
  ) {
    const { ws, socket, dialed } = connection;
    this.dialed = dialed;
    this.remote = formatAddress({ host: socket.remoteAddress ?? 'unknown', port: socket.remotePort ?? 0 });
    this.#ws = ws;
    this.#socket = socket;
    this.#options = options;
    this.#owner = owner;
    this.#inbox = pacer.inbox(
      { bytesMax: options.inboxBytesMax, framesMax: options.inboxFramesMax },
      {
        onFrame: (bytes) => this.#deliver(bytes),
        onEnd: () => this.#closed(),
        pause: () => ws.pause(),
        resume: () => ws.resume(),
      },
    );
    this.#bytesRead = socket.bytesRead;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE_MS);
    this.#listen();
  }

  /** False once the link has ended, from either side. */
  get isOpen(): boolean {
    return this.#open && this.#ws.readyState === WebSocket.OPEN;
  }

  /** True while best-effort frames are refused. */
  get congested(): boolean {
    return this.#congested;
  }

  /** Bytes queued and not yet taken by the kernel. */
  get bufferedBytes(): number {
    return this.#gone ? 0 : this.#ws.bufferedAmount;
  }

  /**
   * Queues one frame. The bytes are not copied: the caller must not change them afterwards. False when they
   * were not queued: the link has ended, or is congested and `bestEffort` was asked. Never throws.
   */
  send(bytes: Uint8Array, bestEffort: boolean): boolean {
    if (!this.isOpen) return false;
    if (bytes.length > this.#options.frameBytesMax) {
      this.close(`a frame of ${bytes.length} bytes was to be sent, over the cap of frameBytesMax`);
      return false;
    }
    const queuedMax = this.#options.linkQueueBytesMax;
    const queued = this.#ws.bufferedAmount;
    if (bestEffort && this.#congested) return false;
    if (queued > 2 * queuedMax) {
      this.terminate(`the peer does not read: ${queued} bytes are queued`);
      return false;
    }
    this.#cork();
    this.#ws.send(bytes, SEND_OPTIONS, this.#onWritten);
    if (!this.#congested && queued + bytes.length > queuedMax) {
      this.#congested = true;
      process.nextTick(this.#tellCongested);
    }
    return true;
  }

  /** Flushes what is queued, within `closeTimeoutMs`. The peer is told the reason (or `told`), cut to what fits. */
  close(reason: string, code: number = CLOSE_NORMAL, told: string = reason): void {
    if (!this.#open) return;
    this.#abandon(reason);
    this.#ws.close(code, truncate(told, CLOSE_REASON_BYTES_MAX));
    // The peer's close frame may stand behind what an inbox no longer has room for.
    this.#ws.resume();
  }

  /** Cuts the link; what is queued is lost. */
  terminate(reason: string): void {
    this.#abandon(reason);
    this.#ws.terminate();
  }

  /** Whether bytes arrived since the last call. Also ends a link that is flooded with control frames. */
  poll(): boolean {
    if (!this.#open) return false;
    if (this.#controlFrames > this.#options.controlFramesMax) {
      this.#terminateForControlFrames();
      return false;
    }
    this.#controlFrames = 0;
    const read = this.#socket.bytesRead;
    // A socket that we do not read is no sign of a silent peer.
    const alive = read !== this.#bytesRead || this.#inbox.paused;
    this.#bytesRead = read;
    return alive;
  }

  #listen(): void {
    const ws = this.#ws;
    ws.on('message', (data, isBinary) => {
      // `data` is one Buffer, since the binary type of the WebSocket is left as it is.
      if (isBinary) this.#inbox.push(data as Buffer);
      else this.close('a text frame: links carry binary frames only', CLOSE_UNSUPPORTED_DATA);
    });
    const count = (): void => {
      // Beyond all measure there is no waiting for the next poll.
      if (++this.#controlFrames > 16 * this.#options.controlFramesMax && this.#open)
        this.#terminateForControlFrames();
    };
    ws.on('ping', count);
    ws.on('pong', count);
    // ws closes by itself after an error (a bad frame: with the code that fits); without a listener the process ends.
    ws.on('error', (error) => this.#ended(error.message));
    ws.on('close', (code, reason) => {
      this.#ended(describeClose(code, reason));
      this.#gone = true;
      this.#owner.onGone(this);
    });
  }

  #terminateForControlFrames(): void {
    this.terminate(`${this.#controlFrames} pings and pongs within ${this.#options.alivePollMs} ms`);
  }

  #deliver(bytes: Uint8Array): void {
    try {
      this.#owner.onMessage(this, bytes);
    } catch (error) {
      // Whatever a peer sends, only its own link may suffer. The reason carries the fault to the log.
      const fault = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.close(`a frame could not be handled: ${fault}`, CLOSE_INTERNAL_ERROR, 'internal error');
    }
  }

  /** Ended from outside: received frames are handed out first. */
  #ended(cause: string): void {
    this.#cause ??= cause;
    if (this.#open) this.#inbox.end();
  }

  /** Ended by us: received frames are dropped. */
  #abandon(cause: string): void {
    this.#inbox.drop();
    if (!this.#open) return;
    this.#open = false;
    this.#cause ??= cause;
    process.nextTick(() => this.#owner.onClosed(this, this.#cause ?? cause));
  }

  #closed(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#owner.onClosed(this, this.#cause ?? 'closed');
  }

  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#socket.cork();
    process.nextTick(this.#uncork);
  }

  readonly #uncork = (): void => {
    this.#corked = false;
    this.#socket.uncork();
  };

  readonly #tellCongested = (): void => {
    if (this.#open) this.#owner.onCongested(this);
  };

  readonly #onWritten = (): void => {
    if (!this.#congested || this.#ws.bufferedAmount > this.#options.linkQueueBytesMax / 4) return;
    this.#congested = false;
    if (this.isOpen) this.#owner.onDrained(this);
  };
}

function describeClose(code: number, reason: Buffer): string {
  if (code === 1006) return 'the connection was lost';
  // The peer's words go to logs and terminals: quoted, so that control characters do no harm there.
  return reason.length === 0
    ? `closed by the peer (${code})`
    : `closed by the peer (${code}): ${JSON.stringify(reason.toString('utf8'))}`;
}

/** The longest head of `text` within `bytesMax` bytes of UTF-8, without a broken character at its end. */
function truncate(text: string, bytesMax: number): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return bytes;
  let end = bytesMax;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}
