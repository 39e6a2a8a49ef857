/**
 * Bits that flip in the tables of one member's disk. It answers every read as if nothing had happened, none of its
 * peers hears of it, and in the end its own copy is whole again.
 *
 * READMESH_DAMAGE_ROWS and READMESH_DAMAGE_FLIPS set the size; the bar of the project is 455480 and 1000.
 */
import { cpSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { loadRows } from '../../bin/demo/load.js';
import { openPhoneData, type PhoneRow, readPhoneRows } from '../../bin/phone-data.js';
import { connect, isReadmeshError, type LightClient } from '../../src/client/index.js';
import { dumpFolder, eventually, verified } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster, tempFolder } from '../support/daemon.js';
import { countDamaged, damageRecords, flipBits } from '../support/damage.js';
import { httpStatus, type StatusBody } from '../support/http-api.js';
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
/** Starts in a row that may end in a crash of LevelDB: the third one checks the store whole before it is opened. */
const STARTS_MAX = 4;

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

async function scanAll(
  client: LightClient,
  rows: readonly PhoneRow[],
  scans: { whole: number; refused: number },
): Promise<void> {
  const found = new Map<string, unknown>();
  try {
    for await (const [key, value] of client.entries()) found.set(key, value);
  } catch (error) {
    if (!isReadmeshError(error) || !REFUSALS.includes(error.code)) throw error;
    scans.refused += 1;
    return;
  }
  expect(rows.filter(([key, value]) => found.get(key) !== value).map(([key]) => key)).toEqual([]);
  scans.whole += 1;
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
 * Starts it as a supervisor does, again when LevelDB's assertions end the process; with --rebuild once the store is
 * refused (exit code 5). True when it was refused.
 */
async function supervised(daemon: Daemon, flags: readonly string[] = []): Promise<boolean> {
  for (let starts = 0; starts < STARTS_MAX; starts++) {
    daemon.spawn(flags);
    try {
      await daemon.ready(HEALED_MS);
      return false;
    } catch (error) {
      if (daemon.running) throw error;
    }
    const { code, signal } = await daemon.exited();
    if (code === 5) {
      daemon.spawn(['--rebuild']);
      await daemon.ready(HEALED_MS);
      return true;
    }
    expect(signal).toBe('SIGABRT');
  }
  throw new Error(`it crashed ${STARTS_MAX} times in a row`);
}

interface Mended {
  readonly read: Read;
  readonly rebuilt: boolean;
  /** Last counts of the damaged store, as far as they were seen. */
  readonly found: number;
  readonly healed: number;
  readonly status: StatusBody;
}

/** Reads everything again and again until the copy is proved whole; looks after the process meanwhile. */
async function mended({ rows, daemons: [, , third] }: Stage, flags: readonly string[]): Promise<Mended> {
  const read = nothingRead();
  let rebuilt = await supervised(third, flags);
  let found = 0;
  let healed = 0;
  for (const until = performance.now() + 2 * HEALED_MS; performance.now() < until; ) {
    if (!third.running) rebuilt = (await supervised(third, flags)) || rebuilt;
    const client = await connect({ hosts: [third.address], timeoutMs: 20_000, only: true });
    const status = await readAll(client, rows, read)
      .then(() => httpStatus(third.address))
      .catch((error: unknown) => {
        if (third.running) throw error;
        return undefined;
      })
      .finally(() => client.close());
    if (status === undefined) continue;
    found = Math.max(found, status.counters.damageFound!);
    healed = Math.max(healed, status.counters.damageHealed!);
    if (status.integrity.proved)
      return { read, rebuilt: rebuilt || status.bootstrap !== undefined, found, healed, status };
    const isRead = status.scrub?.running === false && status.scrub.passes > 0;
    if (!flags.includes('--rebuild') && status.integrity.broken && isRead) {
      expect(status.issues.map(({ code }) => code)).toContain('DAMAGED');
      await third.stop();
      expect(await supervised(third)).toBe(true);
      rebuilt = true;
    }
    await pause(500);
  }
  throw new Error('it was not mended in time');
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
    // From the first evidence on a scan gives all there is, or says that it cannot.
    const scans = { whole: 0, refused: 0 };
    for (let i = 0; (await client.status()).counters.damageFound === 0; i += PAGE)
      await client.getMany(staged.rows.slice(i, i + PAGE).map(([key]) => key));
    await scanAll(client, staged.rows, scans);
    const served = await readAll(client, staged.rows);
    expect([served.wrong, served.missing]).toEqual([[], []]);
    const { counters, scrub } = await eventually(
      'the copy is proved whole',
      async () => {
        await scanAll(client, staged.rows, scans);
        const now = await client.status();
        return now.integrity.proved && now.integrity.lost === 0 ? now : undefined;
      },
      HEALED_MS,
    );
    const { damageFound: found, damageHealed: healed } = counters;
    console.log(JSON.stringify({ seed: SEED, rows: ROWS, damaged, found, healed, ...served, scans, scrub }));
    expect(scans.whole).toBeGreaterThan(0);
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
    const scratch = tempFolder();
    cpSync(staged.db, join(scratch, 'before'), { recursive: true });
    flipBits(staged.db, FLIPS, SEED);
    const count = await countDamaged(join(scratch, 'before'), staged.db, scratch);
    const { read, rebuilt, found, healed, status } = await mended(staged, []);
    const { scrub, bootstrap } = status;
    const { damaged } = count ?? {};
    console.log(
      JSON.stringify({
        seed: SEED,
        rows: ROWS,
        flips: FLIPS,
        damaged,
        rebuilt,
        found,
        healed,
        ...read,
        scrub,
      }),
    );
    expect([read.wrong, read.missing]).toEqual([[], []]);
    // A store that was set aside counts as damaged as a whole: every record was copied.
    const replaced = rebuilt ? bootstrap!.entries : found;
    expect(replaced).toBeGreaterThanOrEqual(damaged ?? 1);
    await expectWhole(staged);
  },
  TEST_MS * 2,
);

test(
  `${FLIPS} flipped bits in the records of a member that may rebuild: it mends itself, or copies itself anew, unattended`,
  async () => {
    const staged = await stage();
    flipBits(staged.db, FLIPS, SEED, true);
    const { read, rebuilt, found, healed, status } = await mended(staged, ['--rebuild']);
    const { scrub, store } = status;
    console.log(JSON.stringify({ seed: SEED, flips: FLIPS, rebuilt, found, healed, ...read, scrub, store }));
    expect([read.wrong, read.missing]).toEqual([[], []]);
    expect(readdirSync(staged.daemons[2].data).some((name) => name.includes('set-aside'))).toBe(rebuilt);
    await expectWhole(staged);
  },
  TEST_MS * 2,
);
