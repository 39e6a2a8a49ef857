/**
 * What a write costs each node as the cluster grows: processor time of all nodes together, over the number of nodes
 * and writes. One node takes the puts, 1,000 in flight, each acknowledged when it is on that node's own disk; the
 * clock of the processors runs until every node holds everything. All nodes share the cores of this machine: the
 * time that passes says little, the processor time is what a node of its own would need.
 */
import { type Bench, type Context, check, compare, median, type Series } from './harness.js';
import { Members } from './member.js';

const NODES = { full: [2, 4, 8, 16], quick: [2, 4, 8, 16], smoke: [2, 3] };
const PUTS = { full: 20_000, quick: 3_000, smoke: 100 };
/** Processor time varies less than time that passes. */
const ROUNDS = { full: 5, quick: 3, smoke: 2 };
const SPREAD_MAX = 1.3;

export const applyCost: Bench = {
  name: 'apply-cost',
  summary: 'processor time per applied write and node, in clusters of 2 to 16 nodes',
  run: async (context) => {
    const steps: { nodes: number; micros: Series }[] = [];
    for (const nodes of NODES[context.scale]) steps.push({ nodes, micros: await measure(context, nodes) });
    const [smallest, largest] = [steps[0]!, steps.at(-1)!];
    return {
      comparisons: [
        compare(context, {
          name: `processor time per write and node, ${largest.nodes} nodes over ${smallest.nodes}`,
          unit: 'µs',
          subject: largest.micros,
          baseline: smallest.micros,
          bar: SPREAD_MAX,
          atMost: true,
        }),
      ],
      curves: [
        {
          plot: 'apply-cost-nodes',
          label: 'processor time per write and node',
          x: 'nodes',
          y: 'µs',
          points: steps.map(({ nodes, micros }) => [nodes, micros.p50] as const),
        },
      ],
      remarks: [`${PUTS[context.scale]} puts a round at one node, new keys in each round`],
    };
  },
};

async function measure(context: Context, nodes: number): Promise<Series> {
  await using members = await Members.start(context, nodes);
  const [writer] = members.all;
  const puts = PUTS[context.scale];
  const micros: number[] = [];
  for (let round = -1; round < ROUNDS[context.scale]; round++) {
    const from = (round + 1) * puts;
    const before = await members.usage();
    await writer!.ask({ type: 'put', from, count: puts, version: round + 1, replicas: 1 });
    await members.hold(writer!);
    const after = await members.usage();
    const row = from + puts - 1;
    const values = await Promise.all(members.all.map((member) => member.ask({ type: 'read', row })));
    check(
      values.every(({ value }) => value !== '' && value === values[0]!.value),
      'all were to hold the write',
    );
    const each = (after.cpuMicros - before.cpuMicros) / nodes / puts;
    if (round >= 0) micros.push(each);
    context.note(`${nodes} nodes, round ${round + 1} of ${ROUNDS[context.scale]}: ${each.toFixed(1)} µs`);
  }
  return { label: `${nodes} nodes`, rounds: micros, p50: median(micros) };
}
