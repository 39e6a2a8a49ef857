/**
 * Daemons with a wire of their own, a TCP proxy, for each direction of dialing between two of them, so that a test can
 * part any from any. Everybody advertises its true port; each process is led to the proxies by a shim (route-shim.mjs).
 */
import { Daemon, type DaemonOptions } from './daemon.js';
import { freePort } from './ports.js';
import { TcpProxy } from './tcp-proxy.js';

const SHIM = new URL('route-shim.mjs', import.meta.url).href;

export class Wired {
  readonly daemons: readonly Daemon[];
  /** By who dials whom. */
  readonly #wires: ReadonlyMap<Daemon, ReadonlyMap<Daemon, TcpProxy>>;

  private constructor(wires: ReadonlyMap<Daemon, ReadonlyMap<Daemon, TcpProxy>>) {
    this.#wires = wires;
    this.daemons = [...wires.keys()];
  }

  /** Not started yet; all but the first join the first. */
  static async create(names: readonly string[], options: DaemonOptions = {}): Promise<Wired> {
    const ports = await Promise.all(names.map(() => freePort()));
    const wires = new Map<Daemon, Map<Daemon, TcpProxy>>();
    const made = await Promise.all(
      names.map(async (name, i) => {
        const proxies = await Promise.all(ports.map((port) => TcpProxy.start({ port })));
        const routes = Object.fromEntries(proxies.map(({ port }, j) => [ports[j]!, port]));
        const daemon = new Daemon({
          name,
          listen: `127.0.0.1:${ports[i]}`,
          join: i === 0 ? [] : [`127.0.0.1:${ports[0]}`],
          ...options,
          nodeArgs: ['--import', SHIM],
          env: { READMESH_TEST_ROUTES: JSON.stringify(routes) },
        });
        return { daemon, proxies };
      }),
    );
    for (const { daemon, proxies } of made)
      wires.set(daemon, new Map(made.map((other, j) => [other.daemon, proxies[j]!])));
    return new Wired(wires);
  }

  /** The wires between this one and all others, whoever dials. */
  around(daemon: Daemon): TcpProxy[] {
    return this.between(
      [daemon],
      this.daemons.filter((other) => other !== daemon),
    );
  }

  /** The wires between these and those, whoever dials. */
  between(these: readonly Daemon[], those: readonly Daemon[]): TcpProxy[] {
    return these.flatMap((one) =>
      those.flatMap((other) => [this.#wires.get(one)!.get(other)!, this.#wires.get(other)!.get(one)!]),
    );
  }

  async close(): Promise<void> {
    for (const proxies of this.#wires.values())
      await Promise.all([...proxies.values()].map((proxy) => proxy.close()));
  }
}
