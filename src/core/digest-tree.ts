/**
 * The digest over the key space: leaves in order of keys, each a range of about `LEAF_KEYS` keys with the digest of
 * its entries (digest-sum.ts); their total is the root. The keys themselves stay on disk.
 *
 * A leaf covers (after, next leaf's after]: keys above its bound up to and including that of the next; the first
 * bound is the empty text, which is below every key, and the last leaf has no end. Leaves hold no keys, so one
 * cannot be cut by itself: whoever scans its range (survey.ts) puts finer leaves in its place. Where leaves lie is
 * each replica's own affair, since sums of ranges are compared, and any range can be summed once the leaves at its
 * ends are cut there.
 *
 * Two levels: leaves stand in blocks of at most `BLOCK_LEAVES_MAX`, each with its own total. A change touches one
 * leaf and the root, and the root of many changes at once needs only their sum; the total of a block is made when it
 * is asked for. A range is summed over whole blocks and the leaves at its two ends; finding a leaf is two binary
 * searches. A million keys are 2,000 leaves of about 200 bytes.
 */
import { BoundIndex } from './bound-index.js';
import { DigestSum, SUM_BYTES } from './digest-sum.js';
import type { EntryDigest } from './entry-hash.js';
import { compareKeys } from './key-order.js';

/** Keys of a new leaf. */
export const LEAF_KEYS = 512;
/** A leaf with more is to be cut. */
export const LEAF_KEYS_MAX = 1_024;
const BLOCK_LEAVES_MAX = 128;

export class Leaf extends DigestSum {
  /** Keys above this one belong to it. */
  readonly after: string;
  /** Equal to a peer's since opening, or known to be intact from before. */
  proved = false;
  /** Local evidence that something in it was lost or changed, until a peer's equal digest clears it. */
  suspect = false;
  /** A record in it was lost, and nobody knows which: its sum says nothing until it is read anew. Not stored. */
  unknown = false;
  /** No key in it is above this one; undefined: nobody knows. Not stored. */
  last: string | undefined;
  /** No mortal entry of it is over before this time, ms; 0: nobody knows. Not stored. */
  earliest = Number.POSITIVE_INFINITY;

  /** `isEmpty`: it is known to hold nothing yet. */
  constructor(after: string, isEmpty = false) {
    super();
    this.after = after;
    if (isEmpty) this.last = after;
  }

  /** Adds an entry that is not in it. `end`: when it is over, if it is a mortal one, ms; 0: nobody knows. */
  put(key: string, digest: EntryDigest, end = 0): void {
    this.add(digest);
    if (digest.mortal) this.earliest = Math.min(this.earliest, end);
    if (this.last !== undefined && compareKeys(key, this.last) > 0) this.last = key;
  }
}

interface Block {
  readonly leaves: readonly Leaf[];
  /** Of the leaves; undefined when one of them has changed since it was last asked for. */
  total: DigestSum | undefined;
  /** Made when it is first needed. */
  index: BoundIndex | undefined;
}

interface Place {
  readonly block: number;
  readonly leaf: number;
}

/** A leaf, and where it ends. */
interface Found {
  readonly block: Block;
  readonly leaf: Leaf;
  readonly end: string | undefined;
}

export class DigestTree {
  readonly root = new DigestSum();
  #blocks: Block[];
  /** Of the blocks' first bounds; made when it is first needed. */
  #index: BoundIndex | undefined;
  /** What changed last: keys come in runs. */
  #near: Found | undefined;

