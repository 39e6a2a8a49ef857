/**
 * Writes for one session. Thousands of them wait at once: all that is kept of each is one object, which counts it as
 * in progress and is told how it ended.
 */
import { KIND_REGISTER, KIND_TOMBSTONE, NO_VALUE } from '../core/entry.js';
import { TTL_MS_MAX } from '../core/expiry.js';
import { stampFromHex } from '../core/hlc.js';
import { ReadmeshError } from '../errors.js';
import { guardMsgpack } from '../msgpack-guard.js';
import type { Receipt } from '../read-store.js';
import type { NodeService, WriteAnswer, WriteOp, WriteRequest } from '../service.js';
import { consecutiveStamps } from './clock.js';
import { type ClientFrame, writeText } from './frame.js';
import type { Outbound } from './server-outbound.js';
import type { InProgress } from './server-requests.js';
import { OPS_PER_WRITE_MAX } from './wire.js';

/** What a session does with what is in progress. */
export interface Register {
  /** False: there is no room for it, and it has been told so. */
  enter(id: number, request: InProgress): boolean;
  /** Whether its answer is still of interest. */
  finish(id: number, request: InProgress): boolean;
  failed(id: number, error: unknown): void;
}

export class Writes {
  readonly #service: NodeService;
  readonly outbound: Outbound;
  readonly register: Register;

  constructor(service: NodeService, outbound: Outbound, register: Register) {
    this.#service = service;
    this.outbound = outbound;
    this.register = register;
  }

  /** Reads the arguments and begins. Throws PROTOCOL_ERROR. */
  begin(id: number, frame: ClientFrame): void {
    const { request, bytes } = readWrite(frame);
    const write = new Write(this, id, bytes);
    if (!this.register.enter(id, write)) return;
    try {
      for (const { kind, value } of request.ops) checkOperation(kind, value);
      this.#service.submit(request, write);
    } catch (error) {
      write.failed(error);
    }
  }
}

class Write implements InProgress, WriteAnswer {
  readonly isScan = false;
  cancelled = false;
  readonly bytes: number;
  readonly #writes: Writes;
  readonly #id: number;

  constructor(writes: Writes, id: number, bytes: number) {
    this.#writes = writes;
    this.#id = id;
    this.bytes = bytes;
  }

  settled(receipt: Receipt): void {
    const { register, outbound } = this.#writes;
    if (!register.finish(this.#id, this)) return;
    try {
      writeReceipt(outbound, this.#id, receipt);
    } catch (error) {
      register.failed(this.#id, error);
    }
  }

  failed(error: unknown): void {
    const { register } = this.#writes;
    if (register.finish(this.#id, this)) register.failed(this.#id, error);
  }
}

function writeReceipt(outbound: Outbound, id: number, receipt: Receipt): void {
  const writer = outbound.done(id, 4, 96);
  writer.bin(stampFromHex(receipt.stamp));
  writer.uint(receipt.replicas);
  writeText(writer, receipt.token);
  writer.bool(receipt.superseded);
}

function readWrite(frame: ClientFrame): { request: WriteRequest; bytes: number } {
  const first = frame.stamp();
  const replicas = frame.nil() ? undefined : frame.uint('replicas');
  const fsync = frame.nil() ? undefined : frame.bool('fsync');
  const timeoutMs = frame.timeoutMs();
  const count = frame.array('operations', OPS_PER_WRITE_MAX);
  const stamps = consecutiveStamps(first, count);
  const ops: WriteOp[] = [];
  let bytes = 0;
  for (let i = 0; i < count; i++) {
    const elements = frame.array('operation', 4);
    if (elements < 3) frame.fail('operation', `has ${elements} elements instead of 3 or 4`);
    const kind = frame.uint('kind', 0xff);
    const key = frame.key();
    const value = frame.value() ? frame.bytes.subarray(frame.from, frame.to) : NO_VALUE;
    const ttlMs = elements === 4 ? frame.uint('ttlMs', TTL_MS_MAX) : undefined;
    bytes += key.length + value.length;
    ops.push({ key, kind, value, stamp: stamps[i]!, ttlMs });
  }
  return { request: { ops, replicas, fsync, timeoutMs }, bytes };
}

/** What a store must never take: a value that nobody can decode. Throws INVALID_VALUE or UNSUPPORTED. */
function checkOperation(kind: number, value: Uint8Array): void {
  if (kind === KIND_REGISTER) guardMsgpack(value, 0, value.length, {}, 'INVALID_VALUE');
  else if (kind !== KIND_TOMBSTONE)
    throw new ReadmeshError('UNSUPPORTED', `entries of kind ${kind} are not known here: upgrade this host`);
  else if (value.length > 0) throw new ReadmeshError('INVALID_VALUE', 'a deletion has no value');
}
