/**
 * Reads and acknowledged writes without a pause, while a host dies and comes back. Every read's answer is known
 * beforehand; every acknowledged write is looked for afterwards on each host by itself.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { ReadStore, Replica } from '../../src/read-store.js';
import type { PhoneRow } from '../phone-data.js';
import { seededRandom } from '../seeded-random.js';

export const WRITES_PREFIX = 'demo/writes/';

const CLIENT_READERS = 4;
const CLIENT_PAUSE_MS = 2;
const EMBEDDED_READS = 100;
const EMBEDDED_PAUSE_MS = 5;
const WRITERS = 2;
const WRITE_PAUSE_MS = 5;
const PAGE_ENTRIES = 1_000;
const PAGE_MS_MAX = 10_000;

export interface ReadFigures {
  served: number;
  /** Ended with an error. */
  failed: number;
  /** Answered with something else than what is stored. */
  wrong: number;
  slowestMs: number;
}

export interface WriteFigures {
  acknowledged: number;
  /** Not acknowledged: may have taken effect or not. */
  unacknowledged: number;
}

export class Traffic {
  readonly client: ReadFigures = noReads();
  readonly embedded: ReadFigures = noReads();
  readonly writes: WriteFigures = { acknowledged: 0, unacknowledged: 0 };
  /** What failed or was wrong, the first few. */
  readonly troubles: string[] = [];
  readonly #rows: readonly PhoneRow[];
  readonly #loops: Promise<void>[] = [];
  readonly #acknowledged = new Map<string, number>();
  readonly #random = seededRandom(1);
  #stopping = false;
  #nextWrite = 0;

  constructor(rows: readonly PhoneRow[], client: ReadStore, replica: Replica) {
    this.#rows = rows;
    for (let i = 0; i < CLIENT_READERS; i++) this.#loops.push(this.#readClient(client));
    this.#loops.push(this.#readEmbedded(replica));
    for (let i = 0; i < WRITERS; i++) this.#loops.push(this.#write(client));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
  }

  /** Acknowledged writes that the host at `address` does not hold. Asked over HTTP: answered by that host alone. */
  async lostAt(address: string): Promise<string[]> {
    const held = new Map<string, unknown>();
    let after = '';
    for (;;) {
      const url = new URL(`http://${address}/v1/kv`);
      url.searchParams.set('prefix', WRITES_PREFIX);
      url.searchParams.set('limit', String(PAGE_ENTRIES));
      if (after !== '') url.searchParams.set('after', after);
      const page = await fetchJson<{ entries: { key: string; value: unknown }[]; next: string | null }>(url);
      for (const { key, value } of page.entries) held.set(key, value);
      if (page.next === null) break;
      after = page.next;
    }
    return [...this.#acknowledged].filter(([key, value]) => held.get(key) !== value).map(([key]) => key);
  }

  async #readClient(store: ReadStore): Promise<void> {
    while (!this.#stopping) {
      const [key, expected] = this.#random.pick(this.#rows);
      const began = performance.now();
      try {
        this.#note(this.client, key, await store.get(key), expected, began);
      } catch (error) {
        this.#failed(this.client, key, error);
      }
      await delay(CLIENT_PAUSE_MS);
    }
  }

  async #readEmbedded(replica: Replica): Promise<void> {
    while (!this.#stopping) {
      for (let i = 0; i < EMBEDDED_READS; i++) {
        const [key, expected] = this.#random.pick(this.#rows);
        const began = performance.now();
        try {
          this.#note(this.embedded, key, replica.getSync(key), expected, began);
        } catch (error) {
          this.#failed(this.embedded, key, error);
        }
      }
      await delay(EMBEDDED_PAUSE_MS);
    }
  }

  async #write(store: ReadStore): Promise<void> {
    while (!this.#stopping) {
      const number = this.#nextWrite++;
      const key = `${WRITES_PREFIX}${String(number).padStart(8, '0')}`;
      try {
        await store.put(key, number);
        this.#acknowledged.set(key, number);
        this.writes.acknowledged += 1;
      } catch (error) {
        this.writes.unacknowledged += 1;
        this.#trouble(`the write of ${key} was not acknowledged: ${describe(error)}`);
      }
      await delay(WRITE_PAUSE_MS);
    }
  }

  #note(figures: ReadFigures, key: string, value: unknown, expected: string, began: number): void {
    figures.slowestMs = Math.max(figures.slowestMs, performance.now() - began);
    if (value === expected) figures.served += 1;
    else {
      figures.wrong += 1;
      this.#trouble(
        `the read of ${key} gave ${JSON.stringify(value) ?? 'nothing'}, not ${JSON.stringify(expected)}`,
      );
    }
  }

  #failed(figures: ReadFigures, key: string, error: unknown): void {
    figures.failed += 1;
    this.#trouble(`the read of ${key} failed: ${describe(error)}`);
  }

  #trouble(text: string): void {
    if (this.troubles.length < 5) this.troubles.push(text);
  }
}

export async function fetchJson<T>(url: URL): Promise<T> {
  const response = await fetch(url, { signal: AbortSignal.timeout(PAGE_MS_MAX) });
  if (!response.ok) throw new Error(`${url.host} answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as T;
}

function noReads(): ReadFigures {
  return { served: 0, failed: 0, wrong: 0, slowestMs: 0 };
}

function describe(error: unknown): string {
  return error instanceof Error
    ? `${'code' in error ? `${String(error.code)}: ` : ''}${error.message}`
    : String(error);
}
