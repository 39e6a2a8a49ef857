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
    'adds what heals a lost record to a sum that still has the lost one in it',
    'core/digest.ts',
    "      if (mended === 'unknown') continue;\n",
    '',
  ),
  mutant(
    'acknowledges a frame before it is written',
    'core/replication.ts',
    `    core.afterDurable(() => {
      if (core.peers.has(peer.link))`,
    `    [0].forEach(() => {
      if (core.peers.has(peer.link))`,
  ),
  mutant(
    'acknowledges a frame as flushed once it is written',
    'core/commit.ts',
    'if (!core.config.flushes) this.#durable(batch);',
    'this.#durable(batch);',
  ),
  mutant(
    'counts its own host as one that has flushed what it has written',
    'core/replication.ts',
    'flushed: new Set(), writes };',
    'flushed: new Set(config.flushes ? [config.host] : []), writes };',
  ),
  mutant(
    'takes a flush for one of all that is written since',
    'core/write-queue.ts',
    'const count = this.#unflushed.findIndex((batch) => batch.id > id);',
    'const count = id - id - 1;',
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
    94,
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
    28,
  ),
  mutant(
    'lets the clock go back with the wall clock',
    'core/hlc.ts',
    'if (wall > ms) {',
    'if (wall !== ms) {',
  ),
  mutant(
    'does not store the clock',
    'core/commit.ts',
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
    seed: 34,
  },
  mutant(
    'raises its heads when a session opens',
    'core/asking.ts',
    '    asked.purpose.opened?.(asked, message);\n',
    '    asked.purpose.opened?.(asked, message);\n    if (asked.purpose.opened === undefined) this.#merge.raiseHeads(asked.heads, new Map());\n',
  ),
  mutant(
    'takes the greatest heads of several snapshots',
    'core/version-vector.ts',
    'out.set(origin, Math.min(head, other))',
    'out.set(origin, Math.max(head, other))',
    29,
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
    9,
  ),
  mutant(
    'stores how far it has copied before the rows',
    'core/asking.ts',
    '    const lost = this.#merge.records(chunk);\n',
    `    purpose.taken?.(asked, chunk, 0);
    core.queue.seal();
    const lost = this.#merge.records(chunk);\n`,
    29,
  ),
  mutant(
    'counts only the heads of the last snapshot it copied from',
    'core/bootstrap.ts',
    'plan.heads === null ? heads : minimumOfHeads(new Map(plan.heads), heads)',
    'heads',
    29,
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
    'const { written } = this.#core;\n    const vector: VectorEntry[]',
    'const { taken: written } = this.#core;\n    const vector: VectorEntry[]',
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
        file: 'core/commit.ts',
        find: "if (identity.phase === 'failed') return;\n    const batch",
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
    273,
  ),
  mutant(
    'sums entries that expire with those that stay',
    'core/entry-hash.ts',
    'isTombstone(row) || expiresAtOf(row) !== undefined',
    'isTombstone(row)',
  ),
  mutant(
    'does not take what has expired on its way',
    'core/replication.ts',
    'core.counters.recordsReceived += 1;',
    `core.counters.recordsReceived += 1;
    const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
    if ((row[5]! & 1) === 1 && Number(view.getBigUint64(36)) <= core.now.wall) return true;`,
  ),
  mutant(
    'counts the time of an entry from its own clock instead of the stamp',
    'core/replication.ts',
    'ms + op.ttlMs',
    'core.now.wall + op.ttlMs',
  ),
  mutant('does not take its name back', 'core/gossip.ts', '    this.#publishOwn();\n', ''),
  mutant(
    'seals without a member that is down',
    'core/seal-gossip.ts',
    'if (report === undefined || report.membersHash !== members.hash) return undefined;',
    'if (report === undefined || report.membersHash !== members.hash) continue;',
    41,
  ),
  mutant(
    'takes up again after a restore though origins were forgotten meanwhile',
    'core/sealing.ts',
    'if (latest > standing.forgotten && !standing.proven) {',
    'if (latest < 0) {',
    52,
  ),
  {
    name: 'catches up by dots though it cannot name what it lacks',
    seed: 1321,
    edits: [
      {
        file: 'core/standing.ts',
        find: 'return report === undefined || report.proven || report.forgotten >= this.forgotten;',
        replace: 'return true;',
      },
      {
        file: 'core/standing.ts',
        find: "if (this.proven && this.#core.identity.phase === 'ready') return true;",
        replace: "if (this.#core.identity.phase === 'ready') return true;",
      },
      {
        file: 'core/sealing.ts',
        find: '    this.#checkStanding();\n  }',
        replace: '  }',
      },
    ],
  },
  mutant(
    'never asks for what pushes did not bring',
    'core/catch-up.ts',
    '    if (!taken.isBehind(peer.vector, this.#core.sealing.isCovered)) {',
    '    if (taken.size > 0) {',
  ),
  mutant(
    'builds the digest from what it reads, and forgets what was written meanwhile',
    'core/digest.ts',
    '        this.#survey?.landed(key, oldDigest, newDigest);\n',
    '',
    19,
  ),
  mutant(
    'stores the root that the store had before the batch',
    'core/digest.ts',
    '      root.addSum(this.#coming);\n',
    '',
  ),
  mutant(
    'does not take back what a write replaced',
    'core/write-queue.ts',
    'replaced: current,',
    'replaced: undefined,',
  ),
];

