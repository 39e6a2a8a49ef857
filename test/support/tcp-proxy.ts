/**
 * A TCP proxy that injects the faults of a network between two processes of one test: cuts, half-open
 * connections, one-way blackholes, delay, a narrow band, and resets or truncations at a chosen byte.
 *
 * TCP never loses bytes in the middle of a connection, and neither does this: a blackhole holds what it
 * gets (the kernel's buffers fill, as they do when no packet is acknowledged), and `heal` lets it flow on.
 * `counts` says which faults fired, so that a test can fail when its fault did not happen.
 */
import { type AddressInfo, createServer, connect as netConnect, type Server, type Socket } from 'node:net';

/** `toTarget`: from whoever connected to the proxy, to the target. */
export type Direction = 'toTarget' | 'toClient';

export interface Target {
  /** Default 127.0.0.1. */
  host?: string;
  port: number;
}

interface ByteFault {
  readonly kind: 'reset' | 'truncate';
  readonly bytes: number;
  readonly direction: Direction;
  times: number;
}

interface Faults {
  refusing: boolean;
  readonly blackholes: Set<Direction>;
  delayMs: number;
  jitterMs: number;
  bytesPerSecond: number | undefined;
  byteFault: ByteFault | undefined;
}

const noFaults = (): Faults => ({
  refusing: false,
  blackholes: new Set(),
  delayMs: 0,
  jitterMs: 0,
  bytesPerSecond: undefined,
  byteFault: undefined,
});

/** Bytes held per direction before the source is no longer read. */
const HELD_BYTES_MAX = 262_144;

export class TcpProxy {
  readonly #server: Server;
  readonly #target: Target;
  readonly #random: () => number;
  readonly #connections = new Set<Connection>();
  #faults = noFaults();
  /** What happened so far. */
  readonly counts = { accepted: 0, refused: 0, cut: 0, resets: 0, truncations: 0, toTarget: 0, toClient: 0 };

