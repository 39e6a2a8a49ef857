/** What can be asked of a host, one class per operation of wire.ts. */
import { KIND_REGISTER, KIND_TOMBSTONE, tokenOf } from '../core/entry.js';
import { stampFromHex, stampMs, stampToHex } from '../core/hlc.js';
import { isReadmeshError, type ReadmeshError } from '../errors.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { ClientOptions } from '../options.js';
import type { Range, Receipt, Value } from '../read-store.js';
import { decodeValue } from '../values.js';
import { Call, type CallPolicy } from './calls.js';
import type { ClientClock } from './clock.js';
import type { Connection } from './connection.js';
import { type ClientFrame, FRAME_BYTES_MAX } from './frame.js';
import {
  KEYS_PER_GET_MAX,
  type OP_DIGEST,
  OP_DIGEST_BUCKET,
  OP_GET,
  OP_GET_MANY,
  OP_HAS,
  OP_READY,
  OP_REMOVE,
  OP_SCAN,
  type OP_STATUS,
  OP_VERIFY,
  OP_WRITE,
  ROWS_PER_PAGE_MAX,
  TIMEOUT_MS_MAX,
} from './wire.js';

/** How long each kind of call waits for one host before it asks another one as well. */
export interface Policies {
  readonly read: CallPolicy;
  readonly bulk: CallPolicy;
  /** Asks of one host whatever its state, and of another only when that one fails. */
  readonly inspect: CallPolicy;
  readonly once: CallPolicy;
  /** Asks them all: whoever is ready first answers. */
  readonly ready: CallPolicy;
  readonly write: (timeoutMs: number) => CallPolicy;
}

export function policiesOf(options: ClientOptions): Policies {
  const patient = { attemptMs: Number.POSITIVE_INFINITY, isWrite: false, anyHost: false, once: false };
  const { readAttemptMs, bulkAttemptMs, writeAttemptMs } = options;
  const writes = new Map<number, CallPolicy>();
  return {
    read: { ...patient, attemptMs: readAttemptMs },
    bulk: { ...patient, attemptMs: bulkAttemptMs },
    inspect: { ...patient, anyHost: true },
    once: { ...patient, isWrite: true, once: true },
    ready: { ...patient, attemptMs: bulkAttemptMs, anyHost: true },
    write: (timeoutMs) => {
      const attemptMs = Math.max(writeAttemptMs, timeoutMs / 3);
      let policy = writes.get(attemptMs);
      if (policy !== undefined) return policy;
      policy = { ...patient, attemptMs, isWrite: true };
      // Callers rarely use more than a few deadlines.
      if (writes.size < 16) writes.set(attemptMs, policy);
      return policy;
    },
  };
}

export function head(writer: MsgpackWriter, id: number, op: number, args: number): void {
  writer.array(2 + args);
  writer.uint(id);
  writer.uint(op);
}

export function expect(frame: ClientFrame, elements: number, wanted: number): void {
  if (elements !== wanted) frame.fail('result', `has ${elements} elements instead of ${wanted}`);
}

export class GetCall extends Call<Value | undefined> {
  readonly size: number;

  constructor(
    readonly policy: CallPolicy,
    readonly key: string,
  ) {
    super();
    this.size = key.length + 12;
  }

  write(writer: MsgpackWriter, id: number): void {
    head(writer, id, OP_GET, 1);
    writer.str(this.key);
  }

  protected read(frame: ClientFrame, elements: number): Value | undefined {
    expect(frame, elements, 1);
    return frame.value() ? valueAt(this.key, frame.bytes, frame.from, frame.to) : undefined;
  }
}

/** Names the key when its value cannot be decoded. */
export function valueAt(key: string, bytes: Uint8Array, from: number, to: number): Value {
  try {
    return decodeValue(bytes, from, to);
  } catch (error) {
    if (isReadmeshError(error)) error.message = `the value of key ${JSON.stringify(key)}: ${error.message}`;
    throw error;
  }
}

/** Values of the first keys; as many as fit into one answer. */
export class GetManyCall extends Call<(Value | undefined)[]> {
  readonly size: number;

  constructor(
    readonly policy: CallPolicy,
    readonly keys: readonly string[],
  ) {
    super();
    let size = 16;
    for (const key of keys) size += key.length + 3;
    this.size = size;
  }

  write(writer: MsgpackWriter, id: number): void {
    head(writer, id, OP_GET_MANY, 1);
    writer.array(this.keys.length);
    for (const key of this.keys) writer.str(key);
  }

