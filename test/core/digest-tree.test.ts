import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { DigestSum } from '../../src/core/digest-sum.js';
import { DigestTree, LEAF_KEYS, Leaf, leafIndex } from '../../src/core/digest-tree.js';
import { KIND_REGISTER, KIND_TOMBSTONE, makeRow } from '../../src/core/entry.js';
import { digestEntry, type EntryDigest } from '../../src/core/entry-hash.js';
import { compareKeys } from '../../src/core/key-order.js';
import type { Row } from '../../src/core/types.js';

interface Content {
  readonly kind?: number;
  readonly stamp?: number;
  readonly seq?: number;
  readonly expiresAt?: number;
  readonly value?: string;
}

function rowOf(
  key: string,
  { kind = KIND_REGISTER, stamp = 1, seq = 1, expiresAt, value = '' }: Content,
): Row {
  const entry = {
    kind,
    stamp: Buffer.alloc(16, stamp),
    origin: 'ab'.repeat(8),
    seq,
    value: Buffer.from(value),
    ...(expiresAt === undefined ? {} : { expiresAt }),
  };
  return makeRow(key, entry, checksum);
}

const digestOf = (key: string, content: Content): EntryDigest => digestEntry(key, rowOf(key, content));
const text = ({ a, b, c, d }: EntryDigest): string => [a, b, c, d].join();

describe('the hash of an entry', () => {
  test('differs with key, kind, stamp, expiry and value, and never with the dot', () => {
    const base = { stamp: 7, value: 'value', expiresAt: 99 };
    const of = (content: Content, key = 'key'): string => text(digestOf(key, { ...base, ...content }));
    expect(of({ seq: 2 })).toBe(of({ seq: 3 }));
    const others = [
      of({}, 'kez'),
      of({ kind: KIND_TOMBSTONE }),
      of({ stamp: 8 }),
      of({ expiresAt: 98 }),
      of({ expiresAt: 99 + 2 ** 32 }),
      of({ value: 'valuf' }),
      of({ value: 'value\0' }),
      text(digestOf('key', { stamp: 7, value: 'value' })),
    ];
    expect(new Set([of({}), ...others]).size).toBe(others.length + 1);
  });

  test('does not confuse where the key ends and the value begins, nor paddings', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(fc.string({ maxLength: 12, minLength: 1 }), fc.string({ maxLength: 12 })), {
          selector: JSON.stringify,
          maxLength: 60,
        }),
        (pairs) => {
          const hashes = new Set(pairs.map(([key, value]) => text(digestOf(key, { value }))));
          expect(hashes.size).toBe(pairs.length);
        },
      ),
    );
  });

  test('is well mixed: one changed bit changes about half of all bits', () => {
    const bits: number[] = Array(128).fill(0);
    const rounds = 400;
    for (let i = 0; i < rounds; i++) {
      const value = Buffer.from(`some value ${i} of about forty bytes of text`);
      const before = digestOf('a/key', { value: value.toString('latin1') });
      value[i % value.length]! ^= 1 << (i % 7);
      const after = digestOf('a/key', { value: value.toString('latin1') });
      [before.a ^ after.a, before.b ^ after.b, before.c ^ after.c, before.d ^ after.d].forEach(
        (word, lane) => {
          for (let bit = 0; bit < 32; bit++) bits[lane * 32 + bit]! += (word >>> bit) & 1;
        },
      );
    }
    // 400 fair coins: 200, and 10 to the standard deviation.
    for (const flips of bits) expect(Math.abs(flips - rounds / 2)).toBeLessThan(60);
  });

  test('takes a value of any length, also after longer ones', () => {
    const before = text(digestOf('k', { value: 'short' }));
    expect(text(digestOf('k', { value: 'x'.repeat(1_000_000) }))).not.toBe(before);
    expect(text(digestOf('k', { value: 'short' }))).toBe(before);
  });
});

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const anyDigest: fc.Arbitrary<EntryDigest> = fc.record({
  a: word,
  b: word,
  c: word,
  d: word,
  mortal: fc.boolean(),
});

