/**
 * What a cluster of eight costs while nobody reads or writes: bytes on each link, both ways together, and processor
 * time of each node. Eight replicas, each in a process of its own, that hold some rows and have come to rest.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Bench, check, compare, median, type Series } from './harness.js';
import { Members } from './member.js';

const NODES = { full: 8, quick: 8, smoke: 3 };
const ROWS = { full: 50_000, quick: 10_000, smoke: 100 };
const REST_MS = { full: 20_000, quick: 10_000, smoke: 100 };
const WINDOW_MS = { full: 8_000, quick: 4_000, smoke: 1_500 };
const BYTES_PER_SECOND_MAX = 1_024;
const CORE_PERCENT_MAX = 1;
const MS_PER_S = 1_000;
const PERCENT_PER_MICRO_PER_MS = 0.1;

export const idleBench: Bench = {
  name: 'idle',
  summary: 'traffic of each link and processor time of each node of an idle cluster of 8',
  run: async (context) => {
    const { scale, rounds } = context;
    const nodes = NODES[scale];
    await using members = await Members.start(context, nodes);
    const [writer] = members.all;
    await writer!.ask({ type: 'load', count: ROWS[scale] });
    await members.hold(writer!);
    context.note(`${nodes} nodes hold ${ROWS[scale]} rows; waiting until they rest`);
    await delay(REST_MS[scale]);
    const bytes: number[] = [];
    const percent: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const before = await members.usage();
      const began = performance.now();
      await delay(WINDOW_MS[scale]);
      const after = await members.usage();
      const ms = performance.now() - began;
      check(after.links === before.links && after.links >= nodes - 1, 'the links were to stay');
      // What one sends another receives: sent bytes are both ways together.
      bytes.push(((after.sent - before.sent) / after.links / ms) * MS_PER_S);
      percent.push((((after.cpuMicros - before.cpuMicros) / nodes) * PERCENT_PER_MICRO_PER_MS) / ms);
      context.note(`${bytes.at(-1)!.toFixed(0)} bytes/s a link, ${percent.at(-1)!.toFixed(2)} % of a core`);
    }
    const limit = (label: string, most: number): Series =>
      seriesOf(
        label,
        bytes.map(() => most),
      );
    const judged = { bar: 1, atMost: true } as const;
    return {
      comparisons: [
        compare(context, {
          name: `idle cluster of ${nodes}, each link`,
          unit: 'bytes/s',
          subject: seriesOf('readmesh', bytes),
          baseline: limit('1 KiB/s', BYTES_PER_SECOND_MAX),
          ...judged,
        }),
        compare(context, {
          name: `idle cluster of ${nodes}, each node`,
          unit: '% of a core',
          subject: seriesOf('readmesh', percent),
          baseline: limit('1 % of a core', CORE_PERCENT_MAX),
          ...judged,
        }),
      ],
      remarks: [`${ROWS[scale]} rows; bytes of both directions together, WebSocket framing included`],
    };
  },
};

function seriesOf(label: string, rounds: readonly number[]): Series {
  return { label, rounds, p50: median(rounds) };
}
