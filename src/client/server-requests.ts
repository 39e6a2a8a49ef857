/**
 * The requests of one session, but for greetings and watches: their arguments are read whole and checked before
 * anything is begun, and each is answered exactly once unless it was cancelled.
 *
 * What answers later is `in progress` until then: counted, capped, and remembered by id, so that two requests
 * never share one. A cancelled request runs to its end all the same (a write cannot be taken back); only its
 * answer is dropped, and a scan stops early.
 */
import { stampCounterOf, stampMsOf, valueOffset } from '../core/entry.js';
import { remainingMs } from '../core/expiry.js';
import { stampFromHex } from '../core/hlc.js';
import type { Row } from '../core/types.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { ClientServerOptions } from '../options.js';
import type { Range } from '../read-store.js';
import type { NodeService, RowScan } from '../service.js';
import { type ClientFrame, writeText } from './frame.js';
import type { Outbound } from './server-outbound.js';
import { KeyReads } from './server-reads.js';
import { Writes } from './server-writes.js';
import {
  BUCKETS,
  NAME_BYTES_MAX,
  OP_DIGEST,
  OP_DIGEST_BUCKET,
  OP_EXPORT,
  OP_GET,
  OP_GET_MANY,
  OP_HAS,
  OP_READY,
  OP_REMOVE,
  OP_SCAN,
  OP_STATUS,
  OP_VERIFY,
  OP_WRITE,
  PAGE_BYTES,
  PREFIX_BYTES_MAX,
  ROWS_PER_PAGE_MAX,
} from './wire.js';

/** Entries of a bucket in one part. */
const ENTRIES_PER_PART = 1_000;

export interface InProgress {
  readonly bytes: number;
  /** It holds a view of the store. */
  readonly isScan: boolean;
  cancelled: boolean;
}

export class Requests {
  readonly #service: NodeService;
  readonly #outbound: Outbound;
  readonly #options: ClientServerOptions;
  readonly #reads: KeyReads;
  readonly #writes: Writes;
  readonly #onFault: (error: unknown) => void;
  readonly #inProgress = new Map<number, InProgress>();
  #bytes = 0;
  #scans = 0;
  #closed = false;

