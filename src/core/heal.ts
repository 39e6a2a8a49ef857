/**
 * Healing: records that this node is known to have lost are fetched from a peer that holds what it should hold.
 *
 * A record is lost when local evidence says so: its checksum fails, the dot index names it and it is not there, a
 * block cannot be read. What the lost record was is then unknown, so that "missing" would be wrong twice: a read
 * would deny what was written, and a merge would let any older record in. Therefore, for as long as a key is lost:
 *
 * - merges into it wait (whole frames and chunks do, heads unmoved), unless the record bears a stamp above every one
 *   that this store had seen when the loss was found: that one wins over whatever was lost.
 * - the answer of a peer, be it a record or absence, counts only if its heads cover what this node had when the loss
 *   was found. One that is behind may hold what the lost record replaced, or nothing.
 * - if no peer ever covers it (the lost record never left this node) but every other member has said what it has,
 *   the greatest of that is what is left, and the loss is logged and counted. A cluster of one keeps the key lost.
 * - a peer that bootstraps, or may have missed a forgetting (standing.ts), covers nothing, but may hold the very record
 *   (a rebuilt store keeps what it has), and counts among those who have said what they have: it may itself be waiting
 *   for this record, in a snapshot of ours.
 *
 * Records that were seen above a head need a peer whose head is above them, too; where a gap that nobody can fill
 * makes that impossible, heads alone decide after a while, since nothing claims those records.
 *
 * A miss that is to be confirmed goes the same way, but blocks nothing and is given up after a while.
 */
import type { Core } from './core.js';
import { compareRows, dotOf, join, stampCounterOf, stampMsOf } from './entry.js';
import type { Lent } from './messages.js';
import type { Peer } from './peer.js';
import type { Merge } from './replication.js';
import type { Dot, OriginId, Records, Row } from './types.js';
import type { Batch } from './write-queue.js';

/** Keys known to be lost at a time; further ones are found again by the scrub. */
export const DAMAGED_KEYS_MAX = 65_536;
/** Misses being confirmed at a time; further ones stay unproved. */
export const CONFIRMATIONS_MAX = 4_096;
/** Suspect ranges at a time. */
export const SUSPECT_RANGES_MAX = 1_024;
/** Keys of one `ask-records`. */
export const ASK_KEYS_MAX = 256;
/** Requests in flight. */
const REQUESTS_MAX = 4;
/** Frames and chunks that wait for the healing of a key, and bytes of their records. */
export const HELD_MAX = 1_024;
export const HELD_BYTES_MAX = 33_554_432;
/** A peer that has not answered for this long is passed over, ms. */
const ANSWER_MS = 500;
/** Pause after an answer that does not decide, ms. */
const RETRY_MS = 150;
/** After this long, records above a head no longer need a peer that covers them, ms. */
const GAP_PATIENCE_MS = 3_000;
/** After this long, what every other member says decides although none of them covers it, ms. */
const LAST_RESORT_MS = 10_000;
/** How long a miss is being confirmed, ms. */
export const CONFIRM_MS = 2_000;

/** In place of a row: there is, or was, one, and nobody knows which. */
export const DAMAGED: unique symbol = Symbol.for('readmesh.damaged');
export type Found = Row | undefined | typeof DAMAGED;

/** `row` undefined: there is no such key. */
export type Outcome = { readonly ok: true; readonly row: Row | undefined } | { readonly ok: false };

/** What a peer's heads must cover to decide about a loss. */
interface Needed {
  readonly heads: ReadonlyMap<OriginId, number>;
  readonly tops: ReadonlyMap<OriginId, number>;
  readonly hash: string;
}

