/**
 * Records whose checksum is right, but whose bytes are no value that this version can read: written by a newer one,
 * or by a bug somewhere. Nothing can be done about them here, and nobody has another copy to heal them from. So they
 * stay as they are, are passed on byte for byte, answer UNREADABLE when they are asked for, and are passed over by
 * scans and watches: one bad record must not hide all behind it. They are counted, and show in health.
 */

import type { Row } from '../core/types.js';
import { isReadmeshError } from '../errors.js';
import type { HealthIssue } from '../read-store.js';
import { type DecodedValue, decodeRow } from '../values.js';
import type { Logger } from './driver.js';

/** Keys that are remembered; further ones are found again when they are read. */
export const QUARANTINED_MAX = 1_024;

export class Quarantine {
  readonly #logger: Logger;
  readonly #keys = new Set<string>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  get size(): number {
    return this.#keys.size;
  }

  /** Throws UNREADABLE. */
  decode(key: string, row: Row): DecodedValue {
    try {
      return decodeRow(key, row);
    } catch (error) {
      this.note(error);
      throw error;
    }
  }

  /** undefined: it cannot be read, which is noted. */
  tryDecode(key: string, row: Row): DecodedValue | undefined {
    try {
      return decodeRow(key, row);
    } catch (error) {
      if (!this.note(error)) throw error;
      return undefined;
    }
  }

  /** False: it is about something else. */
  note(error: unknown): boolean {
    if (!isReadmeshError(error) || error.code !== 'UNREADABLE') return false;
    const { key } = error.details;
    if (typeof key !== 'string' || this.#keys.has(key) || this.#keys.size >= QUARANTINED_MAX) return true;
    this.#keys.add(key);
    this.#logger.error({ event: 'record-quarantined', key: key.slice(0, 200) }, error.message);
    return true;
  }

  /** These keys were written. */
  forget(keys: readonly string[]): void {
    if (this.#keys.size > 0) for (const key of keys) this.#keys.delete(key);
  }

  issues(): HealthIssue[] {
    const [first] = this.#keys;
    if (first === undefined) return [];
    return [
      {
        code: 'UNREADABLE',
        message:
          `${this.#keys.size} records hold bytes that are no value this version can read ` +
          `(first key ${JSON.stringify(first.slice(0, 200))}): write them anew, or upgrade this host`,
      },
    ];
  }
}
