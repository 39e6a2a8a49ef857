/**
 * The oracle knows everything at once, which no node does, and checks each step against it:
 *
 * - every record on a disk was accepted once, with that dot, byte for byte; one sequence number, one record
 *   (no invention, no reuse); one stamp, one content
 * - a merge only ever goes up; stamps of one writer rise with its sequence numbers and stay within the drift
 *   bound; a node's clock is above all that it holds, also after a restart
 * - heads never outrun the data: whoever has head h of an origin holds, for each sequence number up to h, the
 *   record or what superseded it
 * - nothing leaves a node before it is written there, announcements and acknowledgements included
 * - no write is settled before as many distinct hosts as it asked for hold it, flushed if it asked for that; and
 *   once settled it survives the loss of one disk less
 * - queues, sessions, scans, frames stay under their caps; every write is answered, by its deadline
 * - a node that refuses writes says why in its health
 *
 * It keeps no opinion about when things happen, save for deadlines.
 */

import type { Receipt } from '../../src/core/acknowledgements.js';
import {
  compareEntries,
  compareRows,
  expiresAtOf,
  isTombstone,
  originOf,
  ROW_OVERHEAD_MAX,
  seqOf,
  stampCounterOf,
  stampHexOf,
  stampMsOf,
  valueOffset,
} from '../../src/core/entry.js';
import { DAMAGED } from '../../src/core/heal.js';
import { textOfStamp } from '../../src/core/hlc.js';
import type { Input, LinkId, LocalOp } from '../../src/core/io.js';
import type { PeerMessage, Push } from '../../src/core/messages.js';
import type { OriginId, Row, StampHex, StoreBatch } from '../../src/core/types.js';
import { overCap } from './caps.js';
import type { Image } from './disk.js';
import { EndedOrigins } from './ended.js';
import { Violation } from './faults.js';
import { Graves } from './graves.js';
import { Horizons } from './horizons.js';
import type { Answer, OpenWrite, SimNode } from './node.js';
import { TWIN_PREFIX } from './workload.js';
import type { World } from './world.js';

/** An acknowledged operation, and what the acknowledgement promised. */
export interface Obligation {
  readonly key: string;
  /** A record with this stamp or a greater one must survive. */
  readonly stamp: StampHex;
  readonly replicas: number;
  readonly fsync: boolean;
  /** Hosts that held it and lost their disks since. */
  readonly lost: Set<string>;
}

interface LostDisk {
  readonly at: number;
  readonly host: string;
  readonly image: Image;
  /** The disk itself was lost, rather than a tail that was never flushed. */
  readonly flushedToo: boolean;
}

