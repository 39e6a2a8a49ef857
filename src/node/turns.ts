/**
 * Look-ups of many callers in slices: once so much time has gone into them, by whoever, the event loop gets its
 * turn. By time and not by count, since a key that is cached takes a hundredth of one that has to be inflated from
 * disk; and for all callers together, since a hundred of them in one turn would otherwise hold it a hundred times
 * as long.
 */

/** Most that look-ups hold the event loop at a time, ms, but for the few between two looks at the clock. */
const SLICE_MS = 2;
/** Look-ups between two looks at the clock. */
const LOOKUPS_PER_LOOK = 16;

export class Turns {
  /** When the slice under way is over; 0: none is under way. */
  #until = 0;

  /** `look` of each key, in order. Throws what `look` throws. */
  async map<T>(keys: readonly string[], look: (key: string) => T): Promise<T[]> {
    const out = new Array<T>(keys.length);
    for (let i = 0; i < keys.length; i++) {
      if (i % LOOKUPS_PER_LOOK === 0) while (this.#isOver()) await new Promise(setImmediate);
      out[i] = look(keys[i]!);
    }
    return out;
  }

  #isOver(): boolean {
    const now = performance.now();
    if (this.#until !== 0) return now > this.#until;
    this.#until = now + SLICE_MS;
    setImmediate(() => {
      this.#until = 0;
    });
    return false;
  }
}
