/**
 * Crashes of the process: SIGKILL at random moments, under writes with the default acknowledgement (two hosts,
 * flushed). A killed node is started again with its usual flags and finds its cluster by itself.
 */
import { afterAll, expect, test } from 'vitest';
import { type SeededRandom, seededRandom } from '../../bin/seeded-random.js';
import { closedCopies, converged, eventually, verified } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster } from '../support/daemon.js';
import { History } from '../support/history.js';
import { httpStatus, type StatusBody } from '../support/http-api.js';
import { pause, Workload } from '../support/workload.js';

afterAll(endDaemons);

const KILLS = 50;
const DRIFT_MS = 5_000;
const seed = Number(process.env.READMESH_TEST_SEED ?? Math.floor(Math.random() * 1_000_000));

interface Killed {
  /** Kills of a node that served, and of one that was still starting. */
  serving: number;
  starting: number;
}

/**
 * Kills random nodes at random moments; at times one is killed while another is still down or starting. Every so
 * often writes get their acknowledgements first, or there would be little to lose.
 */
async function killRandomly(
  nodes: ReadonlyMap<string, Daemon>,
  random: SeededRandom,
  workload: Workload,
): Promise<Killed> {
  const killed: Killed = { serving: 0, starting: 0 };
  const starts = new Map<Daemon, Promise<void>>();
  const names = [...nodes.keys()];
  while (killed.serving + killed.starting < KILLS) {
    const wanted = workload.acknowledged + random.below(3) * 40;
    await eventually('writes are acknowledged', () => workload.acknowledged >= wanted);
    await pause(random.below(400));
    const daemon = nodes.get(random.pick(names))!;
    // Half of the kills wait for the node; the others hit it wherever it stands.
    if (random.next() < 0.5) await starts.get(daemon);
    if (!daemon.running) continue;
    if (daemon.stdout.includes('readmesh ready')) killed.serving++;
    else killed.starting++;
    await daemon.kill9();
    await starts.get(daemon);
    daemon.spawn();
    const start = daemon.ready().catch((error: Error) => {
      // Killed again before it was ready: the next round starts it.
      if (daemon.running) throw error;
    });
    starts.set(daemon, start);
  }
  await Promise.all(starts.values());
  return killed;
}

test('after 50 SIGKILLs at random moments under writes all copies are equal and no acknowledged write is missing', {
  timeout: 240_000,
}, async () => {
  console.log(`seed ${seed}: repeat with READMESH_TEST_SEED=${seed}`);
  const daemons = await startCluster(3);
  const nodes = new Map(daemons.map((daemon, i) => [`n${i + 1}`, daemon]));
  const before = new Map<string, StatusBody>();
  for (const [name, daemon] of nodes) before.set(name, await httpStatus(daemon.address));
  const history = new History(`kills-${seed}`);
  const workload = new Workload(
    history,
    [...nodes].map(([name, { address }]) => ({ name, address })),
    { seed, writers: 12 },
  ).start();

  const killed = await killRandomly(nodes, seededRandom(seed), workload);
  const atTheEnd = workload.acknowledged;
  await eventually('writes are acknowledged again', () => workload.acknowledged > atTheEnd + 50);
  await workload.stop();

  console.log(
    `${JSON.stringify(killed)}, ${workload.acknowledged} writes acknowledged, ${workload.unacknowledged} not`,
  );
  expect(killed.serving).toBeGreaterThan(20);
  const live = await converged(daemons);
  for (const daemon of daemons) await verified(daemon, daemons.length);
  for (const [name, daemon] of nodes) {
    const { members, ...after } = await httpStatus(daemon.address);
    expect(after.name).toBe(name);
    expect(members.map((member) => member.name).sort()).toEqual([...nodes.keys()]);
    // Nothing was lost, so there was no reason to give up an origin, unless a start was cut short.
    if (killed.starting === 0) expect(after.origin).toBe(before.get(name)!.origin);
  }
  const copies = await closedCopies(nodes);
  for (const dump of copies.values())
    expect(
      new Map([...dump].filter(([, entry]) => entry.value !== undefined).map(([k, e]) => [k, e.value])),
    ).toEqual(live);
  history.check(copies, { driftMs: DRIFT_MS });
});
