/**
 * The watches of one session. Changes that cannot be sent yet wait here and coalesce by key. All watches of a
 * session share one cap of bytes; the watch whose change goes past it ends with WATCH_OVERFLOW, so that its
 * reader knows that changes are missing.
 */
import { AT_STAMP, isTombstone, kindOf, stampCounterOf, stampMsOf, valueOffset } from '../core/entry.js';
import { STAMP_BYTES } from '../core/hlc.js';
import type { Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import type { ClientServerOptions } from '../options.js';
import type { NodeService } from '../service.js';
import type { Outbound } from './server-outbound.js';
import { FRAME_BYTES_SOFT } from './wire.js';

/** What a waiting change costs beside its key and row, bytes. */
const CHANGE_OVERHEAD = 64;
const CHANGE_ENVELOPE = 24;

interface ServedWatch {
  readonly unsubscribe: () => void;
  /** Newest row by key, in the order of the last changes. */
  readonly changes: Map<string, Row>;
}

export class SessionWatches {
  readonly #service: NodeService;
  readonly #outbound: Outbound;
  readonly #options: ClientServerOptions;
  readonly #watches = new Map<number, ServedWatch>();
  #bytes = 0;
  #scheduled = false;

  constructor(service: NodeService, outbound: Outbound, options: ClientServerOptions) {
    this.#service = service;
    this.#outbound = outbound;
    this.#options = options;
  }

  has(id: number): boolean {
    return this.#watches.has(id);
  }

  /** Throws OVERLOADED. */
  add(id: number, prefix: string): void {
    const { watchesMax } = this.#options;
    if (this.#watches.size >= watchesMax)
      throw new ReadmeshError(
        'OVERLOADED',
        `this connection has ${watchesMax} watches: end some, or watch a shorter prefix`,
      );
    const changes = new Map<string, Row>();
    const unsubscribe = this.#service.subscribe(prefix, ({ key, row }) => this.#push(id, changes, key, row));
    this.#watches.set(id, { unsubscribe, changes });
    this.#outbound.part(id, 1, 8).array(0);
  }

  remove(id: number): void {
    const watch = this.#watches.get(id);
    if (watch === undefined) return;
    this.#watches.delete(id);
    watch.unsubscribe();
    for (const [key, row] of watch.changes) this.#bytes -= costOf(key, row);
    watch.changes.clear();
  }

  /** Sends what waits, as far as the socket takes it. Called again when it has drained. */
  pump(): void {
    for (const [id, { changes }] of this.#watches) {
      while (changes.size > 0) {
        if (this.#outbound.blocked) return;
        this.#sendSome(id, changes);
      }
    }
  }

  close(): void {
    for (const id of [...this.#watches.keys()]) this.remove(id);
  }

  #push(id: number, changes: Map<string, Row>, key: string, row: Row): void {
    const before = changes.get(key);
    if (before !== undefined) this.#bytes -= costOf(key, before);
    changes.delete(key);
    changes.set(key, row);
    this.#bytes += costOf(key, row);
    if (this.#bytes > this.#options.watchQueueBytesMax) return this.#overflow(id, changes.size);
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Changes of one written batch come one by one within a tick.
    setImmediate(() => {
      this.#scheduled = false;
      this.pump();
    });
  }

  #overflow(id: number, keys: number): void {
    this.remove(id);
    this.#outbound.failed(
      id,
      new ReadmeshError(
        'WATCH_OVERFLOW',
        `changes of ${keys} keys wait for this client to read them: read faster, or watch a narrower prefix`,
      ),
    );
  }

  #sendSome(id: number, changes: Map<string, Row>): void {
    const keys: string[] = [];
    const rows: Row[] = [];
    let bytes = 0;
    for (const [key, row] of changes) {
      keys.push(key);
      rows.push(row);
      this.#bytes -= costOf(key, row);
      changes.delete(key);
      bytes += key.length + row.length + CHANGE_ENVELOPE;
      if (bytes > FRAME_BYTES_SOFT / 2) break;
    }
    const writer = this.#outbound.part(id, 1, bytes);
    writer.array(keys.length * 4);
    for (let i = 0; i < keys.length; i++) {
      const row = rows[i]!;
      this.#outbound.tells(stampMsOf(row), stampCounterOf(row));
      writer.uint(kindOf(row));
      writer.str(keys[i]!);
      writer.bin(row.subarray(AT_STAMP, AT_STAMP + STAMP_BYTES));
      if (isTombstone(row)) writer.nil();
      else writer.bin(row.subarray(valueOffset(row)));
    }
    // What is blocked is known only by what the socket holds.
    this.#outbound.flush();
  }
}

function costOf(key: string, row: Row): number {
  return key.length * 2 + row.length + CHANGE_OVERHEAD;
}
