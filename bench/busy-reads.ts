/**
 * Reads while writes arrive: getSync of a replica in this process, one of three members, while another process
 * puts 5,000 times a second through a daemon, and while it puts as fast as it is acknowledged. Against the same
 * reads while nothing is written. Each read is timed by itself, and the event loop turns after every few.
 * The cache is off: it would warm up from round to round, and hide what the disk's work does to reads.
 * Between the reads some arithmetic that takes about as long is timed the same way. It waits for nothing but its core:
 * its tail is what the operating system takes, and no reading of whatever kind could have a shorter one.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LocalCluster } from '../bin/demo/cluster.js';
import { loadRows } from '../bin/demo/load.js';
import { readPhoneRows } from '../bin/phone-data.js';
import { openReplica, type Replica } from '../src/index.js';
import type { WriterOrder, WriterReply } from './busy-reads-writer.js';
import { type Draws, draw } from './draws.js';
import {
  type Bench,
  type Contender,
  type Context,
  check,
  compare,
  type Distribution,
  distribution,
  interleave,
  percentile,
  type Series,
} from './harness.js';

const TURN_MS = { full: 4_000, quick: 2_000, smoke: 100 };
const RATE = { full: 5_000, quick: 5_000, smoke: 200 };
const READS_PER_TURN = 10;
/** Rounds of arithmetic that take about as long as a read. */
const SPINS = 2_000;
const P99_TIMES_MAX = 2;
const MICROS_PER_MS = 1_000;
const NANOS_PER_MS = 1e6;
const PERMILLE_999 = 0.999;

export const busyReads: Bench = {
  name: 'busy-reads',
  summary: 'getSync while 5,000 replicated writes a second arrive, and as many as the cores sustain',
  run: async (context) => {
    const rows = await readPhoneRows(context.data);
    await using cluster = await LocalCluster.start({ cluster: 'bench', names: ['a', 'b'] });
    await using replica = await openReplica({
      data: context.folder(),
      cluster: 'bench',
      name: 'c',
      listen: '127.0.0.1:0',
      join: cluster.addresses,
      tuning: { cacheBytesMax: 0 },
    });
    await replica.ready({ level: 'synced' });
    context.note(`loading ${rows.length} rows`);
    await loadRows(replica, rows);
    await using writer = new Writer(cluster.addresses[0]!);
    const draws = draw(rows, 50_000, context.seed);
    // Awaited here: nothing of this is disposed of before.
    return await measure(context, replica, writer, draws);
  },
};

interface Load {
  readonly label: string;
  /** Writes a second; 0: none; infinite: as fast as they are acknowledged. */
  readonly rate: number;
}

async function measure(context: Context, replica: Replica, writer: Writer, draws: Draws) {
  const loads: Load[] = [
    { label: 'idle', rate: 0 },
    { label: `${RATE[context.scale]} writes/s`, rate: RATE[context.scale] },
    { label: 'as many writes as are acknowledged', rate: Number.POSITIVE_INFINITY },
  ];
  const micros = loads.map((): number[] => []);
  const spinMicros = loads.map((): number[] => []);
  const loopMs = loads.map((): number[] => []);
  const rates = loads.map((): number[] => []);
  const contenders = loads.map(
    ({ label, rate }, i): Contender => ({
      label,
      round: async (round) => {
        const samples: number[] = [];
        const spins: number[] = [];
        const delays = monitorEventLoopDelay({ resolution: 1 });
        await writer.start(rate);
        delays.enable();
        await readFor(replica, draws, TURN_MS[context.scale], samples, spins);
        delays.disable();
        const written = await writer.stop();
        if (round >= 0) {
          for (const sample of samples) micros[i]!.push(sample);
          for (const spin of spins) spinMicros[i]!.push(spin);
          loopMs[i]!.push(delays.max / NANOS_PER_MS);
          rates[i]!.push(written);
        }
        return percentile(samples, 0.99);
      },
    }),
  );
  const [idle, ...busy] = await interleave(context, contenders);
  const comparisons = busy.map((subject: Series) =>
    compare(context, {
      name: `getSync p99, ${subject.label}`,
      unit: 'µs',
      subject,
      baseline: idle!,
      bar: P99_TIMES_MAX,
      atMost: true,
    }),
  );
  const distributions = loads.flatMap(({ label }, i): Distribution[] => [
    distribution(`getSync, ${label}`, 'µs', micros[i]!),
    distribution(`arithmetic as long as a read, ${label}`, 'µs', spinMicros[i]!),
    distribution(`longest event-loop delay of a round, ${label}`, 'ms', loopMs[i]!),
  ]);
  const remarks = loads.map(({ label }, i) => {
    const tail = percentile(micros[i]!, PERMILLE_999).toFixed(1);
    const writes = Math.round(Math.max(...rates[i]!));
    return `${label}: getSync p99.9 ${tail} µs, at most ${writes} writes/s acknowledged`;
  });
  return { comparisons, distributions, remarks };
}

async function readFor(
  replica: Replica,
  { keys }: Draws,
  ms: number,
  samples: number[],
  spins: number[],
): Promise<void> {
  const until = performance.now() + ms;
  for (let next = 0; performance.now() < until; ) {
    for (let i = 0; i < READS_PER_TURN; i++) {
      const key = keys[next++ % keys.length]!;
      const began = performance.now();
      const value = replica.getSync(key);
      samples.push((performance.now() - began) * MICROS_PER_MS);
      check(value !== undefined, `${key} was to be read`);
      const spun = performance.now();
      check(spin(next) !== 0, 'the arithmetic is not to be left out');
      spins.push((performance.now() - spun) * MICROS_PER_MS);
    }
    await nextTurn();
  }
}

function spin(seed: number): number {
  let state = seed | 1;
  for (let i = 0; i < SPINS; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
  }
  return state;
}

/** The writing process. */
class Writer implements AsyncDisposable {
  readonly #child: ChildProcess;

  constructor(address: string) {
    this.#child = fork(fileURLToPath(new URL('./busy-reads-writer.js', import.meta.url)), [address]);
  }

  /** Resolves once it writes. */
  async start(rate: number): Promise<void> {
    await this.#ask({ rate: Number.isFinite(rate) ? rate : -1 });
  }

  /** Writes a second that were acknowledged since. */
  async stop(): Promise<number> {
    return (await this.#ask({ stop: true })).rate;
  }

  async #ask(order: WriterOrder): Promise<WriterReply> {
    const answer = new Promise<WriterReply>((resolve, reject) => {
      const onExit = (code: number | null): void => reject(new Error(`the writer ended with ${code}`));
      this.#child.once('exit', onExit);
      this.#child.once('message', (message) => {
        this.#child.off('exit', onExit);
        resolve(message as WriterReply);
      });
    });
    this.#child.send(order);
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}
