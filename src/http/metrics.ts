/**
 * `GET /metrics`: what the status report says, for Prometheus. All of it is made anew from one report for each scrape,
 * so that nothing is kept up to date in between, and what is over (an issue, a member) is gone from the next one.
 *
 * Names begin with `readmesh_`. Times are in seconds and sizes in bytes, as is the custom there. Each counter of the
 * report becomes `readmesh_NAME_total`.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import type { Status } from '../read-store.js';

export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

type Labels = Readonly<Record<string, string>>;
/** undefined: not known, or there is no such thing here; then there is no sample. */
type Sample = number | boolean | undefined;

class Page {
  readonly #registry = new Registry();

  gauge(name: string, help: string, value: Sample): void {
    if (value !== undefined) this.#gauge(name, help, []).set(Number(value));
  }

  /** One sample for each label set. */
  gauges(
    name: string,
    help: string,
    labelNames: readonly string[],
    samples: readonly [Labels, number][],
  ): void {
    const gauge = this.#gauge(name, help, labelNames);
    for (const [labels, value] of samples) gauge.set(labels, value);
  }

  counter(name: string, help: string, value: number): void {
    const counter = new Counter({ name: `readmesh_${name}_total`, help, registers: [this.#registry] });
    counter.inc(value);
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #gauge(name: string, help: string, labelNames: readonly string[]): Gauge {
    return new Gauge({
      name: `readmesh_${name}`,
      help,
      labelNames: [...labelNames],
      registers: [this.#registry],
    });
  }
}

/** The page of one report. */
export function metricsOf(status: Status): Promise<string> {
  const page = new Page();
  const { name, cluster, version, phase } = status;
  page.gauges(
    'info',
    'Who this node is',
    ['node', 'cluster', 'version'],
    [[{ node: name, cluster, version }, 1]],
  );
  page.gauge('ready', 'Whether reads are served', status.ready);
  page.gauges('phase', 'Where the node stands: 1 for the present phase', ['phase'], [[{ phase }, 1]]);
  page.gauges(
    'issue',
    'What is wrong at present, by code; no samples when all is well',
    ['code'],
    status.issues.map(({ code }) => [{ code }, 1]),
  );
  page.gauge('uptime_seconds', 'Since the start of the node', seconds(status.uptimeMs));
  page.gauge('loop_lag_seconds', 'Longest hold of the event loop lately', seconds(status.loopLagMs));
  members(page, status);
  copy(page, status);
  page.gauge(
    'garbage_horizon_timestamp_seconds',
    'Deletions and expired entries up to here leave the disk; absent while not known',
    status.horizonMs === 0 ? undefined : seconds(status.horizonMs),
  );
  page.gauges(
    'garbage_blocked_seconds',
    'Who holds the horizon up, and for how long; no samples when nobody does',
    ['member', 'why'],
    status.gcBlockedBy.map(({ who, why, forMs }) => [{ member: who, why }, seconds(forMs)]),
  );
  const { pendingRows, pendingBytes, unacknowledged } = status.queues;
  page.gauge('pending_rows', 'Records that are not written yet', pendingRows);
  page.gauge('pending_bytes', 'Bytes of those', pendingBytes);
  page.gauge('unacknowledged_writes', 'Local writes that wait for acknowledgements', unacknowledged);
  page.gauge('store_failed', 'Whether the store refuses writes', status.store?.failure !== undefined);
  for (const [counter, value] of Object.entries(status.counters))
    page.counter(snakeCase(counter), `The counter ${counter} of the status report`, value);
  ownProcess(page);
  return page.text();
}

function members(page: Page, { members }: Status): void {
  const count = (state: string): number => members.filter((member) => member.state === state).length;
  page.gauges(
    'members',
    'Members, this node included, by what is known of them',
    ['state'],
    ['alive', 'suspect', 'unknown'].map((state) => [{ state }, count(state)]),
  );
  page.gauge('links', 'Members with a live link', members.filter(({ linked }) => linked).length);
}

/** What is known of the copy of the data. */
function copy(page: Page, { digest, integrity, scrub, bootstrap, heads }: Status): void {
  page.gauge('entries', 'Entries here, tombstones included', digest.keys);
  page.gauge('origins', 'Origins in the version vector', Object.keys(heads).length);
  page.gauge(
    'digest_built_ratio',
    'How much of the store was read since the start',
    digest.builtPercent / 100,
  );
  page.gauge('digest_doubt', 'Whether the store lost or changed records', digest.doubt);
  page.gauge(
    'proved_age_seconds',
    'Since this copy was last proved equal to that of every linked member; absent until it was',
    digest.lastProvedMs === undefined ? undefined : seconds(digest.lastProvedMs),
  );
  page.gauge('integrity_proved', 'Whether all of the disk was read and found whole', integrity.proved);
  page.gauge('lost_records', 'Records known to be lost and not healed yet', integrity.lost);
  page.gauge('scrub_ratio', 'Progress of the scrub', scrub === undefined ? undefined : scrub.percent / 100);
  page.gauge('scrub_passes', 'Complete passes of the scrub since the start', scrub?.passes);
  page.gauge('bootstrap_bytes', 'Bytes copied from other members since the start', bootstrap?.bytes);
  page.gauge('bootstrap_remaining_seconds', 'Estimate', seconds(bootstrap?.remainingMs));
}

function ownProcess(page: Page): void {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  page.counter('process_cpu_seconds', 'User and system time', (user + system) / 1e6);
  page.gauge('process_resident_memory_bytes', 'Memory of the process', rss);
  page.gauge('process_heap_used_bytes', 'Of it, the JavaScript heap in use', heapUsed);
}

function seconds(ms: number): number;
function seconds(ms: number | undefined): number | undefined;
function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1_000;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
