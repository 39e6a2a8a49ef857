/**
 * Watches of the light client. Each is a standing request to one host; when that host is lost, the watch goes on
 * at another one. What is written between the loss and the new beginning is not told: there is no cursor yet.
 * After such a change of hosts a key may be told in an older state than before, if the new host lags.
 *
 * Changes that wait for the reader coalesce by key, so that a slow reader costs memory for distinct keys only;
 * past the cap the watch fails with WATCH_OVERFLOW rather than lose changes unseen.
 */
import { KIND_REGISTER, KIND_TOMBSTONE } from '../core/entry.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { Change, Value } from '../read-store.js';
import { decodeValue } from '../values.js';
import type { Connection, Pending } from './connection.js';
import { type ClientFrame, FRAME_BYTES_MAX } from './frame.js';
import type { Hosts } from './hosts.js';
import { OP_WATCH } from './wire.js';

/** What a waiting change costs beside its key and value, bytes. */
const CHANGE_OVERHEAD = 128;

interface WaitingChange {
  readonly stamp: string;
  /** undefined: deleted. */
  readonly value: Uint8Array | undefined;
}

/** The watches of one client. */
export class Watches {
  readonly #hosts: Hosts;
  readonly #open = new Set<Watch>();
  readonly #watchesMax: number;
  readonly #queueBytesMax: number;
  #closed = false;

  constructor(hosts: Hosts, watchesMax: number, queueBytesMax: number) {
    this.#hosts = hosts;
    this.#watchesMax = watchesMax;
    this.#queueBytesMax = queueBytesMax;
  }

