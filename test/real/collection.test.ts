/**
 * Mass deletion with real daemons: disk space comes back, and the keys do not. READMESH_TEST_COLLECTION_ROWS makes it as
 * large as one likes.
 */
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { openPhoneData } from '../../bin/phone-data.js';
import { connect } from '../../src/client/index.js';
import type { BatchOperation, Status } from '../../src/read-store.js';
import { eventually } from '../support/copies.js';
import { Daemon, endDaemons, runCli, tempFolder } from '../support/daemon.js';
import { httpScan } from '../support/http-api.js';

afterEach(endDaemons);

const ROWS = Number(process.env.READMESH_TEST_COLLECTION_ROWS ?? 20_000);
const BATCH = 1_000;
const TIMEOUT_MS = 240_000 + 4 * ROWS;
/** What docs/operations.md states: the files of an emptied store are at most twice those of an empty one, and so much. */
const RECLAIMED_BYTES_MAX = 16_000_000;

/** Short windows: what is over may go after a few seconds. */
function tuningFile(): string {
  const path = join(tempFolder(), 'config.json');
  writeFileSync(path, JSON.stringify({ tuning: { lateRetryMs: 6_000, maxClockDriftMs: 2_000 } }));
  return path;
}

const config = tuningFile();

const daemon = (name: string, members: readonly Daemon[] = [], data?: string): Daemon =>
  new Daemon({
    name,
    join: members.map(({ address }) => address),
    args: ['--config', config],
    ...(data === undefined ? {} : { data }),
  });

function sizeOf(folder: string): number {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce(
      (sum, { parentPath, name }) =>
        sum + (statSync(join(parentPath, name), { throwIfNoEntry: false })?.size ?? 0),
      0,
    );
}

const statusOf = async (node: Daemon): Promise<Status> =>
  (await (await node.fetch('/v1/status')).json()) as Status;

async function writeAll(
  node: Daemon,
  operation: (key: string, value: string) => BatchOperation,
): Promise<void> {
  const data = await openPhoneData({ rowsMax: ROWS });
  await using client = await connect({ hosts: [node.address], timeoutMs: 60_000 });
  let batch: BatchOperation[] = [];
  const send = async (): Promise<void> => {
    if (batch.length > 0) await client.batch(batch, { replicas: 1 });
    batch = [];
  };
  for await (const [key, value] of data.rows()) if (batch.push(operation(key, value)) >= BATCH) await send();
  await send();
}

const keysOf = async (nodes: readonly Daemon[]): Promise<number[]> =>
  Promise.all(nodes.map(async (node) => (await statusOf(node)).digest.keys));

test(`the space of ${ROWS} deleted keys comes back, and no key does: not by a host that hung, nor by an old backup`, {
  timeout: TIMEOUT_MS,
}, async () => {
  const a = await daemon('a').start();
  const b = await daemon('b', [a]).start();
  const c = await daemon('c', [a]).start();
  const nodes = [a, b, c];
  const empty = sizeOf(a.data);
  await writeAll(a, (key, value) => ({ type: 'put', key, value }));
  await eventually(
    'all have the rows',
    async () => (await keysOf(nodes)).every((keys) => keys === ROWS),
    TIMEOUT_MS,
  );
  const backup = join(tempFolder(), 'old.rmb');
  expect(await a.cli('backup', backup)).toMatchObject({ code: 0 });

  // While a member hangs, it may hold what the deletions have to win over.
  c.pause();
  await writeAll(a, (key) => ({ type: 'del', key }));
  const deletedAt = Date.now();
  await eventually('windows pass', () => Date.now() - deletedAt > 15_000);
  expect((await statusOf(a)).digest.keys).toBe(ROWS);
  expect((await statusOf(a)).counters.recordsCollected).toBe(0);
  c.resume();
  await eventually(
    'all have collected',
    async () => (await keysOf(nodes)).every((keys) => keys === 0),
    TIMEOUT_MS,
  );
  const limit = 2 * empty + RECLAIMED_BYTES_MAX;
  await eventually('space is given back', () => nodes.every(({ data }) => sizeOf(data) <= limit), TIMEOUT_MS);
  console.log(`empty ${empty} bytes; emptied: ${nodes.map(({ data }) => sizeOf(data)).join(', ')}`);
  await using client = await connect({ hosts: [a.address], timeoutMs: 60_000, only: true });
  expect(await client.verify()).toMatchObject({ identical: true, entries: 0 });

  const data = join(tempFolder(), 'restored');
  expect(await runCli(['restore', backup, '--data', data])).toMatchObject({ code: 0 });
  const old = daemon('old', nodes, data);
  old.spawn();
  await eventually('it is left behind', async () =>
    (await statusOf(old)).issues.some(({ code }) => code === 'OUTDATED'),
  );
  await c.kill9();
  await c.start();
  for (const node of nodes) expect((await httpScan(node.address)).size).toBe(0);
  expect(await keysOf(nodes)).toEqual([0, 0, 0]);
  await client.put('anew', 1);
  expect((await statusOf(a)).counters).toMatchObject({
    recordsCollected: ROWS,
    digestMismatches: 0,
    recordsSetAside: 0,
  });
});