function bigSum(digests: readonly EntryDigest[], mortal: boolean): string {
  let sum = 0n;
  for (const one of digests) {
    if (one.mortal !== mortal) continue;
    sum += BigInt(one.a >>> 0) | (BigInt(one.b >>> 0) << 32n) | (BigInt(one.c >>> 0) << 64n);
    sum += BigInt(one.d >>> 0) << 96n;
  }
  return (sum % 2n ** 128n).toString(16).padStart(32, '0');
}

describe('the digest of a set', () => {
  test('is the sum modulo 2^128 of its hashes, live and mortal apart, and survives its bytes', () => {
    fc.assert(
      fc.property(fc.array(anyDigest), fc.array(anyDigest), (members, others) => {
        const sum = new DigestSum();
        for (const one of [...members, ...others]) sum.add(one);
        for (const one of others) sum.remove(one);
        expect(sum.hex).toBe(bigSum(members, false) + bigSum(members, true));
        expect(sum.count).toBe(members.length);
        const again = DigestSum.read(sum.bytes());
        expect(again.equals(sum)).toBe(true);
        again.subtractSum(sum);
        expect(again.equals(new DigestSum())).toBe(true);
      }),
    );
  });

  test('carries a count that is negative for a while through its bytes', () => {
    const sum = new DigestSum();
    sum.remove({ a: 1, b: 2, c: 3, d: 4, mortal: true });
    const again = DigestSum.read(sum.bytes());
    expect([again.live, again.mortal]).toEqual([0, -1]);
    again.add({ a: 1, b: 2, c: 3, d: 4, mortal: true });
    expect(again.equals(new DigestSum())).toBe(true);
  });
});

