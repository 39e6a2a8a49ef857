/**
 * The digest of this node's store: keeps the tree (digest-tree.ts) in step with what is written, builds it at the
 * start, and notices when the store does not hold what it should.
 *
 * Each batch stores the root as it will be once the batch is written, so that the store carries a statement about
 * its own contents. At the start the tree is one leaf with that sum, and a survey of it puts finer leaves in its
 * place: if what it read adds up to something else, the store lost or changed records unnoticed. Then the tree says
 * what is there, everything in that range is suspect, and this doubt is stored, too, until a peer's equal root
 * removes it (reconcile.ts). A clean stop stores the leaves; the first batch after the next start removes them.
 *
 * The tree changes only once a batch is written. What is needed for that, the hashes of its rows and of those that
 * they replace, is kept with the batch.
 */
import type { Core } from './core.js';
import { type Change, changesOf, decodeRoot, encodeRoot } from './digest-changes.js';
import { DigestSum } from './digest-sum.js';
import { DigestTree, LEAF_KEYS_MAX, Leaf } from './digest-tree.js';
import { endOf } from './entry.js';
import { digestEntry, type EntryDigest } from './entry-hash.js';
import { compareKeys } from './key-order.js';
import { Survey, type SurveyOrder } from './survey.js';
import type { KeyShare, Records } from './types.js';
import type { Batch } from './write-queue.js';

const META_ROOT = 'digest';
const META_LEAVES = 'digest-leaves';
/** Leaves that have grown are cut when the node has been at rest for this long, ms. */
const GROWN_MS = 250;
/** A leaf with this many keys is cut although the node is busy, if there was no rest for so long, ms. */
const LEAF_KEYS_URGENT = 8 * LEAF_KEYS_MAX;
const URGENT_MS = 30_000;
/** A survey that failed is tried again after this long, ms. */
const RETRY_MS = 2_000;
/** A leaf with a record that was damaged is read anew after this long, or when nothing is lost any more, ms. */
const RECHECK_MS = 250;
/** Surveys that wait for their turn. */
const ORDERS_MAX = 64;

export interface DigestView {
  keys: number;
  /** Both sums of all entries, 64 hex digits; empty while they are not known. */
  root: string;
  leaves: number;
  /** Share of the store that the build at the start has read, 0 to 100. */
  builtPercent: number;
  /** Evidence that records were lost or changed, and no peer has vouched for all being well since. */
  doubt: boolean;
  /** No range waits to be read anew because of damage: the root says what there is. */
  settled: boolean;
}

export class Digest {
  readonly #core: Core;
  /** What batches that are on their way add to the root. */
  readonly #coming = new DigestSum();
  #tree = new DigestTree();
  /** Whether the root is known: it is stored, or the store was read through. */
  #known = false;
  /** Whether the store was read through, or was closed in order. */
  #built = false;
  /** The store was read through since it was opened, or was empty then. */
  #read = false;
  #doubt = false;
  /** Leaves may be suspect. */
  #anySuspect = false;
  /** What is stored about the digest is to be stored anew. */
  #dirty = false;
  /** The store holds leaves of a clean stop. */
  #checkpointed = false;
  #survey: Survey | undefined;
  readonly #orders: SurveyOrder[] = [];
  readonly #grown = new Set<Leaf>();
  /** A record in them was damaged: to be read anew once everything that is known to be lost is healed. */
  readonly #doubtful = new Set<Leaf>();
  #scans = 0;
  #growthDueAt = Number.NEGATIVE_INFINITY;
  /** From when on leaves are cut although the node is busy. */
  #urgentFrom = Number.NEGATIVE_INFINITY;
  #notBefore = Number.NEGATIVE_INFINITY;

