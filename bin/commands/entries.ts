/** Reading and writing single entries: get, put, del. */
import type { Command } from 'commander';
import { parseValue, stringifyValue } from '../../src/json.js';
import type { Receipt } from '../../src/read-store.js';
import {
  type Cli,
  type ClientFlags,
  clientOptions,
  expiryOption,
  type WriteFlags,
  withClient,
  writeOptions,
  writeOptionsOf,
} from '../cli/command.js';
import { counted } from '../cli/format.js';

const DASH_HELP = 'A key that begins with a dash follows --, after all options:';

export function addGet(program: Command, cli: Cli): void {
  const command = program
    .command('get')
    .summary('print the value of a key as JSON')
    .description('Prints the value of KEY as JSON. A missing key prints nothing and exits 1.')
    .argument('<key>')
    .addHelpText(
      'after',
      `
Examples:
  readmesh get routes/berlin
  readmesh get routes/berlin --hosts 10.0.0.1:7700,10.0.0.2:7700
${DASH_HELP}
  readmesh get --hosts 10.0.0.1:7700 -- -x

What JSON has no words for is printed as {"$bigint":"1"}, {"$bytes":"<base64>"}, {"$date":"<ISO 8601>"} or
{"$number":"NaN"}; an object whose only member begins with $ as {"$literal":{...}}.`,
    );
  clientOptions(command, 'print errors as JSON, too');
  cli.action(command, async (key: string, flags: ClientFlags) => {
    const value = await withClient(flags, (client) => client.get(key));
    if (value === undefined) return 1;
    await cli.out.write(`${stringifyValue(value)}\n`);
    return 0;
  });
}

export function addPut(program: Command, cli: Cli): void {
  const command = program
    .command('put')
    .summary('write a value')
    .description(
      'Writes JSON as the value of KEY and waits until enough hosts hold it. When it exits 3 the write may still take effect: repeating it is safe.',
    )
    .argument('<key>')
    .argument('<json>', 'the value; a string needs its own quotes')
    .addHelpText(
      'after',
      `
Examples:
  readmesh put greeting '"hello"'
  readmesh put limits/eu '{"rps":100}' --replicas 3
  readmesh put session/4711 '{"user":7}' --ttl-ms 3600000
  readmesh put big '{"$bigint":"9007199254740993"}' --json
${DASH_HELP}
  readmesh put --replicas 1 -- -x 5`,
    );
  writeOptions(command);
  expiryOption(command, 'it');
  cli.action(command, async (key: string, json: string, flags: WriteFlags) => {
    const options = writeOptionsOf(flags);
    const value = parseValue(json);
    const receipt = await withClient(flags, (client) => client.put(key, value, options));
    await printReceipt(cli, receipt, flags);
    return 0;
  });
}

export function addDel(program: Command, cli: Cli): void {
  const command = program
    .command('del')
    .summary('delete a key')
    .description(
      'Deletes KEY and waits until enough hosts hold the deletion. Deleting a missing key is no error.',
    )
    .argument('<key>')
    .addHelpText(
      'after',
      `
Examples:
  readmesh del routes/berlin
${DASH_HELP}
  readmesh del -- -x`,
    );
  writeOptions(command);
  cli.action(command, async (key: string, flags: WriteFlags) => {
    const options = writeOptionsOf(flags);
    const receipt = await withClient(flags, (client) => client.del(key, options));
    await printReceipt(cli, receipt, flags);
    return 0;
  });
}

async function printReceipt(cli: Cli, receipt: Receipt, flags: ClientFlags): Promise<void> {
  const { stamp, replicas, token, superseded } = receipt;
  if (flags.json === true) {
    await cli.out.write(`${JSON.stringify({ stamp, replicas, token, superseded })}\n`);
    return;
  }
  const won = superseded ? '; a newer write of the key had already won' : '';
  await cli.out.write(`held by ${counted(replicas, 'host')}, stamp ${stamp}${won}\n`);
}
