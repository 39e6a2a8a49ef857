/** Which fleets are measured, and what is aimed for. */
import type { FleetPlan, FleetReport } from './measure.js';

export type ScaleSize = 'full' | 'quick' | 'smoke';

const SEED = 1;

function plan(nodes: number, settleMs: number, idleMs: number, updates: number): FleetPlan {
  return { nodes, seed: SEED, settleMs, idleMs, updates, everyMs: 200, valueBytes: 100 };
}

/**
 * Large fleets settle long enough for members that were switched on together to pulse spread out over the whole
 * interval: an idle watch need then not be as long as the interval between two pulses of one member.
 */
export const PLANS: Record<ScaleSize, readonly FleetPlan[]> = {
  full: [plan(10, 20_000, 60_000, 100), plan(100, 120_000, 60_000, 100), plan(1_000, 200_000, 30_000, 100)],
  quick: [plan(10, 20_000, 20_000, 50), plan(100, 90_000, 20_000, 50)],
  smoke: [plan(10, 5_000, 5_000, 10)],
};

export interface Bar {
  readonly name: string;
  readonly measured: number;
  readonly bar: number;
  readonly unit: string;
  readonly held: boolean;
}

/** Of the fleet of 1,000 nodes, if there is one: what is aimed for holds there. */
export function judge(reports: readonly FleetReport[]): Bar[] {
  const large = reports.find((report) => report.plan.nodes === 1_000);
  const small = reports.find((report) => report.plan.nodes === 10);
  return large === undefined || small === undefined ? [] : barsOf(large, small);
}

export function barsOf(large: FleetReport, small: FleetReport): Bar[] {
  const most = (name: string, measured: number, bar: number, unit: string): Bar => ({
    name,
    measured,
    bar,
    unit,
    held: measured <= bar,
  });
  return [
    most('pairs of update and node that were not reached', large.unreached, 0, ''),
    most('time until 99 % of the nodes have an update, worst update', large.reach99.max, 500, 'ms'),
    most('copies of each payload a node gets, mean', large.copies, 1.5, ''),
    most('idle bytes a node sends, over those of 10 nodes', large.idleBytes / small.idleBytes, 8, ''),
  ];
}
