/**
 * Damages records of a closed database behind its store's back, as bad sectors would: `node damage-records.mjs DB
 * COUNT SEED`. Bits flip in records, records vanish, and so do rows of the dot index; some lose both, of which a
 * damaged row of the index is all that is left. Prints `{"damaged":N}`: records that are gone or changed.
 */
import { ClassicLevel } from 'classic-level';

const [folder, wanted, seed] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const db = new ClassicLevel(folder, { keyEncoding: 'view', valueEncoding: 'view', createIfMissing: false });
await db.open();
let state = seed >>> 0 || 1;
const random = (below) => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
};
const keys = [];
for await (const key of db.keys({ gte: Buffer.from('e'), lt: Buffer.from('f') })) keys.push(key);
const flip = (bytes) => {
  const copy = Uint8Array.from(bytes);
  copy[random(copy.length)] ^= 1 << random(8);
  return copy;
};
const dotKeyOf = (row) => {
  const hex = Buffer.from(row.subarray(22, 36)).toString('hex');
  return Buffer.from(`d${hex}`);
};
const batch = db.batch();
const touched = new Set();
let damaged = 0;
while (touched.size < Math.min(wanted, keys.length)) {
  const at = random(keys.length);
  if (touched.has(at)) continue;
  touched.add(at);
  const row = db.getSync(keys[at]);
  const dot = dotKeyOf(row);
  const what = random(100);
  if (what < 90) damaged += 1;
  if (what < 60) batch.put(keys[at], flip(row));
  else if (what < 85) batch.del(keys[at]);
  else if (what < 90) batch.del(keys[at]).put(dot, flip(db.getSync(dot)));
  else if (what < 95) batch.put(dot, flip(db.getSync(dot)));
  else batch.del(dot);
}
await batch.write({ sync: true });
await db.close();
console.log(JSON.stringify({ damaged }));
