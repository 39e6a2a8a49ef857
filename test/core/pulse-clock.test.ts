import { expect, test } from 'vitest';
import { seededRandom } from '../../bin/seeded-random.js';
import { PulseClock } from '../../src/core/pulse-clock.js';

const BEAT_MS = 1_000;
const MEMBERS = 1_000;
const USUAL_MS = 100 * BEAT_MS;

/** Beats at which a member that was switched on at `startedAt` pulses, up to `until`. */
function pulses(random: () => number, startedAt: number, until: number): number[] {
  const clock = new PulseClock(random);
  const out: number[] = [];
  clock.start(startedAt, BEAT_MS);
  for (let now = startedAt; now < until; now += BEAT_MS) {
    if (!clock.isDue(now)) continue;
    out.push(now);
    clock.pulsed(now, USUAL_MS);
  }
  return out;
}

test('a member pulses soon after its start, then ever more rarely, then at the usual interval', () => {
  const { next } = seededRandom(1);
  const all = pulses(next, 0, 600 * BEAT_MS);
  const gaps = all.map((at, i) => at - (all[i - 1] ?? 0));
  expect(gaps[0]).toBeLessThanOrEqual(10 * BEAT_MS);
  for (const [i, usual] of [10, 20, 40, 80].entries()) {
    expect(gaps[i + 1]).toBeGreaterThanOrEqual(0.5 * usual * BEAT_MS);
    expect(gaps[i + 1]).toBeLessThanOrEqual((1.5 * usual + 1) * BEAT_MS);
  }
  expect(new Set(gaps.slice(5))).toEqual(new Set([USUAL_MS]));
});

test('members that were switched on within a second do not go on pulsing together', () => {
  const { next } = seededRandom(1);
  const windowMs = 10 * BEAT_MS;
  const counts = new Array<number>(10).fill(0);
  for (let i = 0; i < MEMBERS; i++)
    for (const at of pulses(next, next() * BEAT_MS, 400 * BEAT_MS))
      if (at >= 300 * BEAT_MS) counts[Math.floor((at - 300 * BEAT_MS) / windowMs)]! += 1;
  const even = (MEMBERS * windowMs) / USUAL_MS;
  for (const count of counts) {
    expect(count).toBeGreaterThan(even / 2);
    expect(count).toBeLessThan(even * 2);
  }
});
