/** `verify`: whole copies of several members, as read from their disks. */
import { expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { asDeleted } from '../../src/core/entry.js';
import {
  bucketEntries,
  type CollectedTo,
  type Comparable,
  compareMembers,
  digestOf,
} from '../../src/node/digest.js';
import { MemoryStore } from '../../src/storage/memory-store.js';
import { batchOf, ORIGIN_A, puts, record } from './records.js';

const KEYS = Array.from({ length: 50 }, (_, i) => `k${i}`);

async function copy(
  name: string,
  keys: readonly string[],
  damaged: readonly string[] = [],
  collected: { deleted: readonly string[]; to: CollectedTo } = {
    deleted: [],
    to: { begun: 0, isSwept: true },
  },
): Promise<Comparable> {
  const store = new MemoryStore();
  await store.write(puts(ORIGIN_A, 1, [...keys]));
  const { deleted, to } = collected;
  await store.write(
    batchOf({
      rows: new Map(
        deleted.map((key, i) => {
          const row = asDeleted(key, record(key, { origin: ORIGIN_A, seq: 100 + i }), checksum);
          return [key, { row, replaces: undefined }];
        }),
      ),
    }),
  );
  for (const key of damaged) store.damage(key);
  const heads = { [ORIGIN_A]: 50 };
  return {
    name,
    address: `${name}:1`,
    heads: async () => heads,
    digest: async () => ({ ...(await digestOf(store, () => to)), heads }),
    bucket: (bucket) => bucketEntries(store, bucket),
  };
}

test('equal copies are identical, and say how much they hold', async () => {
  const members = [await copy('a', KEYS), await copy('b', KEYS)];
  const report = await compareMembers(members, 1_000);
  expect(report).toMatchObject({ identical: true, entries: 50, differing: [] });
});

test('a damaged record is counted at the member that has it, and named; sound members stay identical', async () => {
  const members = [await copy('a', KEYS, ['k7']), await copy('b', KEYS), await copy('c', KEYS)];
  const report = await compareMembers(members, 1_000);
  expect([report.identical, report.entries]).toEqual([false, 50]);
  expect(report.members.map(({ name, state }) => [name, state])).toEqual([
    ['a', 'differs'],
    ['b', 'identical'],
    ['c', 'identical'],
  ]);
  expect(report.members[0]!.message).toBe('damaged records on its disk: 1; 1 of 256 buckets differ');
  expect(report.differing).toMatchObject([{ key: 'k7', stamps: { a: '' } }]);
});

test('the same record damaged at all members is no identity', async () => {
  const members = [await copy('a', KEYS, ['k7']), await copy('b', KEYS, ['k7'])];
  const report = await compareMembers(members, 1_000);
  expect(report.identical).toBe(false);
  expect(report.members.map(({ state }) => state)).toEqual(['differs', 'differs']);
});

test('a record that one member lacks is named', async () => {
  const members = [await copy('a', KEYS), await copy('b', KEYS.slice(0, -1))];
  const report = await compareMembers(members, 1_000);
  expect(report.identical).toBe(false);
  expect(report.differing.map(({ key }) => key)).toEqual(['k49']);
});

test.each([
  ['it has collected more', { begun: 200, isSwept: true }],
  ['it is just sweeping', { begun: 100, isSwept: false }],
])('what one member may have collected is not compared while %s, and live records are', async (_why, to) => {
  const ahead = { deleted: ['gone/1'], to };
  const behind = { deleted: ['gone/1', 'gone/2'], to: { begun: 100, isSwept: true } };
  const members = [await copy('a', KEYS, [], behind), await copy('b', KEYS, [], ahead)];
  expect(await compareMembers(members, 500)).toMatchObject({ identical: true, differing: [] });
  const lacking = [await copy('a', KEYS, [], behind), await copy('b', KEYS.slice(1), [], ahead)];
  const report = await compareMembers(lacking, 500);
  expect(report.identical).toBe(false);
  expect(report.members.map(({ state }) => state)).toEqual(['identical', 'differs']);
});

test('deletions are compared once both have swept equally far', async () => {
  const to = { begun: 100, isSwept: true };
  const members = [
    await copy('a', KEYS, [], { deleted: ['gone/1'], to }),
    await copy('b', KEYS, [], { deleted: [], to }),
  ];
  const report = await compareMembers(members, 500);
  expect(report.differing.map(({ key }) => key)).toEqual(['gone/1']);
});
