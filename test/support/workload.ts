/**
 * Writers and readers that never stop: each talks to nodes at random over HTTP and records what it did and was
 * told in a history. Some keys are written once, some again and again by all, some deleted. A write whose
 * acknowledgement did not come is sometimes sent again with its stamp, to another node.
 */
import { type SeededRandom, seededRandom } from '../../bin/seeded-random.js';
import { ERRORS, type ErrorCode } from '../../src/errors.js';
import type { History, Operation } from './history.js';
import { httpDelete, httpGet, httpPut, type WriteAnswer, type WriteQuery } from './http-api.js';

export interface WorkloadNode {
  readonly name: string;
  readonly address: string;
}

export interface WorkloadOptions {
  seed: number;
  /** Default 6. */
  writers?: number;
  /** Keys that all writers overwrite. Default 40. */
  hotKeys?: number;
  /** First part of every key, so that two workloads do not meet. Default `w`. */
  prefix?: string;
  /** Of every write. */
  query?: WriteQuery;
}

/** A node that refuses everything must not turn a writer into a busy loop. */
const PAUSE_AFTER_FAILURE_MS = 20;

export class Workload {
  readonly #history: History;
  readonly #nodes: readonly WorkloadNode[];
  readonly #options: Required<WorkloadOptions>;
  #stopped = false;
  #running: Promise<unknown> = Promise.resolve();
  acknowledged = 0;
  unacknowledged = 0;

  constructor(history: History, nodes: readonly WorkloadNode[], options: WorkloadOptions) {
    this.#history = history;
    this.#nodes = nodes;
    this.#options = { writers: 6, hotKeys: 40, prefix: 'w', query: {}, ...options };
  }

  start(): this {
    const { writers, seed } = this.#options;
    this.#running = Promise.all(
      Array.from({ length: writers }, (_, i) => this.#write(i, seededRandom(seed * 1_000 + i))),
    );
    return this;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #write(writer: number, random: SeededRandom): Promise<void> {
    const { prefix, hotKeys } = this.#options;
    for (let i = 0; !this.#stopped; i++) {
      const node = random.pick(this.#nodes);
      const hot = `${prefix}/hot/${random.below(hotKeys)}`;
      const draw = random.next();
      if (draw < 0.15) await this.#read(node, hot);
      else {
        const operation: Operation =
          draw < 0.5
            ? { kind: 'put', key: `${prefix}/once/${writer}/${i}`, value: { writer, i }, node: node.name }
            : draw < 0.9
              ? { kind: 'put', key: hot, value: { writer, i }, node: node.name }
              : { kind: 'del', key: hot, node: node.name };
        await this.#attempt(operation, node, random);
      }
    }
  }

  async #attempt(operation: Operation, node: WorkloadNode, random: SeededRandom): Promise<void> {
    const lost = await this.#send(operation, node);
    if (lost === undefined) return;
    this.unacknowledged++;
    if (lost.stamp === '' || random.next() < 0.5) return pause(PAUSE_AFTER_FAILURE_MS);
    const other = random.pick(this.#nodes);
    await this.#send({ ...operation, node: other.name, stamp: lost.stamp }, other);
  }

  /** Undefined: it was acknowledged. Otherwise the stamp that a retry may bring along, if there is one. */
  async #send(operation: Operation, node: WorkloadNode): Promise<{ stamp: string } | undefined> {
    const { kind, key, value, stamp } = operation;
    const query = { ...this.#options.query, ...(stamp === undefined ? {} : { stamp }) };
    const op = this.#history.invoke(operation);
    let answer: WriteAnswer;
    try {
      answer = await (kind === 'put'
        ? httpPut(node.address, key, value, query)
        : httpDelete(node.address, key, query));
    } catch {
      this.#history.end('info', op);
      return { stamp: '' };
    }
    const { status, body } = answer;
    if (status === 200) {
      this.acknowledged++;
      const { token, superseded } = body;
      this.#history.end('ok', op, { stamp: body.stamp, token, superseded, value });
      return undefined;
    }
    const unchanged = ERRORS[body.code as ErrorCode]?.outcome === 'unchanged';
    this.#history.end(unchanged ? 'fail' : 'info', op, { code: body.code });
    return { stamp: unchanged ? '' : answer.stamp };
  }

  async #read(node: WorkloadNode, key: string): Promise<void> {
    const op = this.#history.invoke({ kind: 'read', key, node: node.name });
    try {
      const { status, body } = await httpGet(node.address, key);
      if (status === 200) this.#history.end('ok', op, { value: body });
      else if (status === 404) this.#history.end('ok', op);
      else this.#history.end('fail', op);
    } catch {
      this.#history.end('info', op);
    }
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
