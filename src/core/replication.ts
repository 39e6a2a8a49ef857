/**
 * New writes: accepted here, pushed to every link, relayed to whoever does not have them yet.
 *
 * One batch of the group commit makes one push frame: origin, range (from, to] and, for every sequence number
 * in the range, the record or the current record of its key. A receiver whose head is at `from` or above
 * advances to `to`; one whose head is below applies the records, does not advance, and lets the vectors repair.
 * The frame leaves this node only after the batch is written, so that a killed process never forgets a
 * sequence number that a peer knows. It is flushed here while the others write it: a host that loses power forgets
 * its origin with whatever it had not flushed (storage/run-record.ts).
 *
 * Relays pass frames on as they came, at once. Whoever gets a frame for a second time from someone other than its
 * origin (or its second supplier, trees.ts) tells the sender to only announce that origin (`prune`), which leaves
 * a tree per origin; asking for a session makes the link eager again. An origin's own links are never pruned:
 * acknowledgements answer frames on them.
 */
import { ReadmeshError } from '../errors.js';
import type { Acknowledgements, Group, PendingWrite } from './acknowledgements.js';
import type { Core } from './core.js';
import {
  compareEntries,
  compareRows,
  makeLocalRow,
  makeMortalRow,
  NO_VALUE,
  originOf,
  type StampParts,
  seqOf,
  stampCounterOf,
  stampMsOf,
} from './entry.js';
import { DAMAGED } from './heal.js';
import { type GivenStamp, hasStamp, partsOfStamp } from './hlc.js';
import type { LocalOp, LocalWrite } from './io.js';
import type { Push } from './messages.js';
import type { Offers } from './offers.js';
import type { Peer } from './peer.js';
import type { Trees } from './trees.js';
import type { OriginId, Records, Row } from './types.js';
import type { Batch } from './write-queue.js';

/** A frame is sent again this long after it was seen to be out, ms: its acknowledgement is not merely on its way. */
const REMIND_MS = 1_000;

/** Merging of what comes from elsewhere: the part that sessions use, too. */
export class Merge {
  readonly #core: Core;
  /** The greatest dot of an origin in the batch that it was put into, if the vector was not told yet. */
  #batch: Batch | undefined;
  #origin: OriginId = '';
  #top = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Admitted clocks differ by at most twice the drift bound; what is further ahead waits, as if it had not come. */
  isTooFarAhead(rows: readonly Row[]): boolean {
    const core = this.#core;
    const limit = core.now.wall + 2 * core.options.maxClockDriftMs;
    for (const row of rows)
      if (stampMsOf(row) > limit) {
        core.counters.futureStamps += 1;
        return true;
      }
    return false;
  }

  /**
   * Joins the records with what is here. Moves no head. Returns the keys whose record is lost, so that nobody knows
   * what it would be joined with: all of this has to come once more when they are healed, and no head may move.
   */
  records(records: Records): string[] | undefined {
    const { keys, rows } = records;
    let lost: string[] | undefined;
    for (let i = 0; i < keys.length; i++)
      if (!this.#join(keys[i]!, rows[i]!, false)) (lost ??= []).push(keys[i]!);
    this.#tellTop();
    return lost;
  }

  /** False: the record of the key is lost. `wanted`: its absence here was found to be a loss. */
  record(key: string, row: Row, wanted = false): boolean {
    const isJoined = this.#join(key, row, wanted);
    this.#tellTop();
    return isJoined;
  }

  #join(key: string, row: Row, wanted: boolean): boolean {
    const core = this.#core;
    const { collection } = core;
    core.counters.recordsReceived += 1;
    let current = core.current(key);
    if (current === DAMAGED) {
      core.heal.damaged(key);
      if (!core.heal.surpasses(key, stampMsOf(row), stampCounterOf(row))) return false;
      current = core.heal.remains(key);
    } else if (current === undefined && collection.hasBegun && collection.isPast(key, row, wanted)) {
      core.counters.recordsOutdated += 1;
      return true;
    }
    if (current !== undefined && compareRows(row, current) <= 0) return true;
    const quiet = current !== undefined && compareEntries(row, current) === 0;
    core.hlc.receive(stampMsOf(row), stampCounterOf(row));
    const batch = core.queue.batch(1, key.length + row.length);
    core.queue.put(batch, key, row, current, false, quiet);
    this.#note(batch, originOf(row), seqOf(row));
    core.counters.recordsApplied += 1;
    collection.put(row);
    if (core.heal.lost > 0) core.heal.replaced(key, row, batch);
    return true;
  }

