import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FailureDetector, PHI_SUSPECT } from '../../src/core/failure-detector.js';
import { MEMBERS_MAX, MemberTable, noNews } from '../../src/core/membership.js';
import type { Excluded, MemberRow } from '../../src/core/types.js';
import { minimumOfHeads, VersionVector } from '../../src/core/version-vector.js';

const origin = fc.constantFrom('a'.repeat(16), 'b'.repeat(16), 'c'.repeat(16));
const point = fc.tuple(origin, fc.nat(5), fc.nat(5));

describe('the version vector', () => {
  test('only ever rises, and its top never falls below its head', () => {
    fc.assert(
      fc.property(fc.array(point), (points) => {
        const vector = new VersionVector();
        for (const [o, head, top] of points) {
          const before = [vector.head(o), vector.top(o)];
          vector.raise(o, head, top);
          expect(vector.head(o)).toBe(Math.max(before[0]!, head));
          expect(vector.top(o)).toBe(Math.max(before[1]!, top, head));
        }
      }),
    );
  });

  test('has equal hashes for equal contents, in whatever order they came', () => {
    fc.assert(
      fc.property(fc.array(point), (points) => {
        const [a, b] = [new VersionVector(), new VersionVector()];
        for (const [o, head, top] of points) a.raise(o, head, top);
        for (const [o, head, top] of points.toReversed()) b.raise(o, head, top);
        expect(a.hash).toBe(b.hash);
        expect(a.isBehind(b) || b.isBehind(a)).toBe(false);
        b.raise('a'.repeat(16), 9, 0);
        expect(a.hash).not.toBe(b.hash);
        expect(a.isBehind(b)).toBe(true);
        expect(b.isBehind(a)).toBe(false);
      }),
    );
  });

  test('is behind by a greater top alone: gaps that nobody can fill are noticed', () => {
    const [a, b] = [new VersionVector(), new VersionVector()];
    a.raise('a'.repeat(16), 3, 3);
    b.raise('a'.repeat(16), 3, 7);
    expect(a.isBehind(b)).toBe(true);
  });

  test('tells whether it is behind another, also when it is asked again and again while both change', () => {
    const step = fc.tuple(fc.constantFrom('raise', 'set', 'fall', 'clear', 'other asks'), point);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const [own, peer, third] = [new VersionVector(), new VersionVector(), new VersionVector()];
        for (const [what, [o, head, top]] of steps) {
          if (what === 'raise') own.raise(o, head, top);
          else if (what === 'set') peer.set(o, head, top);
          else if (what === 'fall') own.set(o, head, top);
          else if (what === 'clear') peer.clear();
          else third.isBehind(peer);
          const lacks = [...peer.entries()].some(([at, h, t]) => h > own.head(at) || t > own.top(at));
          expect(own.isBehind(peer)).toBe(lacks);
        }
      }),
    );
  });

  test('the minimum of several snapshots claims only what all of them held', () => {
    const a = new Map([
      ['x', 5],
      ['y', 2],
    ]);
    const b = new Map([
      ['x', 3],
      ['z', 9],
    ]);
    expect([...minimumOfHeads(a, b)]).toEqual([['x', 3]]);
  });
});

