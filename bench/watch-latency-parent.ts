/** The watching process of the bench `watch-latency`, as the writing one sees it. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { check } from './harness.js';

/** What is watched. */
export type Watched =
  | { readonly kind: 'readmesh'; readonly data: string; readonly join: string }
  | { readonly kind: 'redis' | 'nats' | 'etcd'; readonly port: number }
  | { readonly kind: 'echo' };

export interface Collect {
  readonly round: number;
  readonly count: number;
}

export type WatcherMessage =
  | { readonly type: 'ready'; readonly echoPort?: number }
  /** Nanoseconds of the machine's monotonic clock at which each change was seen; 0 for one that was not. */
  | { readonly type: 'seen'; readonly at: readonly number[] };

const START_MS_MAX = 30_000;
const VALUE_CHARS = 64;
export const PREFIX = 'w.';

/** In characters that every peer takes in a key. Round -1 warms up. */
export function keyOf(round: number, i: number): string {
  return `${PREFIX}${round + 1}.${i}`;
}

export function valueAt(i: number): string {
  return String(i).padEnd(VALUE_CHARS, '.');
}

export class Watcher implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly echoPort: number | undefined;

  static async start(watched: Watched): Promise<Watcher> {
    const script = fileURLToPath(new URL('./watch-latency-watcher.js', import.meta.url));
    const child = fork(script, [JSON.stringify(watched)]);
    try {
      const message = await reply(child);
      check(message.type === 'ready', 'the watcher was to be ready');
      return new Watcher(child, message.echoPort);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  private constructor(child: ChildProcess, echoPort: number | undefined) {
    this.#child = child;
    this.echoPort = echoPort;
  }

  /** When each change of the round was seen. */
  async seen(round: number, count: number): Promise<readonly number[]> {
    const order: Collect = { round, count };
    const answer = reply(this.#child);
    this.#child.send(order);
    const message = await answer;
    check(
      message.type === 'seen' && message.at.length === count && message.at.every((at) => at > 0),
      'every change was to be seen',
    );
    return message.at;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), START_MS_MAX);
    await ended;
    clearTimeout(timer);
  }
}

function reply(child: ChildProcess): Promise<WatcherMessage> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the watcher did not answer')), START_MS_MAX);
    const onExit = (code: number | null): void => reject(new Error(`the watcher ended with ${code}`));
    child.once('exit', onExit);
    child.once('message', (message) => {
      clearTimeout(timer);
      child.off('exit', onExit);
      resolve(message as WatcherMessage);
    });
  });
}
