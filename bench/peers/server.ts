/** One server of a peer, as a child process on a private loopback port; ended by its process, whatever happens. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const START_MS_MAX = 20_000;
const STOP_MS_MAX = 5_000;
const POLL_MS = 20;
const POLL_ANSWER_MS_MAX = 5_000;
const LOG_TAIL_CHARS = 1_000;

export interface ServerOptions {
  readonly program: string;
  readonly args: readonly string[];
  /** Where it runs and keeps its log. */
  readonly folder: string;
  readonly port: number;
}

/** However this process ends, short of SIGKILL, no server of its stays. */
const running = new Set<ChildProcess>();

function killAll(): void {
  for (const child of running) child.kill('SIGKILL');
}

export class Server implements AsyncDisposable {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #log: string;

  /** Returns at once: some servers are ready only when their fellows are. */
  constructor({ program, args, folder, port }: ServerOptions) {
    this.port = port;
    this.#log = join(folder, 'server.log');
    const log = openSync(this.#log, 'a');
    // A session of its own, as our daemons have: Linux shares a busy processor out by sessions.
    this.#child = spawn(program, args, { cwd: folder, stdio: ['ignore', log, log], detached: true });
    closeSync(log);
    // Failing to start shows in `ready`.
    this.#child.on('error', () => {});
    if (running.size === 0) process.once('exit', killAll);
    running.add(this.#child);
  }

  /** Resolves once it takes connections. */
  async ready(): Promise<void> {
    const until = performance.now() + START_MS_MAX;
    while (!(await accepts(this.port))) {
      if (!this.#runs() || performance.now() > until)
        throw new Error(`${this.#child.spawnfile} did not start: ${this.logTail()}`);
      await delay(POLL_MS);
    }
  }

  logTail(): string {
    return readFileSync(this.#log, 'utf8').slice(-LOG_TAIL_CHARS);
  }

  #runs(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
    running.delete(this.#child);
    if (running.size === 0) process.off('exit', killAll);
  }

  async #end(): Promise<void> {
    if (!this.#runs()) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS_MAX);
    await ended;
    clearTimeout(timer);
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Ports that are free now. All are held at once, so that none comes twice. */
export async function freePorts(count: number): Promise<number[]> {
  const holders = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(holders.map((holder) => once(holder, 'listening')));
  const ports = holders.map((holder) => (holder.address() as { port: number }).port);
  await Promise.all(holders.map((holder) => new Promise((resolve) => holder.close(resolve))));
  return ports;
}

/** Polls until `holds`; a poll that is never answered counts as a no. */
export async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + START_MS_MAX;
  const polled = (): Promise<boolean> => Promise.race([holds(), delay(POLL_ANSWER_MS_MAX, false)]);
  while (!(await polled())) {
    if (performance.now() > end) throw new Error(`${what} within ${START_MS_MAX} ms`);
    await delay(POLL_MS);
  }
}

/** Disposes of all, in reverse order. */
export async function disposeAll(things: readonly AsyncDisposable[]): Promise<void> {
  for (const thing of [...things].reverse()) await thing[Symbol.asyncDispose]();
}
