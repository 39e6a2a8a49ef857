/**
 * Catching up after a partition: two replicas in two processes hold all rows, one loses its network, the other
 * one's rows are overwritten, the network comes back. Bytes that the one that was away receives and sends until it
 * holds everything, against the changed entries as they are encoded on disk, physical key and row; and the time from
 * its first connection on, which is to grow with the changes alone.
 */
import { checksum } from '../src/checksum.js';
import { KIND_REGISTER, makeRow } from '../src/core/entry.js';
import { ENTRY } from '../src/storage/physical.js';
import { encodeValue } from '../src/values.js';
import { type Bench, type Context, check, compare, median, type Series } from './harness.js';
import { Members } from './member.js';
import { syntheticRow } from './synthetic.js';

const ROWS = { full: 455_480, quick: 100_000, smoke: 500 };
const CHANGED = {
  full: [10, 100, 1_000, 10_000, 100_000],
  quick: [10, 1_000, 10_000, 50_000],
  smoke: [10, 50],
};
const ROUNDS = { full: 3, quick: 2, smoke: 2 };
const BYTES_FACTOR = 1.2;
const BYTES_MORE = 4_096;
const MICROS_PER_MS = 1_000;

interface Step {
  readonly changed: number;
  readonly bytes: Series;
  readonly encoded: number;
  readonly ms: Series;
}

export const catchUp: Bench = {
  name: 'catch-up',
  summary: 'bytes and time until a member that was cut off holds what the other one changed meanwhile',
  run: async (context) => {
    await using members = await Members.start(context, 2);
    const rows = ROWS[context.scale];
    await members.all[0]!.ask({ type: 'load', count: rows });
    await members.hold(members.all[0]!);
    context.note(`both hold ${rows} rows`);
    const steps: Step[] = [];
    for (const changed of CHANGED[context.scale]) steps.push(await measure(context, members, changed));
    return {
      comparisons: [...steps.map((step) => bytesOf(context, step)), linear(context, steps)],
      curves: curves(steps),
      remarks: [
        `${rows} synthetic rows; bytes of both directions together, greetings and heartbeats included`,
        'the time begins with the first connection after the cut, and includes the greeting',
      ],
    };
  },
};

async function measure(context: Context, members: Members, changed: number): Promise<Step> {
  const [writer, away] = members.all;
  const label = `${changed} changed keys`;
  const bytes: number[] = [];
  const ms: number[] = [];
  for (let round = 0; round < ROUNDS[context.scale]; round++) {
    const version = round + 1;
    await away!.ask({ type: 'cut', cut: true });
    await writer!.ask({ type: 'put', from: 0, count: changed, version, replicas: 1 });
    const before = await away!.usage();
    const head = await writer!.head();
    check((before.heads[writer!.origin] ?? 0) === head - changed, 'nothing was to arrive during the cut');
    await away!.ask({ type: 'cut', cut: false });
    const { tookMs } = await away!.ask({ type: 'holds', origin: writer!.origin, head });
    const after = await away!.usage();
    bytes.push(after.received + after.sent - before.received - before.sent);
    ms.push(tookMs!);
    const row = changed - 1;
    const [theirs, ours] = [await writer!.ask({ type: 'read', row }), await away!.ask({ type: 'read', row })];
    check(
      theirs.value === ours.value && theirs.value!.startsWith(String(version)),
      'the change was to arrive',
    );
    context.note(`${label}: ${bytes.at(-1)} bytes in ${tookMs!.toFixed(0)} ms`);
  }
  return {
    changed,
    bytes: { label: `readmesh, ${label}`, rounds: bytes, p50: median(bytes) },
    encoded: encodedBytes(changed),
    ms: { label, rounds: ms, p50: median(ms) },
  };
}

/** Bytes of the entries on disk. */
function encodedBytes(count: number): number {
  let sum = 0;
  const stamp = Buffer.alloc(16, 0xb0);
  for (let i = 0; i < count; i++) {
    const [key, value] = syntheticRow(i);
    const entry = {
      kind: KIND_REGISTER,
      stamp,
      origin: 'b0'.repeat(8),
      seq: i + 1,
      value: encodeValue(value),
    };
    sum += ENTRY.length + key.length + makeRow(key, entry, checksum).length;
  }
  return sum;
}

function bytesOf(context: Context, { bytes, encoded, changed }: Step) {
  const most = BYTES_FACTOR * encoded + BYTES_MORE;
  return compare(context, {
    name: `catch-up with ${changed} changed keys`,
    unit: 'bytes',
    subject: bytes,
    baseline: { label: `${BYTES_FACTOR} x encoded + 4 KiB`, rounds: bytes.rounds.map(() => most), p50: most },
    bar: 1,
    atMost: true,
  });
}

/** The two largest: small ones are round trips more than anything else. */
function linear(context: Context, steps: readonly Step[]) {
  const [fewer, most] = steps.slice(-2) as [Step, Step];
  const perKey = ({ ms, changed }: Step): Series => ({
    label: `${changed} changed keys`,
    rounds: ms.rounds.map((figure) => (figure * MICROS_PER_MS) / changed),
    p50: (ms.p50 * MICROS_PER_MS) / changed,
  });
  return compare(context, {
    name: `time per changed key, ${most.changed} over ${fewer.changed}`,
    unit: 'µs',
    subject: perKey(most),
    baseline: perKey(fewer),
    bar: BYTES_FACTOR,
    atMost: true,
  });
}

function curves(steps: readonly Step[]) {
  const axes = { x: 'changed keys' };
  return [
    {
      ...axes,
      plot: 'catch-up-time',
      label: 'until everything is held',
      y: 'ms',
      points: steps.map(({ changed, ms }) => [changed, ms.p50] as const),
    },
  ];
}
