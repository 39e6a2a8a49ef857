import {
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { crc32c } from '../../src/storage/crc32c.js';
import { inspectDatabase } from '../../src/storage/level-files.js';
import { removeFolder, temporaryFolder } from './folders.js';

const BATCHES = 400;
const value = (i: number): string => `value ${i} `.repeat(40);

async function openDb(location: string, more: object = {}): Promise<ClassicLevel<string, string>> {
  const db = new ClassicLevel<string, string>(location, more);
  await db.open();
  return db;
}

/** LevelDB deletes files of its own meanwhile, so that one look may see half of a change: it has to be sound soon. */
function damageWhileOpen(location: string): string | undefined {
  let damage: string | undefined;
  for (let attempt = 0; attempt < 50; attempt++) {
    try {
      damage = inspectDatabase(location, 0).damage;
    } catch (error) {
      damage = (error as Error).message;
    }
    if (damage === undefined) return undefined;
  }
  return damage;
}

describe('CRC-32C', () => {
  it('gives the sums of RFC 3720', () => {
    expect(crc32c(Buffer.alloc(32), 0, 32)).toBe(0x8a9136aa);
    expect(crc32c(Buffer.alloc(32, 0xff), 0, 32)).toBe(0x62a8ab43);
    expect(crc32c(Buffer.from('x123456789x'), 1, 10)).toBe(0xe3069283);
  });
});

describe('what is found in the files of a database', () => {
  let folder: string;
  /** Two tables, one of them compressed, and a log of 400 batches. */
  let template: string;
  let location: string;

  beforeAll(async () => {
    folder = temporaryFolder();
    template = join(folder, 'template');
    for (const compression of [true, false]) {
      const db = await openDb(template, { compression });
      for (let i = 0; i < BATCHES; i++) await db.put(`${compression}/${i}`, value(i));
      await db.close();
    }
    const db = await openDb(template);
    for (let i = 0; i < BATCHES; i++) await db.put(`log/${String(i).padStart(4, '0')}`, value(i));
    await db.close();
  });
  afterAll(() => removeFolder(folder));
  beforeEach(() => {
    location = join(folder, 'db');
    cpSync(template, location, { recursive: true });
  });
  afterEach(() => removeFolder(location));

  const named = (end: string): string[] =>
    readdirSync(location)
      .filter((name) => name.endsWith(end))
      .map((name) => join(location, name));
  const only = (end: string): string => {
    const found = named(end);
    expect(found).toHaveLength(1);
    return found[0]!;
  };
  const flip = (path: string, at: number): void => {
    const bytes = readFileSync(path);
    bytes[at]! ^= 1;
    writeFileSync(path, bytes);
  };
  const keysInLog = async (): Promise<string[]> => {
    const db = await openDb(location);
    const keys = await db.keys({ gte: 'log/', lt: 'log0' }).all();
    await db.close();
    return keys;
  };

  it('nothing in a sound one, however often it was compacted and reopened', async () => {
    expect(inspectDatabase(location, Number.POSITIVE_INFINITY)).toEqual({
      damage: undefined,
      tornLog: false,
    });
    for (let round = 0; round < 4; round++) {
      const db = await openDb(location, { writeBufferSize: 65_536, compression: round % 2 === 0 });
      for (let i = 0; i < BATCHES; i++) {
        await db.put(`log/${(i * 7919) % 1_000}`, value(i + round));
        // While it is open and compacts, as a killed process would leave it.
        if (i % 100 === 0) expect(damageWhileOpen(location)).toBeUndefined();
      }
      await db.compactRange('a', 'z');
      await db.close();
      expect(inspectDatabase(location, Number.POSITIVE_INFINITY)).toEqual({
        damage: undefined,
        tornLog: false,
      });
    }
  });

  it('a log cut off anywhere has lost its end, and nothing but its end', async () => {
    const log = only('.log');
    const size = statSync(log).size;
    expect(size).toBeGreaterThan(4 * 32_768);
    for (const cut of [1, 6, 7, 8, 500, 32_768, 40_000, size - 32_771, size - 5]) {
      removeFolder(location);
      cpSync(template, location, { recursive: true });
      truncateSync(log, size - cut);
      const found = inspectDatabase(location, 0);
      expect(found.damage, String(cut)).toBeUndefined();
      const keys = await keysInLog();
      expect(keys).toEqual(
        Array.from({ length: keys.length }, (_, i) => `log/${String(i).padStart(4, '0')}`),
      );
      expect(keys.length).toBeLessThan(BATCHES);
    }
  });

  it('a byte flipped anywhere in a log is told: in the middle it makes the store untrusted, at the end it is a lost end', async () => {
    const log = only('.log');
    const size = statSync(log).size;
    const lastBlock = Math.floor(size / 32_768) * 32_768;
    for (let i = 0; i < 40; i++) {
      removeFolder(location);
      cpSync(template, location, { recursive: true });
      const at = Math.floor((i * size) / 40) + (i % 7);
      flip(log, at);
      const { damage, tornLog } = inspectDatabase(location, 0);
      if (at < lastBlock - 32_768) expect(damage, String(at)).toMatch(/^its log/);
      expect(tornLog, String(at)).toBe(true);
      const keys = await keysInLog();
      const isPrefix = keys.every((key, n) => key === `log/${String(n).padStart(4, '0')}`);
      // Whatever LevelDB would make of it: only a state that the store once had is let through.
      if (damage === undefined) expect(isPrefix, String(at)).toBe(true);
    }
  });

  it('a block that is gone from the middle of a log is missed, although every sum fits', () => {
    const log = only('.log');
    const bytes = readFileSync(log);
    // A record that begins a block: whole blocks can only be taken out where records do.
    const starts = [1, 2, 3, 4].filter((n) => bytes[n * 32_768 + 6] === 1 || bytes[n * 32_768 + 6] === 2);
    writeFileSync(log, Buffer.concat([bytes.subarray(0, 32_768), bytes.subarray(2 * 32_768)]));
    const { damage } = inspectDatabase(location, 0);
    expect(damage, `${starts.length} blocks begin with a record`).toMatch(/its log/);
  });

  it('a missing log between the tables and a later log is missed', async () => {
    const db = await openDb(location);
    await db.put('later', 'x');
    await db.close();
    const log = only('.log');
    const bytes = readFileSync(log);
    // The same log, as if its batches came after some that are nowhere.
    const moved = join(location, '999999.log');
    writeFileSync(moved, bytes);
    unlinkSync(log);
    const later = Buffer.from(bytes);
    later.writeBigUInt64LE(later.readBigUInt64LE(7) + 5n, 7);
    const length = later.readUInt16LE(4);
    later.writeUInt32LE(masked(crc32c(later, 6, 7 + length)), 0);
    writeFileSync(moved, later);
    expect(inspectDatabase(location, 0).damage).toMatch(/lacks batches/);
  });

  it('a missing, shortened or exchanged table, and a table with a damaged footer or index, are told', () => {
    const tables = named('.ldb');
    expect(tables.length).toBeGreaterThan(1);
    const [first] = tables as [string];
    const size = statSync(first).size;
    const cases: [string, () => void][] = [
      ['is missing', () => unlinkSync(first)],
      ['bytes instead of', () => truncateSync(first, size - 1)],
      ['footer is damaged', () => flip(first, size - 3)],
      ['index is damaged', () => flip(first, size - 48 - 20)],
    ];
    for (const [says, harm] of cases) {
      removeFolder(location);
      cpSync(template, location, { recursive: true });
      harm();
      expect(inspectDatabase(location, 0).damage).toContain(says);
    }
  });

  it('a flipped byte in any block of any table is found by the full check', () => {
    for (const table of named('.ldb')) {
      const size = statSync(table).size;
      for (let i = 0; i < 24; i++) {
        const at = Math.floor((i * (size - 60)) / 24);
        flip(table, at);
        expect(inspectDatabase(location, Number.POSITIVE_INFINITY).damage, `${table} ${at}`).toMatch(
          /cannot be used/,
        );
        flip(table, at);
      }
      expect(inspectDatabase(location, Number.POSITIVE_INFINITY).damage).toBeUndefined();
    }
  });

  it('a damaged or missing manifest, and a damaged CURRENT, are told', () => {
    const manifest = join(location, readFileSync(join(location, 'CURRENT'), 'latin1').trim());
    const size = statSync(manifest).size;
    for (const at of [0, 5, 20, Math.floor(size / 2)]) {
      flip(manifest, at);
      expect(inspectDatabase(location, 0).damage, String(at)).toBeDefined();
      flip(manifest, at);
    }
    writeFileSync(join(location, 'CURRENT'), 'rubbish');
    expect(inspectDatabase(location, 0).damage).toContain('CURRENT');
    writeFileSync(join(location, 'CURRENT'), `${manifest.split('/').at(-1)}\n`);
    rmSync(manifest);
    expect(inspectDatabase(location, 0).damage).toContain('missing');
  });
});

function masked(crc: number): number {
  return ((((crc >>> 15) | (crc << 17)) >>> 0) + 0xa282ead8) >>> 0;
}
