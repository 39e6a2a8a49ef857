/**
 * Which hosts hold what. An acknowledgement answers a named frame on a link, sent by a peer after it wrote the
 * frame's records (or what superseded them); heads are never taken for acknowledgements. Hosts are counted by
 * label, so that two members on one machine count once.
 *
 * All writes of one batch share one frame, and so one set of hosts (`Group`). A frame whose writes are not yet
 * answered is kept, and sent again to whoever connects or drains; once all its writes are settled or expired it
 * is forgotten.
 */
import { originOf, seqOf, stampHexOf, tokenOf } from './entry.js';
import { type GivenStamp, hasStamp, textOfStamp } from './hlc.js';
import type { Effect } from './io.js';
import type { Push } from './messages.js';
import type { Row, StampHex } from './types.js';

/** What there is to say of a write. */
export interface SettledWrite {
  readonly id: number;
  /** The stamp that the writer gave; undefined: that of `row`. */
  readonly givenStamp: GivenStamp | undefined;
  /** What answers the write (its last operation): its own record, or the one that superseded it. */
  readonly row: Row;
  readonly superseded: boolean;
  /** Hosts that hold it for certain. */
  replicas: number;
}

export interface PendingWrite extends SettledWrite {
  readonly needed: number;
  readonly fsync: boolean;
  /** Monotonic ms, whole: any other number is an object of its own. */
  readonly deadline: number;
  /** Settled or expired. */
  done: boolean;
  /** Set once it is written here and waits for other hosts. */
  group: Group | undefined;
}

export interface Group {
  readonly frame: number;
  /** What is sent (again) to hosts that are still missing. */
  push: Push | undefined;
  bytes: number;
  readonly written: Set<string>;
  readonly flushed: Set<string>;
  writes: PendingWrite[];
}

/** Deadlines are rounded up to this many ms, so that a burst of writes expires in one sweep. */
const SWEEP_MS = 20;
/** Writes that are done, beyond a quarter of the others, before they are swept out: those kept longer grow old. */
const SWEEP_COUNT = 1_024;

export class Acknowledgements {
  readonly #groups = new Map<number, Group>();
  /** In order of acceptance; those that are done are swept out now and then. */
  #pending: PendingWrite[] = [];
  #unsettled = 0;
  readonly #emit: (effect: Effect) => void;
  #frames = 0;
  /** Bytes of the frames that are kept. */
  bytes = 0;

  constructor(emit: (effect: Effect) => void) {
    this.#emit = emit;
  }

  get unsettled(): number {
    return this.#unsettled;
  }

  nextFrame(): number {
    return ++this.#frames;
  }

