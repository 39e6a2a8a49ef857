/**
 * Sessions that this node asked for, whatever for: they open, their chunks come in order, are merged, written and
 * acknowledged, and a session that brings nothing any more is given up. `Purpose` is whoever wanted it: catch-up.ts
 * or bootstrap.ts.
 *
 * A chunk is acknowledged once it is written, and as long as that lasts the server sends no more than
 * `chunksInFlight` others. Acknowledgements wait, too, while a limit on bytes per second is exhausted, and for a
 * moment while live writes queue up behind what sessions brought.
 *
 * A slow line is no reason to give up. Frames keep their order on a link: as long as no beat comes and bytes do, a
 * chunk is on its way. Meanwhile the server hears the last acknowledgement again, or it would give up itself.
 */
import type { Core } from './core.js';
import type { Handover } from './horizon.js';
import type { Chunk, SessionEnd, SessionOpened } from './messages.js';
import type { Pace } from './pace.js';
import type { Peer } from './peer.js';
import type { Merge } from './replication.js';
import type { OriginId } from './types.js';

/** Pause before a peer that failed a session is asked again, ms. */
export const RETRY_MS = 500;
/** How long an acknowledgement waits for live writes at most, ms, and how often it looks. */
const YIELD_MS_MAX = 250;
const YIELD_MS = 20;

export interface Purpose {
  /** The snapshot is open, and `asked.heads` are its heads; what else its server says of it. */
  opened?(asked: Asked, from: Handover): void;
  /** Whether the chunk is what was asked for; nothing of it is merged otherwise. */
  accepts?(asked: Asked, chunk: Chunk): boolean;
  /** The chunk was merged. */
  taken?(asked: Asked, chunk: Chunk, bytes: number): void;
  /** The last chunk was taken, and the session is over. */
  completed(asked: Asked, chunk: Chunk): void;
  /** It is over before its end. */
  failed(asked: Asked): void;
}

export interface Asked {
  readonly id: number;
  readonly peer: Peer;
  readonly purpose: Purpose;
  /** Counted against the limit of bytes per second. */
  readonly pace: Pace | undefined;
  /** Of the snapshot, once it is open. */
  heads: ReadonlyMap<OriginId, number> | undefined;
  /** Chunks that came, that are written, and that were acknowledged. */
  taken: number;
  written: number;
  acknowledged: number;
  progressAt: number;
  /** Since when an acknowledgement is held back for live writes. */
  yieldsSince: number | undefined;
  /** Chunks that came while an earlier one waits for a lost record to be healed. */
  held: Chunk[] | undefined;
}

export class Asking {
  readonly #core: Core;
  readonly #merge: Merge;
  readonly #asked = new Map<number, Asked>();
  #ids = 0;
  /** Bytes that sessions brought and that are not written yet. */
  #unwritten = 0;

  constructor(core: Core, merge: Merge) {
    this.#core = core;
    this.#merge = merge;
  }

  get count(): number {
    return this.#asked.size;
  }

