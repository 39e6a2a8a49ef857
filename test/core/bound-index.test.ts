import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BoundIndex } from '../../src/core/bound-index.js';
import { compareKeys } from '../../src/core/key-order.js';

/** Units around every border that a rank has, surrogate pairs among them. */
const unit = fc.constantFrom(
  '\0',
  '\u0001',
  'a',
  'b',
  'ü',
  '\u00fe',
  '\u00ff',
  '\u0100',
  '語',
  '\ud7ff',
  '\ue000',
  '\uffff',
  '😀',
  '🚀',
);
const key = fc.array(unit, { maxLength: 9 }).map((units) => units.join(''));
const keys = fc
  .tuple(key, fc.array(key, { minLength: 1, maxLength: 40 }), fc.boolean())
  .map(([prefix, all, empty]) => {
    const sorted = [...new Set(all.map((one) => prefix + one))].sort(compareKeys);
    return empty && sorted[0] !== '' ? ['', ...sorted] : sorted;
  });

function lastBelow(bounds: readonly string[], wanted: string): number {
  let found = 0;
  bounds.forEach((bound, i) => {
    if (compareKeys(bound, wanted) < 0) found = i;
  });
  return found;
}

test('finds the last bound below a key, whatever units they are made of', () => {
  fc.assert(
    fc.property(keys, fc.array(key, { maxLength: 20 }), (bounds, others) => {
      const index = new BoundIndex(bounds);
      const prefix = bounds.at(-1)!.slice(0, 4);
      for (const wanted of ['', ...bounds, ...others, ...others.map((one) => prefix + one)])
        expect(index.find(wanted)).toBe(lastBelow(bounds, wanted));
    }),
    { numRuns: 2_000 },
  );
});

test('finds it among many bounds that begin alike', () => {
  const bounds = [
    '',
    ...Array.from({ length: 5_000 }, (_, i) => `rows/2026/${i.toString(36).padStart(5, '0')}/x`),
  ];
  const index = new BoundIndex(bounds);
  for (let i = 1; i < bounds.length; i += 7) {
    expect(index.find(bounds[i]!)).toBe(i - 1);
    expect(index.find(`${bounds[i]}a`)).toBe(i);
  }
  expect([index.find('a'), index.find('z')]).toEqual([0, 5_000]);
});
