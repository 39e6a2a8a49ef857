/** backup and restore: the whole of a node's data in one file, and a node's store from such a file. */
import type { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { ReadmeshError } from '../../src/errors.js';
import type { RestoreReport } from '../../src/node/backup.js';
import { DEFAULT_DATA } from '../../src/options.js';
import { type Cli, type ClientFlags, clientOptions, hostsOf } from '../cli/command.js';
import type { Downloaded } from '../cli/download.js';
import { startEntriesBar } from '../cli/entries-bar.js';
import { bytes, count, counted, duration, printable } from '../cli/format.js';

/** How long a host may send nothing unless --timeout-ms says otherwise, ms. */
const IDLE_MS = 30_000;

export function addBackup(program: Command, cli: Cli): void {
  const command = program
    .command('backup')
    .summary('write all data of a node into a file')
    .description(
      'Writes everything that a running node holds into FILE: one consistent state, checked on its way, which gets its name only once it is whole. The node serves on meanwhile. An older FILE is replaced.',
    )
    .argument('<file>')
    .addHelpText(
      'after',
      `
The hosts are asked in turn until one gives a whole backup. --timeout-ms is how long a host may send nothing.

Examples:
  readmesh backup /backups/$(date +%F).rmb
  readmesh backup all.rmb --hosts 10.0.0.2:7700,10.0.0.3:7700`,
    );
  clientOptions(
    command,
    'print the result as JSON: {"file","host","node","cluster","takenAt","entries","bytes","heads"}',
  );
  cli.action(command, (file: string, flags: ClientFlags) => backup(cli, file, flags));
}

async function backup(cli: Cli, file: string, flags: ClientFlags): Promise<number> {
  const { host, header, entries, bytes: size } = await download(file, flags);
  const { node, cluster, takenAtMs, heads } = header;
  const takenAt = new Date(takenAtMs).toISOString();
  await cli.out.write(
    flags.json === true
      ? `${JSON.stringify({ file, host, node, cluster, takenAt, entries, bytes: size, heads })}\n`
      : `backed up ${counted(entries, 'entry', 'entries')}, tombstones included (${bytes(size)}), of ${printable(node)} into ${file}\n`,
  );
  return 0;
}

/** Interrupted, it leaves nothing behind. Throws CLOSED then. */
async function download(file: string, flags: ClientFlags): Promise<Downloaded> {
  const { downloadBackup } = await import('../cli/download.js');
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  const bar = progressBar('backing up');
  try {
    return await downloadBackup(hostsOf(flags), file, {
      idleMs: flags.timeoutMs ?? IDLE_MS,
      signal: interrupted.signal,
      onProgress: (entries, total) => bar?.(entries, total),
    });
  } catch (error) {
    if (interrupted.signal.aborted)
      throw new ReadmeshError('CLOSED', 'interrupted: nothing was written', { cause: error });
    throw error;
  } finally {
    bar?.();
  }
}

interface RestoreFlags {
  data?: string;
  json?: boolean;
}

export function addRestore(program: Command, cli: Cli): void {
  const command = program
    .command('restore')
    .summary("make a node's data folder from a backup")
    .description(
      'Makes the data folder of a node from FILE, which is checked as a whole first. The folder must be empty or missing. Start the node with `readmesh serve` then: with --join it joins its cluster and catches up; without, it is the cluster.',
    )
    .argument('<file>', 'written by `readmesh backup`')
    .option('--data <dir>', `data folder to make (default: ${DEFAULT_DATA})`)
    .option('--json', 'print the result as JSON: {"data","node","cluster","takenAt","entries","heads"}')
    .addHelpText(
      'after',
      `
The node is a new member with a new origin, under any --name that no running member bears. Keys that were deleted
since the backup was taken stay deleted. docs/operations.md: how to restore a cluster that is lost as a whole.

Examples:
  readmesh restore all.rmb --data /var/lib/readmesh
  readmesh serve --data /var/lib/readmesh --join 10.0.0.2:7700`,
    );
  cli.action(command, (file: string, flags: RestoreFlags) => restore(cli, file, flags));
}

async function restore(cli: Cli, file: string, flags: RestoreFlags): Promise<number> {
  const { header, entries, data, ageMs } = await rebuild(file, flags.data ?? DEFAULT_DATA);
  const { node, cluster, takenAtMs, heads } = header;
  const takenAt = new Date(takenAtMs).toISOString();
  await cli.out.write(
    flags.json === true
      ? `${JSON.stringify({ data, node, cluster, takenAt, entries, heads })}\n`
      : `restored ${counted(entries, 'entry', 'entries')}, tombstones included, of cluster ${printable(cluster)} into ${data}, from a backup of ${printable(node)} that is ${duration(ageMs)} old\n`,
  );
  return 0;
}

async function rebuild(file: string, data: string): Promise<RestoreReport> {
  const { restoreBackup } = await import('../../src/node/backup.js');
  const bars = { check: progressBar('checking'), write: progressBar('restoring') };
  try {
    return await restoreBackup(file, data, (pass, entries, total) => {
      if (pass === 'write') bars.check?.();
      bars[pass]?.(entries, total);
    });
  } finally {
    bars.check?.();
    bars.write?.();
  }
}

/** Only people watch a bar: on a terminal. It begins when something is known of it, and ends when called without figures. */
function progressBar(what: string): ((entries?: number, total?: number) => void) | undefined {
  if (!process.stderr.isTTY) return undefined;
  let bar: SingleBar | undefined;
  return (entries, total) => {
    if (entries === undefined) {
      if (bar?.isActive === true) bar.stop();
      return;
    }
    bar ??= startEntriesBar(what, total ?? 0);
    if (total !== undefined) bar.setTotal(Math.max(total, entries));
    bar.update(entries, { entries: count(entries) });
  };
}
