/** redis-server, alone or with two replicas, and its two clients for Node. */

import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../harness.js';
import { findProgram, peerVersion, requirePeer } from './load.js';
import { disposeAll, freePorts, Server, until } from './server.js';

/** The part of node-redis that the benches use. */
export interface NodeRedis {
  connect(): Promise<unknown>;
  get(key: string): Promise<string | null>;
  mGet(keys: readonly string[]): Promise<(string | null)[]>;
  set(key: string, value: string): Promise<unknown>;
  sendCommand(args: readonly string[]): Promise<unknown>;
  pSubscribe(pattern: string, listener: (message: string, channel: string) => void): Promise<void>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  destroy(): void;
}

/** The part of ioredis that the benches use. */
export interface IoRedis {
  get(key: string): Promise<string | null>;
  pipeline(): IoPipeline;
  disconnect(): void;
}

export interface IoPipeline {
  set(key: string, value: string): IoPipeline;
  call(command: string, ...args: string[]): IoPipeline;
  exec(): Promise<[error: Error | null, result: unknown][] | null>;
}

export type Durability = 'memory' | 'everysec' | 'always';

const SETTINGS: Record<Durability, readonly string[]> = {
  memory: ['--appendonly', 'no'],
  everysec: ['--appendonly', 'yes', '--appendfsync', 'everysec'],
  always: ['--appendonly', 'yes', '--appendfsync', 'always'],
};

const CAVEATS: Record<Durability, string> = {
  memory: 'keeps nothing on disk',
  everysec: 'flushes once a second: an acknowledged write may be lost with its host',
  always:
    'flushes at the primary; WAIT counts replicas that have received a write, not those that flushed it',
};

export class Redis implements AsyncDisposable {
  /** The primary first. */
  readonly ports: readonly number[];
  readonly #servers: readonly Server[];

  /** Throws PeerMissing. */
  static async start(
    context: Context,
    { replicas, durability }: { replicas: number; durability: Durability },
  ): Promise<Redis> {
    const program = findProgram('redis-server');
    requirePeer('redis');
    const ports = await freePorts(1 + replicas);
    const folder = context.folder();
    const servers = ports.map((port, i) => {
      const own = join(folder, String(port));
      mkdirSync(own);
      const args = ['--port', String(port), '--bind', '127.0.0.1', '--dir', own, '--save', ''];
      args.push('--notify-keyspace-events', 'KEA', ...SETTINGS[durability]);
      args.push('--repl-diskless-sync-delay', '0');
      if (i > 0) args.push('--replicaof', '127.0.0.1', String(ports[0]));
      return new Server({ program, args, folder: own, port });
    });
    const redis = new Redis(ports, servers);
    try {
      for (const server of servers) await server.ready();
      if (replicas > 0) await redis.#linked(replicas);
    } catch (error) {
      await redis[Symbol.asyncDispose]();
      throw error;
    }
    context.took({
      name: `Redis (${durability}, ${replicas} replicas)`,
      version: `redis-server ${redisVersion(program)}, node-redis ${peerVersion('redis')}, ioredis ${peerVersion('ioredis')}`,
      settings: `${SETTINGS[durability].join(' ')} --save ""`,
      caveat: CAVEATS[durability],
    });
    return redis;
  }

  private constructor(ports: readonly number[], servers: readonly Server[]) {
    this.ports = ports;
    this.#servers = servers;
  }

  /** Milliseconds from starting an empty replica of the primary until it is in step, its process included. Its `keys`: how many it holds then. */
  async resynchronise(context: Context): Promise<{ ms: number; keys: number }> {
    const program = findProgram('redis-server');
    const [port] = await freePorts(1);
    const folder = context.folder();
    const args = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', ''];
    args.push('--replicaof', '127.0.0.1', String(this.ports[0]));
    const began = performance.now();
    await using replica = new Server({ program, args, folder, port: port! });
    await replica.ready();
    const client = await this.client({ port: port! });
    try {
      await until('the replica was to be in step', async () =>
        String(await client.sendCommand(['INFO', 'replication'])).includes('master_link_status:up'),
      );
      const ms = performance.now() - began;
      return { ms, keys: Number(await client.sendCommand(['DBSIZE'])) };
    } finally {
      client.destroy();
    }
  }

  /** A connected node-redis. `cached`: with its client-side cache, unlimited. */
  async client(options: { port?: number; cached?: boolean } = {}): Promise<NodeRedis> {
    const { createClient } = requirePeer<{ createClient(options: object): NodeRedis }>('redis');
    const { port = this.ports[0], cached = false } = options;
    const client = createClient({
      socket: { host: '127.0.0.1', port },
      ...(cached
        ? { RESP: 3, clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: 'LRU', recordStats: false } }
        : {}),
    });
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  /** An ioredis that pipelines by itself whatever is asked in one tick. */
  ioredis(): IoRedis {
    const { Redis: Client } = requirePeer<{ Redis: new (options: object) => IoRedis }>('ioredis');
    return new Client({ host: '127.0.0.1', port: this.ports[0], enableAutoPipelining: true });
  }

  async #linked(replicas: number): Promise<void> {
    const client = await this.client();
    try {
      const online = /state=online/g;
      await until('the replicas were to be linked', async () => {
        const info = String(await client.sendCommand(['INFO', 'replication']));
        return (info.match(online)?.length ?? 0) === replicas;
      });
    } finally {
      client.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await disposeAll(this.#servers);
  }
}

function redisVersion(program: string): string {
  return /v=(\S+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1] ?? 'unknown';
}

/** Loads rows in pipelines of 1,000. */
export async function loadRedis(
  client: NodeRedis,
  rows: readonly (readonly [key: string, value: string])[],
): Promise<void> {
  for (let at = 0; at < rows.length; at += 1_000)
    await Promise.all(rows.slice(at, at + 1_000).map(([key, value]) => client.set(key, value)));
}
