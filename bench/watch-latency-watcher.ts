/** The watching process of the bench `watch-latency`: notes when it sees each change; or echoes WebSocket frames. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import { openReplica } from '../src/index.js';
import { connectEtcd } from './peers/etcd.js';
import { requirePeer } from './peers/load.js';
import { connectNats, openNatsKv } from './peers/nats.js';
import type { NodeRedis } from './peers/redis.js';
import { type Collect, keyOf, PREFIX, type Watched, type WatcherMessage } from './watch-latency-parent.js';

const COLLECT_MS_MAX = 20_000;
const POLL_MS = 10;

const seen = new Map<string, number>();
const see = (key: string): void => {
  if (!seen.has(key)) seen.set(key, Number(process.hrtime.bigint()));
};
const tell = (message: WatcherMessage): void => {
  process.send?.(message);
};

/** Begins to watch; resolves to what ends it. */
async function watch(watched: Watched): Promise<() => Promise<void>> {
  switch (watched.kind) {
    case 'readmesh':
      return watchReadmesh(watched);
    case 'redis':
      return watchRedis(watched.port);
    case 'nats':
      return watchNats(watched.port);
    case 'etcd':
      return watchEtcd(watched.port);
    case 'echo':
      return echo();
  }
}

async function watchReadmesh({ data, join }: { data: string; join: string }): Promise<() => Promise<void>> {
  const replica = await openReplica({
    data,
    cluster: 'bench',
    name: 'watcher',
    listen: '127.0.0.1:0',
    join: [join],
  });
  await replica.ready();
  const watching = (async () => {
    for await (const { key } of replica.watch(PREFIX)) see(key);
  })();
  tell({ type: 'ready' });
  return async () => {
    await replica.close();
    await watching;
  };
}

async function watchRedis(port: number): Promise<() => Promise<void>> {
  const { createClient } = requirePeer<{ createClient(options: object): NodeRedis }>('redis');
  const client = createClient({ socket: { host: '127.0.0.1', port } });
  client.on('error', () => {});
  await client.connect();
  const channel = '__keyspace@0__:';
  await client.pSubscribe(`${channel}${PREFIX}*`, (_event, name) => see(name.slice(channel.length)));
  tell({ type: 'ready' });
  return async () => client.destroy();
}

async function watchNats(port: number): Promise<() => Promise<void>> {
  const connection = await connectNats(port);
  const changes = await (await openNatsKv(connection)).watch({ key: `${PREFIX}>` });
  const watching = (async () => {
    for await (const { key } of changes) see(key);
  })();
  tell({ type: 'ready' });
  return async () => {
    await connection.close();
    await watching;
  };
}

async function watchEtcd(port: number): Promise<() => Promise<void>> {
  const client = connectEtcd(port);
  const watcher = await client.watch().prefix(PREFIX).create();
  watcher.on('put', ({ key }) => see(key.toString()));
  tell({ type: 'ready' });
  return async () => client.close();
}

async function echo(): Promise<() => Promise<void>> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
  server.on('connection', (socket) => {
    socket.on('error', () => socket.terminate());
    socket.on('message', (bytes) => socket.send(bytes));
  });
  await once(server, 'listening');
  tell({ type: 'ready', echoPort: (server.address() as AddressInfo).port });
  return async () => {
    server.close();
    for (const socket of server.clients) socket.terminate();
  };
}

process.on('message', async ({ round, count }: Collect) => {
  const end = performance.now() + COLLECT_MS_MAX;
  const keys = Array.from({ length: count }, (_, i) => keyOf(round, i));
  while (keys.some((key) => !seen.has(key)) && performance.now() < end) await delay(POLL_MS);
  tell({ type: 'seen', at: keys.map((key) => seen.get(key) ?? 0) });
  seen.clear();
});

const end = await watch(JSON.parse(process.argv[2]!) as Watched);
// The one who started this is done, or gone.
process.once('disconnect', async () => {
  await end();
  process.exit();
});
