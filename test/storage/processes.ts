/** Real processes that open data folders. They run compiled code, since Node 20 does not run TypeScript. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { removeFolder } from './folders.js';

const ROOT = resolve(import.meta.dirname, '../..');

export interface Openers {
  /** Starts a process on the folder. `fileKibMax`: greatest size of a file that it may write. */
  start(folder: string, options?: { fileKibMax?: number }): Opener;
  /** Kills what still runs and removes what was compiled. */
  dispose(): Promise<void>;
}

export interface Opener {
  readonly pid: number;
  /** The next line of JSON that it prints; rejects when it ends without one. */
  next(): Promise<Record<string, unknown>>;
  say(line: string): void;
  kill(signal: NodeJS.Signals): Promise<void>;
  ended(): Promise<void>;
}

export async function compileOpener(): Promise<Openers> {
  const out = mkdtempSync(join(tmpdir(), 'readmesh-opener-'));
  const options =
    '--ignoreConfig --noCheck --target ES2023 --module NodeNext --moduleResolution NodeNext --types node';
  await promisify(execFile)(
    process.execPath,
    [
      join(ROOT, 'node_modules/typescript/bin/tsc'),
      ...options.split(' '),
      '--rootDir',
      ROOT,
      '--outDir',
      out,
      join(ROOT, 'test/storage/opener.ts'),
    ],
    { cwd: ROOT },
  );
  writeFileSync(join(out, 'package.json'), '{"type":"module"}');
  symlinkSync(join(ROOT, 'node_modules'), join(out, 'node_modules'));
  const script = join(out, 'test/storage/opener.js');
  const started: Opener[] = [];
  return {
    start(folder, { fileKibMax } = {}) {
      const limit = fileKibMax === undefined ? '' : `ulimit -f ${fileKibMax}; `;
      const child = spawn('bash', ['-c', `${limit}exec "$0" "$@"`, process.execPath, script, folder], {
        stdio: ['pipe', 'pipe', 'inherit'],
        // Beside the data folder, so that nothing stays behind in the system's own.
        env: { ...process.env, TMPDIR: dirname(folder) },
      });
      const opener = openerOf(child);
      started.push(opener);
      return opener;
    },
    async dispose() {
      for (const opener of started) await opener.kill('SIGKILL');
      removeFolder(out);
    },
  };
}

function openerOf(child: ChildProcess): Opener {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
  });
  child.stdin!.on('error', () => undefined);
  return {
    pid: child.pid!,
    async next() {
      const line = await lines.next();
      if (line.done === true) throw new Error('the process ended without an answer');
      return JSON.parse(line.value) as Record<string, unknown>;
    },
    say: (line) => void child.stdin!.write(`${line}\n`),
    async kill(signal) {
      child.kill(signal);
      await ended;
    },
    ended: () => ended,
  };
}
