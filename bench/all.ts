/** All benches, one after the other, each in a process of its own, so that none runs on what another left behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Report, toSummary } from './report.js';

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
  /** A bench that takes longer hangs: it is ended, and the next one begins. Default 1 h; quick: 10 minutes. */
  readonly benchMsMax?: number;
}

const BENCH_MS_MAX = { full: 3_600_000, quick: 600_000 };
const END_MS_MAX = 10_000;

/** Resolves to the exit code: 1 when a bar was missed or a bench failed. */
export async function runAll(names: readonly string[], options: AllOptions): Promise<number> {
  const { script, quick, smoke = false, json, file } = options;
  const { benchMsMax = BENCH_MS_MAX[quick ? 'quick' : 'full'] } = options;
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
    for (const [i, name] of names.entries()) {
      const out = join(folder, `${name}.json`);
      if (process.stderr.isTTY === true) process.stderr.write(`bench ${i + 1} of ${names.length}: ${name}\n`);
      const child = spawn(process.execPath, [script, name, ...flags, '--json', out], {
        stdio: ['ignore', json ? 'ignore' : 'inherit', 'inherit'],
      });
      worst = Math.max(worst, await ended(child, benchMsMax));
      if (existsSync(out)) benches.push(JSON.parse(readFileSync(out, 'utf8')) as Report);
      else failed.push(name);
      // A full run takes long: what is interrupted keeps what it has.
      if (file !== undefined) writeFileSync(file, textOf());
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  process.stdout.write(json ? textOf() : `\n${toSummary(benches)}\n`);
  if (failed.length > 0) process.stderr.write(`all: no report from ${failed.join(', ')}\n`);
  return worst;
}

/** The child's exit code. It goes when this process does, and when its time is up. */
async function ended(child: ChildProcess, msMax: number): Promise<number> {
  const kill = (): void => void child.kill();
  process.once('exit', kill);
  // SIGTERM first: a bench ends its servers and deletes its folders then.
  const timer = setTimeout(async () => {
    kill();
    await delay(END_MS_MAX, undefined, { ref: false });
    child.kill('SIGKILL');
  }, msMax);
  try {
    const [code] = (await once(child, 'exit')) as [number | null];
    return code ?? 1;
  } finally {
    clearTimeout(timer);
    process.off('exit', kill);
  }
}
