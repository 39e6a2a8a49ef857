/**
 * Reads of a node that has not copied everything yet, for those who would rather ask a peer than wait: a key whose
 * part of the key space is copied is answered from the own disk, any other one by a member that is ready, and so is
 * every scan. Members are asked at the addresses they advertise, as any client asks them.
 *
 * It answers what that member holds, which is no less than what a client of its own would get. The synchronous read
 * cannot ask, and throws NOT_READY.
 */
import { checksum } from '../checksum.js';
import { connect, type ExportedEntry, type LightClient } from '../client/index.js';
import { assertKey, KIND_REGISTER, makeRow } from '../core/entry.js';
import { isVisible } from '../core/expiry.js';
import type { Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import type { Range, Rows, Value } from '../read-store.js';
import type { RowScan } from '../service.js';
import type { Store } from '../storage/store.js';
import { decodeRow, encodeValue, valueOfRow } from '../values.js';
import { Pages, pickKey } from './pages.js';

/** Deadline of one read at a peer, ms. */
const TIMEOUT_MS = 3_000;
/** What came as a value has a stamp and a dot at its own host, which a client is not told. */
const UNKNOWN = { kind: KIND_REGISTER, stamp: new Uint8Array(16), origin: '0'.repeat(16), seq: 0 };

export interface ReadThroughSources {
  /** Replaced when a node reopens it. */
  readonly store: () => Store;
  /** Whether absence of the key from the store is an answer. */
  isCopied(key: string): boolean;
  /** Addresses of members that are ready. */
  addresses(): string[];
  readonly valueBytesMax: number;
  /** The clock that entries expire by. */
  clockMs(): number;
}

export class ReadThrough {
  readonly #sources: ReadThroughSources;
  #client: { readonly hosts: string; readonly opening: Promise<LightClient> } | undefined;

  constructor(sources: ReadThroughSources) {
    this.#sources = sources;
  }

  /** Throws NOT_READY where it would have to ask a peer. */
  getSync(key: string): Value | undefined {
    assertKey(key);
    if (!this.#sources.isCopied(key)) throw notReady();
    const row = this.#local(key);
    return row === undefined ? undefined : decodeRow(key, row).value;
  }

  /** A promise only when a peer has to be asked. */
  row(key: string): Row | undefined | Promise<Row | undefined> {
    assertKey(key);
    return this.#sources.isCopied(key) ? this.#local(key) : this.#ask(key);
  }

  async get(key: string): Promise<Value | undefined> {
    const row = await this.row(key);
    return row === undefined ? undefined : decodeRow(key, row).value;
  }

  scan(range: Range): RowScan {
    let entries: AsyncIterableIterator<ExportedEntry> | undefined;
    return {
      next: async (rowsMax) => {
        entries ??= (await this.#peer()).export(range);
        const keys: string[] = [];
        const rows: Row[] = [];
        while (keys.length < rowsMax) {
          const step = await entries.next();
          if (step.done === true) break;
          const { key, value, ttlMs } = step.value;
          keys.push(key);
          rows.push(this.#rowOf(key, value, ttlMs));
        }
        return { keys, rows };
      },
      close: async () => {
        await entries?.return?.();
      },
    };
  }

  keys(range: Range): Rows<string> {
    return new Pages(() => this.scan(range), pickKey);
  }

  values(range: Range): Rows<Value> {
    return new Pages(() => this.scan(range), valueOfRow);
  }

  entries(range: Range): Rows<[string, Value]> {
    return new Pages(
      () => this.scan(range),
      (key, row) => [key, valueOfRow(key, row)],
    );
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await client?.opening.then((open) => open.close()).catch(() => {});
  }

  #local(key: string): Row | undefined {
    const row = this.#sources.store().getRow(key);
    return row !== undefined && isVisible(row, () => this.#sources.clockMs()) ? row : undefined;
  }

  async #ask(key: string): Promise<Row | undefined> {
    const value = await (await this.#peer()).get(key);
    return value === undefined ? undefined : this.#rowOf(key, value);
  }

  #rowOf(key: string, value: Value, ttlMs?: number): Row {
    const { valueBytesMax } = this.#sources;
    const expiry = ttlMs === undefined ? {} : { expiresAt: this.#sources.clockMs() + ttlMs };
    return makeRow(key, { ...UNKNOWN, ...expiry, value: encodeValue(value, valueBytesMax) }, checksum);
  }

  /** A client of the members that are ready at present. */
  #peer(): Promise<LightClient> {
    const addresses = this.#sources.addresses().sort();
    if (addresses.length === 0) return Promise.reject(notReady());
    const hosts = addresses.join();
    if (this.#client?.hosts !== hosts) {
      void this.close();
      const opening = connect({ hosts: addresses, timeoutMs: TIMEOUT_MS, only: true });
      this.#client = { hosts, opening };
      // Whoever asked hears of it; the next one tries again.
      opening.catch(() => {
        if (this.#client?.opening === opening) this.#client = undefined;
      });
    }
    return this.#client!.opening;
  }
}

function notReady(): ReadmeshError {
  return new ReadmeshError(
    'NOT_READY',
    'this node does not hold this part of the data yet, and no member that does can be asked: ask another, or wait',
  );
}