  protected read(frame: ClientFrame, elements: number): (Value | undefined)[] {
    expect(frame, elements, 1);
    const count = frame.array('values', KEYS_PER_GET_MAX);
    if (count > this.keys.length || (count === 0 && this.keys.length > 0))
      frame.fail('values', `has ${count} entries for ${this.keys.length} keys`);
    const values = new Array<Value | undefined>(count);
    let fault: unknown;
    for (let i = 0; i < count; i++) {
      if (!frame.value()) values[i] = undefined;
      else if (fault === undefined) {
        try {
          values[i] = valueAt(this.keys[i]!, frame.bytes, frame.from, frame.to);
        } catch (error) {
          // Thrown when the whole answer was read: other answers follow it in the frame.
          fault = error;
        }
      }
    }
    if (fault !== undefined) throw fault;
    return values;
  }
}

export class HasCall extends Call<boolean> {
  readonly size: number;

  constructor(
    readonly policy: CallPolicy,
    readonly key: string,
  ) {
    super();
    this.size = key.length + 12;
  }

  write(writer: MsgpackWriter, id: number): void {
    head(writer, id, OP_HAS, 1);
    writer.str(this.key);
  }

  protected read(frame: ClientFrame, elements: number): boolean {
    expect(frame, elements, 1);
    return frame.bool('has');
  }
}

/** One page of a scan. Values stay encoded until the reader comes to them. */
export interface Page {
  readonly keys: readonly string[];
  /** The value of `keys[i]`; not with `keysOnly`. */
  value(i: number): Value;
  readonly end: boolean;
}

export class ScanCall extends Call<Page> {
  readonly size = 64;

  constructor(
    readonly policy: CallPolicy,
    readonly range: Range,
    readonly limit: number,
    readonly keysOnly: boolean,
  ) {
    super();
  }

  write(writer: MsgpackWriter, id: number): void {
    const { gt, gte, lt, lte, prefix, reverse } = this.range;
    head(writer, id, OP_SCAN, 8);
    for (const bound of [gt, gte, lt, lte, prefix]) {
      if (bound === undefined) writer.nil();
      else writer.str(bound);
    }
    writer.bool(reverse ?? false);
    writer.uint(this.limit);
    writer.bool(this.keysOnly);
  }

  protected read(frame: ClientFrame, elements: number): Page {
    expect(frame, elements, 2);
    const count = frame.array('rows', ROWS_PER_PAGE_MAX, 2);
    const keys: string[] = [];
    const spans: number[] = [];
    for (let i = 0; i < count; i++) {
      keys.push(frame.key());
      if (frame.value() === this.keysOnly) frame.fail('value', 'is nil, or should be');
      spans.push(frame.from, frame.to);
    }
    const { bytes } = frame;
    const end = frame.bool('end');
    if (count === 0 && !end) frame.fail('rows', 'is empty before the end');
    return { keys, end, value: (i) => valueAt(keys[i]!, bytes, spans[2 * i]!, spans[2 * i + 1]!) };
  }
}

/** One operation, its value encoded. */
export interface EncodedOp {
  readonly key: string;
  /** undefined: delete. */
  readonly value: Uint8Array | undefined;
  /** Only with a value. */
  readonly ttlMs?: number;
}

/** Part of a deadline that is left for the answer to travel, and its most, ms. */
const ANSWER_SHARE = 0.1;
const ANSWER_MS_MAX = 100;

export class WriteCall extends Call<Receipt> {
  readonly size: number;
  #stamp: Uint8Array;
  /** Whether the stamp may be replaced while nothing can have taken effect under it. */
  readonly #ownStamp: boolean;

  /** `stamp`: of an earlier attempt, by the application. */
  constructor(
    readonly policy: CallPolicy,
    readonly ops: readonly EncodedOp[],
    readonly options: { readonly replicas?: number; readonly fsync?: boolean; readonly stamp?: string },
    readonly clock: ClientClock,
  ) {
    super();
    let size = 64;
    for (const { key, value } of ops) size += key.length + (value?.length ?? 0) + 10;
    this.size = size;
    this.#ownStamp = options.stamp === undefined;
    this.#stamp = options.stamp === undefined ? clock.stamp(ops.length) : stampFromHex(options.stamp);
  }

