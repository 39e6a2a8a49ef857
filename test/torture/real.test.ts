import { afterAll, expect, test } from 'vitest';
import { endDaemons } from '../support/daemon.js';
import { torture } from './real.js';

afterAll(endDaemons);

const seed = Number(process.env.READMESH_TEST_SEED ?? Math.floor(Math.random() * 1_000_000));

test('real daemons under faults drawn at random lose no acknowledged write, and end equal', {
  timeout: 240_000,
}, async () => {
  console.log(`seed ${seed}: repeat with READMESH_TEST_SEED=${seed}`);
  const report = await torture({ seed, durationMs: 20_000, onFault: (text) => console.log(text) });
  console.log(JSON.stringify(report));
  expect(report.acknowledged).toBeGreaterThan(100);
  expect(Object.values(report.faults).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(3);
});
