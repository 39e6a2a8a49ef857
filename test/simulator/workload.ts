/**
 * What clients do, one write per event: write-once keys, registers of a single writer, contended registers
 * (Zipf), deletes and re-creations, causal chains across nodes, batches, and clients that stamp their own writes
 * and send them again to other nodes until one is acknowledged. Some entries expire. Every value is unique.
 */
import { KIND_REGISTER, KIND_TOMBSTONE, stampHexOf } from '../../src/core/entry.js';
import { stampBytes, stampToHex } from '../../src/core/hlc.js';
import type { LocalOp } from '../../src/core/io.js';
import { Violation } from './faults.js';
import type { SimNode, WriteOptions, WriteResult } from './node.js';
import type { Plan, PlanEvent } from './plan.js';
import type { World } from './world.js';

const RETRIES_MAX = 4;
const HOT_KEYS = 12;
const EXPIRING_SHARE = 0.2;

export class Workload {
  readonly #world: World;
  readonly #plan: Plan;
  readonly #nodes: readonly SimNode[];
  #values = 0;
  /** Answers by code; 'ok' for settled ones. */
  readonly answers = new Map<string, number>();

  constructor(world: World, plan: Plan, nodes: readonly SimNode[]) {
    this.#world = world;
    this.#plan = plan;
    this.#nodes = nodes;
  }

  write(event: PlanEvent, index: number): void {
    const { a, b, c } = event;
    const node = this.#nodes[event.node]!;
    const options = this.#ackLevel(c);
    if (a < 0.1) this.#issue(node, [this.#put(`once/${index}`, event)], options);
    else if (a < 0.25)
      this.#issue(node, [this.#put(`own/${node.name}/${Math.floor(b * 4)}`, event)], options);
    else if (a < 0.55) this.#issue(node, [this.#put(`hot/${zipf(b)}`, event)], options);
    else if (a < 0.7) {
      const key = `reborn/${Math.floor(b * 5)}é`;
      this.#issue(node, [c < 0.5 ? del(key) : this.#put(key, event)], options);
    } else if (a < 0.8) this.#chain(node, `chain/${Math.floor(b * 3)}`, event, options);
    else if (a < 0.88) {
      const ops = Array.from({ length: 2 + Math.floor(b * 5) }, (_, i) =>
        this.#put(`hot/${(zipf(b) + i * 2) % HOT_KEYS}`, event),
      );
      this.#issue(node, ops, options);
    } else if (a < 0.97) this.#stamped(event, index, options);
    else this.#twins(event, index, options);
  }

  #put(key: string, event: PlanEvent): LocalOp {
    // A few are long: longer than tiny frames, chunks and queues.
    const padding = (event.b * 1_000) % 1 < 0.06 ? 1_200 : Math.floor(((event.c * 1_000) % 1) * 30);
    const value = Buffer.from(`v${++this.#values}${'.'.repeat(padding)}`);
    // Some expire: most of these while the run goes on, the others long after it.
    const draw = (event.b * 10_007) % 1;
    const ttl = draw >= EXPIRING_SHARE ? {} : { ttlMs: 1 + Math.floor(10 ** (draw * 30)) };
    return { key, kind: KIND_REGISTER, value, ...ttl };
  }

  #ackLevel(c: number): WriteOptions {
    const level = (c * 7_919) % 1;
    const replicas =
      level < 0.5
        ? undefined
        : level < 0.7
          ? 1
          : level < 0.9
            ? 2
            : this.#plan.nodes - (this.#plan.sharedHost ? 1 : 0);
    const fsync = this.#plan.flushes && (c * 104_729) % 1 < 0.8;
    return { ...(replicas === undefined ? {} : { replicas }), fsync };
  }

  #issue(node: SimNode, ops: LocalOp[], options: WriteOptions, then?: (result: WriteResult) => void): void {
    node.write(ops, options, (result) => {
      const code = result.ok ? 'ok' : result.code;
      this.answers.set(code, (this.answers.get(code) ?? 0) + 1);
      then?.(result);
    });
  }

  /** What is written after something was read bears a greater stamp than what was read. */
  #chain(node: SimNode, key: string, event: PlanEvent, options: WriteOptions): void {
    const read = node.disk.image.lookup(key);
    const cause = read === undefined || read === 'damaged' ? '' : stampHexOf(read);
    this.#issue(node, [this.#put(key, event)], options, (result) => {
      if (result.ok && result.stamp <= cause)
        throw new Violation(
          'causality',
          `${node.name} stamped ${key} ${result.stamp} after reading ${cause}`,
        );
    });
  }

  /** A client stamps once, and sends the same again elsewhere until it is acknowledged. */
  #stamped(event: PlanEvent, index: number, options: WriteOptions): void {
    const { b, c } = event;
    const clientMs = this.#world.wall() + Math.round((c - 0.5) * 3_000);
    const writer = index.toString(16).padStart(16, 'c');
    const stamp = stampToHex(stampBytes(clientMs, 0, writer));
    const key = b < 0.5 ? `hot/${zipf((b * 31) % 1)}` : `reborn/${Math.floor(b * 5)}é`;
    const op: LocalOp = { ...(c < 0.3 ? del(key) : this.#put(key, event)), stamp };
    const attempt = (count: number): void => {
      const node = this.#nodes[(event.node + count) % this.#nodes.length]!;
      this.#issue(node, [op], options, (result) => {
        if (result.ok && result.stamp !== stamp)
          throw new Violation('stamps', `${result.stamp} answers ${stamp}`);
        if (!result.ok && count < RETRIES_MAX)
          this.#world.scheduler.after(20 + 400 * c, () => attempt(count + 1));
      });
    };
    attempt(0);
  }

  /** A client that breaks its promise: one stamp, another value at each node, one of them a deletion. */
  #twins(event: PlanEvent, index: number, options: WriteOptions): void {
    const stamp = stampToHex(stampBytes(this.#world.wall(), 0, index.toString(16).padStart(16, 'd')));
    const key = `${TWIN_PREFIX}${index}`;
    this.#nodes.forEach((node, i) => {
      const op = i === 1 ? del(key) : this.#put(key, event);
      this.#world.scheduler.after(i * 40 * event.c, () => this.#issue(node, [{ ...op, stamp }], options));
    });
  }
}

/** Keys under which clients break their promise to stamp once: one stamp comes with several contents. */
export const TWIN_PREFIX = 'twin/';

function del(key: string): LocalOp {
  return { key, kind: KIND_TOMBSTONE, value: new Uint8Array(0) };
}

/** Of a uniform draw: a few keys take most of it. */
function zipf(draw: number): number {
  return Math.min(HOT_KEYS - 1, Math.floor((Math.exp(draw * Math.log(HOT_KEYS + 1)) - 1) * 0.999));
}
