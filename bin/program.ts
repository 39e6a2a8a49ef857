/** The command line as a whole: its commands, its help, and what a run of it exits with. */
import { Command } from 'commander';
import { version } from '../src/node/status.js';
import { Cli } from './cli/command.js';
import { EXIT_CODES, report } from './cli/report.js';
import { addBackup, addRestore } from './commands/backup.js';
import { addMembers, addRemove, addStatus, addVerify } from './commands/cluster.js';
import { addDel, addGet, addPut } from './commands/entries.js';
import { addServe } from './commands/serve.js';
import { addBench, addDemo } from './commands/showcase.js';
import { addExport, addImport, addScan, addWatch } from './commands/tables.js';

const HELP = `
Examples:
  readmesh demo                                 see what it does, in a minute
  readmesh serve --data /tmp/a                  run a node on 127.0.0.1:7700
  readmesh put greeting '"hello"'               write, held by two hosts (one, while there is one)
  readmesh get greeting                         read

Environment:
  READMESH_HOSTS  nodes to ask when --hosts is not given: HOST:PORT,...
  READMESH_LOG    log level of serve
  NO_COLOR        no colours

${EXIT_CODES}
Errors are one line on standard error: readmesh: CODE: message.`;

function createProgram(cli: Cli): Command {
  const program = new Command('readmesh')
    .description(
      'An eventually consistent, fully replicated read-store: a full copy on every host, read locally.',
    )
    .version(version, '-V, --version')
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText('after', HELP);
  const adders = [
    ...[addServe, addGet, addPut, addDel, addScan, addWatch, addImport, addExport],
    ...[addBackup, addRestore],
    ...[addStatus, addMembers, addRemove, addVerify, addDemo, addBench],
  ];
  for (const add of adders) add(program, cli);
  return program;
}

/** Runs one command line (without the program's name). Resolves to the exit code; never rejects. */
export async function run(args: readonly string[]): Promise<number> {
  const cli = new Cli();
  const program = createProgram(cli);
  const options = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
  const command = program.commands.find((candidate) => candidate.name() === args[0])?.name();
  if (args.length === 0) {
    process.stderr.write(program.helpInformation() + HELP);
    return 2;
  }
  try {
    await program.parseAsync([...args], { from: 'user' });
    return cli.exitCode;
  } catch (error) {
    return report(error, options.includes('--json'), command);
  }
}
