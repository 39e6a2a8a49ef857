/**
 * Where the simulated nodes stand: round-trip times between real regions, as their operator publishes them.
 *
 * Source: IBM Cloud, "Network latency dashboards", averages of 31 August to 29 September 2024
 * (https://cloud.ibm.com/docs/vpc?topic=vpc-network-latency-dashboard; its table of inter-region latency, here
 * the mean of both directions, and its tables of latency between and within the zones of one region, of which
 * 2.1 ms and 0.1 ms are typical).
 */

export const REGIONS = [
  'Dallas',
  'Toronto',
  'Washington DC',
  'Frankfurt',
  'London',
  'Madrid',
  'Osaka',
  'Sydney',
  'Tokyo',
  'Sao Paulo',
] as const;

/** Upper triangle of the published table: `ROUND_TRIPS[i][j - i - 1]` ms between regions i < j. */
const ROUND_TRIPS: readonly (readonly number[])[] = [
  [34, 31, 123, 113, 118, 149.5, 185, 142.5, 145],
  [19.5, 93, 82, 108.5, 168.5, 215, 162, 130.5],
  [91, 76, 88, 174.5, 214.5, 166, 119],
  [13, 29, 233, 250, 229, 196.5],
  [27, 243.5, 261, 243, 186],
  [257.5, 275, 257.5, 205.5],
  [122, 9, 292],
  [115, 328],
  [285],
];

const ZONES = 3;
const SAME_ZONE_MS = 0.1;
const SAME_REGION_MS = 2.1;

export interface Place {
  readonly region: number;
  readonly zone: number;
}

/** Nodes are dealt out to the regions, and within a region to its zones, one by one. */
export function placeOf(index: number): Place {
  return { region: index % REGIONS.length, zone: Math.floor(index / REGIONS.length) % ZONES };
}

/** Round trip between two places, ms. */
export function roundTripMs(a: Place, b: Place): number {
  if (a.region === b.region) return a.zone === b.zone ? SAME_ZONE_MS : SAME_REGION_MS;
  const low = Math.min(a.region, b.region);
  const high = Math.max(a.region, b.region);
  return ROUND_TRIPS[low]![high - low - 1]!;
}
