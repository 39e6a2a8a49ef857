/** Three etcd servers, and the client etcd3. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../harness.js';
import { findProgram, peerVersion, requirePeer } from './load.js';
import { disposeAll, freePorts, Server, until } from './server.js';

const NODES = 3;

/** The part of etcd3 that the benches use. */
export interface EtcdClient {
  put(key: string): { value(value: string): PromiseLike<unknown> };
  get(key: string): PromiseLike<string | null>;
  watch(): { prefix(prefix: string): { create(): Promise<EtcdWatcher> } };
  close(): void;
}

export interface EtcdWatcher {
  on(event: 'put', listener: (change: { key: Buffer }) => void): unknown;
}

export class Etcd implements AsyncDisposable {
  readonly ports: readonly number[];
  readonly #servers: readonly Server[];

  /** Throws PeerMissing. */
  static async start(context: Context): Promise<Etcd> {
    const program = findProgram('etcd');
    requirePeer('etcd3');
    const ports = await freePorts(2 * NODES);
    const url = (port: number): string => `http://127.0.0.1:${port}`;
    const peerUrl = (i: number): string => url(ports[NODES + i]!);
    const initial = Array.from({ length: NODES }, (_, i) => `n${i}=${peerUrl(i)}`).join(',');
    const folder = context.folder();
    const servers = ports.slice(0, NODES).map((port, i) => {
      const own = join(folder, String(i));
      mkdirSync(own);
      const args = ['--name', `n${i}`, '--data-dir', join(own, 'data'), '--initial-cluster', initial];
      args.push('--listen-client-urls', url(port), '--advertise-client-urls', url(port));
      args.push('--listen-peer-urls', peerUrl(i), '--initial-advertise-peer-urls', peerUrl(i));
      args.push('--initial-cluster-token', `bench-${ports[0]}`, '--log-level', 'error');
      return new Server({ program, args, folder: own, port });
    });
    const etcd = new Etcd(ports.slice(0, NODES), servers);
    try {
      for (const server of servers) await server.ready();
      const client = connectEtcd(etcd.ports[0]!);
      await until(
        'etcd was to take writes',
        () =>
          client
            .put('ready')
            .value('1')
            .then(
              () => true,
              () => false,
            ) as Promise<boolean>,
      );
      client.close();
    } catch (error) {
      await etcd[Symbol.asyncDispose]();
      throw error;
    }
    const version = /Version: (\S+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1];
    context.took({
      name: 'etcd',
      version: `etcd ${version ?? 'unknown'}, etcd3 ${peerVersion('etcd3')} (npm)`,
      settings: 'three servers, defaults',
      caveat: 'linearizable: a majority has flushed each write, in one order; reads ask a server',
    });
    return etcd;
  }

  private constructor(ports: readonly number[], servers: readonly Server[]) {
    this.ports = ports;
    this.#servers = servers;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await disposeAll(this.#servers);
  }
}

export function connectEtcd(port: number): EtcdClient {
  const { Etcd3 } = requirePeer<{ Etcd3: new (options: object) => EtcdClient }>('etcd3');
  return new Etcd3({ hosts: `127.0.0.1:${port}` });
}
