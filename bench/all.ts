/** All benches, one after the other, each in a process of its own, so that none runs on what another left behind. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Report } from './report.js';

export const ALL = {
  name: 'all',
  summary: 'every bench above but scale, each in a process of its own; with a FILE.json for the page',
};

/** What one run of `all` leaves. */
export interface Run {
  readonly command: string;
  readonly began: string;
  readonly ended: string;
  readonly benches: readonly Report[];
  /** Names of benches that did not end with a report. */
  readonly failed: readonly string[];
}

export interface AllOptions {
  /** Runs one bench. */
  readonly script: string;
  readonly quick: boolean;
  readonly smoke?: boolean;
  readonly json: boolean;
  readonly file?: string;
}

/** Resolves to the exit code. */
export async function runAll(names: readonly string[], options: AllOptions): Promise<number> {
  const { script, quick, smoke = false, json, file } = options;
  const folder = mkdtempSync(join(tmpdir(), 'readmesh-bench-all-'));
  const flags = [...(quick ? ['--quick'] : []), ...(smoke ? ['--smoke'] : [])];
  const began = new Date().toISOString();
  const benches: Report[] = [];
  const failed: string[] = [];
  const command = ['npm run bench -- all', ...flags].join(' ');
  const textOf = (): string => {
    const run: Run = { command, began, ended: new Date().toISOString(), benches, failed };
    return `${JSON.stringify(run, undefined, 2)}\n`;
  };
  let worst = 0;
  try {
    for (const name of names) {
      const out = join(folder, `${name}.json`);
      const stdout = json ? 'ignore' : 'inherit';
      const child = spawn(process.execPath, [script, name, ...flags, '--json', out], {
        stdio: ['ignore', stdout, 'inherit'],
      });
      const kill = (): void => void child.kill();
      process.once('exit', kill);
      const [code] = (await once(child, 'exit')) as [number | null];
      process.off('exit', kill);
      worst = Math.max(worst, code ?? 1);
      if (existsSync(out)) benches.push(JSON.parse(readFileSync(out, 'utf8')) as Report);
      else failed.push(name);
      // A full run takes long: what is interrupted keeps what it has.
      if (file !== undefined) writeFileSync(file, textOf());
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (json) process.stdout.write(textOf());
  if (failed.length > 0) process.stderr.write(`all: no report from ${failed.join(', ')}\n`);
  return worst;
}
