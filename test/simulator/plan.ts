/**
 * What one seed does: the cluster, its options, the weather, and a list of events in time, drawn once and then
 * only read. Each event holds all the randomness it needs, so that leaving some out (shrinking) leaves the
 * others as they were.
 *
 * Swarm testing (Groce et al., 2012): each seed leaves out a random half of the kinds of faults and draws the
 * rates of the others log-uniformly, so that rare combinations get seeds in which nothing else interferes.
 */
import type { CoreOptions } from '../../src/options.js';
import type { NetworkRates } from './network.js';
import { Random } from './random.js';

/** Kinds of events. Faults of the weather (loss, duplicates, skew, tiny caps) are drawn for the whole run. */
export const EVENT_KINDS = [
  'kill',
  'stop',
  'blockedLoop',
  'powerCut',
  'writeErrorLost',
  'writeErrorKept',
  'diskFull',
  'readError',
  'bitFlip',
  'slowDisk',
  'wipe',
  'restoreBackup',
  'clone',
  'remove',
  'cut',
  'cutOneWay',
  'flap',
  'linkBreak',
  'delaySpike',
  'slowLink',
  'clockForward',
  'clockBack',
  'clockFreeze',
] as const;

export type EventKind = (typeof EVENT_KINDS)[number] | 'write';

