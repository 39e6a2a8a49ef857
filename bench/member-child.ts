/**
 * A process that holds one member of a cluster: says what it has used so far (processor time, bytes on its links),
 * puts rows on command, and loses its network on command. The bytes are those that its sockets carried, WebSocket
 * framing included; nobody but other members talks to it.
 */
import { type ChannelListener, subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { loadRows } from '../bin/demo/load.js';
import { openReplica } from '../src/index.js';
import type { MemberOrder, MemberReply, Usage } from './member.js';
import { syntheticRow, syntheticRows } from './synthetic.js';

/** Sockets of members, living and gone. */
class Wire {
  readonly #living = new Set<Socket>();
  #gone = { received: 0, sent: 0 };
  #cut = false;
  /** When the first socket came after the network was mended, ns. */
  #mendedAt: bigint | undefined;

  constructor() {
    const onSocket: ChannelListener = (message) => this.#add((message as { socket: Socket }).socket);
    subscribe('net.client.socket', onSocket);
    subscribe('net.server.socket', onSocket);
  }

  /** No socket lives while the network is cut. */
  setCut(cut: boolean): void {
    this.#cut = cut;
    this.#mendedAt = undefined;
    if (cut) for (const socket of this.#living) socket.destroy();
  }

  get mendedAt(): bigint | undefined {
    return this.#mendedAt;
  }

  get bytes(): { received: number; sent: number; links: number } {
    let { received, sent } = this.#gone;
    let links = 0;
    for (const { bytesRead, bytesWritten, connecting } of this.#living) {
      received += bytesRead;
      sent += bytesWritten;
      if (!connecting) links += 1;
    }
    return { received, sent, links };
  }

  #add(socket: Socket): void {
    if (this.#cut) {
      // Not at once: whoever opened it has yet to put its listeners on.
      setImmediate(() => socket.destroy());
      return;
    }
    this.#mendedAt ??= process.hrtime.bigint();
    this.#living.add(socket);
    socket.once('close', () => {
      this.#living.delete(socket);
      this.#gone = {
        received: this.#gone.received + socket.bytesRead,
        sent: this.#gone.sent + socket.bytesWritten,
      };
    });
  }
}

const [data, name, join, flush] = process.argv.slice(2) as [string, string, string, string];
const wire = new Wire();
const replica = await openReplica({
  data,
  cluster: 'bench',
  name,
  listen: '127.0.0.1:0',
  flush: flush === 'true',
  ...(join === '' ? {} : { join: [join] }),
});
await replica.ready(join === '' ? {} : { level: 'synced' });

const IN_FLIGHT = 1_000;
const TIMEOUT_MS = 60_000;

async function put(from: number, count: number, version: number, replicas: number): Promise<void> {
  let next = from;
  const inTurn = async (): Promise<void> => {
    while (next < from + count) {
      const [key, value] = syntheticRow(next++);
      await replica.put(key, versioned(value, version), { replicas, fsync: false, timeoutMs: TIMEOUT_MS });
    }
  };
  await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, count) }, inTurn));
}

/** As long as the value. */
function versioned(value: string, version: number): string {
  return `${version}`.padEnd(4) + value.slice(4);
}

async function usage(): Promise<Usage> {
  const { user, system } = process.cpuUsage();
  const { heads } = await replica.status();
  return { ...wire.bytes, cpuMicros: user + system, heads };
}

async function obey(order: MemberOrder): Promise<Omit<MemberReply, 'id'>> {
  if (order.type === 'load')
    await loadRows(replica, syntheticRows(order.count), undefined, { replicas: 1, fsync: false });
  if (order.type === 'put') await put(order.from, order.count, order.version, order.replicas);
  if (order.type === 'cut') wire.setCut(order.cut);
  if (order.type === 'holds') {
    const at = await reached(order.origin, order.head);
    return { tookMs: Number(at - (wire.mendedAt ?? at)) / 1e6 };
  }
  if (order.type === 'read') return { value: replica.getSync<string>(syntheticRow(order.row)[0]) ?? '' };
  return { usage: await usage() };
}

/** When this member has written what `origin` had accepted up to `head`, ns. */
async function reached(origin: string, head: number): Promise<bigint> {
  while (((await replica.status()).heads[origin] ?? 0) < head)
    await new Promise((next) => setTimeout(next, 2));
  return process.hrtime.bigint();
}

process.on('message', (message) => {
  const order = message as MemberOrder;
  obey(order).then(
    (reply) => process.send?.({ ...reply, id: order.id }),
    (error: unknown) => process.send?.({ id: order.id, error: String(error) }),
  );
});
// The one who started this is done, or gone.
process.once('disconnect', () => process.exit());
const { origin } = await replica.status();
process.send?.({ id: 0, ready: { address: replica.address!, origin } });
