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
import { dumpFolder, eventually, verified } from '../support/copies.js';
import { countDamaged, flipBits } from '../support/damage.js';
import { type Daemon, endDaemons, startCluster, tempFolder } from '../support/daemon.js';
import { httpStatus } from '../support/http-api.js';

afterEach(endDaemons);

const ROWS = Number(process.env.READMESH_DAMAGE_ROWS ?? 60_000);
const FLIPS = Number(process.env.READMESH_DAMAGE_FLIPS ?? 150);
const SEED = Number(process.env.READMESH_TEST_SEED ?? Math.floor(Math.random() * 1_000_000));
const TEST_MS = 60_000 + ROWS + 100 * FLIPS;
const HEALED_MS = TEST_MS / 2;
const PAGE = 500;
/** Starts that end in a crash or a refusal before the store is set aside. */
const STARTS_MAX = 2;

interface Read {
  wrong: string[];
  missing: string[];
  /** Reads that were refused with DAMAGED or UNPROVED, and repeated. */
  refused: number;
}

/** Every row, asked of this node alone. */
async function readAll(client: LightClient, rows: readonly PhoneRow[]): Promise<Read> {
  const read: Read = { wrong: [], missing: [], refused: 0 };
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
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (attempt === 5 || !isReadmeshError(error) || !['DAMAGED', 'UNPROVED'].includes(error.code)) throw error;
      read.refused += 1;
    }
  }
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
  writeFileSync(file, JSON.stringify({ tuning: { scrubBytesPerSecond: 16_777_216, scrubPauseMs: 3_600_000 } }));
  return file;
}

test(`${FLIPS} flipped bits in the tables of a member with ${ROWS} rows: nothing wrong or missing is served, nothing is passed on, all is healed`, async () => {
  const rows = await readPhoneRows(await openPhoneData({ rowsMax: ROWS }));
  const daemons = await startCluster(3, { args: ['--config', tuned()] });
  const [first, second, third] = daemons as [Daemon, Daemon, Daemon];
  const loader = await connect({ hosts: [first.address], timeoutMs: 30_000 });
  await loadRows(loader, rows, undefined, { replicas: 3 });
  await loader.close();
  // What lies in the log goes into tables at the next start.
  await third.stop();
  await third.start();
  await third.stop();

  const db = join(third.data, 'db');
  const scratch = tempFolder();
  cpSync(db, join(scratch, 'before'), { recursive: true });
  flipBits(db, FLIPS, SEED);
  const count = await countDamaged(join(scratch, 'before'), db, scratch);

  const rebuilt = await startDamaged(third);
  const client = await connect({ hosts: [third.address], timeoutMs: 20_000, only: true });
  const served = await readAll(client, rows).finally(() => writeFileSync('/tmp/third.log', third.stderr));
  expect([served.wrong, served.missing]).toEqual([[], []]);

  // Reads find what they touch; the scrub finds the rest.
  const status = await eventually(
    'the copy is proved whole',
    async () => {
      const now = await client.status();
      return now.integrity.proved && now.integrity.lost === 0 ? now : undefined;
    },
    HEALED_MS,
  );
  console.log(
    JSON.stringify({
      seed: SEED,
      rows: ROWS,
      flips: FLIPS,
      damagedRecords: count?.damaged,
      opens: count !== undefined,
      rebuilt,
      refused: served.refused,
      found: status.counters.damageFound,
      healed: status.counters.damageHealed,
      scrub: status.scrub,
    }),
  );
  if (!rebuilt && count !== undefined) {
    expect(count.damaged).toBeGreaterThan(0);
    expect(status.counters.damageFound).toBeGreaterThanOrEqual(count.damaged);
    expect(status.counters.recordsLost).toBe(0);
  }
  await verified(first, 3);
  for (const { address } of [first, second]) {
    const { counters } = await httpStatus(address);
    expect(counters.damageFound).toBe(0);
  }

  // It answers everything alone, misses included.
  await first.stop();
  await second.stop();
  const alone = await readAll(client, rows);
  expect(alone).toEqual({ wrong: [], missing: [], refused: 0 });
  expect(await client.getMany(['no such key', 'carrier/xx/0'])).toEqual([undefined, undefined]);
  await client.close();
  await third.stop();
  const [healed, sound] = await Promise.all([dumpFolder(third.data), dumpFolder(first.data)]);
  expect(healed.size).toBe(sound.size);
  for (const [key, entry] of sound) expect(healed.get(key)).toEqual(entry);
}, TEST_MS * 2);