  /** `leaves`: in order, the first one's bound being where the tree begins. */
  constructor(leaves: readonly Leaf[] = [new Leaf('')]) {
    this.#blocks = blocksOf(leaves);
    for (const block of this.#blocks) this.root.addSum(totalOf(block));
  }

  get size(): number {
    let size = 0;
    for (const { leaves } of this.#blocks) size += leaves.length;
    return size;
  }

  *leaves(): Generator<Leaf> {
    for (const { leaves } of this.#blocks) yield* leaves;
  }

  /** Leaves from the one on that holds the keys just above `bound`. */
  *leavesFrom(bound: string): Generator<Leaf> {
    let { block, leaf } = this.#startingAt(bound) ?? this.#find(bound);
    const blocks = this.#blocks;
    for (; block < blocks.length; block++, leaf = 0)
      for (; leaf < blocks[block]!.leaves.length; leaf++) yield blocks[block]!.leaves[leaf]!;
  }

  leafOf(key: string): Leaf {
    const { block, leaf } = this.#find(key);
    return this.#blocks[block]!.leaves[leaf]!;
  }

  /**
   * What the key had goes, what it has comes; either may be nothing. Returns the leaf. A key above all that are in a
   * full leaf begins a new one: what is loaded in order of keys leaves nothing to be cut.
   */
  change(key: string, old: EntryDigest | undefined, now: EntryDigest | undefined): Leaf {
    if (old !== undefined) this.root.remove(old);
    if (now !== undefined) this.root.add(now);
    return this.changeLeaf(key, old, now);
  }

  /** The same but for the root, which is to be told of many such changes at once, by their sum. */
  changeLeaf(key: string, old: EntryDigest | undefined, now: EntryDigest | undefined): Leaf {
    let found = this.#nearest(key);
    const { last } = found.leaf;
    if (old === undefined && last !== undefined && compareKeys(key, last) > 0) {
      if (found.leaf.count >= LEAF_KEYS && !found.leaf.suspect) {
        this.#insert(this.#find(key), new Leaf(last, true));
        found = this.#nearest(key);
      }
      found.leaf.last = key;
    }
    const { block, leaf } = found;
    block.total = undefined;
    if (old !== undefined) leaf.remove(old);
    if (now !== undefined) leaf.add(now);
    return leaf;
  }

  /** Where the leaf that holds this key ends: its greatest possible key, or undefined for the last leaf. */
  endOf(key: string): string | undefined {
    const { block, leaf } = this.#find(key);
    return this.#boundAfter(block, leaf);
  }

  /** The leaf whose bound this is. */
  leafAt(bound: string): Leaf | undefined {
    const place = this.#startingAt(bound);
    return place === undefined ? undefined : this.#blocks[place.block]?.leaves[place.leaf];
  }

  /** Where the leaf with this bound ends; undefined: nowhere. */
  endOfLeafAt(bound: string): string | undefined {
    const place = this.#startingAt(bound);
    return place === undefined ? undefined : this.#boundAfter(place.block, place.leaf);
  }

  /** Whether a leaf begins behind this bound, so that ranges may begin or end there. */
  isBound(bound: string): boolean {
    if (bound === this.#blocks[0]!.leaves[0]!.after) return true;
    return this.endOf(bound) === bound;
  }

  /** Digest of (after, to]; undefined `to`: to the end. Both must be bounds; undefined when one is not. */
  sum(after: string, to: string | undefined): DigestSum | undefined {
    const from = this.#startingAt(after);
    const end = to === undefined ? { block: this.#blocks.length, leaf: 0 } : this.#startingAt(to);
    if (from === undefined || end === undefined) return undefined;
    const out = new DigestSum();
    let { block, leaf } = from;
    while (block < end.block || (block === end.block && leaf < end.leaf)) {
      const { leaves } = this.#blocks[block]!;
      if (leaf === 0 && block < end.block) {
        out.addSum(totalOf(this.#blocks[block]!));
        block += 1;
        continue;
      }
      out.addSum(leaves[leaf]!);
      leaf += 1;
      if (leaf < leaves.length) continue;
      block += 1;
      leaf = 0;
    }
    return out;
  }

  /** Leaves that hold keys of (after, to], in order, wherever they begin. */
  *overlapping(after: string, to: string | undefined): Generator<Leaf> {
    let { block, leaf } = this.#find(after);
    // A bound belongs to the leaf before it, which then holds none of the range.
    if (this.#boundAfter(block, leaf) === after) leaf += 1;
    for (; block < this.#blocks.length; block++, leaf = 0)
      for (; leaf < this.#blocks[block]!.leaves.length; leaf++) {
        const next = this.#blocks[block]!.leaves[leaf]!;
        if (to !== undefined && compareKeys(next.after, to) >= 0) return;
        yield next;
      }
  }

  /** Leaves of (after, to], in order. Both must be bounds. */
  within(after: string, to: string | undefined): Leaf[] {
    const out: Leaf[] = [];
    const from = this.#startingAt(after);
    if (from === undefined) return out;
    let { block, leaf } = from;
    for (; block < this.#blocks.length; block++, leaf = 0)
      for (; leaf < this.#blocks[block]!.leaves.length; leaf++) {
        const next = this.#blocks[block]!.leaves[leaf]!;
        if (to !== undefined && compareKeys(next.after, to) >= 0) return out;
        out.push(next);
      }
    return out;
  }

  /** Puts other leaves in the place of those of (after, to], both bounds; the first of them begins at `after`. */
  replace(after: string, to: string | undefined, leaves: readonly Leaf[]): void {
    const from = this.#startingAt(after)!;
    const end =
      to === undefined
        ? { block: this.#blocks.length - 1, leaf: this.#blocks.at(-1)!.leaves.length }
        : this.#startingAt(to)!;
    for (const old of this.within(after, to)) this.root.subtractSum(old);
    for (const leaf of leaves) this.root.addSum(leaf);
    const before = this.#blocks[from.block]!.leaves.slice(0, from.leaf);
    const behind = this.#blocks[end.block]!.leaves.slice(end.leaf);
    const blocks = blocksOf([...before, ...leaves, ...behind]);
    this.#blocks.splice(from.block, end.block - from.block + 1, ...blocks);
    this.#moved();
  }

  /** Cuts leaves that hold nothing at these keys, in order: those that are filled from several places at once. */
  cutEmpty(keys: readonly string[]): void {
    for (const key of keys) {
      const place = this.#find(key);
      const leaf = this.#blocks[place.block]!.leaves[place.leaf]!;
      if (leaf.count !== 0 || leaf.last !== leaf.after || this.#boundAfter(place.block, place.leaf) === key)
        continue;
      this.#insert(place, new Leaf(key, true));
    }
  }

  /** Joins neighbours that are small together. Those that are to be told apart stay. */
  merge(): void {
    const merged: Leaf[] = [];
    let changed = false;
    for (const leaf of this.leaves()) {
      const last = merged.at(-1);
      const fits =
        last !== undefined &&
        last.proved === leaf.proved &&
        last.suspect === leaf.suspect &&
        last.count + leaf.count <= LEAF_KEYS / 2;
      if (fits) {
        // A leaf in the list may be the tree's own: its block still counts it until it is replaced.
        last.addSum(leaf);
        last.last = leaf.last;
        last.earliest = Math.min(last.earliest, leaf.earliest);
        changed = true;
      } else merged.push(leaf);
    }
    if (!changed) return;
    this.#blocks = blocksOf(merged);
    this.#moved();
  }

  /** The leaves as they are, in a few bytes each. */
  encode(): Uint8Array {
    const parts: number[] = [];
    const sum = new Uint8Array(SUM_BYTES);
    for (const leaf of this.leaves()) {
      leaf.write(sum);
      parts.push(
        (leaf.proved ? 1 : 0) | (leaf.suspect ? 2 : 0),
        leaf.after.length >> 8,
        leaf.after.length & 255,
      );
      for (let i = 0; i < leaf.after.length; i++) {
        const unit = leaf.after.charCodeAt(i);
        parts.push(unit >> 8, unit & 255);
      }
      for (const byte of sum) parts.push(byte);
    }
    return Uint8Array.from(parts);
  }

  /** What `encode` wrote; undefined when it is anything else. */
  static decode(bytes: Uint8Array): DigestTree | undefined {
    const leaves: Leaf[] = [];
    let at = 0;
    while (at < bytes.length) {
      const flags = bytes[at]!;
      const length = (bytes[at + 1]! << 8) | bytes[at + 2]!;
      const end = at + 3 + 2 * length + SUM_BYTES;
      if (Number.isNaN(length) || end > bytes.length) return undefined;
      let after = '';
      for (let i = at + 3; i < at + 3 + 2 * length; i += 2)
        after += String.fromCharCode((bytes[i]! << 8) | bytes[i + 1]!);
      const last = leaves.at(-1);
      if (last === undefined ? after !== '' : compareKeys(last.after, after) >= 0) return undefined;
      const leaf = new Leaf(after);
      leaf.proved = (flags & 1) !== 0;
      leaf.suspect = (flags & 2) !== 0;
      leaf.addSum(DigestSum.read(bytes, end - SUM_BYTES));
      leaf.earliest = 0;
      leaves.push(leaf);
      at = end;
    }
    return leaves.length === 0 ? undefined : new DigestTree(leaves);
  }

  #nearest(key: string): Found {
    const near = this.#near;
    if (near !== undefined && compareKeys(key, near.leaf.after) > 0)
      if (near.end === undefined || compareKeys(key, near.end) <= 0) return near;
    const { block, leaf } = this.#find(key);
    const blockOf = this.#blocks[block]!;
    this.#near = { block: blockOf, leaf: blockOf.leaves[leaf]!, end: this.#boundAfter(block, leaf) };
    return this.#near;
  }

  #moved(): void {
    this.#index = undefined;
    this.#near = undefined;
  }

  /** The leaf comes behind the one at this place. */
  #insert({ block, leaf }: Place, next: Leaf): void {
    const leaves = [...this.#blocks[block]!.leaves];
    next.proved = leaves[leaf]!.proved;
    leaves.splice(leaf + 1, 0, next);
    this.#blocks.splice(block, 1, ...blocksOf(leaves));
    this.#moved();
  }

  #find(key: string): Place {
    const block = this.#blockOf(key);
    return { block, leaf: leafWithin(this.#blocks[block]!, key) };
  }

  #blockOf(key: string): number {
    this.#index ??= new BoundIndex(this.#blocks.map(({ leaves }) => leaves[0]!.after));
    return this.#index.find(key);
  }

  #boundAfter(block: number, leaf: number): string | undefined {
    return (this.#blocks[block]!.leaves[leaf + 1] ?? this.#blocks[block + 1]?.leaves[0])?.after;
  }

  /** The leaf whose bound this is. */
  #startingAt(bound: string): Place | undefined {
    if (bound === this.#blocks[0]!.leaves[0]!.after) return { block: 0, leaf: 0 };
    const { block, leaf } = this.#find(bound);
    if (this.#boundAfter(block, leaf) !== bound) return undefined;
    return leaf + 1 < this.#blocks[block]!.leaves.length
      ? { block, leaf: leaf + 1 }
      : { block: block + 1, leaf: 0 };
  }
}

function leafWithin(block: Block, key: string): number {
  block.index ??= new BoundIndex(block.leaves.map(({ after }) => after));
  return block.index.find(key);
}

/** Which of the leaves, in order, holds the key; the first, if it lies below all of them. */
export function leafIndex(leaves: readonly Leaf[], key: string): number {
  let first = 0;
  let last = leaves.length - 1;
  while (first < last) {
    const middle = (first + last + 1) >> 1;
    if (compareKeys(leaves[middle]!.after, key) < 0) first = middle;
    else last = middle - 1;
  }
  return first;
}

function blocksOf(leaves: readonly Leaf[]): Block[] {
  const blocks: Block[] = [];
  const size = leaves.length <= BLOCK_LEAVES_MAX ? BLOCK_LEAVES_MAX : BLOCK_LEAVES_MAX / 2;
  for (let at = 0; at < leaves.length; at += size) {
    blocks.push({ leaves: leaves.slice(at, at + size), total: undefined, index: undefined });
  }
  return blocks;
}

function totalOf(block: Block): DigestSum {
  if (block.total === undefined) {
    block.total = new DigestSum();
    for (const leaf of block.leaves) block.total.addSum(leaf);
  }
  return block.total;
}