describe('the member table', () => {
  const name = fc.constantFrom('one', 'two', 'three');
  const row: fc.Arbitrary<MemberRow> = fc.record({
    name,
    host: fc.constantFrom('h', 'g'),
    address: fc.constantFrom('h:1', 'h:2'),
    origin,
    stamp: fc.constantFrom('0'.repeat(32), '1'.repeat(32)),
    silent: fc.uniqueArray(origin, { maxLength: 3 }),
  });
  const exclusion: fc.Arbitrary<Excluded> = fc.record({ origin, name, at: fc.nat(3) });
  const part = fc.tuple(
    fc.array(row),
    fc.array(origin, { maxLength: 2 }),
    fc.array(exclusion, { maxLength: 2 }),
  );
  type Part = readonly [readonly MemberRow[], readonly string[], readonly Excluded[]];

  const tableOf = (...parts: readonly Part[]): MemberTable => {
    const table = new MemberTable();
    for (const [rows, removed, excluded] of parts) table.merge(rows, removed, excluded);
    return table;
  };
  const joined = (a: MemberTable, b: MemberTable): MemberTable =>
    tableOf([a.rows(), a.removed(), a.excluded()], [b.rows(), b.removed(), b.excluded()]);
  const expectSame = (a: MemberTable, b: MemberTable): void => {
    expect(a.hash).toBe(b.hash);
    expect(a.active()).toEqual(b.active());
    expect(a.outvoted()).toEqual(b.outvoted());
    expect(new Set(a.excluded())).toEqual(new Set(b.excluded()));
  };

  test('ends the same in whatever order, and however often, its parts arrive', () => {
    fc.assert(
      fc.property(part, part, part, (x, y, z) => {
        const [a, b, c] = [tableOf(x), tableOf(y), tableOf(z)];
        expectSame(joined(a, b), joined(b, a));
        expectSame(joined(joined(a, b), c), joined(a, joined(b, c)));
        expectSame(joined(a, a), a);
        expect(tableOf(x).merge(a.rows(), a.removed(), a.excluded())).toBe(false);
      }),
    );
  });

  test('tells what was news to it, which is all that another one lacks', () => {
    fc.assert(
      fc.property(part, part, (x, y) => {
        const [a, b, c] = [tableOf(x), tableOf(x), tableOf(y)];
        const news = noNews();
        const changed = a.merge(c.rows(), c.removed(), c.excluded(), news);
        expect(b.merge(news.rows, news.removed, news.excluded)).toBe(changed);
        expectSame(a, b);
      }),
    );
  });

  test('whom it never excluded it may come to; whom it did stays out, however new its row', () => {
    fc.assert(
      fc.property(part, part, (x, y) => {
        const table = tableOf(x);
        const before = table.excluded().map((one) => one.origin);
        table.merge(...y);
        for (const gone of before) {
          expect(table.isExcluded(gone)).toBe(true);
          expect(table.isMember(gone)).toBe(false);
        }
      }),
    );
  });

  describe('votes', () => {
    const names = ['a', 'b', 'c', 'd', 'e'];
    const idOf = (of: string): string => of.repeat(16);
    /** `votes`: who votes against whom. */
    const table = (members: string, votes: Record<string, string> = {}): MemberTable =>
      tableOf([
        [...members].map((of) => ({
          ...{ name: of, host: of, address: '', origin: idOf(of), stamp: '1' },
          ...(votes[of] === undefined ? {} : { silent: [...votes[of]].map(idOf) }),
        })),
        [],
        [],
      ]);
    const out = (of: MemberTable): string =>
      of
        .outvoted()
        .map((row) => row.name)
        .join('');

    test('of a strict majority of all exclude, silent ones counted', () => {
      expect(out(table('abc', { a: 'c' }))).toBe('');
      expect(out(table('abc', { a: 'c', b: 'c' }))).toBe('c');
      expect(out(table('ab', { a: 'b' }))).toBe('');
      expect(out(table('abcd', { a: 'cd', b: 'cd' }))).toBe('');
      expect(out(table('abcde', { a: 'de', b: 'de' }))).toBe('');
      expect(out(table('abcde', { a: 'de', b: 'de', c: 'd' }))).toBe('d');
    });

    test('against oneself, given twice, or by somebody who is out are none', () => {
      expect(out(table('abc', { a: 'cc', c: 'c' }))).toBe('');
      const five = table('abcde', { a: 'b', d: 'b', e: 'b' });
      expect(out(five)).toBe('b');
      expect(five.votes(idOf('b'))).toBe(3);
      five.merge([], [], [{ origin: idOf('e'), name: 'e', at: 1 }]);
      expect(five.votes(idOf('b'))).toBe(2);
      expect(out(five)).toBe('');
    });

    test('are withdrawn with the next row', () => {
      const three = table('abc', { a: 'c', b: 'c' });
      three.merge([{ ...three.row('b')!, silent: [], stamp: '2' }], []);
      expect(names.map((of) => three.votes(idOf(of)))).toEqual([0, 0, 1, 0, 0]);
    });

    test('who is out is named until the name comes back, or is removed', () => {
      const three = table('abc');
      three.merge([], [], [{ origin: idOf('c'), name: 'c', at: 7 }]);
      expect(three.absent()).toEqual([{ origin: idOf('c'), name: 'c', at: 7 }]);
      three.merge([{ ...three.row('c')!, origin: idOf('d'), stamp: '2' }], []);
      expect(three.absent()).toEqual([]);
      expect(three.isExcluded(idOf('c'))).toBe(true);
    });
  });

  test('a removed origin stays out, however new its row; its name may return under a new origin', () => {
    const table = new MemberTable();
    const member = (origin: string, stamp: string): MemberRow => ({
      name: 'n',
      host: 'n',
      address: '',
      origin,
      stamp,
    });
    table.merge([member('a'.repeat(16), '1')], ['a'.repeat(16)]);
    table.merge([member('a'.repeat(16), '9')], []);
    expect(table.active()).toEqual([]);
    expect(table.byName('n')).toBeUndefined();
    table.merge([member('b'.repeat(16), '99')], []);
    expect(table.active().map((m) => m.origin)).toEqual(['b'.repeat(16)]);
  });

  test('takes no more rows than its cap', () => {
    const table = new MemberTable();
    const rows = Array.from({ length: MEMBERS_MAX + 5 }, (_, i) => ({
      name: `n${i}`,
      host: '',
      address: '',
      origin: i.toString(16).padStart(16, '0'),
      stamp: '1',
    }));
    table.merge(rows, []);
    expect(table.active()).toHaveLength(MEMBERS_MAX);
  });
});

