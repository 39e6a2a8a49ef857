/** Stamps that writers bring along: retries, collisions, nonsense. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CLUSTER_DEFAULTS } from '../../src/options.js';
import { converged } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster } from '../support/daemon.js';
import { httpDelete, httpGet, httpPut } from '../support/http-api.js';

let daemons: Daemon[];
let first: Daemon;
let second: Daemon;
let third: Daemon;

beforeAll(async () => {
  daemons = await startCluster(3);
  [first, second, third] = daemons as [Daemon, Daemon, Daemon];
});
afterAll(endDaemons);

const stampAt = (ms: number, writer = 'a1b2c3d4e5f60718'): string =>
  `${ms.toString(16).padStart(12, '0')}0000${writer}`;

test('two values under one stamp at two hosts end as the same one everywhere, whichever came first', async () => {
  const stamp = stampAt(Date.now());
  const keys = Array.from({ length: 60 }, (_, i) => `collision/${i}`);
  await Promise.all(
    keys.flatMap((key, i) => {
      // Kept apart as far as two hosts can be: each takes its own without waiting for the other.
      const writes = [
        () => httpPut(first.address, key, 'aaa', { stamp, replicas: 1 }),
        () => httpPut(second.address, key, 'bbb', { stamp, replicas: 1 }),
      ];
      if (i % 2 === 1) writes.reverse();
      return writes.map((write) => write());
    }),
  );
  const live = await converged(daemons);
  // The smaller encoding wins.
  for (const key of keys) expect(live.get(key)).toBe('aaa');
});

test('a value and a deletion under one stamp at two hosts end as the value', async () => {
  const stamp = stampAt(Date.now());
  const keys = Array.from({ length: 30 }, (_, i) => `collision-del/${i}`);
  await Promise.all(
    keys.flatMap((key) => [
      httpDelete(first.address, key, { stamp, replicas: 1 }),
      httpPut(second.address, key, 1, { stamp, replicas: 1 }),
    ]),
  );
  const live = await converged(daemons);
  for (const key of keys) expect(live.get(key)).toBe(1);
});

test('a retry under its stamp at every other host writes once and is told so', async () => {
  const answer = await httpPut(first.address, 'retried', { n: 1 }, { replicas: 3 });
  for (const { address } of [second, third, first]) {
    const retry = await httpPut(address, 'retried', { n: 1 }, { replicas: 3, stamp: answer.body.stamp });
    expect(retry.status, JSON.stringify(retry.body)).toBe(200);
    expect(retry.body).toMatchObject({ stamp: answer.body.stamp, superseded: false, replicas: 3 });
  }
  expect((await converged(daemons)).get('retried')).toEqual({ n: 1 });
});

test('a late retry at another host after a newer write leaves the newer one standing and says superseded', async () => {
  const late = await httpPut(first.address, 'late', 'old', { replicas: 3 });
  const newer = await httpPut(second.address, 'late', 'new', { replicas: 3 });
  expect(newer.body.stamp > late.body.stamp).toBe(true);
  const retry = await httpPut(third.address, 'late', 'old', { stamp: late.body.stamp });
  expect(retry.status, JSON.stringify(retry.body)).toBe(200);
  expect(retry.body).toMatchObject({ stamp: late.body.stamp, superseded: true });
  expect((await converged(daemons)).get('late')).toBe('new');
  const deleted = await httpDelete(second.address, 'late', { replicas: 3 });
  expect(deleted.body.superseded).toBe(false);
  const again = await httpPut(first.address, 'late', 'old', { stamp: late.body.stamp });
  expect(again.body).toMatchObject({ superseded: true });
  expect((await converged(daemons)).has('late')).toBe(false);
});

test('stamps that are none are refused and change nothing', async () => {
  await httpPut(first.address, 'kept', 'kept');
  const malformed = ['0', 'NaN', '-1', 'z'.repeat(32), 'a'.repeat(31), 'a'.repeat(33), `-${'1'.repeat(31)}`];
  for (const stamp of malformed) {
    const answer = await httpPut(first.address, 'kept', 'changed', { stamp });
    expect(answer.status, stamp).toBe(400);
    expect(answer.body.code, stamp).toBe('INVALID_OPTION');
  }
  expect((await httpGet(first.address, 'kept')).body).toBe('kept');
});

test('writes and deletions stamped in the future are refused, and a later write of the key wins', async () => {
  await httpPut(first.address, 'future', 1);
  for (const stamp of ['f'.repeat(32), stampAt(Date.now() + 3_600_000), stampAt(Date.now() + 60_000)]) {
    for (const answer of [
      await httpDelete(first.address, 'future', { stamp }),
      await httpPut(first.address, 'future', 'x', { stamp }),
    ]) {
      expect(answer.status, stamp).toBe(400);
      expect(answer.body.code).toBe('FUTURE_STAMP');
    }
  }
  const written = await httpPut(second.address, 'future', 2);
  expect(written.body).toMatchObject({ superseded: false });
  expect((await converged(daemons)).get('future')).toBe(2);
});

test('a stamp that is older than writes may be late is refused, a younger one is taken and wins over nothing', async () => {
  await httpPut(first.address, 'oldest', 'newer', { replicas: 3 });
  const { lateRetryMs } = CLUSTER_DEFAULTS;
  for (const stamp of ['0'.repeat(32), stampAt(Date.now() - lateRetryMs - 60_000)]) {
    const answer = await httpPut(second.address, 'oldest', 'x', { stamp });
    expect(answer.status).toBe(400);
    expect(answer.body.code).toBe('STALE_STAMP');
  }
  const late = await httpPut(second.address, 'oldest', 'x', { stamp: stampAt(Date.now() - lateRetryMs / 2) });
  expect(late.body).toMatchObject({ superseded: true });
  expect((await converged(daemons)).get('oldest')).toBe('newer');
});
