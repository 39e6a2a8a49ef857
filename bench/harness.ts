/**
 * What every bench stands on. Absolute figures of one machine drift by factors from hour to hour, so a bench
 * measures what it claims against a baseline in the same run, round by round in turn (A B A B ...), and reports
 * the ratio of the medians. Results are checked outside the timed regions; a wrong result fails the bench.
 */
import { AssertionError } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { openPhoneData, type PhoneData } from '../bin/phone-data.js';

/** `smoke` is only to see that a bench works: its figures mean nothing and its bars are not judged. */
export type Scale = 'full' | 'quick' | 'smoke';

/** One file of bench/ each. */
export interface Bench {
  readonly name: string;
  /** One line for the list. */
  readonly summary: string;
  run(context: Context): Promise<Result>;
}

export interface Context {
  readonly scale: Scale;
  readonly seed: number;
  readonly rounds: number;
  /** The phone rows; in a smoke run few and synthetic ones. */
  readonly data: PhoneData;
  /** A new temporary folder; all are deleted at the end, however it comes. */
  folder(): string;
  /** Says on standard error what goes on, if that is a terminal. */
  note(text: string): void;
  /** Says that a peer takes no part, and why; part of the report. */
  skip(peer: string, reason: string): void;
  /** Which peer took part, in which version and with which settings; part of the report. */
  took(peer: PeerNote): void;
}

/** A peer of a bench, as the report names it. */
export interface PeerNote {
  readonly name: string;
  readonly version: string;
  readonly settings: string;
  /** What it does not do that readmesh does, or the other way round. */
  readonly caveat?: string;
}

export interface Skip {
  readonly peer: string;
  readonly reason: string;
}

export interface Series {
  readonly label: string;
  /** One figure a round. */
  readonly rounds: readonly number[];
  readonly p50: number;
}

export interface Comparison {
  readonly name: string;
  readonly unit: string;
  readonly subject: Series;
  readonly baseline: Series;
  /** Median of the subject over median of the baseline. */
  readonly ratio: number;
  /** Least ratio that is aimed for; absent when there is none. */
  readonly bar?: number;
  /** The bar is the greatest ratio instead: the figures are times or sizes. */
  readonly atMost?: true;
}

export interface Distribution {
  readonly name: string;
  readonly unit: string;
  readonly samples: number;
  readonly p50: number;
  readonly p99: number;
  /** Value at each hundredth, from 0 to 100: what a plot draws. */
  readonly hundredths?: readonly number[];
}

