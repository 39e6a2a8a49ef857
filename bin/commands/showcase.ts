/** demo and bench: loaded only when asked for. */
import { type Command, InvalidArgumentError } from 'commander';
import type { Cli } from '../cli/command.js';

export function addDemo(program: Command, cli: Cli): void {
  const command = program
    .command('demo')
    .summary('see a cluster lose a host and not notice')
    .description(
      'Starts three nodes on this machine, loads a table of phone-number prefixes, then kills one of them and deletes its disk under load: no read fails and no acknowledged write is lost. Takes about a minute and cleans up behind itself.',
    )
    .option('--keep', 'leave the nodes running at the end and say how to talk to them')
    .option('--json', 'print the result as JSON')
    .option('--rows <n>', 'load only so many rows', integer)
    .option('--kill <n>', 'which node to kill: 1 (the founder), 2 or 3', integer)
    .addHelpText(
      'after',
      `
Examples:
  readmesh demo
  readmesh demo --kill 1
  readmesh demo --keep`,
    );
  cli.action(command, async (flags: { keep?: boolean; json?: boolean; rows?: number; kill?: number }) => {
    const { runDemo } = await import('./demo.js');
    return runDemo({ keep: false, json: false, ...flags });
  });
}

export function addBench(program: Command, cli: Cli): void {
  const command = program
    .command('bench')
    .summary('measure this machine')
    .description(
      'Runs the bench NAME and prints its figures as ratios to a baseline measured in the same run.',
    )
    .argument('[name]', 'which bench; without it their names are listed')
    .option('--quick', 'fewer rounds, smaller tables')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `
Examples:
  readmesh bench
  readmesh bench local-reads --quick`,
    );
  cli.action(command, async (name: string | undefined, flags: { quick?: boolean; json?: boolean }) => {
    const { runBench } = await import('../../bench/run.js');
    return runBench(name, { quick: false, json: false, ...flags });
  });
}

function integer(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It must be an integer from 1 up');
}
