/** What the commands share: their options, their connection, and how they hand back an exit code. */
import { type Command, InvalidArgumentError } from 'commander';
import type { LightClient } from '../../src/client/index.js';
import { TTL_MS_MAX } from '../../src/core/expiry.js';
import { ReadmeshError } from '../../src/errors.js';
import { DEFAULT_PORT, HOST_DEFAULTS, REPLICAS_MAX, TIMEOUT_MS_MAX } from '../../src/options.js';
import type { WriteOptions } from '../../src/read-store.js';
import { splitList } from '../../src/schema.js';
import { formatAddress, parseAddress } from '../../src/transport/address.js';
import { Output } from './output.js';

/** Shared by all commands of one run. */
export class Cli {
  readonly out = new Output(process.stdout);
  exitCode = 0;

  /** Makes `run` the command's action; what it resolves to is the exit code. */
  action<A extends unknown[]>(command: Command, run: (...args: A) => Promise<number>): Command {
    return command.action(async (...args: unknown[]) => {
      // The last argument is the command itself; the one before it are its options.
      this.exitCode = await run(...(args.slice(0, -1) as A));
    });
  }
}

/** Options of every command that talks to a node. */
export interface ClientFlags {
  hosts?: string[];
  timeoutMs?: number;
  json?: boolean;
}

export interface WriteFlags extends ClientFlags {
  replicas?: number;
  fsync: boolean;
  ttlMs?: number;
}

export function integerFrom(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be an integer from ${least} to ${most}`);
  };
}

/** Adds `--hosts`, `--timeout-ms` and `--json`. */
export function clientOptions(command: Command, json: string): Command {
  return command
    .option(
      '--hosts <list>',
      `nodes to ask (these and no others), nearest first: HOST:PORT,... (default: READMESH_HOSTS, else 127.0.0.1:${DEFAULT_PORT})`,
      (list: string) => parseHosts(list, '--hosts'),
    )
    .option('--timeout-ms <n>', 'deadline in milliseconds', integerFrom(1, TIMEOUT_MS_MAX))
    .option('--json', json);
}

/** Adds the options of a write, and those of every client. */
export function writeOptions(command: Command): Command {
  clientOptions(command, 'print the receipt as JSON: {"stamp","replicas","token","superseded"}');
  return acknowledgementOptions(command);
}

export function acknowledgementOptions(command: Command): Command {
  return command
    .option(
      '--replicas <n>',
      'hosts that must hold it before the write is acknowledged (default: 2, or 1 while the cluster has one member)',
      integerFrom(1, REPLICAS_MAX),
    )
    .option('--no-fsync', 'let hosts acknowledge before they have flushed it to disk');
}

/** Of writes with a value: a deletion does not expire. */
export function expiryOption(command: Command, what: string): Command {
  return command.option(
    '--ttl-ms <n>',
    `let ${what} expire so many milliseconds after it is written (default: it stays)`,
    integerFrom(1, TTL_MS_MAX),
  );
}

export function writeOptionsOf(flags: WriteFlags): WriteOptions {
  const { replicas, timeoutMs, ttlMs } = flags;
  return {
    ...(replicas === undefined ? {} : { replicas }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(ttlMs === undefined ? {} : { ttlMs }),
    // True is the cluster's default, not a wish of this call.
    ...(flags.fsync ? {} : { fsync: false }),
  };
}

/** Throws INVALID_OPTION. */
function parseHosts(list: string, where: string): string[] {
  const hosts = splitList(list).map((host) => formatAddress(parseAddress(host, { port: DEFAULT_PORT })));
  if (hosts.length === 0)
    throw new ReadmeshError('INVALID_OPTION', `${where} names no host: write HOST:PORT,...`);
  return hosts;
}

export function hostsOf(flags: ClientFlags): string[] {
  if (flags.hosts !== undefined) return flags.hosts;
  const fromEnvironment = process.env.READMESH_HOSTS ?? '';
  return fromEnvironment.trim() === ''
    ? [`127.0.0.1:${DEFAULT_PORT}`]
    : parseHosts(fromEnvironment, 'READMESH_HOSTS');
}

/** Connects, runs `use`, and closes the connection whatever happens. Throws UNREACHABLE. */
export async function withClient<T>(
  flags: ClientFlags,
  use: (client: LightClient) => Promise<T>,
): Promise<T> {
  // Loaded here, so that usage errors and --help do not wait for it.
  const { connect } = await import('../../src/client/index.js');
  const client = await connect({
    hosts: hostsOf(flags),
    timeoutMs: flags.timeoutMs ?? HOST_DEFAULTS.ackTimeoutMs,
    // Whoever names a host wants to hear of that one: an answer of another would hide that it is behind or ill.
    only: true,
  });
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}