export interface PlanEvent {
  /** Milliseconds of virtual time after the start. */
  readonly at: number;
  readonly kind: EventKind;
  readonly node: number;
  /** Draws in [0, 1), to be read as the event's kind needs them. */
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

export interface Plan {
  readonly seed: number;
  readonly nodes: number;
  /** Every node is given the same list to join, rather than one founding alone. */
  readonly allJoin: boolean;
  /** The last two nodes share a machine's label. */
  readonly sharedHost: boolean;
  /** Whether the stores flush. */
  readonly flushes: boolean;
  readonly options: Partial<CoreOptions>;
  readonly tinyCaps: boolean;
  readonly rates: NetworkRates;
  readonly diskMs: number;
  readonly clockOffsetsMs: readonly number[];
  readonly events: readonly PlanEvent[];
  readonly durationMs: number;
  /** What becomes of those that are not healed. */
  readonly minority: 'dead' | 'stopped' | 'cut' | 'oneWay' | 'none';
  /** Draws in [0, 1) by which the healed majority is chosen. */
  readonly healOrder: readonly number[];
}

export interface PlanLimits {
  /** Most writes of a run. Default 250. */
  readonly writesMax?: number;
  /** Most nodes. Default 6. */
  readonly nodesMax?: number;
}

export function drawPlan(seed: number, limits: PlanLimits = {}): Plan {
  const random = new Random(Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995);
  const nodes = Math.min(limits.nodesMax ?? 6, random.pick([2, 3, 3, 3, 4, 4, 5, 6]));
  const durationMs = random.logBetween(2_000, 20_000);
  const tinyCaps = random.chance(0.4);
  const skewed = random.chance(0.5);
  const stormy = random.chance(0.5);
  const plan = {
    seed,
    nodes,
    allJoin: random.chance(0.3),
    sharedHost: nodes > 2 && random.chance(0.15),
    flushes: !random.chance(0.2),
    options: {
      ...(tinyCaps ? drawTinyCaps(random) : {}),
      ...(tinyCaps ? drawBootstrapCaps(new Random(Math.imul(seed, 0x2545f491) ^ 0x1b56c4f5)) : {}),
      ackTimeoutMs: Math.round(random.logBetween(200, 3_000)),
      // Most runs are over before a token is a day old.
      ...(random.chance(0.85) ? { tokenAgeMaxMs: Math.round(random.logBetween(100, 5_000)) } : {}),
      ...drawLease(new Random(Math.imul(seed, 0x27d4eb2f) ^ 0x165667b1)),
      ...drawWindow(new Random(Math.imul(seed, 0x7feb352d) ^ 0x3c6ef372), skewed),
    },
    tinyCaps,
    rates: {
      delayMs: random.logBetween(0.1, 60),
      jitterMs: random.logBetween(0.1, 40),
      loss: stormy && random.chance(0.7) ? random.logBetween(0.001, 0.1) : 0,
      duplicate: stormy && random.chance(0.7) ? random.logBetween(0.005, 0.3) : 0,
    },
    diskMs: random.logBetween(0.2, 20),
    clockOffsetsMs: Array.from({ length: nodes }, () =>
      skewed ? Math.round(random.between(-2_300, 2_300)) : 0,
    ),
    durationMs,
    minority: random.pick(['dead', 'stopped', 'cut', 'oneWay', 'none', 'none'] as const),
    healOrder: Array.from({ length: nodes }, () => random.next()),
  };
  return { ...plan, events: drawEvents(random, plan, limits.writesMax ?? 250) };
}

function drawTinyCaps(random: Random): Partial<CoreOptions> {
  const log = (from: number, to: number): number => Math.round(random.logBetween(from, to));
  const options: Partial<CoreOptions> = {
    commitRowsMax: log(1, 16),
    commitBytesMax: log(100, 4_000),
    chunkRowsMax: log(1, 8),
    chunkBytesMax: log(100, 4_000),
    chunksInFlight: log(1, 3),
    sessionsServedMax: log(1, 3),
    pendingRowsMax: log(16, 400),
    pendingBytesMax: log(4_000, 60_000),
    pullGraceMs: log(10, 500),
    sessionStallMs: log(1_500, 10_000),
  };
  // A queue that has no room for the chunks in flight, or for a few long values, would never let a session end.
  options.linkQueueBytesMax =
    options.chunksInFlight! * Math.max(options.chunkBytesMax!, 1_400) + log(300, 10_000);
  if (random.chance(0.4)) Object.assign(options, { fullMeshMax: 2, meshLinks: 2 });
  return options;
}

/** In most runs nobody is silent for a lease. */
function drawLease(random: Random): Partial<CoreOptions> {
  return random.chance(0.25) ? { leaseMs: Math.round(random.logBetween(5_000, 20_000)) } : {};
}

/**
 * In half of the runs horizons pass what is written in them. A clock that is behind the others' gives no stamps that
 * are old enough to be refused.
 */
function drawWindow(random: Random, skewed: boolean): Partial<CoreOptions> {
  if (random.chance(0.5)) return {};
  return { lateRetryMs: Math.round(random.logBetween(500, 8_000)) + (skewed ? 5_000 : 0) };
}

function drawBootstrapCaps(random: Random): Partial<CoreOptions> {
  const log = (from: number, to: number): number => Math.round(random.logBetween(from, to));
  return {
    bootstrapRangeBytes: log(100, 4_000),
    bootstrapRangesMax: log(1, 12),
    bootstrapSourcesMax: log(1, 4),
    ...(random.chance(0.2) ? { bootstrapBytesPerSecond: log(3_000, 100_000) } : {}),
  };
}

function drawEvents(random: Random, plan: Omit<Plan, 'events'>, writesMax: number): PlanEvent[] {
  const events: PlanEvent[] = [];
  // Most runs begin with a cluster that has formed.
  const calmMs = random.chance(0.85) ? 2_500 : 0;
  const event = (kind: EventKind): PlanEvent => ({
    at: calmMs + random.next() * plan.durationMs,
    kind,
    node: random.below(plan.nodes),
    a: random.next(),
    b: random.next(),
    c: random.next(),
  });
  const writes = Math.round(random.logBetween(20, writesMax));
  for (let i = 0; i < writes; i++) events.push(event('write'));
  const weights = EVENT_KINDS.map((kind) => ({
    kind,
    weight: random.chance(0.5) ? random.logBetween(0.05, 1) : 0,
  })).filter(({ weight }) => weight > 0);
  const total = weights.reduce((sum, { weight }) => sum + weight, 0);
  const faults = weights.length === 0 ? 0 : Math.round(random.logBetween(2, 40));
  for (let i = 0; i < faults; i++) {
    let at = random.next() * total;
    const drawn = weights.find(({ weight }) => (at -= weight) <= 0) ?? weights[0]!;
    events.push(event(drawn.kind));
  }
  return events.sort((a, b) => a.at - b.at);
}