/** Answers may be this late: acknowledgement deadlines are swept in steps, timers and disks take their time. */
const ANSWER_SLACK_MS = 200;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class Oracle {
  readonly #world: World;
  /** Every record that was ever written, by dot. */
  readonly #accepted = new Map<OriginId, { key: string; row: Row }[]>();
  readonly #byStamp = new Map<string, Row>();
  /** Who an origin belonged to. */
  readonly #owners = new Map<OriginId, SimNode>();
  /** Contents that somebody asked to write, by key. */
  readonly #issued = new Map<string, Set<string>>();
  readonly #lastOwn = new Map<OriginId, { seq: number; stamp: string }>();
  /** Frames received and to be acknowledged, by node and link. */
  readonly #received = new Map<string, Map<number, Push>>();
  /** Greatest sequence number given out, by origin: its record may have been superseded before it was written. */
  readonly #given = new Map<OriginId, number>();
  /** Greatest sequence number that its owner knows to be written. */
  readonly #confirmed = new Map<OriginId, number>();
  readonly #lostDisks: LostDisk[] = [];
  readonly ended: EndedOrigins;
  readonly graves: Graves;
  readonly horizons: Horizons;
  readonly obligations = new Map<string, Obligation[]>();
  /** Nodes whose disk holds, or held, damaged records: until it is emptied, nothing is asked of it. */
  readonly damaged = new Set<SimNode>();
  operations = 0;
  /** Bytes. */
  largestFrame = 0;
  largestWrite = 0;

  constructor(world: World) {
    this.#world = world;
    this.graves = new Graves(world);
    this.ended = new EndedOrigins(
      world,
      (origin) => this.#accepted.get(origin) ?? [],
      (node) => this.damaged.has(node),
      this.graves,
    );
    this.horizons = new Horizons(world, (node) => this.damaged.has(node), this.graves);
  }

  // What nodes report.

  issued(ops: readonly LocalOp[]): void {
    this.operations += ops.length;
    const bytes = ops.reduce((sum, op) => sum + op.key.length + op.value.length + ROW_OVERHEAD_MAX, 0);
    this.largestWrite = Math.max(this.largestWrite, bytes);
    for (const op of ops) {
      let values = this.#issued.get(op.key);
      if (values === undefined) this.#issued.set(op.key, (values = new Set()));
      values.add(`${op.kind}:${hex(op.value)}:${op.ttlMs ?? 'stays'}`);
    }
  }

  started(node: SimNode): void {
    for (const name of [...this.#received.keys()])
      if (name.startsWith(`${node.id}/`)) this.#received.delete(name);
    // Whatever it found on its disk it tells others.
    for (const [origin, head] of node.disk.image.heads) this.#confirm(origin, head);
  }

  /** The core has taken an input; its effects are about to be carried out. */
  beforeEffects(node: SimNode, input: Input): void {
    const core = node.core!;
    const { origin } = core.identity;
    const owner = this.#owners.get(origin);
    if (owner !== node) this.#owners.set(origin, node);
    if (input.type === 'message' && input.message.type === 'push')
      this.#receivedPush(node, input.link, input.message);
  }

  /** The batch reaches the disk. */
  apply(node: SimNode, batch: StoreBatch): void {
    const { image } = node.disk;
    const fresh: Row[] = [];
    this.graves.check(node, batch);
    this.horizons.check(node, batch);
    for (const [key, { row, replaces }] of batch.rows) {
      if (this.#meet(node, key, row)) fresh.push(row);
      const flipped = image.flipped.get(key);
      const old = flipped ?? image.rows.get(key);
      if (old === undefined) continue;
      // Healing puts back what was there, or what is newer.
      if (flipped !== undefined && compareRows(row, old) === 0) continue;
      if (compareRows(row, old) <= 0)
        throw new Violation('merge', `${node.name} replaces ${key} ${show(old)} by ${show(row)}`);
      if (
        flipped === undefined &&
        (replaces === undefined || replaces.origin !== originOf(old) || replaces.seq !== seqOf(old))
      )
        throw new Violation('dots', `${node.name} replaces ${key} ${show(old)}, but names another dot`);
    }
    for (const drop of batch.drops ?? []) {
      if (!('key' in drop) || batch.rows.has(drop.key)) continue;
      const lost = image.flipped.get(drop.key) ?? image.rows.get(drop.key);
      if (lost !== undefined && !this.graves.covers(drop.key, lost))
        throw new Violation('lost', `${node.name} gives up its record of ${drop.key}, which peers have`);
    }
    this.#checkStamps(node, fresh);
    const before = new Map<OriginId, number>();
    for (const [origin] of batch.heads) before.set(origin, image.heads.get(origin) ?? 0);
    if (batch.hlc !== undefined) {
      const { ms, counter } = image.hlc;
      if (batch.hlc.ms < ms || (batch.hlc.ms === ms && batch.hlc.counter < counter))
        throw new Violation('clock', `the stored clock of ${node.name} went back`);
    }
    for (const [origin, head] of batch.heads)
      if (this.#owners.get(origin) === node)
        this.#given.set(origin, Math.max(head, this.#given.get(origin) ?? 0));
    const forgets = (batch.forgets ?? new Set()).size === 0 ? [] : this.#extents(node, batch.forgets!);
    node.disk.apply(batch);
    if (image.flipped.size === 0) this.damaged.delete(node);
    for (const [, { row }] of batch.rows)
      if (
        stampMsOf(row) > image.hlc.ms ||
        (stampMsOf(row) === image.hlc.ms && stampCounterOf(row) > image.hlc.counter)
      )
        throw new Violation('clock', `${node.name} stores ${show(row)} above its stored clock`);
    if (!this.damaged.has(node))
      for (const [origin, head] of batch.heads) this.#checkHead(node, origin, before.get(origin)!, head);
    for (const [origin, top] of forgets) this.ended.forgets(node, origin, top);
  }

  /** How much of each the node holds. */
  #extents({ disk }: SimNode, origins: ReadonlySet<OriginId>): [OriginId, number][] {
    const { heads } = disk.image;
    const tops = disk.image.tops();
    return [...origins].map((origin) => [origin, Math.max(heads.get(origin) ?? 0, tops.get(origin) ?? 0)]);
  }

  sending(node: SimNode, links: readonly LinkId[], message: PeerMessage): void {
    if (this.damaged.has(node)) return;
    if (message.type === 'push') {
      // Another origin's frame may be passed on while it is on its way to the disk, but not before it was taken in.
      const own = message.origin === node.core!.identity.origin || message.frame !== 0;
      for (let i = 0; i < message.keys.length; i++) {
        const key = message.keys[i]!;
        const held = own ? node.disk.image.rows.get(key) : node.core!.current(key);
        if (held === DAMAGED) throw new Violation('damage', `${node.name} pushes ${key}, which is damaged`);
        mustHold(node, key, held, message.rows[i]!, 'pushes');
      }
    } else if (message.type === 'lent') {
      for (let i = 0; i < message.keys.length; i++) {
        const key = message.keys[i]!;
        mustHold(node, key, node.disk.image.rows.get(key), message.rows[i]!, 'lends');
      }
    } else if (message.type === 'beat') {
      // What is being forgotten may be announced until the process hears that it is off the disk.
      for (const [origin, head] of message.vector)
        if (head > Math.max(node.disk.image.heads.get(origin) ?? 0, this.ended.end(origin)))
          throw new Violation(
            'written',
            `${node.name} announces ${origin}:${head}, which is not on its disk`,
          );
    } else if (message.type === 'ack') {
      for (const link of links)
        for (const frame of message.frames) {
          const push = this.#received.get(`${node.id}/${link}`)?.get(frame);
          if (push === undefined)
            throw new Violation('written', `${node.name} acknowledges frame ${frame}, never received`);
          for (let i = 0; i < push.keys.length; i++) {
            const key = push.keys[i]!;
            mustHold(node, key, node.disk.image.rows.get(key), push.rows[i]!, 'acknowledges');
          }
          if (message.flushed && !node.disk.flushes)
            throw new Violation('written', `${node.name} claims to flush`);
          if (message.flushed) mustHaveFlushed(node, push);
        }
    }
  }

  answered(node: SimNode, write: OpenWrite, effect: Answer): void {
    const { ledger, scheduler } = this.#world;
    ledger.mix(write.id);
    const timeout = write.options.timeoutMs ?? this.#world.options.ackTimeoutMs;
    if (scheduler.now - write.issuedAt > timeout + ANSWER_SLACK_MS && node.stalledAt < write.issuedAt)
      throw new Violation('deadline', `${node.name} answered after ${scheduler.now - write.issuedAt} ms`);
    if (effect.type === 'rejected') {
      ledger.note(
        node.name,
        () => `write ${write.ops.map((op) => op.key).join(',')} rejected ${effect.code}`,
      );
      this.#checkHonest(node, effect.code);
      return;
    }
    ledger.note(
      node.name,
      () =>
        `write ${write.ops.map((op) => op.key).join(',')} settled ${effect.receipt.stamp} on ${effect.receipt.replicas}`,
    );
    this.#checkSettled(node, write, effect.receipt);
  }

  afterInput(node: SimNode, input: Input): void {
    const core = node.core;
    if (core === undefined) return;
    this.horizons.afterInput(node);
    const { options } = this.#world;
    const { queue, acks } = core;
    const room =
      (options.bootstrapSourcesMax * options.chunksInFlight + 1) * this.largestFrame + this.largestWrite;
    if (queue.bytes > options.pendingBytesMax + room)
      throw new Violation('caps', `${node.name} queues ${queue.bytes} bytes`);
    if (queue.rows < 0 || queue.bytes < 0 || acks.bytes < 0)
      throw new Violation(
        'caps',
        `${node.name} counts ${queue.rows} rows, ${queue.bytes} and ${acks.bytes} bytes`,
      );
    const over = overCap(core);
    if (over !== undefined) throw new Violation('caps', `${node.name} holds ${over}`);
    // One more: the digest's survey.
    if (node.scans.size > options.sessionsServedMax + 1)
      throw new Violation('caps', `${node.name} serves ${node.scans.size} scans`);
    if (input.type === 'writes' && input.writes.some(({ id }) => node.open.has(id)))
      this.#checkAccepted(node);
  }

  /** The process has heard that the batch is written. */
  persisted(node: SimNode): void {
    for (const [origin, head] of node.disk.image.heads)
      if (this.#owners.get(origin) === node) this.#confirm(origin, head);
  }

  #confirm(origin: OriginId, head: number): void {
    if (head > (this.#confirmed.get(origin) ?? 0)) this.#confirmed.set(origin, head);
  }

  /** Whether the image holds numbers that were given out anew since. */
  isOutdated(image: Image): boolean {
    for (const row of image.rows.values()) {
      const known = this.#accepted.get(originOf(row))?.[seqOf(row)];
      if (known === undefined || Buffer.compare(known.row, row) !== 0) return true;
    }
    return false;
  }

  // Disks that are lost.

  /** What the node's disk held before is gone, or part of it. */
  diskChanged(node: SimNode, before: Image, flushedToo = false): void {
    const { host } = node;
    this.horizons.diskChanged(before);
    this.#lostDisks.push({ at: this.#world.scheduler.now, host, image: before, flushedToo });
    for (const [key, list] of this.obligations) {
      const held = before.rows.get(key);
      for (const obligation of [...list]) {
        if (obligation.fsync && !flushedToo) continue;
        const { stamp } = obligation;
        if (held === undefined ? !this.graves.isKnownTo(before, key, stamp) : !covers(held, stamp)) continue;
        if (!this.damaged.has(node) && this.#isKept(node, obligation)) continue;
        obligation.lost.add(host);
        if (this.holders(obligation).size > 0) continue;
        if (obligation.lost.size < obligation.replicas)
          throw new Violation(
            'durability',
            `${key} at ${obligation.stamp} was lost with ${obligation.lost.size} hosts, acknowledged by ${obligation.replicas}`,
          );
        list.splice(list.indexOf(obligation), 1);
      }
    }
  }

  /**
   * Hosts whose disk holds it, whether their process runs or not; `asidesToo`: in a store that was set aside, or a file
   * for the operator, will do.
   */
  holders(
    obligation: Obligation,
    among: readonly SimNode[] = this.#world.nodes,
    asidesToo = true,
  ): Set<string> {
    const out = new Set<string>();
    for (const node of among) {
      const holds = !this.damaged.has(node) && this.#isStored(node, obligation);
      if (holds || (asidesToo && node.aside.holds(obligation.key, obligation.stamp))) out.add(node.host);
    }
    return out;
  }

  #isKept(node: SimNode, obligation: Obligation): boolean {
    return node.aside.holds(obligation.key, obligation.stamp) || this.#isStored(node, obligation);
  }

  #isStored({ disk }: SimNode, { key, stamp }: Obligation): boolean {
    const row = disk.image.rows.get(key);
    return row === undefined ? this.graves.isKnownTo(disk.image, key, stamp) : covers(row, stamp);
  }

  /** A bit of its disk flipped: nothing on it counts any more. */
  diskDamaged(node: SimNode): void {
    this.damaged.add(node);
    this.diskChanged(node, node.disk.image.clone(), true);
  }

  /** Of a disk that lost no data: all heads against all that was ever accepted. */
  checkAllHeads(node: SimNode): void {
    for (const [origin, head] of node.disk.image.heads) this.#checkHead(node, origin, 0, head);
  }

  // Checks.

  /** True when nobody has seen this dot before. */
  #meet(node: SimNode, key: string, row: Row): boolean {
    const origin = originOf(row);
    const seq = seqOf(row);
    let list = this.#accepted.get(origin);
    if (list === undefined) this.#accepted.set(origin, (list = []));
    const known = list[seq];
    if (known !== undefined && !this.#isForgotten(origin, seq, known)) {
      if (known.row !== row && (known.key !== key || Buffer.compare(known.row, row) !== 0))
        throw new Violation(
          'reuse',
          `${origin}:${seq} is ${known.key} ${show(known.row)} and ${key} ${show(row)}`,
        );
      return false;
    }
    if (this.#owners.get(origin) !== node)
      throw new Violation('invention', `${node.name} holds ${key} ${show(row)}, which nobody accepted`);
    list[seq] = { key, row };
    const expiresAt = expiresAtOf(row);
    const ttl = expiresAt === undefined ? 'stays' : expiresAt - stampMsOf(row);
    const content = `${isTombstone(row) ? 2 : row[4]}:${hex(row.subarray(valueOffset(row)))}:${ttl}`;
    if (this.#issued.get(key)?.has(content) !== true)
      throw new Violation('invention', `${node.name} accepted ${key} ${show(row)}, which nobody asked for`);
    const name = `${key}\0${stampHexOf(row)}`;
    const twin = this.#byStamp.get(name);
    if (twin === undefined) this.#byStamp.set(name, row);
    else if (compareEntries(twin, row) !== 0 && !key.startsWith(TWIN_PREFIX))
      throw new Violation('stamps', `${key} has two contents with stamp ${stampHexOf(row)}`);
    return true;
  }

  /**
   * Written by a process that was killed before it heard so, and lost with its disk before anybody else saw it:
   * the number was as good as never given out.
   */
  #isForgotten(origin: OriginId, seq: number, known: { key: string; row: Row }): boolean {
    if (seq <= (this.#confirmed.get(origin) ?? 0)) return false;
    return !this.#world.nodes.some((node) => {
      const row = node.disk.image.rows.get(known.key);
      return row !== undefined && Buffer.compare(row, known.row) === 0;
    });
  }

  #checkStamps(node: SimNode, fresh: Row[]): void {
    fresh.sort((a, b) => seqOf(a) - seqOf(b));
    for (const row of fresh) {
      const origin = originOf(row);
      const stamp = stampHexOf(row);
      if (!stamp.endsWith(origin)) continue;
      const last = this.#lastOwn.get(origin);
      if (last !== undefined && last.seq < seqOf(row) && last.stamp >= stamp)
        throw new Violation('clock', `${node.name} stamped ${stamp} after ${last.stamp}`);
      this.#lastOwn.set(origin, { seq: seqOf(row), stamp });
    }
  }

  #checkHead(node: SimNode, origin: OriginId, from: number, to: number): void {
    const list = this.#accepted.get(origin) ?? [];
    const { rows } = node.disk.image;
    if (to < from) throw new Violation('heads', `${node.name} lowered ${origin} from ${from} to ${to}`);
    if (to > (this.#given.get(origin) ?? 0))
      throw new Violation('heads', `${node.name} claims ${origin}:${to}, never given out`);
    for (let seq = from + 1; seq <= to; seq++) {
      const known = list[seq];
      if (known === undefined) continue;
      const held = rows.get(known.key);
      if (
        held === undefined ? this.graves.covers(known.key, known.row) : compareEntries(held, known.row) >= 0
      )
        continue;
      throw new Violation(
        'heads',
        `${node.name} has head ${origin}:${to}, but of ${known.key} ${held === undefined ? 'nothing' : show(held)} instead of ${show(known.row)}`,
      );
    }
  }

  #receivedPush(node: SimNode, link: LinkId, push: Push): void {
    if (push.frame === 0) return;
    const name = `${node.id}/${link}`;
    let frames = this.#received.get(name);
    if (frames === undefined) this.#received.set(name, (frames = new Map()));
    frames.set(push.frame, push);
  }

  #checkAccepted(node: SimNode): void {
    const { hlc, queue } = node.core!;
    const { options } = this.#world;
    if (queue.rows > options.pendingRowsMax)
      throw new Violation('caps', `${node.name} queues ${queue.rows} rows`);
    const stored = node.disk.image.hlc;
    if (hlc.ms < stored.ms || (hlc.ms === stored.ms && hlc.counter < stored.counter))
      throw new Violation('clock', `${node.name} stamps below what it holds`);
    if (hlc.ms - node.wall() > options.maxClockDriftMs + 1)
      throw new Violation('clock', `${node.name} stamps ${hlc.ms - node.wall()} ms ahead of its clock`);
  }

  #checkHonest(node: SimNode, code: string): void {
    const core = node.core!;
    if (!['STORE_FAILED', 'CLOCK_SKEW', 'REMOVED', 'DUPLICATE_ORIGIN', 'NO_MAJORITY'].includes(code)) {
      if (code === 'NOT_READY' && core.ready && !core.identity.unmet)
        throw new Violation('honest', `${node.name} refuses as not ready, but is`);
      return;
    }
    if (!core.issues().some((issue) => issue.code === code))
      throw new Violation('honest', `${node.name} refuses with ${code}, and its health does not say so`);
  }

  #checkSettled(node: SimNode, write: OpenWrite, receipt: Receipt): void {
    const fsync = write.options.fsync ?? true;
    const needed = Math.max(write.options.replicas ?? 1, receipt.replicas);
    if (receipt.replicas < (write.options.replicas ?? 1))
      throw new Violation('replicas', `${receipt.replicas} of ${write.options.replicas} hosts`);
    const stamps = stampsOf(write.ops, receipt.stamp);
    for (const [key, stamp] of stamps) {
      const obligation: Obligation = { key, stamp, replicas: receipt.replicas, fsync, lost: new Set() };
      const hosts = new Set<string>();
      for (const other of this.#world.nodes) {
        const { disk } = other;
        if (fsync && !disk.flushes) continue;
        if (!covers((fsync ? disk.durable : disk.image).rows.get(key), stamp)) continue;
        hosts.add(other.host);
        if (this.damaged.has(other)) obligation.lost.add(other.host);
      }
      for (const lost of this.#lostDisks) {
        if (lost.at < write.issuedAt || hosts.has(lost.host)) continue;
        if ((fsync && !lost.flushedToo) || !covers(lost.image.rows.get(key), stamp)) continue;
        hosts.add(lost.host);
        obligation.lost.add(lost.host);
      }
      if (hosts.size < needed)
        throw new Violation(
          'replicas',
          `${node.name} settles ${key} at ${stamp} as held by ${receipt.replicas} hosts, but it is on ${[...hosts].join(', ') || 'none'}`,
        );
      const list = this.obligations.get(key);
      if (list === undefined) this.obligations.set(key, [obligation]);
      else list.push(obligation);
    }
  }
}

