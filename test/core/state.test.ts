import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FailureDetector, PHI_SUSPECT } from '../../src/core/failure-detector.js';
import { MEMBERS_MAX, MemberTable } from '../../src/core/membership.js';
import type { MemberRow } from '../../src/core/types.js';
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
  });

  test('ends the same in whatever order, and however often, rows and removals arrive', () => {
    fc.assert(
      fc.property(fc.array(row), fc.array(origin), (rows, removed) => {
        const [a, b] = [new MemberTable(), new MemberTable()];
        a.merge(rows, []);
        a.merge([], removed);
        for (const r of [...rows.toReversed(), ...rows]) b.merge([r], removed);
        b.merge([], removed);
        expect(a.hash).toBe(b.hash);
        expect(a.active()).toEqual(b.active());
      }),
    );
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
