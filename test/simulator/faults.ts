/**
 * Every kind of fault that the simulator can inject, and how often each one mattered: not that a knob was
 * turned, but that something was lost, delayed, refused or repaired because of it. A kind that never mattered
 * in a whole run of the suite fails it, since a fault without effect proves nothing.
 */
export const FAULT_KINDS = [
  // Processes.
  'kill',
  'tornBatchLost',
  'tornBatchLanded',
  'stop',
  'blockedLoop',
  'powerCut',
  'lostTail',
  'unflushedTail',
  // Disks.
  'writeErrorLost',
  'writeErrorKept',
  'flushError',
  'diskFull',
  'readError',
  'bitFlip',
  'slowDisk',
  'wipe',
  'bootstrapCrash',
  'restoreBackup',
  'clone',
  'remove',
  // What becomes of origins that have ended.
  'originSealed',
  'originForgotten',
  'missedForgetting',
  'collected',
  // Stores that the cluster went on without, and what only they held.
  'outdated',
  'returned',
  // Members that are silent for a lease, and those that may be excluded.
  'excluded',
  'noMajority',
  // Network.
  'cut',
  'cutOneWay',
  'flap',
  'halfOpen',
  'linkBreak',
  'truncatedTail',
  'loss',
  'delaySpike',
  'slowLink',
  'congestion',
  'duplicateFrame',
  'dialTimeout',
  // Clocks.
  'clockSkew',
  'clockForward',
  'clockBack',
  'clockFreeze',
  // The core's own caps, made tiny.
  'tinyCaps',
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];
export type FaultCounts = Record<FaultKind, number>;

export function noFaults(): FaultCounts {
  return Object.fromEntries(FAULT_KINDS.map((kind) => [kind, 0])) as FaultCounts;
}

export function addFaults(sum: FaultCounts, part: FaultCounts): void {
  for (const kind of FAULT_KINDS) sum[kind] += part[kind];
}

/** A promise broken. `check` names which one, so that shrinking keeps to the same one. */
export class Violation extends Error {
  override readonly name = 'Violation';
  readonly check: string;

  constructor(check: string, message: string) {
    super(`${check}: ${message}`);
    this.check = check;
  }
}
