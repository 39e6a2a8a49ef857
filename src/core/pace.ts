/**
 * A limit on bytes per second, kept on average: what came is spent at once, and waits until the debt is paid.
 * Also a rate for people to look at, which decides nothing.
 */
export class Pace {
  readonly #bytesPerMs: number;
  #paidAt = Number.NEGATIVE_INFINITY;

  /** 0: no limit. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1_000;
  }

  spend(bytes: number, now: number): void {
    if (this.#bytesPerMs > 0) this.#paidAt = Math.max(now, this.#paidAt) + bytes / this.#bytesPerMs;
  }

  /** Monotonic ms from which more may be asked for. */
  get freeAt(): number {
    return this.#paidAt;
  }
}

/** Time in which an old rate loses most of its weight, ms. */
const MEMORY_MS = 5_000;

export class Rate {
  #bytes = 0;
  #at: number;
  readonly #startedAt: number;

  constructor(now: number) {
    this.#at = now;
    this.#startedAt = now;
  }

  count(bytes: number, now: number): void {
    this.#bytes = this.#decayed(now) + bytes;
    this.#at = now;
  }

  /** Bytes per second of late. */
  perSecond(now: number): number {
    const weight = MEMORY_MS * (1 - Math.exp((this.#startedAt - now) / MEMORY_MS));
    return weight <= 0 ? 0 : (this.#decayed(now) / weight) * 1_000;
  }

  #decayed(now: number): number {
    return this.#bytes * Math.exp((this.#at - now) / MEMORY_MS);
  }
}
