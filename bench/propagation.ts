/**
 * How long a put at one node takes until another one answers reads with it: two replicas in two processes, one
 * put at a time. Beside it, in turn, a bare WebSocket round trip between the same two processes, which is about
 * what a network of no distance costs. Both processes read the same monotonic clock, so the times of one may be
 * subtracted from those of the other.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import { seededRandom } from '../bin/seeded-random.js';
import { openReplica } from '../src/index.js';
import type { Replica } from '../src/read-store.js';
import {
  type Bench,
  type Comparison,
  type Context,
  check,
  compare,
  type Distribution,
  distribution,
  interleave,
  median,
} from './harness.js';
import type { PeerMessage } from './propagation-peer.js';

const PUTS = { full: 2_000, quick: 500, smoke: 20 };
const ANSWER_MS_MAX = 10_000;
const VALUE_CHARS = 64;
/** What a push of one such record takes, about. */
const FRAME_BYTES = 160;
const NANOS_PER_MS = 1e6;

export const propagation: Bench = {
  name: 'propagation',
  summary: 'from a put at one node to its being readable at another, beside a bare WebSocket round trip',
  run: async (context) => {
    const flushed = await measure(context, true);
    const unflushed = await measure(context, false);
    return {
      comparisons: [flushed.comparison, unflushed.comparison],
      distributions: [...flushed.distributions, ...unflushed.distributions],
      remarks: ['flushed: each node flushes what it writes while it passes it on'],
    };
  },
};

async function measure(
  context: Context,
  flush: boolean,
): Promise<{ comparison: Comparison; distributions: Distribution[] }> {
  await using replica = await openReplica({
    data: context.folder(),
    cluster: 'bench',
    name: 'writer',
    listen: '127.0.0.1:0',
    flush,
  });
  await replica.ready();
  await using peer = await Peer.start(context.folder(), replica.address!, flush);
  const name = flush ? 'flushed' : 'not flushed';
  const putMs: number[] = [];
  const tripMs: number[] = [];
  const timed = async (round: number, once: () => Promise<number>, all: number[]): Promise<number> => {
    const samples: number[] = [];
    for (let i = 0; i < PUTS[context.scale]; i++) samples.push(await once());
    // Not one by one through the stack: a round may have many.
    if (round >= 0) for (const sample of samples) all.push(sample);
    return median(samples);
  };
  const random = seededRandom(context.seed);
  const [subject, baseline] = await interleave(context, [
    {
      label: `put to readable, ${name}`,
      round: (round) => timed(round, () => putOnce(replica, peer, random.next()), putMs),
    },
    { label: 'WebSocket round trip', round: (round) => timed(round, () => peer.roundTrip(), tripMs) },
  ]);
  return {
    comparison: compare(context, {
      name: `put to readable elsewhere, ${name}`,
      unit: 'ms',
      subject: subject!,
      baseline: baseline!,
    }),
    distributions: [
      distribution(`put to readable elsewhere, ${name}`, 'ms', putMs),
      distribution('WebSocket round trip', 'ms', tripMs),
    ],
  };
}

async function putOnce(replica: Replica, peer: Peer, draw: number): Promise<number> {
  const key = `propagation/${draw}`;
  const value = String(draw).padEnd(VALUE_CHARS, '.');
  const seen = peer.sees(key);
  const began = process.hrtime.bigint();
  await replica.put(key, value, { replicas: 1, fsync: false });
  const { at, value: readThere } = await seen;
  check(readThere === value, `${key} was to read the same at the other node`);
  return Number(BigInt(at) - began) / NANOS_PER_MS;
}

/** The other process: a replica that tells what it sees, and a WebSocket echo. */
class Peer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #socket: WebSocket;
  readonly #frame = Buffer.alloc(FRAME_BYTES, 1);

  static async start(data: string, join: string, flush: boolean): Promise<Peer> {
    const script = fileURLToPath(new URL('./propagation-peer.js', import.meta.url));
    const child = fork(script, [data, join, String(flush)]);
    try {
      const [message] = (await within(once(child, 'message'), 'the other node was to be ready')) as [
        PeerMessage,
      ];
      check(message.type === 'ready', 'the other node was to be ready');
      const socket = new WebSocket(`ws://127.0.0.1:${message.echoPort}`, { perMessageDeflate: false });
      await within(once(socket, 'open'), 'the echo was to answer');
      return new Peer(child, socket);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  private constructor(child: ChildProcess, socket: WebSocket) {
    this.#child = child;
    this.#socket = socket;
  }

  async sees(key: string): Promise<{ at: string; value: unknown }> {
    const [message] = (await within(once(this.#child, 'message'), `${key} was to arrive`)) as [PeerMessage];
    check(message.type === 'seen' && message.key === key, `${key} was to arrive next`);
    return message;
  }

  async roundTrip(): Promise<number> {
    const back = within(once(this.#socket, 'message'), 'the echo was to answer');
    const began = process.hrtime.bigint();
    this.#socket.send(this.#frame);
    await back;
    return Number(process.hrtime.bigint() - began) / NANOS_PER_MS;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.terminate();
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    await within(ended, 'the other process was to end');
  }
}

async function within<T>(answer: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} within ${ANSWER_MS_MAX} ms`)), ANSWER_MS_MAX);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
