/**
 * Writes of new keys to a cluster of one, many in flight, so that the group commit has something to coalesce:
 * against LevelDB alone, which is given the same physical rows ready-made in chained batches of 1,000. With
 * every batch flushed to the disk, and without.
 */
import { join } from 'node:path';
import { type PhoneRow, readPhoneRows } from '../bin/phone-data.js';
import { seededRandom } from '../bin/seeded-random.js';
import { openReplica } from '../src/index.js';
import type { Replica } from '../src/read-store.js';
import { ENTRY } from '../src/storage/physical.js';
import {
  type Bench,
  type Comparison,
  type Contender,
  type Context,
  check,
  compare,
  interleave,
} from './harness.js';
import { openRaw, rawBatches, writeRaw } from './raw-level.js';

/** Enough that compaction is part of what is measured, not only the write buffer. */
const PUTS = { full: 120_000, quick: 40_000, smoke: 300 };
const IN_FLIGHT = 4_000;
const BARS = { flushed: 0.6, notFlushed: 0.45 };
const SAMPLE = 1_000;

export const localPuts: Bench = {
  name: 'local-puts',
  summary: 'puts of new keys to a cluster of one, against LevelDB batches of the same physical rows',
  run: async (context) => {
    const rows = seededRandom(context.seed).shuffle(await readPhoneRows(context.data));
    const comparisons = [await puts(context, rows, true), await puts(context, rows, false)];
    return { comparisons, remarks: [`${PUTS[context.scale]} new keys a round, ${IN_FLIGHT} puts in flight`] };
  },
};

async function puts(context: Context, rows: readonly PhoneRow[], flush: boolean): Promise<Comparison> {
  await using replica = await openReplica({
    data: context.folder(),
    cluster: 'bench',
    name: 'bench',
    listen: '127.0.0.1:0',
    flush,
  });
  await replica.ready();
  await using raw = await openRaw(join(context.folder(), 'db'), true);
  const perRound = PUTS[context.scale];
  // Every round, the warm-up included, has keys of its own.
  const ofRound = (round: number): PhoneRow[] => {
    const from = (round + 1) * perRound;
    return Array.from({ length: perRound }, (_, i): PhoneRow => {
      const [key, value] = rows[(from + i) % rows.length]!;
      // Laid out as text that comes from a file or a socket is: LevelDB's keys are ready-made as well.
      return [Buffer.from(`${Math.floor((from + i) / rows.length)}/${key}`).toString(), value];
    });
  };
  const contenders: Contender[] = [
    {
      label: `readmesh, ${flush ? 'flushed' : 'not flushed'}`,
      round: (round) => timedPuts(replica, ofRound(round), flush),
      after: (round) => {
        for (const [key, value] of ofRound(round).slice(0, SAMPLE))
          check(replica.getSync(key) === value, `${key} was to be written`);
      },
    },
    {
      label: `LevelDB, ${flush ? 'flushed' : 'not flushed'}`,
      round: async (round) => {
        const batches = rawBatches(ofRound(round));
        const began = performance.now();
        await writeRaw(raw, batches, flush);
        return (perRound / (performance.now() - began)) * 1_000;
      },
      after: (round) => {
        for (const [key] of ofRound(round).slice(0, SAMPLE))
          check(raw.getSync(ENTRY + key) !== undefined, `${key} was to be written`);
      },
    },
  ];
  const [subject, baseline] = await interleave(context, contenders);
  return compare(context, {
    name: flush ? 'each batch flushed' : 'not flushed',
    unit: 'puts/s',
    subject: subject!,
    baseline: baseline!,
    bar: flush ? BARS.flushed : BARS.notFlushed,
  });
}

async function timedPuts(replica: Replica, rows: readonly PhoneRow[], fsync: boolean): Promise<number> {
  let next = 0;
  const putInTurn = async (): Promise<void> => {
    while (next < rows.length) {
      const [key, value] = rows[next++]!;
      await replica.put(key, value, { replicas: 1, fsync, timeoutMs: 30_000 });
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, rows.length) }, putInTurn));
  return (rows.length / (performance.now() - began)) * 1_000;
}
