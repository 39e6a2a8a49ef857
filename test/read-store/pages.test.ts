/** Iterating over pages of a scan, and look-ups in slices: what an async generator would do, and the event loop free. */
import { expect, test } from 'vitest';
import type { Row } from '../../src/core/types.js';
import { ReadmeshError } from '../../src/errors.js';
import { Pages, pickKey } from '../../src/node/pages.js';
import { Turns } from '../../src/node/turns.js';
import type { RowScan } from '../../src/service.js';

const ROW: Row = new Uint8Array(0);

/** A scan of `pages` pages of three keys each, whose page `failing` throws. */
class FakeScan implements RowScan {
  asked = 0;
  closed = 0;
  readonly #pages: number;
  readonly #failing: number | undefined;

  constructor(pages: number, failing?: number) {
    this.#pages = pages;
    this.#failing = failing;
  }

  async next() {
    const page = this.asked++;
    await new Promise(setImmediate);
    if (page === this.#failing) throw new ReadmeshError('DAMAGED', 'a damaged record');
    const keys = page < this.#pages ? [0, 1, 2].map((i) => `${page}.${i}`) : [];
    return { keys, rows: keys.map(() => ROW) };
  }

  async close() {
    this.closed++;
  }
}

const keysOf = (scan: RowScan): Pages<string> => new Pages(() => scan, pickKey);

async function collect(pages: AsyncIterable<string>): Promise<string[]> {
  const keys: string[] = [];
  for await (const key of pages) keys.push(key);
  return keys;
}

test('rows come in order, the scan is closed at the end, and the end stays', async () => {
  const scan = new FakeScan(4);
  const pages = keysOf(scan);
  expect(await collect(pages)).toEqual([0, 1, 2, 3].flatMap((p) => [0, 1, 2].map((i) => `${p}.${i}`)));
  expect(scan.closed).toBeGreaterThan(0);
  expect(await pages.next()).toEqual({ done: true, value: undefined });
});

test('nothing is opened before the first row is asked for, and a page is read ahead only from the second on', async () => {
  let opened = 0;
  const scan = new FakeScan(10);
  const pages = new Pages(() => {
    opened++;
    return scan;
  }, pickKey);
  expect(opened).toBe(0);
  for (let i = 0; i < 3; i++) await pages.next();
  expect([opened, scan.asked]).toEqual([1, 1]);
  await pages.next();
  expect(scan.asked).toBe(3);
  await pages.return();
  expect(scan.closed).toBeGreaterThan(0);
  expect(await pages.next()).toEqual({ done: true, value: undefined });
});

test('rows asked for ahead of each other are answered in order', async () => {
  const pages = keysOf(new FakeScan(2));
  const results = await Promise.all(Array.from({ length: 8 }, () => pages.next()));
  expect(results.map(({ done, value }) => (done ? 'end' : value))).toEqual([
    '0.0',
    '0.1',
    '0.2',
    '1.0',
    '1.1',
    '1.2',
    'end',
    'end',
  ]);
});

test('leaving early closes the scan, also while a page is on its way', async () => {
  const scan = new FakeScan(9);
  for await (const key of keysOf(scan)) if (key === '1.1') break;
  expect(scan.closed).toBeGreaterThan(0);
  const other = new FakeScan(9);
  const pages = keysOf(other);
  const first = pages.next();
  await pages.return();
  expect(await first).toEqual({ done: true, value: undefined });
  expect(other.closed).toBeGreaterThan(0);
});

test('what the scan throws ends it, behind the rows before it; it is thrown once, and not at all if nobody asks', async () => {
  for (const failing of [0, 1, 2, 3]) {
    const scan = new FakeScan(9, failing);
    const pages = keysOf(scan);
    for (let i = 0; i < failing * 3; i++) expect((await pages.next()).done).toBe(false);
    await expect(pages.next()).rejects.toMatchObject({ code: 'DAMAGED' });
    expect(await pages.next()).toEqual({ done: true, value: undefined });
    expect(scan.closed).toBeGreaterThan(0);
  }
  // Page 2 is read ahead and fails; an unhandled rejection would fail this test's run.
  const scan = new FakeScan(9, 2);
  for await (const key of keysOf(scan)) if (key === '1.2') break;
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(scan.asked).toBe(3);
});

test('all that is left comes at once, in order, over several pages, and the scan is closed', async () => {
  const scan = new FakeScan(4);
  const pages = keysOf(scan);
  const first = pages.next();
  const rest = await pages.toArray();
  expect([(await first).value, ...rest]).toEqual(
    [0, 1, 2, 3].flatMap((p) => [0, 1, 2].map((i) => `${p}.${i}`)),
  );
  expect(scan.closed).toBeGreaterThan(0);
  expect(await pages.toArray()).toEqual([]);
});

test('what the scan or a value throws rejects an array once, and closes the scan', async () => {
  for (const failing of [0, 1, 3]) {
    const scan = new FakeScan(9, failing);
    const pages = keysOf(scan);
    await expect(pages.toArray()).rejects.toMatchObject({ code: 'DAMAGED' });
    expect(scan.closed).toBeGreaterThan(0);
    expect(await pages.toArray()).toEqual([]);
  }
  const scan = new FakeScan(3);
  const pages = new Pages(
    () => scan,
    (key) => {
      if (key === '1.1') throw new ReadmeshError('INVALID_VALUE', 'no value');
      return key;
    },
  );
  await expect(pages.toArray()).rejects.toMatchObject({ code: 'INVALID_VALUE' });
  expect(scan.closed).toBeGreaterThan(0);
  expect(await pages.toArray()).toEqual([]);
});

test('a value that cannot be read ends the iteration like one of the scan', async () => {
  const scan = new FakeScan(3);
  const pages = new Pages(
    () => scan,
    (key) => {
      if (key === '1.0') throw new ReadmeshError('INVALID_VALUE', 'no value');
      return key;
    },
  );
  for (let i = 0; i < 3; i++) await pages.next();
  await expect(pages.next()).rejects.toMatchObject({ code: 'INVALID_VALUE' });
  expect(await pages.next()).toEqual({ done: true, value: undefined });
  expect(scan.closed).toBeGreaterThan(0);
});

test('look-ups of many callers share a slice: the event loop turns before they are all done', async () => {
  const turns = new Turns();
  const spin = (): number => {
    const until = performance.now() + 0.05;
    while (performance.now() < until);
    return performance.now();
  };
  let turned = 0;
  const count = setInterval(() => turned++, 0);
  // 1,600 look-ups of 50 us: 80 ms, in slices of 2.
  const all = await Promise.all(
    Array.from({ length: 16 }, () =>
      turns.map(
        Array.from({ length: 100 }, (_, i) => `${i}`),
        spin,
      ),
    ),
  );
  clearInterval(count);
  expect(turned).toBeGreaterThan(5);
  // Whoever asked first is served first.
  const ends = all.map((times) => times.at(-1)!);
  expect([...ends].sort((a, b) => a - b)).toEqual(ends);
});
