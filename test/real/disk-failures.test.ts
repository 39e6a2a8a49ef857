/** Disks that are full, fail, or vanish under a running node: it acknowledges nothing that may be lost, says so, reads on, and comes back by itself. */
import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { closedCopies, converged, eventually, verified } from '../support/copies.js';
import { Daemon, endDaemons, startCluster, startDaemon } from '../support/daemon.js';
import {
  compileFailingDisk,
  FailingDisk,
  type LimitedFolder,
  mountLimited,
} from '../support/failing-disk.js';
import { History } from '../support/history.js';
import { httpGet, httpPut, httpStatus, type WriteAnswer, type WriteQuery } from '../support/http-api.js';
import { Workload } from '../support/workload.js';

const DRIFT_MS = 5_000;
const mounted = new Set<LimitedFolder>();

afterEach(async () => {
  for (const folder of mounted) folder.unmount();
  mounted.clear();
  await endDaemons();
});

interface Trouble {
  /** Makes the disk of the third node fail. */
  begin(): void;
  /** Mends it. */
  end(): void;
  /** What its health says meanwhile. */
  says: RegExp;
}

/**
 * Three nodes under writes; the disk of the third fails for a while. Then all three are killed with SIGKILL, so that only what is on their
 * disks counts.
 */
async function sufferAndRecover(name: string, daemons: Daemon[], trouble: Trouble): Promise<void> {
  const victim = daemons[2]!;
  const nodes = new Map(daemons.map((daemon, i) => [`n${i + 1}`, daemon]));
  const history = new History(name);
  const workload = new Workload(
    history,
    [...nodes].map(([node, { address }]) => ({ name: node, address })),
    { seed: 31 },
  ).start();
  const put = async (key: string, value: unknown, query: WriteQuery): Promise<WriteAnswer> => {
    const op = history.invoke({ kind: 'put', key, value, node: 'n3' });
    const answer = await httpPut(victim.address, key, value, query);
    const { stamp, token, code } = answer.body;
    if (answer.status === 200) history.end('ok', op, { stamp, token, value });
    else history.end('info', op, { code });
    return answer;
  };
  await put('kept', 'before', { replicas: 3 });
  await eventually('writes are acknowledged', () => workload.acknowledged > 200);
  const before = await httpStatus(victim.address);

  trouble.begin();
  const degraded = await eventually('it says that its store failed', async () => {
    const status = await httpStatus(victim.address);
    return status.phase === 'degraded' && status;
  });
  expect(degraded.ready).toBe(false);
  expect(degraded.issues).toContainEqual({
    code: 'STORE_FAILED',
    message: expect.stringMatching(trouble.says),
  });
  expect((await victim.fetch('/readyz')).status).toBe(503);
  expect((await victim.fetch('/livez')).status).toBe(200);
  // Reads go on, also after it tried to recover.
  await eventually('it tries to recover', async () => {
    const { store } = await httpStatus(victim.address);
    return (store.failure?.attempts ?? 0) >= 2;
  });
  expect((await httpGet(victim.address, 'kept')).body).toBe('before');
  const refused = await put('refused', 1, { replicas: 1 });
  expect(refused.body.code).toBe('STORE_FAILED');
  const during = workload.acknowledged;
  await eventually('the others go on', () => workload.acknowledged > during + 50);

  trouble.end();
  const after = await eventually('it is ready again by itself', async () => {
    const status = await httpStatus(victim.address);
    return status.ready && status.issues.length === 0 && status;
  });
  expect(after.store.reopenings).toBe(1);
  expect(after.store.evidence).toContain('write-error');
  expect(after.origin).not.toBe(before.origin);
  expect((await put('after', 1, { replicas: 3, timeoutMs: 10_000 })).status).toBe(200);
  const recovered = workload.acknowledged;
  await eventually('writes are acknowledged', () => workload.acknowledged > recovered + 100);
  await workload.stop();

  await Promise.all(daemons.map((daemon) => daemon.kill9()));
  await Promise.all(daemons.map((daemon) => daemon.start()));
  const live = await converged(daemons);
  expect(live.get('after')).toBe(1);
  await verified(victim, daemons.length);
  history.check(await closedCopies(nodes), { driftMs: DRIFT_MS });
}

