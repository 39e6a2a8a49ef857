/**
 * A process of its own that opens a data folder: `node opener.js FOLDER`. Prints one line of JSON when it is
 * open, or why it could not be. Then obeys the lines of its standard input: `write COUNT BYTES` writes as many
 * batches of one record of that size and prints how many were acknowledged; `close` closes the folder and ends.
 */
import { createInterface } from 'node:readline';
import { isReadmeshError } from '../../src/errors.js';
import { type DataFolder, openDataFolder } from '../../src/storage/data-folder.js';
import { ORIGIN_A, puts } from './records.js';

function say(facts: object): void {
  process.stdout.write(`${JSON.stringify(facts)}\n`);
}

function describeError(error: unknown): object {
  return isReadmeshError(error) ? { code: error.code, message: error.message } : { code: String(error) };
}

async function write(folder: DataFolder, count: number, bytes: number): Promise<void> {
  const from = (folder.store.recovered.heads.get(ORIGIN_A) ?? 0) + 1;
  for (let i = 0; i < count; i++) {
    try {
      await folder.store.write(puts(ORIGIN_A, from + i, [`key/${from + i}`], new Uint8Array(bytes).fill(i)));
    } catch (error) {
      // The second attempt must fail even when there is room again.
      const again = await folder.store.write(puts(ORIGIN_A, from + i, ['again'])).catch(describeError);
      say({ acknowledged: i, ...describeError(error), again: again ?? 'written' });
      return;
    }
  }
  say({ acknowledged: count });
}

async function main(): Promise<void> {
  let folder: DataFolder;
  try {
    folder = await openDataFolder(process.argv[2]!, { flush: true });
  } catch (error) {
    say(describeError(error));
    process.exitCode = 1;
    return;
  }
  const { created, originReusable, run } = folder;
  say({ created, originReusable, run });
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, count, bytes] = line.split(' ');
    if (command === 'write') await write(folder, Number(count), Number(bytes));
    if (command === 'close') break;
  }
  await folder.close();
  // The other end of the pipe stays open and would keep this process alive.
  process.stdin.destroy();
}

await main();
