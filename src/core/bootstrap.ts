/**
 * Bootstrap: how a node that has nothing gets everything, by ranges of keys, from several peers at once.
 *
 * One ready peer is asked for a plan, which divides the keys into ranges of about equal size. Each range is copied in
 * order of keys, in one session at a time, from a snapshot of whoever is free; when the session ends early, the range
 * goes on at the key it had reached, at the same peer or another. A slow peer loses its range to one that would have
 * done long before it.
 *
 * What is stored, and in what order, is what makes it resumable. Before the first row of a snapshot come the heads,
 * the pointwise minimum over all snapshots that contributed to any range. With the rows of a chunk, or after them,
 * comes the key that its range has reached. So whatever the crash, what was written is not fetched again, and no key
 * is passed over. When all ranges are complete the heads count, and in the same batch the node becomes ready. A
 * catch-up follows.
 */
import { type Asked, type Asking, type Purpose, RETRY_MS } from './asking.js';
import type { Core } from './core.js';
import { decodeMeta, encodeMeta } from './core.js';
import type { Digest } from './digest.js';
import type { Handover } from './horizon.js';
import { compareKeys, riseWithin } from './key-order.js';
import type { Lifecycle } from './lifecycle.js';
import type { Chunk, Plan } from './messages.js';
import { Pace, Rate } from './pace.js';
import type { Peer } from './peer.js';
import type { Merge } from './replication.js';
import { joinStandings, type Standing } from './standing.js';
import type { OriginId } from './types.js';
import { minimumOfHeads } from './version-vector.js';

/** A peer that has not answered with a plan for this long is not waited for: one range will do, ms. */
const PLAN_MS = 5_000;
/** A session that has brought nothing for this long may lose its range to an idle peer, ms. */
const SILENCE_MS = 2_000;
/** A range moves to a peer that will need only this part of the time, and saves at least `MOVE_MS`. */
const MOVE_SHARE = 0.5;
const MOVE_MS = 1_000;

const META = 'bootstrap';
const NO_TOPS: ReadonlyMap<OriginId, number> = new Map();

interface StoredPlan {
  /** Founding of the cluster that it was copied from. */
  uid: string;
  /** Last key of each range but the last one. */
  keys: string[];
  entries: number;
  bytes: number;
  /** null: no snapshot has contributed yet. */
  heads: [OriginId, number][] | null;
  /** What all the snapshots that contributed have in common, as to origins that were forgotten. */
  standing: Standing | null;
}

interface StoredRange {
  /** Everything up to here is copied; null: nothing yet. */
  after: string | null;
  done: boolean;
  entries: number;
  bytes: number;
}

interface Range extends StoredRange {
  readonly index: number;
  /** Keys above `from`, up to `to`. */
  readonly from: string | null;
  readonly to: string | null;
  session: Asked | undefined;
  /** Like `after` and `done`, but as far as it is written. */
  written: string | null;
  isWritten: boolean;
}

export interface BootstrapSource {
  readonly name: string;
  entries: number;
  bytes: number;
  /** Time in sessions that are over, ms, and since when one is open. */
  busyMs: number;
  busySince: number | undefined;
}

export interface BootstrapProgress {
  /** Peers copied from since the start. */
  readonly sources: BootstrapSource[];
  /** Received since this node started. */
  entries: number;
  bytes: number;
  /** Copied before that, by an earlier one. */
  readonly resumedEntries: number;
  readonly resumedBytes: number;
  /** Estimates for all ranges; 0: unknown. */
  readonly totalEntries: number;
  readonly totalBytes: number;
  readonly ranges: number;
  rangesDone: number;
  readonly rate: Rate;
  readonly startedMono: number;
  /** Absent while it goes on. */
  endedMono?: number;
}

export class Bootstrap implements Purpose {
  readonly #core: Core;
  readonly #asking: Asking;
  readonly #merge: Merge;
  readonly #lifecycle: Lifecycle;
  readonly #digest: Digest;
  readonly #pace: Pace;
  #plan: StoredPlan | undefined;
  #ranges: Range[] = [];
  readonly #bySession = new Map<Asked, Range>();
  #planAsked: { readonly peer: Peer; readonly id: number; readonly at: number } | undefined;
  #planIds = 0;
  /** All ranges are complete, and on their way to the disk. */
  #isComplete = false;
  /** What is stored of a plan does not count any more. */
  #isAnew = false;
  progress: BootstrapProgress | undefined;

