/** Wall clocks that lie: ahead, behind, set back over a restart, or standing still. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { converged, dumpFolder, eventually } from '../support/copies.js';
import { type Daemon, endDaemons, runCli, startCluster, startDaemon, tempFolder } from '../support/daemon.js';
import { httpGet, httpPut, httpStatus } from '../support/http-api.js';

afterEach(endDaemons);

const HOUR_MS = 3_600_000;
const YEARS_MS = 10 * 365 * 24 * HOUR_MS;
const DRIFT_MS = 5_000;
const SHIM = fileURLToPath(new URL('../support/clock-shim.mjs', import.meta.url));
const millisecondsOf = (stamp: string): number => Number.parseInt(stamp.slice(0, 12), 16);

const saysItsClockIsOff = (daemon: Daemon): Promise<boolean> =>
  eventually('it says that its clock is off', async () =>
    (await httpStatus(daemon.address)).issues.some((issue) => issue.code === 'CLOCK_SKEW'),
  );

/** The others have refused it. */
const isCalledOff = async (daemon: Daemon): Promise<boolean> =>
  (await httpStatus(daemon.address)).members.every((member) => !member.linked);

const isUnlinked = (daemon: Daemon): Promise<boolean> => eventually('no links', () => isCalledOff(daemon));

/** The others go on with true stamps, and nothing of the odd one reaches them. */
async function expectHealthy(daemon: Daemon): Promise<void> {
  const { status, body } = await httpPut(daemon.address, 'healthy', 1);
  expect(status, JSON.stringify(body)).toBe(200);
  expect(body.replicas).toBeGreaterThanOrEqual(2);
  expect(millisecondsOf(body.stamp)).toBeLessThanOrEqual(Date.now() + DRIFT_MS);
  expect((await httpStatus(daemon.address)).issues.filter((issue) => issue.code === 'CLOCK_SKEW')).toEqual(
    [],
  );
}

for (const [name, aheadMs] of [
  ['an hour', HOUR_MS],
  ['ten years', YEARS_MS],
] as const)
  test(`a node whose clock jumps ${name} ahead loses its links, refuses writes and says why, and drags nobody along`, async () => {
    const [first, second, odd] = (await startCluster(3, { clock: true })) as [Daemon, Daemon, Daemon];
    expect((await httpPut(odd.address, 'k', 'before', { replicas: 3 })).status).toBe(200);
    odd.setClock(`+${aheadMs}`);
    await saysItsClockIsOff(odd);
    await isUnlinked(odd);
    const refused = await httpPut(odd.address, 'k', 'from the future', { replicas: 1 });
    expect(refused.status).toBe(503);
    expect(refused.body.code).toBe('CLOCK_SKEW');
    expect((await httpGet(odd.address, 'k')).body).toBe('before');
    await expectHealthy(first);
    await expectHealthy(second);
    odd.setClock('');
    await converged([first, second, odd]);
    const healed = await eventually('it writes again', async () => {
      const answer = await httpPut(odd.address, 'k', 'after', { replicas: 3 });
      return answer.status === 200 && answer;
    });
    expect(millisecondsOf(healed.body.stamp)).toBeLessThanOrEqual(Date.now() + DRIFT_MS);
    expect((await converged([first, second, odd])).get('k')).toBe('after');
  });

test('a clock that jumps ahead gives no stamp before the others could object, so nothing has to wait for it later', async () => {
  const daemons = await startCluster(3, { clock: true });
  const odd = daemons[2]!;
  odd.setClock(`+${HOUR_MS}`);
  let refused = false;
  for (let i = 0; !refused; i++) {
    const { status, body } = await httpPut(odd.address, `k/${i}`, i, { replicas: 1 });
    // What was written before the clock moved bears a true stamp.
    if (status === 200) expect(millisecondsOf(body.stamp)).toBeLessThanOrEqual(Date.now() + DRIFT_MS);
    else expect(body.code).toBe('CLOCK_SKEW');
    refused = status !== 200;
  }
  for (let i = 0; !(await isCalledOff(odd)); i++)
    expect((await httpPut(odd.address, `later/${i}`, i, { replicas: 1 })).body.code).toBe('CLOCK_SKEW');
  odd.setClock('');
  await converged(daemons);
  const after = await eventually('it writes again', async () => {
    const answer = await httpPut(odd.address, 'after', 1, { replicas: 3 });
    return answer.status === 200 && answer;
  });
  expect(millisecondsOf(after.body.stamp)).toBeLessThanOrEqual(Date.now() + DRIFT_MS);
});

