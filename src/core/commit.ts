/**
 * Between the write queue and the disk: which batch is written next, and what follows from its being written, flushed,
 * or refused. One batch is in flight to the store (write-queue.ts).
 */
import type { Core } from './core.js';
import type { Digest } from './digest.js';
import { asDeleted } from './entry.js';
import type { OriginId, Row } from './types.js';
import type { Batch } from './write-queue.js';

export interface CommitHooks {
  /** The batch is written. */
  onLanded(batch: Batch): void;
  /** These points of the vector changed. */
  onVector(origins: readonly OriginId[]): void;
}

export class Commit {
  readonly #core: Core;
  readonly #digest: Digest;
  readonly #hooks: CommitHooks;
  #storedHlc: { readonly ms: number; readonly counter: number };

  constructor(core: Core, digest: Digest, hooks: CommitHooks) {
    this.#core = core;
    this.#digest = digest;
    this.#hooks = hooks;
    this.#storedHlc = { ...core.deps.recovered.hlc };
  }

  /** Gives the store what waits for it, if it is free. */
  launch(): void {
    const { identity, queue } = this.#core;
    // A batch after a failed one may be lost however well it seems to be written.
    if (identity.phase === 'failed') return;
    const batch = queue.launch();
    if (batch === undefined) return;
    if (!batch.announced) this.#bind(batch);
    this.#core.emit({ type: 'persist', batch });
  }

  /** Tells the store what comes after that. */
  prepare(): void {
    const { identity, queue } = this.#core;
    const next = queue.upcoming();
    if (next === undefined || identity.phase === 'failed') return;
    this.#bind(next);
    this.#core.emit({ type: 'prepare', batch: next });
  }

  persisted(id: number): void {
    const core = this.#core;
    const batch = core.queue.landed(id);
    // Before all that follows from it, thousands of answers for instance: the disk does not wait meanwhile.
    this.launch();
    const changed = this.#raise(batch);
    this.#digest.landed(batch);
    this.#tellChanges(batch);
    this.#hooks.onLanded(batch);
    this.#hooks.onVector(changed);
    for (const then of batch.whenWritten) then();
    if (!core.config.flushes) this.#durable(batch);
  }

  flushed(id: number): void {
    for (const batch of this.#core.queue.flushed(id)) this.#durable(batch);
  }

  /** The clock bound is to be written anew. */
  rewrite(): void {
    this.#storedHlc = { ms: 0, counter: 0 };
  }

  #bind(batch: Batch): void {
    this.#bindClock(batch);
    this.#digest.bind(batch);
  }

  /** No stamp in the batch, nor any given before, is above the bound that it stores. */
  #bindClock(batch: Batch): void {
    const { ms, counter } = this.#core.hlc;
    if (ms === this.#storedHlc.ms && counter === this.#storedHlc.counter) return;
    batch.hlc = { ms, counter };
    this.#storedHlc = batch.hlc;
  }

  /** Returns the points of the vector that changed. */
  #raise({ heads, tops, forgets }: Batch): OriginId[] {
    const { written } = this.#core;
    const changed: OriginId[] = [];
    for (const [origin, head] of heads) if (written.raise(origin, head, head)) changed.push(origin);
    for (const [origin, top] of tops) if (written.raise(origin, 0, top)) changed.push(origin);
    for (const origin of forgets) {
      written.drop(origin);
      changed.push(origin);
    }
    return changed;
  }

  #durable(batch: Batch): void {
    const { acks, config } = this.#core;
    if (batch.group !== undefined) acks.flushedHere(batch.group, config.host);
    for (const then of batch.whenDurable) then();
  }

  #tellChanges(batch: Batch): void {
    const core = this.#core;
    if (batch.collects) {
      const { removals } = batch;
      core.emit({ type: 'collected', keys: [...removals.keys()], rows: [...removals.values()] });
      return;
    }
    const most = batch.rows.size + batch.removals.size;
    const keys = new Array<string>(most);
    const rows = new Array<Row>(most);
    let count = 0;
    for (const [key, row] of batch.removals) {
      keys[count] = key;
      rows[count++] = asDeleted(key, row, core.deps.checksum);
    }
    batch.rows.forEach(({ row, quiet }, key) => {
      if (quiet) return;
      keys[count] = key;
      rows[count++] = row;
    });
    keys.length = count;
    rows.length = count;
    if (count > 0) core.emit({ type: 'changed', keys, rows });
  }
}
