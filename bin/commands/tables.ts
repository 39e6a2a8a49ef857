/** Many entries at once: scan, export, import, watch. */
import { createReadStream, type ReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { formatEntry } from '../../src/entry-line.js';
import { ReadmeshError } from '../../src/errors.js';
import { stringifyValue } from '../../src/json.js';
import {
  acknowledgementOptions,
  type Cli,
  type ClientFlags,
  clientOptions,
  expiryOption,
  integerFrom,
  type WriteFlags,
  withClient,
  writeOptionsOf,
} from '../cli/command.js';
import { startEntriesBar } from '../cli/entries-bar.js';
import { readLines } from '../cli/entry-lines.js';
import { count, counted } from '../cli/format.js';
import { Importer } from '../cli/importer.js';

/** Deadline of each batch of an import unless --timeout-ms says otherwise, ms: patience costs a bulk load nothing. */
const IMPORT_TIMEOUT_MS = 30_000;

interface ScanFlags extends ClientFlags {
  limit?: number;
}

export function addScan(program: Command, cli: Cli): void {
  const command = program
    .command('scan')
    .summary('print the entries under a prefix')
    .description(
      'Prints a line {"key":...,"value":...} per entry whose key begins with PREFIX, in byte order of keys.',
    )
    .argument('[prefix]', 'default: every key')
    .option('--limit <n>', 'print at most so many', integerFrom(0, Number.MAX_SAFE_INTEGER))
    .addHelpText(
      'after',
      `
Examples:
  readmesh scan routes/
  readmesh scan routes/ --limit 10 | jq -r .key`,
    );
  clientOptions(command, 'print errors as JSON, too');
  cli.action(command, (prefix: string | undefined, flags: ScanFlags) =>
    printEntries(cli, prefix, flags, 'scan'),
  );
}

export function addExport(program: Command, cli: Cli): void {
  const command = program
    .command('export')
    .summary('print all entries, for import')
    .description(
      'Prints a line {"key":...,"value":...} per entry, in byte order of keys: what `readmesh import` reads back exactly. An entry that expires has "ttlMs":..., what is left of its time when it is printed. Complete only when it exits 0.',
    )
    .argument('[prefix]', 'default: every key')
    .addHelpText(
      'after',
      `
Examples:
  readmesh export > all.jsonl
  readmesh export routes/ | readmesh import - --hosts 10.1.0.1:7700`,
    );
  clientOptions(command, 'print errors as JSON, too');
  cli.action(command, (prefix: string | undefined, flags: ClientFlags) =>
    printEntries(cli, prefix, flags, 'export'),
  );
}

async function printEntries(
  cli: Cli,
  prefix: string | undefined,
  flags: ScanFlags,
  what: 'scan' | 'export',
): Promise<number> {
  const range = {
    ...(prefix === undefined || prefix === '' ? {} : { prefix }),
    ...(flags.limit === undefined ? {} : { limit: flags.limit }),
  };
  await withClient(flags, async (client) => {
    for await (const { key, value, ttlMs } of client.export(range)) {
      const written = cli.out.line(formatEntry(key, value, what === 'export' ? ttlMs : undefined));
      // Waiting only where there is something to wait for keeps the loop fast.
      if (!(typeof written === 'boolean' ? written : await written)) return;
    }
    await cli.out.flush();
  });
  return 0;
}

export function addImport(program: Command, cli: Cli): void {
  const command = program
    .command('import')
    .summary('write the entries of a file')
    .description(
      'Writes the entries of FILE (or of standard input: -), one line {"key":...,"value":...} each; with "ttlMs":N the entry expires so long after it is imported; {"key":...,"deleted":true} deletes one. Stops at the first bad line and says how far it came; repeating an import is safe.',
    )
    .argument('<file>', 'file of lines of JSON, or - for standard input')
    .addHelpText(
      'after',
      `
Examples:
  readmesh import all.jsonl
  generate-prices | readmesh import - --replicas 3`,
    );
  clientOptions(command, 'print the result as JSON: {"imported"}');
  acknowledgementOptions(command);
  expiryOption(command, 'each entry without a "ttlMs" of its own');
  cli.action(command, (file: string, flags: WriteFlags) => importEntries(cli, file, flags));
}

async function importEntries(cli: Cli, file: string, flags: WriteFlags): Promise<number> {
  const options = { timeoutMs: IMPORT_TIMEOUT_MS, ...writeOptionsOf(flags) };
  const { stream, bytes } =
    file === '-' ? { stream: process.stdin, bytes: undefined } : await openInput(file);
  const bar = progressBar(bytes);
  let imported: number;
  try {
    imported = await withClient({ ...flags, timeoutMs: options.timeoutMs }, (client) => {
      const importer = new Importer(client, options, (entries, read) =>
        bar?.update(read, { entries: count(entries) }),
      );
      return importer.run(readLines(stream));
    });
  } finally {
    bar?.stop();
    stream.destroy();
  }
  await cli.out.write(
    flags.json === true
      ? `${JSON.stringify({ imported })}\n`
      : `imported ${counted(imported, 'entry', 'entries')}\n`,
  );
  return 0;
}

/** Throws INVALID_OPTION when the file cannot be read. */
async function openInput(file: string): Promise<{ stream: ReadStream; bytes: number }> {
  try {
    const handle = await open(file);
    const info = await handle.stat();
    if (!info.isDirectory()) return { stream: createReadStream(file, { fd: handle }), bytes: info.size };
    await handle.close();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such file' : message;
    throw new ReadmeshError('INVALID_OPTION', `${file} cannot be read: ${why}`, { cause: error });
  }
  throw new ReadmeshError('INVALID_OPTION', `${file} is a folder: name a file of lines of JSON`);
}

/** Only people watch a bar: on a terminal. Without a known length (a pipe) it only counts. */
function progressBar(bytes: number | undefined): SingleBar | undefined {
  if (!process.stderr.isTTY) return undefined;
  return startEntriesBar('importing', bytes ?? 0);
}

export function addWatch(program: Command, cli: Cli): void {
  const command = program
    .command('watch')
    .summary('print changes as they happen')
    .description(
      'Prints a line {"type","key","value","stamp"} per change of a key that begins with PREFIX, from now on, until it is interrupted. An entry that expires shows as a deletion if it was written while it was watched. Changes that happen while it has no connection are not seen.',
    )
    .argument('[prefix]', 'default: every key')
    .addHelpText(
      'after',
      `
Examples:
  readmesh watch routes/
  readmesh watch | jq -r .key`,
    );
  clientOptions(command, 'print errors as JSON, too');
  cli.action(command, async (prefix: string | undefined, flags: ClientFlags) => {
    const ended = new AbortController();
    const end = (): void => ended.abort();
    process.once('SIGINT', end).once('SIGTERM', end);
    await withClient(flags, async (client) => {
      for await (const change of client.watch(prefix ?? '', { signal: ended.signal })) {
        const { type, key, stamp } = change;
        const value = change.type === 'put' ? `,"value":${stringifyValue(change.value)}` : '';
        const line = `{"type":"${type}","key":${JSON.stringify(key)}${value},"stamp":"${stamp}"}\n`;
        if (!(await cli.out.write(line))) return;
      }
    });
    return 0;
  });
}
