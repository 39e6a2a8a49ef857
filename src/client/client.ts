/** The light client: `ReadStore` over hosts nearby. Calls, hosts and watches are carried by the modules beside. */
import { assertKey, utf8Length } from '../core/entry.js';
import { assertTtl, endlessDeletion } from '../core/expiry.js';
import { isStampHex } from '../core/hlc.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import { CLUSTER_DEFAULTS, type ClientOptions } from '../options.js';
import type {
  BatchOperation,
  Change,
  MemberStatus,
  Range,
  ReadStore,
  ReadyOptions,
  Receipt,
  Rows,
  Status,
  Value,
  WatchOptions,
  WriteOptions,
} from '../read-store.js';
import { rowsOf } from '../rows.js';
import type { DigestReport, VerifyReport } from '../service.js';
import { encodeValue } from '../values.js';
import { type Call, Calls } from './calls.js';
import { ExportCall, type ExportedEntry, exportEntries } from './export.js';
import { Hosts } from './hosts.js';
import {
  DigestBucketCall,
  type EncodedOp,
  GetCall,
  GetManyCall,
  HasCall,
  type Page,
  type Policies,
  policiesOf,
  ReadyCall,
  RemoveCall,
  ReportCall,
  ScanCall,
  WriteCall,
} from './operations.js';
import { Watches } from './watch.js';
import {
  BUCKETS,
  KEYS_PER_GET_MAX,
  OP_DIGEST,
  OP_STATUS,
  OP_VERIFY,
  PREFIX_BYTES_MAX,
  ROWS_PER_PAGE_MAX,
} from './wire.js';

/** Operations on the cluster, and on single hosts. Each takes a deadline of its own. */
export interface Admin {
  /** All members, as the nearest host sees them. */
  members(): Promise<MemberStatus[]>;
  /** Removes a member by its name. NOT_FOUND: there is none. Not retried by itself once it may have been done. */
  remove(name: string): Promise<void>;
  /** Hash over all entries of the nearest host. Default deadline 30,000 ms. */
  digest(options?: { timeoutMs?: number }): Promise<DigestReport>;
  /** Keys and stamps of one of the buckets of `digest`, tombstones included. Default deadline 30,000 ms. */
  digestBucket(bucket: number, options?: { timeoutMs?: number }): Promise<{ key: string; stamp: string }[]>;
  /** Compares the entries of all members. Default deadline 30,000 ms. */
  verify(options?: { timeoutMs?: number }): Promise<VerifyReport>;
  /** As `entries`, and how long each entry is still there. */
  export(range?: Range): AsyncIterableIterator<ExportedEntry>;
}

export interface LightClient extends ReadStore, Admin {}

export interface ClientConfig {
  readonly hosts: readonly string[];
  readonly cluster: string | undefined;
  readonly only: boolean;
  readonly options: ClientOptions;
}

const READY_TIMEOUT_MS = 30_000;
const REPORT_TIMEOUT_MS = 30_000;
const RANGE_MEMBERS = new Set(['gt', 'gte', 'lt', 'lte', 'prefix', 'reverse', 'limit']);

export class Client implements LightClient {
  readonly #hosts: Hosts;
  readonly #calls: Calls;
  readonly #watches: Watches;
  readonly #policies: Policies;
  readonly #timeoutMs: number;
  readonly #availableListeners = new Set<() => void>();
  #closing: Promise<void> | undefined;