test('a node that starts with a clock ten years ahead is refused by the others and serves reads', async () => {
  const [first, second, odd] = (await startCluster(3, { clock: true })) as [Daemon, Daemon, Daemon];
  expect((await httpPut(first.address, 'k', 1, { replicas: 3 })).status).toBe(200);
  await odd.stop();
  odd.setClock(`+${YEARS_MS}`);
  await odd.start();
  await saysItsClockIsOff(odd);
  expect((await httpGet(odd.address, 'k')).body).toBe(1);
  expect((await httpPut(odd.address, 'k', 2)).body.code).toBe('CLOCK_SKEW');
  await expectHealthy(first);
  await expectHealthy(second);
  await odd.stop();
  odd.setClock('');
  await odd.start();
  expect((await converged([first, second, odd])).get('k')).toBe(1);
});

test('stamps rise although the clock was set back two seconds and the node restarted', async () => {
  const [first, odd] = (await startCluster(2, { clock: true })) as [Daemon, Daemon];
  const stamps: string[] = [];
  const write = async (value: number): Promise<void> => {
    const { status, body } = await httpPut(odd.address, 'k', value);
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body.superseded).toBe(false);
    stamps.push(body.stamp);
  };
  await write(1);
  odd.setClock('-2000');
  await odd.restart();
  await eventually('linked', async () =>
    (await httpStatus(odd.address)).members.every((m) => m.self || m.linked),
  );
  for (let value = 2; value <= 20; value++) await write(value);
  // Another host's write in between is not lost to the slow clock, nor the slow clock's to it.
  const between = await httpPut(first.address, 'k', 'between');
  expect(between.body.stamp > stamps.at(-1)!).toBe(true);
  stamps.push(between.body.stamp);
  await write(21);
  expect(stamps).toEqual([...stamps].sort());
  expect(new Set(stamps).size).toBe(stamps.length);
  expect((await converged([first, odd])).get('k')).toBe(21);
});

test('a node that comes back with its clock two hours behind refuses writes rather than stamp them lower, and serves reads', async () => {
  const [first, second, odd] = (await startCluster(3, { clock: true })) as [Daemon, Daemon, Daemon];
  const before = await httpPut(odd.address, 'k', 'before', { replicas: 3 });
  await odd.stop();
  odd.setClock(`-${2 * HOUR_MS}`);
  await odd.start();
  const refused = await httpPut(odd.address, 'k', 'backdated', { replicas: 1 });
  expect(refused.status).toBe(503);
  expect(refused.body.code).toBe('CLOCK_SKEW');
  await saysItsClockIsOff(odd);
  expect((await httpGet(odd.address, 'k')).body).toBe('before');
  await expectHealthy(first);
  await expectHealthy(second);
  odd.setClock('');
  const after = await eventually('it writes again', async () => {
    const answer = await httpPut(odd.address, 'k', 'after');
    return answer.status === 200 && answer;
  });
  expect(after.body.stamp > before.body.stamp).toBe(true);
  expect((await converged([first, second, odd])).get('k')).toBe('after');
});

const ROWS = 200_000;

test('200,000 writes under a clock that stands still have unique stamps in the order of the writes', {
  timeout: 120_000,
}, async () => {
  const frozenAt = Date.now();
  const daemon = await startDaemon({ name: 'n1', clock: true });
  daemon.setClock(`=${frozenAt}`);
  const clockFile = join(tempFolder(), 'clock');
  writeFileSync(clockFile, `=${frozenAt}`);
  const key = (i: number): string => `k/${String(i).padStart(6, '0')}`;
  let lines = '';
  for (let i = 0; i < ROWS; i++) lines += `{"key":"${key(i)}","value":${i}}\n`;
  // The command line stamps what it imports itself, so its clock stands still as well.
  const imported = await runCli(['import', '-', '--hosts', daemon.address], {
    stdin: lines,
    env: { NODE_OPTIONS: `--import=${SHIM}`, READMESH_TEST_CLOCK: clockFile },
    timeoutMs: 90_000,
  });
  expect(imported, imported.stderr).toMatchObject({ code: 0 });
  // And writes that the daemon stamps.
  const given: string[] = [];
  for (let i = 0; i < 500; i++) {
    const { status, body } = await httpPut(daemon.address, `h/${i}`, i);
    expect(status, JSON.stringify(body)).toBe(200);
    given.push(body.stamp);
  }
  expect(given).toEqual([...new Set(given)].sort());
  expect((await daemon.stop()).code).toBe(0);
  const dump = await dumpFolder(daemon.data);
  expect(dump.size).toBe(ROWS + given.length);
  const stamps: string[] = [];
  for (let i = 0; i < ROWS; i++) stamps.push(dump.get(key(i))!.stamp);
  for (let i = 1; i < ROWS; i++)
    if (stamps[i]! <= stamps[i - 1]!) throw new Error(`${key(i)} is not after the one before`);
  expect(millisecondsOf(given.at(-1)!)).toBeLessThanOrEqual(frozenAt + DRIFT_MS);
});
