/**
 * What a session sends: responses, gathered into one frame per tick, each frame headed by the clock. It knows
 * how much waits for the socket, and cuts off a client that does not read.
 */
import type { ReadmeshError } from '../errors.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { ClientServerOptions } from '../options.js';
import { WebSocket } from '../transport/ws.js';
import { FrameBuilder, writeText } from './frame.js';
import { FRAME_BYTES_SOFT, STATUS_DONE, STATUS_FAILED, STATUS_PART } from './wire.js';

const SEND_OPTIONS = { binary: true, compress: false } as const;
/** What a response adds to what it carries, bytes. */
const ENVELOPE_BYTES = 16;

export class Outbound {
  readonly #ws: WebSocket;
  readonly #options: ClientServerOptions;
  readonly #clockMs: () => number;
  readonly #onDrained: () => void;
  readonly #builder = new FrameBuilder(true);
  readonly #waiting: (() => void)[] = [];
  #scheduled = false;
  #blocked = false;
  /** Frames handed to the socket, and those of them that have left. */
  #sent = 0;
  #left = 0;
  #leftBefore = 0;
  #stuckSince: number | undefined;
  // The greatest stamp among the records of the frame that is being put together.
  #stampMs = 0;
  #stampCounter = 0;

  constructor(ws: WebSocket, options: ClientServerOptions, clockMs: () => number, onDrained: () => void) {
    this.#ws = ws;
    this.#options = options;
    this.#clockMs = clockMs;
    this.#onDrained = onDrained;
  }

  get isOpen(): boolean {
    return this.#ws.readyState === WebSocket.OPEN;
  }

  /** True from when too much waits for the socket until half of that has left. */
  get blocked(): boolean {
    this.#blocked ||= this.#ws.bufferedAmount > this.#options.outboundPauseBytes;
    return this.#blocked && this.isOpen;
  }

  /** Resolves when it is not blocked, or closed. */
  unblocked(): Promise<void> {
    return this.blocked ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve();
  }

  /** The last response for `id`; the caller writes `elements` more, of about `bytes` bytes. */
  done(id: number, elements: number, bytes: number): MsgpackWriter {
    return this.#response(id, STATUS_DONE, elements, bytes);
  }

  part(id: number, elements: number, bytes: number): MsgpackWriter {
    return this.#response(id, STATUS_PART, elements, bytes);
  }

  failed(id: number, error: ReadmeshError): void {
    const writer = this.#response(id, STATUS_FAILED, 3, error.message.length + 64);
    writer.str(error.code);
    writeText(writer, error.message);
    writeText(writer, JSON.stringify(error.details));
  }

  /** A record of this stamp is in the frame. */
  tells(ms: number, counter: number): void {
    if (ms < this.#stampMs) return;
    if (ms > this.#stampMs || counter > this.#stampCounter) this.#stampCounter = counter;
    this.#stampMs = ms;
  }

  /** Sends what was gathered now instead of at the end of the tick. */
  flush(): void {
    if (this.#builder.count === 0) return;
    const clockMs = Math.floor(this.#clockMs());
    const stampIsAhead = this.#stampMs >= clockMs;
    const frame = this.#builder.take(
      stampIsAhead ? this.#stampMs : clockMs,
      stampIsAhead ? this.#stampCounter : 0,
    );
    this.#stampMs = 0;
    this.#stampCounter = 0;
    if (!this.isOpen || this.cutIfUnread()) return;
    this.#sent++;
    this.#ws.send(frame, SEND_OPTIONS, this.#onSent);
  }

  /** Cuts off a client for which more waits than `outboundBytesMax`. */
  cutIfUnread(): boolean {
    if (this.#ws.bufferedAmount <= this.#options.outboundBytesMax) return false;
    this.#ws.terminate();
    return true;
  }

  /** Cuts off a client that has read nothing for `stallMs` of what waits for it. Called now and then. */
  poll(now: number): void {
    if (this.#left === this.#sent || this.#left !== this.#leftBefore) {
      this.#leftBefore = this.#left;
      this.#stuckSince = undefined;
    } else if (this.#stuckSince === undefined) this.#stuckSince = now;
    else if (now - this.#stuckSince > this.#options.stallMs) this.#ws.terminate();
  }

  /** The socket is closed: nobody need wait for it. */
  closed(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #response(id: number, status: number, elements: number, bytes: number): MsgpackWriter {
    if (this.#builder.count > 0 && this.#builder.bytes + bytes > FRAME_BYTES_SOFT) this.flush();
    const writer = this.#builder.add(bytes + ENVELOPE_BYTES);
    writer.array(2 + elements);
    writer.uint(id);
    writer.uint(status);
    if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#onTick);
    }
    return writer;
  }

  readonly #onTick = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  readonly #onSent = (): void => {
    this.#left++;
    if (!this.#blocked || this.#ws.bufferedAmount > this.#options.outboundPauseBytes / 2) return;
    this.#blocked = false;
    this.closed();
    this.#onDrained();
  };
}
