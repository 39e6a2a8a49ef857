/**
 * Serving sessions: one snapshot each, read in chunks of which `chunksInFlight` may be unacknowledged, at most
 * `sessionsServedMax` at once (others are told `busy`). And plans: how a bootstrap is best divided.
 *
 * Live traffic comes first: while the link to the asker is congested nothing is read for it, and while this node
 * itself has more to write than two commits, a chunk only every `YIELD_MS_MAX`.
 */
import type { Core } from './core.js';
import type { Digest } from './digest.js';
import type { Handover } from './horizon.js';
import type { ChunkAck, PlanAsk, Pull, PullRange, SessionEnd } from './messages.js';
import type { Peer } from './peer.js';
import type { Trees } from './trees.js';
import type { Dot, OriginId, Records } from './types.js';

/** How often a reading that yields looks again, and after how long it yields no more to a long queue, ms. */
const YIELD_MS = 20;
const YIELD_MS_MAX = 250;

interface Served {
  readonly scan: number;
  readonly id: number;
  readonly peer: Peer;
  index: number;
  acknowledged: number;
  reading: boolean;
  done: boolean;
  readonly range: boolean;
  progressAt: number;
  /** When it last read. */
  readAt: number;
  /** Tops announced when the snapshot was asked for. */
  tops: readonly (readonly [origin: OriginId, top: number])[];
  /** What holds of the garbage horizon by then. */
  horizon: Handover;
}

export class Serving {
  readonly #core: Core;
  readonly #trees: Trees;
  readonly #digest: Digest;
  readonly #served = new Map<number, Served>();
  /** Plans that the store is asked for. */
  readonly #plans = new Map<number, { readonly peer: Peer; readonly plan: number }>();
  #planIds = 0;

  constructor(core: Core, trees: Trees, digest: Digest) {
    this.#core = core;
    this.#trees = trees;
    this.#digest = digest;
  }

  get count(): number {
    return this.#served.size;
  }

