/**
 * How reads and memory grow with the table: uncached reads, drawn uniformly, of tables of 10,000 to 2,000,000
 * rows, as a replica and as LevelDB alone answers them; and the memory of each after a restart.
 */
import { seededRandom } from '../bin/seeded-random.js';
import { draw, timed } from './draws.js';
import { measureFootprint } from './footprint.js';
import {
  type Bench,
  type Comparison,
  type Context,
  type Curve,
  compare,
  interleave,
  type Series,
} from './harness.js';
import { decodeRaw, loadLocalStore, openLocal, openLocalRaw, physicalKeys } from './local-store.js';
import { syntheticRow, syntheticRows } from './synthetic.js';

const SIZES = {
  full: [10_000, 100_000, 500_000, 1_000_000, 2_000_000],
  quick: [10_000, 50_000, 200_000],
  smoke: [500, 1_000],
};
const READS = { full: 50_000, quick: 50_000, smoke: 500 };
const TURNS = { full: { rounds: 15, settleMs: 20 }, quick: { rounds: 9, settleMs: 20 }, smoke: {} };
const SPREAD_MAX = 1.2;
const MB = 1e6;

export const growth: Bench = {
  name: 'growth',
  summary: 'uncached reads and memory of tables of 10,000 to 2,000,000 rows, against LevelDB alone',
  run: async (context) => {
    const sizes = SIZES[context.scale];
    const steps: Step[] = [];
    for (const rows of sizes) steps.push(await measure(context, rows));
    const [smallest, largest] = [steps[0]!, steps.at(-1)!];
    const ratioOf = ({ comparison }: Step, label: string): Series => {
      const { subject, baseline, ratio } = comparison;
      const rounds = subject.rounds.map((figure, i) => figure / baseline.rounds[i]!);
      return { label, rounds, p50: ratio };
    };
    const spread = compare(context, {
      name: `ratio to LevelDB, ${smallest.rows} rows over ${largest.rows}`,
      unit: 'ratio',
      subject: ratioOf(smallest, `${smallest.rows} rows`),
      baseline: ratioOf(largest, `${largest.rows} rows`),
      bar: SPREAD_MAX,
      atMost: true,
    });
    return { comparisons: [...steps.map(({ comparison }) => comparison), spread], curves: curves(steps) };
  },
};

interface Step {
  readonly rows: number;
  readonly comparison: Comparison;
  readonly replicaMb: number;
  readonly rawMb: number;
}

async function measure(context: Context, rows: number): Promise<Step> {
  context.note(`loading ${rows} rows`);
  const store = await loadLocalStore(context, syntheticRows(rows));
  const random = seededRandom(context.seed);
  const some = Array.from({ length: READS[context.scale] }, () => syntheticRow(random.below(rows)));
  const draws = draw(some, READS[context.scale], context.seed);
  const physical = { keys: physicalKeys(draws.keys), length: draws.length };
  let comparison: Comparison;
  {
    await using replica = await openLocal(store.data, 0);
    await using raw = await openLocalRaw(store);
    const contenders = [
      { label: 'readmesh', round: () => timed(draws, (key) => replica.getSync<string>(key)) },
      { label: 'LevelDB', round: () => timed(physical, (key) => decodeRaw(raw.getSync(key))) },
    ];
    const [subject, baseline] = await interleave(context, contenders, TURNS[context.scale]);
    const name = `getSync, ${rows} rows, no cache`;
    comparison = compare(context, { name, unit: 'reads/s', subject: subject!, baseline: baseline! });
  }
  const replicaMb = (await measureFootprint(context, store, 'replica')).rssBytes / MB;
  const rawMb = (await measureFootprint(context, store, 'raw')).rssBytes / MB;
  return { rows, comparison, replicaMb, rawMb };
}

function curves(steps: readonly Step[]): Curve[] {
  const curve = (plot: string, y: string, label: string, of: (step: Step) => number): Curve => ({
    plot,
    label,
    x: 'rows',
    y,
    points: steps.map((step) => [step.rows, of(step)]),
  });
  return [
    curve('growth-reads', 'reads/s', 'readmesh, no cache', ({ comparison }) => comparison.subject.p50),
    curve('growth-reads', 'reads/s', 'LevelDB', ({ comparison }) => comparison.baseline.p50),
    curve('growth-memory', 'MB', 'readmesh', ({ replicaMb }) => replicaMb),
    curve('growth-memory', 'MB', 'LevelDB', ({ rawMb }) => rawMb),
  ];
}