interface Damage {
  readonly key: string;
  /** False: a miss that is being confirmed. */
  lost: boolean;
  readonly since: number;
  readonly needed: Needed;
  /** No record that was lost bears a greater stamp. */
  readonly clock: { readonly ms: number; readonly counter: number };
  /** Dot rows that lead to this key and may have to go. */
  readonly dots: Dot[];
  readonly waiting: ((outcome: Outcome) => void)[];
  request: number | undefined;
  notBefore: number;
  /** What peers hold that do not cover it: by origin. */
  answers: Map<OriginId, Row | undefined> | undefined;
  /** Decided; on its way to the disk. */
  decided: boolean;
}

/** Keys above `after`, up to `until`, of which some may be lost. */
interface SuspectRange {
  after: string | null;
  readonly until: string | null;
  readonly since: number;
  readonly needed: Needed;
  readonly done: (healed: boolean) => void;
  request: number | undefined;
  notBefore: number;
}

interface Request {
  readonly peer: Peer;
  readonly keys: readonly string[];
  readonly range: SuspectRange | undefined;
  readonly at: number;
}

/** What the digest knows of damage (digest.ts). */
export interface Doubts {
  /** The record of the key is damaged, so that others near it may be, too. */
  damaged(key: string): void;
  /** Local evidence that this key's record may be lost, so that its absence says nothing. */
  isSuspect(key: string): boolean;
}

export class Heal {
  readonly #core: Core;
  readonly #doubts: Doubts;
  readonly #merge: Merge;
  readonly #damages = new Map<string, Damage>();
  readonly #ranges = new Set<SuspectRange>();
  readonly #requests = new Map<number, Request>();
  #confirmations = 0;
  #held = 0;
  #heldBytes = 0;
  #ids = 0;
  #turn = 0;
  #needed: Needed | undefined;

  constructor(core: Core, doubts: Doubts, merge: Merge) {
    this.#core = core;
    this.#merge = merge;
    this.#doubts = doubts;
  }

  /** Keys known to be lost. */
  get lost(): number {
    return this.#damages.size - this.#confirmations;
  }

