/**
 * serve: the daemon. It prints one line on standard output once reads are served, logs on standard error, and
 * ends when it is told to: SIGTERM, SIGINT or SIGHUP drain it, a second one ends it on the spot.
 *
 * The store is safe against a crash at any instant, so whatever cannot be handled ends the process: a fault
 * that is carried on with could acknowledge what is not there.
 */
import type { Command } from 'commander';
import type { ServeFlags } from '../../src/config.js';
import type { FileConfig } from '../../src/config-file.js';
import { isReadmeshError, ReadmeshError } from '../../src/errors.js';
import type { RunningNode } from '../../src/node.js';
import { DEFAULT_CLUSTER, DEFAULT_DATA, DEFAULT_PORT } from '../../src/options.js';
import { bootstrapText, progressLine } from '../cli/bootstrap.js';
import type { Cli } from '../cli/command.js';
import type { Log } from '../cli/logging.js';
import { Terminal } from '../cli/terminal.js';

/** A stop that takes longer is cut off, ms. The node's own parts have shorter deadlines. */
const STOP_MS_MAX = 9_000;
/** How often the bar on a terminal is drawn, and a line of log written where there is none, ms. */
const PROGRESS_MS = 250;
const PROGRESS_LOG_MS = 5_000;
/** Exit code of a fault of ours: EX_SOFTWARE of sysexits.h. */
const EXIT_FAULT = 70;
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
type StopSignal = keyof typeof SIGNALS;

export function addServe(program: Command, cli: Cli): void {
  const command = program
    .command('serve')
    .summary('run a node')
    .description(
      'Runs a node: a full copy of the data in a folder of its own, and one port for peers, clients and HTTP. Prints `readmesh ready listen=HOST:PORT ...` once reads are served.',
    )
    .option('--data <dir>', `data folder of this node alone (default: ${DEFAULT_DATA})`)
    .option(
      '--listen <host:port>',
      `address to listen on; port 0 takes a free one (default: 127.0.0.1:${DEFAULT_PORT})`,
    )
    .option(
      '--advertise <host:port>',
      'address by which other hosts reach this one (default: what it listens on)',
    )
    .option(
      '--join <list>',
      'members to join through: HOST:PORT,... (the same list on every host works; without it a new store founds a cluster)',
    )
    .option('--cluster <name>', `name of the cluster (default: ${DEFAULT_CLUSTER})`)
    .option('--name <name>', 'stable name of this member (default: what the store remembers, else random)')
    .option(
      '--host <label>',
      'label of this machine, by which acknowledging hosts are counted (default: the name)',
    )
    .option('--config <file>', 'YAML or JSON file of these options and of tuning; flags win over it')
    .option(
      '--rebuild',
      'set a store that cannot be trusted aside (what only it holds is brought back) and copy from the cluster anew',
    )
    .option('--found', 'found a cluster although --join is given')
    .option(
      '--read-through',
      'until everything is copied, answer what is missing by asking a member that is ready (/readyz stays 503)',
    )
    .option(
      '--insecure-no-auth',
      'allow listening beyond loopback, without authentication: only on a network you trust',
    )
    .addHelpText('after', HELP);
  cli.action(command, serve);
}

const HELP = `
Examples, one machine:
  readmesh serve --data /tmp/a --listen 127.0.0.1:7701 --name a
  readmesh serve --data /tmp/b --listen 127.0.0.1:7702 --name b --join 127.0.0.1:7701
Example, three machines, the same line on each:
  readmesh serve --data /var/lib/readmesh --listen $(hostname -i):7700 --name $(hostname) \\
    --join db1:7700,db2:7700,db3:7700 --insecure-no-auth

Configuration file (--config), all of it optional:
  data: /var/lib/readmesh
  listen: 127.0.0.1:7700
  join: [127.0.0.1:7701, 127.0.0.1:7702]
  tuning: { cacheBytesMax: 268435456, ackTimeoutMs: 5000 }

A store that the cluster went on without is set aside unasked, and copied anew (docs/operations.md).

Exit codes: 0 stopped by a signal; 2 usage, port in use; 4 refused; 5 the data folder cannot be trusted (start
again with --rebuild to set it aside and copy from the cluster); 70 a fault of readmesh itself.

Environment:
  READMESH_LOG  log level: trace, debug, info (default), warn, error, fatal, silent. Logs are lines of JSON on
                standard error, plain text on a terminal.`;

