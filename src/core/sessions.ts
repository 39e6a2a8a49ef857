/**
 * Sessions: how a node gets what pushes did not bring.
 *
 * Catch-up by dots. From one snapshot the server streams every record whose dot is above the asker's head of
 * its origin, for all origins at once and without an upper bound at the snapshot's heads: records above a head
 * may be the only superseders of records below it. The asker raises its heads to those of the snapshot in the
 * batch of the last record, never before and never origin by origin. A session that is cut starts again; what
 * it brought stays applied.
 *
 * Bootstrap by key range. The same for a node that has nothing: everything in order of keys from one snapshot.
 * Key reached and heads (the pointwise minimum over all snapshots that contributed) are stored with each
 * chunk, so that it goes on at the same key after a crash, or at another source. A catch-up follows.
 *
 * Gaps. An origin that died may have left its last frames here and there, so that some heads never rise again. Two
 * nodes may then hold different records above equal heads, below equal tops, and their vectors do not tell. So
 * they pull from each other all the same, ever more rarely as long as it brings nothing.
 *
 * Flow control: `chunksInFlight` chunks may be unacknowledged, and a chunk is acknowledged once it is written.
 * The asker has one session at a time; a server serves `sessionsServedMax`.
 */
import { type Core, decodeMeta, encodeMeta } from './core.js';
import type { Lifecycle } from './lifecycle.js';
import type { Chunk, ChunkAck, Pull, PullRange, SessionEnd, SessionOpened } from './messages.js';
import type { Peer } from './peer.js';
import type { Merge } from './replication.js';
import type { Trees } from './trees.js';
import type { Dot, OriginId, Records } from './types.js';
import { minimumOfHeads } from './version-vector.js';

/** Pause before a peer that failed a session is asked again, ms. */
const RETRY_MS = 500;
/** Shortest and longest pause between pulls for the sake of gaps, per peer, ms. */
const GAP_PULL_MIN_MS = 1_000;
const GAP_PULL_MAX_MS = 30_000;
const NO_TOPS: ReadonlyMap<OriginId, number> = new Map();

interface Asked {
  readonly id: number;
  readonly peer: Peer;
  readonly range: boolean;
  heads: ReadonlyMap<OriginId, number> | undefined;
  next: number;
  progressAt: number;
  /** Chunks that came while an earlier one waits for a lost record to be healed. */
  held: Chunk[] | undefined;
  /** Records applied until it was asked. */
  readonly appliedBefore: number;
}

interface Served {
  readonly scan: number;
  readonly id: number;
  readonly peer: Peer;
  readonly range: boolean;
  index: number;
  acknowledged: number;
  reading: boolean;
  done: boolean;
  progressAt: number;
  /** Tops announced when the snapshot was asked for. */
  tops: readonly (readonly [origin: OriginId, top: number])[];
}

interface StoredBootstrap {
  after: string | null;
  /** null: no snapshot has contributed yet. */
  heads: [OriginId, number][] | null;
}

export interface BootstrapProgress {
  source: string;
  entries: number;
  bytes: number;
  startedMono: number;
  /** Absent while it goes on. */
  endedMono?: number;
}

export class Sessions {
  readonly #core: Core;
  readonly #lifecycle: Lifecycle;
  readonly #merge: Merge;
  readonly #trees: Trees;
  readonly #served = new Map<number, Served>();
  #asked: Asked | undefined;
  #ids = 0;
  #bootstrap: StoredBootstrap = { after: null, heads: null };
  #bootstrapped = false;
  progress: BootstrapProgress | undefined;

  constructor(core: Core, lifecycle: Lifecycle, merge: Merge, trees: Trees) {
    this.#core = core;
    this.#lifecycle = lifecycle;
    this.#merge = merge;
    this.#trees = trees;
  }