  constructor(
    service: NodeService,
    outbound: Outbound,
    options: ClientServerOptions,
    onFault: (error: unknown) => void,
  ) {
    this.#service = service;
    this.#outbound = outbound;
    this.#options = options;
    this.#onFault = onFault;
    this.#reads = new KeyReads(service, outbound, {
      run: (id, work) => this.#run(id, 0, false, work),
      failed: (id, error) => this.#failed(id, error),
    });
    this.#writes = new Writes(service, outbound, {
      enter: (id, request) => this.#enter(id, request),
      finish: (id, request) => this.#finish(id, request),
      failed: (id, error) => this.#failed(id, error),
    });
  }

  has(id: number): boolean {
    return this.#inProgress.has(id);
  }

  cancel(id: number): void {
    const request = this.#inProgress.get(id);
    if (request !== undefined) request.cancelled = true;
  }

  /** Nothing is answered any more. */
  close(): void {
    this.#closed = true;
  }

  /** Reads the arguments and begins. Throws PROTOCOL_ERROR. */
  begin(id: number, op: number, frame: ClientFrame, elements: number): void {
    const wanted = ARGUMENTS[op];
    if (wanted === undefined) {
      frame.skip(elements);
      const message = `operation ${op} is not known here: upgrade this host`;
      return this.#outbound.failed(id, new ReadmeshError('UNSUPPORTED', message));
    }
    if (elements !== wanted) frame.fail('request', `${op} has ${elements} arguments instead of ${wanted}`);
    switch (op) {
      case OP_GET:
        return this.#reads.get(id, frame);
      case OP_HAS:
        return this.#reads.has(id, frame);
      case OP_GET_MANY:
        return this.#reads.getMany(id, frame);
      case OP_SCAN:
        return this.#scan(id, readScan(frame));
      case OP_EXPORT:
        return this.#scan(id, readScan(frame), true);
      case OP_WRITE:
        return this.#writes.begin(id, frame);
      case OP_STATUS:
        return this.#answerNow(id, () => this.#report(id, this.#service.status()));
      case OP_READY: {
        const level = readLevel(frame);
        const timeoutMs = frame.timeoutMs();
        return this.#plain(id, () => this.#service.ready(level, timeoutMs));
      }
      case OP_REMOVE: {
        const name = frame.str('name', 1, NAME_BYTES_MAX);
        return this.#plain(id, () => this.#service.removeMember(name));
      }
      case OP_DIGEST:
        return this.#run(id, 0, true, async () => {
          const digest = await this.#service.digest();
          return () => this.#report(id, digest);
        });
      case OP_DIGEST_BUCKET:
        return this.#digestBucket(id, frame.uint('bucket', BUCKETS - 1));
      default: {
        const timeoutMs = frame.timeoutMs();
        return this.#run(id, 0, true, async () => {
          const verified = await this.#service.verify(timeoutMs);
          return () => this.#report(id, verified);
        });
      }
    }
  }

  /** `expiries`: with each value, how long it is still there. */
  #scan(id: number, { range, limit, keysOnly }: ScanRequest, expiries = false): void {
    this.#run(id, 0, true, async (request) => {
      const keys: string[] = [];
      const rows: Row[] = [];
      const scan = this.#service.scanRows(range);
      const end = await collect(scan, limit, keys, rows, () => request.cancelled || this.#closed);
      return () => {
        let bytes = 8 + (expiries ? 9 * keys.length : 0);
        const nowMs = this.#service.clockMs();
        for (let i = 0; i < keys.length; i++) bytes += keys[i]!.length + 4 + (keysOnly ? 0 : rows[i]!.length);
        const writer = this.#outbound.done(id, 2, bytes);
        writer.array(keys.length * (expiries ? 3 : 2));
        for (let i = 0; i < keys.length; i++) {
          const row = rows[i]!;
          writer.str(keys[i]!);
          if (keysOnly) writer.nil();
          else {
            writer.bin(row, valueOffset(row));
            this.#outbound.tells(stampMsOf(row), stampCounterOf(row));
          }
          if (expiries) writeTtl(writer, remainingMs(row, nowMs));
        }
        writer.bool(end);
      };
    });
  }

  #digestBucket(id: number, bucket: number): void {
    this.#run(id, 0, true, async (request) => {
      const entries = await this.#service.digestBucket(bucket);
      for (let i = 0; i < entries.length; i += ENTRIES_PER_PART) {
        await this.#outbound.unblocked();
        if (request.cancelled || this.#closed) break;
        const part = entries.slice(i, i + ENTRIES_PER_PART);
        const writer = this.#outbound.part(id, 1, part.length * 48);
        writer.array(part.length * 2);
        for (const { key, stamp } of part) {
          writer.str(key);
          writer.bin(stampFromHex(stamp));
        }
        this.#outbound.flush();
      }
      return () => void this.#outbound.done(id, 0, 0);
    });
  }

  #report(id: number, report: object): void {
    const text = JSON.stringify(report);
    writeText(this.#outbound.done(id, 1, text.length), text);
  }

  #plain(id: number, act: () => Promise<void>): void {
    this.#run(id, 0, false, async () => {
      await act();
      return () => void this.#outbound.done(id, 0, 0);
    });
  }

  #answerNow(id: number, answer: () => void): void {
    try {
      answer();
    } catch (error) {
      this.#failed(id, error);
    }
  }

  /** Runs what takes time. `work` resolves to what writes the answer. */
  #run(id: number, bytes: number, isScan: boolean, work: (request: InProgress) => Promise<() => void>): void {
    const request: InProgress = { bytes, isScan, cancelled: false };
    if (!this.#enter(id, request)) return;
    work(request)
      .then((answer) => {
        if (this.#finish(id, request)) answer();
      })
      .catch((error: unknown) => {
        if (this.#finish(id, request)) this.#failed(id, error);
      });
  }

  /** False: there is no room for it, and it has been told so. */
  #enter(id: number, request: InProgress): boolean {
    const { bytes, isScan } = request;
    const { inFlightMax, inFlightBytesMax, scansMax } = this.#options;
    const full =
      this.#inProgress.size >= inFlightMax ||
      (this.#bytes > 0 && this.#bytes + bytes > inFlightBytesMax) ||
      (isScan && this.#scans >= scansMax);
    if (full) {
      const message = `${this.#inProgress.size} requests of this connection are in progress, ${this.#scans} of them scans, with ${this.#bytes} bytes: await some of them first`;
      this.#outbound.failed(id, new ReadmeshError('OVERLOADED', message));
      return false;
    }
    this.#inProgress.set(id, request);
    this.#bytes += bytes;
    if (isScan) this.#scans++;
    return true;
  }

  /** Whether its answer is still of interest. */
  #finish(id: number, request: InProgress): boolean {
    if (this.#inProgress.delete(id)) {
      this.#bytes -= request.bytes;
      if (request.isScan) this.#scans--;
    }
    return !request.cancelled && !this.#closed;
  }

  #failed(id: number, error: unknown): void {
    if (isReadmeshError(error)) return this.#outbound.failed(id, error);
    this.#onFault(error);
    const internal = new ReadmeshError('INTERNAL', 'the request failed by a fault of this host: see its log');
    this.#outbound.failed(id, internal);
  }
}