  onPull(peer: Peer, message: Pull | PullRange): void {
    const core = this.#core;
    const { identity, members, now, counters, options } = core;
    const end = (code: SessionEnd['code']): void =>
      core.send(peer, { type: 'session-end', session: message.session, asked: false, code });
    if (message.type === 'pull') this.#trees.pulled(peer, new Map(message.heads));
    if (identity.phase !== 'ready' || peer.clusterUid !== identity.uid) return end('not-ready');
    // Whoever bootstraps is counted as a member first, so that nothing it will need is collected meanwhile.
    if (message.type === 'pull-range' && !members.isMember(peer.origin)) return end('not-ready');
    if (this.#served.size >= options.sessionsServedMax) return end('busy');
    const scan = core.nextScan();
    counters.sessionsServed += 1;
    this.#served.set(scan, {
      scan,
      id: message.session,
      peer,
      index: 0,
      acknowledged: 0,
      reading: true,
      done: false,
      range: message.type === 'pull-range',
      progressAt: now.mono,
      readAt: now.mono,
      tops: [],
      horizon: core.horizon.handover,
    });
    this.#watch();
    const what =
      message.type === 'pull'
        ? { above: core.sealing.above(new Map(message.heads)) }
        : { after: message.after, until: message.until };
    // The asker's own row of the member table came just before: it is written before the snapshot is taken.
    core.afterDurable(() => {
      const served = this.#served.get(scan);
      if (served === undefined) return;
      served.tops = core.written.tops();
      served.horizon = core.horizon.handover;
      core.emit({ type: 'open-scan', scan, what });
    });
  }

  onChunkAck(peer: Peer, message: ChunkAck): void {
    for (const served of this.#served.values()) {
      if (served.peer !== peer || served.id !== message.session) continue;
      served.acknowledged = Math.max(served.acknowledged, Math.min(message.count, served.index));
      served.progressAt = this.#core.now.mono;
      this.#readOn(served);
    }
  }

  onEnd(peer: Peer, session: number): void {
    for (const served of [...this.#served.values()])
      if (served.peer === peer && served.id === session) this.#stop(served);
  }

  scanOpened(scan: number, heads: ReadonlyMap<OriginId, number>): void {
    const served = this.#served.get(scan);
    if (served === undefined) return this.#core.emit({ type: 'close-scan', scan });
    if (!served.range && !this.#core.sealing.standing.mayServe(served.peer)) {
      this.#core.send(served.peer, { type: 'session-end', session: served.id, asked: false, code: 'failed' });
      return this.#stop(served);
    }
    served.reading = false;
    const { id: session, horizon } = served;
    this.#core.send(served.peer, { type: 'session-opened', session, heads: [...heads], ...horizon });
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
    for (const [origin, top] of tops ?? [])
      if (!this.#core.sealing.isForgotten(origin)) told.set(origin, Math.max(top, told.get(origin) ?? 0));
    this.#core.send(served.peer, {
      type: 'chunk',
      session: served.id,
      index,
      keys,
      rows,
      last,
      tops: [...told],
    });
    if (last) this.#stop(served);
    else this.#readOn(served);
  }

  scanFailed(scan: number, message: string, damaged?: { readonly key: string; readonly dot?: Dot }): void {
    const served = this.#served.get(scan);
    if (served === undefined) return;
    if (damaged !== undefined) return this.#serveHealed(served, damaged);
    this.#core.log('error', 'scan-failed', { message });
    this.#core.send(served.peer, { type: 'session-end', session: served.id, asked: false, code: 'failed' });
    this.#stop(served);
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
        return this.scanFailed(served.scan, 'a damaged record could not be healed');
      served.reading = false;
      served.progressAt = this.#core.now.mono;
      if (outcome.row === undefined) return this.#readOn(served);
      this.scanRead(served.scan, { keys: [key], rows: [outcome.row] }, false, undefined);
    });
  }

  // Plans.

  /** Whoever cannot be given a plan gets one of a single range. */
  onPlanAsk(peer: Peer, message: PlanAsk): void {
    const core = this.#core;
    const { identity, options } = core;
    const isServed = identity.phase === 'ready' && peer.clusterUid === identity.uid;
    if (!isServed || this.#plans.size >= options.sessionsServedMax)
      return core.send(peer, { type: 'plan', plan: message.plan, keys: [], entries: 0, bytes: 0 });
    const plan = ++this.#planIds;
    this.#plans.set(plan, { peer, plan: message.plan });
    core.emit({
      type: 'plan',
      plan,
      rangeBytes: Math.max(1, message.rangeBytes),
      rangesMax: Math.max(1, Math.min(message.rangesMax, options.bootstrapRangesMax)),
      shares: this.#digest.shares,
    });
  }

  planned(plan: number, keys: readonly string[], entries: number, bytes: number): void {
    const asked = this.#plans.get(plan);
    this.#plans.delete(plan);
    if (asked === undefined || !this.#core.peers.has(asked.peer.link)) return;
    this.#core.send(asked.peer, { type: 'plan', plan: asked.plan, keys, entries, bytes });
  }

  // All of them.

  gone(peer: Peer): void {
    for (const served of [...this.#served.values()]) if (served.peer === peer) this.#stop(served);
  }

  /** Those that yielded may go on. */
  resume(): void {
    for (const served of this.#served.values()) this.#readOn(served);
  }

  /** Ends sessions that make no progress. */
  sweep(): void {
    const { now, options } = this.#core;
    for (const served of [...this.#served.values()])
      if (now.mono - served.progressAt >= options.sessionStallMs) {
        this.#core.send(served.peer, {
          type: 'session-end',
          session: served.id,
          asked: false,
          code: 'cancelled',
        });
        this.#stop(served);
      }
    if (this.#served.size > 0) this.#watch();
  }

  #readOn(served: Served): void {
    const { options, now, timers } = this.#core;
    if (served.reading || served.done || served.index - served.acknowledged >= options.chunksInFlight) return;
    if (this.#yields(served)) return timers.atMost('pace', now.mono + YIELD_MS);
    served.reading = true;
    served.readAt = now.mono;
    this.#core.emit({
      type: 'read-scan',
      scan: served.scan,
      rowsMax: options.chunkRowsMax,
      bytesMax: options.chunkBytesMax,
    });
  }

  #yields(served: Served): boolean {
    const { now, options, queue } = this.#core;
    if (served.peer.congested) return true;
    return queue.bytes > 2 * options.commitBytesMax && now.mono - served.readAt < YIELD_MS_MAX;
  }

  #stop(served: Served): void {
    if (this.#served.delete(served.scan)) this.#core.emit({ type: 'close-scan', scan: served.scan });
  }

  #watch(): void {
    const { now, options, timers } = this.#core;
    timers.atMost('sessions', now.mono + options.sessionStallMs / 4);
  }
}
