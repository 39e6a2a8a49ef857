/**
 * A process that opens one store, reads one key, and says how long that took and how much memory it holds after
 * it has been idle for a while: a replica, or LevelDB alone. Everything is loaded before the clock starts.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { openReplica } from '../src/index.js';
import { ENTRY } from '../src/storage/physical.js';
import { openRaw } from './raw-level.js';

export interface Footprint {
  readonly openMs: number;
  readonly rssBytes: number;
  /** Whether the key was found. */
  readonly found: boolean;
}

const [kind, folder, key, idleMs] = process.argv.slice(2) as [string, string, string, string];

async function open(): Promise<{ found: boolean; close: () => Promise<void> }> {
  if (kind === 'raw') {
    const db = await openRaw(folder, false);
    return { found: db.getSync(ENTRY + key) !== undefined, close: () => db.close() };
  }
  const replica = await openReplica({ data: folder, cluster: 'bench', name: 'bench', listen: '127.0.0.1:0' });
  await replica.ready();
  return { found: replica.getSync(key) !== undefined, close: () => replica.close() };
}

const began = performance.now();
const { found, close } = await open();
const openMs = performance.now() - began;
await delay(Number(idleMs));
const footprint: Footprint = { openMs, rssBytes: process.memoryUsage.rss(), found };
process.send?.(footprint);
await close();
process.exit();
