/** The command line against real daemons: built program, own processes, real disks. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  Daemon,
  endDaemons,
  endDaemonsAfterAll,
  endDaemonsAfterEach,
  PROGRAM,
  runCli,
  startCluster,
  startDaemon,
  tempFolder,
} from '../support/daemon.js';

const lines = (text: string): unknown[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

describe('entries', () => {
  let node: Daemon;
  beforeAll(async () => {
    node = await startDaemon({ name: 'n1' });
  });
  endDaemonsAfterAll();

  test('put, get and del; a missing key prints nothing and exits 1', async () => {
    expect(await node.cli('get', 'a')).toMatchObject({ code: 1, stdout: '', stderr: '' });
    const put = await node.cli('put', 'a', '{"x":[1,null,{"$bigint":"5"}]}', '--json');
    expect(JSON.parse(put.stdout)).toEqual({
      stamp: expect.stringMatching(/^[0-9a-f]{32}$/),
      replicas: 1,
      token: expect.any(String),
      superseded: false,
    });
    expect(await node.cli('get', 'a')).toMatchObject({ code: 0, stdout: '{"x":[1,null,{"$bigint":"5"}]}\n' });
    expect((await node.cli('del', 'a')).stdout).toMatch(/^held by 1 host, stamp [0-9a-f]{32}\n$/);
    expect((await node.cli('get', 'a')).code).toBe(1);
  });

  test('keys and values that begin with a dash', async () => {
    expect((await node.cli('put', '--', '-x', '-5')).code).toBe(0);
    expect((await node.cli('put', 'negative', '-1.5')).code).toBe(0);
    expect((await node.cli('get', '--', '-x')).stdout).toBe('-5\n');
    expect((await node.cli('get', 'negative')).stdout).toBe('-1.5\n');
    expect((await node.cli('get', '--', '--hosts')).code).toBe(1);
  });

  test('hosts come from the option, wherever it stands, or from READMESH_HOSTS', async () => {
    const hosts = ['--hosts', node.address];
    for (const args of [
      ['put', ...hosts, 'h', '1'],
      ['put', 'h', ...hosts, '1'],
      ['put', 'h', '1', `--hosts=${node.address}`],
    ])
      expect((await runCli(args)).code).toBe(0);
    expect((await runCli(['get', 'h'], { env: { READMESH_HOSTS: node.address } })).stdout).toBe('1\n');
  });

  test('more replicas than there are hosts time out with exit code 3, and the write is there', async () => {
    const put = await node.cli('put', 'lonely', '1', '--replicas', '2', '--timeout-ms', '300', '--json');
    expect(put.code).toBe(3);
    expect(JSON.parse(put.stderr)).toMatchObject({ code: 'ACK_TIMEOUT', stamp: expect.any(String) });
    expect((await node.cli('get', 'lonely')).stdout).toBe('1\n');
  });

  test('export then import is exact, in byte order of keys', async () => {
    const entries = ['t/\uFF5E', 't/\u{1F30D}', 't/a', 't/\0', 't/', 't/__proto__'].map((key, i) => ({
      key,
      value: { i, date: { $date: '2024-05-06T07:08:09.123Z' }, nested: { $literal: { $a: 1 } } },
    }));
    const text = entries.map((entry) => `${JSON.stringify(entry)}\n`).join('');
    const imported = await runCli(['import', '-', '--hosts', node.address], { stdin: text });
    expect(imported).toMatchObject({ code: 0, stdout: 'imported 6 entries\n', stderr: '' });
    const exported = await node.cli('export', 't/');
    const byteOrder = [...entries].sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
    expect(lines(exported.stdout)).toEqual(byteOrder);
    const file = join(tempFolder(), 'export.jsonl');
    writeFileSync(file, exported.stdout);
    expect((await node.cli('import', file, '--json')).stdout).toBe('{"imported":6}\n');
    expect((await node.cli('export', 't/')).stdout).toBe(exported.stdout);
    const limited = await node.cli('scan', 't/', '--limit', '2');
    expect(lines(limited.stdout)).toEqual(byteOrder.slice(0, 2));
    expect((await node.cli('scan', '--limit', '0')).stdout).toBe('');
  });

  test('a bad line of an import is named, exits 2, and what came before it is there', async () => {
    const stdin = '{"key":"i/1","value":1}\n{"key":"i/2"}\n{"key":"i/3","value":3}\n';
    const run = await runCli(['import', '-', '--hosts', node.address], { stdin });
    expect(run).toMatchObject({ code: 2, stdout: '' });
    expect(run.stderr).toMatch(/^readmesh: INVALID_JSON: line 2: .*1 entry imported before[^\n]*\n$/);
    expect(lines((await node.cli('scan', 'i/')).stdout)).toEqual([{ key: 'i/1', value: 1 }]);
  });

  test('a reader that goes away ends an export quietly', async () => {
    const stdin = Array.from(
      { length: 3_000 },
      (_, i) => `{"key":"big/${i}","value":"${'x'.repeat(500)}"}\n`,
    ).join('');
    expect((await runCli(['import', '-', '--hosts', node.address], { stdin })).code).toBe(0);
    const child = spawn(process.execPath, [PROGRAM, 'export', 'big/', '--hosts', node.address], {
      stdio: 'pipe',
    });
    let stderr = '';
    child.stderr.on('data', (piece: Buffer) => (stderr += piece));
    await once(child.stdout, 'readable');
    child.stdout.destroy();
    const [code] = await once(child, 'close');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  test('watch prints a line per change under its prefix until it is interrupted', async () => {
    const child = spawn(process.execPath, [PROGRAM, 'watch', 'w/', '--hosts', node.address], {
      stdio: 'pipe',
    });
    let stdout = '';
    child.stdout.on('data', (piece: Buffer) => (stdout += piece));
    // It says nothing of being subscribed, so changes are made until one is seen.
    for (let i = 0; stdout === ''; i++) {
      await node.fetch('/v1/kv/elsewhere', { method: 'PUT', body: '0' });
      await node.fetch('/v1/kv/w%2F1', { method: 'PUT', body: JSON.stringify(i) });
    }
    await node.fetch('/v1/kv/w%2F1', { method: 'DELETE' });
    await expect.poll(() => stdout).toContain('"del"');
    child.kill('SIGINT');
    const [code] = await once(child, 'close');
    expect(code).toBe(0);
    const seen = lines(stdout);
    const stamp = expect.stringMatching(/^[0-9a-f]{32}$/);
    expect(seen[0]).toEqual({ type: 'put', key: 'w/1', value: expect.any(Number), stamp });
    expect(seen.at(-1)).toEqual({ type: 'del', key: 'w/1', stamp });
  });

  test('a host that hangs is given up at the deadline with exit code 3', async () => {
    node.pause();
    const run = await node.cli('get', 'a', '--timeout-ms', '300');
    node.resume();
    expect(run.code).toBe(3);
    expect(run.stderr).toMatch(/^readmesh: (TIMEOUT|UNREACHABLE): [^\n]+\n$/);
  });

  test('HTTP answers on the same port', async () => {
    await node.cli('put', 'both', '"ways"');
    const response = await node.fetch('/v1/kv/both');
    expect([response.status, await response.json()]).toEqual([200, 'ways']);
    expect((await node.fetch('/readyz')).status).toBe(200);
  });
});

describe('a cluster', () => {
  let nodes: Daemon[];
  beforeAll(async () => {
    nodes = await startCluster(3);
  });
  afterAll(endDaemons);

  test('status and members show every member; verify finds the copies identical', async () => {
    const [n1, n2] = nodes as [Daemon, Daemon, Daemon];
    for (let i = 0; i < 20; i++)
      expect((await n1.fetch(`/v1/kv/k${i}`, { method: 'PUT', body: String(i) })).status).toBe(200);
    const members = lines((await n2.cli('members', '--json')).stdout)[0] as {
      name: string;
      address: string;
    }[];
    expect(members.map(({ name, address }) => [name, address]).sort()).toEqual(
      nodes.map((node, i) => [`n${i + 1}`, node.address]),
    );
    const status = await n2.cli('status');
    expect(status.code).toBe(0);
    for (const node of nodes) expect(status.stdout).toContain(node.address);
    expect(status.stdout).toMatch(
      /^digest {5}\d+ (entry|entries), (\d+ % read|not yet compared|equal to all linked members)/m,
    );
    expect(JSON.parse((await n2.cli('status', '--json')).stdout)).toMatchObject({ name: 'n2', ready: true });
    expect(await n1.cli('verify', '--json')).toMatchObject({ code: 0, stderr: '' });
    expect((await n1.cli('verify')).stdout).toContain(
      '3 copies of 20 entries, tombstones included: identical',
    );
  });

  test('verify exits 3 while a member is away, and 0 once it is removed', async () => {
    const [n1, , n3] = nodes as [Daemon, Daemon, Daemon];
    await n3.stop();
    const away = await n1.cli('verify', '--timeout-ms', '3000');
    expect(away.code).toBe(3);
    expect(away.stdout).toMatch(/n3 .*unreachable/);
    expect(await n1.cli('remove', 'n4')).toMatchObject({ code: 1, stdout: '' });
    expect((await n1.cli('remove', 'n3')).code).toBe(0);
    expect((await n1.cli('verify')).code).toBe(0);
  });
});

describe('serve', () => {
  endDaemonsAfterEach();

  test('prints one line when it is ready, and ends with 0 when it is told to', async () => {
    const node = await startDaemon({ name: 'solo', host: 'rack-1' });
    expect(node.stdout).toBe(
      `readmesh ready listen=${node.address} name=solo host=rack-1 cluster=default data=${node.data}\n`,
    );
    for (const line of lines(node.stderr)) expect(line).toHaveProperty('level');
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    expect(node.stderr).toContain('"event":"stopped"');
  });

  test('a second signal ends it on the spot, in the middle of draining', async () => {
    const node = await startDaemon();
    // A write that nobody else will acknowledge keeps the first stop waiting.
    const write = node
      .fetch('/v1/kv/a?replicas=2&timeoutMs=60000', { method: 'PUT', body: '1' })
      .catch(() => {});
    const unacknowledged = async (): Promise<number> => {
      const status = (await (await node.fetch('/v1/status')).json()) as {
        queues: { unacknowledged: number };
      };
      return status.queues.unacknowledged;
    };
    await expect.poll(unacknowledged).toBe(1);
    process.kill(node.pid, 'SIGTERM');
    await node.logged('stopping');
    process.kill(node.pid, 'SIGTERM');
    expect(await node.exited()).toEqual({ code: 128 + 15, signal: null });
    expect(node.stderr).toContain('"event":"stop-forced"');
    await write;
  });

  test('serves again what it held when it was killed', async () => {
    const node = await startDaemon();
    await node.cli('put', 'kept', '"yes"');
    await node.kill9();
    await node.start();
    expect((await node.cli('get', 'kept')).stdout).toBe('"yes"\n');
  });

  test('says on which port it really listens, whatever it advertises', async () => {
    const node = await startDaemon({ advertise: 'localhost:9' });
    expect(node.address).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    expect((await node.fetch('/readyz')).status).toBe(200);
    const status = JSON.parse((await node.cli('status', '--json')).stdout);
    expect(status.address).toBe('localhost:9');
  });

  test('a new node that finds nobody to join answers reads with NOT_READY, and still stops with 0', async () => {
    const node = new Daemon({ join: ['127.0.0.1:1'] });
    node.spawn();
    await node.listening();
    expect((await node.fetch('/livez')).status).toBe(200);
    expect((await node.fetch('/readyz')).status).toBe(503);
    const response = await node.fetch('/v1/kv/a');
    expect([response.status, await response.json()]).toEqual([
      503,
      expect.objectContaining({ code: 'NOT_READY' }),
    ]);
    const get = await node.cli('get', 'a', '--timeout-ms', '1500');
    expect(get).toMatchObject({ code: 3, stdout: '' });
    expect(get.stderr).toContain('NOT_READY');
    expect((await node.cli('status', '--json')).code).toBe(0);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    expect(node.stdout).toBe('');
  });

  test('refuses a store that cannot be trusted with exit code 5 and advice, and rebuilds it when told to', async () => {
    const founder = await startDaemon({ name: 'n1' });
    await founder.cli('put', 'a', '1');
    const node = await startDaemon({ name: 'n2', join: [founder.address] });
    await node.stop();
    rmSync(join(node.data, 'db', 'CURRENT'));
    node.spawn();
    expect((await node.exited()).code).toBe(5);
    expect(node.stderr).toMatch(/^readmesh: STORE_UNTRUSTED: [^\n]*--rebuild[^\n]*$/m);
    expect(node.stdout).toBe('');
    await node.start(['--rebuild']);
    expect((await node.cli('get', 'a')).stdout).toBe('1\n');
  });

  test('refuses a data folder that is in use, with exit code 4', async () => {
    const node = await startDaemon();
    const second = new Daemon({ data: node.data });
    second.spawn();
    expect((await second.exited()).code).toBe(4);
    expect(second.stderr).toContain('STORE_IN_USE');
    expect((await node.fetch('/readyz')).status).toBe(200);
  });

  test('takes its options from a file, and flags win', async () => {
    const folder = tempFolder();
    const file = join(folder, 'readmesh.yaml');
    writeFileSync(
      file,
      `data: ${join(folder, 'data')}\nname: from-file\ncluster: from-file\ntuning: { beatMs: 500 }\n`,
    );
    const node = await startDaemon({ name: 'from-flag', args: ['--config', file] });
    const status = JSON.parse((await node.cli('status', '--json')).stdout);
    expect(status).toMatchObject({ name: 'from-flag', cluster: 'from-file' });
  });

  test('the wall clock of a daemon under test can be moved', async () => {
    const node = await startDaemon({ clock: true });
    const stampMs = async (): Promise<number> => {
      const { stdout } = await node.cli('put', 'a', '1', '--json');
      return Number.parseInt((JSON.parse(stdout) as { stamp: string }).stamp.slice(0, 12), 16);
    };
    const hour = 3_600_000;
    const before = await stampMs();
    expect(before).toBeLessThan(Date.now() + hour / 2);
    node.setClock(`+${hour}`);
    await expect.poll(stampMs, { timeout: 10_000 }).toBeGreaterThan(before + hour / 2);
  });
});
