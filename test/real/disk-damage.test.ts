/** What a host's disk can lose or damage while its node is down: noticed at the next start, and made good from the peers. */
import { createHash } from 'node:crypto';
import {
  cpSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { converged, eventually, verified } from '../support/copies.js';
import { Daemon, endDaemons, startCluster, startDaemon, tempFolder } from '../support/daemon.js';
import { httpDelete, httpGet, httpPut, httpScan, httpStatus } from '../support/http-api.js';
import { freePort } from '../support/ports.js';

afterEach(endDaemons);

const BLOCK_BYTES = 32_768;

/** Acknowledged by the victim and one other host. Large enough that the log has several blocks. */
async function write(victim: Daemon, prefix: string, count: number): Promise<Map<string, string>> {
  const written = new Map<string, string>();
  for (let i = 0; i < count; i++) {
    const key = `${prefix}/${i}`;
    const value = `${key} `.repeat(400);
    const { status, body } = await httpPut(victim.address, key, value, { replicas: 2, timeoutMs: 10_000 });
    expect(status, JSON.stringify(body)).toBe(200);
    written.set(key, value);
  }
  return written;
}

function newest(daemon: Daemon, end: string): string {
  const folder = join(daemon.data, 'db');
  const names = readdirSync(folder).filter((name) => name.endsWith(end));
  expect(names.length).toBeGreaterThan(0);
  return join(folder, names.sort().at(-1)!);
}

function largestTable(daemon: Daemon): string {
  const folder = join(daemon.data, 'db');
  const tables = readdirSync(folder).filter((name) => name.endsWith('.ldb'));
  return tables.map((name) => join(folder, name)).sort((a, b) => statSync(b).size - statSync(a).size)[0]!;
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 0x10;
  writeFileSync(path, bytes);
}

/** Exit 5, one line that says what is wrong and what to do, and every file as it was. */
async function untrusted(victim: Daemon, says: RegExp): Promise<void> {
  const list = (): string[] =>
    readdirSync(victim.data, { recursive: true, encoding: 'utf8' })
      // That of the killed process was stale.
      .filter((name) => name !== 'lock')
      .sort()
      .map((name) => `${name} ${statSync(join(victim.data, name)).size}`);
  const before = list();
  victim.spawn();
  expect(await victim.exited()).toEqual({ code: 5, signal: null });
  const line = victim.stderr.trim().split('\n').at(-1)!;
  expect(line).toMatch(/^readmesh: STORE_UNTRUSTED: .*--rebuild/);
  expect(line).toMatch(says);
  expect(list()).toEqual(before);
}

async function holdsAlone(
  victim: Daemon,
  others: Daemon[],
  written: ReadonlyMap<string, string>,
): Promise<void> {
  await converged([victim, ...others]);
  await verified(victim, others.length + 1);
  for (const other of others) other.pause();
  const live = await httpScan(victim.address);
  for (const [key, value] of written) expect(live.get(key), key).toBe(value);
  for (const other of others) other.resume();
}

test('a log that lost its end, by a cut or a flipped byte, is noticed, and the acknowledged writes in it come back from the peers', async () => {
  const daemons = await startCluster(3);
  const [first, second, victim] = daemons as [Daemon, Daemon, Daemon];
  const written = new Map<string, string>();
  const harms: [string, (log: string, size: number) => void][] = [
    ['cut within a record', (log, size) => truncateSync(log, size - 1_000)],
    ['cut by blocks', (log, size) => truncateSync(log, size - 2 * BLOCK_BYTES - 77)],
    ['cut to nothing', (log) => truncateSync(log, 0)],
    [
      'flipped in its last block',
      (log, size) => flip(log, Math.floor((size - 1) / BLOCK_BYTES) * BLOCK_BYTES + 9),
    ],
    ['gone', (log) => rmSync(log)],
  ];
  for (const [name, harm] of harms) {
    for (const [key, value] of await write(victim, name, 40)) written.set(key, value);
    const before = await httpStatus(victim.address);
    await victim.kill9();
    const log = newest(victim, '.log');
    const { size } = statSync(log);
    expect(size).toBeGreaterThan(4 * BLOCK_BYTES);
    harm(log, size);
    await victim.start();
    const after = await httpStatus(victim.address);
    expect(after.store.evidence.join(' '), name).toMatch(/lost-batches|unproved/);
    expect(after.origin).not.toBe(before.origin);
    await eventually(
      'it is in step again',
      async () => (await httpStatus(victim.address)).issues.length === 0,
    );
    await holdsAlone(victim, [first, second], written);
  }
}, 120_000);

test('a byte flipped in the middle of a log makes the store untrusted: exit 5, nothing touched; --rebuild sets it aside and copies from the cluster', async () => {
  const [first, second, victim] = (await startCluster(3)) as [Daemon, Daemon, Daemon];
  const written = await write(victim, 'k', 80);
  await victim.kill9();
  const log = newest(victim, '.log');
  expect(statSync(log).size).toBeGreaterThan(4 * BLOCK_BYTES);
  flip(log, BLOCK_BYTES + 5_000);
  await untrusted(victim, /its log \d+\.log/);
  await victim.start(['--rebuild', '--join', first.address]);
  expect(victim.stderr).toMatch(/"event":"set-aside","aside":"[^"]*db\.set-aside-/);
  expect(readdirSync(victim.data).some((name) => name.startsWith('db.set-aside-'))).toBe(true);
  await holdsAlone(victim, [first, second], written);
});

