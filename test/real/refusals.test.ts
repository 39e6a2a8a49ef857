/** Starts that must be refused, each with a coded line that says how to mend it; nothing is lost by any of them. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { converged, eventually } from '../support/copies.js';
import { Daemon, type Exit, endDaemons, startCluster, startDaemon, tempFolder } from '../support/daemon.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';
import { freePort } from '../support/ports.js';

afterEach(endDaemons);

/** Starts a daemon that must end by itself: how, and the line that it ended with. */
async function refused(daemon: Daemon, args: readonly string[] = []): Promise<Exit & { line: string }> {
  daemon.spawn(args);
  const exit = await daemon.exited();
  const lines = daemon.stderr.trim().split('\n');
  const line = lines.at(-1) ?? '';
  expect(line).toMatch(/^readmesh: [A-Z_]+: /);
  expect(daemon.stderr).not.toMatch(/^\s+at /m);
  return { ...exit, line };
}

test('a second process on the same data folder is refused, and the first goes on', async () => {
  const first = await startDaemon({ name: 'n1' });
  await httpPut(first.address, 'k', 1);
  for (let i = 0; i < 2; i++) {
    const second = await refused(new Daemon({ name: 'n1', data: first.data }));
    expect(second.code).toBe(4);
    expect(second.line).toContain('STORE_IN_USE');
  }
  expect((await httpPut(first.address, 'k', 2)).status).toBe(200);
  await first.kill9();
  await first.start();
  expect((await httpGet(first.address, 'k')).body).toBe(2);
});

test('a node of another cluster is refused in both directions, and both logs say so', async () => {
  const blue = await startDaemon({ name: 'blue', args: ['--cluster', 'blue'] });
  const red = new Daemon({ name: 'red', args: ['--cluster', 'red'], join: [blue.address] });
  red.spawn();
  // Each side judges by itself, and whoever is told first no longer needs to.
  for (const daemon of [red, blue])
    await eventually('the log says why', () =>
      /"event":"refused-(by-)?peer","code":"WRONG_CLUSTER"/.test(daemon.stderr),
    );
  expect(red.stdout).toBe('');
  expect((await httpStatus(blue.address)).members).toHaveLength(1);
  const { ready, issues } = await httpStatus(red.address);
  expect(ready).toBe(false);
  expect(issues.map((issue) => issue.code)).toContain('WRONG_CLUSTER');
});

test('a store is not opened under the name of another cluster or another node', async () => {
  const daemon = await startDaemon({ name: 'n1' });
  await httpPut(daemon.address, 'k', 1);
  await daemon.stop();
  const otherCluster = await refused(new Daemon({ data: daemon.data, args: ['--cluster', 'other'] }));
  expect(otherCluster.code).toBe(4);
  expect(otherCluster.line).toContain('WRONG_CLUSTER');
  const otherName = await refused(new Daemon({ data: daemon.data, name: 'n2' }));
  expect(otherName.code).toBe(2);
  expect(otherName.line).toContain('INVALID_OPTION');
  await daemon.start();
  expect((await httpGet(daemon.address, 'k')).body).toBe(1);
});

test('two clusters of one name that both have members are never merged', async () => {
  const [left] = await startCluster(2);
  const right = await startDaemon({ name: 'r1' });
  const second = await startDaemon({ name: 'r2', join: [right.address] });
  await httpPut(left!.address, 'k', 'left');
  await httpPut(right.address, 'k', 'right');
  const stray = new Daemon({ name: 'r2', data: second.data, join: [left!.address] });
  await second.stop();
  await stray.start();
  await eventually('it is refused', () => stray.stderr.includes('WRONG_CLUSTER'));
  expect((await httpGet(left!.address, 'k')).body).toBe('left');
  expect((await httpGet(stray.address, 'k')).body).toBe('right');
});

