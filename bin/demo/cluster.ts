/** Three daemons in one temporary folder, which is gone when they are. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon } from './daemon.js';

const START_MS_MAX = 30_000;

export interface ClusterOptions {
  readonly cluster: string;
  readonly names: readonly string[];
  /** Further flags of `readmesh serve`, for all. */
  readonly flags?: readonly string[];
}

export class LocalCluster implements AsyncDisposable {
  readonly folder: string;
  readonly cluster: string;
  readonly daemons: readonly Daemon[];
  #released = false;
  #pids: number[] = [];
  readonly #onExit = (): void => this.#destroyNow();

  /** The first daemon founds the cluster; the others join it. */
  static async start(options: ClusterOptions): Promise<LocalCluster> {
    const cluster = new LocalCluster(options);
    try {
      const [founder, ...joiners] = cluster.daemons;
      await founder!.start(START_MS_MAX);
      for (const joiner of joiners) joiner.spawn();
      for (const joiner of joiners) await joiner.ready(START_MS_MAX);
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor({ cluster, names, flags }: ClusterOptions) {
    this.cluster = cluster;
    this.folder = mkdtempSync(join(tmpdir(), 'readmesh-'));
    this.daemons = names.map(
      (name, i) =>
        new Daemon({
          folder: this.folder,
          cluster,
          name,
          join: () => (i === 0 ? [] : [this.daemons[0]!.address]),
          ...(flags === undefined ? {} : { flags }),
        }),
    );
    // However this process ends, short of SIGKILL, nothing of the cluster stays.
    process.once('exit', this.#onExit);
  }

  get addresses(): string[] {
    return this.daemons.map((daemon) => daemon.address);
  }

  /** Process ids, also after `release`. */
  get pids(): number[] {
    return this.#released ? this.#pids : this.daemons.flatMap(({ pid }) => pid ?? []);
  }

  /** Leaves it running and its folder in place when this process ends. */
  release(): void {
    this.#pids = this.pids;
    this.#released = true;
    process.off('exit', this.#onExit);
    for (const daemon of this.daemons) daemon.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#released) return;
    await Promise.all(this.daemons.map((daemon) => daemon.stop()));
    this.#destroyNow();
    process.off('exit', this.#onExit);
  }

  #destroyNow(): void {
    if (this.#released) return;
    this.#released = true;
    for (const daemon of this.daemons) daemon.killNow();
    // A process that was just killed may still be writing: look again.
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/** Signals end this process by way of its `exit` handlers, which clean up. Returns what undoes it. */
export function exitOnSignals(): () => void {
  const handlers = Object.entries(SIGNALS).map(([signal, number]) => {
    const handler = (): void => process.exit(128 + number);
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  return () => {
    for (const undo of handlers) undo();
  };
}
