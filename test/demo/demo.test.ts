import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import type { DemoReport } from '../../bin/demo/report.js';

const DEMO = fileURLToPath(new URL('../../dist/bin/commands/demo.js', import.meta.url));
const CLI = fileURLToPath(new URL('../../dist/bin/readmesh.js', import.meta.url));
const ROWS = 3_000;

/** Everything that a demo leaves behind would be in here. */
const temporary = mkdtempSync(join(tmpdir(), 'demo-test-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

/** But for the store's own records of which folders are open, which are small and shared. */
function leftovers(): string[] {
  return readdirSync(temporary).filter((name) => name !== `readmesh-${process.getuid?.() ?? 0}`);
}

interface Run {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** `stopAt`: told to stop once it has printed this. */
function run(args: readonly string[], stopAt?: string): Promise<Run> {
  return new Promise((resolve) => {
    const env = { ...process.env, TMPDIR: temporary, READMESH_LOG: 'warn' };
    const child = execFile(process.execPath, args, { env }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr });
    });
    let printed = '';
    child.stdout?.on('data', (text: string) => {
      printed += text;
      if (stopAt !== undefined && printed.includes(stopAt)) child.kill('SIGTERM');
    });
  });
}

test('a host that loses its disk under load costs no read and no acknowledged write, and nothing is left behind', async () => {
  const options = JSON.stringify({ keep: false, json: true, rows: ROWS, synthetic: true });
  const script = `const { runDemo } = await import(${JSON.stringify(pathToFileURL(DEMO).href)});
    process.exitCode = await runDemo(${options});`;
  const { code, stdout, stderr } = await run(['--input-type=module', '--eval', script]);
  expect(stderr).toBe('');
  const report = JSON.parse(stdout) as DemoReport;
  expect(report).toMatchObject({
    ok: true,
    broken: [],
    source: 'synthetic',
    rows: ROWS,
    identicalAfterLoad: true,
    lookups: { numbers: 12, right: 12 },
    fault: { killed: 'beta', founder: false },
    reads: { client: { failed: 0, wrong: 0 }, embedded: { failed: 0, wrong: 0 } },
    writes: { lost: 0 },
    identicalAfterRebuild: true,
  });
  expect(code).toBe(0);
  expect(report.reads.client.served).toBeGreaterThan(0);
  expect(report.reads.embedded.served).toBeGreaterThan(0);
  expect(report.writes.acknowledged).toBeGreaterThan(0);
  // What may have taken effect without being acknowledged is in there, too.
  const least = ROWS + report.writes.acknowledged;
  expect(report.entries).toBeGreaterThanOrEqual(least);
  expect(report.entries).toBeLessThanOrEqual(least + report.writes.unacknowledged);
  expect(leftovers()).toEqual([]);
});

test('a demo that is told to stop ends its daemons and deletes their data', async () => {
  const { code, stdout } = await run([CLI, 'demo', '--rows', String(ROWS)], 'The table');
  expect(stdout).not.toContain('In short');
  expect(code).toBe(143);
  expect(leftovers()).toEqual([]);
});

test('a node that is none cannot be killed', async () => {
  const { code, stderr } = await run([CLI, 'demo', '--kill', '4']);
  expect(code).toBe(2);
  expect(stderr).toMatch(/^readmesh: INVALID_OPTION: --kill names one of the nodes 1 to 3, not 4\n$/);
});
