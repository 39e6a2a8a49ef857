/**
 * A simulated network of TCP connections, as far as it shows above TCP.
 *
 * What a connection carries arrives in order, whole, or not at all from some byte on: a lost packet is a delay
 * of max(200 ms, a round trip), a cut is silence after which what was sent still arrives, a reset drops a tail
 * of what was under way and is noticed by each end in its own time. Links of which one end is gone without a
 * word stay half open until somebody notices. Each direction has its own delay, loss and bandwidth; bytes that
 * the other end has not taken count towards the sender's queue, with the caps and signals of the real transport.
 *
 * What TCP cannot do is not modelled, but for one thing: pushed frames, which the protocol calls idempotent and
 * free of order, may be delivered a second time, later than their successors.
 */
import { TRANSPORT_DEFAULTS } from '../../src/options.js';
import type { FaultKind } from './faults.js';
import type { Ledger } from './ledger.js';
import type { SimNode } from './node.js';
import type { Random } from './random.js';
import type { Scheduler } from './scheduler.js';

export interface NetworkRates {
  /** One way, ms. */
  readonly delayMs: number;
  readonly jitterMs: number;
  /** Per frame. */
  readonly loss: number;
  /** Per pushed frame. */
  readonly duplicate: number;
}

export interface Path {
  /** Why nothing passes; undefined: it does. */
  cut: FaultKind | undefined;
  /** Bytes per ms; undefined: no limit. */
  bandwidth: number | undefined;
  extraDelayMs: number;
}

const RETRANSMIT_MS = 200;
/** What the kernel of a stopped process takes before it closes the window. */
const RECEIVE_BUFFER_BYTES = 65_536;

interface Frame {
  /** 'end': the other side closed, or is gone. */
  readonly bytes: Uint8Array | 'end';
  at: number;
  /** A reset does not take it. */
  readonly lastWord: boolean;
}

/** One direction of a connection. */
class Direction {
  readonly wire: Wire;
  readonly from: SimNode;
  readonly to: SimNode;
  readonly fromLink: number;
  readonly toLink: number;
  /** Under way, in order; the first ones may have arrived while nothing could be delivered. */
  readonly queue: Frame[] = [];
  lastArrival = 0;
  freeAt = 0;
  blockedUntil = 0;
  /** Sent and not yet taken by the other end. */
  queuedBytes = 0;
  congested = false;
  /** A reset is on its way: what is sent now gets nowhere. */
  broken = false;
  /** Handed to a process that is stopped. */
  unreadBytes = 0;

  constructor(wire: Wire, from: SimNode, fromLink: number, to: SimNode, toLink: number) {
    this.wire = wire;
    this.from = from;
    this.fromLink = fromLink;
    this.to = to;
    this.toLink = toLink;
  }
}

export class Wire {
  readonly directions: [Direction, Direction];
  readonly incarnations: readonly [number, number];
  /** The dialing end does not know of the connection, but its kernel does, until this time. */
  halfOpenUntil = 0;

  constructor(a: SimNode, aLink: number, b: SimNode, bLink: number) {
    this.directions = [new Direction(this, a, aLink, b, bLink), new Direction(this, b, bLink, a, aLink)];
    this.incarnations = [a.incarnation, b.incarnation];
  }

  /** Whether that end is still open at the process that opened it. */
  isOpenAt(node: SimNode): boolean {
    const side = this.directions[0].from === node ? 0 : 1;
    const { fromLink } = this.directions[side]!;
    return node.incarnation === this.incarnations[side] && node.wires.get(fromLink) === this;
  }

  direction(from: SimNode): Direction {
    return this.directions[0].from === from ? this.directions[0] : this.directions[1];
  }
}

export class Network {
  messages = 0;
  bytes = 0;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #ledger: Ledger;
  readonly #rates: NetworkRates;
  readonly #queueBytesMax: number;
  readonly #paths = new Map<string, Path>();
  /** Directions with something stalled. */
  readonly #stalled = new Set<Direction>();
  /** Faults end: losses and duplicates, too. */
  calm = false;

