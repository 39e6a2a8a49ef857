import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { type Run, runAll } from '../../bench/all.js';
import { pageOf } from '../../bench/page.js';
import type { Report } from '../../bench/report.js';

const folder = mkdtempSync(join(tmpdir(), 'bench-all-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => vi.restoreAllMocks());

/** A stand-in for bench/run.js: what it does is its name. */
const script = join(folder, 'run.mjs');
writeFileSync(
  script,
  `import { writeFileSync } from 'node:fs';
  const [name] = process.argv.slice(2);
  if (name === 'crashes') throw new Error('a bench that breaks');
  if (name === 'hangs') setInterval(() => {}, 1_000);
  else {
    const ratio = name === 'misses' ? 1 : 3;
    const series = (label, p50) => ({ label, rounds: [p50], p50 });
    const comparison = {
      name: 'some reads', unit: 'reads/s', subject: series('readmesh', ratio), baseline: series('other', 1),
      ratio, bar: 2, held: ratio >= 2,
    };
    writeFileSync(process.argv.at(-1), JSON.stringify({
      bench: name, summary: name, scale: 'quick', comparisons: [comparison], distributions: [], curves: [],
      peers: [], skipped: [], remarks: [], load: 0, versions: {}, seed: 1, data: { source: 'none', rows: 0 },
      machine: { cpu: 'none', cores: 2, memoryBytes: 1, os: 'none' },
    }));
    process.exitCode = ratio >= 2 ? 0 : 1;
  }`,
);

function said(): { text: () => string } {
  const written: string[] = [];
  const collect = (text: string | Uint8Array): boolean => written.push(String(text)) > 0;
  vi.spyOn(process.stdout, 'write').mockImplementation(collect);
  vi.spyOn(process.stderr, 'write').mockImplementation(collect);
  return { text: () => written.join('') };
}

test('a bench that breaks or hangs does not end the others, and the run says which', async () => {
  const output = said();
  const file = join(folder, 'run.json');
  // Long enough for a process to start on a busy machine: whoever is done is not ended.
  const options = { script, quick: true, json: false, file, benchMsMax: 20_000 };
  const code = await runAll(['crashes', 'holds', 'hangs', 'misses'], options);
  expect(code).toBe(1);
  const run = JSON.parse(readFileSync(file, 'utf8')) as Run;
  expect(run.benches.map(({ bench }: Report) => bench)).toEqual(['holds', 'misses']);
  expect(run.failed).toEqual(['crashes', 'hangs']);
  expect(run.command).toBe('npm run bench -- all --quick');
  expect(output.text()).toContain('no report from crashes, hangs');
  expect(output.text()).toMatch(/holds .*some reads .*3\.00 .*>= 2 .*held/);
  expect(output.text()).toMatch(/misses .*some reads .*1\.00 .*>= 2 .*missed/);
  expect(output.text()).toContain('1 of 2 bars held');
  expect(pageOf(run).text).toContain('**1 of 2 bars held.**');
}, 120_000);

test('when all bars hold the exit code is 0', async () => {
  said();
  expect(await runAll(['holds'], { script, quick: true, json: true })).toBe(0);
}, 120_000);
