import { describe, expect, test } from 'vitest';
import { OriginProgress, PENDING_MAX } from '../../src/core/origin-progress.js';

describe('the progress of an origin', () => {
  test('is the latest report whose number is covered', () => {
    const progress = new OriginProgress();
    progress.note(100, 1);
    progress.note(200, 5);
    progress.note(300, 9);
    expect(progress.settle(0)).toBe(0);
    expect(progress.settle(5)).toBe(200);
    expect(progress.settle(8)).toBe(200);
    expect(progress.settle(9)).toBe(300);
  });

  test('knows of an idle origin as late as it is heard', () => {
    const progress = new OriginProgress();
    for (let clock = 1_000; clock <= 5_000; clock += 1_000) {
      progress.note(clock, 7);
      expect(progress.settle(7)).toBe(clock);
    }
    progress.note(6_000, 7);
    progress.note(7_000, 7);
    expect(progress.pending).toBe(1);
  });

  test('takes the word of an origin that has lost its tail: fewer numbers will do', () => {
    const progress = new OriginProgress();
    progress.note(100, 3);
    progress.note(200, 8);
    progress.note(300, 5);
    expect(progress.settle(5)).toBe(300);
  });

  test('never goes back', () => {
    const progress = new OriginProgress();
    progress.note(300, 2);
    expect(progress.settle(2)).toBe(300);
    progress.note(200, 0);
    expect(progress.settle(2)).toBe(300);
  });

  test('keeps a bounded number of reports, the first and the last among them, and rises under steady writes', () => {
    const progress = new OriginProgress();
    for (let i = 1; i <= 10_000; i++) {
      progress.note(i, i);
      expect(progress.pending).toBeLessThanOrEqual(PENDING_MAX);
    }
    expect(progress.settle(1)).toBe(1);
    expect(progress.settle(10_000)).toBe(10_000);
    // The head is always 500 reports behind: asOf may be twice that, and no more.
    for (let i = 10_001; i <= 20_000; i++) {
      progress.note(i, i);
      expect(progress.pending).toBeLessThanOrEqual(PENDING_MAX);
      expect(progress.settle(i - 500)).toBeGreaterThanOrEqual(Math.min(10_000, i - 1_000));
      if (i > 11_500) expect(progress.asOf).toBeGreaterThan(i - 1_000 - PENDING_MAX);
    }
    expect(progress.settle(20_000)).toBe(20_000);
  });
});
