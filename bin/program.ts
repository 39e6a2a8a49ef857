/** The command line as a whole: its commands, its help, and what a run of it exits with. */
import { Command } from 'commander';
import { version } from '../src/node/status.js';
import { Cli } from './cli/command.js';
import { EXIT_CODES, report } from './cli/report.js';

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

type Add = (program: Command, cli: Cli) => void;

/** What adds a command, loaded when it is needed: a daemon should not wait for the tables and bars of others. */
const COMMANDS: Readonly<Record<string, () => Promise<Add>>> = {
  serve: async () => (await import('./commands/serve.js')).addServe,
  get: async () => (await import('./commands/entries.js')).addGet,
  put: async () => (await import('./commands/entries.js')).addPut,
  del: async () => (await import('./commands/entries.js')).addDel,
  scan: async () => (await import('./commands/tables.js')).addScan,
  watch: async () => (await import('./commands/tables.js')).addWatch,
  import: async () => (await import('./commands/tables.js')).addImport,
  export: async () => (await import('./commands/tables.js')).addExport,
  backup: async () => (await import('./commands/backup.js')).addBackup,
  restore: async () => (await import('./commands/backup.js')).addRestore,
  status: async () => (await import('./commands/cluster.js')).addStatus,
  members: async () => (await import('./commands/cluster.js')).addMembers,
  remove: async () => (await import('./commands/cluster.js')).addRemove,
  verify: async () => (await import('./commands/cluster.js')).addVerify,
  demo: async () => (await import('./commands/showcase.js')).addDemo,
  bench: async () => (await import('./commands/showcase.js')).addBench,
};

/** With the named command alone; with all of them if it is none, for help and suggestions. */
async function createProgram(cli: Cli, name: string | undefined): Promise<Command> {
  const program = new Command('readmesh')
    .description(
      'An eventually consistent, fully replicated read-store: a full copy on every host, read locally.',
    )
    .version(version, '-V, --version')
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText('after', HELP);
  const named =
    name !== undefined && Object.hasOwn(COMMANDS, name) ? [COMMANDS[name]!] : Object.values(COMMANDS);
  for (const load of named) {
    const add = await load();
    add(program, cli);
  }
  return program;
}

/** Runs one command line (without the program's name). Resolves to the exit code; never rejects. */
export async function run(args: readonly string[]): Promise<number> {
  const cli = new Cli();
  const program = await createProgram(cli, args[0]);
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
