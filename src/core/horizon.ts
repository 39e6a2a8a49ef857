/**
 * The garbage horizon: which tombstones and ended entries may leave the store, and which members and stores come from
 * before that.
 */
import type { Core } from './core.js';

export class Horizon {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Entries that are over (tombstones by their stamp, others by the greater of stamp and expiry) may go up to here, ms; 0: none. */
  get collectable(): number {
    return this.#core.identity.phase === 'ready' ? 0 : 0;
  }
}
