/**
 * Writes for one session. Thousands of them wait at once: all that is kept of each is one object, which counts it as
 * in progress and is told how it ended.
 */
import { isOfRow, type SettledWrite, stampOf } from '../core/acknowledgements.js';
import {
  AT_STAMP,
  KIND_REGISTER,
  KIND_TOMBSTONE,
  NO_VALUE,
  originOf,
  type StampParts,
  seqOf,
  stampAt,
} from '../core/entry.js';
import { TTL_MS_MAX } from '../core/expiry.js';
import { STAMP_BYTES, stampBehind, stampFromHex } from '../core/hlc.js';
import { ReadmeshError } from '../errors.js';
import { guardMsgpack } from '../msgpack-guard.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { NodeService, SubmittedWrite, WriteOp } from '../service.js';
import type { ClientFrame } from './frame.js';
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
    const write = new Write(this, id, frame);
    if (!this.register.enter(id, write)) return;
    try {
      for (const { kind, value } of write.ops) checkOperation(kind, value);
      this.#service.submit(write);
    } catch (error) {
      write.failed(error);
    }
  }
}

class Write implements InProgress, SubmittedWrite {
  id = 0;
  readonly replicas: number | undefined;
  readonly fsync: boolean | undefined;
  readonly timeoutMs: number;
  readonly ops: readonly WriteOp[];
  readonly bytes: number;
  readonly isScan = false;
  cancelled = false;
  readonly #writes: Writes;
  readonly #request: number;

  /** Reads the arguments. */
  constructor(writes: Writes, request: number, frame: ClientFrame) {
    this.#writes = writes;
    this.#request = request;
    const first = stampAt(frame.bytes, frame.stampFrom());
    this.replicas = frame.nil() ? undefined : frame.uint('replicas');
    this.fsync = frame.nil() ? undefined : frame.bool('fsync');
    this.timeoutMs = frame.timeoutMs();
    const count = frame.array('operations', OPS_PER_WRITE_MAX);
    const ops: WriteOp[] = [];
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const op = readOperation(frame, i === 0 ? first : stampBehind(first, i));
      bytes += op.key.length + op.value.length;
      ops.push(op);
    }
    this.ops = ops;
    this.bytes = bytes;
  }

  settled(write: SettledWrite): void {
    const { register, outbound } = this.#writes;
    if (!register.finish(this.#request, this)) return;
    try {
      writeReceipt(outbound.done(this.#request, 5, 64), write);
    } catch (error) {
      register.failed(this.#request, error);
    }
  }

  failed(error: unknown): void {
    const { register } = this.#writes;
    if (register.finish(this.#request, this)) register.failed(this.#request, error);
  }
}

function writeReceipt(writer: MsgpackWriter, write: SettledWrite): void {
  const { row, replicas, superseded } = write;
  if (isOfRow(write)) writer.bin(row, AT_STAMP, AT_STAMP + STAMP_BYTES);
  else writer.bin(stampFromHex(stampOf(write)));
  writer.uint(replicas);
  writer.str(originOf(row));
  writer.uint(seqOf(row));
  writer.bool(superseded);
}

function readOperation(frame: ClientFrame, stamp: StampParts): WriteOp {
  const elements = frame.array('operation', 4);
  if (elements < 3) frame.fail('operation', `has ${elements} elements instead of 3 or 4`);
  const kind = frame.uint('kind', 0xff);
  const key = frame.key();
  const value = frame.value() ? frame.valueBytes() : NO_VALUE;
  const ttlMs = elements === 4 ? frame.uint('ttlMs', TTL_MS_MAX) : undefined;
  return { key, kind, value, stamp, ttlMs };
}

/** What a store must never take: a value that nobody can decode. Throws INVALID_VALUE or UNSUPPORTED. */
function checkOperation(kind: number, value: Uint8Array): void {
  if (kind === KIND_REGISTER) guardMsgpack(value, 0, value.length, {}, 'INVALID_VALUE');
  else if (kind !== KIND_TOMBSTONE)
    throw new ReadmeshError('UNSUPPORTED', `entries of kind ${kind} are not known here: upgrade this host`);
  else if (value.length > 0) throw new ReadmeshError('INVALID_VALUE', 'a deletion has no value');
}
