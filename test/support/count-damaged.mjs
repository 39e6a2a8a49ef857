/**
 * Counts the records that a database lost to damage: `node count-damaged.mjs BEFORE AFTER` opens both as they are,
 * compares every entry, and prints `{"records":N,"damaged":N}`. A process of its own, since LevelDB may abort it.
 */
import { ClassicLevel } from 'classic-level';

const options = { keyEncoding: 'view', valueEncoding: 'view', createIfMissing: false };
const [before, after] = process.argv.slice(2, 4).map((folder) => new ClassicLevel(folder, options));
await before.open();
await after.open();
let records = 0;
let damaged = 0;
for await (const [key, row] of before.iterator({ gte: Buffer.from('e'), lt: Buffer.from('f') })) {
  records += 1;
  let found;
  try {
    found = after.getSync(key);
  } catch {
    // Unreadable.
  }
  if (found === undefined || Buffer.compare(found, row) !== 0) damaged += 1;
}
console.log(JSON.stringify({ records, damaged }));
await before.close();
await after.close();
