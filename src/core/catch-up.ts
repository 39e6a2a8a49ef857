/**
 * Catch-up by dots: how a node that is ready gets what pushes did not bring. From one snapshot the server streams
 * every record whose dot is above the asker's head of its origin, for all origins at once and without an upper bound
 * at the snapshot's heads: records above a head may be the only superseders of records below it. The asker raises its
 * heads to those of the snapshot in the batch of the last record, never before and never origin by origin. A session
 * that is cut starts again; what it brought stays applied. One at a time.
 *
 * Gaps. An origin that died may have left its last frames here and there, so that some heads never rise again. Two
 * nodes may then hold different records above equal heads, below equal tops, and their vectors do not tell. So
 * they pull from each other all the same, ever more rarely as long as it brings nothing.
 */
import type { Asked, Asking, Purpose } from './asking.js';
import { RETRY_MS } from './asking.js';
import type { Core } from './core.js';
import type { Chunk } from './messages.js';
import type { Peer } from './peer.js';
import type { Merge } from './replication.js';

/** Shortest and longest pause between pulls for the sake of gaps, per peer, ms. */
const GAP_PULL_MIN_MS = 1_000;
const GAP_PULL_MAX_MS = 30_000;

export class CatchUp implements Purpose {
  readonly #core: Core;
  readonly #asking: Asking;
  readonly #merge: Merge;
  #current: Asked | undefined;
  /** Records applied until it was asked. */
  #appliedBefore = 0;

  constructor(core: Core, asking: Asking, merge: Merge) {
    this.#core = core;
    this.#asking = asking;
    this.#merge = merge;
  }

  evaluate(peers: readonly Peer[]): void {
    const core = this.#core;
    const { now, options, timers, queue, counters, taken } = core;
    const candidates: Peer[] = [];
    for (const peer of peers) {
      if (!core.sealing.standing.mayPull(peer)) continue;
      const due = this.#due(peer);
      if (due === undefined) continue;
      if (due <= now.mono) candidates.push(peer);
      else timers.atMost('pull', due);
    }
    if (this.#current !== undefined || candidates.length === 0) return;
    if (queue.bytes > options.pendingBytesMax) return timers.atMost('pull', now.mono + RETRY_MS);
    const peer = candidates[Math.floor(core.deps.random() * candidates.length)]!;
    this.#current = this.#asking.ask(peer, this);
    this.#appliedBefore = counters.recordsApplied;
    core.send(peer, { type: 'pull', session: this.#current.id, heads: taken.heads() });
  }

  completed(asked: Asked, chunk: Chunk): void {
    const { peer } = asked;
    this.#merge.raiseHeads(asked.heads!, new Map(chunk.tops));
    this.#current = undefined;
    peer.aheadSince = undefined;
    if (peer.gapPullAt !== undefined)
      this.#pauseGapPull(peer, this.#core.counters.recordsApplied > this.#appliedBefore);
  }

  failed(): void {
    this.#current = undefined;
  }

  /** When a catch-up from this peer is due; undefined while it has nothing that we lack. */
  #due(peer: Peer): number | undefined {
    const { taken, now, options } = this.#core;
    if (!taken.isBehind(peer.vector, this.#core.sealing.isCovered)) {
      peer.aheadSince = undefined;
      return this.#gapPullDue(peer);
    }
    peer.aheadSince ??= now.mono;
    return Math.max(peer.aheadSince + options.pullGraceMs, peer.pullNotBefore);
  }

  #gapPullDue(peer: Peer): number | undefined {
    const { taken, now } = this.#core;
    if (!taken.hasGaps || !peer.vector.hasGaps) {
      peer.gapPullAt = undefined;
      return undefined;
    }
    if (peer.gapPullAt === undefined) this.#pauseGapPull(peer, true);
    return Math.max(peer.gapPullAt ?? now.mono, peer.pullNotBefore);
  }

  #pauseGapPull(peer: Peer, fruitful: boolean): void {
    peer.gapPauseMs = fruitful ? GAP_PULL_MIN_MS : Math.min(GAP_PULL_MAX_MS, peer.gapPauseMs * 2);
    peer.gapPullAt = this.#core.now.mono + this.#core.jitter(peer.gapPauseMs);
  }
}