describe('the failure detector', () => {
  const BEAT = 1_000;

  test('suspects a member that falls silent, and trusts it again when it is heard', () => {
    const detector = new FailureDetector(BEAT);
    expect(detector.state('m', 0)).toBe('unknown');
    for (let t = 0; t <= 20_000; t += BEAT) detector.heard('m', t);
    expect(detector.state('m', 21_000)).toBe('alive');
    expect(detector.phi('m', 20_000 + PHI_SUSPECT * BEAT)).toBeGreaterThanOrEqual(PHI_SUSPECT);
    expect(detector.state('m', 20_000 + PHI_SUSPECT * BEAT)).toBe('suspect');
    detector.heard('m', 30_000);
    expect(detector.state('m', 30_500)).toBe('alive');
  });

  test('believes others that have lost a member, also one that was never heard here', () => {
    const detector = new FailureDetector(BEAT);
    detector.accuse('m');
    expect(detector.state('m', 100)).toBe('suspect');
    expect(detector.silence('m', 100)).toBeUndefined();
    detector.forgive(50, 200);
    expect(detector.silence('m', 200)).toBeUndefined();
    for (let t = 1_000; t <= 5_000; t += BEAT) detector.heard('m', t);
    expect(detector.state('m', 5_500)).toBe('alive');
    expect(detector.state('m', 5_000 + (PHI_SUSPECT + 1) * BEAT)).toBe('suspect');
  });

  test('does not count the time for which this node itself could not listen', () => {
    const detector = new FailureDetector(BEAT);
    for (let t = 0; t <= 10_000; t += BEAT) detector.heard('m', t);
    detector.forgive(30_000, 41_000);
    expect(detector.state('m', 41_000)).toBe('alive');
  });

  test('one long break does not make it patient', () => {
    const detector = new FailureDetector(BEAT);
    for (let t = 0; t <= 10_000; t += BEAT) detector.heard('m', t);
    detector.heard('m', 600_000);
    expect(detector.state('m', 600_000 + (PHI_SUSPECT + 1) * BEAT)).toBe('suspect');
  });
});