/** Planted bugs of stores that were set aside (scenarios/return.test.ts). */
export const RETURN_MUTANTS: Readonly<Record<'drops' | 'takesOld', Mutant>> = {
  drops: {
    name: 'drops what only the old store held',
    edits: [
      {
        file: 'core/returning.ts',
        find: "if (core.sealing.covers(dotOf(row)) === 'held') return 'held';",
        replace: "return 'held';",
      },
    ],
  },
  takesOld: {
    name: 'takes old records back though they are too old',
    edits: [
      {
        file: 'core/returning.ts',
        find: "if (stampMsOf(row) > core.horizon.floor) return 'return';",
        replace: "return 'return';",
      },
      { file: 'core/replication.ts', find: 'if (ms <= horizon.floor)', replace: 'if (ms <= 0)' },
    ],
  },
};

/** Bugs of healing, each in a scenario of its own (scenarios/healing-bugs.test.ts): few seeds come to such a pass. */
export const HEALING_MUTANTS: Readonly<Record<'older' | 'absent' | 'merge' | 'chunk', Mutant>> = {
  older: {
    name: 'heals with an older record than the lost one',
    edits: [
      {
        file: 'core/heal.ts',
        find: 'if (isIt || surpassed || this.#coversLoss(heads, damage))',
        replace: 'if (isIt || surpassed || row !== undefined || this.#coversLoss(heads, damage))',
      },
      { file: 'core/heal.ts', find: 'fit.length > 0 ? fit : peers', replace: 'peers' },
    ],
  },
  absent: {
    name: 'takes the absence of a record from a peer that is behind',
    edits: [
      {
        file: 'core/heal.ts',
        find: 'if (isIt || surpassed || this.#coversLoss(heads, damage))',
        replace: 'if (isIt || surpassed || row === undefined || this.#coversLoss(heads, damage))',
      },
      { file: 'core/heal.ts', find: 'fit.length > 0 ? fit : peers', replace: 'peers' },
    ],
  },
  merge: mutant(
    'treats a damaged key as a missing one in a merge',
    'core/replication.ts',
    'if (!core.heal.surpasses(key, stampMsOf(row), stampCounterOf(row))) return false;',
    '',
  ),
  chunk: mutant(
    'raises its heads over a chunk that a lost record kept from being merged',
    'core/asking.ts',
    'if (lost !== undefined) return this.#hold(asked, chunk, lost);',
    '',
  ),
};

/**
 * Bugs of sealing that are told by what a token is answered, or by a node that comes back: in scenarios of their own
 * (scenarios/sealing-bugs.test.ts).
 */
