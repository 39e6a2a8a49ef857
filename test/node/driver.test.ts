/** The driver and a store whose flush takes its time: what may be seen before it, and what has to wait for it. */
import { expect, test } from 'vitest';
import { KIND_REGISTER } from '../../src/core/entry.js';
import { Driver } from '../../src/node/driver.js';
import { CORE_DEFAULTS } from '../../src/options.js';
import type { Receipt } from '../../src/read-store.js';
import { MemoryStore } from '../../src/storage/memory-store.js';
import { eventually } from '../support/copies.js';

class SlowStore extends MemoryStore {
  /** Ends the flush that is under way. */
  finish: ((error?: Error) => void) | undefined;
  isSlow = false;

  override flush(): Promise<void> {
    if (!this.isSlow) return super.flush();
    return new Promise((resolve, reject) => {
      this.finish = (error) => {
        this.finish = undefined;
        if (error === undefined) resolve();
        else reject(error);
      };
    });
  }
}

async function founder() {
  const store = new SlowStore();
  const changed: string[] = [];
  const failures: string[] = [];
  const driver = new Driver(
    {
      cluster: 'c',
      name: 'n',
      host: 'n',
      address: '',
      join: [],
      found: true,
      run: 'f'.repeat(16),
      reuseOrigin: false,
      flushes: true,
      options: CORE_DEFAULTS,
    },
    store,
    { info: () => {}, warn: () => {}, error: () => {} },
    {
      onChanged: (keys) => changed.push(...keys),
      onCollected: () => {},
      onState: () => {},
      onDamage: () => {},
      onStoreFailed: ({ message }) => failures.push(message),
    },
  );
  driver.start({ dial: () => {}, send: () => true, close: () => {} });
  await eventually('it serves', async () => driver.core.ready);
  await driver.written(5_000);
  store.isSlow = true;
  const answers: (string | Receipt)[] = [];
  const put = (key: string): void => {
    const op = { key, kind: KIND_REGISTER, value: Uint8Array.of(1) };
    driver.write([op], {}).then(
      (receipt) => answers.push(receipt),
      (error: { code: string }) => answers.push(error.code),
    );
  };
  const turns = async (): Promise<void> => {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  return { driver, store, changed, failures, answers, put, turns };
}

test('a write is readable and told of while it is flushed, and acknowledged once it is', async () => {
  const { driver, store, changed, answers, put, turns } = await founder();
  put('a');
  await eventually('it is being flushed', async () => store.finish !== undefined);
  // Written while the one before it is being flushed: this flush is not its own.
  put('b');
  await turns();
  expect([store.getRow('a'), store.getRow('b')].every((row) => row !== undefined)).toBe(true);
  expect(changed).toEqual(['a', 'b']);
  expect(answers).toEqual([]);
  store.finish!();
  await turns();
  expect(answers).toEqual([expect.objectContaining({ replicas: 1 })]);
  store.finish!();
  await turns();
  expect(answers).toHaveLength(2);
  await driver.close();
});

test('a flush that fails ends all writing, and nothing that waited for it is acknowledged', async () => {
  const { driver, store, failures, answers, put, turns } = await founder();
  put('a');
  await eventually('it is being flushed', async () => store.finish !== undefined);
  store.finish!(new Error('no such luck'));
  await turns();
  put('b');
  await turns();
  expect(failures).toEqual(['no such luck']);
  expect(answers).toEqual(['STORE_FAILED', 'STORE_FAILED']);
  expect(store.getRow('b')).toBeUndefined();
  await driver.close();
});