  start(): void {
    const stored = decodeMeta<StoredBootstrap>(this.#core.deps.recovered.meta.get('bootstrap'));
    if (stored !== undefined) this.#bootstrap = stored;
  }

  // Asking.

  /** Looks for something to ask for, and for someone to ask. Level-triggered: safe to call at any time. */
  evaluate(): void {
    const core = this.#core;
    const { identity, now, options, timers } = core;
    if (identity.phase === 'expelled' || identity.phase === 'failed' || identity.uid === '') return;
    const candidates: Peer[] = [];
    for (const peer of core.linked()) {
      if (peer.phase !== 'ready' || peer.clusterUid !== identity.uid) continue;
      const due = identity.phase === 'bootstrapping' ? peer.pullNotBefore : this.#catchUpDue(peer);
      if (due === undefined) continue;
      if (due <= now.mono) candidates.push(peer);
      else timers.atMost('pull', due);
    }
    if (this.#asked !== undefined || candidates.length === 0) return;
    if (core.queue.bytes > options.pendingBytesMax) return timers.atMost('pull', now.mono + RETRY_MS);
    const peer = candidates[Math.floor(core.deps.random() * candidates.length)]!;
    if (identity.phase === 'ready') this.#pull(peer);
    else if (!this.#bootstrapped) this.#pullRange(peer);
  }

  onOpened(peer: Peer, message: SessionOpened): void {
    const asked = this.#mine(peer, message.session);
    if (asked === undefined || asked.heads !== undefined) return;
    asked.heads = new Map(message.heads);
    asked.progressAt = this.#core.now.mono;
    if (!asked.range) return;
    const before = this.#bootstrap.heads;
    this.#bootstrap.heads = [
      ...(before === null ? asked.heads : minimumOfHeads(new Map(before), asked.heads)),
    ];
  }

  onChunk(peer: Peer, chunk: Chunk): void {
    const core = this.#core;
    const asked = this.#mine(peer, chunk.session);
    if (asked === undefined) return;
    if (asked.held !== undefined) {
      // As many as may be in flight, if the server keeps to the rules.
      if (asked.held.length > core.options.chunksInFlight) this.#giveUp(asked, 'failed', 'too many chunks');
      else asked.held.push(chunk);
      return;
    }
    const { heads } = asked;
    if (heads === undefined || chunk.index !== asked.next)
      return this.#giveUp(asked, 'failed', 'out of order');
    if (this.#merge.isTooFarAhead(chunk.rows))
      return this.#giveUp(asked, 'failed', 'a stamp is too far ahead');
    const lost = this.#merge.records(chunk);
    if (lost !== undefined) return this.#hold(asked, chunk, lost);
    asked.next += 1;
    asked.progressAt = core.now.mono;
    if (asked.range) this.#reached(chunk);
    if (chunk.last) return this.#complete(asked, heads, chunk);
    core.afterWritten(() => {
      if (this.#asked !== asked) return;
      asked.progressAt = core.now.mono;
      core.send(peer, { type: 'chunk-ack', session: asked.id, index: chunk.index });
    });
  }

  /** Some of its keys are lost here: the chunk is taken once they are healed, and those behind it after it. */
  #hold(asked: Asked, chunk: Chunk, lost: readonly string[]): void {
    asked.held = [];
    const resume = (): void => {
      const held = asked.held ?? [];
      asked.held = undefined;
      for (const next of [chunk, ...held]) this.onChunk(asked.peer, next);
    };
    if (!this.#core.heal.whenHealed(lost, resume)) this.#giveUp(asked, 'failed', 'too many damaged records');
  }

  // Serving.

  onPull(peer: Peer, message: Pull | PullRange): void {
    const core = this.#core;
    if (message.type === 'pull') this.#trees.pulled(peer, new Map(message.heads));
    if (core.identity.phase !== 'ready' || peer.clusterUid !== core.identity.uid)
      return core.send(peer, { type: 'session-end', session: message.session, code: 'not-ready' });
    if (this.#served.size >= core.options.sessionsServedMax)
      return core.send(peer, { type: 'session-end', session: message.session, code: 'busy' });
    const scan = core.nextScan();
    const { now, counters } = core;
    counters.sessionsServed += 1;
    this.#served.set(scan, {
      scan,
      id: message.session,
      peer,
      range: message.type === 'pull-range',
      index: 0,
      acknowledged: 0,
      reading: true,
      done: false,
      progressAt: now.mono,
      tops: [],
    });
    this.#watch();
    const what = message.type === 'pull' ? { above: new Map(message.heads) } : { after: message.after };
    // The asker's own row of the member table came just before: it is written before the snapshot is taken.
    core.afterWritten(() => {
      const served = this.#served.get(scan);
      if (served === undefined) return;
      served.tops = core.written.tops();
      core.emit({ type: 'open-scan', scan, what });
    });
  }

  onChunkAck(peer: Peer, message: ChunkAck): void {
    for (const served of this.#served.values()) {
      if (served.peer !== peer || served.id !== message.session) continue;
      served.acknowledged = Math.max(served.acknowledged, Math.min(message.index + 1, served.index));
      served.progressAt = this.#core.now.mono;
      this.#readOn(served);
    }
  }

  onEnd(peer: Peer, message: SessionEnd): void {
    const asked = this.#mine(peer, message.session);
    if (asked !== undefined) this.#forget(asked, message.code === 'busy' ? RETRY_MS / 2 : RETRY_MS);
    for (const served of [...this.#served.values()])
      if (served.peer === peer && served.id === message.session) this.#stopServing(served);
  }

  scanOpened(scan: number, heads: ReadonlyMap<OriginId, number>): void {
    const served = this.#served.get(scan);
    if (served === undefined) return this.#core.emit({ type: 'close-scan', scan });
    served.reading = false;
    this.#core.send(served.peer, { type: 'session-opened', session: served.id, heads: [...heads] });
    this.#readOn(served);
  }

  scanRead(
    scan: number,
    records: Records,
    last: boolean,
    tops: ReadonlyMap<OriginId, number> | undefined,
  ): void {
    const served = this.#served.get(scan);
    if (served === undefined) return;
    served.reading = false;
    served.done = last;
    const { keys, rows } = records;
    const index = served.index++;
    // The announced tops count records that were superseded since; the disk only knows those that are left. Whoever
    // was told of less than was announced would ask again for ever.
    const told = new Map(last ? served.tops : []);
    for (const [origin, top] of tops ?? []) told.set(origin, Math.max(top, told.get(origin) ?? 0));
    this.#core.send(served.peer, {
      type: 'chunk',
      session: served.id,
      index,
      keys,
      rows,
      last,
      tops: [...told],
    });
    if (last) this.#stopServing(served);
    else this.#readOn(served);
  }

  scanFailed(
    scan: number,
    message: string,
    damaged: { readonly key: string; readonly dot?: Dot } | undefined,
  ): void {
    const served = this.#served.get(scan);
    if (served === undefined) return;
    if (damaged !== undefined) return this.#serveHealed(served, damaged);
    this.#core.log('error', 'scan-failed', { message });
    this.#core.send(served.peer, { type: 'session-end', session: served.id, code: 'failed' });
    this.#stopServing(served);
  }

  /**
   * The asker's heads will rise over this record: it gets it as a peer has it, or the session ends. The session has
   * no progress meanwhile, and is ended by its own clock.
   */
  #serveHealed(served: Served, damaged: { readonly key: string; readonly dot?: Dot }): void {
    const { key, dot } = damaged;
    this.#core.heal.damaged(key, dot, (outcome) => {
      if (this.#served.get(served.scan) !== served) return;
      // In a scan of entries, a key that nobody knows is a damaged one's, and the real one is missing.
      if (!outcome.ok || (outcome.row === undefined && served.range))
        return this.scanFailed(served.scan, 'a damaged record could not be healed', undefined);
      served.reading = false;
      served.progressAt = this.#core.now.mono;
      if (outcome.row === undefined) return this.#readOn(served);
      this.scanRead(served.scan, { keys: [key], rows: [outcome.row] }, false, undefined);
    });
  }

  // Both.

  gone(peer: Peer): void {
    if (this.#asked?.peer === peer) this.#forget(this.#asked, 0);
    for (const served of [...this.#served.values()]) if (served.peer === peer) this.#stopServing(served);
  }

  /** Ends sessions that make no progress. */
  sweep(): void {
    const { now, options } = this.#core;
    const asked = this.#asked;
    if (asked !== undefined && now.mono - asked.progressAt >= options.sessionStallMs)
      this.#giveUp(asked, 'cancelled', 'no progress');
    for (const served of [...this.#served.values()])
      if (now.mono - served.progressAt >= options.sessionStallMs) {
        this.#core.send(served.peer, { type: 'session-end', session: served.id, code: 'cancelled' });
        this.#stopServing(served);
      }
    if (this.#asked !== undefined || this.#served.size > 0) this.#watch();
  }

  /** When a catch-up from this peer is due; undefined while it has nothing that we lack. */
  #catchUpDue(peer: Peer): number | undefined {
    const { taken, now, options } = this.#core;
    if (!taken.isBehind(peer.vector)) {
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

  #pull(peer: Peer): void {
    const { taken } = this.#core;
    const id = this.#ask(peer, false);
    this.#core.send(peer, { type: 'pull', session: id, heads: taken.heads() });
  }

  #pullRange(peer: Peer): void {
    const { now } = this.#core;
    const id = this.#ask(peer, true);
    this.progress ??= { source: peer.name, entries: 0, bytes: 0, startedMono: now.mono };
    this.progress.source = peer.name;
    this.#core.log('info', 'bootstrap-from', { peer: peer.name, resumed: this.#bootstrap.after !== null });
    this.#core.send(peer, { type: 'pull-range', session: id, after: this.#bootstrap.after });
  }

  #ask(peer: Peer, range: boolean): number {
    const { now, counters } = this.#core;
    counters.sessionsPulled += 1;
    this.#asked = {
      id: ++this.#ids,
      peer,
      range,
      heads: undefined,
      next: 0,
      progressAt: now.mono,
      held: undefined,
      appliedBefore: counters.recordsApplied,
    };
    this.#watch();
    return this.#asked.id;
  }

  #reached(chunk: Chunk): void {
    const { queue } = this.#core;
    if (chunk.keys.length > 0) this.#bootstrap.after = chunk.keys.at(-1)!;
    queue.batch().meta.set('bootstrap', encodeMeta(this.#bootstrap));
    if (this.progress === undefined) return;
    this.progress.entries += chunk.keys.length;
    for (const row of chunk.rows) this.progress.bytes += row.length;
  }

  #complete(asked: Asked, snapshotHeads: ReadonlyMap<OriginId, number>, chunk: Chunk): void {
    const core = this.#core;
    const heads = asked.range ? new Map(this.#bootstrap.heads ?? []) : snapshotHeads;
    // Several snapshots may have contributed to a bootstrap: the tops of the last one would claim what an earlier one
    // did not have. The catch-up that follows brings them.
    this.#merge.raiseHeads(heads, asked.range ? NO_TOPS : new Map(chunk.tops));
    this.#asked = undefined;
    asked.peer.aheadSince = undefined;
    if (asked.peer.gapPullAt !== undefined)
      this.#pauseGapPull(asked.peer, core.counters.recordsApplied > asked.appliedBefore);
    if (asked.range) {
      core.queue.batch().meta.set('bootstrap', null);
      this.#bootstrapped = true;
      if (this.progress !== undefined) this.progress.endedMono = core.now.mono;
      this.#lifecycle.becomeReady();
    }
    core.afterWritten(() => this.evaluate());
  }

  #giveUp(asked: Asked, code: 'failed' | 'cancelled', why: string): void {
    this.#core.log('warn', 'session-given-up', { peer: asked.peer.name, why });
    this.#core.send(asked.peer, { type: 'session-end', session: asked.id, code });
    this.#forget(asked, RETRY_MS);
  }

  #forget(asked: Asked, pauseMs: number): void {
    const { now, counters, timers } = this.#core;
    if (this.#asked !== asked) return;
    this.#asked = undefined;
    counters.sessionsFailed += 1;
    asked.peer.pullNotBefore = now.mono + this.#core.jitter(pauseMs);
    timers.atMost('pull', now.mono + this.#core.jitter(pauseMs));
  }

  #mine(peer: Peer, session: number): Asked | undefined {
    return this.#asked?.peer === peer && this.#asked.id === session ? this.#asked : undefined;
  }

  #readOn(served: Served): void {
    const { options } = this.#core;
    if (served.reading || served.done || served.index - served.acknowledged >= options.chunksInFlight) return;
    served.reading = true;
    this.#core.emit({
      type: 'read-scan',
      scan: served.scan,
      rowsMax: options.chunkRowsMax,
      bytesMax: options.chunkBytesMax,
    });
  }

  #stopServing(served: Served): void {
    if (this.#served.delete(served.scan)) this.#core.emit({ type: 'close-scan', scan: served.scan });
  }

  #watch(): void {
    const { now, options, timers } = this.#core;
    timers.atMost('sessions', now.mono + options.sessionStallMs / 4);
  }
}
