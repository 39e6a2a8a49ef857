import { describe, expect, test } from 'vitest';
import { Fleet, type FleetPlan, measureFleet } from '../../bench/scale/measure.js';
import { barsOf, judge } from '../../bench/scale/plans.js';
import { plot } from '../../bench/scale/plot.js';
import { REGIONS, roundTripMs } from '../../bench/scale/regions.js';
import { bars, table } from '../../bench/scale/report.js';

const SMALL: FleetPlan = {
  nodes: 10,
  seed: 7,
  settleMs: 5_000,
  idleMs: 3_000,
  updates: 10,
  everyMs: 200,
  valueBytes: 100,
};

/** More than a full mesh has, fewer than take long. */
const SPARSE: FleetPlan = { ...SMALL, nodes: 60, settleMs: 45_000, idleMs: 10_000, updates: 40 };

const ten = measureFleet(SMALL);

describe('ten nodes, fully linked', () => {
  const report = ten;

  test('every update reaches all of them', () => {
    expect(report.links).toEqual({ p50: 9, p99: 9, max: 9 });
    expect(report.unreached).toBe(0);
    expect(report.reach100.max).toBeGreaterThan(report.reach50.p50);
  });

  test('the same seed gives the same figures, another one does not', () => {
    const { heapBytesPerNode: _, ...figures } = report;
    expect(measureFleet(SMALL)).toMatchObject(figures);
    expect(measureFleet({ ...SMALL, seed: 8 }).curve).not.toEqual(report.curve);
  });

  test('the report shows each figure, and there is nothing to judge without a large fleet', () => {
    expect(table([report])).toContain('| pairs never reached | 0 |');
    expect(judge([report])).toEqual([]);
    expect(plot([report])).toMatch(/^<svg .*<polyline .*10 nodes.*<\/svg>\n$/s);
  });

  test('a large fleet is judged against the small one', () => {
    const large = {
      ...report,
      plan: { ...SMALL, nodes: 1_000 },
      copies: 1.6,
      idleBytes: report.idleBytes * 7,
    };
    const judged = judge([report, large]);
    expect(judged.map(({ held }) => held)).toEqual([true, true, false, true]);
    expect(bars(judged)).toMatch(/copies .* 1\.60 .* missed/);
  });
});

describe('sixty nodes, of which each has a few links', () => {
  const fleet = new Fleet(SPARSE);
  const report = measureFleet(SPARSE, undefined, fleet);

  test('hold what is aimed for at 1,000', () => {
    expect(report.links.max).toBeLessThan(20);
    expect(barsOf(report, ten)).toMatchObject([
      { measured: 0, held: true },
      { unit: 'ms', held: true },
      { name: expect.stringContaining('copies'), held: true },
      { name: expect.stringContaining('idle'), held: true },
    ]);
    expect(report.copies).toBeGreaterThan(0.9);
    expect(report.reach99.max).toBeGreaterThan(100);
  });

  test('suspect nobody who lives, and soon all of them whom they lost, a newcomer included', () => {
    expect(report.falseSuspects).toBe(0);
    expect(report.suspect100Ms).toBeLessThanOrEqual(15_000);
  });

  test('take a newcomer in, and all know it', () => {
    expect(report.joinReadyMs).toBeDefined();
    expect(report.joinKnownMs).toBeDefined();
  });

  test('fetch what a lost packet keeps from them, rather than wait for it', () => {
    const fetched = fleet.nodes.reduce((sum, { core }) => sum + core.counters.framesFetched, 0);
    expect(fetched).toBeGreaterThan(0);
  });

  test('link neighbours rather than strangers', () => {
    let near = 0;
    for (const node of fleet.nodes) {
      const places = node.peers.map((name) => fleet.nodes.find((other) => other.name === name)!.place);
      near += places.filter(({ region }) => region === node.place.region).length;
    }
    // Each of the ten regions has six nodes: by chance, 5 of 59 links would stay in one.
    expect(near / fleet.nodes.length).toBeGreaterThan(2);
  });
});

test('a node that holds more than it may ends the run', () => {
  const fleet = new Fleet(SMALL);
  fleet.start();
  const { peers } = fleet.nodes[0]!.core;
  const [peer] = peers.values();
  for (let i = 0; i < 2_000; i++) peer!.offered.add(`${i}`);
  expect(() => fleet.run(1_000)).toThrow(/holds 2000 frames remembered/);
});

test('the table of round trips is complete, symmetric and longest across the world', () => {
  const at = (region: number) => ({ region, zone: 0 });
  for (let a = 0; a < REGIONS.length; a++)
    for (let b = 0; b < REGIONS.length; b++) {
      expect(roundTripMs(at(a), at(b))).toBe(roundTripMs(at(b), at(a)));
      expect(roundTripMs(at(a), at(b)) > 5).toBe(a !== b);
    }
  expect(roundTripMs(at(REGIONS.indexOf('Sydney')), at(REGIONS.indexOf('Sao Paulo')))).toBe(328);
});
