/**
 * Moves the wall clock of one Node process, for tests: load it with `--import`, and name a file in the
 * environment variable READMESH_TEST_CLOCK. The file holds `+MS` or `-MS` (the clock is off by that much) or
 * `=MS` (it stands still at that time); anything else, or no file, is the true clock. It is read again at most
 * every 50 ms. Monotonic time is left alone.
 */
import { readFileSync } from 'node:fs';

const REREAD_MS = 50;
const file = process.env.READMESH_TEST_CLOCK;

if (file !== undefined) {
  const TrueDate = Date;
  const trueNow = Date.now.bind(Date);
  const monotonic = performance.now.bind(performance);
  let readAt = Number.NEGATIVE_INFINITY;
  let text = '';

  const now = () => {
    if (monotonic() - readAt >= REREAD_MS) {
      readAt = monotonic();
      try {
        text = readFileSync(file, 'utf8').trim();
      } catch {
        text = '';
      }
    }
    const [, sign, digits] = /^([+=-])(\d+)$/.exec(text) ?? [];
    if (sign === undefined) return trueNow();
    if (sign === '=') return Number(digits);
    return trueNow() + (sign === '-' ? -1 : 1) * Number(digits);
  };

  globalThis.Date = class ShiftedDate extends TrueDate {
    constructor(...args) {
      if (args.length === 0) super(now());
      else super(...args);
    }

    static now() {
      return now();
    }
  };
}
