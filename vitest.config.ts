import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // One more than cores on the smallest machine: tests with real processes wait for these half of the time.
    maxWorkers: 3,
    // Every test that starts processes or sockets ends them itself; a leak shows as a hanging run.
    teardownTimeout: 10_000,
    // A shared runner may stall for seconds, which real processes and sockets notice; a broken promise fails twice.
    retry: process.env.CI ? 1 : 0,
  },
});
