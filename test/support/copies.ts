/** The copies of a cluster: waiting until they are equal, and reading them whole, alive or from the closed files. */
import { connect } from '../../src/client/index.js';
import { isTombstone, originOf, seqOf, stampHexOf } from '../../src/core/entry.js';
import { toJson } from '../../src/json.js';
import { openDataFolder } from '../../src/storage/data-folder.js';
import { decodeRow } from '../../src/values.js';
import type { Daemon } from './daemon.js';
import { canonical, type Dump, type FinalEntry } from './history.js';
import { httpScan, httpStatus, type StatusBody } from './http-api.js';
import { pause } from './workload.js';

const POLL_MS = 50;
/** Generous: the machine may be busy. What is waited for normally takes a second or two. */
export const EVENTUALLY_MS = 30_000;

/** Waits until `probe` returns something other than undefined or false; a throw counts as not yet. */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs: number = EVENTUALLY_MS,
): Promise<T> {
  const until = performance.now() + timeoutMs;
  let why = '';
  for (;;) {
    try {
      const found = await probe();
      if (found !== undefined && found !== false) return found;
      why = '';
    } catch (error) {
      why = `: ${(error as Error).message}`;
    }
    if (performance.now() > until) throw new Error(`not within ${timeoutMs} ms: ${what}${why}`);
    await pause(POLL_MS);
  }
}

const vector = (status: StatusBody): string =>
  JSON.stringify(Object.entries(status.heads).sort(([a], [b]) => (a < b ? -1 : 1)));

/**
 * Waits until all are ready and at one version vector; then compares all entries by HTTP. The scans count only if the
 * vector was the same before and after them: a write whose client has given up may still be on its way to the disk.
 */
export async function converged(daemons: readonly Daemon[]): Promise<Map<string, unknown>> {
  const common = async (): Promise<string | undefined> => {
    const all = await Promise.all(daemons.map((daemon) => httpStatus(daemon.address)));
    const first = vector(all[0]!);
    return all.every((status) => status.ready && vector(status) === first) ? first : undefined;
  };
  const scans = await eventually('all nodes ready and at one version vector', async () => {
    const before = await common();
    if (before === undefined) return undefined;
    const found = await Promise.all(daemons.map((daemon) => httpScan(daemon.address)));
    return (await common()) === before ? found : undefined;
  });
  for (const [i, scan] of scans.entries())
    for (const key of new Set([...scans[0]!.keys(), ...scan.keys()]))
      if (canonical(scan.get(key)) !== canonical(scans[0]!.get(key)))
        throw new Error(
          `${key}: ${canonical(scans[0]!.get(key))} at ${daemons[0]!.address}, ${canonical(scan.get(key))} at ${daemons[i]!.address}`,
        );
  return scans[0]!;
}

/** What `verify` says, asked of one member: throws unless all of `count` members hold the same. */
export async function verified(daemon: Daemon, count: number): Promise<void> {
  const client = await connect({ hosts: [daemon.address], timeoutMs: EVENTUALLY_MS, only: true });
  try {
    const report = await client.verify({ timeoutMs: EVENTUALLY_MS });
    if (!report.identical || report.members.length !== count) throw new Error(JSON.stringify(report));
  } finally {
    await client.close();
  }
}

/** Every entry in a data folder that no process has open, tombstones included. */
export async function dumpFolder(path: string): Promise<Dump> {
  const folder = await openDataFolder(path, { flush: false });
  try {
    const out = new Map<string, FinalEntry>();
    const cursor = folder.store.rows({});
    for (;;) {
      const { keys, rows } = await cursor.next(1_000, 1_048_576);
      if (keys.length === 0) break;
      for (const [i, key] of keys.entries()) {
        const row = rows[i]!;
        const value = isTombstone(row) ? undefined : toJson(decodeRow(key, row).value);
        out.set(key, { stamp: stampHexOf(row), value, origin: originOf(row), seq: seqOf(row) });
      }
    }
    await cursor.close();
    return out;
  } finally {
    await folder.close();
  }
}

/** Stops all daemons (SIGTERM; each must exit 0) and reads their files. */
export async function closedCopies(daemons: ReadonlyMap<string, Daemon>): Promise<Map<string, Dump>> {
  const exits = await Promise.all([...daemons.values()].map((daemon) => daemon.stop()));
  for (const [i, exit] of exits.entries())
    if (exit.code !== 0) throw new Error(`${[...daemons.keys()][i]} ended with ${JSON.stringify(exit)}`);
  const copies = new Map<string, Dump>();
  for (const [name, daemon] of daemons) copies.set(name, await dumpFolder(daemon.data));
  return copies;
}
