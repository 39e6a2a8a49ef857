/** The embedded replica: a node in the application's own process, behind the `Replica` interface. */
import { KIND_REGISTER, KIND_TOMBSTONE, NO_VALUE } from '../core/entry.js';
import { assertTtl, endlessDeletion } from '../core/expiry.js';
import { isStampHex, nextStamp } from '../core/hlc.js';
import { ReadmeshError } from '../errors.js';
import type {
  BatchOperation,
  Change,
  Range,
  ReadyOptions,
  Receipt,
  Replica,
  Rows,
  Status,
  Value,
  WatchOptions,
  WriteOptions,
} from '../read-store.js';
import type { VerifyReport, WriteOp } from '../service.js';
import { encodeValue } from '../values.js';
import { Node } from './node.js';
import type { NodeOptions } from './options.js';

const READY_TIMEOUT_MS = 30_000;
const VERIFY_TIMEOUT_MS = 30_000;

/**
 * Opens a full replica in this process. Resolves as soon as the store is open and, for a new store that joins,
 * before it holds everything: `await replica.ready()` before reading. Throws ReadmeshError: INVALID_OPTION,
 * INSECURE_LISTEN, PORT_IN_USE, STORE_IN_USE, STORE_UNTRUSTED, NOT_A_STORE, WRONG_CLUSTER.
 */
export async function openReplica(options: NodeOptions): Promise<EmbeddedReplica> {
  return new EmbeddedReplica(await Node.start(options));
}

export class EmbeddedReplica implements Replica {
  /** The node behind it, for the faces of the daemon. */
  readonly node: Node;

  constructor(node: Node) {
    this.node = node;
  }

  get address(): string | undefined {
    return this.node.address === '' ? undefined : this.node.address;
  }

  getSync<T = Value>(key: string): T | undefined {
    const { through, reads } = this.node;
    return (through ?? reads).getSync(key) as T | undefined;
  }

  async get<T = Value>(key: string): Promise<T | undefined> {
    const { through, reads } = this.node;
    return (await (through ?? reads).get(key)) as T | undefined;
  }

  getMany<T = Value>(keys: readonly string[]): Promise<(T | undefined)[]> {
    const { through, reads } = this.node;
    const found =
      through === undefined ? reads.getMany(keys) : Promise.all(keys.map((key) => through.get(key)));
    return found as Promise<(T | undefined)[]>;
  }

  async has(key: string): Promise<boolean> {
    const { through, reads } = this.node;
    return through === undefined ? reads.has(key) : (await through.row(key)) !== undefined;
  }

  keys(range: Range = {}): Rows<string> {
    return (this.node.through ?? this.node.reads).keys(range);
  }

  values<T = Value>(range: Range = {}): Rows<T> {
    return (this.node.through ?? this.node.reads).values(range) as Rows<T>;
  }

  entries<T = Value>(range: Range = {}): Rows<[string, T]> {
    return (this.node.through ?? this.node.reads).entries(range) as Rows<[string, T]>;
  }

  put(key: string, value: Value, options: WriteOptions = {}): Promise<Receipt> {
    try {
      const { stamp, ttlMs } = options;
      assertTtl(ttlMs);
      const given = stamp === undefined ? undefined : stampAt(stamp, 0);
      return this.#send([encodePut(key, value, given, ttlMs, this.#valueBytesMax)], options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  del(key: string, options: WriteOptions = {}): Promise<Receipt> {
    if (options.ttlMs !== undefined) return Promise.reject(endlessDeletion());
    return this.#write([{ type: 'del', key }], options);
  }

  batch(operations: readonly BatchOperation[], options: WriteOptions = {}): Promise<Receipt> {
    return this.#write(operations, options);
  }

  watch<T = Value>(prefix = '', options: WatchOptions = {}): AsyncIterableIterator<Change<T>> {
    return this.node.watchers.watch(prefix, options.signal) as AsyncIterableIterator<Change<T>>;
  }

  ready(options: ReadyOptions = {}): Promise<void> {
    return this.node.ready(options.level ?? 'local', options.timeoutMs ?? READY_TIMEOUT_MS);
  }

  async status(): Promise<Status> {
    return this.node.status();
  }

  /** Compares all members at equal version vectors. */
  verify(options: { timeoutMs?: number } = {}): Promise<VerifyReport> {
    return this.node.verify(options.timeoutMs ?? VERIFY_TIMEOUT_MS);
  }

  close(): Promise<void> {
    return this.node.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Not async: a write makes one promise, not three. */
  #write(operations: readonly BatchOperation[], options: WriteOptions): Promise<Receipt> {
    try {
      const { stamp, ttlMs } = options;
      assertTtl(ttlMs);
      const ops = operations.map((operation, i): WriteOp => {
        const given = stamp === undefined ? undefined : stampAt(stamp, i);
        if (operation.type === 'put')
          return encodePut(
            operation.key,
            operation.value,
            given,
            operation.ttlMs ?? ttlMs,
            this.#valueBytesMax,
          );
        return { key: operation.key, kind: KIND_TOMBSTONE, value: NO_VALUE, stamp: given, ttlMs: undefined };
      });
      return this.#send(ops, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #send(ops: readonly WriteOp[], { replicas, fsync, timeoutMs }: WriteOptions): Promise<Receipt> {
    return this.node.write({ ops, replicas, fsync, timeoutMs });
  }

  get #valueBytesMax(): number {
    return this.node.driver.core.options.valueBytesMax;
  }
}

function encodePut(
  key: string,
  value: Value,
  stamp: string | undefined,
  ttlMs: number | undefined,
  valueBytesMax: number,
): WriteOp {
  return { key, kind: KIND_REGISTER, value: encodeValue(value, valueBytesMax), stamp, ttlMs };
}

/** Stamp of one operation of a batch whose first one bears `first`. */
function stampAt(first: string, index: number): string {
  if (!isStampHex(first))
    throw new ReadmeshError('INVALID_OPTION', 'stamp is the 32 lower-case hex digits of an earlier attempt');
  return nextStamp(first, index);
}
