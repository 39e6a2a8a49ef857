import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import type { Comparison, Context, Distribution } from '../../bench/harness.js';
import { check, compare, interleave, median, percentile } from '../../bench/harness.js';
import { missedBars, toJson } from '../../bench/report.js';
import { openPhoneData } from '../../bin/phone-data.js';

const RUN = fileURLToPath(new URL('../../dist/bench/run.js', import.meta.url));

const temporary = mkdtempSync(join(tmpdir(), 'bench-test-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

/** But for the store's own records of which folders are open, which are small and shared. */
function leftovers(): string[] {
  return readdirSync(temporary).filter((name) => name !== `readmesh-${process.getuid?.() ?? 0}`);
}

function bench(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, TMPDIR: temporary };
    const child = execFile(process.execPath, [RUN, ...args], { env }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr });
    });
  });
}

interface Report {
  bench: string;
  comparisons: Comparison[];
  distributions: Distribution[];
  versions: Record<string, string>;
}

describe('in a smoke run every bench verifies its own results and leaves nothing behind', () => {
  test.each([
    { name: 'local-reads', comparisons: 2, distributions: 0 },
    { name: 'local-puts', comparisons: 2, distributions: 0 },
    { name: 'import', comparisons: 1, distributions: 0 },
    { name: 'propagation', comparisons: 2, distributions: 4 },
    { name: 'digest', comparisons: 2, distributions: 0 },
  ])('$name', async ({ name, comparisons, distributions }) => {
    const { code, stdout, stderr } = await bench(name, '--smoke', '--json');
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as Report;
    expect(report.bench).toBe(name);
    expect(report.comparisons).toHaveLength(comparisons);
    expect(report.distributions).toHaveLength(distributions);
    for (const { subject, baseline, ratio, bar } of report.comparisons) {
      expect(subject.rounds).toHaveLength(2);
      expect(baseline.rounds).toHaveLength(2);
      for (const figure of [...subject.rounds, ...baseline.rounds]) expect(figure).toBeGreaterThan(0);
      expect(ratio).toBeCloseTo(subject.p50 / baseline.p50);
      expect(bar).toBeUndefined();
    }
    expect(Object.values(report.versions)).not.toContain('unknown');
    expect(leftovers()).toEqual([]);
  });
});

test('without a name the benches are listed, and a wrong name suggests the nearest', async () => {
  const list = await bench();
  expect(list.code).toBe(0);
  expect(list.stdout).toMatch(/^local-reads .*\nlocal-puts .*\nimport .*\npropagation /);
  const wrong = await bench('local-read');
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain('did you mean local-reads?');
  const flag = await bench('import', '--fast');
  expect(flag.code).toBe(2);
  expect(flag.stderr).toContain('--fast is not known');
});

async function contextOf(scale: Context['scale'], rounds: number): Promise<Context> {
  const data = await openPhoneData({ rowsMax: 1, synthetic: true });
  return { scale, seed: 1, rounds, data, folder: () => temporary, note: () => {} };
}

test('contenders take turns, and the warm-up round does not count', async () => {
  const calls: string[] = [];
  const contender = (label: string, factor: number) => ({
    label,
    round: (round: number) => {
      calls.push(`${label}${round}`);
      return factor * (round + 10);
    },
    after: (round: number) => void calls.push(`after ${label}${round}`),
  });
  const [a, b] = await interleave(await contextOf('smoke', 3), [contender('a', 1), contender('b', 2)]);
  expect(calls.slice(0, 6)).toEqual(['a-1', 'after a-1', 'b-1', 'after b-1', 'a0', 'after a0']);
  expect(calls).toHaveLength(16);
  expect(a).toEqual({ label: 'a', rounds: [10, 11, 12], p50: 11 });
  expect(b).toEqual({ label: 'b', rounds: [20, 22, 24], p50: 22 });
});

test('a ratio below its bar is a miss, except in a smoke run', async () => {
  const series = (p50: number) => ({ label: 'x', rounds: [p50], p50 });
  const figures = { name: 'x', unit: 'reads/s', subject: series(70), baseline: series(100), bar: 0.75 };
  const full = await contextOf('full', 1);
  const missed = compare(full, figures);
  const held = compare(full, { ...figures, bar: 0.7 });
  expect(missedBars({ comparisons: [missed, held] })).toEqual([missed]);
  const json = JSON.parse(toJson('x', full, { comparisons: [missed, held] })) as {
    comparisons: { held: boolean }[];
  };
  expect(json.comparisons.map(({ held }) => held)).toEqual([false, true]);
  expect(missedBars({ comparisons: [compare(await contextOf('smoke', 1), figures)] })).toEqual([]);
});

test('medians and percentiles are those of the sorted values', () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  expect(percentile(hundred, 0.99)).toBe(99);
  expect(percentile([7], 0.99)).toBe(7);
});

test('a wrong result fails the bench', () => {
  expect(() => check(false, 'two and two make five')).toThrow('wrong result: two and two make five');
  check(true, 'nothing');
});
