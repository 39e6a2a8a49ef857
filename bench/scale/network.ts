/**
 * Simulated links. TCP never loses a frame of a live stream: where a packet is lost, the frame and all that is
 * behind it on the stream arrive late by max(200 ms, round trip), the usual retransmission timeout. Now and
 * then a link breaks; what was under way on it is gone, and both ends hear of it after the time of flight.
 *
 * Not modelled: bandwidth, the processor, queues in routers.
 */
import type { PeerMessage } from '../../src/core/messages.js';
import { decodeMessage, encodeMessage } from '../../src/protocol.js';
import type { Events, Random } from './events.js';
import type { ScaleNode } from './node.js';
import { roundTripMs } from './regions.js';

const RETRANSMIT_MIN_MS = 200;

export interface NetworkSettings {
  /** Share of frames that are lost once (and of the repetitions, again). */
  readonly loss: number;
  /** Mean time between breaks of one link, ms. */
  readonly breakMs: number;
  /** A frame takes up to this share longer than half a round trip. */
  readonly jitter: number;
}

export const NETWORK: NetworkSettings = { loss: 0.02, breakMs: 1_800_000, jitter: 0.05 };

/** Told of every frame that arrives. */
export interface Observer {
  arrived(from: ScaleNode, to: ScaleNode, message: PeerMessage): void;
}

interface Frame {
  readonly bytes: number;
  readonly decoded: PeerMessage;
}

interface End {
  readonly node: ScaleNode;
  readonly link: number;
  /** When the last frame towards this end arrives: later ones cannot overtake it. */
  lastArrival: number;
}

class Wire {
  readonly ends: readonly [End, End];
  readonly roundTrip: number;
  open = true;

  constructor(a: End, b: End, roundTrip: number) {
    this.ends = [a, b];
    this.roundTrip = roundTrip;
  }

  from(node: ScaleNode): [End, End] {
    return this.ends[0].node === node ? [this.ends[0], this.ends[1]] : [this.ends[1], this.ends[0]];
  }
}

export class Network {
  messages = 0;
  bytes = 0;
  lost = 0;
  breaks = 0;
  observer: Observer | undefined;
  /** What joining costs: bytes to and from this node, and of member tables anywhere. */
  joiner: ScaleNode | undefined;
  joinBytes = 0;
  readonly #events: Events;
  readonly #random: Random;
  readonly #settings: NetworkSettings;
  readonly #frames = new WeakMap<PeerMessage, Frame>();
  readonly #nodes = new Map<string, ScaleNode>();

  constructor(events: Events, random: Random, settings: NetworkSettings) {
    this.#events = events;
    this.#random = random;
    this.#settings = settings;
  }

  register(node: ScaleNode): void {
    this.#nodes.set(node.address, node);
  }

  /** The dialer's TCP and WebSocket handshakes: two round trips. */
  dial(from: ScaleNode, address: string): void {
    const to = this.#nodes.get(address);
    if (to === undefined || !to.alive)
      return this.#later(2_000, from, () =>
        from.input({ type: 'dial-failed', address, reason: 'no answer' }),
      );
    const roundTrip = roundTripMs(from.place, to.place);
    const there = this.#flight(roundTrip) + this.#flight(roundTrip) + this.#flight(roundTrip);
    this.#events.after(there, () => {
      if (!from.alive || !to.alive) {
        if (from.alive) from.input({ type: 'dial-failed', address, reason: 'no answer' });
        return;
      }
      const a: End = { node: from, link: from.newLink(), lastArrival: 0 };
      const b: End = { node: to, link: to.newLink(), lastArrival: 0 };
      const wire = new Wire(a, b, roundTrip);
      a.lastArrival = this.#events.now + this.#flight(roundTrip);
      this.#events.after(a.lastArrival - this.#events.now, () => {
        if (!from.alive || !wire.open) return;
        from.attach(a.link, wire);
        from.input({ type: 'link-opened', link: a.link, dialed: address });
      });
      to.attach(b.link, wire);
      to.input({ type: 'link-opened', link: b.link, dialed: undefined });
      this.#events.after(this.#random.exponential(this.#settings.breakMs), () => this.#break(wire));
    });
  }

  send(from: ScaleNode, wires: readonly Wire[], message: PeerMessage): void {
    const frame = this.#frame(message);
    const { decoded } = frame;
    this.messages += wires.length;
    this.bytes += wires.length * frame.bytes;
    for (const wire of wires) {
      if (!wire.open) continue;
      const [, end] = wire.from(from);
      this.#countJoin(from, end.node, message.type, frame.bytes);
      this.#events.after(this.#arrival(wire, end) - this.#events.now, () => {
        if (!wire.open || !end.node.alive) return;
        this.observer?.arrived(from, end.node, decoded);
        end.node.input({ type: 'message', link: end.link, message: decoded });
      });
    }
  }

  #countJoin(from: ScaleNode, to: ScaleNode, type: PeerMessage['type'], bytes: number): void {
    if (this.joiner === undefined) return;
    if (from === this.joiner || to === this.joiner || type === 'members' || type === 'resend')
      this.joinBytes += bytes;
  }

  /** Real bytes, decoded once for all receivers, since the core treats messages as immutable; relays pass the very same on. */
  #frame(message: PeerMessage): Frame {
    const known = this.#frames.get(message);
    if (known !== undefined) return known;
    const bytes = encodeMessage(message);
    const frame = { bytes: bytes.length, decoded: decodeMessage(bytes) };
    this.#frames.set(frame.decoded, frame);
    return frame;
  }

  /** One side closes: what it sent before still arrives. */
  close(by: ScaleNode, wire: Wire): void {
    const [own, other] = wire.from(by);
    by.detach(own.link);
    this.#events.after(0, () => {
      if (by.alive) by.input({ type: 'link-closed', link: own.link });
    });
    this.#events.after(this.#arrival(wire, other) - this.#events.now, () => {
      if (!wire.open) return;
      wire.open = false;
      if (other.node.detach(other.link)) other.node.input({ type: 'link-closed', link: other.link });
    });
  }

  #break(wire: Wire): void {
    if (!wire.open || !wire.ends.every((end) => end.node.alive)) return;
    this.breaks += 1;
    wire.open = false;
    for (const end of wire.ends)
      this.#later(this.#flight(wire.roundTrip), end.node, () => {
        if (end.node.detach(end.link)) end.node.input({ type: 'link-closed', link: end.link });
      });
  }

  #arrival(wire: Wire, end: End): number {
    end.lastArrival = Math.max(end.lastArrival + 1e-6, this.#events.now + this.#flight(wire.roundTrip));
    return end.lastArrival;
  }

  #flight(roundTrip: number): number {
    let ms = (roundTrip / 2) * (1 + this.#random.next() * this.#settings.jitter);
    while (this.#random.next() < this.#settings.loss) {
      this.lost += 1;
      ms += Math.max(RETRANSMIT_MIN_MS, roundTrip);
    }
    return ms;
  }

  #later(ms: number, node: ScaleNode, run: () => void): void {
    this.#events.after(ms, () => {
      if (node.alive) run();
    });
  }
}

export type { Wire };
