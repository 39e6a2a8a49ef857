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
import { DigestSum, SUM_BYTES } from './digest-sum.js';
import { DigestTree, LEAF_KEYS_MAX, Leaf } from './digest-tree.js';
import { digestEntry, type EntryDigest } from './entry-hash.js';
import { compareKeys } from './key-order.js';
import { Survey, type SurveyOrder } from './survey.js';
import type { Records } from './types.js';
import type { Batch } from './write-queue.js';

const META_ROOT = 'digest';
const META_LEAVES = 'digest-leaves';
const FLAG_DOUBT = 1;
/** Leaves that have grown are cut when the node has been at rest for this long, ms. */
const GROWN_MS = 250;
/** A leaf with this many keys is cut although the node is busy. */
const LEAF_KEYS_URGENT = 8 * LEAF_KEYS_MAX;
/** A survey that failed is tried again after this long, ms. */
const RETRY_MS = 2_000;
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
  #doubt = false;
  /** What is stored about the digest is to be stored anew. */
  #dirty = false;
  /** The store holds leaves of a clean stop. */
  #checkpointed = false;
  #survey: Survey | undefined;
  readonly #orders: SurveyOrder[] = [];
  readonly #grown = new Set<Leaf>();
  #scans = 0;
  #growthDueAt = Number.NEGATIVE_INFINITY;
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
      for (const leaf of this.#tree.leaves()) leaf.proved = true;
    }
  }

  get tree(): DigestTree {
    return this.#tree;
  }

  /** Whether the tree speaks for the whole store. */
  get built(): boolean {
    return this.#built;
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
    };
  }

  isProved(key: string): boolean {
    return this.#built && this.#tree.leafOf(key).proved;
  }

  /** Local evidence that this key's record may be lost, so that its absence says nothing. */
  isSuspect(key: string): boolean {
    return !this.#built || this.#tree.leafOf(key).suspect;
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
    for (const [key, queued] of batch.rows) {
      const { row, replaced } = queued;
      queued.newDigest = digestEntry(key, row);
      this.#coming.add(queued.newDigest);
      if (replaced === undefined) continue;
      queued.oldDigest = digestEntry(key, replaced);
      this.#coming.remove(queued.oldDigest);
    }
    for (const [key, row] of batch.removals) this.#coming.remove(digestEntry(key, row));
    if (this.#known && (batch.rows.size > 0 || batch.removals.size > 0 || this.#dirty)) {
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
    for (const [key, { oldDigest, newDigest }] of batch.rows) this.#change(key, oldDigest, newDigest);
    for (const [key, row] of batch.removals) this.#change(key, digestEntry(key, row), undefined);
    if (this.#grown.size === 0 || !this.#built) return;
    const { timers, now } = this.#core;
    this.#growthDueAt = now.mono + GROWN_MS;
    timers.atMost('digest', this.#growthDueAt);
  }

  #change(key: string, old: EntryDigest | undefined, now: EntryDigest | undefined): void {
    if (old !== undefined) this.#coming.add(old);
    if (now !== undefined) this.#coming.remove(now);
    const leaf = this.#tree.change(key, old, now);
    if (leaf.count > LEAF_KEYS_MAX) this.#grown.add(leaf);
    this.#survey?.landed(key, old, now);
  }

  /** The node stops in order: the leaves are stored, for the next start. */
  checkpoint(): void {
    this.#core.afterWritten(() => {
      if (!this.#built || this.#survey !== undefined || this.#core.identity.phase === 'failed') return;
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

  /** Records of these keys failed their checksum when they were looked up. */
  damaged(keys: readonly string[]): void {
    if (!this.#built) return;
    for (const key of keys) {
      const { after } = this.#tree.leafOf(key);
      if (!this.#orders.some((order) => order.after === after)) this.#orderLeaf(after);
    }
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
    const tree = leaves === undefined ? undefined : DigestTree.decode(leaves);
    if (tree?.root.equals(root) === true) {
      this.#tree = tree;
      this.#built = true;
      return;
    }
    const whole = new Leaf('');
    whole.addSum(root);
    whole.suspect = doubt;
    this.#tree = new DigestTree([whole]);
  }

  #nextOrder(): SurveyOrder | undefined {
    if (!this.#built) return { after: '', to: undefined, cuts: [] };
    const order = this.#orders.shift();
    if (order !== undefined) return this.#aligned(order);
    const { timers, now, queue } = this.#core;
    const rested = queue.tail() === undefined && now.mono >= this.#growthDueAt;
    for (const leaf of this.#grown) {
      if (leaf.count <= LEAF_KEYS_MAX || this.#tree.leafAt(leaf.after) !== leaf) {
        this.#grown.delete(leaf);
        continue;
      }
      if (!rested && leaf.count < LEAF_KEYS_URGENT) continue;
      this.#grown.delete(leaf);
      return { after: leaf.after, to: this.#tree.endOfLeafAt(leaf.after), cuts: [] };
    }
    if (this.#grown.size > 0) timers.atMost('digest', now.mono + GROWN_MS);
    return undefined;
  }

  #orderLeaf(after: string): void {
    this.order({ after, to: this.#tree.endOfLeafAt(after), cuts: [] });
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
    if (!this.#known) this.#store();
    this.#known = true;
    this.#built = true;
    if (!agrees) this.#disagrees(survey, expected, actual);
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

function encodeRoot(root: DigestSum, doubt: boolean): Uint8Array {
  const bytes = new Uint8Array(1 + SUM_BYTES);
  bytes[0] = doubt ? FLAG_DOUBT : 0;
  root.write(bytes, 1);
  return bytes;
}

function decodeRoot(bytes: Uint8Array | undefined): { root: DigestSum; doubt: boolean } | undefined {
  if (bytes?.length !== 1 + SUM_BYTES) return undefined;
  return { root: DigestSum.read(bytes, 1), doubt: (bytes[0]! & FLAG_DOUBT) !== 0 };
}
