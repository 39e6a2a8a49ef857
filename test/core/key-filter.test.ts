import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KeyFilter } from '../../src/core/key-filter.js';

test('a key that was added is never said to be absent, over any number of layers', () => {
  const filter = new KeyFilter();
  for (let i = 0; i < 400_000; i++) filter.add(`carrier/en/${i}`);
  let wrong = 0;
  for (let i = 0; i < 400_000; i++) if (!filter.mayHold(`carrier/en/${i}`)) wrong += 1;
  expect(wrong).toBe(0);
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary', minLength: 1 })), (keys) => {
      for (const key of keys) filter.add(key);
      return keys.every((key) => filter.mayHold(key));
    }),
  );
});

test('of keys that were not added it takes few for possible ones', () => {
  const filter = new KeyFilter();
  for (let i = 0; i < 262_144; i++) filter.add(`+${4_900_000_000 + i}`);
  let possible = 0;
  for (let i = 0; i < 100_000; i++) if (filter.mayHold(`+${3_300_000_000 + i}`)) possible += 1;
  expect(possible).toBeLessThan(2_000);
});
