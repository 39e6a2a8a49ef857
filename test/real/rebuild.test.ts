/**
 * A rebuild that is interrupted again and again, by SIGKILL of the joiner or of a source. READMESH_TEST_REBUILD_ROWS
 * and READMESH_TEST_REBUILD_KILLS make it as large as one likes, and READMESH_TEST_SEED repeats one.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { seededRandom } from '../../bin/seeded-random.js';
import { connect } from '../../src/client/index.js';
import type { Status } from '../../src/read-store.js';
import { eventually } from '../support/copies.js';
import { Daemon, endDaemons, startCluster, tempFolder } from '../support/daemon.js';

afterEach(endDaemons);

const ROWS = Number(process.env.READMESH_TEST_REBUILD_ROWS ?? 40_000);
const KILLS = Number(process.env.READMESH_TEST_REBUILD_KILLS ?? 6);
const seed = Number(process.env.READMESH_TEST_SEED ?? Math.floor(Math.random() * 1_000_000));
const BATCH = 1_000;
const TIMEOUT_MS = 200_000 + ROWS;

async function load(daemon: Daemon): Promise<void> {
  const client = await connect({ hosts: [daemon.address], timeoutMs: 30_000 });
  try {
    for (let at = 0; at < ROWS; at += BATCH)
      await client.batch(
        Array.from({ length: Math.min(BATCH, ROWS - at) }, (_, i) => ({
          type: 'put' as const,
          key: `number/${String(at + i).padStart(7, '0')}`,
          value: { carrier: `carrier ${(at + i) % 97}`, place: `place ${(at + i) % 1_009}`, at: at + i },
        })),
        { replicas: 1 },
      );
  } finally {
    await client.close();
  }
}

async function statusOf(daemon: Daemon): Promise<Status> {
  return (await (await daemon.fetch('/v1/status')).json()) as Status;
}

/** All are ready, and at one version vector. */
async function inStep(daemons: readonly Daemon[]): Promise<void> {
  await eventually('all nodes at one version vector', async () => {
    const all = await Promise.all(daemons.map(statusOf));
    const vectors = all.map(({ heads }) => JSON.stringify(Object.entries(heads).sort()));
    return all.every(({ ready }) => ready) && vectors.every((vector) => vector === vectors[0]);
  });
}

/** A file of tuning, for `--config`. */
function tuningFile(tuning: Record<string, number>): string {
  const path = join(tempFolder(), 'config.json');
  writeFileSync(path, JSON.stringify({ tuning }));
  return path;
}

test(`a rebuild interrupted by ${KILLS} SIGKILLs of a random side fetches at most 1.2 times the data, and ends identical`, {
  timeout: TIMEOUT_MS,
}, async () => {
  console.log(`seed ${seed}: repeat with READMESH_TEST_SEED=${seed}`);
  const random = seededRandom(seed);
  // What is on its way when the joiner is killed is fetched again: little, in a small rebuild.
  const chunks = tuningFile({ chunkRowsMax: Math.max(32, Math.min(512, Math.ceil(ROWS / 320))) });
  const sources = await startCluster(2, { args: ['--config', chunks] });
  await load(sources[0]!);
  await inStep(sources);
  // Slow enough for the kills to come in the middle.
  const config = tuningFile({
    bootstrapRangeBytes: Math.ceil(ROWS * 8),
    bootstrapBytesPerSecond: Math.ceil(ROWS * 40),
  });
  const joiner = new Daemon({
    name: 'n3',
    join: sources.map(({ address }) => address),
    args: ['--config', config],
  });
  joiner.spawn();
  let fetched = 0;
  let last = 0;
  const killed = { joiner: 0, source: 0 };
  /** Entries that the joiner has by now, whoever fetched them. */
  const has = async (): Promise<number> => {
    const { bootstrap, ready } = await statusOf(joiner);
    expect(ready).toBe(false);
    last = bootstrap?.entries ?? 0;
    return last + (bootstrap?.resumedEntries ?? 0);
  };
  for (let kill = 0; kill < KILLS; kill++) {
    const wanted = (ROWS * (kill + 0.2 + random.next() * 0.6)) / KILLS;
    await joiner.listening();
    await eventually(`${Math.round(wanted)} entries`, async () => (await has()) >= wanted, TIMEOUT_MS);
    const response = await joiner.fetch('/readyz');
    expect(response.status).toBe(503);
    const victim = random.pick([joiner, ...sources]);
    await has();
    await victim.kill9();
    killed[victim === joiner ? 'joiner' : 'source'] += 1;
    if (victim === joiner) fetched += last;
    victim.spawn();
  }
  await joiner.ready(TIMEOUT_MS);
  const { bootstrap } = await statusOf(joiner);
  fetched += bootstrap!.entries;
  console.log(
    `${JSON.stringify(killed)}: fetched ${fetched} entries of ${ROWS}, ${(fetched / ROWS).toFixed(3)} times; the last run took over ${bootstrap!.resumedEntries}`,
  );
  expect(fetched).toBeGreaterThanOrEqual(ROWS);
  expect(fetched).toBeLessThanOrEqual(ROWS * 1.2);
  expect(bootstrap).toMatchObject({ complete: true });
  expect(bootstrap!.ranges).toBeGreaterThan(3);
  for (const source of sources) await source.ready();
  await inStep([...sources, joiner]);
  await using client = await connect({ hosts: [joiner.address], timeoutMs: 60_000, only: true });
  const { identical, entries, members } = await client.verify();
  expect([identical, entries, members.length]).toEqual([true, ROWS, 3]);
});