  constructor(core: Core, asking: Asking, merge: Merge, lifecycle: Lifecycle, digest: Digest) {
    this.#digest = digest;
    this.#core = core;
    this.#asking = asking;
    this.#merge = merge;
    this.#lifecycle = lifecycle;
    this.#pace = new Pace(core.options.bootstrapBytesPerSecond);
  }

  evaluate(peers: readonly Peer[]): void {
    const core = this.#core;
    const { identity, now, options, queue, timers } = core;
    if (this.#isComplete) return;
    if (this.#plan?.uid !== identity.uid) this.#recover();
    const due: Peer[] = [];
    for (const peer of peers) {
      if (!core.sealing.standing.mayPull(peer)) continue;
      if (peer.pullNotBefore > now.mono) timers.atMost('pull', peer.pullNotBefore);
      else due.push(peer);
    }
    const idle = core.sealing.standing.bestSources(due).filter((peer) => !this.#asking.isAsking(peer));
    const waitUntil = queue.bytes > options.pendingBytesMax ? now.mono + RETRY_MS : this.#pace.freeAt;
    if (waitUntil > now.mono) return timers.atMost('pull', waitUntil);
    if (this.#plan === undefined) return this.#askPlan(idle);
    while (idle.length > 0) {
      const [peer] = idle.splice(Math.floor(core.deps.random() * idle.length), 1);
      const range = this.#rangeFor(peer!);
      if (range !== undefined) this.#copy(range, peer!);
    }
  }

  /** All ranges are copied once more, by a new plan. Its sessions are over. */
  restart(): void {
    const { deps, queue } = this.#core;
    const { meta } = queue.batch();
    const stored = decodeMeta<StoredPlan>(deps.recovered.meta.get(META));
    const count = Math.max(
      this.#ranges.length,
      this.#isAnew || stored === undefined ? 0 : stored.keys.length + 1,
    );
    meta.set(META, null);
    for (let index = 0; index < count; index++) meta.set(`${META}.${index}`, null);
    this.#isAnew = true;
    this.#isComplete = false;
    this.#plan = undefined;
    this.#planAsked = undefined;
    this.#ranges = [];
    this.progress = undefined;
  }

  /** True: it is the plan that was waited for. */
  onPlan(peer: Peer, message: Plan): boolean {
    const asked = this.#planAsked;
    if (asked?.peer !== peer || asked.id !== message.plan || this.#plan !== undefined) return false;
    const { keys, entries, bytes } = message;
    const isUsable = keys.length < this.#core.options.bootstrapRangesMax && riseWithin(keys, null, null);
    this.#setOut(isUsable ? [...keys] : [], entries, bytes);
    return true;
  }

  /** Whether absence of this key from the store is an answer. */
  isCopied(key: string): boolean {
    for (const { from, to, written, isWritten } of this.#ranges) {
      if (from !== null && compareKeys(key, from) <= 0) continue;
      if (to !== null && compareKeys(key, to) > 0) continue;
      return isWritten || (written !== null && compareKeys(key, written) <= 0);
    }
    return false;
  }

  gone(peer: Peer): void {
    if (this.#planAsked?.peer === peer) this.#planAsked = undefined;
  }

  sweep(): void {
    const { now, timers } = this.#core;
    const asked = this.#planAsked;
    if (asked !== undefined && this.#plan === undefined && now.mono - asked.at >= PLAN_MS)
      this.#setOut([], 0, 0);
    if (this.#planAsked !== undefined) timers.atMost('sessions', this.#planAsked.at + PLAN_MS);
    if (asked !== undefined || this.#bySession.size > 0) timers.atMost('pull', now.mono);
  }

  // Purpose.

  opened(asked: Asked, from: Handover): void {
    const plan = this.#plan!;
    const heads = asked.heads!;
    const { sealing } = this.#core;
    sealing.announced(heads.keys());
    plan.heads = [...(plan.heads === null ? heads : minimumOfHeads(new Map(plan.heads), heads))];
    const standing = sealing.standing.of(asked.peer);
    plan.standing = plan.standing === null ? standing : joinStandings(plan.standing, standing);
    this.#core.horizon.copies(from);
    this.#core.queue.batch().meta.set(META, encodeMeta(plan));
  }

  accepts(asked: Asked, chunk: Chunk): boolean {
    const { after, from, to } = this.#bySession.get(asked)!;
    if (!riseWithin(chunk.keys, after ?? from, to)) return false;
    this.#core.sealing.learn(chunk.rows);
    return true;
  }

  taken(asked: Asked, chunk: Chunk, bytes: number): void {
    const range = this.#bySession.get(asked)!;
    if (chunk.keys.length > 0) range.after = chunk.keys.at(-1)!;
    range.entries += chunk.keys.length;
    range.bytes += bytes;
    range.done = chunk.last;
    this.#storeRange(range);
    this.#count(asked.peer, chunk.keys.length, bytes);
    const { after } = range;
    this.#core.afterWritten(() => {
      range.written = after;
      range.isWritten = chunk.last;
    });
  }

  completed(asked: Asked): void {
    this.#leave(asked);
    const progress = this.progress!;
    progress.rangesDone += 1;
    if (this.#ranges.every(({ done }) => done)) this.#finish();
  }

  failed(asked: Asked): void {
    this.#leave(asked);
  }

  // Plan and ranges.

  /** Takes up what is stored, unless it was copied from another founding of the cluster. */
  #recover(): void {
    const { deps, identity } = this.#core;
    const plan = decodeMeta<StoredPlan>(deps.recovered.meta.get(META));
    for (const session of [...this.#bySession.keys()])
      this.#asking.giveUp(session, 'cancelled', 'another founding');
    this.#plan = undefined;
    this.#ranges = [];
    if (this.#isAnew || plan === undefined || plan.uid !== identity.uid) return;
    this.#divide(plan, (index) => decodeMeta<StoredRange>(deps.recovered.meta.get(`${META}.${index}`)));
  }

  #askPlan(idle: readonly Peer[]): void {
    const { deps, now, options, timers } = this.#core;
    if (this.#planAsked !== undefined || idle.length === 0) return;
    const peer = idle[Math.floor(deps.random() * idle.length)]!;
    const id = ++this.#planIds;
    this.#planAsked = { peer, id, at: now.mono };
    timers.atMost('sessions', now.mono + PLAN_MS);
    const { bootstrapRangeBytes: rangeBytes, bootstrapRangesMax: rangesMax } = options;
    this.#core.send(peer, { type: 'plan-ask', plan: id, rangeBytes, rangesMax });
  }

  #setOut(keys: string[], entries: number, bytes: number): void {
    const { identity, queue } = this.#core;
    this.#planAsked = undefined;
    const plan: StoredPlan = { uid: identity.uid, keys, entries, bytes, heads: null, standing: null };
    this.#divide(plan, () => undefined);
    this.#digest.filledFrom(keys);
    const { meta } = queue.batch();
    meta.set(META, encodeMeta(plan));
    for (const range of this.#ranges) this.#storeRange(range);
  }

  #divide(plan: StoredPlan, stored: (index: number) => StoredRange | undefined): void {
    const { now } = this.#core;
    this.#plan = plan;
    this.#ranges = [...plan.keys, null].map((to, index) => {
      const { after, done, entries, bytes } = stored(index) ?? NOTHING;
      const from = plan.keys[index - 1] ?? null;
      return {
        index,
        from,
        to,
        after,
        done,
        entries,
        bytes,
        session: undefined,
        written: after,
        isWritten: done,
      };
    });
    const sum = (what: 'entries' | 'bytes'): number =>
      this.#ranges.reduce((total, range) => total + range[what], 0);
    this.progress = {
      sources: [],
      entries: 0,
      bytes: 0,
      resumedEntries: sum('entries'),
      resumedBytes: sum('bytes'),
      totalEntries: plan.entries,
      totalBytes: plan.bytes,
      ranges: this.#ranges.length,
      rangesDone: this.#ranges.filter(({ done }) => done).length,
      rate: new Rate(now.mono),
      startedMono: now.mono,
    };
  }

  /** What the peer should copy; undefined: nothing. */
  #rangeFor(peer: Peer): Range | undefined {
    const { options } = this.#core;
    const free = this.#ranges.find(({ done, session }) => !done && session === undefined);
    if (free !== undefined) return this.#bySession.size < options.bootstrapSourcesMax ? free : undefined;
    for (const [session, range] of this.#bySession) {
      if (!this.#isBetter(peer, session, range)) continue;
      this.#asking.giveUp(session, 'cancelled', 'another peer is faster');
      return range;
    }
    return undefined;
  }

  /** Whether the peer, which is idle, had better copy the rest of the range. Known by what each has done before. */
  #isBetter(peer: Peer, session: Asked, range: Range): boolean {
    const { options, now } = this.#core;
    const fast = this.#speed(peer);
    if (fast === 0) return false;
    const silence = this.#asking.silence(session);
    if (silence >= SILENCE_MS && silence * fast >= 2 * options.chunksInFlight * options.chunkBytesMax)
      return true;
    const slow = this.#speed(session.peer);
    const expected = this.#plan!.bytes / this.#ranges.length;
    const left = Math.max(0, expected - range.bytes);
    if (slow === 0 || left === 0 || now.mono - session.progressAt > options.sessionStallMs) return false;
    return left / fast < MOVE_SHARE * (left / slow) && left / slow - left / fast > MOVE_MS;
  }

  #copy(range: Range, peer: Peer): void {
    const asked = this.#asking.ask(peer, this, this.#pace);
    const after = range.after ?? range.from;
    range.session = asked;
    this.#bySession.set(asked, range);
    this.#source(peer).busySince = this.#core.now.mono;
    this.#core.log('info', 'bootstrap-from', {
      peer: peer.name,
      range: range.index + 1,
      ranges: this.#ranges.length,
      resumed: range.after !== null,
    });
    this.#core.send(peer, { type: 'pull-range', session: asked.id, after, until: range.to });
  }

  #leave(asked: Asked): void {
    const range = this.#bySession.get(asked)!;
    this.#bySession.delete(asked);
    range.session = undefined;
    const source = this.#source(asked.peer);
    source.busyMs += this.#core.now.mono - (source.busySince ?? this.#core.now.mono);
    source.busySince = undefined;
  }

  #storeRange({ index, after, done, entries, bytes }: Range): void {
    const stored: StoredRange = { after, done, entries, bytes };
    this.#core.queue.batch().meta.set(`${META}.${index}`, encodeMeta(stored));
  }

  /**
   * The tops of the snapshots are left out: those of one would claim what another did not have. The catch-up that
   * follows brings them.
   */
  #finish(): void {
    const { queue, now } = this.#core;
    const progress = this.progress!;
    this.#isComplete = true;
    progress.endedMono = now.mono;
    const heads = new Map(this.#plan!.heads ?? []);
    this.#merge.raiseHeads(heads, NO_TOPS);
    const { meta } = queue.batch();
    meta.set(META, null);
    for (const { index } of this.#ranges) meta.set(`${META}.${index}`, null);
    this.#core.sealing.bootstrapped(this.#plan!.standing ?? undefined, heads);
    this.#core.horizon.store();
    this.#lifecycle.becomeReady();
  }

  // Progress.

  #source(peer: Peer): BootstrapSource {
    const { sources } = this.progress!;
    let source = sources.find(({ name }) => name === peer.name);
    if (source === undefined) {
      source = { name: peer.name, entries: 0, bytes: 0, busyMs: 0, busySince: undefined };
      sources.push(source);
    }
    return source;
  }

  #count(peer: Peer, entries: number, bytes: number): void {
    const progress = this.progress!;
    const source = this.#source(peer);
    for (const sum of [progress, source]) {
      sum.entries += entries;
      sum.bytes += bytes;
    }
    progress.rate.count(bytes, this.#core.now.mono);
  }

  /** Bytes per ms that came from the peer so far; 0: unknown. */
  #speed(peer: Peer): number {
    const { bytes, busyMs, busySince } = this.#source(peer);
    const { mono } = this.#core.now;
    const time = busyMs + (mono - (busySince ?? mono));
    return time <= 0 ? 0 : bytes / time;
  }
}

const NOTHING: StoredRange = { after: null, done: false, entries: 0, bytes: 0 };