  private constructor(target: Target, seed: number) {
    this.#target = target;
    this.#random = mulberry32(seed);
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  /** Listens on a free port of 127.0.0.1. `seed` draws the jitter. */
  static async start(target: Target, seed = 1): Promise<TcpProxy> {
    const proxy = new TcpProxy(target, seed);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Connections open now, half-open ones included. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Resets every connection and every new one, until `heal`. */
  cut(): void {
    this.#faults.refusing = true;
    this.drop();
  }

  /** Resets the connections there are; new ones pass. */
  drop(): void {
    for (const connection of [...this.#connections]) {
      this.counts.cut++;
      connection.reset();
    }
  }

  /** Stops forwarding and closes nothing: neither bytes nor the end of a connection come through. Default: both ways. */
  blackhole(direction: Direction | 'both' = 'both'): void {
    if (direction !== 'toClient') this.#faults.blackholes.add('toTarget');
    if (direction !== 'toTarget') this.#faults.blackholes.add('toClient');
  }

  /** Holds every chunk for `ms` plus a random part of `jitterMs`, in order, each way. */
  delay(ms: number, jitterMs = 0): void {
    this.#faults.delayMs = ms;
    this.#faults.jitterMs = jitterMs;
  }

  /** Bytes per second, each way, per connection. */
  limit(bytesPerSecond: number): void {
    this.#faults.bytesPerSecond = bytesPerSecond;
  }

  /**
   * Resets a connection when exactly `bytes` of it have been forwarded in that direction, counted from its
   * start, and one more byte comes. Fires `times` times in all, then is spent.
   */
  resetAfter(bytes: number, direction: Direction, times = 1): void {
    this.#faults.byteFault = { kind: 'reset', bytes, direction, times };
  }

  /** The same with an orderly end: the receiver gets exactly `bytes` bytes, then the end of the stream. */
  truncateAfter(bytes: number, direction: Direction, times = 1): void {
    this.#faults.byteFault = { kind: 'truncate', bytes, direction, times };
  }

  /** Ends every fault. What a blackhole held flows on. */
  heal(): void {
    this.#faults = noFaults();
    for (const connection of this.#connections) connection.pump();
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const connection of [...this.#connections]) connection.reset();
    await closed;
  }

  #accept(client: Socket): void {
    if (this.#faults.refusing) {
      this.counts.refused++;
      client.on('error', () => {});
      client.resetAndDestroy();
      return;
    }
    this.counts.accepted++;
    const target = netConnect({ host: '127.0.0.1', ...this.#target, allowHalfOpen: true });
    const connection = new Connection(client, target, {
      faults: () => this.#faults,
      random: this.#random,
      forwarded: (direction, bytes) => (this.counts[direction] += bytes),
      fired: (kind) => this.counts[kind === 'reset' ? 'resets' : 'truncations']++,
      gone: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
  }
}

interface Context {
  faults(): Faults;
  random(): number;
  forwarded(direction: Direction, bytes: number): void;
  fired(kind: ByteFault['kind']): void;
  gone(): void;
}

class Connection {
  readonly #sockets: readonly [Socket, Socket];
  readonly #pipes: readonly [Pipe, Pipe];
  #open = 2;

  constructor(client: Socket, target: Socket, context: Context) {
    this.#sockets = [client, target];
    this.#pipes = [
      new Pipe(client, target, 'toTarget', context, this),
      new Pipe(target, client, 'toClient', context, this),
    ];
    for (const socket of this.#sockets) {
      socket.setNoDelay(true);
      socket.once('close', () => {
        if (--this.#open > 0) return;
        for (const pipe of this.#pipes) pipe.stop();
        context.gone();
      });
    }
  }

  pump(): void {
    for (const pipe of this.#pipes) pipe.pump();
  }

  reset(): void {
    for (const pipe of this.#pipes) pipe.stop();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Ends both ways in order; what is written arrives. */
  end(): void {
    for (const pipe of this.#pipes) pipe.stop();
    for (const socket of this.#sockets) {
      // Unread bytes would turn the end into a reset.
      socket.on('data', () => {}).resume();
      socket.end(() => socket.destroySoon());
    }
  }
}

type Held = { readonly due: number; bytes: Buffer } | { readonly due: number; bytes: 'end' | 'reset' };

/** One direction of one connection. */
class Pipe {
  readonly #source: Socket;
  readonly #sink: Socket;
  readonly #direction: Direction;
  readonly #context: Context;
  readonly #connection: Connection;
  readonly #held: Held[] = [];
  #heldBytes = 0;
  #forwarded = 0;
  #freeAt = 0;
  #ended = false;
  #stopped = false;
  #draining = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(source: Socket, sink: Socket, direction: Direction, context: Context, connection: Connection) {
    this.#source = source;
    this.#sink = sink;
    this.#direction = direction;
    this.#context = context;
    this.#connection = connection;
    source.on('data', (bytes) => this.#hold(bytes));
    source.on('end', () => this.#hold('end'));
    source.on('error', () => {});
    source.on('close', () => this.#hold('reset'));
    sink.on('drain', () => {
      this.#draining = false;
      this.pump();
    });
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#held.length = 0;
  }

  pump(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (!this.#stopped && !this.#draining) {
      const faults = this.#context.faults();
      if (faults.blackholes.has(this.#direction)) return;
      const head = this.#held[0];
      if (head === undefined) return;
      const waitMs = Math.max(head.due, this.#freeAt) - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.pump(), waitMs);
        return;
      }
      if (head.bytes === 'end') {
        this.#held.shift();
        this.#sink.end();
      } else if (head.bytes === 'reset') {
        this.#connection.reset();
      } else if (!this.#forward(head as { bytes: Buffer }, faults)) return;
    }
  }

  #hold(bytes: Buffer | 'end' | 'reset'): void {
    if (this.#stopped || (this.#ended && bytes === 'reset')) return;
    if (bytes === 'end') this.#ended = true;
    const { delayMs, jitterMs } = this.#context.faults();
    const earliest = this.#held.at(-1)?.due ?? 0;
    const due = Math.max(earliest, performance.now() + delayMs + jitterMs * this.#context.random());
    this.#held.push({ due, bytes } as Held);
    if (typeof bytes !== 'string') this.#heldBytes += bytes.length;
    if (this.#heldBytes > HELD_BYTES_MAX) this.#source.pause();
    this.pump();
  }

  /** Writes what may pass of the first chunk. False when the connection ended with it. */
  #forward(head: { bytes: Buffer }, faults: Faults): boolean {
    const rate = faults.bytesPerSecond;
    let length = rate === undefined ? head.bytes.length : Math.min(head.bytes.length, Math.ceil(rate / 50));
    const fault = faults.byteFault;
    const armed = fault !== undefined && fault.direction === this.#direction && fault.times > 0;
    const fires = armed && this.#forwarded + length > fault.bytes;
    if (fires) length = Math.max(0, fault.bytes - this.#forwarded);
    const part = head.bytes.subarray(0, length);
    this.#forwarded += length;
    this.#heldBytes -= length;
    this.#context.forwarded(this.#direction, length);
    if (rate !== undefined) this.#freeAt = performance.now() + (1_000 * length) / rate;
    const flows = length === 0 || this.#sink.write(part);
    if (fires) {
      fault.times--;
      this.#context.fired(fault.kind);
      if (fault.kind === 'reset') this.#connection.reset();
      else this.#connection.end();
      return false;
    }
    if (length === head.bytes.length) this.#held.shift();
    else head.bytes = head.bytes.subarray(length);
    if (!flows) this.#draining = true;
    if (this.#heldBytes <= HELD_BYTES_MAX) this.#source.resume();
    return true;
  }
}

/** A small seeded generator: jitter need not be good, only repeatable. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
