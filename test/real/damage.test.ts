/**
 * Bits that flip in the tables of one member's disk. It answers every read as if nothing had happened, none of its
 * peers hears of it, and in the end its own copy is whole again.
 *
 * READMESH_DAMAGE_ROWS and READMESH_DAMAGE_FLIPS set the size; the bar of the project is 455480 and 1000.
 */
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { loadRows } from '../../bin/demo/load.js';
import { openPhoneData, type PhoneRow, readPhoneRows } from '../../bin/phone-data.js';
import { connect, isReadmeshError, type LightClient } from '../../src/client/index.js';
import type { Status } from '../../src/read-store.js';
import { dumpFolder, eventually, verified } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster, tempFolder } from '../support/daemon.js';
import { countDamaged, damageRecords, flipBits } from '../support/damage.js';
import { httpStatus } from '../support/http-api.js';
import { pause } from '../support/workload.js';

afterEach(endDaemons);

const ROWS = Number(process.env.READMESH_DAMAGE_ROWS ?? 60_000);
const FLIPS = Number(process.env.READMESH_DAMAGE_FLIPS ?? 150);
const RECORDS = 1_000;
const SEED = Number(process.env.READMESH_TEST_SEED ?? Math.floor(Math.random() * 1_000_000));
const TEST_MS = 60_000 + ROWS + 100 * FLIPS;
const HEALED_MS = TEST_MS / 2;
const PAGE = 500;
/** What a node answers that knows better than to guess. */
const REFUSALS: readonly string[] = ['DAMAGED', 'UNPROVED', 'NOT_READY'];
/** Starts that end in a crash or a refusal before the store is set aside. */
const STARTS_MAX = 2;

interface Read {
  wrong: string[];
  missing: string[];
  /** Reads that were refused with DAMAGED or UNPROVED, and repeated. */
  refused: number;
}

const nothingRead = (): Read => ({ wrong: [], missing: [], refused: 0 });

/** Every row, asked of this node alone. */
async function readAll(client: LightClient, rows: readonly PhoneRow[], read = nothingRead()): Promise<Read> {
  for (let i = 0; i < rows.length; i += PAGE) {
    const page = rows.slice(i, i + PAGE);
    const values = await patiently(read, () => client.getMany<string>(page.map(([key]) => key)));
    page.forEach(([key, expected], at) => {
      const value = values[at];
      if (value === undefined) read.missing.push(key);
      else if (value !== expected) read.wrong.push(key);
    });
  }
  return read;
}

async function patiently<T>(read: Read, ask: () => Promise<T>): Promise<T> {
  const until = performance.now() + HEALED_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      const refused = isReadmeshError(error) && REFUSALS.includes(error.code);
      if (!refused || performance.now() > until) throw error;
      read.refused += 1;
      await pause(200);
    }
  }
}

/**
 * LevelDB takes no more writes once it has met a damaged block while it compacts. A store with one says so in health, is
 * refused at its next start (exit code 5), and rebuilt with --rebuild. True if that was needed.
 */
async function rebuiltIfBroken(daemon: Daemon): Promise<boolean> {
  if (!daemon.running) {
    // LevelDB may abort the whole process at a damaged block. Its operator gives it an empty folder.
    daemon.wipe();
    await daemon.start();
    return true;
  }
  const status = await httpStatus(daemon.address);
  const codes = status.issues.map(({ code }) => code);
  if (!codes.includes('STORE_FAILED') && !status.integrity.broken) return false;
  expect(codes.some((code) => code === 'STORE_FAILED' || code === 'DAMAGED')).toBe(true);
  await daemon.stop();
  daemon.spawn();
  expect((await daemon.exited()).code).toBe(5);
  await daemon.start(['--rebuild']);
  return true;
}

/** Starts it, with --rebuild once LevelDB has refused or crashed at its files. True when it was rebuilt. */
async function startDamaged(daemon: Daemon): Promise<boolean> {
  for (let starts = 0; starts < STARTS_MAX; starts++) {
    daemon.spawn();
    try {
      await daemon.ready(HEALED_MS);
      return false;
    } catch (error) {
      if (daemon.running) throw error;
    }
  }
  await daemon.start(['--rebuild']);
  return true;
}

function tuned(): string {
  const file = join(tempFolder(), 'config.json');
  writeFileSync(
    file,
    JSON.stringify({ tuning: { scrubBytesPerSecond: 16_777_216, scrubPauseMs: 3_600_000 } }),
  );
  return file;
}

interface Stage {
  readonly rows: PhoneRow[];
  readonly daemons: [Daemon, Daemon, Daemon];
  /** Database of the third, which is stopped. */
  readonly db: string;
}

/** Three members with the data; the third is stopped, all of its data in tables. */
async function stage(): Promise<Stage> {
  const rows = await readPhoneRows(await openPhoneData({ rowsMax: ROWS }));
  const daemons = (await startCluster(3, { args: ['--config', tuned()] })) as Stage['daemons'];
  const loader = await connect({ hosts: [daemons[0].address], timeoutMs: 30_000 });
  await loadRows(loader, rows, undefined, { replicas: 3 });
  await loader.close();
  const third = daemons[2];
  // What lies in the log goes into tables at the next start.
  await third.stop();
  await third.start();
  await third.stop();
  return { rows, daemons, db: join(third.data, 'db') };
}

