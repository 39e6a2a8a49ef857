/** The simulated disk against the real store: the same batches, and the same answers. */
import { mkdirSync, readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { dotOf } from '../../src/core/entry.js';
import type { BatchRow, OriginId, StoreBatch } from '../../src/core/types.js';
import { openDataFolder } from '../../src/storage/data-folder.js';
import { LevelStore } from '../../src/storage/level-store.js';
import type { RowCursor } from '../../src/storage/store.js';
import { removeFolder, tamper, temporaryFolder } from '../storage/folders.js';
import { batchOf, ORIGIN_A, ORIGIN_B, record, TRICKY_KEYS } from '../storage/records.js';
import { Disk, Image } from './disk.js';
import { Random } from './random.js';

const RUN = '0123456789abcdef';

let root: string;
beforeEach(() => {
  root = temporaryFolder();
});
afterEach(() => removeFolder(root));

/** What a core would write: newer records in the place of older ones, heads that follow, a clock that rises. */
class Writer {
  readonly #image = new Image();
  readonly #seqs = new Map<OriginId, number>();
  #batches = 0;

  batch(draws: readonly { key: number; origin: boolean; bytes: number }[]): StoreBatch {
    const rows = new Map<string, BatchRow>();
    const heads = new Map<OriginId, number>();
    for (const { key: index, origin: which, bytes } of draws) {
      const key = TRICKY_KEYS[index % TRICKY_KEYS.length]!;
      const origin = which ? ORIGIN_A : ORIGIN_B;
      const seq = (this.#seqs.get(origin) ?? 0) + 1;
      this.#seqs.set(origin, seq);
      const before = this.#image.rows.get(key);
      const row = record(key, { origin, seq }, new Uint8Array(bytes).fill(seq));
      rows.set(key, { row, replaces: before === undefined ? undefined : dotOf(before) });
      // Now and then a record above its head, as after a gap.
      if (seq % 5 !== 0) heads.set(origin, seq);
    }
    const number = ++this.#batches;
    const meta = new Map<string, Uint8Array | null>([
      ['members', number % 3 === 0 ? null : Uint8Array.of(number)],
    ]);
    const batch = batchOf({ rows, heads, meta, hlc: { ms: number * 1_000, counter: number } });
    this.#image.apply(batch);
    return batch;
  }
}

const batches = fc.array(
  fc.array(fc.record({ key: fc.nat(15), origin: fc.boolean(), bytes: fc.nat(40) }), {
    minLength: 1,
    maxLength: 5,
  }),
  { minLength: 1, maxLength: 6 },
);

async function read(cursor: RowCursor): Promise<string[]> {
  const out: string[] = [];
  try {
    for (;;) {
      const { keys, rows } = await cursor.next(3, 200);
      if (keys.length === 0) return out;
      keys.forEach((key, i) => {
        out.push(`${key}=${Buffer.from(rows[i]!).toString('hex')}`);
      });
    }
  } finally {
    await cursor.close();
  }
}

const shown = ({ keys, rows }: { keys: readonly string[]; rows: readonly Uint8Array[] }): string[] =>
  keys.map((key, i) => `${key}=${Buffer.from(rows[i]!).toString('hex')}`);

const bytes = (row: Uint8Array | undefined): string | undefined =>
  row === undefined ? undefined : Buffer.from(row).toString('hex');

function sorted<V>(map: ReadonlyMap<string, V>): [string, V][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

async function expectSame(
  store: LevelStore,
  image: Image,
  heads: ReadonlyMap<OriginId, number>,
): Promise<void> {
  for (const key of TRICKY_KEYS) {
    const row = image.rows.get(key);
    expect(bytes(store.getRow(key))).toBe(bytes(row));
  }
  const snapshot = await store.snapshot();
  try {
    expect(sorted(snapshot.heads)).toEqual(sorted(image.heads));
    expect(sorted(await snapshot.tops())).toEqual(sorted(image.tops()));
    expect(await read(snapshot.rows({}))).toEqual(shown(image.between(null, null)));
    expect(await read(snapshot.rows({ gt: 'ab', lte: 'b' }))).toEqual(shown(image.between('ab', 'b')));
    expect(await read(snapshot.above(heads))).toEqual(shown(image.above(heads)));
  } finally {
    await snapshot.close();
  }
}

function expectRecovered(store: LevelStore, image: Image): void {
  const { recovered } = store;
  const model = image.recovered();
  expect(sorted(recovered.heads)).toEqual(sorted(model.heads));
  expect(sorted(recovered.tops)).toEqual(sorted(model.tops));
  expect(recovered.hlc).toEqual(model.hlc);
  expect(sorted(recovered.meta).map(([name, value]) => [name, [...value]])).toEqual(
    sorted(model.meta).map(([name, value]) => [name, [...value]]),
  );
}

describe('the simulated disk and LevelDB', () => {
  let folders = 0;
  const open = (location: string, create: boolean, flush = false) =>
    LevelStore.open({ location, create, flush, run: RUN });
  const fresh = (): string => join(root, `db${++folders}`);

  test('hold, scan and recover the same after the same batches', async () => {
    await fc.assert(
      fc.asyncProperty(batches, fc.nat(8), fc.nat(8), async (draws, headA, headB) => {
        const location = fresh();
        const writer = new Writer();
        const disk = new Disk(true);
        const heads = new Map(
          [[ORIGIN_A, headA]].concat(headB === 0 ? [] : [[ORIGIN_B, headB]]) as [string, number][],
        );
        let store = await open(location, true);
        try {
          for (const draw of draws) {
            const batch = writer.batch(draw);
            disk.apply(batch);
            await store.write(batch);
          }
          await expectSame(store, disk.image, heads);
          expect(disk.image.inconsistency()).toBeUndefined();
          await store.close();
          store = await open(location, false);
          expectRecovered(store, disk.image);
          await expectSame(store, disk.image, heads);
        } finally {
          await store.close();
        }
      }),
      { numRuns: 25, seed: 7 },
    );
  });

  test('lose whole batches from the end, and nothing else, when the end of the log is lost', async () => {
    await fc.assert(
      fc.asyncProperty(batches, fc.double({ min: 0, max: 1, noNaN: true }), async (draws, cut) => {
        const location = fresh();
        const writer = new Writer();
        const written = draws.map((draw) => writer.batch(draw));
        const store = await open(location, true);
        for (const batch of written) await store.write(batch);
        await store.close();
        const log = readdirSync(location).find((name) => name.endsWith('.log'))!;
        const path = join(location, log);
        truncateSync(path, Math.floor(readFileSync(path).length * cut));
        const after = await open(location, false);
        try {
          // As many batches as there are clock readings, in order.
          const kept = after.recovered.hlc.counter;
          const image = new Image();
          for (const batch of written.slice(0, kept)) image.apply(batch);
          expectRecovered(after, image);
          await expectSame(after, image, new Map());
        } finally {
          await after.close();
        }
      }),
      { numRuns: 25, seed: 11 },
    );
  });

  test('a power cut leaves a store with a beginning of its batches, and with all that were flushed', () => {
    const lostSome = [0, 0];
    for (let seed = 1; seed <= 50; seed++) {
      for (const flushes of [true, false]) {
        const writer = new Writer();
        const disk = new Disk(flushes);
        const written = Array.from({ length: 6 }, () =>
          writer.batch([{ key: seed, origin: true, bytes: 3 }]),
        );
        for (const batch of written) disk.apply(batch);
        if (flushes) disk.flush(4);
        const lost = disk.powerCut(new Random(seed));
        const expected = new Image();
        for (const batch of written.slice(0, 6 - lost)) expected.apply(batch);
        expect(disk.image.recovered()).toEqual(expected.recovered());
        if (flushes) expect(lost).toBeLessThanOrEqual(2);
        lostSome[flushes ? 1 : 0]! += lost;
      }
    }
    expect(Math.min(...lostSome)).toBeGreaterThan(0);
  });

  test('notice a flipped bit in a record when it is read, and by no other way', async () => {
    for (const bit of [0, 37, 150, 290]) {
      const location = fresh();
      const disk = new Disk(true);
      const batch = new Writer().batch([{ key: 14, origin: true, bytes: 20 }]);
      const key = [...batch.rows.keys()][0]!;
      disk.apply(batch);
      const first = await open(location, true);
      await first.write(batch);
      await first.close();
      disk.image.flipBit(key, bit);
      await tamper(location, async (db) => {
        await db.put(`e${key}`, disk.image.rows.get(key)!);
      });
      const store = await open(location, false);
      try {
        expectRecovered(store, disk.image);
        expect(disk.image.lookup(key)).toBe('damaged');
        expect(() => store.getRow(key)).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
        await expect(read(store.rows({}))).rejects.toMatchObject({ code: 'DAMAGED' });
      } finally {
        await store.close();
      }
    }
  });

  test('agree on whether an origin may be used again, whatever happened between two openings', async () => {
    const steps = fc.array(fc.constantFrom('batch', 'none', 'reboot', 'failure'), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(steps, async (drawn) => {
        const path = fresh();
        const temporary = `${path}-tmp`;
        mkdirSync(temporary);
        const disk = new Disk(true);
        let boot = 1;
        let nonces = 0;
        for (const step of ['batch', ...drawn]) {
          const folder = await openDataFolder(path, {
            flush: false,
            machine: { bootId: `boot-${boot}`, temporary },
          });
          try {
            expect(disk.open(`nonce-${++nonces}`), `before ${step} of ${drawn.join(', ')}`).toBe(
              folder.originReusable,
            );
            if (step !== 'none') {
              const batch = batchOf({ meta: new Map([['node', Uint8Array.of(nonces)]]) });
              disk.apply(batch);
              disk.count();
              await folder.store.write(batch);
            }
            if (step === 'failure') {
              disk.distrust();
              folder.invalidate();
            }
          } finally {
            await folder.close();
          }
          if (step === 'reboot') {
            boot += 1;
            disk.powerCut(new Random(1));
          }
        }
      }),
      { numRuns: 25, seed: 13 },
    );
  });
});
