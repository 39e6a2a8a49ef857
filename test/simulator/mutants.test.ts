import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MUTANTS } from './mutants.js';
import { type Copies, copyWithBugs } from './mutate.js';
import { runSeeds, SUITE_SEEDS } from './suite.js';

describe('a planted bug is caught', () => {
  let copies: Copies;
  beforeAll(() => {
    copies = copyWithBugs([...MUTANTS, { name: 'none', edits: [] }]);
  });
  afterAll(() => copies?.remove());

  test.each(MUTANTS.map((mutant) => [mutant.name, mutant] as const))(
    'that %s',
    async (_name, mutant) => {
      const Core = await copies.load(mutant);
      const hint = mutant.seed === undefined ? [] : runSeeds({ from: mutant.seed, seeds: 1, Core }).failures;
      const failures =
        hint.length > 0 ? hint : runSeeds({ from: 1, seeds: SUITE_SEEDS, bail: true, Core }).failures;
      expect(failures.length).toBe(1);
      console.log(`${mutant.name}: seed ${failures[0]?.seed}, ${failures[0]?.outcome.failure?.check}`);
    },
    300_000,
  );
});
