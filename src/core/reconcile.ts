/**
 * Comparing copies with peers, and mending this one.
 *
 * Members at rest exchange their roots while their vectors are equal: `digest-root` goes out with a beat when
 * nothing is on its way to the disk and the peer is known to have the same vector. Equal roots prove this copy.
 * Unequal ones are damage, or a bug, and are counted, unless something is held above a head: there copies may differ
 * for a while. Either way whoever sees them looks for the difference with that peer, from the whole key space down in
 * steps of `reconcileSpansMax` ranges (range-based set reconciliation, Meyer, 2022), and at the end entry by entry,
 * while its own range is read from disk anew. A gap is no reason to wait: an origin that has ended leaves vectors with
 * its gap only once all copies are proved equal (sealing.ts), and a store in doubt about its records proves nothing.
 *
 * Each node mends only itself, and asks; answers change nothing at the answerer (reconcile-answers.ts). Of records
 * that differ the greater one is fetched. A record that one of the two lacks is decided by the others
 * (reconcile-rule.ts), never by union. A difference counts only if the dot is at or below the other's head as it was
 * known before the question: what is above comes by itself. So nothing has to stand still while two members compare.
 *
 * Garbage collection (collection.ts) takes mortal entries at one member before another. Their sums are compared, and
 * roots prove anything, only between members that have swept up to the same cut; of entries those that ended before
 * the greater cut of the two count as much as their absence. Otherwise what one of the two has collected would be spread.
 *
 * One comparison at a time, a cap on what it fetches a second, and live traffic first. A peer that still differs is
 * tried again ever more rarely.
 */
import type { Core } from './core.js';
import type { Digest } from './digest.js';
import { DigestSum } from './digest-sum.js';
import type { Leaf } from './digest-tree.js';
import { isOverBy } from './entry.js';
import { DAMAGED } from './heal.js';
import { compareKeys } from './key-order.js';
import type { DigestRoot, Entries, KeySpan, PeerMessage, Sums } from './messages.js';
import type { Peer } from './peer.js';
import {
  compareItemStamps,
  type Item,
  isOver,
  isPresent,
  isSuspect,
  itemOf,
  itemOrigin,
  itemSeq,
  itemStamp,
  sameEntry,
} from './reconcile-item.js';
import { judge, type Votes } from './reconcile-rule.js';
import type { Merge } from './replication.js';
import type { OriginId } from './types.js';

/** An unchanged root is sent again after this many beats, so that everybody knows when it was last proved. */
const ROOT_BEATS = 10;
/** A comparison that is to wait for live traffic looks again after this long, ms. */
const YIELD_MS = 50;
/** Disputed keys that are kept for health. */
const DISPUTED_MAX = 100;
/** Bytes that an entry is taken to cost in a list. */
const ITEM_COST = 80;

interface PeerState {
  /** Vector and root sent last on this link. */
  sent: string;
  beats: number;
  /** When roots were last equal, monotonic ms. */
  provedAt: number | undefined;
  /** Its root was unequal when last heard; `mortal`: as to entries that may be collected, too. */
  differs: boolean;
  mortal: boolean;
  /** The unequal pair counted last. */
  counted: string;
  notBefore: number;
  pauseMs: number;
}

interface Question {
  readonly peer: Peer;
  readonly expiresAt: number;
  /** undefined: none came. */
  readonly answer: (message: Sums | Entries | undefined) => void;
}

interface Run {
  readonly peer: Peer;
  /** Both had swept up to the same cut, so that mortal entries are compared, too. */
  readonly mortal: boolean;
  /** To be compared by their digests, the first ones last. */
  readonly spans: KeySpan[];
  /** Known to differ: to be compared entry by entry. */
  readonly lists: KeySpan[];
  nextAt: number;
  /** In the middle of a step. */
  busy: boolean;
}

/** A record that one of the two holds, and the other lacks though its head covers it. */
interface Conflict {
  readonly key: string;
  readonly item: Item;
  readonly mine: boolean;
  readonly votes: Votes;
}

export class Reconcile {
  readonly #core: Core;
  readonly #digest: Digest;
  readonly #merge: Merge;
  readonly #states = new Map<Peer, PeerState>();
  readonly #questions = new Map<number, Question>();
  readonly #disputed = new Map<string, string>();
  #run: Run | undefined;
  #ids = 0;

  constructor(core: Core, digest: Digest, merge: Merge) {
    this.#core = core;
    this.#digest = digest;
    this.#merge = merge;
  }