test('a deleted, cut or damaged table, a damaged manifest and a damaged CURRENT: exit 5, nothing touched, rebuilt when told to', async () => {
  const [first, second, victim] = (await startCluster(3)) as [Daemon, Daemon, Daemon];
  const written = await write(victim, 'k', 60);
  // Reopening turns the log into a table.
  await victim.kill9();
  await victim.start();
  await victim.stop();
  const database = join(victim.data, 'db');
  const sound = `${victim.data}-sound`;
  cpSync(database, sound, { recursive: true });
  const harms: [says: RegExp, harm: () => void][] = [
    [/its table .* is missing/, () => rmSync(newest(victim, '.ldb'))],
    [/its table .* bytes instead of/, () => truncateSync(newest(victim, '.ldb'), 100)],
    [/its table .* footer/, () => flip(newest(victim, '.ldb'), statSync(newest(victim, '.ldb')).size - 2)],
    [
      /its (manifest|log|table) /,
      () => flip(join(database, readFileSync(join(database, 'CURRENT'), 'latin1').trim()), 40),
    ],
    [/CURRENT is damaged/, () => writeFileSync(join(database, 'CURRENT'), 'MANIFEST-')],
  ];
  for (const [says, harm] of harms) {
    rmSync(database, { recursive: true });
    cpSync(sound, database, { recursive: true });
    harm();
    await untrusted(victim, says);
  }
  await victim.start(['--rebuild', '--join', first.address]);
  await holdsAlone(victim, [first, second], written);
  // The flag may stay: a store that is well is left alone.
  await victim.restart(['--rebuild', '--join', first.address]);
  expect(victim.stderr).not.toContain('set-aside');
});

test('a store over which the process died twice, or that was not closed, is checked whole before it is opened again: damage is found, and a sound one opens', async () => {
  const daemon = await startDaemon({ name: 'n1' });
  for (let i = 0; i < 50; i++)
    await httpPut(
      daemon.address,
      `k/${i}`,
      createHash('shake256', { outputLength: 2_000 }).update(`${i}`).digest('hex'),
    );
  await daemon.restart();
  await daemon.stop();
  const opening = join(daemon.data, 'opening');
  writeFileSync(opening, '2 0\n');
  await daemon.start();
  expect((await httpGet(daemon.address, 'k/7')).status).toBe(200);
  await daemon.stop();
  const table = largestTable(daemon);
  flip(table, 300);
  writeFileSync(opening, '1 1\n');
  await untrusted(daemon, /its table .* its block at \d+ is damaged/);
  // One that was merely not closed is checked, too, as long as it is small.
  writeFileSync(opening, '0 0\n');
  await untrusted(daemon, /its table .* its block at \d+ is damaged/);
  flip(table, 300);
  writeFileSync(opening, '5 0\n');
  await untrusted(daemon, /crashed again and again/);
});