  /** Whether the key's record is lost and nothing is on its way to replace it. */
  isLost(key: string): boolean {
    if (this.#damages.size === 0) return false;
    const damage = this.#damages.get(key);
    return damage?.lost === true && !damage.decided;
  }

  /** What can still be read under the key of a lost record: an older one, if anything. It goes with the healing. */
  remains(key: string): Row | undefined {
    const row = this.#core.deps.lookup(key);
    return row === DAMAGED ? undefined : row;
  }

  // What is found.

  /** The record of the key is lost. `dot`: a row of the dot index that names the key. */
  damaged(key: string, dot?: Dot, then?: (outcome: Outcome) => void): void {
    const { counters, queue } = this.#core;
    let damage = this.#damages.get(key);
    // One that is decided is about to be whole.
    if (damage === undefined || !(damage.lost || damage.decided)) {
      // An old snapshot may show what was healed since.
      const held = dot === undefined ? this.#core.deps.lookup(key) : undefined;
      if (held !== undefined && held !== DAMAGED && queue.pending(key) === undefined)
        return then?.({ ok: true, row: held });
      counters.damageFound += 1;
      if (damage !== undefined) {
        damage.lost = true;
        this.#confirmations -= 1;
      } else if (this.lost >= DAMAGED_KEYS_MAX) return then?.({ ok: false });
      else damage = this.#add(key, true);
      this.#doubts.damaged(key);
      this.#core.log('error', 'record-damaged', { key: key.slice(0, 200) });
      const confirmed = this.#core.deps.damagedDot?.(key);
      if (confirmed !== undefined) damage.dots.push(confirmed);
    }
    if (dot !== undefined) damage.dots.push(dot);
    if (then !== undefined) damage.waiting.push(then);
    // What is on its way to the disk replaces whatever is there.
    const pending = queue.pending(key);
    if (pending !== undefined) this.replaced(key, pending);
    else this.evaluate();
  }

  /** Asks a peer whether there is such a key. */
  confirm(key: string, then: (outcome: Outcome) => void): void {
    const known = this.#damages.get(key);
    if (known !== undefined) known.waiting.push(then);
    else if (this.#confirmations >= CONFIRMATIONS_MAX) then({ ok: false });
    else {
      this.#confirmations += 1;
      this.#add(key, false).waiting.push(then);
    }
    this.evaluate();
  }

  /** Some keys above `after`, up to `until`, may be lost, and which ones is unknown. */
  suspect(after: string | null, until: string | null, then: (healed: boolean) => void): void {
    if (this.#ranges.size >= SUSPECT_RANGES_MAX) return then(false);
    const { now } = this.#core;
    this.#ranges.add({
      after,
      until,
      since: now.mono,
      needed: this.#neededNow(),
      done: then,
      request: undefined,
      notBefore: now.mono,
    });
    this.evaluate();
  }

  /** Whether the record wins over whatever was lost. */
  surpasses(key: string, ms: number, counter: number): boolean {
    const { clock } = this.#damages.get(key) ?? {};
    return clock !== undefined && (ms > clock.ms || (ms === clock.ms && counter > clock.counter));
  }

  /** A record that wins over whatever was lost is on its way to the disk, in this batch if it was not before. */
  replaced(key: string, row: Row, batch?: Batch): void {
    const damage = this.#damages.get(key);
    if (damage === undefined) return;
    // In the batch of the healed record, perhaps, of which nothing then says that it replaced what was lost.
    if (damage.decided) return this.#dropDots(damage, row);
    if (damage.lost) {
      this.#core.counters.damageHealed += 1;
      batch?.mended.set(key, undefined);
    }
    this.#dropDots(damage, row);
    this.#settleOnceWritten(damage, row);
  }

  /** Runs once none of the keys is lost any more; `records` are kept until then. False: too much waits already. */
  whenHealed(keys: readonly string[], { rows }: Records, then: () => void): boolean {
    const bytes = rows.reduce((sum, row) => sum + row.length, 0);
    if (this.#held >= HELD_MAX || this.#heldBytes + bytes > HELD_BYTES_MAX) return false;
    this.#held += 1;
    this.#heldBytes += bytes;
    let left = 1;
    const one = (): void => {
      if (--left > 0) return;
      this.#held -= 1;
      this.#heldBytes -= bytes;
      then();
    };
    for (const key of keys) {
      const damage = this.#damages.get(key);
      if (damage === undefined) continue;
      left += 1;
      damage.waiting.push(one);
    }
    one();
    return true;
  }

  /** The dot index lacks the record, or leads elsewhere: writing the record anew writes its row there, too. */
  mendDot(key: string): void {
    const { queue, counters } = this.#core;
    const row = this.#core.current(key);
    if (row === undefined || row === DAMAGED || queue.pending(key) !== undefined) return;
    counters.damageFound += 1;
    counters.damageHealed += 1;
    const batch = queue.batch(1, key.length + row.length);
    queue.put(batch, key, row, row, false, true);
    const { origin, seq } = dotOf(row);
    queue.raiseTop(batch, origin, seq);
  }

  // Asking.

  /** Asks for what is lost, wherever there is somebody to ask. Level-triggered: safe to call at any time. */
  evaluate(): void {
    if (this.#damages.size === 0 && this.#ranges.size === 0) return;
    const { now, timers } = this.#core;
    this.#expire();
    // Also those that bootstrap, or whose standing is unclear: with a damaged record here theirs may never become clear.
    const peers = this.#core.partners().filter((peer) => peer.phase !== 'new');
    if (peers.length > 0 && this.#requests.size < REQUESTS_MAX) {
      const due: string[] = [];
      for (const damage of this.#damages.values())
        if (damage.request === undefined && !damage.decided && damage.notBefore <= now.mono)
          due.push(damage.key);
      for (let i = 0; i < due.length && this.#requests.size < REQUESTS_MAX; i += ASK_KEYS_MAX)
        this.#fetch(peers, due.slice(i, i + ASK_KEYS_MAX));
      const isReady = peers.some((peer) => peer.phase === 'ready');
      for (const range of isReady ? this.#ranges : [])
        if (range.request === undefined && range.notBefore <= now.mono && this.#requests.size < REQUESTS_MAX)
          this.#fetchRange(peers, range);
    }
    timers.atMost('heal', now.mono + RETRY_MS);
  }

  onLent(peer: Peer, message: Lent): void {
    const request = this.#requests.get(message.request);
    if (request === undefined || request.peer !== peer) return;
    this.#release(message.request, request, RETRY_MS);
    if (!this.#isTooFarAhead(message.rows)) this.#take(peer, request, message);
    this.evaluate();
  }

  gone(peer: Peer): void {
    for (const [id, request] of [...this.#requests]) if (request.peer === peer) this.#release(id, request, 0);
    this.evaluate();
  }

  // Deciding.

  #take(peer: Peer, request: Request, message: Lent): void {
    const { sealing } = this.#core;
    // Dots of forgotten origins count as held, so this would be wrong of whoever may lack what was forgotten.
    const mayCover = message.ready && sealing.standing.mayServe(peer);
    const heads = mayCover ? sealing.above(new Map(message.heads)) : undefined;
    if (request.range !== undefined)
      return heads === undefined ? undefined : this.#takeRange(request.range, heads, message);
    const asked = new Set(request.keys);
    message.keys.forEach((key, i) => {
      if (asked.has(key)) this.#answered(peer, key, message.rows[i]!, heads);
    });
    for (const key of message.absent) if (asked.has(key)) this.#answered(peer, key, undefined, heads);
  }

  /** `heads`: undefined for a peer that may lack what no vector names. */
  #answered(
    peer: Peer,
    key: string,
    row: Row | undefined,
    heads: ReadonlyMap<OriginId, number> | undefined,
  ): void {
    const damage = this.#damages.get(key);
    if (damage === undefined || damage.decided) return;
    const { queue } = this.#core;
    const pending = queue.pending(key);
    if (pending !== undefined && !damage.lost) return this.#settleOnceWritten(damage, pending);
    const isIt = row !== undefined && isNamedBy(damage.dots, row);
    const surpassed = row !== undefined && this.surpasses(key, stampMsOf(row), stampCounterOf(row));
    if (isIt || surpassed || this.#coversLoss(heads, damage)) return this.#decide(damage, row);
    damage.answers ??= new Map();
    damage.answers.set(peer.origin, row);
    this.#lastResort(damage);
  }

  /**
   * Whether a peer with these heads holds the lost record, or what replaced it. Where the dot index says which record
   * it was, nothing else that this node had matters: the peer may be waiting for it behind this very record.
   */
  #coversLoss(heads: ReadonlyMap<OriginId, number> | undefined, { dots, needed, since }: Damage): boolean {
    if (heads === undefined) return false;
    if (dots.length > 0) return dots.every(({ origin, seq }) => (heads.get(origin) ?? 0) >= seq);
    return this.#covers(heads, needed, this.#core.now.mono - since);
  }

  #covers(heads: ReadonlyMap<OriginId, number>, needed: Needed, ageMs: number): boolean {
    return covers(heads, needed.tops) || (ageMs >= GAP_PATIENCE_MS && covers(heads, needed.heads));
  }

  #lastResort(damage: Damage): void {
    const { now, members, identity, counters } = this.#core;
    const { answers } = damage;
    if (answers === undefined || !damage.lost || now.mono - damage.since < LAST_RESORT_MS) return;
    const others = members.active().filter(({ origin }) => origin !== identity.origin);
    if (others.length === 0 || !others.every(({ origin }) => answers.has(origin))) return;
    let best: Row | undefined;
    for (const row of answers.values())
      if (row !== undefined) best = best === undefined ? row : join(best, row);
    counters.recordsLost += 1;
    this.#core.log('error', 'record-lost', { key: damage.key.slice(0, 200) });
    this.#decide(damage, best);
  }

  #decide(damage: Damage, row: Row | undefined): void {
    const { key } = damage;
    const core = this.#core;
    const mine = core.queue.pending(key) ?? core.deps.lookup(key);
    const intact = mine === DAMAGED ? undefined : mine;
    const winner = row === undefined ? intact : intact === undefined ? row : join(intact, row);
    if (winner === undefined) {
      if (damage.lost) {
        const { drops, mended } = core.queue.batch();
        drops.push({ key }, ...damage.dots.map((dot) => ({ dot })));
        mended.set(key, undefined);
      }
    } else {
      this.#dropDots(damage, winner);
      if (winner !== intact) this.#put(damage, winner, intact);
    }
    // A miss that was none.
    if (!damage.lost && winner !== intact) core.counters.damageFound += 1;
    if (damage.lost || winner !== intact) core.counters.damageHealed += 1;
    this.#settleOnceWritten(damage, winner);
  }

  #put({ key, dots }: Damage, row: Row, current: Row | undefined): void {
    const { hlc, queue } = this.#core;
    hlc.receive(stampMsOf(row), stampCounterOf(row));
    const isSame = isNamedBy(dots, row);
    const batch = queue.batch(1, key.length + row.length);
    queue.put(batch, key, row, current, false, isSame);
    this.#core.collection.put(row);
    batch.mended.set(key, isSame ? row : undefined);
    const { origin, seq } = dotOf(row);
    this.#merge.seen(batch, origin, seq);
  }

  #takeRange(range: SuspectRange, heads: ReadonlyMap<OriginId, number>, message: Lent): void {
    const core = this.#core;
    if (!this.#covers(heads, range.needed, core.now.mono - range.since)) return;
    const { keys, rows } = message;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i]!;
      const row = rows[i]!;
      const damage = this.#damages.get(key);
      if (damage !== undefined) {
        if (!damage.decided) this.#decide(damage, row);
        continue;
      }
      const mine = core.queue.pending(key) ?? core.deps.lookup(key);
      if (mine !== undefined && mine !== DAMAGED && !this.#isStale(mine, row)) continue;
      core.counters.damageFound += 1;
      this.#decide(this.#add(key, true), row);
    }
    if (keys.length > 0) range.after = keys.at(-1)!;
    range.notBefore = core.now.mono;
    if (!message.end) return;
    this.#ranges.delete(range);
    core.afterWritten(() => range.done(true));
  }

  /** Whether the row that is there was replaced by this one before: a record that was lost uncovers an older one. */
  #isStale(mine: Row, row: Row): boolean {
    const { origin, seq } = dotOf(row);
    const { written, sealing } = this.#core;
    return compareRows(row, mine) > 0 && (seq <= written.head(origin) || sealing.isOver(origin));
  }

  /** Rows of the dot index that lead to the key but not to the record that it now has. */
  #dropDots(damage: Damage, row: Row): void {
    const { origin, seq } = dotOf(row);
    const drops = this.#core.queue.batch().drops;
    for (const dot of damage.dots) if (dot.origin !== origin || dot.seq !== seq) drops.push({ dot });
  }

  #settleOnceWritten(damage: Damage, row: Row | undefined): void {
    damage.decided = true;
    this.#core.afterWritten(() => {
      if (this.#damages.get(damage.key) !== damage) return;
      this.#remove(damage);
      for (const then of damage.waiting) then({ ok: true, row });
    });
  }

  // Book-keeping.

  #add(key: string, lost: boolean): Damage {
    const { now, hlc } = this.#core;
    const damage: Damage = {
      key,
      lost,
      since: now.mono,
      needed: this.#neededNow(),
      clock: { ms: hlc.ms, counter: hlc.counter },
      dots: [],
      waiting: [],
      request: undefined,
      notBefore: now.mono,
      answers: undefined,
      decided: false,
    };
    this.#damages.set(key, damage);
    return damage;
  }

  #remove(damage: Damage): void {
    this.#damages.delete(damage.key);
    if (!damage.lost) this.#confirmations -= 1;
  }

  /** Shared by what is found at the same vector. */
  #neededNow(): Needed {
    const { written } = this.#core;
    const { hash } = written;
    if (this.#needed?.hash !== hash)
      this.#needed = { heads: new Map(written.heads()), tops: new Map(written.tops()), hash };
    return this.#needed;
  }

  /** A peer for these: one that is known to cover the first of them, if there is one; another one at every turn. */
  #choose(all: readonly Peer[], isFit: (heads: ReadonlyMap<OriginId, number>) => boolean): Peer {
    const { sealing } = this.#core;
    const sound = all.filter((peer) => peer.phase === 'ready' && sealing.standing.mayServe(peer));
    const peers = sound.length > 0 ? sound : all;
    const fit = peers.filter((peer) => isFit(sealing.above(new Map(peer.vector.heads()))));
    const among = fit.length > 0 ? fit : peers;
    return among[this.#turn++ % among.length]!;
  }

  #fetch(peers: readonly Peer[], keys: readonly string[]): void {
    const { now } = this.#core;
    // Whom it would depend on once all others fail has to be asked, too.
    const first = this.#damages.get(keys[0]!)!;
    const late = now.mono - first.since >= GAP_PATIENCE_MS;
    const peer = late
      ? peers[this.#turn++ % peers.length]!
      : this.#choose(peers, (heads) => this.#coversLoss(heads, first));
    const request = ++this.#ids;
    this.#requests.set(request, { peer, keys, range: undefined, at: now.mono });
    for (const key of keys) this.#damages.get(key)!.request = request;
    this.#core.counters.fetches += 1;
    this.#core.send(peer, { type: 'ask-records', request, keys });
  }

  #fetchRange(peers: readonly Peer[], range: SuspectRange): void {
    const peer = this.#choose(peers, (heads) => covers(heads, range.needed.tops));
    const request = ++this.#ids;
    this.#requests.set(request, { peer, keys: [], range, at: this.#core.now.mono });
    range.request = request;
    this.#core.counters.fetches += 1;
    this.#core.send(peer, { type: 'ask-range', request, after: range.after, until: range.until });
  }

  /** What it asked for may be asked for again, after a pause. */
  #release(id: number, request: Request, pauseMs: number): void {
    this.#requests.delete(id);
    const notBefore = this.#core.now.mono + this.#core.jitter(pauseMs);
    for (const key of request.keys) {
      const damage = this.#damages.get(key);
      if (damage?.request !== id) continue;
      damage.request = undefined;
      damage.notBefore = notBefore;
    }
    if (request.range?.request !== id) return;
    request.range.request = undefined;
    request.range.notBefore = notBefore;
  }

  #expire(): void {
    const { now } = this.#core;
    for (const [id, request] of [...this.#requests])
      if (now.mono - request.at >= ANSWER_MS) this.#release(id, request, 0);
    if (this.#confirmations === 0) return;
    for (const damage of [...this.#damages.values()]) {
      if (damage.lost || damage.decided || now.mono - damage.since < CONFIRM_MS) continue;
      this.#remove(damage);
      for (const then of damage.waiting) then({ ok: false });
    }
  }

  #isTooFarAhead(rows: readonly Row[]): boolean {
    const { now, options } = this.#core;
    const limit = now.wall + 2 * options.maxClockDriftMs;
    return rows.some((row) => stampMsOf(row) > limit);
  }
}

/** A dot names one record: the dot index says that this is the one that was lost. */
function isNamedBy(dots: readonly Dot[], row: Row): boolean {
  const { origin, seq } = dotOf(row);
  return dots.length > 0 && dots.every((dot) => dot.origin === origin && dot.seq === seq);
}

function covers(heads: ReadonlyMap<OriginId, number>, needed: ReadonlyMap<OriginId, number>): boolean {
  for (const [origin, seq] of needed) if ((heads.get(origin) ?? 0) < seq) return false;
  return true;
}
