import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Those that take a minute or more: begun last they would keep one core busy alone. */
const LONG =
  /(simulator\/(swarm|mutants)|real\/(disk-damage|damage|return|kills|identity|acknowledgements|load|members|disk-failures)|bench\/bench|cli\/daemon)\.test\.ts$/;

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isLong = ({ moduleId }: TestSpecification): boolean => LONG.test(moduleId);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // One more than cores on the smallest machine: tests with real processes wait for these half of the time.
    maxWorkers: 3,
    sequence: { sequencer: LongFirst },
    // Every test that starts processes or sockets ends them itself; a leak shows as a hanging run.
    teardownTimeout: 10_000,
    // A shared runner may stall for seconds, which real processes and sockets notice; a broken promise fails twice.
    retry: process.env.CI ? 1 : 0,
  },
});
