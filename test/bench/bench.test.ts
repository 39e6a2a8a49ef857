import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import type { Context } from '../../bench/harness.js';
import { check, compare, distribution, interleave, median, percentile } from '../../bench/harness.js';
import { pageOf } from '../../bench/page.js';
import { missedBars, type Report, toReport } from '../../bench/report.js';
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
    // No peer is installed: no program on the PATH, no package in the folder of the peers.
    const env = {
      ...process.env,
      TMPDIR: temporary,
      PATH: '',
      READMESH_BENCH_PEERS: join(temporary, 'none'),
    };
    const child = execFile(process.execPath, [RUN, ...args], { env }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr });
    });
  });
}

describe('in a smoke run every bench verifies its own results and leaves nothing behind', () => {
  test.each([
    { name: 'local-reads', comparisons: 3, distributions: 0, without: ['lmdb', 'SQLite', 'Redis'] },
    { name: 'bulk-reads', comparisons: 4, distributions: 0 },
    { name: 'client-reads', comparisons: 1, distributions: 0, without: ['Redis'] },
    { name: 'local-puts', comparisons: 2, distributions: 0 },
    { name: 'replicated-puts', comparisons: 0, distributions: 0, without: ['Redis', 'etcd', 'NATS'] },
    { name: 'import', comparisons: 1, distributions: 0 },
    { name: 'watch-latency', comparisons: 2, distributions: 2, without: ['Redis', 'NATS', 'etcd'] },
    { name: 'propagation', comparisons: 2, distributions: 4 },
    { name: 'busy-reads', comparisons: 2, distributions: 9 },
    { name: 'reclaim', comparisons: 1, distributions: 3 },
    { name: 'footprint', comparisons: 2, distributions: 0 },
    { name: 'growth', comparisons: 3, distributions: 0 },
    { name: 'digest', comparisons: 3, distributions: 0 },
    { name: 'rebuild', comparisons: 1, distributions: 0, without: ['Redis'] },
    { name: 'catch-up', comparisons: 3, distributions: 0 },
    { name: 'idle', comparisons: 2, distributions: 0 },
    { name: 'apply-cost', comparisons: 1, distributions: 0 },
  ])('$name', async ({ name, comparisons, distributions, without = [] }) => {
    const { code, stdout, stderr } = await bench(name, '--smoke', '--json');
    const reasons = stderr.split('\n').filter((line) => line !== '');
    expect(reasons).toHaveLength(without.length);
    for (const [i, peer] of without.entries())
      expect(reasons[i]).toMatch(
        new RegExp(
          `^${name}: without ${peer}: the (npm package|program) \\S+ is not installed: run bench/install-peers$`,
        ),
      );
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as Report;
    expect(report.bench).toBe(name);
    expect(report.skipped.map(({ peer }) => peer)).toEqual(without);
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
  expect(list.stdout).toMatch(/^local-reads (.*\n)+local-puts (.*\n)+import (.*\n)+scale (.*\n)+all /);
  const wrong = await bench('local-read');
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain('did you mean local-reads?');
  const flag = await bench('import', '--fast');
  expect(flag.code).toBe(2);
  expect(flag.stderr).toContain('--fast is not known');
});

async function contextOf(scale: Context['scale'], rounds: number): Promise<Context> {
  const data = await openPhoneData({ rowsMax: 1, synthetic: true });
  return {
    scale,
    seed: 1,
    rounds,
    data,
    folder: () => temporary,
    note: () => {},
    skip: () => {},
    took: () => {},
  };
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
  const report = toReport({ name: 'x', summary: 'x' }, full, { comparisons: [missed, held] });
  expect(report.comparisons.map(({ held }) => held)).toEqual([false, true]);
  expect(missedBars({ comparisons: [compare(await contextOf('smoke', 1), figures)] })).toEqual([]);
});

test('a ratio of times or sizes above its bar is a miss', async () => {
  const series = (p50: number) => ({ label: 'x', rounds: [p50], p50 });
  const figures = {
    name: 'x',
    unit: 'ms',
    subject: series(70),
    baseline: series(100),
    atMost: true,
  } as const;
  const full = await contextOf('full', 1);
  const missed = compare(full, { ...figures, bar: 0.6 });
  expect(missedBars({ comparisons: [compare(full, { ...figures, bar: 0.7 }), missed] })).toEqual([missed]);
});

describe('the page', () => {
  test('shows every comparison with its verdict, why peers are missing, and what peers do not promise', async () => {
    const series = (label: string, p50: number) => ({ label, rounds: [p50], p50 });
    const context = await contextOf('full', 1);
    const better = { name: 'quick thing', unit: 'reads/s', subject: series('ours', 300), bar: 2 };
    const worse = {
      name: 'slow thing',
      unit: 'ms',
      subject: series('ours', 9),
      bar: 1,
      atMost: true,
    } as const;
    const result = {
      comparisons: [
        compare(context, { ...better, baseline: series('Other & Co', 100) }),
        compare(context, { ...worse, baseline: series('another', 3) }),
      ],
      distributions: [
        distribution(
          'trip',
          'ms',
          Array.from({ length: 100 }, (_, i) => i + 1),
        ),
      ],
      curves: [
        {
          plot: 'growth-x',
          label: 'ours',
          x: 'rows',
          y: 'MB',
          points: [[10, 1] as const, [100, 2] as const],
        },
      ],
      skipped: [{ peer: 'Redis', reason: 'not installed' }],
      peers: [{ name: 'NATS', version: '2', settings: 'default', caveat: 'flushes nothing' }],
    };
    const report = toReport({ name: 'x', summary: 'what x is' }, context, result);
    const run = {
      command: 'npm run bench -- all',
      began: 'then',
      ended: 'now',
      benches: [report],
      failed: ['y'],
    };
    const { text, plots } = pageOf(run);
    expect(text).toContain('**1 of 2 bars held.**');
    expect(text).toMatch(/quick thing .* 3\.00 \| ≥ 2 \| held/);
    expect(text).toMatch(/slow thing .* 3\.00 \| ≤ 1 \| \*\*missed\*\*/);
    expect(text).toContain('Without Redis: not installed');
    expect(text).toContain('flushes nothing');
    expect(text).toContain('since they failed: y');
    expect([...plots.keys()].sort()).toEqual(['growth-x.svg', 'ratios.svg', 'x-shares.svg', 'x.svg']);
    for (const [name, svg] of plots) {
      expect(text).toContain(`benchmarks/${name}`);
      expect(svg).toMatch(/^<svg .*<\/svg>\n$/s);
      expect(svg).not.toMatch(/NaN|Infinity|undefined|& /);
    }
  });
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
