/** Hosts that hang for longer than a lease: the others go on without one of three, and one alone does not. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { converged, eventually } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster, tempFolder } from '../support/daemon.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';

afterEach(endDaemons);

type Trio = [Daemon, Daemon, Daemon];

/** Far longer than a busy machine keeps a process from being heard, or its own sleep would be taken for that. */
const LEASE_MS = 8_000;

async function trio(): Promise<Trio> {
  const file = join(tempFolder(), 'config.json');
  writeFileSync(file, JSON.stringify({ tuning: { leaseMs: LEASE_MS } }));
  return (await startCluster(3, { args: ['--config', file] })) as Trio;
}

const namesAt = async (daemon: Daemon): Promise<string[]> =>
  (await httpStatus(daemon.address)).members.map(({ name }) => name).sort();

test('a host that hangs for longer than a lease is excluded by the two others, which go on, and joins anew when it is back', async () => {
  const [first, second, hung] = await trio();
  const { status } = await httpPut(hung.address, 'before', 1, { replicas: 3, timeoutMs: 10_000 });
  expect(status).toBe(200);
  const origin = (await httpStatus(hung.address)).origin;
  hung.pause();
  for (const daemon of [first, second])
    await eventually('it is excluded', async () => (await namesAt(daemon)).join() === 'n1,n2');
  expect(await httpStatus(first.address)).toMatchObject({ excluded: [{ name: 'n3', origin }] });
  for (const command of ['members', 'status'])
    expect((await second.cli(command)).stdout).toMatch(/n3: excluded .* ago; it joins again when it is back/);
  const more = await httpPut(first.address, 'after', 2, { replicas: 2, timeoutMs: 10_000 });
  expect(more.status).toBe(200);
  hung.resume();
  await hung.logged('outdated');
  // It joins by itself, under a new origin; the old one stays out.
  await eventually('it is a member again', async () => (await namesAt(first)).join() === 'n1,n2,n3');
  expect((await converged([first, second, hung])).size).toBe(2);
  for (const daemon of [first, second, hung]) {
    const status = await httpStatus(daemon.address);
    expect(status.members.map((member) => member.origin)).not.toContain(origin);
    expect(status).not.toHaveProperty('excluded');
  }
  const back = await httpPut(hung.address, 'back', 3, { replicas: 3, timeoutMs: 10_000 });
  expect(back.status, JSON.stringify(back.body)).toBe(200);
}, 120_000);

test('one host alone of three takes no writes after half a lease, reads on, and excludes nobody', async () => {
  const daemons = await trio();
  const [alone, ...hung] = daemons;
  await httpPut(alone.address, 'k', 'v', { replicas: 3, timeoutMs: 10_000 });
  for (const daemon of hung) daemon.pause();
  await eventually('it takes no writes', async () => {
    const { status, body } = await httpPut(alone.address, 'late', 1, { replicas: 1 });
    return status === 503 && body.code === 'NO_MAJORITY';
  });
  const { issues, ready } = await httpStatus(alone.address);
  expect(issues.map(({ code }) => code)).toContain('NO_MAJORITY');
  expect(ready).toBe(true);
  expect((await httpGet(alone.address, 'k')).body).toBe('v');
  // Longer than a lease since they were last heard.
  await new Promise((resolve) => setTimeout(resolve, LEASE_MS));
  expect(await namesAt(alone)).toEqual(['n1', 'n2', 'n3']);
  for (const daemon of hung) daemon.resume();
  await eventually('all take writes', async () => {
    for (const daemon of daemons)
      if ((await httpPut(daemon.address, 'more', 1, { replicas: 3, timeoutMs: 5_000 })).status !== 200)
        return false;
    return true;
  });
  await converged(daemons);
  expect((await httpStatus(alone.address)).issues).toEqual([]);
  expect(await namesAt(alone)).toEqual(['n1', 'n2', 'n3']);
}, 120_000);