test('a seed that cannot be reached is retried and reported, and joined once it is there', async () => {
  const port = await freePort();
  const joiner = new Daemon({ name: 'n2', join: [`127.0.0.1:${port}`] });
  joiner.spawn();
  await joiner.listening();
  await joiner.logged('unreachable');
  expect(joiner.running).toBe(true);
  expect((await joiner.fetch('/livez')).status).toBe(200);
  expect((await joiner.fetch('/readyz')).status).toBe(503);
  expect((await httpGet(joiner.address, 'k')).status).toBe(503);
  const seed = await startDaemon({ name: 'n1', listen: `127.0.0.1:${port}` });
  await joiner.ready();
  expect((await httpPut(seed.address, 'k', 1)).body.replicas).toBe(2);
});

test('a port in use is refused', async () => {
  const first = await startDaemon({ name: 'n1' });
  const second = await refused(new Daemon({ name: 'n2', listen: first.address }));
  expect(second.code).toBe(2);
  expect(second.line).toContain('PORT_IN_USE');
});

test('a folder that holds other things, or a file, is refused and left as it is', async () => {
  const folder = tempFolder();
  writeFileSync(join(folder, 'letter.txt'), 'mine');
  const inFolder = await refused(new Daemon({ data: folder }));
  expect(inFolder.code).toBe(2);
  expect(inFolder.line).toContain('NOT_A_STORE');
  const inFile = await refused(new Daemon({ data: join(folder, 'letter.txt') }));
  expect(inFile.code).toBe(2);
  expect(inFile.line).toContain('NOT_A_STORE');
  expect(readdirSync(folder)).toEqual(['letter.txt']);
  expect(readFileSync(join(folder, 'letter.txt'), 'utf8')).toBe('mine');
});

test('a store without CURRENT is refused with advice and kept; --rebuild sets it aside and copies from the cluster', async () => {
  const [founder, second] = (await startCluster(2)) as [Daemon, Daemon];
  for (let i = 0; i < 100; i++) await httpPut(founder.address, `k/${i}`, i);
  await second.stop();
  const database = join(second.data, 'db');
  rmSync(join(database, 'CURRENT'));
  const before = readdirSync(database).sort();
  const { code, line } = await refused(second);
  expect(code).toBe(5);
  expect(line).toContain('STORE_UNTRUSTED');
  expect(line).toContain('--rebuild');
  expect(readdirSync(database).sort()).toEqual(before);
  await second.start(['--rebuild']);
  const aside = readdirSync(second.data).filter((name) => /^db\.set-aside-[0-9TZ.-]+$/.test(name));
  expect(aside).toHaveLength(1);
  expect(readdirSync(join(second.data, aside[0]!)).sort()).toEqual(before);
  expect((await converged([founder, second])).size).toBe(100);
  const written = await httpPut(second.address, 'after', 1);
  expect(written.body).toMatchObject({ replicas: 2, superseded: false });
});

test('a rebuild without anybody to copy from is refused, and a healthy store is not set aside by one', async () => {
  const alone = await startDaemon({ name: 'n1' });
  await httpPut(alone.address, 'k', 1);
  await alone.stop();
  const nobody = await refused(alone, ['--rebuild']);
  expect(nobody.code).toBe(2);
  expect(nobody.line).toContain('--join');
  await alone.start();
  const second = await startDaemon({ name: 'n2', join: [alone.address] });
  const { origin } = await httpStatus(second.address);
  await second.restart(['--rebuild']);
  expect((await httpStatus(second.address)).origin).toBe(origin);
  expect(readdirSync(second.data).filter((name) => name.includes('set-aside'))).toEqual([]);
});

test('a store from a newer version is refused and left untouched, even by --rebuild', async () => {
  const data = join(tempFolder(), 'data');
  mkdirSync(data);
  const marker = JSON.stringify({ product: 'readmesh', format: 999, state: 'created', created: 'some day' });
  writeFileSync(join(data, 'readmesh.json'), marker);
  for (const args of [[], ['--rebuild', '--join', '127.0.0.1:1']]) {
    const { code, line } = await refused(new Daemon({ data }), args);
    expect(code).toBe(5);
    expect(line).toContain('newer version');
  }
  expect(readFileSync(join(data, 'readmesh.json'), 'utf8')).toBe(marker);
});