/** Bugs of the garbage horizon, each shown by a scenario of its own: in most runs nothing is as late as that. */
export const HORIZON_MUTANTS = {
  silent: {
    name: 'collects without a member that is silent',
    edits: [
      {
        file: 'core/horizon.ts',
        find: 'isComplete &&= heard !== undefined && heard.membersHash === members.hash && heard.isReady;',
        replace: 'if (heard === undefined || this.#core.now.mono - heard.at > 3000) continue;',
      },
      {
        file: 'core/horizon.ts',
        find: 'covered = Math.min(covered, this.#progress(origin).settle(written.head(origin)));',
        replace:
          'const of = this.#progress(origin).settle(written.head(origin));\n      if (origin === identity.origin || this.#core.now.mono - (this.#heard.get(origin)?.at ?? 0) < 3000) covered = Math.min(covered, of);',
      },
    ],
  },
  window: mutant(
    'collects what a late retry may still contradict',
    'core/horizon.ts',
    'reported - options.lateRetryMs)',
    'reported)',
  ),
  dead: {
    name: 'forgets a dead origin that is not sealed',
    edits: [
      {
        file: 'core/horizon.ts',
        find: 'let isSettled = ended !== UNSETTLED;',
        replace: 'let isSettled = true;',
      },
      { file: 'core/horizon.ts', find: 'isSettled &&= heard?.report.ended === ended;', replace: '' },
    ],
  },
  door: mutant(
    'refuses late entries from peers',
    'core/replication.ts',
    'core.counters.recordsReceived += 1;',
    'core.counters.recordsReceived += 1;\n    if (stampMsOf(row) <= core.horizon.floor) return true;',
  ),
  joiner: {
    name: 'counts a joiner only after its snapshot',
    edits: [
      {
        file: 'core/horizon.ts',
        find: 'if (origin === identity.origin) continue;\n      const heard',
        replace:
          'if (origin === identity.origin || this.#heard.get(origin)?.isReady !== true) continue;\n      const heard',
      },
      {
        file: 'core/horizon.ts',
        find: 'covered = Math.min(covered, this.#progress(origin).settle(written.head(origin)));',
        replace:
          'const of = this.#progress(origin).settle(written.head(origin));\n      if (origin === identity.origin || this.#heard.get(origin)?.isReady === true) covered = Math.min(covered, of);',
      },
    ],
  },
  fence: mutant(
    'takes up again with a store that missed what was collected',
    'core/horizon.ts',
    'return this.#asOf !== undefined && report.collected > 0 && this.#asOf < report.collected + lateRetryMs;',
    'peer.isOutdated = false;\n    return false;',
  ),
} satisfies Record<string, Mutant>;

export const SEALING_MUTANTS: Readonly<
  Record<'behind' | 'unsettled' | 'across' | 'raise' | 'founding', Mutant>
> = {
  behind: mutant(
    'seals an origin while a member is behind',
    'core/sealing.ts',
    'if (!entries.every((entry) => entry !== undefined && entry[1] === head && entry[2] === top)) return;',
    'if (entries.length === 0) return;',
  ),
  unsettled: mutant(
    'forgets an origin before all know its seal',
    'core/sealing.ts',
    'if (row !== undefined && !row.forgotten && entries.every((entry) => isSettled(entry, row))) {',
    'if (row !== undefined && !row.forgotten) {',
  ),
  across: mutant(
    'seals across a gap though nobody knows whether members differ',
    'core/sealing.ts',
    "root !== '' && root === reports[0]!.root",
    'root === root',
  ),
  raise: mutant(
    'raises heads to a seal above a gap',
    'core/sealing.ts',
    '    if (!row.forgotten) return;\n    const { taken } = this.#core;\n    const { origin, seal } = row;\n',
    `    const { taken, queue } = this.#core;
    const { origin, seal } = row;
    if (taken.has(origin) && taken.top(origin) === seal && taken.raise(origin, seal, seal))
      queue.raiseHead(queue.batch(), origin, seal);
    if (!row.forgotten) return;
`,
  ),
  founding: mutant(
    'keeps to itself what its founding had forgotten',
    'core/sealing.ts',
    '      taken.raise(origin, top, top);\n      queue.raiseHead(queue.batch(), origin, top);\n',
    '      this.#forgotten.add(origin, top);\n',
  ),
};

