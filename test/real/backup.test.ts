/**
 * Backup and restore on real processes. READMESH_TEST_BACKUP_WRITES makes the history as long as one likes;
 * READMESH_TEST_BACKUP_RATE paces it (writes a second; 0: as fast as it goes).
 */
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { connect, type LightClient } from '../../src/client/index.js';
import { KIND_REGISTER, KIND_TOMBSTONE, makeRow, NO_VALUE } from '../../src/core/entry.js';
import { nextStamp, stampFromHex } from '../../src/core/hlc.js';
import type { Row } from '../../src/core/types.js';
import { digestOf } from '../../src/node/digest.js';
import type { BatchOperation } from '../../src/read-store.js';
import { openDataFolder } from '../../src/storage/data-folder.js';
import { MemoryStore } from '../../src/storage/memory-store.js';
import { encodeValue } from '../../src/values.js';
import { eventually } from '../support/copies.js';
import { type Daemon, endDaemons, runCli, startCluster, startDaemon, tempFolder } from '../support/daemon.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';
import { pause } from '../support/workload.js';

afterEach(endDaemons);

const WRITES = Number(process.env.READMESH_TEST_BACKUP_WRITES ?? 12_000);
const RATE = Number(process.env.READMESH_TEST_BACKUP_RATE ?? 0);
const BATCH = RATE === 0 ? 50 : 250;
const TIMEOUT_MS = 120_000 + WRITES * 2;

interface Report {
  cluster: string;
  node: string;
  entries: number;
  heads: Record<string, number>;
}

async function backUp(daemon: Daemon, file: string): Promise<Report> {
  const { code, stdout, stderr } = await daemon.cli('backup', file, '--json');
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as Report;
}

async function restore(file: string, data: string): Promise<Report> {
  const { code, stdout, stderr } = await runCli(['restore', file, '--data', data, '--json']);
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as Report;
}

function ttlOf(n: number): { ttlMs?: number } {
  return n % 7 === 0 ? { ttlMs: n % 2 === 0 ? 1 : 3_600_000 } : {};
}

/** Every write of one writer in the order in which its node numbered them, from 1. */
class History {
  readonly rows: { key: string; row: Row }[] = [];
  readonly #origin: string;

  constructor(origin: string) {
    this.#origin = origin;
  }

  /** Keys are new mostly; some are written again, some deleted, some expire: soon (and are over by the end) or late. */
  async write(client: LightClient, count: number): Promise<void> {
    const startedAt = performance.now();
    for (let done = 0; done < count; done += BATCH) {
      const from = this.rows.length;
      const ops = Array.from({ length: BATCH }, (_, i): BatchOperation => {
        const n = from + i;
        const key = `k/${String(n % 5 === 4 ? n - 3 : n).padStart(8, '0')}`;
        return n % 10 === 9
          ? { type: 'del', key }
          : { type: 'put', key, value: { n, text: `value ${n % 97}` }, ...ttlOf(n) };
      });
      const { stamp } = await client.batch(ops, { replicas: 1 });
      // The receipt's stamp is the last one of the batch; they are consecutive.
      for (const [i, op] of ops.entries()) this.#add(op, nextStamp(stamp, i + 1 - ops.length), from + i + 1);
      const aheadMs = RATE === 0 ? 0 : ((done + BATCH) * 1_000) / RATE - (performance.now() - startedAt);
      if (aheadMs > 1) await pause(aheadMs);
    }
  }

