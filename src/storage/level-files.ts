/**
 * Looks at the files of a database before LevelDB does, read only.
 *
 * LevelDB opens over damage: it drops what it cannot read of a log and says nothing (level-log.ts), starts
 * without a log that is gone, and finds a bad table when somebody reads it, or never. So before each opening:
 *
 * - the manifest is intact, and every table that it lists is there, of the right size, with a sound footer and
 *   index. All tables, block by block, only where there is suspicion: that costs as much as reading them;
 * - the logs to be replayed hold every batch in an unbroken row of sequence numbers, from what the tables
 *   already have to the last one.
 *
 * A log that ends early is a lost tail: a state that the store once had. Anything missing before something that
 * is there makes the store one that must not be believed.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { scanLog } from './level-log.js';
import { type Manifest, readManifest } from './level-manifest.js';
import { tableDamage } from './level-table.js';

/** Of a batch in a log: sequence number of its first operation (8 bytes), number of operations (4). */
const BATCH_HEADER_BYTES = 12;

export interface Inspection {
  /** Why the database must not be opened; undefined: it may. */
  readonly damage: string | undefined;
  /** The newest log ends within a record or in damage, or is gone: the batches there are lost. */
  readonly tornLog: boolean;
}

/** `checkedBytesMax`: all contents of all tables are checked if these are not longer. Throws what the file system throws. */
export function inspectDatabase(location: string, checkedBytesMax: number): Inspection {
  const damaged = (damage: string): Inspection => ({ damage, tornLog: false });
  const name = readFileSync(join(location, 'CURRENT'), 'latin1');
  if (!/^MANIFEST-\d+\n$/.test(name)) return damaged('its file CURRENT is damaged');
  const names = new Set(readdirSync(location));
  if (!names.has(name.trim())) return damaged(`its manifest ${name.trim()} is missing`);
  const manifest = readManifest(readFileSync(join(location, name.trim())));
  if (manifest === undefined) return damaged(`its manifest ${name.trim()} is damaged`);
  let bytes = 0;
  for (const size of manifest.tables.values()) bytes += size;
  const everyBlock = bytes <= checkedBytesMax;
  for (const [table, size] of manifest.tables) {
    const damage = listedTableDamage(location, names, table, size, everyBlock);
    if (damage !== undefined) return damaged(damage);
  }
  return inspectLogs(location, logsToReplay(names, manifest), manifest);
}

function listedTableDamage(
  location: string,
  names: ReadonlySet<string>,
  table: number,
  size: number,
  everyBlock: boolean,
): string | undefined {
  const stem = String(table).padStart(6, '0');
  const name = [`${stem}.ldb`, `${stem}.sst`].find((candidate) => names.has(candidate));
  if (name === undefined) return `its table ${stem}.ldb is missing`;
  const path = join(location, name);
  const found = statSync(path).size;
  if (found !== size) return `its table ${name} has ${found} bytes instead of ${size}`;
  const damage = tableDamage(path, size, everyBlock);
  return damage === undefined ? undefined : `its table ${name} cannot be used: ${damage}`;
}

interface Log {
  readonly name: string;
  readonly number: number;
}

function logsToReplay(names: ReadonlySet<string>, manifest: Manifest): Log[] {
  return [...names]
    .filter((name) => /^\d+\.log$/.test(name))
    .map((name) => ({ name, number: Number.parseInt(name, 10) }))
    .filter(
      ({ number }) =>
        number >= manifest.logNumber || (number === manifest.previousLog && manifest.previousLog !== 0),
    )
    .sort((a, b) => a.number - b.number);
}

/** What the logs hold, record by record, against the rule that no sequence number is left out. */
function inspectLogs(location: string, logs: readonly Log[], manifest: Manifest): Inspection {
  // The first operation of the first log may be one that the tables have already.
  let next: number | undefined;
  let broken: string | undefined;
  let torn: string | undefined;
  for (const { name } of logs) {
    const scan = scanLog(readFileSync(join(location, name)), (record) => {
      if (torn !== undefined) broken ??= `its log ${torn} lost batches that later ones build on`;
      if (record.length < BATCH_HEADER_BYTES) {
        broken ??= `its log ${name} holds what is no batch`;
        return;
      }
      const sequence = Number(record.readBigUInt64LE(0));
      const fits = next === undefined ? sequence <= manifest.lastSequence + 1 : sequence === next;
      if (!fits) broken ??= `its log ${name} lacks batches that later ones build on`;
      next = sequence + record.readUInt32LE(8);
    });
    if (scan.inMiddle) broken ??= `its log ${name} is damaged at ${scan.damagedAt}, before its last batch`;
    if (scan.damagedAt !== undefined || scan.endsWithin) torn ??= name;
  }
  // The log that the manifest names is made before the manifest names it.
  const gone = logs.every(({ number }) => number !== manifest.logNumber);
  return { damage: broken, tornLog: torn !== undefined || gone || manifest.endsWithin };
}