  /** A write was accepted; it may expire even before it is written. */
  accept(write: PendingWrite): void {
    this.#unsettled += 1;
    this.#pending.push(write);
    if (this.#pending.length > SWEEP_COUNT + 1.25 * this.#unsettled) this.#sweep();
  }

  /** The batch of these writes is written here. Returns true while one of them is not settled. */
  open(group: Group): boolean {
    this.#settle(group);
    for (const write of group.writes) write.group = group;
    return group.writes.length > 0;
  }

  /** The frame that is being sent for the group; it is sent again until its writes are answered. */
  keep(group: Group, push: Push, bytes: number): void {
    group.push = push;
    group.bytes = bytes;
    this.#groups.set(group.frame, group);
    this.bytes += bytes;
  }

  /** The batch is flushed here, if this host flushes: `open` counted it as written only. */
  flushedHere(group: Group, host: string): void {
    group.flushed.add(host);
    this.#settle(group);
    if (group.writes.length === 0) this.#forget(group);
  }

  /** `host` holds the frame. */
  acknowledge(frame: number, host: string, flushed: boolean): void {
    const group = this.#groups.get(frame);
    if (group === undefined) return;
    group.written.add(host);
    if (flushed) group.flushed.add(host);
    this.#settle(group);
    if (group.writes.length === 0) this.#forget(group);
  }

  /** Frames that a newly linked or drained peer has to be sent, oldest first. */
  outstanding(host: string): Push[] {
    const out: Push[] = [];
    for (const { push, flushed } of this.#groups.values())
      if (push !== undefined && !flushed.has(host)) out.push(push);
    return out;
  }

  /**
   * Frames up to this one whose records the host has, but never acknowledged: it had no room for the frame, or its
   * clock was behind, and a session brought the records later. `has` says so; it does not count by itself.
   */
  unanswered(host: string, last: number, has: (push: Push) => boolean): Push[] {
    const out: Push[] = [];
    for (const { frame, push, written } of this.#groups.values()) {
      if (frame > last) break;
      if (push !== undefined && !written.has(host) && has(push)) out.push(push);
    }
    return out;
  }

  /** The latest frame's number. */
  get latest(): number {
    return this.#frames;
  }

  /** Rejects what is overdue; returns the next time to look, if any write still waits. */
  expire(now: number): number | undefined {
    let next: number | undefined;
    const touched = new Set<Group>();
    this.#sweep();
    for (const write of this.#pending) {
      if (write.deadline > now) {
        if (next === undefined || write.deadline < next) next = write.deadline;
        continue;
      }
      this.#finish(write);
      const { group } = write;
      const hosts = group === undefined ? 0 : (write.fsync ? group.flushed : group.written).size;
      this.#emit(ackTimeout(write, hosts));
      if (group !== undefined) touched.add(group);
    }
    for (const group of touched) {
      group.writes = group.writes.filter((write) => !write.done);
      if (group.writes.length === 0) this.#forget(group);
    }
    return next === undefined ? undefined : next + SWEEP_MS;
  }

  /** Nothing can be acknowledged any more. */
  failAll(code: 'STORE_FAILED' | 'CLOSED' | 'REMOVED', message: string): void {
    for (const write of this.#pending) {
      if (write.done) continue;
      this.#finish(write);
      this.#emit({ type: 'rejected', id: write.id, code, message, details: { stamp: stampOf(write) } });
    }
    this.#pending = [];
    this.#groups.clear();
    this.bytes = 0;
  }

  #settle(group: Group): void {
    const waiting: PendingWrite[] = [];
    const settled: PendingWrite[] = [];
    for (const write of group.writes) {
      if (write.done) continue;
      const hosts = (write.fsync ? group.flushed : group.written).size;
      if (hosts < write.needed) {
        waiting.push(write);
        continue;
      }
      this.#finish(write);
      write.replicas = hosts;
      settled.push(write);
    }
    group.writes = waiting;
    if (settled.length > 0) this.#emit({ type: 'settled', writes: settled });
  }

  #finish(write: PendingWrite): void {
    write.done = true;
    this.#unsettled -= 1;
  }

  #sweep(): void {
    let kept = 0;
    for (const write of this.#pending) if (!write.done) this.#pending[kept++] = write;
    this.#pending.length = kept;
  }

  #forget(group: Group): void {
    if (this.#groups.delete(group.frame)) this.bytes -= group.bytes;
  }
}

/** Whether the write's stamp is that of its row. */
export function isOfRow({ givenStamp, row }: SettledWrite): boolean {
  return givenStamp === undefined || hasStamp(row, givenStamp);
}

export function stampOf(write: SettledWrite): StampHex {
  // What stamps of one time have in common is made once for rows.
  return isOfRow(write) ? stampHexOf(write.row) : textOfStamp(write.givenStamp!);
}

/** What an acknowledged write is answered with. */
export interface Receipt {
  /** The HLC stamp that the write bears: 32 hex digits whose order is the order of writes. For a batch: its last operation's. */
  readonly stamp: StampHex;
  /** How many hosts hold the write for certain. */
  readonly replicas: number;
  /** Opaque session token. */
  readonly token: string;
  /** True when a newer write of the key had already won (for a batch: of any of its keys). */
  readonly superseded: boolean;
}

/** Stamp and token become text only here: thousands of writes wait at once, and each text would wait with them. */
export function receiptOf(write: SettledWrite): Receipt {
  const { row, replicas, superseded } = write;
  const stamp = stampOf(write);
  return { stamp, replicas, token: tokenOf(originOf(row), seqOf(row), stamp), superseded };
}

function ackTimeout(write: PendingWrite, hosts: number): Effect {
  const what = write.fsync ? 'hold it flushed' : 'hold it';
  return {
    type: 'rejected',
    id: write.id,
    code: 'ACK_TIMEOUT',
    message:
      `${hosts} of ${write.needed} hosts ${what} so far; it may still reach the others. ` +
      'Retry with the same stamp (safe), bring hosts back, or ask for fewer replicas',
    details: { hosts, needed: write.needed, stamp: stampOf(write) },
  };
}
