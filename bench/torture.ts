/**
 * Runs the simulator on seeds of your choice: `npm run torture -- --seeds N [--from SEED]`. Exit 0 only if every
 * promise held in all of them, 2 for a usage error. A failing seed is shrunk and printed on standard error, with its
 * trace and the command that runs it again. The last line, on standard output, is one line of JSON:
 * `{"seeds":N,"failed":0,"operations":N,"faults":{kind: count}}`, where a fault counts each time it mattered.
 */
import { parseArgs } from 'node:util';
import { drawPlan } from '../test/simulator/plan.js';
import { report, shrink } from '../test/simulator/shrink.js';
import { runSeeds } from '../test/simulator/suite.js';

/** Failing seeds that are shrunk and printed in full; of further ones only the message. */
const REPORTS_MAX = 3;
const PROGRESS_SEEDS = 1_000;

function numbers(): { seeds: number; from: number } | undefined {
  try {
    const { values } = parseArgs({
      options: { seeds: { type: 'string', default: '1000' }, from: { type: 'string', default: '1' } },
    });
    const [seeds, from] = [Number(values.seeds), Number(values.from)];
    if (Number.isSafeInteger(seeds) && Number.isSafeInteger(from) && seeds > 0 && from >= 0)
      return { seeds, from };
  } catch {
    // Told below.
  }
  return undefined;
}

function main(): number {
  const asked = numbers();
  if (asked === undefined) {
    console.error('usage: npm run torture -- --seeds N [--from SEED]');
    return 2;
  }
  const started = performance.now();
  let slowest = { seed: 0, ms: 0 };
  const { summary, failures } = runSeeds({
    ...asked,
    onSeed: (seed, { failure, convergedMs }) => {
      if (failure !== undefined) console.error(`seed ${seed}: ${failure.message}`);
      if (convergedMs > slowest.ms) slowest = { seed, ms: convergedMs };
      if ((seed - asked.from + 1) % PROGRESS_SEEDS === 0) console.error(`${seed - asked.from + 1} seeds`);
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

process.exitCode = main();
