/**
 * For how long the event loop was held lately: while it is, nobody is answered and no beat goes out. In a daemon that
 * is a machine too busy, or a heap too small; around an embedded replica it may be the application's own work.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { HealthIssue } from '../read-store.js';

/** How often the loop is looked at, ms: a shorter hold may not be seen. Each look wakes an idle process. */
const RESOLUTION_MS = 100;
/** The longest hold within the last one to two of these is told, ms. */
const WINDOW_MS = 30_000;
/** A hold from which health says so, ms: peers miss a beat. */
const HELD_MS_MAX = 1_000;

export class LoopLag {
  readonly #delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  readonly #timer: NodeJS.Timeout;
  #previousMs = 0;

  constructor() {
    this.#delays.enable();
    this.#timer = setInterval(() => this.#rotate(), WINDOW_MS);
    this.#timer.unref();
  }

  /** The longest hold within the last 30 to 60 s, ms. */
  get maxMs(): number {
    return Math.round(Math.max(this.#previousMs, this.#presentMs));
  }

  get #presentMs(): number {
    return this.#delays.count === 0 ? 0 : Math.max(0, this.#delays.max / 1e6 - RESOLUTION_MS);
  }

  #rotate(): void {
    this.#previousMs = this.#presentMs;
    this.#delays.reset();
  }

  issues(): HealthIssue[] {
    if (this.maxMs < HELD_MS_MAX) return [];
    return [
      {
        code: 'LAGGING',
        message: `the event loop was held for ${this.maxMs} ms within the last minute, in which nobody was answered: find what holds it (a busy machine, a small heap, long work of the application)`,
      },
    ];
  }

  close(): void {
    clearInterval(this.#timer);
    this.#delays.disable();
  }
}
