/** Bits that flip in a stopped node's tables, and what must come of it. */
import { execFile } from 'node:child_process';
import { cpSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { seededRandom } from '../../bin/seeded-random.js';
import { tableDamage } from '../../src/storage/level-table.js';

const COUNTER = fileURLToPath(new URL('./count-damaged.mjs', import.meta.url));
const COUNT_MS = 120_000;

/**
 * Flips random single bits over all tables of a closed database; `inRecords`: only where records lie, so that the
 * store is still opened.
 */
export function flipBits(db: string, flips: number, seed: number, inRecords = false): void {
  const random = seededRandom(seed);
  const files = readdirSync(db)
    .filter((name) => name.endsWith('.ldb'))
    .map((name) => ({ path: join(db, name), size: statSync(join(db, name)).size }))
    .filter(({ size }) => size > 0);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  if (total === 0) throw new Error(`there are no tables in ${db}`);
  const places = new Map<string, number[]>();
  for (let i = 0; i < flips; i++) {
    let at = random.below(total);
    const file = files.find(({ size }) => (at -= size) < 0)!;
    places.set(file.path, [...(places.get(file.path) ?? []), at + file.size]);
  }
  for (const [path, offsets] of places) {
    const bytes = readFileSync(path);
    for (const offset of offsets) {
      const bit = 1 << random.below(8);
      bytes[offset]! ^= bit;
      if (!inRecords) continue;
      writeFileSync(path, bytes);
      if (tableDamage(path, bytes.length, false) !== undefined) bytes[offset]! ^= bit;
    }
    writeFileSync(path, bytes);
  }
}

/** Records of the closed database that differ from those in the copy made before; undefined if LevelDB cannot open it. */
export async function countDamaged(
  before: string,
  db: string,
  scratch: string,
): Promise<{ records: number; damaged: number } | undefined> {
  const copy = join(scratch, 'after');
  cpSync(db, copy, { recursive: true });
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [COUNTER, before, copy], {
      timeout: COUNT_MS,
    });
    return JSON.parse(stdout) as { records: number; damaged: number };
  } catch {
    return undefined;
  }
}

/** Damages records of a closed database behind its store's back; returns how many are gone or changed. */
export async function damageRecords(db: string, records: number, seed: number): Promise<number> {
  const script = fileURLToPath(new URL('./damage-records.mjs', import.meta.url));
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [script, db, String(records), String(seed)],
    {
      timeout: COUNT_MS,
    },
  );
  return (JSON.parse(stdout) as { damaged: number }).damaged;
}
