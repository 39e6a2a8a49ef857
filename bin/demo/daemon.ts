/**
 * One `readmesh serve` as a process of its own, for the demo and the benches: started, killed, started again.
 *
 * Its output goes to files, not pipes, so that it can outlive whoever started it (`demo --keep`). It has its own
 * process group: ctrl-c in the terminal reaches the demo alone, which then ends it in order.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ReadmeshError } from '../../src/errors.js';

/** The command line that belongs to this build. */
export const CLI_PATH = fileURLToPath(new URL('../readmesh.js', import.meta.url));

const POLL_MS = 10;
/** An orderly stop that takes longer becomes a kill, ms. */
const STOP_MS_MAX = 10_000;
const LOG_TAIL_CHARS = 2_000;

export interface DaemonOptions {
  /** Holds the data folder and the logs of this daemon. Must exist. */
  readonly folder: string;
  readonly cluster: string;
  /** Name of the member, and label of its host. */
  readonly name: string;
  /** Members to join through, asked at each start; none: it founds the cluster. */
  readonly join: () => readonly string[];
  /** Further flags of `readmesh serve`. */
  readonly flags?: readonly string[];
}

export class Daemon {
  readonly #options: DaemonOptions;
  #child: ChildProcess | undefined;
  #address = '127.0.0.1:0';
  /** Where the log of the present run begins. */
  #logFrom = 0;

  constructor(options: DaemonOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.name;
  }

  /** `host:port`, once it has been ready for the first time; the same at every start from then on. */
  get address(): string {
    return this.#address;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get dataFolder(): string {
    return join(this.#options.folder, this.name);
  }

  get logFile(): string {
    return join(this.#options.folder, `${this.name}.log`);
  }

  get #outputFile(): string {
    return join(this.#options.folder, `${this.name}.out`);
  }

  /** Starts it and waits for its ready line. Throws TIMEOUT, or NOT_READY when it ends before. */
  async start(timeoutMs: number): Promise<void> {
    this.spawn();
    await this.ready(timeoutMs);
  }

  spawn(): void {
    const { cluster, name, flags = [] } = this.#options;
    const members = this.#options.join();
    const output = openSync(this.#outputFile, 'w');
    const log = openSync(this.logFile, 'a');
    this.#logFrom = fstatSync(log).size;
    const args = [CLI_PATH, 'serve', '--data', this.dataFolder, '--listen', this.#address];
    args.push('--cluster', cluster, '--name', name, '--host', name, ...flags);
    if (members.length > 0) args.push('--join', members.join(','));
    try {
      this.#child = spawn(process.execPath, args, { stdio: ['ignore', output, log], detached: true });
      // Failing to start shows as a child without a pid, below.
      this.#child.on('error', () => {});
    } finally {
      closeSync(output);
      closeSync(log);
    }
  }

  async ready(timeoutMs: number): Promise<void> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      const listen = /^readmesh ready .*?\blisten=(\S+)/m.exec(readFileSync(this.#outputFile, 'utf8'))?.[1];
      if (listen !== undefined) {
        this.#address = listen;
        return;
      }
      if (!this.#runs())
        throw new ReadmeshError(
          'NOT_READY',
          `${this.name} ended before it was ready; its log ends: ${this.#logTail()}`,
        );
      if (performance.now() > until)
        throw new ReadmeshError(
          'TIMEOUT',
          `${this.name} was not ready within ${timeoutMs} ms; its log ends: ${this.#logTail()}`,
        );
      await delay(POLL_MS);
    }
  }

  /** SIGKILL: no chance to flush, close or say goodbye. Resolves when the process is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async deleteDisk(): Promise<void> {
    await rm(this.dataFolder, { recursive: true, force: true });
    if (existsSync(this.dataFolder))
      throw new ReadmeshError(
        'STORE_FAILED',
        `${this.dataFolder} could not be deleted: check its permissions`,
      );
  }

  /** SIGTERM, and SIGKILL if that takes too long. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.killNow(), STOP_MS_MAX);
    await this.#end('SIGTERM');
    clearTimeout(timer);
  }

  /** For the last instant of a process: returns before the daemon is gone. */
  killNow(): void {
    if (this.#runs()) this.#child?.kill('SIGKILL');
  }

  /** Lets it run on when this process ends. */
  release(): void {
    this.#child?.unref();
    this.#child = undefined;
  }

  #runs(): boolean {
    const child = this.#child;
    return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
  }

  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.#runs()) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  #logTail(): string {
    const log = readFileSync(this.logFile).subarray(this.#logFrom).toString('utf8').trim();
    return log === '' ? '(empty)' : log.slice(-LOG_TAIL_CHARS).replace(/\s*\n\s*/g, ' | ');
  }
}
