import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { stampBytes } from '../../src/core/hlc.js';
import type { Row } from '../../src/core/types.js';
import { Quarantine } from '../../src/node/quarantine.js';
import { Watchers } from '../../src/node/watch.js';
import { WatchExpiries } from '../../src/node/watch-expiries.js';

const SILENT = { info: () => {}, warn: () => {}, error: () => {} };
const ORIGIN = '00000000000000aa';
let seq = 0;

function rowOf(key: string, expiresAt?: number): Row {
  seq += 1;
  const entry = {
    ...{ kind: KIND_REGISTER, stamp: stampBytes(1, seq, ORIGIN), origin: ORIGIN, seq },
    value: Uint8Array.of(1),
    ...(expiresAt === undefined ? {} : { expiresAt }),
  };
  return makeRow(key, entry, checksum);
}

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

function expiries(max?: number): { told: string[]; awaited: WatchExpiries } {
  const told: string[] = [];
  const awaited = new WatchExpiries(
    () => Date.now(),
    (key) => told.push(`${key}@${Date.now()}`),
    max,
  );
  return { told, awaited };
}

describe('awaited expiries', () => {
  test('each key is told once, when the last that was written of it ends, and never when that stays', () => {
    const write = fc.record({
      key: fc.constantFrom('a', 'b', 'c', 'd'),
      ttl: fc.option(fc.integer({ min: 1, max: 200_000 }), { nil: undefined }),
      pauseMs: fc.constantFrom(0, 0, 1, 50, 70_000),
    });
    fc.assert(
      fc.property(fc.array(write, { maxLength: 40 }), (writes) => {
        vi.setSystemTime(1_000);
        const { told, awaited } = expiries();
        const current = new Map<string, number>();
        const expected: string[] = [];
        const pass = (ms: number): void => {
          for (const [key, at] of current)
            if (at <= Date.now() + ms) {
              expected.push(`${key}@${at}`);
              current.delete(key);
            }
          vi.advanceTimersByTime(ms);
        };
        for (const { key, ttl, pauseMs } of writes) {
          const at = ttl === undefined ? undefined : Date.now() + ttl;
          awaited.note(key, rowOf(key, at), true);
          if (at === undefined) current.delete(key);
          else current.set(key, at);
          pass(pauseMs);
        }
        pass(300_000);
        expect(told.toSorted()).toEqual(expected.toSorted());
        expect(awaited.size).toBe(0);
        awaited.clear();
      }),
      { numRuns: 200 },
    );
  });

  test('more than there is room for are counted, and not told', () => {
    const { told, awaited } = expiries(3);
    for (const key of ['a', 'b', 'c', 'd', 'e']) awaited.note(key, rowOf(key, 2_000), true);
    // One that has its place keeps it.
    awaited.note('a', rowOf('a', 3_000), true);
    expect([awaited.size, awaited.dropped]).toEqual([3, 2]);
    vi.advanceTimersByTime(5_000);
    expect(told.toSorted()).toEqual(['a@3000', 'b@2000', 'c@2000']);
  });

  test('a clock that is set ahead is noticed within ten seconds, one set back delays', () => {
    const { told, awaited } = expiries();
    awaited.note('a', rowOf('a', 1_000 + 86_400_000), true);
    vi.setSystemTime(1_000 + 86_400_000);
    vi.advanceTimersByTime(10_000);
    expect(told).toHaveLength(1);
    const now = Date.now();
    awaited.note('b', rowOf('b', now + 1_000), true);
    vi.setSystemTime(now - 10_000);
    vi.advanceTimersByTime(10_999);
    expect(told).toHaveLength(1);
    vi.advanceTimersByTime(10_000);
    expect(told).toHaveLength(2);
  });

  test('keys that come and go do not pile up', () => {
    const { awaited } = expiries();
    for (let i = 0; i < 200_000; i++) {
      awaited.note(`k${i}`, rowOf(`k${i}`, 1_000_000_000), true);
      awaited.note(`k${i}`, rowOf(`k${i}`), true);
    }
    expect(awaited.size).toBe(0);
    expect(awaited.places).toBeLessThan(3_000);
  });
});

describe('watchers', () => {
  test('are told of an end as of a deletion, with the stamp of the entry; what has ended before it came is one, too', async () => {
    const watchers = new Watchers(new Quarantine(SILENT), () => Date.now());
    const watch = watchers.watch('p/', undefined);
    watchers.tell(['p/a', 'q/a', 'p/late'], [rowOf('p/a', 1_500), rowOf('q/a', 1_500), rowOf('p/late', 900)]);
    expect((await watch.next()).value).toMatchObject({ type: 'put', key: 'p/a' });
    expect((await watch.next()).value).toMatchObject({ type: 'del', key: 'p/late' });
    const next = watch.next();
    vi.advanceTimersByTime(1_000);
    expect((await next).value).toMatchObject({ type: 'del', key: 'p/a' });
    await watch.return!();
    expect(vi.getTimerCount()).toBe(0);
  });
});