  /** A record with this dot is in the batch. */
  seen(batch: Batch, origin: OriginId, seq: number): void {
    if (!this.#core.sealing.isForgotten(origin)) this.#raiseTop(batch, origin, seq);
  }

  /** Records come in runs of one origin: the vector is told once for each. */
  #note(batch: Batch, origin: OriginId, seq: number): void {
    if (batch === this.#batch && origin === this.#origin) {
      if (seq > this.#top) this.#top = seq;
      return;
    }
    this.#tellTop();
    this.#batch = batch;
    this.#origin = origin;
    this.#top = seq;
  }

  #tellTop(): void {
    if (this.#batch === undefined) return;
    this.seen(this.#batch, this.#origin, this.#top);
    this.#batch = undefined;
  }

  /** In the batch of what was merged last, or a later one. */
  raiseHeads(heads: ReadonlyMap<OriginId, number>, tops: ReadonlyMap<OriginId, number>): void {
    const { queue, taken, sealing } = this.#core;
    const batch = queue.batch();
    for (const [origin, head] of heads) {
      if (head <= taken.head(origin) || sealing.isCovered(origin, head)) continue;
      sealing.revive(origin);
      taken.raise(origin, head, head);
      queue.raiseHead(batch, origin, head);
    }
    for (const [origin, top] of tops) {
      if (sealing.isCovered(origin, top)) continue;
      sealing.revive(origin);
      this.#raiseTop(batch, origin, top);
    }
  }

  #raiseTop(batch: Batch, origin: OriginId, top: number): void {
    const { queue, taken } = this.#core;
    if (!taken.has(origin)) queue.startHead(batch, origin);
    taken.raise(origin, 0, top);
    queue.raiseTop(batch, origin, top);
  }
}

function damagedKey(key: string): ReadmeshError {
  return new ReadmeshError(
    'DAMAGED',
    `the record of key ${JSON.stringify(key)} is damaged on this disk and is being healed: retry, or write through another host`,
    { details: { key } },
  );
}

export class Replication {
  readonly #core: Core;
  readonly #merge: Merge;
  readonly #acks: Acknowledgements;
  readonly #trees: Trees;
  readonly #offers: Offers;
  /** Of the write at hand: made anew for each they would be garbage. */
  readonly #lastStamp = { ms: 0, counter: 0, writer: '' };
  readonly #nextDot = { origin: '', seq: 0 };

  constructor(core: Core, merge: Merge, trees: Trees, offers: Offers) {
    this.#core = core;
    this.#merge = merge;
    this.#acks = core.acks;
    this.#trees = trees;
    this.#offers = offers;
  }

  // Local writes.

  /** Accepts a write, or throws the reason why not; then nothing has changed. */
  write(write: LocalWrite): void {
    const core = this.#core;
    const { now, options, queue, identity } = core;
    this.#admit(write);
    let bytes = 0;
    for (const op of write.ops) bytes += op.key.length + op.value.length + 64;
    const batch = queue.batch(write.ops.length, bytes);
    let superseded = false;
    let answer: Row = NO_VALUE;
    let givenStamp: GivenStamp | undefined;
    for (const op of write.ops) {
      answer = this.#applyNext(batch, op, op !== write.ops[0]);
      givenStamp = op.stamp;
      // A stamp that this node gave is only known from the record that won, or is that of the one that covers it.
      superseded ||= givenStamp !== undefined && !hasStamp(answer, givenStamp);
    }
    const pending: PendingWrite = {
      id: write.id,
      needed: write.replicas ?? (core.members.active().length > 1 ? 2 : 1),
      fsync: write.fsync ?? true,
      deadline: Math.ceil(now.mono + (write.timeoutMs ?? options.ackTimeoutMs)),
      givenStamp,
      row: answer,
      superseded,
      replicas: 0,
      done: false,
      group: undefined,
    };
    batch.writes.push(pending);
    this.#acks.accept(pending);
    core.timers.atMost('acks', pending.deadline);
    if (batch.ownTo > 0) queue.raiseHead(batch, identity.origin, batch.ownTo);
  }