/** Number of arguments by operation. */
const ARGUMENTS: Readonly<Record<number, number>> = {
  [OP_GET]: 1,
  [OP_GET_MANY]: 1,
  [OP_HAS]: 1,
  [OP_SCAN]: 8,
  [OP_EXPORT]: 8,
  [OP_WRITE]: 5,
  [OP_STATUS]: 0,
  [OP_READY]: 2,
  [OP_REMOVE]: 1,
  [OP_DIGEST]: 0,
  [OP_DIGEST_BUCKET]: 1,
  [OP_VERIFY]: 1,
};

interface ScanRequest {
  readonly range: Range;
  readonly limit: number;
  readonly keysOnly: boolean;
}

/** Rows until a page is full. True when there are no more behind them. Closes the scan. */
async function collect(
  scan: RowScan,
  limit: number,
  keys: string[],
  rows: Row[],
  stop: () => boolean,
): Promise<boolean> {
  let bytes = 0;
  try {
    while (keys.length < limit && bytes < PAGE_BYTES && !stop()) {
      const next = await scan.next(limit - keys.length);
      if (next.keys.length === 0) return true;
      for (let i = 0; i < next.keys.length; i++) {
        keys.push(next.keys[i]!);
        rows.push(next.rows[i]!);
        bytes += next.keys[i]!.length + next.rows[i]!.length;
      }
    }
    return false;
  } finally {
    await scan.close();
  }
}

function readScan(frame: ClientFrame): ScanRequest {
  const range: Range = {};
  for (const name of ['gt', 'gte', 'lt', 'lte', 'prefix'] as const)
    if (!frame.nil()) range[name] = frame.str(name, 0, PREFIX_BYTES_MAX);
  range.reverse = frame.bool('reverse');
  const limit = frame.uint('limit', ROWS_PER_PAGE_MAX);
  if (limit === 0) frame.fail('limit', 'is 0');
  return { range: { ...range, limit }, limit, keysOnly: frame.bool('keysOnly') };
}

function writeTtl(writer: MsgpackWriter, ttlMs: number | undefined): void {
  if (ttlMs === undefined) writer.nil();
  else writer.uint(ttlMs);
}

function readLevel(frame: ClientFrame): 'local' | 'synced' {
  const level = frame.str('level', 0, NAME_BYTES_MAX);
  return level === 'local' || level === 'synced' ? level : frame.fail('level', 'is neither local nor synced');
}
