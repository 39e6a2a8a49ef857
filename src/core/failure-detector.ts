/**
 * Phi-accrual failure detection (Hayashibara et al., 2004), in the simplified form that chitchat uses:
 * phi = time since the last heartbeat / mean interval between heartbeats. A member is suspected at phi >= 8.
 *
 * Care taken: intervals longer than ten beats say more about a break than about the rhythm and are not
 * sampled; a young window is steadied by prior samples; a relayed first heartbeat may be an old echo and is no
 * proof of life; and when this node's own event loop was late, that time is taken out of everybody's silence
 * (a node that could not listen has no ground to suspect others).
 *
 * Members that are linked are heard every beat; others, in a mesh that is not full, only as often as they pulse.
 * They are suspected far sooner than eight pulses on the word of a neighbour that lost them (`accuse`).
 */
const WINDOW = 1_000;
const PRIOR_SAMPLES = 5;
export const PHI_SUSPECT = 8;

interface Window {
  last: number;
  /** How often it is expected to be heard, ms. */
  every: number;
  /** Another member has lost it. */
  accused: boolean;
  intervals: number[];
  next: number;
  sum: number;
}

export class FailureDetector {
  readonly #windows = new Map<string, Window>();
  readonly #beatMs: number;

  constructor(beatMs: number) {
    this.#beatMs = beatMs;
  }

  /** A heartbeat of `id` was seen at `now` (monotonic ms); the next one is expected after about `every` ms. */
  heard(id: string, now: number, every = this.#beatMs): void {
    const window = this.#windows.get(id);
    if (window === undefined) {
      this.#windows.set(id, { last: now, every, accused: false, intervals: [], next: 0, sum: 0 });
      return;
    }
    const interval = now - window.last;
    window.last = now;
    window.accused = false;
    if (window.every !== every) return this.#expect(window, every);
    if (interval <= 0 || interval > every * 10) return;
    if (window.intervals.length < WINDOW) window.intervals.push(interval);
    else {
      window.sum -= window.intervals[window.next]!;
      window.intervals[window.next] = interval;
      window.next = (window.next + 1) % WINDOW;
    }
    window.sum += interval;
  }

  phi(id: string, now: number): number {
    const window = this.#windows.get(id);
    if (window === undefined) return Number.POSITIVE_INFINITY;
    if (window.accused) return Number.POSITIVE_INFINITY;
    const mean = (window.sum + PRIOR_SAMPLES * window.every) / (window.intervals.length + PRIOR_SAMPLES);
    return (now - window.last) / Math.max(mean, 1);
  }

  state(id: string, now: number): 'alive' | 'suspect' | 'unknown' {
    if (!this.#windows.has(id)) return 'unknown';
    return this.phi(id, now) < PHI_SUSPECT ? 'alive' : 'suspect';
  }

  /** From now on it is heard this often only: the link to it is gone, not the member. */
  expect(id: string, every: number): void {
    const window = this.#windows.get(id);
    if (window !== undefined && window.every !== every) this.#expect(window, every);
  }

  /** Another member has lost it: suspected until it is heard again, even if it never was heard here. */
  accuse(id: string): void {
    if (!this.#windows.has(id)) this.heard(id, Number.NEGATIVE_INFINITY);
    this.#windows.get(id)!.accused = true;
  }

  /** Milliseconds since it was last heard; undefined when never. */
  silence(id: string, now: number): number | undefined {
    const window = this.#windows.get(id);
    return window === undefined || window.last === Number.NEGATIVE_INFINITY ? undefined : now - window.last;
  }

  /** This node could not listen for `lagMs` before `now`. */
  forgive(lagMs: number, now: number): void {
    for (const window of this.#windows.values()) window.last = Math.min(now, window.last + lagMs);
  }

  forget(id: string): void {
    this.#windows.delete(id);
  }

  /** Another rhythm: the old samples say nothing about it. */
  #expect(window: Window, every: number): void {
    window.every = every;
    window.intervals = [];
    window.next = 0;
    window.sum = 0;
  }
}
