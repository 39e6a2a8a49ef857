/**
 * What one run leaves behind beside its verdict: how often each fault mattered, a hash of everything that
 * happened (two runs of one seed must have the same), and, when asked for, a readable trace.
 */
import { type FaultCounts, type FaultKind, noFaults } from './faults.js';
import type { Scheduler } from './scheduler.js';

const TRACE_LINES_MAX = 20_000;

export class Ledger {
  readonly faults: FaultCounts = noFaults();
  readonly lines: string[] = [];
  readonly tracing: boolean;
  readonly #scheduler: Scheduler;
  #hash = 0x811c9dc5;
  #steps = 0;

  constructor(scheduler: Scheduler, tracing: boolean) {
    this.#scheduler = scheduler;
    this.tracing = tracing;
  }

  mattered(kind: FaultKind): void {
    this.faults[kind] += 1;
  }

  /** Mixes a number into the hash of the run. */
  mix(value: number): void {
    this.#steps += 1;
    let h = Math.imul(this.#hash ^ (value | 0), 0x01000193);
    h ^= h >>> 15;
    this.#hash = h >>> 0;
  }

  get hash(): string {
    return `${this.#steps.toString(16)}-${this.#hash.toString(16).padStart(8, '0')}`;
  }

  /** `text` is only called for when somebody reads it. */
  note(who: string, text: () => string): void {
    if (!this.tracing) return;
    if (this.lines.length >= TRACE_LINES_MAX) this.lines.shift();
    this.lines.push(`${this.#scheduler.now.toFixed(1).padStart(9)} ${who.padEnd(6)} ${text()}`);
  }
}
