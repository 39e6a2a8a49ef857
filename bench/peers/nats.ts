/** Three nats-servers with JetStream, and a KV bucket with three replicas. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../harness.js';
import { findProgram, peerVersion, requirePeer } from './load.js';
import { disposeAll, freePorts, Server, until } from './server.js';

const NODES = 3;
const BUCKET = 'bench';

/** The parts of nats.js that the benches use. */
export interface NatsConnection {
  close(): Promise<void>;
}

export interface NatsKv {
  put(key: string, value: string): Promise<number>;
  get(key: string): Promise<{ string(): string } | null>;
  watch(options: { key: string }): Promise<AsyncIterable<{ key: string }>>;
}

interface Kvm {
  create(bucket: string, options: object): Promise<NatsKv>;
  open(bucket: string): Promise<NatsKv>;
}

export class Nats implements AsyncDisposable {
  readonly ports: readonly number[];
  readonly #servers: readonly Server[];

  /** Throws PeerMissing. */
  static async start(context: Context): Promise<Nats> {
    const program = findProgram('nats-server');
    requirePeer('@nats-io/kv');
    const ports = await freePorts(2 * NODES);
    const routes = ports.slice(NODES).map((port) => `nats://127.0.0.1:${port}`);
    const folder = context.folder();
    const servers = ports.slice(0, NODES).map((port, i) => {
      const own = join(folder, String(i));
      mkdirSync(own);
      const config = join(own, 'nats.conf');
      writeFileSync(
        config,
        configOf({ name: `n${i}`, port, routePort: ports[NODES + i]!, routes, folder: own }),
      );
      return new Server({ program, args: ['-c', config], folder: own, port });
    });
    const nats = new Nats(ports.slice(0, NODES), servers);
    try {
      for (const server of servers) await server.ready();
      await nats.#createBucket();
    } catch (error) {
      await nats[Symbol.asyncDispose]();
      throw error;
    }
    const version = execFileSync(program, ['--version'], { encoding: 'utf8' }).trim();
    context.took({
      name: 'NATS JetStream KV',
      version: `${version}, @nats-io/kv ${peerVersion('@nats-io/kv')}`,
      settings:
        'three servers, bucket with 3 replicas on files, history 1, default sync_interval (2 minutes)',
      caveat: 'a majority has written, none has flushed; reads ask a server',
    });
    return nats;
  }

  private constructor(ports: readonly number[], servers: readonly Server[]) {
    this.ports = ports;
    this.#servers = servers;
  }

  async #createBucket(): Promise<void> {
    const connection = await connectNats(this.ports[0]!);
    try {
      // A cluster takes a while to choose its leader, and refuses until it has.
      await until('the bucket was to be created', () =>
        kvm(connection)
          .create(BUCKET, { replicas: NODES, history: 1, storage: 'file' })
          .then(
            () => true,
            () => false,
          ),
      );
    } finally {
      await connection.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await disposeAll(this.#servers);
  }
}

export function connectNats(port: number): Promise<NatsConnection> {
  const { connect } = requirePeer<{ connect(options: object): Promise<NatsConnection> }>(
    '@nats-io/transport-node',
  );
  return connect({ servers: `127.0.0.1:${port}`, ignoreClusterUpdates: true });
}

export function openNatsKv(connection: NatsConnection): Promise<NatsKv> {
  return kvm(connection).open(BUCKET);
}

function kvm(connection: NatsConnection): Kvm {
  const { Kvm: Manager } = requirePeer<{ Kvm: new (connection: NatsConnection) => Kvm }>('@nats-io/kv');
  return new Manager(connection);
}

interface Config {
  readonly name: string;
  readonly port: number;
  readonly routePort: number;
  readonly routes: readonly string[];
  readonly folder: string;
}

function configOf({ name, port, routePort, routes, folder }: Config): string {
  return `
server_name: ${name}
listen: 127.0.0.1:${port}
jetstream { store_dir: "${folder}" }
cluster {
  name: bench
  listen: 127.0.0.1:${routePort}
  routes: [${routes.join(', ')}]
}
`;
}