/** Bugs of collection, each shown by a scenario of its own. */
export const COLLECTION_MUTANTS = {
  forgetful: mutant(
    'takes an older record of a collected key for a new one',
    'core/replication.ts',
    'collection.isPast(key, row, wanted)',
    'collection.isPast(key, row, true)',
  ),
  hasty: mutant(
    'collects what was written since',
    'core/collection.ts',
    ' || compareRows(current, row) !== 0) continue;',
    ') continue;',
  ),
  strict: mutant(
    'compares what may be collected with those who collected it',
    'core/collection.ts',
    'return swept && this.isSwept && begun === this.#begun;',
    'return true;',
  ),
  union: {
    name: 'mends by union what was collected',
    edits: [
      {
        file: 'core/collection.ts',
        find: 'return swept && this.isSwept && begun === this.#begun;',
        replace: 'return true;',
      },
      { file: 'core/collection.ts', find: 'if (isOverBy(row, this.#begun)) return true;', replace: '' },
      {
        file: 'core/reconcile-item.ts',
        find: 'return (item[0]! & FLAG_OVER) !== 0;',
        replace: 'return false;',
      },
    ],
  },
  live: mutant(
    'sums expiring entries as live ones',
    'core/entry-hash.ts',
    'isTombstone(row) || expiresAtOf(row) !== undefined',
    'isTombstone(row)',
  ),
} satisfies Record<string, Mutant>;

/**
 * Bugs that show only where stores lost or kept what they should not: in scenarios of their own
 * (scenarios/digest-bugs.test.ts), since no seed of the suite damages a store in these ways and heals it.
 */
export const DIGEST_MUTANTS: Readonly<Record<'dot' | 'union', Mutant>> = {
  dot: mutant(
    'hashes the dot along with the entry',
    'core/entry-hash.ts',
    '    key.length,\n',
    '    key.length ^ row[35]!,\n',
  ),
  union: mutant(
    'mends by union, whatever the others say',
    'core/reconcile-rule.ts',
    "if (lacks * 2 > members) return 'set-aside';",
    "if (lacks * 2 > 0 || holds > 0) return 'fetch';\n  if (lacks * 2 > members) return 'set-aside';",
  ),
};

/** Bugs of exclusion, each in a scenario of its own (scenarios/exclusion-bugs.test.ts): it takes a lease to show them. */
export const EXCLUSION_MUTANTS: Readonly<
  Record<'unilateral' | 'counted' | 'slept' | 'accepted' | 'grown', Mutant>
> = {
  grown: mutant(
    'lets newcomers in while it hears no majority',
    'core/links.ts',
    'if (this.#isNewcomer(hello) && !core.exclusion.admits)',
    'if (core.identity.uid === core.identity.origin)',
  ),
  unilateral: mutant(
    'excludes by the vote of one',
    'core/membership.ts',
    'return active.filter(({ origin }) => this.votes(origin) * 2 > active.length);',
    'return active.filter(({ origin }) => this.votes(origin) > 0);',
  ),
  counted: mutant(
    'counts excluded members on',
    'core/membership.ts',
    'return !this.#removed.has(origin) && !this.#excluded.has(origin);',
    'return !this.#removed.has(origin);',
  ),
  slept: {
    name: 'takes its own sleep for the silence of others',
    edits: [
      {
        file: 'core/exclusion.ts',
        find: 'if (!slept && this.#hearsMajority()) this.#counted += gap;',
        replace: 'this.#counted += gap;',
      },
      { file: 'core/exclusion.ts', find: 'else if (slept) heard.counted = this.#counted;', replace: '' },
    ],
  },
  accepted: {
    name: 'takes data from an excluded member',
    edits: [
      {
        file: 'core/links.ts',
        find: 'if (members.isExcluded(hello.origin)) return [EXCLUDED, EXCLUDED_TEXT];',
        replace: '',
      },
      {
        file: 'core/links.ts',
        find: 'else if (core.members.isExcluded(peer.origin)) this.refuse(peer, EXCLUDED, EXCLUDED_TEXT);',
        replace: '',
      },
      {
        file: 'core/gossip.ts',
        find: 'else if (core.members.isExcluded(core.identity.origin))',
        replace: 'else if (core.identity.uid === core.identity.origin)',
      },
    ],
  },
};
