import { appendFileSync, fstatSync, readdirSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { seededRandom } from '../../bin/seeded-random.js';
import { LevelStore } from '../../src/storage/level-store.js';
import { LogSync } from '../../src/storage/log-sync.js';
import { removeFolder, temporaryFolder } from './folders.js';
import { ORIGIN_A, puts } from './records.js';

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => removeFolder(folder));

describe('flushing the log apart from writing', () => {
  const path = (number: number): string => join(folder, `${String(number).padStart(6, '0')}.log`);
  let flushed: number[];
  let logs: LogSync;

  /** Which log a descriptor is of. */
  const numberOf = (fd: number): number => {
    const { ino } = fstatSync(fd);
    return Number.parseInt(readdirSync(folder).find((name) => statSync(join(folder, name)).ino === ino)!, 10);
  };
  const batch = (number: number): boolean => {
    appendFileSync(path(number), 'batch');
    return logs.written();
  };

  beforeEach(() => {
    flushed = [];
    writeFileSync(path(3), 'what the opening wrote');
    logs = new LogSync(folder, async (fd) => {
      flushed.push(numberOf(fd));
    });
  });
  afterEach(() => logs.close());

  it('flushes the log that the batches went into', async () => {
    expect(batch(3)).toBe(false);
    expect(batch(3)).toBe(false);
    await logs.flush();
    expect(flushed).toEqual([3]);
  });

  it('flushes a log that was left before the one that followed, and leaves it alone from then on', async () => {
    batch(3);
    expect(batch(7)).toBe(true);
    expect(batch(7)).toBe(false);
    await logs.flush();
    expect(flushed).toEqual([3, 7]);
    batch(7);
    await logs.flush();
    expect(flushed).toEqual([3, 7, 7]);
  });

  it('flushes every log between, should more than one have been begun since', async () => {
    batch(3);
    appendFileSync(path(5), 'batch');
    expect(batch(9)).toBe(true);
    await logs.flush();
    expect(flushed).toEqual([3, 5, 9]);
  });

  it('does without a log that is gone: what it held is in a table', async () => {
    batch(3);
    batch(5);
    unlinkSync(path(3));
    flushed.length = 0;
    logs.close();
    logs = new LogSync(folder, async (fd) => {
      flushed.push(numberOf(fd));
    });
    batch(5);
    await logs.flush();
    expect(flushed).toEqual([5]);
  });

  it('keeps as many descriptors open after a new log as before', async () => {
    const open = (): number => readdirSync('/proc/self/fd').length;
    const before = open();
    for (let number = 5; number < 50; number += 2) {
      batch(number);
      await logs.flush();
    }
    expect(open()).toBe(before);
  });

  it('throws where there is no log any more', () => {
    unlinkSync(path(3));
    expect(() => logs.written()).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });
});

describe('LevelDB', () => {
  it('begins no new log while a batch of the one before it is not flushed, whatever the sizes', async () => {
    for (const [seed, bytesMax] of [
      [1, 60],
      [2, 250],
      [3, 1_500],
      [4, 60_000],
    ] as const) {
      const random = seededRandom(seed);
      const location = join(folder, `db${seed}`);
      let durable = 0;
      const store = await LevelStore.open({
        location,
        create: true,
        flush: true,
        run: '0123456789abcdef',
        onDurable: (batches) => {
          durable = batches;
        },
      });
      const newest = (): string =>
        readdirSync(location)
          .filter((name) => name.endsWith('.log'))
          .sort()
          .at(-1)!;
      let log = newest();
      let changes = 0;
      let flushes = 0;
      try {
        let seq = 1;
        for (let batch = 1; changes < 3; batch++) {
          const keys = Array.from({ length: 500 }, (_, i) => `k${seq + i}`);
          const bytes = 1 + random.below(bytesMax);
          const before = durable;
          await store.write(puts(ORIGIN_A, seq, keys, new Uint8Array(bytes)));
          seq += keys.length;
          if (durable > before) flushes += 1;
          if (newest() === log) continue;
          log = newest();
          changes += 1;
          expect(durable, `batch ${batch} of seed ${seed}`).toBe(batch - 1);
        }
        // Nobody asked for a flush, and most batches were not: only those near the end of a log.
        expect(flushes).toBeGreaterThanOrEqual(changes);
        await store.flush();
        expect(durable).toBe(store.batches);
      } finally {
        await store.close();
      }
    }
  });
});
