/** The table of requests against a Map: whatever is added is found under its id, and under no other, until removed. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Pending } from '../../src/client/connection.js';
import { RequestTable } from '../../src/request-table.js';

const someone = (): Pending => ({
  size: 0,
  write: () => {},
  onResult: () => {},
  onPart: () => {},
  onFailed: () => {},
  onLost: () => {},
});

test('finds what was added under its id until it is removed, and ids only rise', () => {
  const steps = fc.array(fc.oneof(fc.constant('add'), fc.constant('skip'), fc.nat(300)), { maxLength: 600 });
  fc.assert(
    fc.property(steps, (all) => {
      const table = new RequestTable<Pending>();
      const model = new Map<number, Pending>();
      let last = 0;
      for (const step of all) {
        if (step === 'add') {
          const pending = someone();
          const id = table.add(pending);
          expect(id).toBeGreaterThan(last);
          last = id;
          model.set(id, pending);
        } else if (step === 'skip') {
          last = table.unusedId();
          expect(model.has(last)).toBe(false);
          expect(table.get(last)).toBeUndefined();
        } else {
          expect(table.delete(step)).toBe(model.delete(step));
        }
        expect(table.size).toBe(model.size);
      }
      for (let id = 0; id <= last; id++) expect(table.get(id)).toBe(model.get(id));
      expect(new Set(table.clear())).toEqual(new Set(model.values()));
      expect(table.size).toBe(0);
    }),
  );
});

test('keeps one that waits for long apart from all that come and go', () => {
  const table = new RequestTable<Pending>();
  const standing = someone();
  const id = table.add(standing);
  for (let i = 0; i < 100_000; i++) {
    const passing = table.add(someone());
    expect(table.delete(passing)).toBe(true);
    expect(table.get(passing)).toBeUndefined();
  }
  expect(table.get(id)).toBe(standing);
});
