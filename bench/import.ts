/**
 * Importing the whole table into a cluster of three daemons, through the light client, until all three hold it:
 * against three LevelDBs that are loaded side by side, each in a process of its own, with the same physical rows
 * in ready-made batches of 1,000, just as often flushed. The acknowledgements are the default: two hosts, flushed.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LocalCluster } from '../bin/demo/cluster.js';
import { loadRows } from '../bin/demo/load.js';
import { fetchJson } from '../bin/demo/traffic.js';
import { type PhoneRow, readPhoneRows } from '../bin/phone-data.js';
import { connect } from '../src/client/index.js';
import type { Status } from '../src/read-store.js';
import { type Bench, type Context, check, compare, interleave } from './harness.js';
import type { RawLoadOrder, RawLoadReply } from './import-raw.js';

const HOSTS = ['a', 'b', 'c'];
const POLL_MS = 20;
const CONVERGE_MS_MAX = 120_000;
const VERIFY_MS_MAX = 60_000;
const TIMES_MAX = 3;

export const importBench: Bench = {
  name: 'import',
  summary: 'import into three daemons until all are identical, against three LevelDBs loaded side by side',
  run: async (context) => {
    const rows = await readPhoneRows(context.data);
    context.note(`${rows.length} rows; preparing three raw loaders`);
    await using loaders = await RawLoaders.start(context);
    const [subject, baseline] = await interleave(
      context,
      [
        { label: 'readmesh, three daemons', round: () => importOnce(context, rows) },
        { label: 'LevelDB, three processes', round: () => loaders.load(rows.length) },
      ],
      { warmUp: false },
    );
    const comparison = compare(context, {
      name: 'import until identical',
      unit: 's',
      subject: subject!,
      baseline: baseline!,
      bar: TIMES_MAX,
      atMost: true,
    });
    return { comparisons: [comparison], remarks: [`${rows.length} rows (${context.data.source})`] };
  },
};

async function importOnce(context: Context, rows: readonly PhoneRow[]): Promise<number> {
  await using cluster = await LocalCluster.start({ cluster: 'bench', names: HOSTS });
  await using client = await connect({ hosts: [cluster.addresses[0]!] });
  const began = performance.now();
  await loadRows(client, rows);
  await haveAll(cluster.addresses, rows.length);
  const seconds = (performance.now() - began) / 1_000;
  const verified = await client.verify({ timeoutMs: VERIFY_MS_MAX });
  check(verified.identical && verified.members.length === HOSTS.length, 'all copies were to be identical');
  check(verified.entries === rows.length, `${rows.length} entries were to be held, not ${verified.entries}`);
  context.note(`verified ${verified.entries} entries on ${HOSTS.length} hosts`);
  return seconds;
}

/** Resolves once every host has written everything that any of them accepted. */
async function haveAll(addresses: readonly string[], rows: number): Promise<void> {
  const until = performance.now() + CONVERGE_MS_MAX;
  for (;;) {
    const vectors = await Promise.all(
      addresses.map(
        async (address) => (await fetchJson<Status>(new URL(`http://${address}/v1/status`))).heads,
      ),
    );
    const texts = vectors.map((heads) => JSON.stringify(Object.entries(heads).sort()));
    const accepted = Object.values(vectors[0]!).reduce((sum, head) => sum + head, 0);
    if (accepted >= rows && texts.every((text) => text === texts[0])) return;
    check(performance.now() < until, `the hosts were to hold the same within ${CONVERGE_MS_MAX} ms`);
    await delay(POLL_MS);
  }
}

/** Three processes that hold all rows ready-made, and load them on command. */
class RawLoaders implements AsyncDisposable {
  readonly #context: Context;
  readonly #children: ChildProcess[];

  static async start(context: Context): Promise<RawLoaders> {
    const script = fileURLToPath(new URL('./import-raw.js', import.meta.url));
    const { source, count } = context.data;
    const children = HOSTS.map(() => fork(script, [source, String(count)]));
    const loaders = new RawLoaders(context, children);
    try {
      await Promise.all(children.map((child) => reply(child)));
      return loaders;
    } catch (error) {
      await loaders[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(context: Context, children: ChildProcess[]) {
    this.#context = context;
    this.#children = children;
  }

  /** Seconds until the last one is done. */
  async load(rows: number): Promise<number> {
    const folders = this.#children.map(() => join(this.#context.folder(), 'db'));
    const began = performance.now();
    const replies = this.#children.map((child, i) => {
      const order: RawLoadOrder = { location: folders[i]! };
      child.send(order);
      return reply(child);
    });
    const written = await Promise.all(replies);
    const seconds = (performance.now() - began) / 1_000;
    for (const { rows: count } of written)
      check(count === rows, `${rows} rows were to be loaded, not ${count}`);
    return seconds;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
  }
}

function reply(child: ChildProcess): Promise<RawLoadReply> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void => reject(new Error(`a raw loader ended with ${code}`));
    child.once('exit', onExit);
    child.once('message', (message) => {
      child.off('exit', onExit);
      resolve(message as RawLoadReply);
    });
  });
}
