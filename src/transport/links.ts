/**
 * Links to peers. Bytes in, bytes out: nothing here knows what a frame says, which peer is which, or when to
 * dial again. The node drives it.
 *
 * The contract of the callbacks: each runs on a stack of its own, never within a call of `Links`. Every dial
 * ends in exactly one of `onOpen` and `onDialFailed`; every opened link ends in exactly one `onClosed`, after
 * which nothing more is heard of its number. Numbers rise and are never used again.
 */
import type { Socket } from 'node:net';
import { TRANSPORT_DEFAULTS, type TransportOptions } from '../options.js';
import { startDial } from './dial.js';
import { Link, type LinkOwner } from './link.js';
import { Pacer } from './pacer.js';
import { WebSocket } from './ws.js';

export interface LinkEvents {
  /** A link is ready for use. `dialed`: the address given to `dial`, undefined when the peer dialed us. */
  onOpen(link: number, info: { dialed: string | undefined; remote: string }): void;
  /**
   * One frame, in the order of sending. The bytes are the receiver's own and are never overwritten; keeping
   * a part of them keeps up to 64 KiB around it, too.
   */
  onMessage(link: number, bytes: Uint8Array): void;
  /** Bytes arrived since the last poll (every `alivePollMs`), be it in the middle of a frame. */
  onAlive(link: number): void;
  /** More than `linkQueueBytesMax` bytes are queued: best-effort sends are refused from now on. */
  onCongested(link: number): void;
  /** A quarter of that, or less: they are accepted again. */
  onDrained(link: number): void;
  onClosed(link: number, reason: string, dialed: string | undefined): void;
  onDialFailed(address: string, reason: string): void;
}

export class Links {
  readonly #options: TransportOptions;
  readonly #events: LinkEvents;
  readonly #pacer: Pacer;
  /** Open links. */
  readonly #links = new Map<number, Link>();
  /** Links whose sockets are not closed yet, by direction. They fill the places. */
  readonly #dialed = new Set<Link>();
  readonly #accepted = new Set<Link>();
  /** Cancels a dial in progress. */
  readonly #dials = new Set<() => void>();
  readonly #owner: LinkOwner;
  #lastId = 0;
  #closing = false;
  #poll: NodeJS.Timeout | undefined;
  #onAllGone: (() => void) | undefined;

  /** Options default to `TRANSPORT_DEFAULTS`. */
  constructor(options: Partial<TransportOptions>, events: LinkEvents) {
    this.#options = { ...TRANSPORT_DEFAULTS, ...options };
    this.#events = events;
    this.#pacer = new Pacer(this.#options.sliceMs);
    this.#owner = {
      onMessage: (link, bytes) => events.onMessage(link.id, bytes),
      onCongested: (link) => events.onCongested(link.id),
      onDrained: (link) => events.onDrained(link.id),
      onClosed: (link, reason) => {
        this.#links.delete(link.id);
        this.#events.onClosed(link.id, reason, link.dialed);
      },
      onGone: (link) => {
        this.#dialed.delete(link);
        this.#accepted.delete(link);
        this.#settle();
      },
    };
  }

  /** Open links. */
  get count(): number {
    return this.#links.size;
  }

  /** True when no more links are accepted. Those that this node dials have places of their own. */
  get full(): boolean {
    return this.#closing || this.#accepted.size >= this.#options.peerLinksMax;
  }

  /** `host:port`. Never throws: whatever is wrong ends in `onDialFailed`. */
  dial(address: string): void {
    const refuse = (reason: string): void =>
      process.nextTick(() => this.#events.onDialFailed(address, reason));
    if (this.#closing) return refuse('this node is shutting down');
    if (this.#dials.size + this.#dialed.size >= this.#options.peerLinksMax)
      return refuse(`all ${this.#options.peerLinksMax} places for dialed links are taken`);
    const cancel = startDial(address, this.#options, {
      onOpen: (ws, socket) => {
        this.#dials.delete(cancel);
        this.#open({ ws, socket, dialed: address }, this.#dialed);
      },
      onFailed: (reason) => {
        this.#dials.delete(cancel);
        this.#events.onDialFailed(address, reason);
        this.#settle();
      },
    });
    this.#dials.add(cancel);
  }

  /** Takes over a connection that a peer opened. Call it from an upgrade, not from a callback of `LinkEvents`. */
  accept(ws: WebSocket, socket: Socket): void {
    if (this.full || ws.readyState !== WebSocket.OPEN) {
      ws.on('error', () => {});
      ws.terminate();
      return;
    }
    this.#open({ ws, socket, dialed: undefined }, this.#accepted);
  }

  /**
   * Queues one frame; frames of one tick leave together. The bytes are not copied: do not change them
   * afterwards. False when the frame was not queued: no such link (any more), or `bestEffort` on a congested
   * one. Frames that are not best effort pass up to twice `linkQueueBytesMax`, where the link is cut.
   */
  send(link: number, bytes: Uint8Array, bestEffort: boolean): boolean {
    return this.#links.get(link)?.send(bytes, bestEffort) ?? false;
  }

  /** Flushes and closes; nothing more is received. `onClosed` follows with this reason. */
  close(link: number, reason = 'closed by this node'): void {
    this.#links.get(link)?.close(reason);
  }

  /** Bytes queued towards the peer; 0 for a link that is not open. */
  bufferedBytes(link: number): number {
    return this.#links.get(link)?.bufferedBytes ?? 0;
  }

  /**
   * Ends everything: dials fail, links close, and nothing new is taken on. Resolves when every socket is
   * closed, `closeTimeoutMs` from now at the latest, give or take a turn of the event loop.
   */
  async closeAll(): Promise<void> {
    this.#closing = true;
    for (const cancel of [...this.#dials]) cancel();
    for (const link of [...this.#links.values()]) link.close('the node is shutting down');
    const gone = new Promise<void>((resolve) => {
      const before = this.#onAllGone;
      this.#onAllGone = () => {
        before?.();
        resolve();
      };
    });
    const deadline = setTimeout(() => {
      for (const link of [...this.#dialed, ...this.#accepted]) link.terminate('the node is shutting down');
    }, this.#options.closeTimeoutMs);
    this.#settle();
    await gone;
    clearTimeout(deadline);
    // Callbacks of the last links are queued already; they run before the caller goes on.
    await new Promise(setImmediate);
  }

  #open(connection: { ws: WebSocket; socket: Socket; dialed: string | undefined }, places: Set<Link>): void {
    const link = new Link(++this.#lastId, connection, this.#pacer, this.#options, this.#owner);
    this.#links.set(link.id, link);
    places.add(link);
    this.#poll ??= setInterval(this.#pollAll, this.#options.alivePollMs).unref();
    this.#events.onOpen(link.id, { dialed: link.dialed, remote: link.remote });
  }

  readonly #pollAll = (): void => {
    for (const link of [...this.#links.values()]) if (link.poll()) this.#events.onAlive(link.id);
  };

  /** Ends the poll with the last socket, and `closeAll` with the last of everything. */
  #settle(): void {
    if (this.#dialed.size + this.#accepted.size > 0) return;
    clearInterval(this.#poll);
    this.#poll = undefined;
    if (this.#closing && this.#dials.size === 0) {
      this.#onAllGone?.();
      this.#onAllGone = undefined;
    }
  }
}
