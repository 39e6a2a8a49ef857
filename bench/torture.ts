/**
 * Runs the simulator on seeds of your choice: `npm run torture -- --seeds N [--from SEED] [--trace]`. Exit 0 only
 * if every promise held in all of them. The last line is one line of JSON; a failing seed is shrunk, and printed
 * with its trace and the command that runs it again.
 */
import { parseArgs } from 'node:util';
import { runSeeds } from '../test/simulator/suite.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
  },
});
const started = performance.now();
let slowest = 0;
const { summary, failures } = runSeeds({
  from: Number(values.from),
  seeds: Number(values.seeds),
  onSeed: (seed, outcome) => {
    slowest = Math.max(slowest, outcome.convergedMs);
    if (values.verbose)
      console.error(
        seed,
        outcome.hash,
        outcome.operations,
        outcome.messages,
        outcome.virtualMs,
        outcome.convergedMs,
      );
    if (outcome.failure !== undefined) console.error(seed, outcome.failure);
  },
});
console.error(
  `${((performance.now() - started) / summary.seeds).toFixed(1)} ms a seed, slowest convergence ${slowest} ms`,
);
console.log(JSON.stringify(summary));
process.exitCode = failures.length === 0 ? 0 : 1;