  isAsking(peer: Peer): boolean {
    for (const asked of this.#asked.values()) if (asked.peer === peer) return true;
    return false;
  }

  /** The caller sends the message that opens it, under the id of what this returns. */
  ask(peer: Peer, purpose: Purpose, pace?: Pace): Asked {
    const { now, counters } = this.#core;
    counters.sessionsPulled += 1;
    const asked: Asked = {
      id: ++this.#ids,
      peer,
      purpose,
      pace,
      heads: undefined,
      taken: 0,
      written: 0,
      acknowledged: 0,
      progressAt: now.mono,
      yieldsSince: undefined,
      held: undefined,
    };
    this.#asked.set(asked.id, asked);
    this.#watch();
    return asked;
  }

  onOpened(peer: Peer, message: SessionOpened): void {
    const asked = this.#mine(peer, message.session);
    if (asked === undefined || asked.heads !== undefined) return;
    asked.heads = new Map(message.heads);
    asked.progressAt = this.#core.now.mono;
    asked.purpose.opened?.(asked, message);
  }

  onChunk(peer: Peer, chunk: Chunk): void {
    const core = this.#core;
    const asked = this.#mine(peer, chunk.session);
    if (asked === undefined) return;
    const { purpose } = asked;
    if (asked.held !== undefined) {
      // As many as may be in flight, if the server keeps to the rules.
      if (asked.held.length < core.options.chunksInFlight) asked.held.push(chunk);
      else this.giveUp(asked, 'failed', 'too many chunks');
      return;
    }
    if (asked.heads === undefined || chunk.index !== asked.taken)
      return this.giveUp(asked, 'failed', 'out of order');
    if (this.#merge.isTooFarAhead(chunk.rows))
      return this.giveUp(asked, 'failed', 'a stamp is too far ahead');
    if (purpose.accepts?.(asked, chunk) === false)
      return this.giveUp(asked, 'failed', 'keys that were not asked for');
    const lost = this.#merge.records(chunk);
    if (lost !== undefined) return this.#hold(asked, chunk, lost);
    asked.taken += 1;
    asked.progressAt = core.now.mono;
    let bytes = 0;
    for (let i = 0; i < chunk.keys.length; i++) bytes += chunk.keys[i]!.length + chunk.rows[i]!.length;
    asked.pace?.spend(bytes, core.now.mono);
    purpose.taken?.(asked, chunk, bytes);
    if (chunk.last) {
      this.#asked.delete(asked.id);
      return purpose.completed(asked, chunk);
    }
    this.#unwritten += bytes;
    core.afterWritten(() => {
      this.#unwritten -= bytes;
      asked.written += 1;
      asked.progressAt = core.now.mono;
      this.#acknowledge(asked);
    });
  }

  /** Some of its keys are lost here: the chunk is taken once they are healed, and those behind it after it. */
  #hold(asked: Asked, chunk: Chunk, lost: readonly string[]): void {
    asked.held = [];
    const resume = (): void => {
      const held = asked.held ?? [];
      asked.held = undefined;
      for (const next of [chunk, ...held]) this.onChunk(asked.peer, next);
      // The session may be over now.
      this.#core.timers.atMost('pull', this.#core.now.mono);
    };
    if (!this.#core.heal.whenHealed(lost, chunk, resume))
      this.giveUp(asked, 'failed', 'too many damaged records');
  }

  onEnd(peer: Peer, message: SessionEnd): void {
    const asked = this.#mine(peer, message.session);
    if (asked !== undefined) this.#forget(asked, message.code === 'busy' ? RETRY_MS / 2 : RETRY_MS);
  }

  gone(peer: Peer): void {
    for (const asked of [...this.#asked.values()]) if (asked.peer === peer) this.#forget(asked, 0);
  }

  giveUp(asked: Asked, code: 'failed' | 'cancelled', why: string): void {
    this.#core.log('warn', 'session-given-up', { peer: asked.peer.name, why });
    this.#core.send(asked.peer, { type: 'session-end', session: asked.id, asked: true, code });
    this.#forget(asked, RETRY_MS);
  }

  cancel(why: string): void {
    for (const asked of [...this.#asked.values()]) this.giveUp(asked, 'cancelled', why);
  }

  /** For how long nothing has come, though it should have, ms. */
  silence(asked: Asked): number {
    const { now, options } = this.#core;
    // What came waits for this node's own disk, or for leave to go on.
    if (asked.written < asked.taken || asked.acknowledged < asked.written) return 0;
    const { heardAt, beatAt } = asked.peer;
    const isJammed = heardAt - Math.max(beatAt, asked.progressAt) > 2 * options.beatMs;
    return now.mono - (isJammed ? heardAt : asked.progressAt);
  }

  /** What was held back may go now. */
  resume(): void {
    for (const asked of this.#asked.values()) this.#acknowledge(asked);
  }

  sweep(): void {
    const { options } = this.#core;
    for (const asked of [...this.#asked.values()]) {
      if (this.silence(asked) >= options.sessionStallMs) this.giveUp(asked, 'cancelled', 'no progress');
      else this.#sendAck(asked);
    }
    if (this.#asked.size > 0) this.#watch();
  }

  #acknowledge(asked: Asked): void {
    const { now, timers } = this.#core;
    if (!this.#asked.has(asked.id) || asked.acknowledged === asked.written) return;
    const freeAt = asked.pace?.freeAt ?? now.mono;
    if (freeAt > now.mono) return timers.atMost('pace', freeAt);
    if (this.#yields(asked)) return timers.atMost('pace', now.mono + YIELD_MS);
    asked.yieldsSince = undefined;
    asked.acknowledged = asked.written;
    asked.progressAt = now.mono;
    this.#sendAck(asked);
  }

  /** More than two commits' worth of writes that no session brought are waiting for the disk. */
  #yields(asked: Asked): boolean {
    const { now, options, queue } = this.#core;
    if (queue.bytes - this.#unwritten <= 2 * options.commitBytesMax) return false;
    asked.yieldsSince ??= now.mono;
    return now.mono - asked.yieldsSince < YIELD_MS_MAX;
  }

  #sendAck(asked: Asked): void {
    this.#core.send(asked.peer, { type: 'chunk-ack', session: asked.id, count: asked.acknowledged });
  }

  #forget(asked: Asked, pauseMs: number): void {
    const { now, counters, timers } = this.#core;
    if (!this.#asked.delete(asked.id)) return;
    counters.sessionsFailed += 1;
    asked.peer.pullNotBefore = now.mono + this.#core.jitter(pauseMs);
    timers.atMost('pull', now.mono + this.#core.jitter(pauseMs));
    asked.purpose.failed(asked);
  }

  #mine(peer: Peer, session: number): Asked | undefined {
    const asked = this.#asked.get(session);
    return asked?.peer === peer ? asked : undefined;
  }

  #watch(): void {
    const { now, options, timers } = this.#core;
    timers.atMost('sessions', now.mono + options.sessionStallMs / 4);
  }
}
