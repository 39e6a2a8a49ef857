/** What the demo found, as a table for people and as JSON for programs. */
import { count, duration } from '../cli/format.js';
import type { Screen } from './screen.js';
import type { ReadFigures, WriteFigures } from './traffic.js';

export interface DemoReport {
  /** Whether everything that was to be shown held. */
  ok: boolean;
  /** What did not hold, in words. */
  broken: string[];
  source: string;
  rows: number;
  load: { ms: number; rowsPerSecond: number };
  identicalAfterLoad: boolean;
  /** The replica inside the demo's own process. */
  embedded: { bootstrapMs: number };
  lookups: { numbers: number; right: number };
  fault: { killed: string; founder: boolean; downMs: number; rebuildMs: number };
  reads: { client: ReadFigures; embedded: ReadFigures };
  writes: WriteFigures & { lost: number };
  identicalAfterRebuild: boolean;
  /** Entries that every member held in the end. */
  entries: number;
  totalMs: number;
}

export function emptyReport(): DemoReport {
  const noReads = (): ReadFigures => ({ served: 0, failed: 0, wrong: 0, slowestMs: 0 });
  return {
    ok: false,
    broken: [],
    source: '',
    rows: 0,
    load: { ms: 0, rowsPerSecond: 0 },
    identicalAfterLoad: false,
    embedded: { bootstrapMs: 0 },
    lookups: { numbers: 0, right: 0 },
    fault: { killed: '', founder: false, downMs: 0, rebuildMs: 0 },
    reads: { client: noReads(), embedded: noReads() },
    writes: { acknowledged: 0, unacknowledged: 0, lost: 0 },
    identicalAfterRebuild: false,
    entries: 0,
    totalMs: 0,
  };
}

export function millis(ms: number): string {
  return ms < 10 ? `${ms.toFixed(2)} ms` : duration(ms);
}

export function showReport(screen: Screen, report: DemoReport): void {
  const { client, embedded } = report.reads;
  const { writes, fault } = report;
  screen.heading('In short');
  screen.table(
    [`While ${fault.killed} was killed, wiped and rebuilt`, 'light client', 'embedded replica'],
    [
      ['reads served', count(client.served), count(embedded.served)],
      ['reads failed', count(client.failed), count(embedded.failed)],
      ['reads with a wrong answer', count(client.wrong), count(embedded.wrong)],
      ['slowest read', millis(client.slowestMs), millis(embedded.slowestMs)],
      ['writes acknowledged', count(writes.acknowledged), ''],
      ['acknowledged writes lost', count(writes.lost), ''],
      ['host down / rebuilt within', `${duration(fault.downMs)} / ${duration(fault.rebuildMs)}`, ''],
      ['copies identical afterwards', report.identicalAfterRebuild ? 'yes' : 'NO', ''],
    ],
  );
  for (const text of report.broken) screen.check(false, text);
}
