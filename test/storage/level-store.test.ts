import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { seededRandom } from '../../bin/seeded-random.js';
import { dotOf } from '../../src/core/entry.js';
import { compareKeys } from '../../src/core/key-order.js';
import type { BatchRow, Row } from '../../src/core/types.js';
import { LevelStore, type LevelStoreOptions } from '../../src/storage/level-store.js';
import { storeContract } from './contract.js';
import { removeFolder, tamper, temporaryFolder } from './folders.js';
import { batchOf, drain, drainKeys, ORIGIN_A, ORIGIN_B, puts, record } from './records.js';

const RUN = '0123456789abcdef';

/** Bytes of the tables and logs in a folder. */
function sizeOf(location: string): number {
  const files = readdirSync(location).filter((name) => /\.(ldb|log)$/.test(name));
  return files.reduce(
    (sum, name) => sum + (statSync(join(location, name), { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
}

function open(location: string, more: Partial<LevelStoreOptions> = {}): Promise<LevelStore> {
  return LevelStore.open({ location, create: true, flush: false, run: RUN, ...more });
}

storeContract('LevelDB', async () => {
  const folder = temporaryFolder();
  const location = join(folder, 'db');
  let store = await open(location);
  const reopen = async () => {
    await store.close();
    store = await open(location, { create: false });
  };
  return {
    get store() {
      return store;
    },
    reopen,
    async damage(key) {
      await store.close();
      await tamper(location, async (db) => {
        const row = Uint8Array.from((await db.get(`e${key}`))!);
        row[row.length - 1]! ^= 1;
        await db.put(`e${key}`, row);
      });
      store = await open(location, { create: false });
    },
    async dispose() {
      await store.close();
      removeFolder(folder);
    },
  };
});

describe('LevelDB store', () => {
  let folder: string;
  let location: string;
  let store: LevelStore;

  beforeEach(async () => {
    folder = temporaryFolder();
    location = join(folder, 'db');
    store = await open(location);
  });
  afterEach(async () => {
    await store.close();
    removeFolder(folder);
  });

  const reopened = async (more: Partial<LevelStoreOptions> = {}) => {
    await store.close();
    store = await open(location, { create: false, ...more });
    return store;
  };

  it('gives the space of removed entries back where it is told that much was removed, and nothing else is lost', async () => {
    const rows = new Map<string, Row>();
    for (let at = 0; at < 30_000; at += 1_000) {
      const keys = Array.from({ length: 1_000 }, (_, i) => `gone/${at + i}`);
      const batch = puts(ORIGIN_A, at + 1, keys, randomBytes(400));
      for (const [key, { row }] of batch.rows) rows.set(key, row);
      await store.write(batch);
    }
    await store.write(puts(ORIGIN_B, 1, ['a', 'gone/15000/stays', 'z'], 'kept'));
    // So that all of it lies in files.
    await reopened();
    const entries = [...rows];
    for (let at = 0; at < entries.length; at += 1_000)
      await store.write(batchOf({ removals: new Map(entries.slice(at, at + 1_000)) }));
    const before = sizeOf(location);
    expect(before).toBeGreaterThan(3_000_000);
    store.reclaim([
      { after: null, until: 'gone/2' },
      { after: 'gone/2', until: null },
    ]);
    await expect.poll(() => sizeOf(location), { timeout: 60_000 }).toBeLessThan(1_000_000);
    expect(await drainKeys(store.rows({}))).toEqual(['a', 'gone/15000/stays', 'z']);
    await reopened();
    expect(await drainKeys(store.rows({}))).toEqual(['a', 'gone/15000/stays', 'z']);
    expect(store.recovered.heads.get(ORIGIN_A)).toBe(30_000);
  }, 120_000);

  describe('space that was not given back when the store closed', () => {
    const reclaimFile = (): string => join(folder, 'reclaim');
    const everything = [{ after: null, until: null }];

    /** Much that was removed, in files of its own. */
    async function emptied(): Promise<void> {
      const rows = new Map<string, Row>();
      for (let at = 0; at < 10_000; at += 1_000) {
        const keys = Array.from({ length: 1_000 }, (_, i) => `gone/${at + i}`);
        const batch = puts(ORIGIN_A, at + 1, keys, randomBytes(400));
        for (const [key, { row }] of batch.rows) rows.set(key, row);
        await store.write(batch);
      }
      await reopened({ reclaimFile: reclaimFile() });
      await store.write(batchOf({ removals: rows }));
      expect(sizeOf(location)).toBeGreaterThan(1_000_000);
    }

    it('is given back by the next opening', async () => {
      await emptied();
      store.reclaim(everything);
      // A range at a time, and a pause before each: nothing was merged yet.
      await reopened({ reclaimFile: reclaimFile() });
      await expect.poll(() => sizeOf(location), { timeout: 60_000 }).toBeLessThan(500_000);
      await expect.poll(() => existsSync(reclaimFile()), { timeout: 60_000 }).toBe(false);
      expect(await drainKeys(store.rows({}))).toEqual([]);
    }, 120_000);

    it('is given back after a crash, too, and is not begun at every start should it be what ends the process', async () => {
      await reopened({ reclaimFile: reclaimFile() });
      store.reclaim([{ after: 'a', until: 'b' }]);
      const noted = readFileSync(reclaimFile(), 'utf8');
      await store.close();
      writeFileSync(reclaimFile(), noted);
      store = await open(location, { create: false, reclaimFile: reclaimFile() });
      expect(existsSync(reclaimFile())).toBe(false);
      // Nor is it lost if this one closes in order.
      await store.close();
      expect(readFileSync(reclaimFile(), 'utf8')).toBe(noted);
    });

    it('is forgotten if what was noted cannot be read', async () => {
      for (const text of ['', '{}', '[1', '[["a",1],null]', '[[1,"b"]]']) {
        writeFileSync(reclaimFile(), text);
        await reopened({ reclaimFile: reclaimFile() });
        expect(existsSync(reclaimFile())).toBe(false);
      }
    });

    it('does not keep it from closing at once', async () => {
      await store.write(puts(ORIGIN_A, 1, ['a', 'b'], 'v'));
      store.reclaim(Array.from({ length: 1_000 }, () => everything[0]!));
      await reopened();
      expect(await drainKeys(store.rows({}))).toEqual(['a', 'b']);
    });
  });

  it('a plan of a large store divides it evenly without reading it through, whatever its keys look like', async () => {
    const random = seededRandom(7);
    const keys: string[] = [];
    for (let i = 0; i < 20_000; i++) keys.push(`customer/1/number/${String(i * 7).padStart(9, '0')}`);
    for (let i = 0; i < 15_000; i++) keys.push(`${String.fromCodePoint(0x4e00 + random.below(2_000))}/${i}`);
    for (let i = 0; i < 10_000; i++) keys.push(`z${'y'.repeat(i % 50)}${random.below(1_000_000)}/${i}`);
    const sizes = new Map<string, number>();
    for (let at = 0; at < keys.length; at += 1_000) {
      const part = keys.slice(at, at + 1_000);
      const rows = new Map(
        part.map((key, i) => {
          const value = randomBytes(300);
          const row = record(key, { origin: ORIGIN_A, seq: at + i + 1 }, value);
          sizes.set(key, Buffer.byteLength(key) + row.length);
          return [key, { row, replaces: undefined }] as const;
        }),
      );
      await store.write(batchOf({ rows }));
    }
    const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
    // Opening writes what was in memory only to files, whose sizes are known.
    await store.close();
    store = await open(location, { create: false });
    const sorted = [...keys].sort(compareKeys);
    const shares = Array.from({ length: sorted.length / 500 }, (_, i) => {
      return { key: sorted[(i + 1) * 500 - 1]!, count: 500 };
    });
    // By the files alone; and by the leaves of a digest, which know the number of entries.
    for (const [known, tolerance] of [[[], 0.4] as const, [shares, 0.1] as const]) {
      const plan = await store.plan(total / 16, 100, known);
      expect(Math.abs(plan.entries / keys.length - 1)).toBeLessThan(known.length === 0 ? tolerance : 1e-9);
      expect(Math.abs(plan.bytes / total - 1)).toBeLessThan(tolerance);
      expect(plan.keys.length).toBeGreaterThan(8);
      const bounds = [...plan.keys.map((key) => sorted.indexOf(key)), sorted.length - 1];
      expect(bounds).not.toContain(-1);
      let from = 0;
      for (const to of bounds) {
        const part = sorted.slice(from, to + 1).reduce((sum, key) => sum + sizes.get(key)!, 0);
        expect(part / (total / bounds.length)).toBeGreaterThan(0.5);
        expect(part / (total / bounds.length)).toBeLessThan(2);
        from = to + 1;
      }
    }
    // Shares that are larger than the ranges asked for are of no use: the files say more.
    const coarse = [
      { key: sorted[22_499]!, count: 22_500 },
      { key: '', count: 22_500 },
    ];
    expect((await store.plan(total / 16, 100, coarse)).keys.length).toBeGreaterThan(8);
  });

  it('multi-byte keys of every length read their own record, though the binding reuses one key buffer', async () => {
    // Growing keys walk the end of a buffer of any small size across the middle of a character.
    const keys: string[] = [];
    for (let length = 1; length <= 255; length++)
      for (const unit of ['中', '😀', 'é']) keys.push(unit.repeat(length), `x${unit.repeat(length)}`);
    const fitting = keys.filter((key) => Buffer.byteLength(key) <= 1_024);
    await store.write(puts(ORIGIN_A, 1, fitting));
    fitting.forEach((key, i) => {
      expect(dotOf(store.getRow(key)!).seq).toBe(i + 1);
    });
    for (const key of fitting) expect(store.getRow(`${key.slice(0, -2)}?`)).toBeUndefined();
  });

  it('a byte flipped in a table file is noticed, never served', async () => {
    // Noise, so that the table holds it uncompressed and the byte can be found.
    const value = createHash('shake256', { outputLength: 4_000 }).update('noise').digest();
    await store.write(puts(ORIGIN_A, 1, ['victim'], value));
    await store.close();
    await tamper(location, (db) => db.compactRange('d', 'f'));
    const hit = readdirSync(location)
      .filter((name) => name.endsWith('.ldb'))
      .map((name) => ({
        path: join(location, name),
        at: readFileSync(join(location, name)).indexOf(value.subarray(1_000, 1_100)),
      }))
      .find(({ at }) => at >= 0)!;
    const fd = openSync(hit.path, 'r+');
    writeSync(fd, Uint8Array.of(value[1_050]! ^ 4), 0, 1, hit.at + 50);
    closeSync(fd);
    await reopened();
    expect(() => store.getRow('victim')).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
    await expect(drain(store.rows({}))).rejects.toMatchObject({
      code: 'DAMAGED',
      details: { key: 'victim' },
    });
  });

  it('a record that turns up under another key is noticed', async () => {
    await store.write(puts(ORIGIN_A, 1, ['mine', 'yours']));
    await store.close();
    await tamper(location, async (db) => db.put('emine', (await db.get('eyours'))!));
    await reopened();
    expect(() => store.getRow('mine')).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
  });

  it('a dot that does not lead to a record with that very dot is noticed', async () => {
    const dot = (seq: number) => `d${ORIGIN_A}${seq.toString(16).padStart(12, '0')}`;
    const tampering: [RegExp, Parameters<typeof tamper>[1]][] = [
      [/no record/, (db) => db.del('eb')],
      [/another dot/, async (db) => db.put('eb', rowOf('b', 9))],
      [/checksum/, async (db) => db.put(dot(2), (await db.get(dot(1)))!)],
    ];
    const rowOf = (key: string, seq: number) => puts(ORIGIN_B, seq, [key]).rows.get(key)!.row;
    for (const [message, work] of tampering) {
      await store.write(puts(ORIGIN_A, 1, ['a', 'b', 'c']));
      await store.close();
      await tamper(location, work);
      await reopened();
      const snapshot = await store.snapshot();
      const cursor = snapshot.above(new Map());
      expect((await cursor.next(10, 1_000)).keys).toEqual(['a']);
      await expect(cursor.next(10, 1_000)).rejects.toMatchObject({
        code: 'DAMAGED',
        message: expect.stringMatching(message),
        details: { origin: ORIGIN_A, seq: 2 },
      });
      expect((await cursor.next(10, 1_000)).keys).toEqual(['c']);
      await snapshot.close();
    }
  });

  it('a damaged head, clock or meta row makes the store untrusted at opening', async () => {
    const batch = {
      ...puts(ORIGIN_A, 1, ['a']),
      hlc: { ms: 5, counter: 0 },
      meta: new Map([['node', Uint8Array.of(1)]]),
    };
    await store.write(batch);
    await store.close();
    for (const physical of [`h${ORIGIN_A}`, 'mhlc', 'mnode', 'mrun']) {
      let before: Uint8Array | undefined;
      await tamper(location, async (db) => {
        before = (await db.get(physical))!;
        const flipped = Uint8Array.from(before);
        flipped[flipped.length - 1]! ^= 1;
        await db.put(physical, flipped);
      });
      await expect(open(location, { create: false })).rejects.toMatchObject({ code: 'STORE_UNTRUSTED' });
      await tamper(location, (db) => db.put(physical, before!));
    }
    await reopened();
    expect(store.recovered.heads.get(ORIGIN_A)).toBe(1);
  });

  it('a database is never made where one was expected', async () => {
    await store.close();
    renameSync(join(location, 'CURRENT'), join(folder, 'CURRENT'));
    await expect(open(location, { create: false })).rejects.toMatchObject({ code: 'STORE_UNTRUSTED' });
    renameSync(join(folder, 'CURRENT'), join(location, 'CURRENT'));
    await reopened();
  });

  it('when the folder vanishes under a running store, the next write fails and no later one is tried', async () => {
    for (const flush of [false, true]) {
      let failures = 0;
      await reopened({ flush, onFailed: () => failures++ });
      await store.write(puts(ORIGIN_A, 1, ['a']));
      renameSync(location, `${location}.gone`);
      const next = store.write(puts(ORIGIN_A, 2, ['b'])).then(() => store.flush());
      await expect(next).rejects.toMatchObject({ code: 'STORE_FAILED' });
      renameSync(`${location}.gone`, location);
      await expect(store.write(puts(ORIGIN_A, 2, ['b']))).rejects.toMatchObject({ code: 'STORE_FAILED' });
      expect(failures).toBe(1);
      expect(store.getRow('a')).toBeDefined();
    }
  });

  it('the mark of an opening counts its batches and is found by the next one', async () => {
    const counted: number[] = [];
    expect(store.previousRun).toBeUndefined();
    await reopened({ run: 'aaaaaaaaaaaaaaaa', onDurable: (batches) => counted.push(batches) });
    expect(store.previousRun).toEqual({ nonce: RUN, batches: 0 });
    await store.write(puts(ORIGIN_A, 1, ['a']));
    await store.write(puts(ORIGIN_A, 2, ['b']));
    await reopened();
    expect(counted).toEqual([1, 2]);
    expect(store.previousRun).toEqual({ nonce: 'aaaaaaaaaaaaaaaa', batches: 2 });
  });

  it('a store that flushes counts a batch once it is flushed, and it is readable before', async () => {
    const counted: number[] = [];
    await reopened({ flush: true, onDurable: (batches) => counted.push(batches) });
    await store.write(puts(ORIGIN_A, 1, ['a']));
    await store.write(puts(ORIGIN_A, 2, ['b']));
    expect(store.getRow('b')).toBeDefined();
    expect(counted).toEqual([]);
    await store.flush();
    await store.flush();
    expect(counted).toEqual([2]);
    await store.write(puts(ORIGIN_A, 3, ['c']));
    await store.close();
    expect(counted).toEqual([2, 3]);
  });

  it('a batch of thousands of rows lets the event loop turn every hundred rows', async () => {
    await store.write(puts(ORIGIN_A, 1, ['read me']));
    const keys = Array.from({ length: 5_000 }, (_, i) => `bulk/${i}`);
    const batch = puts(ORIGIN_B, 1, keys);
    let inThisTurn = 0;
    let mostInOneTurn = 0;
    class Watched extends Map<string, BatchRow> {
      override *[Symbol.iterator](): MapIterator<[string, BatchRow]> {
        for (const entry of super[Symbol.iterator]()) {
          mostInOneTurn = Math.max(mostInOneTurn, ++inThisTurn);
          yield entry;
        }
      }
    }
    let settled = false;
    const write = store.write({ ...batch, rows: new Watched(batch.rows) }).then(() => {
      settled = true;
    });
    while (!settled) {
      await new Promise((resolve) => setImmediate(resolve));
      inThisTurn = 0;
      expect(store.getRow('read me')).toBeDefined();
    }
    await write;
    // This test's turn may come before the store's in one round and behind it in the next: two slices.
    expect(mostInOneTurn).toBeLessThanOrEqual(200);
    expect(await drainKeys(store.rows({ prefix: 'bulk/' }))).toHaveLength(5_000);
  });
});
