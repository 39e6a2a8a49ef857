/** Taking a backup from a store: one state, whatever is written meanwhile, and no faster than live traffic allows. */
import { expect, test } from 'vitest';
import type { ReplicaCore } from '../../src/core/replica.js';
import { backupOf } from '../../src/node/backup.js';
import { CORE_DEFAULTS } from '../../src/options.js';
import { type BackupPart, readBackup } from '../../src/storage/backup-format.js';
import { MemoryStore } from '../../src/storage/memory-store.js';
import { ORIGIN_A, puts } from './records.js';

const keysOf = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => `k${String(from + i).padStart(6, '0')}`);

async function storeOf(count: number): Promise<MemoryStore> {
  const store = new MemoryStore();
  await store.write(puts(ORIGIN_A, 1, keysOf(0, count)));
  return store;
}

/** As much of a core as a backup looks at; `waiting`: bytes that wait for the disk, at each look. */
function coreOf(waiting: () => number = () => 0): ReplicaCore {
  const core = {
    options: CORE_DEFAULTS,
    config: { cluster: 'c', name: 'n' },
    identity: { uid: '1111111111111111' },
    hlc: { ms: 5_000, counter: 7 },
    members: { removed: () => ['00000000000000bb'] },
    digest: { builtPercent: 100, keys: 3 },
    queue: {
      get bytes() {
        return waiting();
      },
    },
  };
  return core as unknown as ReplicaCore;
}

async function read(chunks: AsyncIterable<Uint8Array>): Promise<BackupPart[]> {
  const parts: BackupPart[] = [];
  for await (const part of readBackup(chunks, 'test')) parts.push(part);
  return parts;
}

test('it says what it is of, and holds what there was at its beginning and nothing that came after', async () => {
  const store = await storeOf(1_500);
  async function* meddling(): AsyncGenerator<Uint8Array> {
    let seq = 1_501;
    for await (const chunk of backupOf(store, coreOf())) {
      yield chunk;
      await store.write(puts(ORIGIN_A, seq, [`k${seq}`, `z${seq}`, 'k000000']));
      seq += 3;
    }
  }
  const parts = await read(meddling());
  expect(parts[0]).toMatchObject({
    header: {
      ...{ format: 1, cluster: 'c', clusterUid: '1111111111111111', node: 'n' },
      ...{ hlc: { ms: 5_000, counter: 7 }, heads: { [ORIGIN_A]: 1_500 } },
      ...{ removed: ['00000000000000bb'], entriesAbout: 3 },
    },
  });
  const keys = parts.flatMap((part) => (part.type === 'records' ? part.records.keys : []));
  expect(keys).toEqual(keysOf(0, 1_500));
  expect(parts.length).toBeGreaterThan(4);
  expect(parts.at(-1)).toMatchObject({ type: 'end', summary: { entries: 1_500 } });
});

test('while writes wait for the disk it waits before each chunk, but never for good', async () => {
  const store = await storeOf(2_000);
  let looks = 0;
  let calmAfter = 5;
  const busy = 2 * CORE_DEFAULTS.commitBytesMax + 1;
  const chunks = backupOf(
    store,
    coreOf(() => (++looks < calmAfter ? busy : 0)),
  );
  for (let i = 0; i < 2; i++) await chunks.next();
  expect(looks).toBe(0);
  await chunks.next();
  expect(looks).toBe(5);
  calmAfter = Number.POSITIVE_INFINITY;
  looks = 0;
  await chunks.next();
  // It looked again and again, then went on all the same.
  expect(looks).toBe(25);
  await chunks.return();
});

test('a damaged record fails it, since it would be missing silently', async () => {
  const store = await storeOf(600);
  store.damage('k000555');
  const failing = read(backupOf(store, coreOf()));
  await expect(failing).rejects.toMatchObject({ code: 'DAMAGED', details: { key: 'k000555' } });
});