  /** Frames that a peer has to acknowledge yet: after it connected, or drained. */
  resend(peer: Peer): void {
    if (peer.congested || peer.clusterUid !== this.#core.identity.uid) return;
    for (const push of this.#acks.outstanding(peer.host)) this.#push([peer], push);
  }

  /** The peer announced what it holds: frames of an earlier look that it holds unacknowledged are sent again. */
  remind(peer: Peer): void {
    const core = this.#core;
    const { now } = core;
    if (peer.congested || peer.clusterUid !== core.identity.uid || now.mono < peer.remindNotBefore) return;
    const has = (push: Push): boolean => peer.vector.head(push.origin) >= push.to;
    for (const push of this.#acks.unanswered(peer.host, peer.remindUpTo, has)) this.#push([peer], push);
    peer.remindNotBefore = now.mono + REMIND_MS;
    peer.remindUpTo = this.#acks.latest;
  }

  // Received frames.

  onPush(peer: Peer, push: Push): void {
    const core = this.#core;
    const { taken, queue, counters, identity, options } = core;
    if (identity.uid === '' || peer.clusterUid !== identity.uid) return;
    // Nobody else gives out this node's sequence numbers: whoever seems to holds what this store has lost.
    if (push.origin === identity.origin) return;
    counters.framesReceived += 1;
    const covered = push.to > push.from && taken.head(push.origin) >= push.to;
    if (covered) {
      counters.framesDuplicate += 1;
      if (peer.origin !== push.origin && !this.#trees.isWelcome(peer, push.origin))
        core.send(peer, { type: 'prune', origins: [push.origin] });
      if (push.frame === 0) return;
    }
    // Refused whole, heads unmoved: the vectors bring it later.
    if (queue.bytes > options.pendingBytesMax || this.#merge.isTooFarAhead(push.rows)) {
      counters.framesDropped += 1;
      return;
    }
    const seen = taken.top(push.origin) >= push.to;
    const lost = this.#merge.records(push);
    if (lost !== undefined) {
      // As if it had not come yet. Should too many wait already, the vectors bring it later.
      if (!core.heal.whenHealed(lost, push, () => this.onPush(peer, push))) counters.framesDropped += 1;
      return;
    }
    if (!covered && push.to > push.from && !core.sealing.isOver(push.origin)) {
      if (taken.head(push.origin) >= push.from) {
        taken.raise(push.origin, push.to, push.to);
        queue.raiseHead(queue.batch(), push.origin, push.to);
      } else counters.gaps += 1;
      // Passed on before it is written: that claims nothing about this node, and each hop saves a disk's time.
      // Once only: heads do not tell a repetition where there is a gap, and frames would go round in circles.
      if (!seen) {
        this.#trees.supplied(peer, push.origin);
        this.#relay(peer, push);
      }
    }
    if (push.frame === 0) return;
    core.afterDurable(() => {
      if (core.peers.has(peer.link))
        core.send(peer, { type: 'ack', flushed: core.config.flushes, frames: [push.frame] });
    });
  }

  // Written batches.

  /** The batch is written: push what was accepted in it, settle who waits for no one else. */
  landed(batch: Batch): void {
    const { writes } = batch;
    if (writes.length === 0) return;
    const { config } = this.#core;
    const frame = this.#acks.nextFrame();
    const written = new Set([config.host]);
    const group: Group = { frame, push: undefined, bytes: 0, written, flushed: new Set(), writes };
    if (this.#acks.open(group) && config.flushes) batch.group = group;
    const wanted = group.writes.some((write) => write.needed > 1);
    const peers = this.#core.partners().filter((peer) => !peer.congested);
    if (!wanted && (batch.ownTo === 0 || peers.length === 0)) return;
    const push = this.#frameOf(batch, wanted ? frame : 0);
    if (wanted) {
      let bytes = 0;
      for (let i = 0; i < push.keys.length; i++) bytes += push.keys[i]!.length + push.rows[i]!.length;
      this.#acks.keep(group, push, bytes);
    }
    this.#push(peers, push);
  }

  #admit(write: LocalWrite): void {
    const { now, options, queue, hlc, config } = this.#core;
    const rowsMax = options.pendingRowsMax;
    const waiting = Math.max(queue.rows, this.#acks.unsettled);
    if (waiting + write.ops.length > rowsMax || queue.bytes + this.#acks.bytes > options.pendingBytesMax)
      throw new ReadmeshError(
        'OVERLOADED',
        `${waiting} rows wait for the disk or for acknowledgements: slow down and retry`,
      );
    if (hlc.isSkewed(now.wall))
      throw new ReadmeshError(
        'CLOCK_SKEW',
        `this host's clock is ${hlc.ms - now.wall} ms behind a stamp already given: correct the clock, then retry`,
      );
    const { heal, horizon } = this.#core;
    for (const op of heal.lost > 0 ? write.ops : [])
      if (op.stamp !== undefined && heal.isLost(op.key)) {
        const { ms, counter } = partsOfStamp(op.stamp);
        if (!heal.surpasses(op.key, ms, counter)) throw damagedKey(op.key);
      }
    for (const op of write.ops) {
      if (op.stamp === undefined) continue;
      const { ms } = partsOfStamp(op.stamp);
      if (ms - now.wall > options.maxClockDriftMs)
        throw new ReadmeshError(
          'FUTURE_STAMP',
          `the stamp is more than ${options.maxClockDriftMs} ms ahead of this host's clock: correct the writer's clock`,
        );
      if (ms <= horizon.floor)
        throw new ReadmeshError(
          'STALE_STAMP',
          `the stamp is more than ${options.lateRetryMs} ms old, and what was deleted since may be forgotten: read the key, and write it anew with a new stamp if that is still wanted`,
        );
    }
    if ((write.fsync ?? true) && !config.flushes)
      throw new ReadmeshError(
        'INVALID_OPTION',
        'this host does not flush its writes: ask for `fsync: false`',
      );
  }

  /** A record that turns out to be lost in the middle of a batch: what came before it stands, and a retry completes it. */
  #applyNext(batch: Batch, op: LocalOp, isLater: boolean): Row {
    try {
      return this.#apply(batch, op);
    } catch (error) {
      if (!isLater) throw error;
      const { queue, identity } = this.#core;
      if (batch.ownTo > 0) queue.raiseHead(batch, identity.origin, batch.ownTo);
      throw new ReadmeshError(
        'TIMEOUT',
        'a record was found damaged in the middle of this batch, whose outcome is unknown: retry with the same stamp',
        { cause: error },
      );
    }
  }

  /** Merges one operation. Returns its record, or the one already here that covers it. */
  #apply(batch: Batch, op: LocalOp): Row {
    const core = this.#core;
    const { hlc, identity, taken, queue, deps } = core;
    const { key, kind, value } = op;
    const { origin } = identity;
    // `admit` left the clock within bounds; the few steps of one batch may still carry it past them.
    if (op.stamp === undefined && !hlc.tick(core.now.wall)) hlc.receive(hlc.ms + 1, 0);
    const stamp = op.stamp === undefined ? this.#ownStamp() : partsOfStamp(op.stamp);
    const { ms, counter } = stamp;
    let current = core.current(key);
    if (current === DAMAGED) {
      core.heal.damaged(key);
      // A stamp of ours is above all that were seen here, and wins over whatever was lost; a client's may not be.
      if (op.stamp !== undefined && !core.heal.surpasses(key, ms, counter)) throw damagedKey(key);
      current = core.heal.remains(key);
    }
    const seq = taken.head(origin) + 1;
    const dot = this.#nextDot;
    dot.origin = origin;
    dot.seq = seq;
    const row =
      op.ttlMs === undefined
        ? makeLocalRow(key, kind, stamp, dot, value, deps.checksum)
        : makeMortalRow(key, stamp, dot, ms + op.ttlMs, value, deps.checksum);
    if (current !== undefined && compareEntries(row, current) <= 0) {
      batch.covers.set(key, current);
      return current;
    }
    hlc.receive(ms, counter);
    if (batch.ownTo === 0) {
      batch.ownOrigin = origin;
      batch.ownFrom = seq - 1;
    }
    batch.ownTo = seq;
    taken.raise(origin, seq, seq);
    queue.put(batch, key, row, current, true, false);
    if (core.heal.lost > 0) core.heal.replaced(key, row, batch);
    return row;
  }

  /** The clock's present stamp, valid until the next call. */
  #ownStamp(): StampParts {
    const { hlc, identity } = this.#core;
    const stamp = this.#lastStamp;
    stamp.ms = hlc.ms;
    stamp.counter = hlc.counter;
    stamp.writer = identity.origin;
    return stamp;
  }

  #frameOf(batch: Batch, frame: number): Push {
    const { identity, taken } = this.#core;
    const keys: string[] = [];
    const rows: Row[] = [];
    for (const [key, queued] of batch.rows) {
      if (!queued.own) continue;
      keys.push(key);
      rows.push(queued.row);
    }
    for (const [key, row] of batch.covers) {
      if (batch.rows.get(key)?.own === true) continue;
      keys.push(key);
      rows.push(row);
    }
    const own = batch.ownTo > 0;
    const origin = own ? batch.ownOrigin : identity.origin;
    const to = own ? batch.ownTo : taken.head(origin);
    const from = own ? batch.ownFrom : to;
    return { type: 'push', frame, origin, from, to, keys, rows };
  }

  #push(peers: readonly Peer[], push: Push): void {
    if (peers.length === 0) return;
    const core = this.#core;
    core.counters.framesPushed += peers.length;
    core.emit({ type: 'send', links: peers.map((peer) => peer.link), message: push, bestEffort: true });
  }

  #relay(from: Peer, push: Push): void {
    const core = this.#core;
    const peers = this.#trees
      .children(push.origin)
      .filter((peer) => peer !== from && !peer.congested && peer.vector.head(push.origin) < push.to)
      .filter((peer) => !this.#offers.hasOffered(peer, push));
    core.counters.framesRelayed += peers.length;
    const relayed = push.frame === 0 ? push : { ...push, frame: 0 };
    this.#push(peers, relayed);
    this.#offers.passedOn(relayed, peers, from);
  }
}
