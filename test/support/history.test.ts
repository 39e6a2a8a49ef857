/** A checker that finds nothing proves nothing: each fault that it looks for is planted, and must be named. */
import { expect, test } from 'vitest';
import { type Dump, type FinalEntry, History, type Operation, type Outcome } from './history.js';

const ORIGIN = '00000000000000aa';
const DRIFT_MS = 5_000;
const now = Date.now();
const stampAt = (ms: number, counter = 0): string =>
  ms.toString(16).padStart(12, '0') + counter.toString(16).padStart(4, '0') + ORIGIN;
const entry = (stamp: string, value: unknown, seq: number): FinalEntry => ({
  stamp,
  value,
  origin: ORIGIN,
  seq,
});

function acknowledged(
  history: History,
  key: string,
  value: unknown,
  seq: number,
  outcome: Outcome = {},
): string {
  const stamp = outcome.stamp ?? stampAt(now, seq);
  const op = history.invoke({ kind: value === undefined ? 'del' : 'put', key, value, node: 'a' });
  history.end('ok', op, { stamp, token: `${ORIGIN}.${seq}.${stamp}`, superseded: false, value, ...outcome });
  return stamp;
}

/** A sound run of two writes of one key and one of another; `plant` spoils it. */
function run(
  plant: (history: History, dump: Map<string, FinalEntry>, other: Map<string, FinalEntry>) => void,
) {
  const history = new History('planted');
  acknowledged(history, 'k', 1, 1);
  const entries: [string, FinalEntry][] = [
    ['k', entry(acknowledged(history, 'k', 2, 2), 2, 2)],
    ['once', entry(acknowledged(history, 'once', 'x', 3), 'x', 3)],
  ];
  const dump = new Map(entries);
  const other = new Map(entries);
  plant(history, dump, other);
  return (): void => {
    const copies = new Map<string, Dump>([
      ['a', dump],
      ['b', other],
    ]);
    history.check(copies, { driftMs: DRIFT_MS, save: false });
  };
}

const read: Operation = { kind: 'read', key: 'k', node: 'a' };

test('a sound history passes, with writes of unknown outcome among it', () => {
  const check = run((history, dump, other) => {
    history.end('info', history.invoke({ kind: 'put', key: 'k', value: 'lost or not', node: 'a' }));
    const late = entry(stampAt(now, 9), 'lost or not', 9);
    dump.set('k', late);
    other.set('k', { ...late, origin: '00000000000000bb', seq: 1 });
    history.end('ok', history.invoke(read), { value: 2 });
    history.end('ok', history.invoke(read));
  });
  expect(check).not.toThrow();
});

test.each<[string, string, Parameters<typeof run>[0]]>([
  [
    'an acknowledged write that is gone',
    'and gone',
    (_, dump, other) => {
      for (const copy of [dump, other]) copy.delete('once');
    },
  ],
  [
    'an older value than the acknowledged one',
    'there is',
    (_, dump, other) => {
      for (const copy of [dump, other]) copy.set('k', entry(stampAt(now, 1), 1, 1));
    },
  ],
  [
    'another value under the acknowledged stamp',
    'acknowledged 2, there is 1',
    (_, dump, other) => {
      for (const copy of [dump, other]) copy.set('k', { ...copy.get('k')!, value: 1 });
    },
  ],
  ['copies that differ', 'b has nothing', (_, __, other) => void other.delete('once')],
  [
    'a read that nobody wrote',
    'nobody had written',
    (history) => history.end('ok', history.invoke(read), { value: 3 }),
  ],
  [
    'an entry that nobody wrote',
    'which nobody wrote',
    (_, dump, other) => {
      for (const copy of [dump, other]) copy.set('new', entry(stampAt(now, 8), 'y', 8));
    },
  ],
  [
    'a deletion that came undone',
    'acknowledged',
    (history, dump, other) => {
      acknowledged(history, 'k', undefined, 4);
      dump.set('k', entry(stampAt(now, 2), 2, 2));
      other.set('k', entry(stampAt(now, 2), 2, 2));
    },
  ],
  [
    'a stamp below one given before',
    'was given before it began',
    (history) => void acknowledged(history, 'k', 2, 7, { stamp: stampAt(now - 10) }),
  ],
  [
    'a stamp given twice',
    'was given to operations',
    (history) => {
      const ops = [1, 2].map(() => history.invoke({ kind: 'put', key: 'k', value: 2, node: 'a' }));
      for (const op of ops) history.end('ok', op, { stamp: stampAt(now, 2), value: 2 });
    },
  ],
  [
    'a stamp too far ahead',
    'too far ahead',
    (history, dump, other) => {
      const stamp = acknowledged(history, 'k', 5, 5, { stamp: stampAt(now + 60_000) });
      for (const copy of [dump, other]) copy.set('k', entry(stamp, 5, 5));
    },
  ],
  [
    'a sequence number given twice',
    'sequence number',
    (history, dump, other) => {
      const stamp = acknowledged(history, 'reused', 1, 2, { stamp: stampAt(now, 6) });
      for (const copy of [dump, other]) copy.set('reused', entry(stamp, 1, 2));
    },
  ],
])('the checker finds %s', (_, words, plant) => {
  expect(run(plant)).toThrow(words);
});