test('after a power cut flushed acknowledged writes are there, a torn end of the log is no harm, and no sequence number is used again', async () => {
  // The record of the last opening lies where files do not survive a reboot: another such place is another boot.
  const data = join(tempFolder(), 'data');
  const boot = (): Daemon => new Daemon({ name: 'n1', data, env: { TMPDIR: tempFolder() } });
  const before = await boot().start();
  const origins = new Set<string>();
  for (let i = 0; i < 50; i++) expect((await httpPut(before.address, `k/${i}`, i)).status).toBe(200);
  origins.add((await httpStatus(before.address)).origin);
  await before.kill9();
  for (let round = 0; round < 3; round++) {
    const log = newest(before, '.log');
    // A batch that was being written: a head that promises more than there is.
    writeFileSync(
      log,
      Buffer.concat([readFileSync(log), Buffer.from('1122334455660001', 'hex'), Buffer.alloc(300, 7)]),
    );
    const after = await boot().start();
    const { origin, store } = await httpStatus(after.address);
    expect(origins.has(origin)).toBe(false);
    origins.add(origin);
    expect(store.evidence).toContain('unproved');
    for (let i = 0; i < 50; i++) expect((await httpGet(after.address, `k/${i}`)).body).toBe(i);
    expect((await httpPut(after.address, `round/${round}`, round)).status).toBe(200);
    await after.kill9();
  }
});

test('an old backup that is put back is recognised: new origin, its own later writes come back, deleted keys do not', async () => {
  const daemons = await startCluster(3);
  const [first, second, victim] = daemons as [Daemon, Daemon, Daemon];
  const written = await write(victim, 'old', 20);
  for (let i = 0; i < 10; i++) await httpPut(victim.address, `doomed/${i}`, i, { replicas: 3 });
  await victim.stop();
  const backup = `${victim.data}-backup`;
  cpSync(victim.data, backup, { recursive: true });
  await victim.start();
  for (const [key, value] of await write(victim, 'new', 20)) written.set(key, value);
  for (let i = 0; i < 10; i++) await httpDelete(victim.address, `doomed/${i}`, { replicas: 3 });
  const before = await httpStatus(victim.address);
  await victim.stop();
  // In place, by the same names and inodes: the hardest to tell.
  for (const name of readdirSync(join(victim.data, 'db'))) rmSync(join(victim.data, 'db', name));
  cpSync(join(backup, 'db'), join(victim.data, 'db'), { recursive: true });
  await victim.start();
  const after = await httpStatus(victim.address);
  expect(after.origin).not.toBe(before.origin);
  await holdsAlone(victim, [first, second], written);
  const live = await httpScan(victim.address);
  expect([...live.keys()].filter((key) => key.startsWith('doomed/'))).toEqual([]);
});

test('a cloned disk that runs beside its original is fenced loudly, and acknowledges nothing', async () => {
  const daemons = await startCluster(3);
  const [first, , victim] = daemons as [Daemon, Daemon, Daemon];
  await write(victim, 'k', 5);
  await victim.stop();
  const copy = join(tempFolder(), 'data');
  cpSync(victim.data, copy, { recursive: true });
  await victim.start();
  await converged(daemons);
  const clone = new Daemon({
    name: 'n3',
    data: copy,
    listen: `127.0.0.1:${await freePort()}`,
    join: [first.address],
  });
  await clone.start();
  await eventually('the clone says so', async () => {
    const { issues } = await httpStatus(clone.address);
    return issues.some(({ code }) => code === 'NAME_IN_USE' || code === 'DUPLICATE_ORIGIN');
  });
  await eventually('both sides say so', () => {
    const refused = /"event":"refused-by-peer","code":"(NAME_IN_USE|DUPLICATE_ORIGIN)"/.test(clone.stderr);
    return refused && /NAME_IN_USE|DUPLICATE_ORIGIN/.test(first.stderr + victim.stderr);
  });
  expect((await httpPut(clone.address, 'clone', 1, { timeoutMs: 500 })).status).not.toBe(200);
  await eventually(
    'the original goes on',
    async () => (await httpPut(victim.address, 'original', 1, { replicas: 3 })).status === 200,
  );
  expect((await httpStatus(clone.address)).origin).not.toBe((await httpStatus(victim.address)).origin);
});

test("a second process is refused while one of the two locks is left, and the first one's writes are kept", async () => {
  const first = await startDaemon({ name: 'n1' });
  expect((await httpPut(first.address, 'k', 1)).status).toBe(200);
  for (const lock of ['lock', join('db', 'LOCK')]) {
    const path = join(first.data, lock);
    renameSync(path, `${path}.gone`);
    const second = new Daemon({ name: 'n1', data: first.data });
    second.spawn();
    expect(await second.exited()).toEqual({ code: 4, signal: null });
    expect(second.stderr).toContain('STORE_IN_USE');
    renameSync(`${path}.gone`, path);
  }
  expect((await httpPut(first.address, 'k', 2)).status).toBe(200);
  await first.kill9();
  await first.start();
  expect((await httpGet(first.address, 'k')).body).toBe(2);
});
