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
  /** Says on standard error what goes on. */
  note(text: string): void;
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
}

export interface Distribution {
  readonly name: string;
  readonly unit: string;
  readonly samples: number;
  readonly p50: number;
  readonly p99: number;
}

export interface Result {
  readonly comparisons: readonly Comparison[];
  readonly distributions?: readonly Distribution[];
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

const ROUNDS: Record<Scale, number> = { full: 5, quick: 3, smoke: 2 };
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
  figures: { name: string; unit: string; subject: Series; baseline: Series; bar?: number },
): Comparison {
  const { bar, ...rest } = figures;
  const judged = bar !== undefined && context.scale !== 'smoke';
  return { ...rest, ratio: rest.subject.p50 / rest.baseline.p50, ...(judged ? { bar } : {}) };
}

export function distribution(name: string, unit: string, samples: readonly number[]): Distribution {
  return { name, unit, samples: samples.length, p50: median(samples), p99: percentile(samples, 0.99) };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
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
      if (scale !== 'smoke') process.stderr.write(`${bench.name}: ${text}\n`);
    },
  };
  process.once('exit', removeFolders);
  try {
    return { context, result: await bench.run(context) };
  } finally {
    removeFolders();
    process.off('exit', removeFolders);
  }
}
