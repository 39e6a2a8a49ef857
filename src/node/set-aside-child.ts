/**
 * Reads a store that was set aside, in a process of its own: LevelDB may abort the whole process on a damaged one. Run
 * by set-aside-reader.ts, which says how frames look. Ends with whoever started it.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';
import { isReadmeshError } from '../errors.js';
import { type Db, EntryCursor } from '../storage/level-cursors.js';
import { LEVEL_OPTIONS } from '../storage/level-store.js';
import { decodeHead, HEAD, META, unseal } from '../storage/physical.js';
import {
  DAMAGED,
  END,
  frame,
  OPENED,
  type Opened,
  type Reading,
  ROW,
  rowPayload,
} from './set-aside-frames.js';

const ROWS = 128;
const BYTES = 131_072;

async function main({ location, repair, after }: Reading): Promise<void> {
  if (repair) await ClassicLevel.repair(location);
  const db: Db = new ClassicLevel<string, Uint8Array>(location, { ...LEVEL_OPTIONS, createIfMissing: false });
  await db.open();
  await send(frame(OPENED, Buffer.from(JSON.stringify(await ownRows(db)))));
  for (let lost = repair ? lostTables(location) : 0; lost > 0; lost--)
    await send(frame(DAMAGED, Buffer.alloc(0)));
  const cursor = new EntryCursor(db, after === undefined ? {} : { gt: after });
  for (;;) {
    const frames: Buffer[] = [];
    try {
      const { keys, rows } = await cursor.next(ROWS, BYTES);
      if (keys.length === 0) break;
      for (let i = 0; i < keys.length; i++) frames.push(frame(ROW, rowPayload(keys[i]!, rows[i]!)));
    } catch (error) {
      if (!isReadmeshError(error) || error.code !== 'DAMAGED' || error.details.key === undefined) throw error;
      frames.push(frame(DAMAGED, Buffer.alloc(0)));
    }
    await send(Buffer.concat(frames));
  }
  await send(frame(END, Buffer.alloc(0)));
  await db.close();
}

/** Tables of which the repair could not read all; those that were missing altogether leave no trace. */
function lostTables(location: string): number {
  const folder = join(location, 'lost');
  return existsSync(folder) ? readdirSync(folder).filter((name) => /\.(ldb|sst)$/.test(name)).length : 0;
}

/** Heads and small records of the node; damaged ones are left out. */
async function ownRows(db: Db): Promise<Opened> {
  const heads: [string, number][] = [];
  const meta: [string, string][] = [];
  for (const [family, until] of [
    [HEAD, String.fromCharCode(HEAD.charCodeAt(0) + 1)],
    [META, String.fromCharCode(META.charCodeAt(0) + 1)],
  ] as const)
    for await (const [physical, sealed] of db.iterator({ gte: family, lt: until })) {
      const payload = unseal(physical, sealed);
      if (payload === undefined) continue;
      if (family === HEAD) heads.push([physical.slice(1), decodeHead(payload)]);
      else meta.push([physical.slice(1), payload.toString('base64')]);
    }
  return { heads, meta };
}

/** Resolves when the reader has room for more. */
function send(bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

process.stdin.on('end', () => process.exit(1)).resume();
main(JSON.parse(process.argv[2] ?? '') as Reading).then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`${(error as Error).message}\n`, () => process.exit(1));
  },
);
