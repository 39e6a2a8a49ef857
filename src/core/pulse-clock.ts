/**
 * When this node pulses (gossip.ts). Soon after its start, then at intervals that double until they are the usual one:
 * trees are found by pulses, and the usual ones of a large fleet are minutes apart.
 *
 * All intervals but the usual one are drawn. Members that were switched on together would else pulse together ever
 * after, each time in a wave that takes as long as the first one.
 */

/** The first pulse comes within this many beats of the start. */
const FIRST_BEATS = 10;

export class PulseClock {
  readonly #random: () => number;
  #at = 0;
  /** Until the next but one, ms, while that is less than the usual interval. */
  #gapMs = 0;

  /** `random`: draws in [0, 1). */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** Times are monotonic ms. */
  start(now: number, beatMs: number): void {
    this.#gapMs = FIRST_BEATS * beatMs;
    this.#at = now + this.#random() * this.#gapMs;
  }

  isDue(now: number): boolean {
    return now >= this.#at;
  }

  /** A pulse went out, due or not. `usualMs`: between two of them in the long run. */
  pulsed(now: number, usualMs: number): void {
    const isUsual = this.#gapMs >= usualMs;
    this.#at = now + (isUsual ? usualMs : this.#gapMs * (0.5 + this.#random()));
    this.#gapMs = Math.min(this.#gapMs * 2, usualMs);
  }
}
