/**
 * The fleet that a torture run breaks: real daemons, each behind a TCP proxy of the run's own that it advertises, so
 * that all that peers dial goes through it; clients talk to the daemons directly.
 */
import { eventually } from '../support/copies.js';
import { Daemon } from '../support/daemon.js';
import { httpStatus } from '../support/http-api.js';
import { freePort } from '../support/ports.js';
import { TcpProxy } from '../support/tcp-proxy.js';

/** A machine that is busy with the other daemons starts one slowly. */
const READY_MS = 60_000;
const CAUGHT_UP_MS = 120_000;

export interface TorturedNode {
  readonly name: string;
  readonly daemon: Daemon;
  readonly proxy: TcpProxy;
  /** A fault has hold of it. */
  busy: boolean;
}

export class Fleet {
  readonly nodes: readonly TorturedNode[];

  private constructor(nodes: readonly TorturedNode[]) {
    this.nodes = nodes;
  }

  /** All are given the same list to join, and are started at once. */
  static async start(size: number, seed: number): Promise<Fleet> {
    const ports = await Promise.all(Array.from({ length: size }, () => freePort()));
    const proxies = await Promise.all(ports.map((port, i) => TcpProxy.start({ port }, seed + i)));
    const join = proxies.map((proxy) => proxy.address);
    const nodes = proxies.map((proxy, i): TorturedNode => {
      const name = `n${i + 1}`;
      const listen = `127.0.0.1:${ports[i]}`;
      const daemon = new Daemon({ name, listen, advertise: proxy.address, join, clock: true });
      return { name, daemon, proxy, busy: false };
    });
    await Promise.all(nodes.map(({ daemon }) => daemon.start()));
    return new Fleet(nodes);
  }

  /**
   * Starts a daemon that ended, until it is ready. A store that it does not trust (exit 5) is set aside and rebuilt, as an
   * operator would; returns whether that was needed.
   */
  async revive({ daemon }: TorturedNode): Promise<boolean> {
    daemon.spawn();
    const outcome = await Promise.race([
      daemon.ready(READY_MS).then(() => undefined),
      daemon.exited().then((exit) => exit),
    ]).catch((error: Error) => error);
    if (outcome === undefined) return false;
    if (outcome instanceof Error && daemon.running) throw outcome;
    const exit = await daemon.exited();
    if (exit.code !== 5)
      throw new Error(`ended with ${JSON.stringify(exit)}\n${daemon.stderr.slice(-2_000)}`);
    daemon.spawn(['--rebuild']);
    await daemon.ready(READY_MS);
    return true;
  }

  /** Waits until every node has all that any of them has now: then one of them may lose its disk. */
  async caughtUp(): Promise<void> {
    const wanted = new Map<string, number>();
    for (const { daemon } of this.nodes) {
      const { heads } = await eventually('a status', () => httpStatus(daemon.address), CAUGHT_UP_MS);
      for (const [origin, head] of Object.entries(heads))
        wanted.set(origin, Math.max(head, wanted.get(origin) ?? 0));
    }
    for (const { name, daemon } of this.nodes)
      await eventually(
        `${name} has caught up`,
        async () => {
          const { heads, ready } = await httpStatus(daemon.address);
          return ready && [...wanted].every(([origin, head]) => (heads[origin] ?? 0) >= head);
        },
        CAUGHT_UP_MS,
      );
  }

  async close(): Promise<void> {
    for (const { daemon, proxy } of this.nodes) {
      await daemon.kill9();
      await proxy.close();
    }
  }
}