  #add(op: BatchOperation, stamp: string, seq: number): void {
    const put = op.type === 'put';
    const entry = {
      kind: put ? KIND_REGISTER : KIND_TOMBSTONE,
      stamp: stampFromHex(stamp),
      origin: this.#origin,
      seq,
      value: put ? encodeValue(op.value) : NO_VALUE,
      ...(put && op.ttlMs !== undefined
        ? { expiresAt: Number.parseInt(stamp.slice(0, 12), 16) + op.ttlMs }
        : {}),
    };
    this.rows.push({ key: op.key, row: makeRow(op.key, entry, checksum) });
  }

  /** What a store holds after the first so many of them. */
  at(head: number): MemoryStore {
    const rows = new Map(this.rows.slice(0, head).map(({ key, row }) => [key, row]));
    const contents = {
      rows,
      heads: new Map([[this.#origin, head]]),
      meta: new Map(),
      hlc: { ms: 0, counter: 0 },
    };
    return new MemoryStore({ contents });
  }
}

test('a backup taken under writes is the state at its vector, entry by entry', {
  timeout: TIMEOUT_MS,
}, async () => {
  const [a, b] = (await startCluster(2)) as [Daemon, Daemon];
  const { origin } = await httpStatus(a.address);
  await using client = await connect({ hosts: [a.address], timeoutMs: 30_000, only: true });
  const history = new History(origin);
  await history.write(client, WRITES / 3);
  const startedAt = performance.now();
  const before = history.rows.length;
  const folder = tempFolder();
  const files: { file: string; report: Report }[] = [];
  let isWriting = true;
  const writing = (async () => {
    // However slow the machine: two backups are taken while it writes.
    do await history.write(client, WRITES / 12);
    while (history.rows.length < WRITES || files.length < 2);
    isWriting = false;
  })();
  while (isWriting && files.length < 6) {
    const file = join(folder, `${files.length}.rmb`);
    // Of a member that only receives as well.
    const report = await backUp(files.length % 2 === 0 ? a : b, file);
    files.push({ file, report });
  }
  await writing;
  const rate = ((history.rows.length - before) / (performance.now() - startedAt)) * 1_000;
  console.log(
    `${Math.round(rate)} writes a second, ${files.length} backups at ${files.map(({ report }) => report.heads[origin])} of ${history.rows.length}`,
  );
  for (const [i, { file, report }] of files.entries()) {
    const data = join(folder, `data${i}`);
    await restore(file, data);
    const head = report.heads[origin]!;
    const opened = await openDataFolder(data, { flush: true });
    try {
      const expected = await digestOf(history.at(head));
      expect(await digestOf(opened.store)).toEqual(expected);
      expect(expected.entries).toBe(report.entries);
    } finally {
      await opened.close();
    }
  }
  // One at least was taken in mid-flight, or it tested nothing.
  expect(files[0]!.report.heads[origin]).toBeLessThan(history.rows.length);
});

test('a restored node joins under a new origin, says how old it is, catches up, and deleted keys stay deleted', {
  timeout: 90_000,
}, async () => {
  const [a, b] = (await startCluster(2)) as [Daemon, Daemon];
  for (const key of ['kept', 'deleted', 'changed']) await httpPut(a.address, key, 1, { replicas: 2 });
  const file = join(tempFolder(), 'old.rmb');
  const report = await backUp(b, file);
  expect([report.cluster, report.node, report.entries]).toEqual(['default', 'n2', 3]);
  await a.cli('del', 'deleted');
  await httpPut(b.address, 'changed', 2, { replicas: 2 });
  await httpPut(b.address, 'new', 3, { replicas: 2 });
  // The host whose disk was lost, under its old name.
  await b.stop();
  b.wipe();
  await restore(file, b.data);
  await b.start(['--join', a.address]);
  expect(b.stderr).toContain('"event":"store-restored"');
  const status = (await (await b.fetch('/v1/status')).json()) as {
    store: { restored: { node: string; takenAt: string } };
  };
  expect(status.store.restored.node).toBe('n2');
  expect(Date.parse(status.store.restored.takenAt)).toBeLessThanOrEqual(Date.now());
  await eventually('it has caught up', async () => {
    const { issues, heads } = await httpStatus(b.address);
    const other = await httpStatus(a.address);
    return (
      issues.length === 0 &&
      JSON.stringify(Object.entries(heads).sort()) === JSON.stringify(Object.entries(other.heads).sort())
    );
  });
  const found = await Promise.all(
    ['kept', 'deleted', 'changed', 'new'].map((key) => httpGet(b.address, key)),
  );
  expect(found.map(({ status: code, body }) => (code === 200 ? body : code))).toEqual([1, 404, 2, 3]);
  expect((await httpPut(b.address, 'after', 4, { replicas: 2 })).status).toBe(200);
  const { code, stdout } = await a.cli('verify', '--json');
  expect([code, JSON.parse(stdout)]).toMatchObject([0, { identical: true, entries: 5 }]);
  expect((await b.cli('status')).stdout).toMatch(/restored {3}from a backup of n2 taken .* ago/);
});

test('a cluster that is lost as a whole comes back from one backup on one host; the others start empty', {
  timeout: 90_000,
}, async () => {
  const lost = await startCluster(2);
  await httpPut(lost[0]!.address, 'k', 'v', { replicas: 2 });
  const file = join(tempFolder(), 'all.rmb');
  await backUp(lost[0]!, file);
  for (const daemon of lost) await daemon.kill9();
  const data = join(tempFolder(), 'data');
  await restore(file, data);
  const founder = await startDaemon({ data, name: 'x' });
  expect((await httpGet(founder.address, 'k')).body).toBe('v');
  expect((await httpPut(founder.address, 'l', 'w')).body).toMatchObject({ replicas: 1 });
  const joiner = await startDaemon({ name: 'y', join: [founder.address] });
  expect((await httpGet(joiner.address, 'k')).body).toBe('v');
  expect((await httpPut(joiner.address, 'm', 'x')).body).toMatchObject({ replicas: 2 });
});

test('a damaged or truncated backup is refused with the place, and nothing is left behind', {
  timeout: 60_000,
}, async () => {
  const daemon = await startDaemon();
  await using client = await connect({ hosts: [daemon.address], timeoutMs: 30_000 });
  await client.batch(
    Array.from({ length: 1_000 }, (_, i) => ({ type: 'put' as const, key: `k${i}`, value: i })),
  );
  const folder = tempFolder();
  const file = join(folder, 'whole.rmb');
  await backUp(daemon, file);
  const size = statSync(file).size;
  const flipped = join(folder, 'flipped.rmb');
  const bytes = readFileSync(file);
  bytes[Math.floor(size / 2)]! ^= 0x40;
  writeFileSync(flipped, bytes);
  const short = join(folder, 'short.rmb');
  copyFileSync(file, short);
  truncateSync(short, size - 1);
  for (const bad of [flipped, short]) {
    const data = join(folder, 'data');
    const { code, stdout, stderr } = await runCli(['restore', bad, '--data', data]);
    expect([code, stdout]).toEqual([4, '']);
    expect(stderr).toMatch(/^readmesh: BACKUP_DAMAGED: \S+ is damaged at byte \d+ \(record \d+\): .*\n$/);
    expect(existsSync(data)).toBe(false);
  }
  const notOne = await runCli(['restore', join(folder, 'missing'), '--data', join(folder, 'data')]);
  expect([notOne.code, notOne.stderr.split('\n').length]).toEqual([2, 2]);
});

test('a backup that breaks off leaves neither a file nor a draft, the older one stays; the next host is asked', {
  timeout: 60_000,
}, async () => {
  const [a, b] = (await startCluster(2)) as [Daemon, Daemon];
  await httpPut(a.address, 'k', 'v', { replicas: 2 });
  const folder = tempFolder();
  const file = join(folder, 'x.rmb');
  await backUp(a, file);
  const before = readFileSync(file);
  a.pause();
  const hung = await runCli(['backup', file, '--hosts', a.address, '--timeout-ms', '300']);
  expect([hung.code, hung.stderr]).toEqual([3, expect.stringMatching(/^readmesh: TIMEOUT: .*\n$/)]);
  expect(readdirSync(folder)).toEqual(['x.rmb']);
  expect(readFileSync(file).equals(before)).toBe(true);
  const hosts = `${a.address},${b.address}`;
  const other = await runCli(['backup', file, '--hosts', hosts, '--timeout-ms', '300', '--json']);
  expect([other.code, JSON.parse(other.stdout)]).toMatchObject([
    0,
    { host: b.address, node: 'n2', entries: 1 },
  ]);
  const nowhere = await runCli(['backup', join(folder, 'no', 'where'), '--hosts', b.address]);
  expect(nowhere.code).toBe(2);
  expect(readdirSync(folder)).toEqual(['x.rmb']);
});