/** Keys that JavaScript and the disk order differently are among them. */
const key = fc
  .array(fc.constantFrom('a', 'b', 'z', 'é', '\uff01', '😀', '中'), { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join(''));

test('a key is found in the last leaf whose bound lies below it, however much keys and bounds have in common', () => {
  const long = fc
    .array(fc.constantFrom('a', 'ab', 'b', 'é', '\uff01', '😀'), { maxLength: 8 })
    .map((parts) => parts.join(''));
  fc.assert(
    fc.property(fc.uniqueArray(long, { minLength: 1, maxLength: 40 }), long, (bounds, k) => {
      const leaves = bounds.sort(compareKeys).map((bound) => new Leaf(bound));
      const below = bounds.filter((bound) => compareKeys(bound, k) < 0).length;
      expect(leafIndex(leaves, k)).toBe(Math.max(0, below - 1));
    }),
    { numRuns: 500 },
  );
});

class Model {
  readonly entries = new Map<string, EntryDigest>();

  sum(after: string, to: string | undefined): DigestSum {
    const sum = new DigestSum();
    for (const [k, digest] of this.entries)
      if (compareKeys(k, after) > 0 && (to === undefined || compareKeys(k, to) <= 0)) sum.add(digest);
    return sum;
  }
}

/** Leaves with these bounds, over what the model holds. */
function leavesOf(model: Model, bounds: readonly string[], to?: string): Leaf[] {
  return bounds.map((bound, i) => {
    const leaf = new Leaf(bound);
    leaf.addSum(model.sum(bound, bounds[i + 1] ?? to));
    return leaf;
  });
}

describe('the tree', () => {
  const change = fc.record({ key, value: fc.option(fc.nat(5), { nil: undefined }) });
  const bounds = fc.uniqueArray(key, { maxLength: 40 }).map((keys) => ['', ...keys.sort(compareKeys)]);

  test('agrees with a model, whatever is put, replaced and removed, and wherever its leaves are cut', () => {
    fc.assert(
      fc.property(bounds, bounds, fc.array(change, { maxLength: 80 }), (first, second, changes) => {
        const model = new Model();
        const tree = new DigestTree(leavesOf(model, first));
        changes.forEach(({ key: k, value }, i) => {
          const old = model.entries.get(k);
          const now = value === undefined ? undefined : digestOf(k, { stamp: i % 250, value: `${value}` });
          tree.change(k, old, now);
          if (now === undefined) model.entries.delete(k);
          else model.entries.set(k, now);
          if (i === 40) tree.replace('', undefined, leavesOf(model, second));
        });
        expect(tree.root.equals(model.sum('', undefined))).toBe(true);
        const known = [...tree.leaves()].map((leaf) => leaf.after);
        for (const after of known)
          for (const to of [...known, undefined]) {
            if (to !== undefined && compareKeys(to, after) < 0) continue;
            expect(tree.sum(after, to)!.equals(model.sum(after, to))).toBe(true);
          }
        for (const k of model.entries.keys()) {
          const { after } = tree.leafOf(k);
          expect(compareKeys(after, k)).toBeLessThan(0);
          const end = tree.endOf(k);
          expect(end === undefined || compareKeys(k, end) <= 0).toBe(true);
          expect(tree.endOfLeafAt(after)).toBe(end);
        }
      }),
    );
  });

  describe('that is loaded in order of keys', () => {
    const name = (place: string, i: number): string => `${place}${i.toString().padStart(6, '0')}`;

    function load(tree: DigestTree, model: Model, keys: Iterable<string>): void {
      for (const k of keys) {
        const now = digestOf(k, {});
        tree.change(k, model.entries.get(k), now);
        model.entries.set(k, now);
      }
    }

    function expectToAgree(tree: DigestTree, model: Model): void {
      expect(tree.root.equals(model.sum('', undefined))).toBe(true);
      for (const leaf of tree.leaves()) {
        expect(leaf.equals(model.sum(leaf.after, tree.endOfLeafAt(leaf.after)))).toBe(true);
        expect(tree.sum(leaf.after, tree.endOfLeafAt(leaf.after))!.equals(leaf)).toBe(true);
      }
    }

    test('has no leaf to be cut, also where several places are loaded at once', () => {
      const model = new Model();
      const tree = new DigestTree([new Leaf('', true)]);
      tree.cutEmpty([name('m', 0), name('t', 0)]);
      const keys = Array.from({ length: 3 * 40 * LEAF_KEYS }, (_, i) =>
        name('amt'[i % 3]!, 1 + Math.floor(i / 3)),
      );
      load(tree, model, keys);
      expectToAgree(tree, model);
      expect(Math.max(...[...tree.leaves()].map(({ count }) => count))).toBe(LEAF_KEYS);
    });

    test('agrees with a model when others come between and behind, are replaced, and what is there is cut no more', () => {
      const model = new Model();
      const tree = new DigestTree([new Leaf('', true)]);
      const rising = (from: number): string[] =>
        Array.from({ length: 2 * LEAF_KEYS }, (_, i) => name('k', from + 7 * i));
      load(tree, model, rising(0));
      tree.cutEmpty([name('k', 3), name('z', 0)]);
      load(tree, model, rising(3));
      load(tree, model, rising(0));
      load(tree, model, rising(40_000));
      load(tree, model, [name('a', 0), name('z', 0), name('z', 1)]);
      expectToAgree(tree, model);
      tree.merge();
      load(tree, model, rising(60_000));
      load(tree, model, rising(500_000));
      expectToAgree(tree, model);
      expect(tree.isBound(name('z', 0))).toBe(false);
    });

    test('passes on whether a leaf is proved, and cuts none that is suspect or of unknown contents', () => {
      const keys = Array.from({ length: 3 * LEAF_KEYS }, (_, i) => name('k', i));
      const leavesFrom = (change: (leaf: Leaf) => void): Leaf[] => {
        const whole = new Leaf('', true);
        change(whole);
        const tree = new DigestTree([whole]);
        load(tree, new Model(), keys);
        return [...tree.leaves()];
      };
      const proved = leavesFrom((leaf) => {
        leaf.proved = true;
      });
      expect(proved.map((leaf) => leaf.proved)).toEqual([true, true, true]);
      expect(leavesFrom(() => undefined).map((leaf) => leaf.proved)).toEqual([false, false, false]);
      const suspect = leavesFrom((leaf) => {
        leaf.suspect = true;
      });
      const unknown = leavesFrom((leaf) => {
        leaf.last = undefined;
      });
      expect([suspect.length, unknown.length]).toEqual([1, 1]);
    });
  });

  test('sums no range whose ends are not bounds of leaves', () => {
    const tree = new DigestTree(leavesOf(new Model(), ['', 'm']));
    expect(tree.sum('', 'm')).toBeDefined();
    expect(tree.sum('a', 'm')).toBeUndefined();
    expect(tree.sum('m', 'z')).toBeUndefined();
    expect([tree.isBound(''), tree.isBound('m'), tree.isBound('z')]).toEqual([true, true, false]);
  });

  test('keeps its total when leaves are put in the place of others, in trees of many blocks', () => {
    const model = new Model();
    const name = (i: number): string => i.toString().padStart(6, '0');
    for (let i = 0; i < 5_000; i++) model.entries.set(name(i), digestOf(name(i), {}));
    const all = Array.from({ length: 500 }, (_, i) => (i === 0 ? '' : name(i * 10)));
    const tree = new DigestTree(leavesOf(model, all));
    for (const [from, to] of [
      [100, 103],
      [0, 10],
      [120, 140],
      [490, undefined],
      [0, undefined],
    ] as const) {
      const after = from === 0 ? '' : name(from * 10);
      const end = to === undefined ? undefined : name(to * 10);
      const cuts = [after, name(from * 10 + 3), name(from * 10 + 7)];
      tree.replace(after, end, leavesOf(model, cuts, end));
      expect(tree.root.equals(model.sum('', undefined))).toBe(true);
      expect(tree.sum(after, end)!.equals(model.sum(after, end))).toBe(true);
      expect(tree.sum('', name(from * 10 + 3))!.equals(model.sum('', name(from * 10 + 3)))).toBe(true);
    }
  });

  test('joins small neighbours, but none that are to be told apart, and loses nothing', () => {
    fc.assert(
      fc.property(bounds, fc.array(key), fc.infiniteStream(fc.boolean()), (cut, keys, flags) => {
        const model = new Model();
        for (const k of keys) model.entries.set(k, digestOf(k, {}));
        const leaves = leavesOf(model, cut);
        for (const leaf of leaves) leaf.suspect = flags.next().value === true;
        const suspects = new Map(keys.map((k) => [k, new DigestTree(leaves).leafOf(k).suspect]));
        const tree = new DigestTree(leaves);
        tree.merge();
        expect(tree.sum('', undefined)!.equals(model.sum('', undefined))).toBe(true);
        for (const [k, suspect] of suspects) expect(tree.leafOf(k).suspect).toBe(suspect);
        const left = [...tree.leaves()];
        left.forEach((leaf, i) => {
          const next = left[i + 1];
          expect(
            next === undefined || next.suspect !== leaf.suspect || leaf.count + next.count > LEAF_KEYS / 2,
          ).toBe(true);
        });
      }),
    );
  });

  test('survives its bytes, and takes nothing else for them', () => {
    fc.assert(
      fc.property(bounds, fc.array(key), (cut, keys) => {
        const model = new Model();
        for (const k of keys) model.entries.set(k, digestOf(k, {}));
        const tree = new DigestTree(leavesOf(model, cut));
        for (const leaf of tree.leaves()) leaf.proved = leaf.count % 2 === 0;
        const again = DigestTree.decode(tree.encode())!;
        expect(again.root.equals(tree.root)).toBe(true);
        expect([...again.leaves()].map(({ after, proved }) => [after, proved])).toEqual(
          [...tree.leaves()].map(({ after, proved }) => [after, proved]),
        );
        expect(DigestTree.decode(tree.encode().subarray(1))).toBeUndefined();
        expect(DigestTree.decode(new Uint8Array())).toBeUndefined();
      }),
    );
  });
});