/** The peers have noticed nothing; without them, the third answers everything, misses included, and holds the same. */
async function expectWhole({ rows, daemons: [first, second, third] }: Stage): Promise<void> {
  await verified(first, 3);
  for (const { address } of [first, second]) expect((await httpStatus(address)).counters.damageFound).toBe(0);
  await first.stop();
  await second.stop();
  const client = await connect({ hosts: [third.address], timeoutMs: 20_000, only: true });
  expect(await readAll(client, rows)).toEqual(nothingRead());
  expect(await client.getMany(['no such key', 'carrier/xx/0'])).toEqual([undefined, undefined]);
  await client.close();
  await third.stop();
  const [healed, sound] = [await dumpFolder(third.data), await dumpFolder(first.data)];
  expect(healed.size).toBe(sound.size);
  for (const [key, entry] of sound) expect(healed.get(key)).toEqual(entry);
}

test(
  `${RECORDS} damaged and vanished records of ${ROWS}: nothing wrong or missing is served, nothing is passed on, all is healed in place`,
  async () => {
    const staged = await stage();
    const [, , third] = staged.daemons;
    const damaged = await damageRecords(staged.db, RECORDS, SEED);
    await third.start();
    const client = await connect({ hosts: [third.address], timeoutMs: 20_000, only: true });
    const served = await readAll(client, staged.rows);
    expect([served.wrong, served.missing]).toEqual([[], []]);
    const { counters, scrub } = await eventually(
      'the copy is proved whole',
      async () => {
        const now = await client.status();
        return now.integrity.proved && now.integrity.lost === 0 ? now : undefined;
      },
      HEALED_MS,
    );
    const { damageFound: found, damageHealed: healed } = counters;
    console.log(JSON.stringify({ seed: SEED, rows: ROWS, damaged, found, healed, ...served, scrub }));
    expect(found).toBeGreaterThanOrEqual(damaged);
    expect([counters.recordsLost, scrub?.unhealed]).toEqual([0, 0]);
    await client.close();
    await expectWhole(staged);
  },
  TEST_MS * 2,
);

test(
  `${FLIPS} flipped bits in the tables of a member with ${ROWS} rows: nothing wrong or missing is served, nothing is passed on, all is healed or rebuilt`,
  async () => {
    const staged = await stage();
    const [, , third] = staged.daemons;
    const scratch = tempFolder();
    cpSync(staged.db, join(scratch, 'before'), { recursive: true });
    flipBits(staged.db, FLIPS, SEED);
    const count = await countDamaged(join(scratch, 'before'), staged.db, scratch);

    let rebuilt = await startDamaged(third);
    const read = nothingRead();
    const wholeNow = async (): Promise<Status | undefined> => {
      const client = await connect({ hosts: [third.address], timeoutMs: 20_000, only: true });
      try {
        await readAll(client, staged.rows, read);
        return await eventually(
          'the copy is proved whole',
          async () => {
            const now = await client.status();
            if (now.integrity.broken && (now.scrub?.passes ?? 0) > 0) return now;
            return now.phase === 'degraded' || (now.integrity.proved && now.integrity.lost === 0)
              ? now
              : undefined;
          },
          HEALED_MS,
        );
      } finally {
        await client.close();
      }
    };
    let status = await wholeNow().catch(() => undefined);
    const before = status?.phase === 'ready' ? status : undefined;
    if (await rebuiltIfBroken(third)) {
      rebuilt = true;
      status = undefined;
    }
    status ??= await wholeNow();
    expect([read.wrong, read.missing]).toEqual([[], []]);
    const {
      damageFound: found,
      damageHealed: healed,
      recordsLost,
    } = (before ?? status)!.counters as Record<string, number>;
    console.log(
      JSON.stringify({
        seed: SEED,
        rows: ROWS,
        flips: FLIPS,
        damaged: count?.damaged,
        rebuilt,
        refused: read.refused,
        found,
        healed,
        scrub: status?.scrub,
      }),
    );
    // Unless it was rebuilt: then every record was copied.
    if (rebuilt) expect(status!.bootstrap?.entries).toBe(ROWS);
    else if (count !== undefined) {
      expect(found).toBeGreaterThanOrEqual(count.damaged);
      expect(recordsLost).toBe(0);
    }
    await expectWhole(staged);
  },
  TEST_MS * 2,
);

test(
  `${FLIPS} flipped bits in the records of a member that may rebuild: it mends itself, or copies itself anew, while it runs`,
  async () => {
    const staged = await stage();
    const [, , third] = staged.daemons;
    flipBits(staged.db, FLIPS, SEED, true);
    await third.start(['--rebuild']);
    const client = await connect({ hosts: [third.address], timeoutMs: 20_000, only: true });
    const read = await readAll(client, staged.rows);
    expect([read.wrong, read.missing]).toEqual([[], []]);
    const { counters, scrub, bootstrap, store } = await eventually(
      'the copy is proved whole',
      async () => {
        const now = await httpStatus(third.address);
        return now.ready && now.integrity.proved ? now : undefined;
      },
      HEALED_MS,
    );
    const { damageFound: found, damageHealed: healed, recordsLost } = counters as Record<string, number>;
    const rebuilt = bootstrap?.entries;
    console.log(JSON.stringify({ seed: SEED, flips: FLIPS, found, healed, recordsLost, rebuilt, scrub, store }));
    await client.close();
    await expectWhole(staged);
  },
  TEST_MS * 2,
);