  /** Throws INVALID_OPTION. Dials at once. */
  constructor(config: ClientConfig) {
    const { hosts, options } = config;
    this.#timeoutMs = options.timeoutMs;
    this.#policies = policiesOf(options);
    this.#hosts = new Hosts(hosts, config, options, {
      onAvailable: () => {
        this.#calls.onAvailable();
        this.#watches.onAvailable();
        for (const listener of this.#availableListeners) listener();
      },
    });
    this.#calls = new Calls(this.#hosts, options);
    this.#watches = new Watches(this.#hosts, options.watchesMax, options.watchQueueBytesMax);
    this.#hosts.maintain(performance.now());
  }

  /** Resolves once a host greeted. Rejects with UNREACHABLE, or with what all hosts refuse us for. */
  connected(): Promise<void> {
    const { promise, resolve, reject } = withResolvers();
    const look = (): void => {
      if (this.#hosts.anyOpen) return resolve();
      const refused = this.#hosts.refused;
      if (refused !== undefined) reject(refused);
    };
    const poll = setInterval(look, 10);
    const deadline = setTimeout(() => {
      const state = this.#hosts.describe();
      reject(
        new ReadmeshError(
          'UNREACHABLE',
          `no host answered within ${this.#timeoutMs} ms (${state}): is a daemon running there?`,
        ),
      );
    }, this.#timeoutMs);
    this.#availableListeners.add(look);
    look();
    return promise.finally(() => {
      clearInterval(poll);
      clearTimeout(deadline);
      this.#availableListeners.delete(look);
    });
  }

  get<T = Value>(key: string): Promise<T | undefined> {
    const fault = keyFault(key);
    if (fault !== undefined) return Promise.reject(fault);
    return this.#start(new GetCall(this.#policies.read, key)) as Promise<T | undefined>;
  }

  async getMany<T = Value>(keys: readonly string[]): Promise<(T | undefined)[]> {
    for (const key of keys) assertKey(key);
    const deadline = performance.now() + this.#timeoutMs;
    if (keys.length <= KEYS_PER_GET_MAX)
      return this.#getPart(keys.slice(), deadline) as Promise<(T | undefined)[]>;
    const parts: Promise<(Value | undefined)[]>[] = [];
    for (let i = 0; i < keys.length; i += KEYS_PER_GET_MAX)
      parts.push(this.#getPart(keys.slice(i, i + KEYS_PER_GET_MAX), deadline));
    return (await Promise.all(parts)).flat() as (T | undefined)[];
  }

  has(key: string): Promise<boolean> {
    const fault = keyFault(key);
    if (fault !== undefined) return Promise.reject(fault);
    return this.#start(new HasCall(this.#policies.read, key));
  }

  keys(range: Range = {}): Rows<string> {
    return this.#rows(range, true, ({ keys }, i) => keys[i]!);
  }

  values<T = Value>(range: Range = {}): Rows<T> {
    return this.#rows(range, false, (page, i) => page.value(i) as T);
  }

  entries<T = Value>(range: Range = {}): Rows<[string, T]> {
    return this.#rows(range, false, (page, i) => [page.keys[i]!, page.value(i) as T]);
  }

  #rows<T>(range: Range, keysOnly: boolean, pick: (page: Page, i: number) => T): Rows<T> {
    const pages = this.#pages(range, keysOnly);
    return rowsOf(
      (async function* () {
        for await (const page of pages) for (let i = 0; i < page.keys.length; i++) yield pick(page, i);
      })(),
    );
  }

  async *export(range: Range = {}): AsyncGenerator<ExportedEntry, void, undefined> {
    checkRange(range);
    yield* exportEntries(range, (rest, limit) =>
      this.#start(new ExportCall(this.#policies.bulk, rest, limit)),
    );
  }

  /** Not async: a put makes one promise, not three. */
  put(key: string, value: Value, options: WriteOptions = {}): Promise<Receipt> {
    try {
      assertKey(key);
      const { ttlMs } = options;
      assertTtl(ttlMs);
      return this.#write([{ key, value: encodeValue(value), ttlMs }], options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async del(key: string, options: WriteOptions = {}): Promise<Receipt> {
    assertKey(key);
    if (options.ttlMs !== undefined) throw endlessDeletion();
    return this.#write([{ key, value: undefined }], options);
  }

  async batch(operations: readonly BatchOperation[], options: WriteOptions = {}): Promise<Receipt> {
    const { batchOpsMax, batchBytesMax } = CLUSTER_DEFAULTS;
    if (operations.length === 0)
      throw new ReadmeshError('INVALID_OPTION', 'a batch has at least one operation');
    if (operations.length > batchOpsMax)
      throw new ReadmeshError('BATCH_TOO_LARGE', `a batch has at most ${batchOpsMax} operations: split it`);
    let bytes = 0;
    const ops: EncodedOp[] = [];
    assertTtl(options.ttlMs);
    for (const operation of operations) {
      const { type, key } = operation;
      if (type !== 'put' && type !== 'del')
        throw new ReadmeshError('INVALID_OPTION', `there is no operation "${String(type)}": use put or del`);
      const value = type === 'put' ? encodeValue(operation.value) : undefined;
      bytes += assertKey(key) + (value?.length ?? 0);
      if (bytes > batchBytesMax && operations.length > 1)
        throw new ReadmeshError('BATCH_TOO_LARGE', `a batch has at most ${batchBytesMax} bytes: split it`);
      const ttlMs = type === 'put' ? (operation.ttlMs ?? options.ttlMs) : undefined;
      assertTtl(ttlMs);
      ops.push(ttlMs === undefined ? { key, value } : { key, value, ttlMs });
    }
    return this.#write(ops, options);
  }

  watch<T = Value>(prefix = '', options: WatchOptions = {}): AsyncIterableIterator<Change<T>> {
    if (typeof prefix !== 'string' || utf8Length(prefix) === -1 || utf8Length(prefix) > PREFIX_BYTES_MAX)
      throw new ReadmeshError('INVALID_OPTION', 'a prefix is a well-formed string no longer than a key');
    return this.#watches.add(prefix, options.signal) as AsyncIterableIterator<Change<T>>;
  }

  ready(options: ReadyOptions = {}): Promise<void> {
    const call = new ReadyCall(this.#policies.ready, options.level ?? 'local');
    return this.#start(call, options.timeoutMs ?? READY_TIMEOUT_MS);
  }

  async status(): Promise<Status> {
    const report = await this.#start(new ReportCall(this.#policies.inspect, OP_STATUS));
    return shaped<Status>(report, { members: 'object', heads: 'object', phase: 'string', ready: 'boolean' });
  }

  async members(): Promise<MemberStatus[]> {
    return (await this.status()).members;
  }

  async remove(name: string): Promise<void> {
    if (typeof name !== 'string' || name === '' || utf8Length(name) === -1)
      throw new ReadmeshError('INVALID_OPTION', 'name the member to remove: see `readmesh members`');
    return this.#start(new RemoveCall(this.#policies.once, name));
  }

  async digest(options: { timeoutMs?: number } = {}): Promise<DigestReport> {
    const call = new ReportCall(this.#policies.inspect, OP_DIGEST);
    const report = await this.#start(call, options.timeoutMs ?? REPORT_TIMEOUT_MS);
    return shaped<DigestReport>(report, {
      heads: 'object',
      entries: 'number',
      root: 'string',
      collected: 'number',
      swept: 'boolean',
      damaged: 'number',
      buckets: 'object',
    });
  }

  async digestBucket(
    bucket: number,
    options: { timeoutMs?: number } = {},
  ): Promise<{ key: string; stamp: string }[]> {
    if (!Number.isInteger(bucket) || bucket < 0 || bucket >= BUCKETS)
      throw new ReadmeshError('INVALID_OPTION', 'a bucket is an integer from 0 to 255');
    const call = new DigestBucketCall(this.#policies.inspect, bucket);
    return this.#start(call, options.timeoutMs ?? REPORT_TIMEOUT_MS);
  }

  async verify(options: { timeoutMs?: number } = {}): Promise<VerifyReport> {
    const call = new ReportCall(this.#policies.inspect, OP_VERIFY);
    const report = await this.#start(call, options.timeoutMs ?? REPORT_TIMEOUT_MS);
    return shaped<VerifyReport>(report, { identical: 'boolean', members: 'object', differing: 'object' });
  }

  /** Rejects calls in progress with CLOSED, ends watches, closes all connections. May be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#calls.close();
    this.#watches.close();
    await this.#hosts.close();
  }

  #start<T>(call: Call<T>, timeoutMs: number = this.#timeoutMs): Promise<T> {
    if (!isTimeout(timeoutMs)) return Promise.reject(badTimeout());
    const now = performance.now();
    return this.#calls.start(call, now, now + timeoutMs);
  }

  /** An answer may hold the values of the first keys only: then the rest is asked for. */
  async #getPart(keys: readonly string[], deadline: number): Promise<(Value | undefined)[]> {
    let values: (Value | undefined)[] = [];
    while (values.length < keys.length) {
      const rest = values.length === 0 ? keys : keys.slice(values.length);
      const call = new GetManyCall(this.#policies.bulk, rest);
      const answer = await this.#calls.start(call, performance.now(), deadline);
      values = values.length === 0 ? answer : values.concat(answer);
    }
    return values;
  }

  #write(ops: readonly EncodedOp[], options: WriteOptions): Promise<Receipt> {
    checkWriteOptions(options);
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs;
    const { write } = this.#policies;
    return this.#start(new WriteCall(write(timeoutMs), ops, options, this.#hosts.clock), timeoutMs);
  }

  /** One page after the other, each from whichever host answers: from the key behind the last one on. */
  async *#pages(range: Range, keysOnly: boolean): AsyncGenerator<Page, void, undefined> {
    checkRange(range);
    let left = range.limit ?? Number.POSITIVE_INFINITY;
    if (left === 0) return;
    const ask = (rest: Range): Promise<Page> => {
      const page = this.#start(
        new ScanCall(this.#policies.bulk, rest, Math.min(left, ROWS_PER_PAGE_MAX), keysOnly),
      );
      // It is asked for ahead of need: when the reader leaves early nobody awaits it.
      page.catch(() => {});
      return page;
    };
    for (let next: Promise<Page> | undefined = ask(range); next !== undefined; ) {
      const page: Page = await next;
      left -= page.keys.length;
      const last = page.keys.at(-1);
      const more = !page.end && left > 0 && last !== undefined;
      next = more ? ask(range.reverse === true ? { ...range, lt: last } : { ...range, gt: last }) : undefined;
      yield page;
    }
  }
}

function keyFault(key: string): ReadmeshError | undefined {
  try {
    assertKey(key);
    return undefined;
  } catch (error) {
    if (isReadmeshError(error)) return error;
    throw error;
  }
}

/** The report of a host is at least in outline what it should be. */
function shaped<T>(report: Record<string, unknown>, members: Partial<Record<keyof T & string, string>>): T {
  for (const [name, type] of Object.entries(members)) {
    const found = report[name];
    const right = typeof found === type && found !== null;
    if (!right)
      throw new ReadmeshError(
        'PROTOCOL_ERROR',
        `the host's report has no proper "${name}": upgrade the host`,
      );
  }
  return report as T;
}

function isTimeout(ms: number): boolean {
  return typeof ms === 'number' && Number.isFinite(ms) && ms > 0;
}

function badTimeout(): ReadmeshError {
  return new ReadmeshError('INVALID_OPTION', 'timeoutMs is a number of milliseconds above 0');
}

function checkWriteOptions({ replicas, fsync, timeoutMs, stamp }: WriteOptions): void {
  if (replicas !== undefined && !(Number.isSafeInteger(replicas) && replicas >= 1))
    throw new ReadmeshError('INVALID_OPTION', 'replicas is an integer from 1 up');
  if (fsync !== undefined && typeof fsync !== 'boolean')
    throw new ReadmeshError('INVALID_OPTION', 'fsync is true or false');
  if (timeoutMs !== undefined && !isTimeout(timeoutMs)) throw badTimeout();
  if (stamp !== undefined && !(typeof stamp === 'string' && isStampHex(stamp)))
    throw new ReadmeshError('INVALID_OPTION', 'stamp is the 32 lower-case hex digits of an earlier attempt');
}

function checkRange(range: Range): void {
  for (const member of Object.keys(range))
    if (!RANGE_MEMBERS.has(member))
      throw new ReadmeshError(
        'INVALID_OPTION',
        `a range has no "${member}": use ${[...RANGE_MEMBERS].join(', ')}`,
      );
  const { gt, gte, lt, lte, prefix, limit } = range;
  if (limit !== undefined && (!Number.isSafeInteger(limit) || limit < 0))
    throw new ReadmeshError('INVALID_OPTION', 'limit is an integer from 0 up');
  for (const bound of [gt, gte, lt, lte, prefix])
    if (
      bound !== undefined &&
      (typeof bound !== 'string' || utf8Length(bound) === -1 || utf8Length(bound) > PREFIX_BYTES_MAX)
    )
      throw new ReadmeshError(
        'INVALID_OPTION',
        `a bound of a range is a well-formed string of up to ${PREFIX_BYTES_MAX} bytes`,
      );
}

function withResolvers(): {
  promise: Promise<void>;
  resolve: () => void;
  reject: (error: ReadmeshError) => void;
} {
  let resolve!: () => void;
  let reject!: (error: ReadmeshError) => void;
  const promise = new Promise<void>((fulfil, refuse) => {
    resolve = fulfil;
    reject = refuse;
  });
  return { promise, resolve, reject };
}