async function serve(flags: ServeFlags): Promise<number> {
  const { mergeConfig } = await import('../../src/config.js');
  const options = mergeConfig(flags, flags.config === undefined ? {} : await readFileOf(flags.config));
  const terminal = process.stderr.isTTY ? new Terminal(process.stderr) : undefined;
  const { openLog } = await import('../cli/logging.js');
  const log = openLog(terminal);
  const { logger } = log;
  endOnFault(log);
  const stop = new StopRequest(log);
  // The reader of the ready line may be gone by the time it is written.
  process.stdout.on('error', () => {});

  const { startNode } = await import('../../src/node.js');
  const node = await startNode({ ...options, logger }).catch((error: unknown) => {
    throw withRebuildAdvice(error);
  });
  logger.info(
    { event: 'started', listen: node.listening, data: options.data, cluster: options.cluster },
    'started',
  );
  const endProgress = showProgress(terminal, log, node);
  const failed = await Promise.race([
    node.ready().then(
      () => undefined,
      (error: unknown) => error,
    ),
    stop.requested,
    node.ended,
  ]);
  endProgress();
  if (stop.signal === undefined && failed !== undefined) return await endWith(failed, node, log);
  if (stop.signal === undefined) {
    process.stdout.write(`${readyLine(node, options.data)}\n`);
    const { bootstrap } = node.service.status();
    logger.info({ event: 'ready', ...(bootstrap === undefined ? {} : { bootstrap }) }, 'ready');
    // What a start need not wait for, before the files can be replaced by those of another version.
    await import('../../src/http.js');
    const ended = await Promise.race([stop.requested, node.ended]);
    if (ended !== undefined) return await endWith(ended, node, log);
  }
  logger.info({ event: 'stopping', signal: stop.signal }, 'stopping');
  await close(node, log);
  logger.info({ event: 'stopped' }, 'stopped');
  await log.flush();
  return 0;
}

/** What reads and checks the file is only loaded if there is one. */
async function readFileOf(path: string): Promise<FileConfig> {
  const { readConfig } = await import('../../src/config-file.js');
  return readConfig(path);
}

/** The node cannot go on: ends it, and throws why. */
async function endWith(why: unknown, node: RunningNode, log: Log): Promise<never> {
  await close(node, log);
  await log.flush();
  throw why;
}

async function close(node: RunningNode, { logger, flushSync }: Log): Promise<void> {
  const cutOff = setTimeout(() => {
    logger.error({ event: 'stop-overdue' }, `not stopped within ${STOP_MS_MAX} ms: ending`);
    flushSync();
    process.exit(EXIT_FAULT);
  }, STOP_MS_MAX);
  await node.close();
  clearTimeout(cutOff);
}

function readyLine(node: RunningNode, data: string): string {
  const { name, host, cluster } = node.service.status();
  const facts = { listen: node.listening, name, host, cluster, data };
  return `readmesh ready ${Object.entries(facts)
    .map(([key, value]) => `${key}=${/^[^\s"\p{Cc}]+$/u.test(value) ? value : JSON.stringify(value)}`)
    .join(' ')}`;
}

/** Waits for a signal from the start on, so that one that comes early is not lost. */
class StopRequest {
  readonly requested: Promise<undefined>;
  signal: StopSignal | undefined;

  constructor(log: Log) {
    this.requested = new Promise((resolve) => {
      for (const signal of Object.keys(SIGNALS) as StopSignal[])
        process.on(signal, () => {
          if (this.signal !== undefined) {
            log.logger.warn({ event: 'stop-forced', signal }, 'told to stop twice: ending at once');
            log.flushSync();
            process.exit(128 + SIGNALS[signal]);
          }
          this.signal = signal;
          resolve(undefined);
        });
    });
  }
}

function endOnFault(log: Log): void {
  const end = (error: unknown): void => {
    const stack = error instanceof Error ? error.stack : String(error);
    log.logger.fatal(
      { event: 'fault', error: stack },
      'a fault of readmesh itself: ending, the store is safe',
    );
    log.flushSync();
    process.exit(EXIT_FAULT);
  };
  process.on('uncaughtException', end);
  process.on('unhandledRejection', end);
}

function withRebuildAdvice(error: unknown): unknown {
  if (!isReadmeshError(error) || error.code !== 'STORE_UNTRUSTED' || error.message.includes('--rebuild'))
    return error;
  return new ReadmeshError(
    error.code,
    `${error.message}: start with --rebuild --join HOST:PORT to set the store aside and copy from the cluster`,
    { cause: error, details: error.details },
  );
}

/** On a terminal a bar, elsewhere a line of log now and then. Returns what ends it. */
function showProgress(terminal: Terminal | undefined, log: Log, node: RunningNode): () => void {
  const draw = (): void => terminal?.progress(progressLine(node.service.status()));
  const note = (): void => {
    const { ready, bootstrap } = node.service.status();
    if (ready || bootstrap === undefined) return;
    log.logger.info({ event: 'bootstrap-progress', ...bootstrap }, bootstrapText(bootstrap));
  };
  const timer = terminal === undefined ? setInterval(note, PROGRESS_LOG_MS) : setInterval(draw, PROGRESS_MS);
  return () => {
    clearInterval(timer);
    terminal?.progress('');
  };
}