  /** From now on: the request is on its way before any that is made later. */
  add(prefix: string, signal: AbortSignal | undefined): AsyncIterableIterator<Change> {
    if (this.#closed) throw new ReadmeshError('CLOSED', 'this client was closed: connect anew');
    if (this.#open.size >= this.#watchesMax)
      throw new ReadmeshError(
        'OVERLOADED',
        `this client has ${this.#watchesMax} watches open: end some, or watch a shorter prefix`,
      );
    const watch = new Watch(prefix, this.#hosts, this.#queueBytesMax, () => this.#open.delete(watch));
    this.#open.add(watch);
    if (signal?.aborted === true) watch.end();
    else {
      const onAbort = (): void => watch.end();
      signal?.addEventListener('abort', onAbort, { once: true });
      watch.whenEnded(() => signal?.removeEventListener('abort', onAbort));
      watch.begin();
    }
    return watch;
  }

  /** A host can be asked. */
  onAvailable(): void {
    for (const watch of this.#open) watch.begin();
  }

  close(): void {
    this.#closed = true;
    for (const watch of [...this.#open]) watch.end();
  }
}

class Watch implements AsyncIterableIterator<Change>, Pending {
  readonly size: number;
  readonly #prefix: string;
  readonly #hosts: Hosts;
  readonly #queueBytesMax: number;
  readonly #onEnd: (() => void)[];
  /** By key, in the order of the last changes. */
  readonly #changes = new Map<string, WaitingChange>();
  #bytes = 0;
  readonly #readers: { resolve(result: IteratorResult<Change>): void; reject(error: Error): void }[] = [];
  #ended = false;
  #error: ReadmeshError | undefined;
  #standing: { connection: Connection; id: number } | undefined;

  constructor(prefix: string, hosts: Hosts, queueBytesMax: number, onEnd: () => void) {
    this.#prefix = prefix;
    this.size = prefix.length + 12;
    this.#hosts = hosts;
    this.#queueBytesMax = queueBytesMax;
    this.#onEnd = [onEnd];
  }

  whenEnded(callback: () => void): void {
    this.#onEnd.push(callback);
  }

  /** Finds a host, if it has none. */
  begin(): void {
    if (this.#ended || this.#standing !== undefined) return;
    const connection = this.#hosts.pick([], 'fit')?.connection;
    if (connection === undefined) return;
    this.#standing = { connection, id: connection.send(this, performance.now()) };
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#standing?.connection.forget(this.#standing.id);
    this.#standing = undefined;
    for (const callback of this.#onEnd) callback();
    this.#serve();
  }

  // Pending.

  write(writer: MsgpackWriter, id: number): void {
    writer.array(3);
    writer.uint(id);
    writer.uint(OP_WATCH);
    writer.str(this.#prefix);
  }

  onPart(frame: ClientFrame, elements: number): void {
    if (elements !== 1) frame.fail('part', `has ${elements} elements instead of 1`);
    const count = frame.array('changes', FRAME_BYTES_MAX, 4);
    for (let i = 0; i < count; i++) {
      const kind = frame.uint('kind', 0xff);
      const key = frame.key();
      const stamp = frame.stampHex();
      // Copied: a change may wait for long, and would keep the whole frame.
      const value = frame.value() ? frame.bytes.slice(frame.from, frame.to) : undefined;
      if (kind === KIND_REGISTER && value === undefined) frame.fail('value', 'is missing');
      // Kinds of newer versions have no place in `Change`.
      if (kind === KIND_REGISTER || kind === KIND_TOMBSTONE) this.#push(key, { stamp, value });
    }
    this.#serve();
  }

  onResult(frame: ClientFrame): void {
    frame.fail('watch', 'ended without a reason');
  }

  onFailed(error: ReadmeshError): void {
    this.#standing = undefined;
    // Changes are lost: the reader must know. Otherwise another host, or a later time, may do.
    if (error.code === 'WATCH_OVERFLOW' || !error.info.retry) return this.#fail(error);
    setTimeout(() => this.begin(), RETRY_MS).unref();
  }

  onLost(): void {
    this.#standing = undefined;
    this.begin();
  }

  // AsyncIterableIterator.

  next(): Promise<IteratorResult<Change>> {
    return new Promise((resolve, reject) => {
      this.#readers.push({ resolve, reject });
      this.#serve();
    });
  }

  async return(): Promise<IteratorResult<Change>> {
    this.#clear();
    this.end();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #push(key: string, change: WaitingChange): void {
    if (this.#ended) return;
    const before = this.#changes.get(key);
    if (before !== undefined) this.#bytes -= sizeOf(key, before);
    this.#changes.delete(key);
    this.#changes.set(key, change);
    this.#bytes += sizeOf(key, change);
    if (this.#bytes <= this.#queueBytesMax) return;
    this.#fail(
      new ReadmeshError(
        'WATCH_OVERFLOW',
        `changes of ${this.#changes.size} keys wait for the reader of this watch: read faster, or watch a narrower prefix`,
      ),
    );
  }

  #fail(error: ReadmeshError): void {
    if (this.#ended) return;
    this.#error = error;
    this.#clear();
    this.end();
  }

  #clear(): void {
    this.#changes.clear();
    this.#bytes = 0;
  }

  #serve(): void {
    while (this.#readers.length > 0) {
      const first = this.#changes.entries().next();
      if (!first.done) {
        const [key, change] = first.value;
        this.#changes.delete(key);
        this.#bytes -= sizeOf(key, change);
        this.#tell(key, change);
      } else if (this.#error !== undefined) {
        this.#readers.shift()!.reject(this.#error);
        this.#error = undefined;
      } else if (this.#ended) this.#readers.shift()!.resolve({ done: true, value: undefined });
      else return;
    }
  }

  #tell(key: string, { stamp, value }: WaitingChange): void {
    const { resolve, reject } = this.#readers.shift()!;
    if (value === undefined) return resolve({ done: false, value: { type: 'del', key, stamp } });
    try {
      resolve({ done: false, value: { type: 'put', key, value: decodeValue(value) as Value, stamp } });
    } catch (error) {
      reject(isReadmeshError(error) ? error : (error as Error));
    }
  }
}

/** After a host refused a watch for now, ms. */
const RETRY_MS = 200;

function sizeOf(key: string, { value }: WaitingChange): number {
  return key.length * 2 + (value?.length ?? 0) + CHANGE_OVERHEAD;
}
