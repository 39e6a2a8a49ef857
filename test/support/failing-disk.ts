/**
 * Disks that fail on command: a shim that is preloaded into a daemon (system calls on its data folder fail), and
 * a file system of limited size. What this machine cannot do is said, and the tests that need it are skipped.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tempFolder } from './daemon.js';

const SOURCE = fileURLToPath(new URL('./failing-disk.c', import.meta.url));

export type DiskFault = 'write' | 'sync' | 'open';

/** One data folder whose disk can be told to fail. */
export class FailingDisk {
  readonly data: string;
  /** For the daemon that lives on it. */
  readonly env: Readonly<Record<string, string>>;
  readonly #control: string;

  constructor(library: string) {
    const folder = tempFolder();
    this.data = join(folder, 'data');
    this.#control = join(folder, 'faults');
    this.set();
    this.env = {
      LD_PRELOAD: library,
      FAILING_DISK_FOLDER: this.data,
      FAILING_DISK_CONTROL: this.#control,
    };
  }

  /** What fails from now on; nothing: all is well again. */
  set(...faults: DiskFault[]): void {
    writeFileSync(`${this.#control}.new`, faults.join(' '));
    renameSync(`${this.#control}.new`, this.#control);
  }
}

/** Compiles the shim. undefined, after saying why, where that cannot be done. */
export function compileFailingDisk(): string | undefined {
  if (process.platform !== 'linux') return cannot('disks that fail on command: this is no Linux');
  // Outlives the folders of one test.
  const folder = mkdtempSync(join(tmpdir(), 'readmesh-shim-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const library = join(folder, 'failing-disk.so');
  try {
    execFileSync('gcc', ['-shared', '-fPIC', '-O0', '-o', library, SOURCE, '-ldl'], { stdio: 'pipe' });
    return library;
  } catch (error) {
    return cannot(`disks that fail on command: gcc does not do it (${(error as Error).message})`);
  }
}

export interface LimitedFolder {
  readonly path: string;
  /** Takes up what room is left, but for so many bytes. */
  fill(leaveBytes: number): void;
  /** Gives it back. */
  drain(): void;
  unmount(): void;
}

/** A file system of that size. undefined, after saying why, where none can be mounted. */
export function mountLimited(mebibytes: number): LimitedFolder | undefined {
  const path = join(tempFolder(), 'limited');
  mkdirSync(path);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', path], { stdio: 'pipe' });
  } catch (error) {
    return cannot(`a full disk: mount does not do it (${(error as Error).message.split('\n')[0]})`);
  }
  const ballast = join(path, 'ballast');
  return {
    path,
    fill(leaveBytes) {
      execFileSync('bash', [
        '-c',
        // A daemon may take some of what is left between the two.
        'for i in {1..50}; do left=$(($(stat -f -c "%a*%S" "$0"))); fallocate -l $((left - $2)) "$1" && exit; done; exit 1',
        path,
        ballast,
        String(leaveBytes),
      ]);
    },
    drain: () => rmSync(ballast, { force: true }),
    unmount: () => execFileSync('umount', ['-l', path]),
  };
}

function cannot(what: string): undefined {
  process.stderr.write(`NOT TESTED on this machine: ${what}\n`);
  return undefined;
}
