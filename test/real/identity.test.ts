/** Whose store is this? Disks that were emptied, copied, or put back from a backup. */
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { converged, eventually } from '../support/copies.js';
import { Daemon, endDaemons, startDaemon, tempFolder } from '../support/daemon.js';
import { httpDelete, httpGet, httpPut, httpStatus } from '../support/http-api.js';

afterEach(endDaemons);

/** Short enough that origins are forgotten while a test waits. */
function quickConfig(): string {
  const file = join(tempFolder(), 'config.json');
  writeFileSync(file, JSON.stringify({ tuning: { beatMs: 250, tokenAgeMaxMs: 500 } }));
  return file;
}

async function quickCluster(count: number): Promise<Daemon[]> {
  const args = ['--config', quickConfig()];
  const founder = await startDaemon({ name: 'n1', args });
  const daemons = [founder];
  for (let i = 2; i <= count; i++)
    daemons.push(await startDaemon({ name: `n${i}`, args, join: [founder.address] }));
  return daemons;
}

const headsOf = async (daemon: Daemon): Promise<string[]> => {
  const status = await httpStatus(daemon.address);
  return Object.keys(status.heads).sort();
};

async function write(daemon: Daemon, key: string, value: unknown, replicas: number): Promise<void> {
  const { status, body } = await httpPut(daemon.address, key, value, { replicas, timeoutMs: 10_000 });
  expect(status, JSON.stringify(body)).toBe(200);
}

/** No vector holds an origin that belongs to no member. */
async function forgotten(daemons: readonly Daemon[]): Promise<void> {
  await eventually('ended origins are forgotten', async () => {
    for (const daemon of daemons) {
      const { heads, members } = await httpStatus(daemon.address);
      const origins = new Set(members.map((member) => member.origin));
      if (Object.keys(heads).some((origin) => !origins.has(origin))) return false;
    }
    return true;
  });
}

test('a host that starts with a wiped disk thirty times leaves a vector of bounded size, and every record', async () => {
  const daemons = await quickCluster(3);
  const [first, , wiped] = daemons as [Daemon, Daemon, Daemon];
  const origins = new Set<string>();
  for (let i = 0; i < 30; i++) {
    await write(wiped, `k/${i}`, i, 3);
    origins.add((await httpStatus(wiped.address)).origin);
    await wiped.kill9();
    wiped.wipe();
    await wiped.start();
  }
  expect(origins.size).toBe(30);
  await write(first, 'last', 1, 3);
  await forgotten(daemons);
  const { origin } = await httpStatus(first.address);
  for (const daemon of daemons) expect(await headsOf(daemon)).toEqual([origin]);
  expect((await converged(daemons)).size).toBe(31);
  // Restarted, it still tells what it has forgotten from what it lacks.
  await first.restart();
  expect(await headsOf(first)).toEqual([origin]);
  expect((await converged(daemons)).size).toBe(31);
}, 240_000);

test('a backup from before an origin was forgotten is recognised and filled anew, and undoes no deletion', async () => {
  const daemons = await quickCluster(3);
  const [first, restored, wiped] = daemons as [Daemon, Daemon, Daemon];
  await write(restored, 'deleted later', 'v', 3);
  const before = (await httpStatus(restored.address)).origin;
  await restored.stop();
  const backup = join(tempFolder(), 'backup');
  cpSync(restored.data, backup, { recursive: true });
  await restored.start();
  await write(wiped, 'unknown to the backup', 'v', 3);
  expect((await httpDelete(wiped.address, 'deleted later', { replicas: 3, timeoutMs: 10_000 })).status).toBe(
    200,
  );
  await wiped.kill9();
  wiped.wipe();
  await wiped.start();
  await forgotten(daemons);
  await restored.kill9();
  rmSync(restored.data, { recursive: true });
  cpSync(backup, restored.data, { recursive: true });
  restored.spawn();
  await restored.logged('rebuilding');
  await eventually('it is ready again', async () => (await httpStatus(restored.address)).ready);
  expect((await httpStatus(restored.address)).origin).not.toBe(before);
  await write(restored, 'after', 'v', 3);
  const live = await converged([first, restored, wiped]);
  expect([live.get('unknown to the backup'), live.get('deleted later')]).toEqual(['v', undefined]);
  expect((await httpGet(restored.address, 'deleted later')).status).toBe(404);
}, 120_000);

test('a copy of a store that runs beside the original is fenced, and says so', async () => {
  const daemons = await quickCluster(2);
  const [first, original] = daemons as [Daemon, Daemon];
  await write(original, 'k', 'v', 2);
  await original.stop();
  const folder = join(tempFolder(), 'copy');
  cpSync(original.data, folder, { recursive: true });
  await original.start();
  await write(original, 'k', 'of the original', 2);
  const copy = new Daemon({
    name: 'n2',
    data: folder,
    join: [first.address],
    args: ['--config', quickConfig()],
  });
  copy.spawn();
  await eventually('its health says so', async () => {
    const { issues } = await httpStatus(copy.address);
    return issues.some(({ code }) => code === 'NAME_IN_USE' || code === 'DUPLICATE_ORIGIN');
  });
  const status = await httpStatus(copy.address);
  expect(status.members.filter((member) => member.linked)).toEqual([]);
  expect(status.origin).not.toBe((await httpStatus(original.address)).origin);
  const { body } = await httpPut(copy.address, 'k', 'of the copy', { replicas: 2, timeoutMs: 500 });
  expect(body.code).toBe('ACK_TIMEOUT');
  expect((await httpGet(first.address, 'k')).body).toBe('of the original');
  await write(original, 'k', 'still taken', 2);
}, 60_000);
