/**
 * Torture, longer than the test suite has time for. Exit 0 only if every promise held, 2 for a usage error.
 *
 * `npm run torture -- --seeds N [--from SEED]` runs the simulator on seeds of your choice. A failing seed is shrunk and
 * printed on standard error, with its trace and the command that runs it again. The last line, on standard output, is
 * one line of JSON: `{"seeds":N,"failed":0,"operations":N,"faults":{kind: count}}`, where a fault counts each time
 * it mattered.
 *
 * `npm run torture -- --real --minutes M [--from SEED] [--faults KIND,...]` breaks real daemons, their files and their sockets for that
 * long, mends everything, and has the checker judge the history. The last line is of the same kind.
 */
import { parseArgs } from 'node:util';
import { drawPlan } from '../test/simulator/plan.js';
import { report, shrink } from '../test/simulator/shrink.js';
import { runSeeds } from '../test/simulator/suite.js';
import { FAULTS } from '../test/torture/faults.js';
import { torture } from '../test/torture/real.js';

/** Failing seeds that are shrunk and printed in full; of further ones only the message. */
const REPORTS_MAX = 3;
const PROGRESS_SEEDS = 1_000;

const USAGE =
  'usage: npm run torture -- --seeds N [--from SEED] | --real --minutes M [--from SEED] [--faults KIND,...]';

interface Asked {
  real: boolean;
  seeds: number;
  minutes: number;
  from: number;
  /** undefined: all. */
  kinds: string[] | undefined;
}

function asked(): Asked | undefined {
  try {
    const { values } = parseArgs({
      options: {
        real: { type: 'boolean', default: false },
        seeds: { type: 'string', default: '1000' },
        minutes: { type: 'string', default: '10' },
        from: { type: 'string', default: '1' },
        faults: { type: 'string' },
      },
    });
    const [seeds, minutes, from] = [Number(values.seeds), Number(values.minutes), Number(values.from)];
    const fits =
      Number.isSafeInteger(seeds) && seeds > 0 && Number.isSafeInteger(from) && from >= 0 && minutes > 0;
    const kinds = values.faults?.split(',');
    const known = kinds?.every((kind) => Object.hasOwn(FAULTS, kind)) ?? true;
    return fits && known ? { real: values.real, seeds, minutes, from, kinds } : undefined;
  } catch {
    return undefined;
  }
}

function simulate({ seeds, from }: Asked): number {
  const started = performance.now();
  let slowest = { seed: 0, ms: 0 };
  const { summary, failures } = runSeeds({
    from,
    seeds,
    onSeed: (seed, { failure, convergedMs }) => {
      if (failure !== undefined) console.error(`seed ${seed}: ${failure.message}`);
      if (convergedMs > slowest.ms) slowest = { seed, ms: convergedMs };
      if ((seed - from + 1) % PROGRESS_SEEDS === 0) console.error(`${seed - from + 1} seeds`);
    },
  });
  for (const { seed } of failures.slice(0, REPORTS_MAX)) console.error(report(shrink(drawPlan(seed))));
  const perSeed = ((performance.now() - started) / summary.seeds).toFixed(1);
  console.error(
    `${perSeed} ms a seed; slowest convergence ${Math.round(slowest.ms)} virtual ms (seed ${slowest.seed})`,
  );
  console.log(JSON.stringify(summary));
  return failures.length === 0 ? 0 : 1;
}

async function breakDaemons({ minutes, from, kinds }: Asked): Promise<number> {
  const started = performance.now();
  const onFault = (text: string): void =>
    console.error(`${((performance.now() - started) / 1_000).toFixed(0).padStart(5)} s  ${text}`);
  try {
    console.log(JSON.stringify(await torture({ seed: from, durationMs: minutes * 60_000, kinds, onFault })));
    return 0;
  } catch (error) {
    console.error((error as Error).message);
    console.log(JSON.stringify({ seed: from, failed: 1 }));
    return 1;
  }
}

const wanted = asked();
if (wanted === undefined) console.error(USAGE);
process.exitCode = wanted === undefined ? 2 : wanted.real ? await breakDaemons(wanted) : simulate(wanted);
