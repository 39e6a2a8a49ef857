/**
 * Real daemons and command-line runs for tests: the built program in processes of its own. `npm run build` must
 * have run. Every process is ended by its id when the test ends (`endDaemonsAfterEach`, or `endDaemons`), and at
 * the latest when the test process exits; folders go with it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach } from 'vitest';

/** The package's folder: this file is also run as built, from a folder further down. */
const ROOT = [new URL('../../', import.meta.url), new URL('../../../', import.meta.url)].find((folder) =>
  existsSync(new URL('package.json', folder)),
)!;
export const PROGRAM = fileURLToPath(new URL('dist/bin/readmesh.js', ROOT));
const CLOCK_SHIM = new URL('test/support/clock-shim.mjs', ROOT).href;
const READY_MS = 20_000;
const STOP_MS = 15_000;
/** Output kept of one process; more means a test that logs without end. */
const OUTPUT_CHARS_MAX = 4_194_304;

const children = new Set<ChildProcess>();
const folders = new Set<string>();

process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A folder of the test's own, removed at the end. */
export function tempFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'readmesh-test-'));
  folders.add(folder);
  return folder;
}

export interface DaemonOptions {
  /** Default: a new temp folder. */
  data?: string;
  name?: string;
  host?: string;
  /** Default 127.0.0.1:0. */
  listen?: string;
  advertise?: string;
  join?: readonly string[];
  /** Further arguments of `serve`. */
  args?: readonly string[];
  /** Options of Node itself. */
  nodeArgs?: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Arguments of bash's `ulimit`, such as `-n 100`. */
  ulimit?: string;
  /** Lets `setClock` move the process's wall clock. */
  clock?: boolean;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** One daemon, through all its restarts. */
export class Daemon {
  readonly data: string;
  readonly #options: DaemonOptions;
  readonly #clockFile: string | undefined;
  #child: ChildProcess | undefined;
  #exited: Promise<Exit> = Promise.resolve({ code: null, signal: null });
  #stdout = '';
  #stderr = '';
  #address: string | undefined;
  #waiters = new Set<() => void>();

  constructor(options: DaemonOptions = {}) {
    this.#options = options;
    this.data = options.data ?? join(tempFolder(), 'data');
    this.#clockFile = options.clock === true ? join(tempFolder(), 'clock') : undefined;
    all.add(this);
  }

