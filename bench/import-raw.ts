/** One of the three raw loaders of the bench `import`: a process of its own, told by messages what to do. */
import { openPhoneData, readPhoneRows } from '../bin/phone-data.js';
import { openRaw, rawBatches, writeRaw } from './raw-level.js';

export interface RawLoadOrder {
  /** Folder of the new database. */
  location: string;
}

export interface RawLoadReply {
  /** Entries prepared (the first reply) or written (every other). */
  rows: number;
}

const [source, count] = process.argv.slice(2);
const rows = await readPhoneRows(
  await openPhoneData({ rowsMax: Number(count), synthetic: source === 'synthetic' }),
);
const batches = rawBatches(rows);

const answer = (reply: RawLoadReply): void => {
  process.send?.(reply);
};

process.on('message', async (order: RawLoadOrder) => {
  const db = await openRaw(order.location, true);
  await writeRaw(db, batches, true);
  answer({ rows: rows.length });
  await db.close();
});
// Whoever started this may be gone without having told.
process.on('disconnect', () => process.exit());
answer({ rows: rows.length });