  get stampHex(): string {
    return stampToHex(this.#stamp);
  }

  write(writer: MsgpackWriter, id: number, now: number): void {
    const { replicas, fsync } = this.options;
    const left = this.deadline - now;
    head(writer, id, OP_WRITE, 5);
    writer.bin(this.#stamp);
    if (replicas === undefined) writer.nil();
    else writer.uint(replicas);
    if (fsync === undefined) writer.nil();
    else writer.bool(fsync);
    // The host shall give up first, since it can say how many hosts hold the write.
    writer.uint(clampTimeout(left - Math.min(ANSWER_MS_MAX, left * ANSWER_SHARE)));
    writer.array(this.ops.length);
    for (const { key, value, ttlMs } of this.ops) {
      writer.array(ttlMs === undefined ? 3 : 4);
      writer.uint(value === undefined ? KIND_TOMBSTONE : KIND_REGISTER);
      writer.str(key);
      if (value === undefined) writer.nil();
      else writer.bin(value);
      if (ttlMs !== undefined) writer.uint(ttlMs);
    }
  }

  /**
   * A stamp that a host finds too far ahead: either its clock is wrong, or ours was when the stamp was given. In
   * the latter case a new one is given, if the old one cannot have taken effect anywhere.
   */
  override mayRetry(error: ReadmeshError): boolean {
    return error.code === 'FUTURE_STAMP' && this.#ownStamp;
  }

  override onFailed(error: ReadmeshError, connection: Connection): void {
    const others = this.attempts.some((attempt) => attempt.open && attempt.connection !== connection);
    const aboutClock = error.code === 'FUTURE_STAMP' || error.code === 'CLOCK_SKEW';
    if (
      aboutClock &&
      this.#ownStamp &&
      !this.maybeDone &&
      !others &&
      !this.clock.isPlausible(stampMs(this.#stamp))
    )
      this.#stamp = this.clock.stamp(this.ops.length);
    super.onFailed(error, connection);
  }

  protected read(frame: ClientFrame, elements: number): Receipt {
    expect(frame, elements, 5);
    const stamp = frame.stampHex();
    const replicas = frame.uint('replicas');
    const token = tokenOf(frame.origin(), frame.uint('seq'), stamp);
    const superseded = frame.bool('superseded');
    if (superseded) this.clock.lost();
    return { stamp, replicas, token, superseded };
  }
}

/** A deadline as it is put on the wire. */
export function clampTimeout(ms: number): number {
  return Math.min(TIMEOUT_MS_MAX, Math.max(1, Math.floor(ms)));
}

/** Operations whose result is the JSON text of a report: status, digest, verify. */
export class ReportCall extends Call<Record<string, unknown>> {
  readonly size = 16;

  constructor(
    readonly policy: CallPolicy,
    readonly op: typeof OP_STATUS | typeof OP_DIGEST | typeof OP_VERIFY,
  ) {
    super();
  }

  write(writer: MsgpackWriter, id: number): void {
    head(writer, id, this.op, this.op === OP_VERIFY ? 1 : 0);
    if (this.op === OP_VERIFY) writer.uint(clampTimeout(this.deadline - performance.now()));
  }

  protected read(frame: ClientFrame, elements: number): Record<string, unknown> {
    expect(frame, elements, 1);
    return frame.json('report');
  }
}

export class ReadyCall extends Call<void> {
  readonly size = 24;

  constructor(
    readonly policy: CallPolicy,
    readonly level: 'local' | 'synced',
  ) {
    super();
  }

  write(writer: MsgpackWriter, id: number): void {
    head(writer, id, OP_READY, 2);
    writer.str(this.level);
    writer.uint(clampTimeout(this.deadline - performance.now()));
  }

  protected read(frame: ClientFrame, elements: number): void {
    expect(frame, elements, 0);
  }
}

export class RemoveCall extends Call<void> {
  readonly size: number;

  constructor(
    readonly policy: CallPolicy,
    readonly name: string,
  ) {
    super();
    this.size = name.length + 16;
  }

  write(writer: MsgpackWriter, id: number): void {
    head(writer, id, OP_REMOVE, 1);
    writer.str(this.name);
  }

  protected read(frame: ClientFrame, elements: number): void {
    expect(frame, elements, 0);
  }
}

/** Keys and stamps of one bucket, which arrive in parts; those of another attempt do not mix with them. */
export class DigestBucketCall extends Call<{ key: string; stamp: string }[]> {
  readonly size = 16;
  readonly #parts = new Map<Connection, { key: string; stamp: string }[]>();
  #answering: Connection | undefined;

  constructor(
    readonly policy: CallPolicy,
    readonly bucket: number,
  ) {
    super();
  }

  write(writer: MsgpackWriter, id: number): void {
    head(writer, id, OP_DIGEST_BUCKET, 1);
    writer.uint(this.bucket);
  }

  override onPart(frame: ClientFrame, elements: number, connection: Connection): void {
    expect(frame, elements, 1);
    let entries = this.#parts.get(connection);
    if (entries === undefined) this.#parts.set(connection, (entries = []));
    const count = frame.array('entries', FRAME_BYTES_MAX, 2);
    for (let i = 0; i < count; i++) entries.push({ key: frame.key(), stamp: frame.stampHex() });
  }

  override onResult(frame: ClientFrame, elements: number, connection: Connection): void {
    this.#answering = connection;
    super.onResult(frame, elements, connection);
  }

  protected read(frame: ClientFrame, elements: number): { key: string; stamp: string }[] {
    expect(frame, elements, 0);
    return this.#parts.get(this.#answering!) ?? [];
  }
}