  /** `host:port` that it listens on. Kept over restarts. */
  get address(): string {
    if (this.#address === undefined) throw new Error(`the daemon does not listen yet\n${this.#stderr}`);
    return this.#address;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error('the daemon does not run');
    return this.#child.pid;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  /** What it wrote since its last start. */
  get stderr(): string {
    return this.#stderr;
  }

  get stdout(): string {
    return this.#stdout;
  }

  /** Starts the process, without waiting for anything. */
  spawn(extraArgs: readonly string[] = []): void {
    if (this.#child !== undefined) throw new Error('the daemon runs already');
    if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: run \`npm run build\` first`);
    const { nodeArgs = [], env = {} } = this.#options;
    const clockArgs = this.#clockFile === undefined ? [] : ['--import', CLOCK_SHIM];
    const clockEnv = this.#clockFile === undefined ? {} : { READMESH_TEST_CLOCK: this.#clockFile };
    this.#stdout = '';
    this.#stderr = '';
    const args = [...clockArgs, ...nodeArgs, PROGRAM, 'serve', ...this.#arguments(), ...extraArgs];
    const { ulimit } = this.#options;
    const [file, given] =
      ulimit === undefined
        ? [process.execPath, args]
        : ['bash', ['-c', `ulimit ${ulimit}; exec "$0" "$@"`, process.execPath, ...args]];
    const child = spawn(file, given, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, READMESH_LOG: 'info', ...clockEnv, ...env },
    });
    this.#child = child;
    children.add(child);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout = (this.#stdout + text).slice(-OUTPUT_CHARS_MAX);
      this.#onOutput();
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-OUTPUT_CHARS_MAX);
      this.#onOutput();
    });
    this.#exited = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        children.delete(child);
        this.#child = undefined;
        resolve({ code, signal });
        this.#onOutput();
      });
    });
  }

  /** Starts it and waits until it serves reads. */
  async start(extraArgs: readonly string[] = []): Promise<this> {
    this.spawn(extraArgs);
    await this.ready();
    return this;
  }

  /** Waits for the ready line. */
  async ready(timeoutMs = READY_MS): Promise<void> {
    await this.#until(() => this.#stdout.includes('readmesh ready'), 'be ready', timeoutMs);
  }

  /** Waits until it listens, which for a joining node is before it is ready. */
  async listening(timeoutMs = READY_MS): Promise<void> {
    await this.#until(() => this.#listenSeen(), 'listen', timeoutMs);
  }

  /** Waits until it has logged a line with this event. */
  async logged(event: string, timeoutMs = READY_MS): Promise<void> {
    await this.#until(() => this.#stderr.includes(`"event":"${event}"`), `log ${event}`, timeoutMs);
  }

  /** SIGKILL, as a crash of the process. */
  async kill9(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#exited;
  }

  /** SIGTERM; waits for the end and says how it ended. */
  async stop(): Promise<Exit> {
    const child = this.#child;
    if (child === undefined) return this.#exited;
    child.kill('SIGCONT');
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    const exit = await this.#exited;
    clearTimeout(timer);
    return exit;
  }

  /** Waits for the process to end by itself. */
  exited(): Promise<Exit> {
    return this.#exited;
  }

  /** Stops it if it runs, starts it again with the same flags on the same port, and waits until it is ready. */
  async restart(extraArgs: readonly string[] = []): Promise<this> {
    await this.stop();
    return this.start(extraArgs);
  }

  /** SIGSTOP: the process hangs, its sockets stay open. */
  pause(): void {
    process.kill(this.pid, 'SIGSTOP');
  }

  resume(): void {
    process.kill(this.pid, 'SIGCONT');
  }

  /** Deletes its data folder. It must not run. */
  wipe(): void {
    if (this.running) throw new Error('stop the daemon before its folder is deleted');
    rmSync(this.data, { recursive: true, force: true });
  }

  /** Moves its wall clock: `+MS`, `-MS` (off by), `=MS` (frozen), or '' (true). Takes effect within 50 ms. */
  setClock(setting: string): void {
    if (this.#clockFile === undefined) throw new Error('start the daemon with clock: true');
    writeFileSync(`${this.#clockFile}.new`, setting);
    renameSync(`${this.#clockFile}.new`, this.#clockFile);
  }

  /** Runs a command of the command line against it. */
  cli(...args: string[]): Promise<CliResult> {
    const [command = '', ...rest] = args;
    return runCli([command, '--hosts', this.address, ...rest]);
  }

  fetch(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`http://${this.address}${path}`, init);
  }

  #arguments(): string[] {
    const { name, host, join: members = [], advertise, args = [], listen = '127.0.0.1:0' } = this.#options;
    return [
      ...['--data', this.data, '--listen', this.#address ?? listen],
      ...(name === undefined ? [] : ['--name', name]),
      ...(host === undefined ? [] : ['--host', host]),
      ...(advertise === undefined ? [] : ['--advertise', advertise]),
      ...(members.length === 0 ? [] : ['--join', members.join(',')]),
      ...args,
    ];
  }

  #listenSeen(): boolean {
    return /"listen":"/.test(this.#stderr) || /^readmesh ready listen=/m.test(this.#stdout);
  }

  #onOutput(): void {
    if (this.#address === undefined) {
      const seen =
        /^readmesh ready listen=(\S+)/m.exec(this.#stdout) ?? /"listen":"([^"]+)"/.exec(this.#stderr);
      this.#address = seen?.[1];
    }
    for (const wake of this.#waiters) wake();
  }

  async #until(done: () => boolean, what: string, timeoutMs: number): Promise<void> {
    let overdue = false;
    const timer = setTimeout(() => {
      overdue = true;
      for (const wake of this.#waiters) wake();
    }, timeoutMs);
    try {
      while (!done()) {
        if (this.#child === undefined)
          throw new Error(`the daemon ended before it could ${what}\n${this.#stderr}`);
        if (overdue) throw new Error(`the daemon did not ${what} within ${timeoutMs} ms\n${this.#stderr}`);
        await new Promise<void>((resolve) => {
          const wake = (): void => {
            this.#waiters.delete(wake);
            resolve();
          };
          this.#waiters.add(wake);
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

const all = new Set<Daemon>();

/** Starts a daemon and waits until it serves reads. */
export function startDaemon(options: DaemonOptions = {}): Promise<Daemon> {
  return new Daemon(options).start();
}

/** A cluster of `size` daemons named n1, n2, ...; the first one founds it. */
export async function startCluster(size: number, options: DaemonOptions = {}): Promise<Daemon[]> {
  const founder = await startDaemon({ name: 'n1', ...options });
  const others = Array.from({ length: size - 1 }, (_, i) =>
    startDaemon({ name: `n${i + 2}`, ...options, join: [founder.address] }),
  );
  return [founder, ...(await Promise.all(others))];
}

/** Ends every daemon of this test file and removes every folder. */
export async function endDaemons(): Promise<void> {
  await Promise.all([...all].map((daemon) => daemon.kill9()));
  all.clear();
  for (const child of children) child.kill('SIGKILL');
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  folders.clear();
}

export function endDaemonsAfterEach(): void {
  afterEach(endDaemons);
}

export function endDaemonsAfterAll(): void {
  afterAll(endDaemons);
}

export interface CliResult extends Exit {
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  stdin?: string | Uint8Array;
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  /** The run is killed after it; then `signal` is SIGKILL. Default 30,000. */
  timeoutMs?: number;
}

/** Runs the command line to its end. */
export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: run \`npm run build\` first`);
  const { stdin = '', env = {}, cwd, timeoutMs = 30_000 } = options;
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    stdio: 'pipe',
    env: { ...process.env, READMESH_HOSTS: '', READMESH_LOG: '', ...env },
    ...(cwd === undefined ? {} : { cwd }),
  });
  children.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // A command that does not read its input, or ends early, closes the pipe.
  child.stdin.on('error', () => {});
  child.stdin.end(stdin);
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  return new Promise((resolve) => {
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      children.delete(child);
      resolve({ code, signal, stdout, stderr });
    });
  });
}
