/** Reads and findings of the scrub that wait for the core to heal or to confirm something; each with a deadline. */
import { CONFIRM_MS } from '../core/heal.js';
import type { Input } from '../core/io.js';
import type { Dot, Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';

interface Waiting {
  resolve(row: Row | undefined): void;
  reject(): void;
}

export class HealRequests {
  readonly #input: (input: Input) => void;
  readonly #waiting = new Map<number, Waiting>();
  #ids = 0;
  #closed = false;

  constructor(input: (input: Input) => void) {
    this.#input = input;
  }

  /**
   * The record of the key is lost: resolves to what is there once it was fetched from a peer and written, undefined if
   * there is no such key. Rejects with DAMAGED at the deadline; the healing goes on.
   */
  heal(key: string, dot?: Dot): Promise<Row | undefined> {
    return this.#ask('DAMAGED', key, (id) =>
      this.#input({ type: 'damaged', id, key, ...(dot === undefined ? {} : { dot }) }),
    );
  }

  /** There is no record of the key: resolves to what a peer says. Rejects with UNPROVED at the deadline. */
  confirm(key: string): Promise<Row | undefined> {
    return this.#ask('UNPROVED', key, (id) => this.#input({ type: 'confirm', id, key }));
  }

  /** Fetches what is lost of the range. Rejects with DAMAGED at the deadline; the healing goes on. */
  async healRange(after: string | null, until: string | null, timeoutMs: number): Promise<void> {
    const name = `${after ?? ''}..${until ?? ''}`;
    await this.#ask('DAMAGED', name, (id) => this.#input({ type: 'suspect', id, after, until }), timeoutMs);
  }

  healed(id: number, ok: boolean, row: Row | undefined): void {
    const waiting = this.#waiting.get(id);
    if (ok) waiting?.resolve(row);
    else waiting?.reject();
  }

  close(): void {
    this.#closed = true;
    for (const waiting of [...this.#waiting.values()]) waiting.reject();
  }

  #ask(
    code: 'DAMAGED' | 'UNPROVED',
    key: string,
    ask: (id: number) => void,
    timeoutMs: number = CONFIRM_MS,
  ): Promise<Row | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new ReadmeshError('CLOSED', 'this node is closing: ask another'));
      const id = ++this.#ids;
      const settle = (act: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        act();
      };
      const fail = (): void => settle(() => reject(unanswered(code, key)));
      const timer = setTimeout(fail, timeoutMs);
      this.#waiting.set(id, { resolve: (row) => settle(() => resolve(row)), reject: fail });
      ask(id);
    });
  }
}

function unanswered(code: 'DAMAGED' | 'UNPROVED', key: string): ReadmeshError {
  const what =
    code === 'DAMAGED'
      ? 'is damaged on this disk, and no peer could replace it in time'
      : 'is not on this disk, which may have lost it, and no peer could say in time whether there is one';
  return new ReadmeshError(
    code,
    `the record of key ${JSON.stringify(key)} ${what}: ask another host, or retry`,
    { details: { key } },
  );
}
