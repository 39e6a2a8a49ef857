/**
 * The clock by which a light client stamps its writes: a hybrid logical clock that runs on the hosts' time, so
 * that a client whose own clock is off neither loses its writes unseen nor captures keys for the future.
 *
 * Time is a vote. Each host that has been heard of has one (its clock when it last spoke, plus what has
 * elapsed here since), and this machine has one; the median is taken, of two the host's. Thus one host whose
 * clock is off does not drag the client along, if there are two others. Stamps that hosts tell are merged as far
 * as they are within the drift bound of that time.
 *
 * When the vote turns out later to have been wrong, and stamps were given that lie beyond the drift bound now,
 * a new writer id begins: the stamps of one writer always rise.
 */
import { randomBytes } from 'node:crypto';
import { idAt, type StampParts } from '../core/entry.js';
import { Hlc, stampBehind, stampCounter, stampMs } from '../core/hlc.js';
import type { OriginId } from '../core/types.js';
import { CLUSTER_DEFAULTS } from '../options.js';

/** What one host says of the time: its clock less our monotonic clock, ms. */
export interface ClockVote {
  clockOffset: number | undefined;
}

const COUNTER_MAX = 0xffff;

export class ClientClock {
  readonly #votes: () => Iterable<ClockVote>;
  readonly #driftMs: number;
  readonly #wall: () => number;
  readonly #mono: () => number;
  #writer: OriginId = newWriter();
  #hlc = new Hlc(Number.POSITIVE_INFINITY);
  #offset: number | undefined;

  constructor(
    votes: () => Iterable<ClockVote>,
    { wall = Date.now, mono = () => performance.now(), driftMs = CLUSTER_DEFAULTS.maxClockDriftMs } = {},
  ) {
    this.#votes = votes;
    this.#wall = wall;
    this.#mono = mono;
    this.#driftMs = driftMs;
  }

  /** A host said its time. */
  heard(host: ClockVote, ms: number, counter: number): void {
    const mono = this.#mono();
    const offset = ms - mono;
    const before = host.clockOffset;
    host.clockOffset = offset;
    // Counting the votes anew is worth it only when one moved.
    if (before === undefined || Math.abs(offset - before) > 1) this.#offset = undefined;
    if (ms <= this.#now(mono) + this.#driftMs) this.#hlc.receive(ms, counter);
  }

  /** The set of votes changed. */
  recount(): void {
    this.#offset = undefined;
  }

  /** A write did not win: whatever beat it is at most of this time, and the next write shall be above it. */
  lost(): void {
    const mono = this.#mono();
    for (const { clockOffset } of this.#votes()) {
      const ms = Math.floor((clockOffset ?? Number.NEGATIVE_INFINITY) + mono);
      if (ms <= this.#now(mono) + this.#driftMs) this.#hlc.receive(ms, COUNTER_MAX);
    }
  }

  /** The first of `count` consecutive stamps that are above everything given and merged. */
  stamp(count: number): Uint8Array {
    const now = Math.floor(this.#now(this.#mono()));
    if (this.#hlc.ms > now + this.#driftMs) {
      this.#writer = newWriter();
      this.#hlc = new Hlc(Number.POSITIVE_INFINITY);
    }
    this.#hlc.tick(now);
    const first = this.#hlc.stamp(this.#writer);
    for (let i = 1; i < count; i++) this.#hlc.tick(0);
    return first;
  }

  /** Whether a host with a right clock would accept a stamp of this time. */
  isPlausible(ms: number): boolean {
    return ms <= this.#now(this.#mono()) + this.#driftMs;
  }

  #now(mono: number): number {
    this.#offset ??= this.#medianOffset(mono);
    return this.#offset + mono;
  }

  #medianOffset(mono: number): number {
    const offsets: number[] = [];
    for (const { clockOffset } of this.#votes()) if (clockOffset !== undefined) offsets.push(clockOffset);
    if (offsets.length === 1) return offsets[0]!;
    offsets.push(this.#wall() - mono);
    offsets.sort((a, b) => a - b);
    return offsets[(offsets.length - 1) >> 1]!;
  }
}

function newWriter(): OriginId {
  return randomBytes(8).toString('hex');
}

/** The stamps of a batch whose first operation bears `first`. */
export function consecutiveStamps(first: Uint8Array, count: number): StampParts[] {
  const parts = { ms: stampMs(first), counter: stampCounter(first), writer: idAt(first, 8) };
  const stamps = [parts];
  for (let i = 1; i < count; i++) stamps.push(stampBehind(parts, i));
  return stamps;
}
