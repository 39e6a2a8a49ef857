import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  Hlc,
  isStampHex,
  nextStamp,
  STAMP_MS_MAX,
  stampBytes,
  stampFromHex,
  stampToHex,
} from '../../src/core/hlc.js';

const WRITER = '0123456789abcdef';
const DRIFT = 5_000;

describe('the hybrid logical clock', () => {
  test('rises with every tick, whatever the wall clock does', () => {
    const step = fc.oneof(
      fc.record({ tick: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({
        receive: fc.integer({ min: 0, max: 20_000 }),
        counter: fc.integer({ min: 0, max: 65_535 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
        const clock = new Hlc(DRIFT);
        let last = '';
        for (const s of steps) {
          if ('receive' in s) clock.receive(s.receive, s.counter);
          else if (clock.tick(s.tick)) {
            const stamp = stampToHex(clock.stamp(WRITER));
            expect(stamp > last).toBe(true);
            expect(clock.ms - s.tick).toBeLessThanOrEqual(DRIFT);
            last = stamp;
          }
        }
      }),
    );
  });

  test('gives 200,000 distinct rising stamps while the wall clock stands still', () => {
    const clock = new Hlc(DRIFT);
    let last = '';
    for (let i = 0; i < 200_000; i++) {
      expect(clock.tick(1_000)).toBe(true);
      const stamp = stampToHex(clock.stamp(WRITER));
      if (!(stamp > last)) throw new Error(`${stamp} after ${last}`);
      last = stamp;
    }
    expect(clock.ms).toBe(1_003);
  });

  test('carries the counter into the milliseconds instead of wrapping it', () => {
    const clock = new Hlc(DRIFT, { ms: 1_000, counter: 65_535 });
    expect(clock.tick(1_000)).toBe(true);
    expect([clock.ms, clock.counter]).toEqual([1_001, 0]);
  });

  test('goes on from the persisted bound after a restart with a clock set back', () => {
    const clock = new Hlc(DRIFT, { ms: 10_000, counter: 3 });
    expect(clock.tick(9_000)).toBe(true);
    expect([clock.ms, clock.counter]).toEqual([10_000, 4]);
  });

  test('refuses to run further ahead of the wall clock than the drift bound, and is unchanged by that', () => {
    const clock = new Hlc(DRIFT, { ms: 20_000, counter: 7 });
    expect(clock.isSkewed(14_999)).toBe(true);
    expect(clock.tick(14_999)).toBe(false);
    expect([clock.ms, clock.counter]).toEqual([20_000, 7]);
    expect(clock.tick(15_000)).toBe(true);
  });

  test('does not overflow at the end of its range', () => {
    const clock = new Hlc(DRIFT, { ms: STAMP_MS_MAX, counter: 65_535 });
    expect(clock.tick(STAMP_MS_MAX)).toBe(false);
  });
});

describe('stamps', () => {
  test('as text sort like their times, then counters, then writers', () => {
    const part = fc.tuple(fc.nat(STAMP_MS_MAX), fc.nat(65_535), fc.constantFrom(WRITER, 'ffffffffffffffff'));
    fc.assert(
      fc.property(part, part, (a, b) => {
        const order = a[0] - b[0] || a[1] - b[1] || (a[2] < b[2] ? -1 : a[2] > b[2] ? 1 : 0);
        const [x, y] = [stampToHex(stampBytes(...a)), stampToHex(stampBytes(...b))];
        expect(isStampHex(x)).toBe(true);
        expect(Math.sign(x < y ? -1 : x > y ? 1 : 0)).toBe(Math.sign(order));
      }),
    );
  });

  test('of a batch follow each other, over the end of a millisecond as well', () => {
    const first = stampToHex(stampBytes(7, 65_534, WRITER));
    expect(nextStamp(first, 0)).toBe(first);
    expect(nextStamp(first, 1)).toBe(stampToHex(stampBytes(7, 65_535, WRITER)));
    expect(nextStamp(first, 2)).toBe(stampToHex(stampBytes(8, 0, WRITER)));
  });
});

test('a stamp comes back from its text, every byte of it', () => {
  for (let byte = 0; byte < 256; byte++) {
    const stamp = Uint8Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? byte : 255 - byte));
    expect(stampFromHex(stampToHex(stamp))).toEqual(stamp);
  }
});