  constructor(core: Core) {
    this.#core = core;
    const { meta, heads, tops } = core.deps.recovered;
    this.#checkpointed = meta.has(META_LEAVES);
    const stored = decodeRoot(meta.get(META_ROOT));
    if (stored !== undefined) this.#resume(stored.root, stored.doubt, meta.get(META_LEAVES));
    else if (heads.size === 0 && tops.size === 0) {
      this.#known = true;
      this.#built = true;
      this.#read = true;
      const whole = new Leaf('', true);
      whole.proved = true;
      this.#tree = new DigestTree([whole]);
    }
  }

  get tree(): DigestTree {
    return this.#tree;
  }

  /** Whether the tree speaks for the whole store. */
  get built(): boolean {
    return this.#built;
  }

  get hasDoubt(): boolean {
    return this.#doubt;
  }

  /** All of the store was read since it was opened, rather than vouched for by the last stop. */
  get wasRead(): boolean {
    return this.#built && this.#read;
  }

  /** No range of keys is suspect: the short answer for all of them. */
  get isSound(): boolean {
    return this.#built && !this.#anySuspect && this.#doubtful.size === 0;
  }

  /** Whether the root says what there is: no leaf waits to be read anew because of damage. */
  get isSettled(): boolean {
    return this.#built && this.#doubtful.size === 0 && this.#core.heal.lost === 0;
  }

  get view(): DigestView {
    const { root, size } = this.#tree;
    const read = this.#built ? 1 : (this.#survey?.keys ?? 0) / Math.max(1, root.count);
    return {
      keys: root.count,
      root: this.#known ? root.hex : '',
      leaves: size,
      builtPercent: this.#known || this.#built ? Math.min(100, Math.floor(read * 100)) : 0,
      doubt: this.#doubt,
      settled: this.isSettled,
    };
  }

