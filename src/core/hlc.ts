/**
 * Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014): 48 bits of milliseconds, 16 bits of
 * counter, and the writer's 64-bit id behind them, so that stamps are unique and their bytes sort in order.
 *
 * The clock never goes back, whatever the wall clock does: it starts from the persisted bound, follows the
 * wall clock while that is ahead, and counts while it is not. The counter carries into the milliseconds
 * instead of wrapping. It refuses to run further ahead of the wall clock than the drift bound; that refusal
 * changes nothing, so the caller may try again later.
 */
import {
  type StampParts,
  stampCounterOf,
  stampHexOf,
  stampMsOf,
  toHex,
  writeHex,
  writerOf,
  writeStamp,
} from './entry.js';
import type { OriginId, Row, StampHex } from './types.js';

const COUNTER_MAX = 0xffff;
/** Last millisecond a stamp can hold (year 10889). */
export const STAMP_MS_MAX = 2 ** 48 - 1;
export const STAMP_BYTES = 16;

export class Hlc {
  /** Milliseconds and counter of the greatest stamp given or seen. */
  ms = 0;
  counter = 0;
  readonly #driftMs: number;

  constructor(driftMs: number, start: { ms: number; counter: number } = { ms: 0, counter: 0 }) {
    this.#driftMs = driftMs;
    this.ms = start.ms;
    this.counter = start.counter;
  }

  /** Advances to a time greater than every one given or seen. False, and unchanged, if that is too far ahead of `wall`. */
  tick(wall: number): boolean {
    let ms = this.ms;
    let counter = this.counter + 1;
    if (wall > ms) {
      ms = wall;
      counter = 0;
    } else if (counter > COUNTER_MAX) {
      ms += 1;
      counter = 0;
    }
    if (ms - wall > this.#driftMs || ms > STAMP_MS_MAX) return false;
    this.ms = ms;
    this.counter = counter;
    return true;
  }

  /** Takes note of a stamp seen elsewhere. The caller has tested its drift. */
  receive(ms: number, counter: number): void {
    if (ms > this.ms) {
      this.ms = ms;
      this.counter = counter;
    } else if (ms === this.ms && counter > this.counter) {
      this.counter = counter;
    }
  }

  /** Whether the clock itself is further ahead of `wall` than the drift bound. */
  isSkewed(wall: number): boolean {
    return this.ms - wall > this.#driftMs;
  }

  /** The current time as a stamp of `writer`. */
  stamp(writer: OriginId): Uint8Array {
    return stampBytes(this.ms, this.counter, writer);
  }
}

export function stampBytes(ms: number, counter: number, writer: OriginId): Uint8Array {
  const bytes = new Uint8Array(STAMP_BYTES);
  writeStamp(ms, counter, writer, bytes, 0);
  return bytes;
}

const STAMP_HEX = /^[0-9a-f]{32}$/;

export function isStampHex(text: string): boolean {
  return STAMP_HEX.test(text);
}

export function stampToHex(stamp: Uint8Array): StampHex {
  return toHex(stamp, 0, STAMP_BYTES);
}

/** A stamp as text, or in its parts: a batch has thousands, and text costs more than all else about them. */
export type GivenStamp = StampHex | StampParts;

export function partsOfStamp(stamp: GivenStamp): StampParts {
  if (typeof stamp !== 'string') return stamp;
  const bytes = stampFromHex(stamp);
  return { ms: stampMs(bytes), counter: stampCounter(bytes), writer: stamp.slice(16) };
}

export function textOfStamp(stamp: GivenStamp): StampHex {
  return typeof stamp === 'string' ? stamp : stampToHex(stampBytes(stamp.ms, stamp.counter, stamp.writer));
}

/** Whether the row bears this stamp. */
export function hasStamp(row: Row, stamp: GivenStamp): boolean {
  if (typeof stamp === 'string') return stampHexOf(row) === stamp;
  return (
    stampMsOf(row) === stamp.ms && stampCounterOf(row) === stamp.counter && writerOf(row) === stamp.writer
  );
}

export function stampFromHex(hex: StampHex): Uint8Array {
  const bytes = new Uint8Array(STAMP_BYTES);
  writeHex(hex, bytes, 0);
  return bytes;
}

export function stampMs(stamp: Uint8Array): number {
  return (
    (((stamp[0]! << 24) | (stamp[1]! << 16) | (stamp[2]! << 8) | stamp[3]!) >>> 0) * 0x1_0000 +
    ((stamp[4]! << 8) | stamp[5]!)
  );
}

export function stampCounter(stamp: Uint8Array): number {
  return (stamp[6]! << 8) | stamp[7]!;
}

/** The stamp `count` places after this one, by the same writer: the stamps of one batch are consecutive. */
export function stampBehind({ ms, counter, writer }: StampParts, count: number): StampParts {
  const total = counter + count;
  return { ms: ms + Math.floor(total / (COUNTER_MAX + 1)), counter: total % (COUNTER_MAX + 1), writer };
}

export function nextStamp(hex: StampHex, count: number): StampHex {
  return textOfStamp(stampBehind(partsOfStamp(hex), count));
}
