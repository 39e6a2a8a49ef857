/** Loads the table through the light client: batches, several of them in flight. */
import { setTimeout as delay } from 'node:timers/promises';
import { isReadmeshError } from '../../src/errors.js';
import type { BatchOperation, ReadStore, WriteOptions } from '../../src/read-store.js';
import type { PhoneRow } from '../phone-data.js';

const BATCH_ROWS = 1_000;
const BATCHES_IN_FLIGHT = 4;
const BATCH_MS_MAX = 30_000;
/** Attempts of one batch; each is idempotent, so trying again is safe. */
const ATTEMPTS_MAX = 5;
const RETRY_MS = 200;

/** Resolves to the number of rows once each is acknowledged as `options` ask (default: two hosts, flushed). */
export async function loadRows(
  store: Pick<ReadStore, 'batch'>,
  rows: AsyncIterable<PhoneRow> | Iterable<PhoneRow>,
  onLoaded: (rows: number) => void = () => {},
  options: WriteOptions = {},
): Promise<number> {
  const inFlight = new Set<Promise<void>>();
  let loaded = 0;
  const send = async (operations: BatchOperation[]): Promise<void> => {
    const writing = writeBatch(store, operations, options).then(() => {
      loaded += operations.length;
      onLoaded(loaded);
      inFlight.delete(writing);
    });
    // Noticed below; until then it must not count as unhandled.
    writing.catch(() => {});
    inFlight.add(writing);
    if (inFlight.size >= BATCHES_IN_FLIGHT) await Promise.race(inFlight);
  };
  let operations: BatchOperation[] = [];
  try {
    for await (const [key, value] of rows) {
      operations.push({ type: 'put', key, value });
      if (operations.length < BATCH_ROWS) continue;
      await send(operations);
      operations = [];
    }
    if (operations.length > 0) await send(operations);
    await Promise.all(inFlight);
  } finally {
    // One failure ends the load; the others in flight are not left to fail unheard.
    await Promise.allSettled(inFlight);
  }
  return loaded;
}

async function writeBatch(
  store: Pick<ReadStore, 'batch'>,
  operations: readonly BatchOperation[],
  options: WriteOptions,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await store.batch(operations, { timeoutMs: BATCH_MS_MAX, ...options });
      return;
    } catch (error) {
      if (attempt === ATTEMPTS_MAX || !isReadmeshError(error) || !error.info.retry) throw error;
      await delay(RETRY_MS * attempt);
    }
  }
}