  /** How many entries its leaves hold, by their last keys: none while the tree does not speak for the store. */
  get shares(): KeyShare[] {
    if (!this.#built) return [];
    const leaves = [...this.#tree.leaves()];
    return leaves.map(({ count }, i) => ({ key: leaves[i + 1]?.after ?? '', count }));
  }

  isProved(key: string): boolean {
    if (!this.#built) return false;
    const leaf = this.#tree.leafOf(key);
    return leaf.proved && !leaf.suspect && !this.#doubtful.has(leaf);
  }

  /** Local evidence that this key's record may be lost, so that its absence says nothing. */
  isSuspect(key: string): boolean {
    if (!this.#built) return true;
    const leaf = this.#tree.leafOf(key);
    return leaf.suspect || this.#doubtful.has(leaf);
  }

  /** The same of records with keys above `after`, up to `until`. */
  isSuspectWithin(after: string, until: string | undefined): boolean {
    if (!this.#built) return true;
    if (this.isSound) return false;
    for (const leaf of this.#tree.overlapping(after, until))
      if (leaf.suspect || this.#doubtful.has(leaf)) return true;
    return false;
  }

  /** Something is known to be wrong with this key's range; unlike `isSuspect`, not while it is merely not read yet. */
  isDamaged(key: string): boolean {
    return this.#built ? this.isSuspect(key) : this.#doubt || !this.#known;
  }

  start(): void {
    if (!this.#built) this.#core.timers.set('digest', this.#core.now.mono);
  }

  /** A peer has the same root at the same vector. */
  proved(): void {
    if (!this.#built) return;
    for (const leaf of this.#tree.leaves()) {
      leaf.proved = true;
      leaf.suspect = false;
    }
    this.#anySuspect = false;
    if (!this.#doubt) return;
    this.#doubt = false;
    this.#core.log('info', 'digest-proved');
    this.#core.emit({ type: 'state' });
    this.#store();
  }

  issue(): { code: string; message: string } | undefined {
    if (!this.#doubt) return undefined;
    return {
      code: 'DAMAGED',
      message:
        'the store lost or changed records unnoticed: they are fetched from the other members (see `readmesh verify`)',
    };
  }

  // Batches.

  /** The batch changes no more: what it will have made of the root is stored with it. In order of batches. */
  bind(batch: Batch): void {
    const { rows, removals, mended } = batch;
    if (mended.size === 0) foresee(batch);
    else foreseeMended(batch);
    this.#coming.addSum(batch.rootDelta);
    if (this.#known && (rows.size > 0 || removals.size > 0 || mended.size > 0 || this.#dirty)) {
      const root = this.#tree.root.copy();
      root.addSum(this.#coming);
      batch.meta.set(META_ROOT, encodeRoot(root, this.#doubt));
      this.#dirty = false;
    }
    if (!this.#checkpointed || batch.meta.has(META_LEAVES)) return;
    batch.meta.set(META_LEAVES, null);
    this.#checkpointed = false;
  }

  landed(batch: Batch): void {
    const { changes, rows, removals, rootDelta } = batch;
    this.#coming.subtractSum(rootDelta);
    this.#tree.root.addSum(rootDelta);
    if (changes !== undefined) this.#landedMended(changes);
    else {
      rows.forEach(({ row, oldDigest, newDigest }, key) => {
        this.#survey?.landed(key, oldDigest, newDigest);
        const leaf = this.#change(key, oldDigest, newDigest);
        if (newDigest?.mortal === true) leaf.earliest = Math.min(leaf.earliest, endOf(row)!);
      });
      for (const [key, row] of removals) {
        const old = digestEntry(key, row);
        this.#survey?.landed(key, old, undefined);
        this.#change(key, old, undefined);
      }
    }
    if (this.#grown.size === 0 || !this.#built) return;
    const { timers, now } = this.#core;
    this.#growthDueAt = now.mono + GROWN_MS;
    timers.atMost('digest', this.#growthDueAt);
  }

  #landedMended(changes: readonly Change[]): void {
    for (const { key, old, now, read, mended } of changes) {
      this.#survey?.landed(key, read, now);
      if (mended !== undefined) this.#recheck(key, mended === 'unknown');
      if (mended === 'unknown') continue;
      const leaf = this.#change(key, old, now);
      if (now?.mortal === true) leaf.earliest = 0;
    }
  }

  #change(key: string, old: EntryDigest | undefined, now: EntryDigest | undefined): Leaf {
    const leaf = this.#tree.changeLeaf(key, old, now);
    if (leaf.count <= LEAF_KEYS_MAX) return leaf;
    if (this.#grown.size === 0) this.#urgentFrom = this.#core.now.mono + URGENT_MS;
    this.#grown.add(leaf);
    return leaf;
  }

  /** The store is about to be filled in order of keys, from each of these on at the same time. */
  filledFrom(keys: readonly string[]): void {
    if (this.#built) this.#tree.cutEmpty(keys);
  }

  /** The node stops in order: the leaves are stored, for the next start. */
  checkpoint(): void {
    this.#core.afterWritten(() => {
      if (!this.isSettled || this.#survey !== undefined || this.#core.identity.phase === 'failed') return;
      const { queue } = this.#core;
      this.#tree.merge();
      queue.seal();
      queue.batch().meta.set(META_LEAVES, this.#tree.encode());
      this.#checkpointed = true;
      this.#dirty = true;
    });
  }

  // Surveys.

  /** False when too many wait already. */
  order(order: SurveyOrder): boolean {
    if (this.#orders.length >= ORDERS_MAX) return false;
    this.#orders.push(order);
    this.#core.timers.atMost('digest', this.#core.now.mono);
    return true;
  }

  /** The record of the key is damaged, so that others near it may be, too. */
  damaged(key: string): void {
    this.#recheck(key, false);
  }

  /** What is stored about the digest is to be stored anew: it was found damaged. */
  rewrite(): void {
    if (this.#known) this.#store();
  }

  #setDoubtful(key: string): void {
    const leaf = this.#tree.leafOf(key);
    leaf.unknown = true;
    leaf.last = undefined;
    this.#doubtful.add(leaf);
    this.#notBefore = this.#core.now.mono + RECHECK_MS;
  }

  /** `unknown`: the sum of the leaf has a lost record in it, or lacks what took its place. */
  #recheck(key: string, unknown: boolean): void {
    const leaf = this.#tree.leafOf(key);
    if (unknown) leaf.unknown = true;
    // It is not cut by what is written to it: it is read anew as it is.
    leaf.last = undefined;
    if (!this.#built) return;
    this.#doubtful.add(leaf);
    const { timers, now } = this.#core;
    timers.atMost('digest', now.mono + RECHECK_MS);
  }

  /** Goes on with what is due. */
  tick(): void {
    const { timers, now, identity } = this.#core;
    if (identity.phase === 'failed') return;
    if (this.#survey !== undefined) return this.#survey.poll();
    if (now.mono < this.#notBefore) return timers.atMost('digest', this.#notBefore);
    const order = this.#nextOrder();
    if (order === undefined) return;
    this.#survey = new Survey(
      this.#core,
      order,
      () => --this.#scans,
      (survey, failed) => {
        if (failed) this.#failed(survey);
        else this.#done(survey);
      },
    );
  }

  /** Whether the scan is one of a survey. Those of sessions have positive numbers. */
  owns(scan: number): boolean {
    return scan < 0;
  }

  scanOpened(scan: number): void {
    if (this.#survey?.owns(scan) !== true) return this.#core.emit({ type: 'close-scan', scan });
    this.#survey.opened();
  }

  scanRead(scan: number, records: Records, last: boolean, damaged: readonly string[] = []): void {
    const survey = this.#survey;
    if (survey?.owns(scan) !== true) return;
    survey.read(records, last, damaged);
    for (const key of damaged) this.#core.heal.damaged(key);
    this.#survey?.poll();
  }

  scanFailed(scan: number, message: string): void {
    if (this.#survey?.owns(scan) !== true) return;
    this.#core.log('warn', 'survey-failed', { message });
    this.#survey.failed();
  }

  #resume(root: DigestSum, doubt: boolean, leaves: Uint8Array | undefined): void {
    this.#known = true;
    this.#doubt = doubt;
    this.#anySuspect = doubt;
    const tree = leaves === undefined ? undefined : DigestTree.decode(leaves);
    if (tree?.root.equals(root) === true) {
      this.#tree = tree;
      this.#built = true;
      for (const { suspect } of tree.leaves()) this.#anySuspect ||= suspect;
      return;
    }
    const whole = new Leaf('');
    whole.addSum(root);
    whole.suspect = doubt;
    whole.earliest = 0;
    this.#tree = new DigestTree([whole]);
  }

  #nextOrder(): SurveyOrder | undefined {
    if (!this.#built) return { after: '', to: undefined, cuts: [] };
    const order = this.#orders.shift();
    if (order !== undefined) return this.#aligned(order);
    const { timers, now, queue, heal } = this.#core;
    for (const leaf of this.#doubtful) {
      if (this.#tree.leafAt(leaf.after) !== leaf) {
        this.#doubtful.delete(leaf);
        continue;
      }
      if (heal.lost === 0) return { after: leaf.after, to: this.#tree.endOfLeafAt(leaf.after), cuts: [] };
      timers.atMost('digest', now.mono + RECHECK_MS);
      break;
    }
    const rested = queue.last() === undefined && now.mono >= this.#growthDueAt;
    const urgent = now.mono >= this.#urgentFrom;
    for (const leaf of this.#grown) {
      if (leaf.count <= LEAF_KEYS_MAX || this.#tree.leafAt(leaf.after) !== leaf) {
        this.#grown.delete(leaf);
        continue;
      }
      if (!rested && !(urgent && leaf.count >= LEAF_KEYS_URGENT)) continue;
      this.#grown.delete(leaf);
      return { after: leaf.after, to: this.#tree.endOfLeafAt(leaf.after), cuts: [] };
    }
    if (urgent) this.#urgentFrom = now.mono + URGENT_MS;
    if (this.#grown.size > 0) timers.atMost('digest', now.mono + GROWN_MS);
    return undefined;
  }

  /** The order as the leaves lie now: from the bound at or below its begin to the one at or above its end. */
  #aligned(order: SurveyOrder): SurveyOrder {
    const { after, to, cuts } = order;
    const tree = this.#tree;
    const cutSet = [...cuts];
    let from = after;
    let end = to;
    if (!tree.isBound(after)) {
      from = tree.leafOf(after).after;
      cutSet.push(after);
    }
    if (to !== undefined && !tree.isBound(to)) {
      end = tree.endOf(to);
      cutSet.push(to);
    }
    if (from === after && end === to) return order;
    return { ...order, after: from, to: end, cuts: cutSet.sort(compareKeys) };
  }

  #failed(survey: Survey): void {
    const { timers, now } = this.#core;
    this.#survey = undefined;
    this.#notBefore = now.mono + RETRY_MS;
    survey.order.onFailed?.();
    timers.atMost('digest', this.#notBefore);
  }

  #done(survey: Survey): void {
    const { after, to } = survey.order;
    this.#survey = undefined;
    const tree = this.#tree;
    const old = tree.within(after, to);
    const expected = tree.sum(after, to)!;
    const actual = survey.total;
    const agrees = !this.#known || expected.equals(actual);
    const first = !this.#built;
    const proved = agrees && this.#known && (first ? !this.#doubt : old.every((leaf) => leaf.proved));
    const suspect = !agrees || old.some((leaf) => leaf.suspect);
    for (const leaf of survey.leaves) {
      leaf.proved = proved;
      leaf.suspect = suspect;
    }
    tree.replace(after, to, survey.leaves);
    this.#anySuspect ||= suspect;
    for (const leaf of old) this.#doubtful.delete(leaf);
    // What could not be read is in no sum: the leaf is read again when it is healed.
    for (const key of survey.damaged) this.#setDoubtful(key);
    if (first) this.#read = true;
    // What a lost record was may never be known; beyond a leaf, that is no reason to believe what is found.
    const isUnknown = !first && old.some((leaf) => leaf.unknown);
    if (!this.#known || (!agrees && isUnknown)) this.#store();
    this.#known = true;
    this.#built = true;
    if (!agrees && !isUnknown) this.#disagrees(survey, expected, actual);
    survey.order.onDone?.();
    this.#core.timers.atMost('digest', this.#core.now.mono);
  }

  #disagrees(survey: Survey, expected: DigestSum, actual: DigestSum): void {
    const { counters } = this.#core;
    const { after, to } = survey.order;
    counters.digestDamages += 1;
    this.#doubt = true;
    this.#core.log('error', 'digest-disagrees', {
      after,
      to: to ?? '',
      expected: expected.count,
      found: actual.count,
      damaged: survey.damaged.length,
      message: 'the store does not hold what it should: it is compared with the other members',
    });
    this.#core.emit({ type: 'state' });
    this.#store();
  }

  /** What is stored about the digest changed: a batch carries it, if there is nothing else to be written. */
  #store(): void {
    if (this.#core.identity.phase === 'failed') return;
    this.#dirty = true;
    this.#core.queue.batch();
  }
}

/** What the batch will have made of the sums. */
function foresee({ rows, removals, rootDelta }: Batch): void {
  // Batches are walked by `forEach`, which unlike an iterator allocates nothing for each row.
  rows.forEach((queued, key) => {
    const { row, replaced } = queued;
    queued.newDigest = digestEntry(key, row);
    rootDelta.add(queued.newDigest);
    if (replaced === undefined) return;
    queued.oldDigest = digestEntry(key, replaced);
    rootDelta.remove(queued.oldDigest);
  });
  for (const [key, row] of removals) rootDelta.remove(digestEntry(key, row));
}

function foreseeMended(batch: Batch): void {
  batch.changes = changesOf(batch);
  for (const { old, now, mended } of batch.changes) {
    if (mended === 'unknown') continue;
    if (old !== undefined) batch.rootDelta.remove(old);
    if (now !== undefined) batch.rootDelta.add(now);
  }
}
