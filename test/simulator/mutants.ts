/**
 * Planted bugs: the checker checked. Each is a patch of the core's source, of the kind that a plausible
 * implementation gets wrong; `mutate.ts` builds a patched copy, and the suite must catch every one of them within
 * the seeds of an ordinary run. `find` occurs exactly once in its file, or the patch itself fails the test.
 */
export interface Edit {
  /** Below src/. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
  /** A seed of the suite that caught it; tried first, to save time. */
  readonly seed?: number;
}

const mutant = (name: string, file: string, find: string, replace: string, seed?: number): Mutant => ({
  name,
  edits: [{ file, find, replace }],
  ...(seed === undefined ? {} : { seed }),
});

export const MUTANTS: readonly Mutant[] = [
  mutant(
    'heals with an older record than the lost one',
    'core/heal.ts',
    'if (surpassed || this.#covers(heads, damage.needed, now.mono - damage.since))',
    'if (surpassed || row !== undefined || this.#covers(heads, damage.needed, now.mono - damage.since))',
    328,
  ),
  {
    name: 'takes the absence of a record from a peer that is behind',
    edits: [
      {
        file: 'core/heal.ts',
        find: 'if (surpassed || this.#covers(heads, damage.needed, now.mono - damage.since))',
        replace:
          'if (surpassed || row === undefined || this.#covers(heads, damage.needed, now.mono - damage.since))',
      },
      { file: 'core/heal.ts', find: 'fit.length > 0 ? fit : peers', replace: 'peers' },
    ],
    seed: 218,
  },
  mutant(
    'treats a damaged key as a missing one in a merge',
    'core/replication.ts',
    'if (!core.heal.surpasses(key, stampMsOf(row), stampCounterOf(row))) return false;',
    '',
  ),
  mutant(
    'raises its heads over a chunk that a lost record kept from being merged',
    'core/asking.ts',
    'if (lost !== undefined) return this.#hold(asked, chunk, lost);',
    '',
  ),
  mutant(
    'adds what heals a lost record to a sum that still has the lost one in it',
    'core/digest.ts',
    "if (mended === 'unknown') continue;\n      if (old !== undefined) this.#coming.add(old);",
    'if (old !== undefined) this.#coming.add(old);',
  ),
  mutant(
    'acknowledges a frame before it is written',
    'core/replication.ts',
    `    core.afterWritten(() => {
      if (core.peers.has(peer.link))`,
    `    [0].forEach(() => {
      if (core.peers.has(peer.link))`,
  ),
  mutant(
    'settles with one host too few',
    'core/acknowledgements.ts',
    'if (hosts < write.needed) {',
    'if (hosts < write.needed - 1) {',
  ),
  mutant(
    'never sends again what waits for acknowledgements',
    'core/replication.ts',
    'for (const push of this.#acks.outstanding(peer.host)) this.#push([peer], push);',
    '',
    7,
  ),
  mutant(
    'takes it that every frame is acknowledged that arrived',
    'core/replica.ts',
    'if (this.peers.has(peer.link)) this.#replication.remind(peer);',
    '',
    16,
  ),
  mutant(
    'counts members, not hosts',
    'core/replica.ts',
    'this.acks.acknowledge(frame, peer.host, message.flushed)',
    'this.acks.acknowledge(frame, peer.name, message.flushed)',
  ),
  mutant(
    'drops one record in a thousand',
    'core/replication.ts',
    'core.counters.recordsReceived += 1;',
    'core.counters.recordsReceived += 1;\n    if (core.deps.random() < 0.001) return true;',
  ),
  mutant(
    'breaks ties by arrival',
    'core/entry.ts',
    '  const kinds = b[AT_KIND]! - a[AT_KIND]!;\n',
    '  if (stamps === 0) return 0;\n  const kinds = b[AT_KIND]! - a[AT_KIND]!;\n',
  ),
  mutant(
    'keeps the latest of two dots',
    'core/entry.ts',
    'return entries !== 0 ? entries : compareBytes(b, AT_ORIGIN, HEADER, a, AT_ORIGIN, HEADER);',
    'return entries !== 0 ? entries : compareBytes(b, AT_ORIGIN, HEADER, a, AT_ORIGIN, HEADER) === 0 ? 0 : 1;',
  ),
  mutant(
    'lets the clock go back with the wall clock',
    'core/hlc.ts',
    'if (wall > ms) {',
    'if (wall !== ms) {',
  ),
  mutant(
    'does not store the clock',
    'core/replica.ts',
    'batch.hlc = { ms, counter };\n    this.#storedHlc = batch.hlc;',
    'this.#storedHlc = { ms, counter };',
  ),
  mutant(
    'does not learn the time from what it merges',
    'core/replication.ts',
    'core.hlc.receive(stampMsOf(row), stampCounterOf(row));',
    '',
  ),
  {
    name: 'skips a stamp that is too far ahead, and advances',
    edits: [
      {
        file: 'core/replication.ts',
        find: `        core.counters.futureStamps += 1;
        return true;`,
        replace: `        core.counters.futureStamps += 1;
        return false;`,
      },
      {
        file: 'core/replication.ts',
        find: 'core.counters.recordsReceived += 1;',
        replace:
          'core.counters.recordsReceived += 1;\n    if (stampMsOf(row) > core.now.wall + 2 * core.options.maxClockDriftMs) return true;',
      },
    ],
  },
  mutant(
    'raises its heads when a session opens',
    'core/asking.ts',
    '    asked.purpose.opened?.(asked);\n',
    '    asked.purpose.opened?.(asked);\n    if (asked.purpose.opened === undefined) this.#merge.raiseHeads(asked.heads, new Map());\n',
  ),
  mutant(
    'takes the greatest heads of several snapshots',
    'core/version-vector.ts',
    'out.set(origin, Math.min(head, other))',
    'out.set(origin, Math.max(head, other))',
  ),
  mutant(
    'takes a range for complete when its source died',
    'core/bootstrap.ts',
    `  failed(asked: Asked): void {
`,
    `  failed(asked: Asked): void {
    this.#bySession.get(asked)!.done = true;
    if (asked.taken > 0) return this.completed(asked);
`,
  ),
  mutant(
    'stores how far it has copied before the rows',
    'core/asking.ts',
    '    const lost = this.#merge.records(chunk);\n',
    `    purpose.taken?.(asked, chunk, 0);
    core.queue.seal();
    const lost = this.#merge.records(chunk);\n`,
  ),
  mutant(
    'counts only the heads of the last snapshot it copied from',
    'core/bootstrap.ts',
    'plan.heads === null ? heads : minimumOfHeads(new Map(plan.heads), heads)',
    'heads',
  ),
  mutant(
    'copies only up to the end of the first range',
    'core/bootstrap.ts',
    'this.#ranges.every(({ done }) => done)',
    'this.#ranges.some(({ done }) => done)',
  ),
  mutant(
    'numbers on after a lost tail',
    'core/lifecycle.ts',
    'if (config.reuseOrigin) identity.origin = stored.origin;',
    'if (config.reuseOrigin || true) identity.origin = stored.origin;',
  ),
  mutant(
    'passes a frame on without applying it',
    'core/replication.ts',
    'const lost = this.#merge.records(push);',
    'const lost = push.frame !== 0 ? this.#merge.records(push) : undefined;',
  ),
  mutant(
    'advances over a gap',
    'core/replication.ts',
    'if (taken.head(push.origin) >= push.from) {',
    'if (push.from >= 0) {',
  ),
  mutant(
    'writes the head before the records',
    'core/replication.ts',
    '    const lost = this.#merge.records(push);\n',
    `    if (!covered && push.to > push.from && taken.head(push.origin) >= push.from) {
      queue.raiseHead(queue.batch(), push.origin, push.to);
      queue.seal();
    }
    const lost = this.#merge.records(push);\n`,
  ),
  mutant(
    'announces what is not written yet',
    'core/gossip.ts',
    'const { written, identity, members, now } = core;',
    'const { taken: written, identity, members, now } = core;',
  ),
  mutant(
    'lets an older value win over a deletion',
    'core/replication.ts',
    'if (current !== undefined && compareRows(row, current) <= 0) return true;',
    'if (current !== undefined && current[4] !== 2 && compareRows(row, current) <= 0) return true;',
  ),
  mutant(
    'forgets what is on its way to the disk',
    'core/replica.ts',
    'if (pending !== undefined) return pending;',
    '',
  ),
  {
    name: 'goes on writing after a failed batch',
    edits: [
      {
        file: 'core/replica.ts',
        find: "if (this.identity.phase === 'failed') return;\n    const batch",
        replace: 'const batch',
      },
      {
        file: 'core/links.ts',
        find: "if (core.identity.phase === 'failed') return this.close(peer, 'the store failed');",
        replace: '',
      },
    ],
  },
  mutant(
    'relies on timers that never ring early',
    'core/replica.ts',
    '    this.#wakeAt = undefined;\n    for (const timer',
    '    for (const timer',
  ),
  mutant(
    'tells less of its tops than it announced',
    'core/serving.ts',
    'const told = new Map(last ? served.tops : []);',
    'const told = new Map<OriginId, number>();',
  ),
  mutant('does not take its name back', 'core/gossip.ts', '    this.#reclaimName();\n', ''),
  mutant(
    'never asks for what pushes did not bring',
    'core/catch-up.ts',
    '    if (!taken.isBehind(peer.vector)) {',
    '    if (taken.size > 0) {',
  ),
];