function mustHold(node: SimNode, key: string, held: Row | undefined, row: Row, does: string): void {
  // It may have been collected since the snapshot was taken from which it comes.
  if (held === undefined && node.world.oracle.graves.covers(key, row)) return;
  if (held === undefined || compareEntries(held, row) < 0)
    throw new Violation('written', `${node.name} ${does} ${key} ${show(row)} before it holds it`);
}

/** Whoever says that a frame is flushed has all of it, or what superseded it, where no loss of power takes it. */
function mustHaveFlushed({ name, disk, world }: SimNode, push: Push): void {
  for (let i = 0; i < push.keys.length; i++) {
    const key = push.keys[i]!;
    const flushed = disk.durable.rows.get(key);
    if (flushed === undefined && world.oracle.graves.covers(key, push.rows[i]!)) continue;
    if (flushed === undefined || compareEntries(flushed, push.rows[i]!) < 0)
      throw new Violation('written', `${name} acknowledges ${key} as flushed, and it is not`);
  }
}

function covers(row: Row | undefined, stamp: StampHex): boolean {
  return row !== undefined && stampHexOf(row) >= stamp;
}

/** Stamps of the operations of one write, from that of the last: their own, or consecutive ones. */
function stampsOf(ops: readonly LocalOp[], last: StampHex): Map<string, StampHex> {
  const out = new Map<string, StampHex>();
  const time = BigInt(`0x${last.slice(0, 16)}`);
  ops.forEach((op, i) => {
    const own = (time - BigInt(ops.length - 1 - i)).toString(16).padStart(16, '0') + last.slice(16);
    out.set(op.key, op.stamp === undefined ? own : textOfStamp(op.stamp));
  });
  return out;
}

export function show(row: Row): string {
  const text = Buffer.from(row.subarray(valueOffset(row), valueOffset(row) + 24)).toString('latin1');
  return `${stampMsOf(row) % 1e8}.${stampCounterOf(row)} ${originOf(row).slice(0, 4)}:${seqOf(row)} ${isTombstone(row) ? 'deleted' : JSON.stringify(text)}`;
}
