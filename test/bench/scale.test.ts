import { describe, expect, test } from 'vitest';
import { Fleet, type FleetPlan, measureFleet } from '../../bench/scale/measure.js';
import { judge } from '../../bench/scale/plans.js';
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
const SPARSE: FleetPlan = { ...SMALL, nodes: 40, settleMs: 60_000, idleMs: 10_000, updates: 40 };

describe('ten nodes, fully linked', () => {
  const report = measureFleet(SMALL);

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

describe('a mesh that is not full', () => {
  const report = measureFleet(SPARSE);

  test('brings every update to all, each payload about once, though most origins write for the first time', () => {
    expect(report.links.max).toBeLessThan(20);
    expect(report.unreached).toBe(0);
    expect(report.copies).toBeGreaterThan(0.9);
    expect(report.copies).toBeLessThan(1.7);
  });

  test('suspects nobody who lives, and soon everywhere whom it lost', () => {
    expect(report.falseSuspects).toBe(0);
    expect(report.suspect100Ms).toBeLessThanOrEqual(15_000);
  });

  test('makes a newcomer known to all', () => {
    expect(report.joinReadyMs).toBeDefined();
    expect(report.joinKnownMs).toBeDefined();
  });

  test('links neighbours rather than strangers', () => {
    const fleet = new Fleet(SPARSE);
    fleet.start();
    let near = 0;
    for (const node of fleet.nodes) {
      const places = node.peers.map((name) => fleet.nodes.find((other) => other.name === name)!.place);
      near += places.filter(({ region }) => region === node.place.region).length;
    }
    // Each of the ten regions has four nodes: by chance, 3 of 39 links would stay in one.
    expect(near / fleet.nodes.length).toBeGreaterThan(1.5);
  });
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
