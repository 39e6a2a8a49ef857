/** Virtual time: events in order of (time, seeded tie-break). */
import type { Random } from './random.js';

interface Event {
  at: number;
  tie: number;
  run: () => void;
  cancelled: boolean;
}

export class Scheduler {
  now = 0;
  executed = 0;
  readonly #heap: Event[] = [];
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  after(ms: number, run: () => void): () => void {
    const event: Event = { at: this.now + Math.max(0, ms), tie: this.#random.next(), run, cancelled: false };
    this.#push(event);
    return () => {
      event.cancelled = true;
    };
  }

  /** Runs until virtual time `until`, or until nothing is left. */
  runUntil(until: number): void {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.at > until) break;
      this.#pop();
      if (next.cancelled) continue;
      this.now = next.at;
      this.executed += 1;
      next.run();
    }
    this.now = until;
  }

  #before(a: Event, b: Event): boolean {
    return a.at !== b.at ? a.at < b.at : a.tie < b.tie;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!this.#before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}