async function clusterWith(third: {
  data: string;
  env?: Readonly<Record<string, string>>;
}): Promise<Daemon[]> {
  const [first, second] = (await startCluster(2)) as [Daemon, Daemon];
  return [first, second, await startDaemon({ name: 'n3', join: [first.address], ...third })];
}

test('a node on a full disk acknowledges nothing, reads on, says so, and recovers when there is room; no acknowledged write is lost', async (context) => {
  const disk = mountLimited(48);
  if (disk === undefined) return context.skip();
  mounted.add(disk);
  const data = join(disk.path, 'data');
  mkdirSync(data);
  const daemons = await clusterWith({ data });
  await sufferAndRecover('disk-full', daemons, {
    begin: () => disk.fill(0),
    end: () => disk.drain(),
    says: /no space left/,
  });
});

let library: string | undefined;
beforeAll(() => {
  library = compileFailingDisk();
});

for (const [what, faults] of [
  ['writing', ['write']],
  ['flushing', ['sync']],
] as const)
  test(`a node whose disk fails when ${what} (EIO) acknowledges nothing, reads on, says so, and recovers; no acknowledged write is lost`, async (context) => {
    if (library === undefined) return context.skip();
    const disk = new FailingDisk(library);
    const daemons = await clusterWith(disk);
    await sufferAndRecover(`eio-${what}`, daemons, {
      begin: () => disk.set(...faults),
      end: () => disk.set(),
      says: /input\/output error/,
    });
  });

test('a node whose data folder is removed ends at once, exits 4 and says why; nothing acknowledged is lost', async () => {
  const daemons = await startCluster(3);
  const [first, second, victim] = daemons as [Daemon, Daemon, Daemon];
  const receipt = await httpPut(victim.address, 'kept', 1, { replicas: 2 });
  expect(receipt.status).toBe(200);
  rmSync(victim.data, { recursive: true, force: true });
  const exit = await victim.exited();
  expect(exit).toEqual({ code: 4, signal: null });
  expect(victim.stderr.trim().split('\n').at(-1)).toMatch(
    /^readmesh: STORE_FAILED: .* was removed or replaced/,
  );
  await converged([first, second]);
  expect((await httpGet(first.address, 'kept')).body).toBe(1);
  // With its usual flags it comes back as a new, empty member.
  await victim.start();
  await converged(daemons);
});

test('a data folder that is replaced by another one while the node runs is noticed, and the node ends', async () => {
  const daemon = await startDaemon({ name: 'n1' });
  await httpPut(daemon.address, 'k', 1);
  renameSync(daemon.data, `${daemon.data}-moved`);
  mkdirSync(daemon.data);
  expect(await daemon.exited()).toEqual({ code: 4, signal: null });
  rmSync(daemon.data, { recursive: true, force: true });
  renameSync(`${daemon.data}-moved`, daemon.data);
  await daemon.start();
  expect((await httpGet(daemon.address, 'k')).body).toBe(1);
});

test('a write error in the middle of a bootstrap is got over, and the bootstrap completed', async (context) => {
  if (library === undefined) return context.skip();
  const founder = await startDaemon({ name: 'n1' });
  for (let i = 0; i < 60; i++) await httpPut(founder.address, `big/${i}`, 'x'.repeat(500_000));
  const disk = new FailingDisk(library);
  const joiner = new Daemon({ name: 'n2', join: [founder.address], ...disk });
  joiner.spawn();
  await joiner.logged('bootstrap-from');
  disk.set('sync');
  await joiner.logged('store-failed');
  expect(joiner.stderr).not.toContain('"event":"bootstrapped"');
  expect(joiner.stdout).toBe('');
  disk.set();
  await joiner.ready();
  expect((await httpStatus(joiner.address)).store.reopenings).toBe(1);
  expect((await converged([founder, joiner])).size).toBe(60);
});