  /** When this copy was last proved equal to that of every linked member, monotonic ms: the oldest of them. */
  get provedAt(): number | undefined {
    let oldest: number | undefined;
    for (const peer of this.#core.partners()) {
      const at = this.#states.get(peer)?.provedAt;
      if (at === undefined) return undefined;
      if (oldest === undefined || at < oldest) oldest = at;
    }
    return oldest;
  }

  issue(): { code: string; message: string } | undefined {
    const first = this.#disputed.entries().next().value;
    if (first === undefined) return undefined;
    const [key, peer] = first;
    return {
      code: 'DAMAGED',
      message:
        `${this.#disputed.size} records are held by this node or by ${peer} but not by both, and nothing says which is right ` +
        `(first key ${JSON.stringify(key)}): write these keys anew, or let more members be reached`,
    };
  }

  // Roots.

  /** With each beat. */
  beat(): void {
    if (!this.#isAtRest()) return;
    const { written } = this.#core;
    for (const peer of this.#core.partners()) {
      if (peer.phase !== 'ready' || peer.congested || peer.vector.hash !== written.hash) continue;
      if (!this.#core.sealing.standing.mayCompare(peer)) continue;
      const state = this.#state(peer);
      state.beats += 1;
      if (state.sent !== this.#pair() || state.beats >= ROOT_BEATS) this.#sendRoot(peer, state);
    }
  }

  onRoot(peer: Peer, message: DigestRoot): void {
    const { written, identity, now } = this.#core;
    if (identity.uid === '' || peer.clusterUid !== identity.uid) return;
    if (!this.#isAtRest() || message.vectorHash !== written.hash) return;
    if (!this.#core.sealing.standing.mayCompare(peer)) return;
    const state = this.#state(peer);
    const theirs = DigestSum.read(message.root);
    this.#core.collection.follow(message.collected);
    const mortal = this.#core.collection.isLevelWith(message.collected, message.swept);
    if (!theirs.equals(this.#digest.tree.root, mortal)) {
      state.mortal = mortal;
      return this.#mismatch(peer, state, theirs);
    }
    // Half a proof is none; the other half follows when both have swept equally far.
    if (!mortal) return;
    state.provedAt = now.mono;
    state.differs = false;
    state.pauseMs = 0;
    for (const [key, name] of this.#disputed) if (name === peer.name) this.#disputed.delete(key);
    this.#digest.proved();
  }

  /** Compares with a peer that differs, if it is time to. */
  tick(): void {
    const { now, timers } = this.#core;
    for (const [id, question] of [...this.#questions])
      if (question.expiresAt <= now.mono) this.#answered(id, question.peer, undefined);
    if (this.#run !== undefined) {
      this.#step(this.#run);
    } else this.#begin();
    const due = this.#run?.nextAt ?? this.#nextDue();
    if (due !== undefined && due > now.mono) timers.atMost('reconcile', due);
    for (const { expiresAt } of this.#questions.values()) timers.atMost('reconcile', expiresAt);
  }

  onAnswer(peer: Peer, message: Sums | Entries): void {
    const run = this.#run;
    if (run !== undefined) {
      const { reconcileBytesPerSecond } = this.#core.options;
      run.nextAt =
        Math.max(run.nextAt, this.#core.now.mono) + (1_000 * costOf(message)) / reconcileBytesPerSecond;
    }
    this.#answered(message.question, peer, message);
  }

  gone(peer: Peer): void {
    this.#states.delete(peer);
    if (this.#run?.peer === peer) this.#run = undefined;
    for (const [id, question] of [...this.#questions])
      if (question.peer === peer) this.#answered(id, peer, undefined);
    this.#core.timers.atMost('reconcile', this.#core.now.mono);
  }

  #isAtRest(): boolean {
    const { identity, queue } = this.#core;
    return identity.phase === 'ready' && this.#digest.isSettled && queue.isQuiet;
  }

  #pair(): string {
    const { begun, isSwept } = this.#core.collection;
    return `${this.#core.written.hash}${this.#digest.tree.root.hex}${begun}${isSwept}`;
  }

  #sendRoot(peer: Peer, state: PeerState): void {
    state.sent = this.#pair();
    state.beats = 0;
    const { hash } = this.#core.written;
    const { begun: collected, isSwept: swept } = this.#core.collection;
    const root = this.#digest.tree.root.bytes();
    this.#core.send(peer, { type: 'digest-root', vectorHash: hash, root, collected, swept });
  }

  #mismatch(peer: Peer, state: PeerState, theirs: DigestSum): void {
    const { counters, timers, now, written } = this.#core;
    const pair = this.#pair() + theirs.hex;
    // Records above a head may be at one of the two only: sessions bring them (catch-up.ts).
    if (state.counted !== pair && !written.hasGaps) {
      state.counted = pair;
      counters.digestMismatches += 1;
      const { root } = this.#digest.tree;
      const { live, mortal } = root;
      this.#core.log('warn', 'digest-mismatch', {
        peer: peer.name,
        live,
        mortal,
        theirLive: theirs.live,
        theirMortal: theirs.mortal,
      });
    }
    state.differs = true;
    // So that it sees the same.
    if (state.sent !== this.#pair()) this.#sendRoot(peer, state);
    timers.atMost('reconcile', Math.max(now.mono, state.notBefore));
  }

  // One comparison.

  #nextDue(): number | undefined {
    let due: number | undefined;
    for (const { differs, notBefore } of this.#states.values())
      if (differs && (due === undefined || notBefore < due)) due = notBefore;
    return due;
  }

  #begin(): void {
    const { now } = this.#core;
    if (!this.#digest.built || this.#core.identity.phase !== 'ready') return;
    for (const [peer, state] of this.#states) {
      if (!state.differs || state.notBefore > now.mono || peer.congested) continue;
      const spans = this.#split({ after: '', to: null });
      this.#run = { peer, mortal: state.mortal, spans, lists: [], nextAt: now.mono, busy: false };
      for (const [key, name] of this.#disputed) if (name === peer.name) this.#disputed.delete(key);
      this.#core.log('info', 'reconcile', { peer: peer.name });
      return this.#step(this.#run);
    }
  }

  /** The step is done: the next one, at once or when it is time. */
  #next(run: Run): void {
    run.busy = false;
    this.#step(run);
  }

  #step(run: Run): void {
    const { now, timers, queue, options } = this.#core;
    if (this.#run !== run || run.busy) return;
    if (queue.rows > options.commitRowsMax) run.nextAt = Math.max(run.nextAt, now.mono + YIELD_MS);
    if (run.nextAt > now.mono) return timers.atMost('reconcile', run.nextAt);
    run.busy = true;
    const list = run.lists.pop();
    if (list !== undefined) return this.#list(run, list);
    const spans = run.spans.splice(-options.reconcileSpansMax);
    if (spans.length > 0) return this.#compare(run, spans);
    this.#end(run, 'compared');
  }

  /** Until the next time; roots tell whether anything is left. */
  #end(run: Run, why: string): void {
    const { now, options } = this.#core;
    if (this.#run !== run) return;
    this.#run = undefined;
    const state = this.#state(run.peer);
    const { reconcileRetryMinMs, reconcileRetryMaxMs } = options;
    state.pauseMs = Math.min(reconcileRetryMaxMs, Math.max(reconcileRetryMinMs, state.pauseMs * 2));
    state.notBefore = now.mono + this.#core.jitter(state.pauseMs);
    // Its next root says so again.
    state.differs = false;
    this.#core.log('info', 'reconciled', { peer: run.peer.name, why });
    this.#core.timers.atMost('reconcile', now.mono);
  }

  #compare(run: Run, spans: readonly KeySpan[]): void {
    const ours = spans.map(({ after, to }) => this.#digest.tree.sum(after, to ?? undefined));
    this.#ask(
      run.peer,
      (question) => ({ type: 'ask-sums', question, spans }),
      (answer) => {
        if (answer?.type !== 'sums' || answer.sums.length !== spans.length)
          return this.#end(run, 'no answer');
        spans.forEach((span, i) => {
          if (ours[i]?.equals(DigestSum.read(answer.sums[i]!), run.mortal) === true) return;
          const parts = this.#split(span);
          if (parts.length > 1) run.spans.push(...parts);
          else run.lists.push(span);
        });
        this.#next(run);
      },
    );
  }

  /** The range in at most as many parts as one question has, along the bounds of leaves. */
  #split({ after, to }: KeySpan): KeySpan[] {
    const leaves: Leaf[] = this.#digest.tree.within(after, to ?? undefined);
    const parts = Math.min(this.#core.options.reconcileSpansMax, leaves.length);
    if (parts === 0) return [{ after, to }];
    const bounds = Array.from(
      { length: parts },
      (_, i) => leaves[Math.floor((i * leaves.length) / parts)]!.after,
    );
    return bounds.map((bound, i) => ({ after: bound, to: bounds[i + 1] ?? to }));
  }

  #list(run: Run, span: KeySpan): void {
    const { peer } = run;
    // What it claimed before it is asked: a later claim may cover what the answer was too early for.
    const heads = this.#core.sealing.above(new Map(peer.vector.heads()));
    const { begun: collected } = this.#core.collection;
    const mine: string[] = [];
    let theirs: Entries | undefined;
    let read = false;
    const both = (): void => {
      if (theirs === undefined || !read || this.#run !== run) return;
      // What was left out on one side would be missed on the other.
      if (this.#core.collection.begun !== collected) return this.#end(run, 'more was collected meanwhile');
      this.#diff(run, span, { theirs, mine, heads });
    };
    const ordered = this.#digest.order({
      after: span.after,
      to: span.to ?? undefined,
      cuts: [],
      onRow: (key) => {
        if (isWithin(span, key)) mine.push(key);
      },
      onDone: () => {
        read = true;
        both();
      },
      onFailed: () => this.#end(run, 'the own store could not be read'),
    });
    if (!ordered) return this.#end(run, 'too many surveys');
    this.#ask(
      peer,
      (question) => ({ type: 'ask-entries', question, full: false, collected, ...span, keys: [] }),
      (answer) => {
        if (answer?.type !== 'entries' || !answer.answered) return this.#end(run, 'no answer');
        theirs = answer;
        both();
      },
    );
  }

  #diff(
    run: Run,
    span: KeySpan,
    lists: { theirs: Entries; mine: readonly string[]; heads: ReadonlyMap<OriginId, number> },
  ): void {
    const { written, queue, options, sealing } = this.#core;
    const { theirs, mine, heads } = lists;
    const { reached } = theirs;
    const cut = Math.max(this.#core.collection.begun, theirs.collected);
    if (reached !== null) run.lists.push({ after: reached, to: span.to });
    const fetch: string[] = [];
    const conflicts: Conflict[] = [];
    const told = new Set(theirs.keys);
    theirs.items.forEach((item, i) => {
      const key = theirs.keys[i]!;
      if (!isPresent(item) || queue.isRemoving(key)) return;
      // Dots of forgotten origins are held by everybody, though no vector says so.
      const origin = itemOrigin(item);
      if (written.head(origin) < itemSeq(item) && !sealing.isOver(origin)) return;
      const row = this.#core.current(key);
      if (row === DAMAGED) {
        // Nobody knows what it was: it is healed first.
        this.#core.heal.damaged(key);
        return;
      }
      if (row === undefined) {
        if (isOver(item)) return;
        const votes = { holds: isSuspect(item) ? 0 : 1, lacks: this.#digest.isSuspect(key) ? 0 : 1 };
        conflicts.push({ key, item, mine: false, votes });
        return;
      }
      const own = itemOf(key, row);
      if (!sameEntry(own, item) && compareItemStamps(item, own) >= 0) fetch.push(key);
    });
    for (const key of mine) {
      if (told.has(key) || queue.isRemoving(key) || (reached !== null && compareKeys(key, reached) > 0))
        continue;
      const row = this.#core.current(key);
      if (row === undefined || row === DAMAGED || isOverBy(row, cut)) continue;
      const item = itemOf(key, row);
      if ((heads.get(itemOrigin(item)) ?? 0) < itemSeq(item)) continue;
      const votes = { holds: this.#digest.isSuspect(key) ? 0 : 1, lacks: 0 };
      conflicts.push({ key, item, mine: true, votes });
    }
    this.#vote(run, conflicts.slice(0, options.reconcileEntriesMax), fetch);
  }

  /** Asks every member that can be asked; of this one's peer the vote on what it holds is known already. */
  #vote(run: Run, conflicts: readonly Conflict[], fetch: string[]): void {
    if (conflicts.length === 0) return this.#decide(run, conflicts, fetch);
    const voters = this.#core
      .partners()
      .filter(
        (peer) =>
          peer.phase === 'ready' &&
          this.#core.members.isMember(peer.origin) &&
          this.#core.sealing.standing.mayCompare(peer),
      );
    const keys = conflicts.map(({ key }) => key);
    let open = voters.length;
    for (const peer of voters) {
      const heads = this.#core.sealing.above(new Map(peer.vector.heads()));
      const isAsked = ({ mine }: Conflict): boolean => mine || peer !== run.peer;
      this.#ask(peer, askKeys(keys, false, this.#core.collection.begun), (answer) => {
        if (answer?.type === 'entries' && answer.items.length === keys.length)
          for (const [i, conflict] of conflicts.entries())
            if (isAsked(conflict)) count(conflict, answer.items[i]!, heads);
        open -= 1;
        if (open === 0) this.#decide(run, conflicts, fetch);
      });
    }
    if (voters.length === 0) this.#end(run, 'nobody to ask');
  }

  #decide(run: Run, conflicts: readonly Conflict[], fetch: string[]): void {
    const { counters, members } = this.#core;
    if (this.#run !== run) return;
    let mended = fetch.length > 0;
    for (const { key, item, mine, votes } of conflicts) {
      const verdict = judge(votes, members.active().length);
      if (verdict === 'leave') {
        counters.recordsDisputed += 1;
        if (this.#disputed.size < DISPUTED_MAX) this.#disputed.set(key, run.peer.name);
        this.#core.log('warn', 'record-disputed', { key, stamp: itemStamp(item), peer: run.peer.name, mine });
      } else if (verdict === 'fetch' && !mine) fetch.push(key);
      else if (verdict === 'set-aside' && mine && this.#setAside(key, item)) mended = true;
    }
    if (mended || fetch.length > 0) counters.rangesRepaired += 1;
    this.#fetch(run, fetch);
  }

  /** The record goes from the store, unless it changed meanwhile; its bytes go to the log. */
  #setAside(key: string, item: Item): boolean {
    const { queue, counters } = this.#core;
    const row = this.#core.current(key);
    if (row === undefined || row === DAMAGED || queue.pending(key) !== undefined) return false;
    if (!sameEntry(itemOf(key, row), item)) return false;
    counters.recordsSetAside += 1;
    this.#core.emit({ type: 'set-aside', key, row });
    queue.remove(key, row);
    return true;
  }

  #fetch(run: Run, keys: readonly string[]): void {
    const { counters } = this.#core;
    if (keys.length === 0) return this.#next(run);
    const part = keys.slice(0, this.#core.options.reconcileEntriesMax);
    this.#ask(run.peer, askKeys(part, true, this.#core.collection.begun), (answer) => {
      if (this.#run !== run) return;
      if (answer?.type !== 'entries' || !answer.answered) return this.#end(run, 'no answer');
      if (this.#merge.isTooFarAhead(answer.rows)) return this.#end(run, 'a stamp is too far ahead');
      const wanted = new Set(part);
      const before = counters.recordsApplied;
      answer.keys.forEach((key, i) => {
        if (!wanted.has(key)) return;
        if (this.#merge.record(key, answer.rows[i]!, true))
          this.#core.log('info', 'record-repaired', { key, peer: run.peer.name });
      });
      counters.recordsRepaired += counters.recordsApplied - before;
      const got = new Set(answer.keys);
      const rest = answer.keys.length === 0 ? [] : keys.filter((key) => !got.has(key));
      this.#core.afterWritten(() => this.#fetch(run, rest));
    });
  }

  // Questions.

  #ask(peer: Peer, make: (question: number) => PeerMessage, answer: Question['answer']): void {
    const { now, options, timers } = this.#core;
    const id = ++this.#ids;
    const expiresAt = now.mono + options.sessionStallMs;
    this.#questions.set(id, { peer, expiresAt, answer });
    timers.atMost('reconcile', expiresAt);
    this.#core.send(peer, make(id));
  }

  #answered(id: number, peer: Peer, message: Sums | Entries | undefined): void {
    const question = this.#questions.get(id);
    if (question?.peer !== peer) return;
    this.#questions.delete(id);
    question.answer(message);
  }

  #state(peer: Peer): PeerState {
    let state = this.#states.get(peer);
    if (state === undefined) {
      state = {
        sent: '',
        beats: 0,
        provedAt: undefined,
        differs: false,
        mortal: false,
        counted: '',
        notBefore: Number.NEGATIVE_INFINITY,
        pauseMs: 0,
      };
      this.#states.set(peer, state);
    }
    return state;
  }
}

function askKeys(
  keys: readonly string[],
  full: boolean,
  collected: number,
): (question: number) => PeerMessage {
  return (question) => ({ type: 'ask-entries', question, full, collected, after: '', to: null, keys });
}

/** What this member says of a record that one of the two lacks. */
function count({ item, votes }: Conflict, theirs: Item, heads: ReadonlyMap<OriginId, number>): void {
  if (isSuspect(theirs)) return;
  if (isPresent(theirs) && !isOver(theirs)) {
    if (compareItemStamps(theirs, item) >= 0) votes.holds += 1;
  } else if ((heads.get(itemOrigin(item)) ?? 0) >= itemSeq(item)) votes.lacks += 1;
}

function costOf(message: Sums | Entries): number {
  if (message.type === 'sums') return message.sums.length * ITEM_COST;
  return message.rows.reduce((sum, row) => sum + row.length, ITEM_COST * message.keys.length);
}

export function isWithin({ after, to }: KeySpan, key: string): boolean {
  return compareKeys(key, after) > 0 && (to === null || compareKeys(key, to) <= 0);
}