/** A figure that depends on another one: a line in a plot. */
export interface Curve {
  /** Curves of one plot share it. */
  readonly plot: string;
  readonly label: string;
  readonly x: string;
  readonly y: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface Result {
  readonly comparisons: readonly Comparison[];
  readonly distributions?: readonly Distribution[];
  readonly curves?: readonly Curve[];
  /** Peers that were not installed; filled in by the harness. */
  readonly skipped?: readonly Skip[];
  readonly peers?: readonly PeerNote[];
  /** What else a reader needs to understand the figures. */
  readonly remarks?: readonly string[];
}

export interface Contender {
  readonly label: string;
  /** Times one round and resolves to its figure. Round -1 warms up and is not counted. */
  round(number: number): Promise<number> | number;
  /** Runs after each round, untimed: checks results, makes room for the next. */
  after?(number: number): Promise<void> | void;
}

const ROUNDS: Record<Scale, number> = { full: 7, quick: 5, smoke: 2 };
const SMOKE_ROWS = 2_000;
const QUICK_ROWS = 100_000;
const SEED = 42;
const SETTLE_MS: Record<Scale, number> = { full: 300, quick: 200, smoke: 0 };

export interface Turns {
  /** Whether a first round is run and not counted. Default true. */
  readonly warmUp?: boolean;
  /** Default: those of the context. More and shorter ones even out what else the machine does. */
  readonly rounds?: number;
  /** Pause after each turn, ms. Default 300 (quick: 200), so that no compaction runs into another's time. */
  readonly settleMs?: number;
}

/** Runs the contenders in turn, warm-up round first. */
export async function interleave(
  context: Context,
  contenders: readonly Contender[],
  { warmUp = true, rounds = context.rounds, settleMs = SETTLE_MS[context.scale] }: Turns = {},
): Promise<Series[]> {
  const figures = contenders.map((): number[] => []);
  for (let round = warmUp ? -1 : 0; round < rounds; round++) {
    for (const [i, contender] of contenders.entries()) {
      const figure = await contender.round(round);
      await contender.after?.(round);
      if (round >= 0) figures[i]!.push(figure);
      context.note(`round ${round + 1} of ${rounds}: ${contender.label} ${readable(figure)}`);
      await delay(settleMs);
    }
  }
  return contenders.map(({ label }, i) => ({ label, rounds: figures[i]!, p50: median(figures[i]!) }));
}

/** `bar` is not part of a smoke run. */
export function compare(
  context: Context,
  figures: { name: string; unit: string; subject: Series; baseline: Series; bar?: number; atMost?: true },
): Comparison {
  const { bar, atMost, ...rest } = figures;
  const judged = bar !== undefined && context.scale !== 'smoke';
  const ratio = rest.subject.p50 / rest.baseline.p50;
  return { ...rest, ratio, ...(judged ? { bar, ...(atMost === undefined ? {} : { atMost }) } : {}) };
}

/** One subject against each of several baselines; those that took no part are left out. */
export function compareAll(
  context: Context,
  figures: { name: string; unit: string; subject: Series; atMost?: true },
  baselines: readonly { readonly series: Series | undefined; readonly bar?: number }[],
): Comparison[] {
  return baselines.flatMap(({ series, bar }) =>
    series === undefined
      ? []
      : compare(context, { ...figures, baseline: series, ...(bar === undefined ? {} : { bar }) }),
  );
}

/** Undefined when there is no bar to judge by. */
export function holds({ bar, atMost, ratio }: Comparison): boolean | undefined {
  if (bar === undefined) return undefined;
  return atMost === true ? ratio <= bar : ratio >= bar;
}

/** The greater figures: whichever API of a peer serves it best. */
export function fastest(series: readonly Series[]): Series {
  return series.reduce((best, next) => (next.p50 > best.p50 ? next : best));
}

export function distribution(name: string, unit: string, samples: readonly number[]): Distribution {
  const sorted = [...samples].sort((a, b) => a - b);
  const hundredths = Array.from({ length: 101 }, (_, i) => atShare(sorted, i / 100));
  const [p50, p99] = [median(sorted), atShare(sorted, 0.99)];
  return { name, unit, samples: samples.length, p50, p99, hundredths };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  return atShare(
    [...values].sort((a, b) => a - b),
    share,
  );
}

function atShare(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

/** A wrong result: the figures of this run are worth nothing. */
export function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new AssertionError({ message: `wrong result: ${what}` });
}

/** Three significant digits, with separators. */
export function readable(figure: number): string {
  return figure >= 1_000
    ? Math.round(figure).toLocaleString('en-US')
    : figure.toLocaleString('en-US', { maximumSignificantDigits: 3 });
}

/** Runs a bench in a context of its own, and cleans up. */
export async function runInContext(
  bench: Bench,
  scale: Scale,
): Promise<{ context: Context; result: Result }> {
  const folders: string[] = [];
  const skipped: Skip[] = [];
  const peers: PeerNote[] = [];
  const removeFolders = (): void => {
    for (const folder of folders.splice(0))
      rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  };
  const data = await openPhoneData(
    scale === 'smoke'
      ? { rowsMax: SMOKE_ROWS, synthetic: true }
      : scale === 'quick'
        ? { rowsMax: QUICK_ROWS }
        : {},
  );
  const context: Context = {
    scale,
    seed: SEED,
    rounds: ROUNDS[scale],
    data,
    folder: () => {
      const folder = mkdtempSync(join(tmpdir(), 'readmesh-bench-'));
      folders.push(folder);
      return folder;
    },
    note: (text) => {
      if (process.stderr.isTTY === true) process.stderr.write(`${bench.name}: ${text}\n`);
    },
    skip: (peer, reason) => {
      skipped.push({ peer, reason });
      process.stderr.write(`${bench.name}: without ${peer}: ${reason}\n`);
    },
    took: (peer) => {
      if (peers.every(({ name }) => name !== peer.name)) peers.push(peer);
    },
  };
  process.once('exit', removeFolders);
  try {
    const result = await bench.run(context);
    return { context, result: { ...result, skipped, peers } };
  } finally {
    removeFolders();
    process.off('exit', removeFolders);
  }
}