  constructor(
    scheduler: Scheduler,
    random: Random,
    ledger: Ledger,
    settings: { rates: NetworkRates; queueBytesMax: number },
  ) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#ledger = ledger;
    this.#rates = settings.rates;
    this.#queueBytesMax = settings.queueBytesMax;
  }

  path(from: SimNode, to: SimNode): Path {
    const name = `${from.id}>${to.id}`;
    let path = this.#paths.get(name);
    if (path === undefined)
      this.#paths.set(name, (path = { cut: undefined, bandwidth: undefined, extraDelayMs: 0 }));
    return path;
  }

  setCut(from: SimNode, to: SimNode, cut: FaultKind | undefined): void {
    const path = this.path(from, to);
    if (path.cut === cut) return;
    path.cut = cut;
    if (cut === undefined) this.#unstall((direction) => direction.from === from && direction.to === to);
  }

  /** Every path is well again, except between these two groups. */
  heal(apart?: (a: SimNode, b: SimNode) => boolean, nodes: readonly SimNode[] = []): void {
    this.calm = true;
    for (const path of this.#paths.values()) {
      path.bandwidth = undefined;
      path.extraDelayMs = 0;
    }
    for (const a of nodes)
      for (const b of nodes) if (a !== b) this.setCut(a, b, apart?.(a, b) === true ? 'cut' : undefined);
    for (const node of nodes) this.hasten(node);
  }

  /** Links from this node are no longer slow: what waits for them goes at once. */
  hasten(node: SimNode): void {
    const { now } = this.#scheduler;
    for (const wire of node.wires.values()) {
      const direction = wire.direction(node);
      if (direction.freeAt <= now) continue;
      direction.freeAt = now;
      let at = now;
      for (const frame of direction.queue) frame.at = Math.min(frame.at, (at += 0.01));
      direction.lastArrival = at;
      this.#scheduler.after(at - now, () => this.#arrive(direction));
    }
  }

  dial(from: SimNode, address: string): void {
    const to = from.world.at(address);
    const { incarnation } = from;
    const fail = (reason: string, ms: number): void => {
      this.#scheduler.after(ms, () => {
        if (from.incarnation === incarnation) from.input({ type: 'dial-failed', address, reason });
      });
    };
    const timedOut = (): void => {
      this.#ledger.mattered('dialTimeout');
      fail('timed out', TRANSPORT_DEFAULTS.dialTimeoutMs);
    };
    if (to === undefined) return fail('no such host', 1);
    const blocked = (): boolean =>
      this.path(from, to).cut !== undefined || this.path(to, from).cut !== undefined || !to.poweredOn;
    if (blocked()) return timedOut();
    if (!to.alive) return fail('refused', this.#delay(from, to) * 2);
    this.#scheduler.after(this.#delay(from, to) + this.#delay(to, from), () => {
      if (from.incarnation !== incarnation) return;
      if (blocked() || to.paused) return timedOut();
      if (!to.alive) return fail('refused', 0);
      const wire = new Wire(from, from.newLink(), to, to.newLink());
      const [out, back] = wire.directions;
      to.wires.set(out.toLink, wire);
      // The answer to the listener's end may be what is lost: then only the listener has a link.
      if (!this.calm && this.#random.chance(this.#rates.loss)) {
        this.#ledger.mattered('halfOpen');
        wire.halfOpenUntil = this.#scheduler.now + TRANSPORT_DEFAULTS.dialTimeoutMs;
        fail('timed out', TRANSPORT_DEFAULTS.dialTimeoutMs);
        this.#scheduler.after(TRANSPORT_DEFAULTS.dialTimeoutMs, () => {
          this.#unstall((direction) => direction.wire === wire);
          this.#transmit(out, 'end', true);
        });
      } else {
        from.wires.set(back.toLink, wire);
        from.input({ type: 'link-opened', link: back.toLink, dialed: address });
      }
      to.input({ type: 'link-opened', link: out.toLink, dialed: undefined });
    });
  }

  /** As the real transport: best-effort frames are refused while congested, twice the cap ends the link. */
  send(from: SimNode, link: number, bytes: Uint8Array, kind: { bestEffort: boolean; push: boolean }): void {
    const wire = from.wires.get(link);
    if (wire === undefined) return;
    const direction = wire.direction(from);
    if (direction.congested && kind.bestEffort) {
      this.#ledger.mattered('congestion');
      return;
    }
    if (direction.queuedBytes > 2 * this.#queueBytesMax) return this.breakWire(wire);
    this.messages += 1;
    this.bytes += bytes.length;
    direction.queuedBytes += bytes.length;
    if (!direction.congested && direction.queuedBytes > this.#queueBytesMax) {
      direction.congested = true;
      from.soon({ type: 'link-congested', link });
    }
    this.#transmit(direction, bytes);
    if (kind.push && !this.calm && this.#random.chance(this.#rates.duplicate)) this.#repeat(direction, bytes);
  }

  /** This end is closed; the other end hears of it after everything that was sent. */
  close(wire: Wire, by: SimNode): void {
    const direction = wire.direction(by);
    by.wires.delete(direction.fromLink);
    by.soon({ type: 'link-closed', link: direction.fromLink });
    this.#transmit(direction, 'end');
  }

  /** The process is gone. Its kernel says so, if there is one left to speak. */
  abandon(wire: Wire, by: SimNode, silent: boolean): void {
    const direction = wire.direction(by);
    by.wires.delete(direction.fromLink);
    this.#cutTail(direction);
    if (!silent) this.#transmit(direction, 'end', true);
  }

  /** A reset, at any byte: of what is under way a tail is lost, and each end learns of it in its own time. */
  breakWire(wire: Wire): void {
    for (const direction of wire.directions) {
      this.#cutTail(direction);
      const { to, toLink } = direction;
      this.#scheduler.after(this.#random.between(0, 50), () => {
        if (wire.isOpenAt(to)) this.#ended(to, toLink);
      });
    }
  }

  /** The process reads again, or its machine is back. */
  resume(node: SimNode): void {
    for (const wire of node.wires.values())
      for (const direction of wire.directions) if (direction.to === node) direction.unreadBytes = 0;
    this.#unstall((direction) => direction.to === node);
  }

  /** From some frame on nothing arrives any more, except word of the end. */
  #cutTail(direction: Direction): void {
    direction.broken = true;
    const lost = direction.queue.splice(this.#random.below(direction.queue.length + 1));
    const lastWords = lost.filter((frame) => frame.lastWord);
    if (lost.length > lastWords.length) this.#ledger.mattered('truncatedTail');
    direction.queue.push(...lastWords);
  }

  #delay(from: SimNode, to: SimNode): number {
    const { delayMs, jitterMs } = this.#rates;
    if (this.calm) return this.#random.between(0.2, 2);
    return delayMs + this.#random.between(0, jitterMs) + this.path(from, to).extraDelayMs;
  }

  #transmit(direction: Direction, bytes: Uint8Array | 'end', lastWord = false): void {
    if (direction.broken && !lastWord) return;
    const { from, to } = direction;
    const { now } = this.#scheduler;
    const path = this.path(from, to);
    let delay = this.#delay(from, to);
    if (path.extraDelayMs > 0 && !this.calm) this.#ledger.mattered('delaySpike');
    if (!this.calm && this.#random.chance(this.#rates.loss)) {
      delay += Math.max(RETRANSMIT_MS, 2 * delay);
      this.#ledger.mattered('loss');
    }
    let departure = now;
    if (path.bandwidth !== undefined && bytes !== 'end') {
      const starts = Math.max(now, direction.freeAt);
      departure = direction.freeAt = starts + bytes.length / path.bandwidth;
      if (departure - now > 20) this.#ledger.mattered('slowLink');
      this.#drip(direction, starts, departure);
    }
    const at = Math.max(direction.lastArrival + 1e-6, departure + delay);
    direction.lastArrival = at;
    direction.queue.push({ bytes, at, lastWord });
    this.#scheduler.after(at - now, () => this.#arrive(direction));
  }

  /** Whatever is due is delivered, in order, up to the first frame that cannot be. */
  #arrive(direction: Direction): void {
    const { queue } = direction;
    const { now } = this.#scheduler;
    if (now < direction.blockedUntil) return;
    for (let frame = queue[0]; frame !== undefined && frame.at <= now; frame = queue[0]) {
      if (!this.#deliver(direction, frame)) {
        this.#stalled.add(direction);
        return;
      }
      // A delivery may have emptied the queue: a reset, a process that ended.
      if (queue[0] === frame) queue.shift();
    }
  }

  /** Bytes of a long frame keep a slow link alive. */
  #drip(direction: Direction, starts: number, ends: number): void {
    const { to, toLink, wire } = direction;
    for (let at = starts + TRANSPORT_DEFAULTS.alivePollMs; at < ends; at += TRANSPORT_DEFAULTS.alivePollMs)
      this.#scheduler.after(at - this.#scheduler.now, () => {
        if (wire.isOpenAt(to) && this.path(direction.from, to).cut === undefined)
          to.input({ type: 'link-alive', link: toLink });
      });
  }

  /** False: not now. */
  #deliver(direction: Direction, frame: Frame): boolean {
    const { from, to, toLink, wire } = direction;
    const path = this.path(from, to);
    if (path.cut !== undefined) this.#ledger.mattered(path.cut);
    if (path.cut !== undefined || !to.poweredOn) return false;
    if (!wire.isOpenAt(to)) {
      if (this.#scheduler.now < wire.halfOpenUntil) return false;
      // Nobody is there any more: a reset goes back.
      if (frame.bytes !== 'end' && wire.isOpenAt(from) && this.path(to, from).cut === undefined)
        this.#scheduler.after(this.#delay(to, from), () => {
          if (wire.isOpenAt(from)) this.#ended(from, direction.fromLink);
        });
      return true;
    }
    if (frame.bytes === 'end') {
      this.#ended(to, toLink);
      return true;
    }
    if (to.paused) {
      if (direction.unreadBytes > RECEIVE_BUFFER_BYTES) return false;
      direction.unreadBytes += frame.bytes.length;
    }
    this.#taken(direction, frame.bytes.length);
    to.receive(toLink, frame.bytes);
    return true;
  }

  #taken(direction: Direction, bytes: number): void {
    direction.queuedBytes -= bytes;
    if (!direction.congested || direction.queuedBytes > this.#queueBytesMax / 4) return;
    direction.congested = false;
    if (direction.wire.isOpenAt(direction.from))
      direction.from.soon({ type: 'link-drained', link: direction.fromLink });
  }

  #ended(node: SimNode, link: number): void {
    node.wires.delete(link);
    node.input({ type: 'link-closed', link });
  }

  /** What was held back arrives, after a retransmission. */
  #unstall(which: (direction: Direction) => boolean): void {
    for (const direction of [...this.#stalled]) {
      if (!which(direction)) continue;
      this.#stalled.delete(direction);
      const wait = this.#random.between(0, RETRANSMIT_MS);
      direction.blockedUntil = this.#scheduler.now + wait;
      this.#scheduler.after(wait, () => this.#arrive(direction));
    }
  }

  #repeat(direction: Direction, bytes: Uint8Array): void {
    const { from, to, toLink, wire } = direction;
    this.#scheduler.after(this.#random.between(0, 2_000), () => {
      if (!wire.isOpenAt(to) || !wire.isOpenAt(from) || this.path(from, to).cut !== undefined || to.paused)
        return;
      this.#ledger.mattered('duplicateFrame');
      to.receive(toLink, bytes);
    });
  }
}
