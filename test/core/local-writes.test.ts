/** Local writes of a cluster of one, as the core alone sees them: in which order the disk and the writers hear of them. */
import { describe, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { receiptOf } from '../../src/core/acknowledgements.js';
import { encodeMeta } from '../../src/core/core.js';
import { KIND_REGISTER, makeLocalRow } from '../../src/core/entry.js';
import type { Effect, Input } from '../../src/core/io.js';
import { ReplicaCore } from '../../src/core/replica.js';
import type { Row } from '../../src/core/types.js';
import { CORE_DEFAULTS } from '../../src/options.js';

const OWN = 'a'.repeat(16);
const WALL = 1_700_000_000_000;

/** A founder whose store holds these rows; `lookups` are the keys that it was asked for. */
function founder(rows: ReadonlyMap<string, Row> = new Map()) {
  const lookups: string[] = [];
  const row = { name: 'n', host: 'n', address: '', origin: OWN, stamp: `0190000000000000${OWN}` };
  const meta = new Map([
    ['node', encodeMeta({ cluster: 'c', name: 'n', uid: 'u', origin: OWN, phase: 'ready', founder: true })],
    ['members', encodeMeta({ rows: [row], removed: [] })],
  ]);
  const points = new Map(rows.size === 0 ? [] : [[OWN, rows.size] as const]);
  const core = new ReplicaCore(
    {
      cluster: 'c',
      name: 'n',
      host: 'n',
      address: '',
      join: [],
      found: false,
      run: 'f'.repeat(16),
      reuseOrigin: true,
      flushes: true,
      options: { ...CORE_DEFAULTS, commitRowsMax: 2 },
    },
    {
      lookup: (key) => {
        lookups.push(key);
        return rows.get(key);
      },
      checksum,
      random: () => 0.5,
      recovered: { heads: points, tops: points, hlc: { ms: 0, counter: 0 }, meta },
    },
  );
  const give = (input: Input): readonly Effect[] => core.handle(input, { wall: WALL, mono: 0 });
  const land = (batch: number): readonly Effect[] => [
    ...give({ type: 'persisted', batch }),
    ...give({ type: 'flushed', batch }),
  ];
  const landed = (effects: readonly Effect[]): readonly Effect[] =>
    effects.flatMap((effect) => (effect.type === 'persist' ? [...land(effect.batch.id)] : []));
  // What a start writes.
  for (let effects = give({ type: 'start' }); effects.length > 0; effects = landed(effects));
  const put = (...keys: readonly string[]): readonly Effect[] =>
    give({
      type: 'writes',
      writes: keys.map((key, i) => ({
        id: i + 1,
        ops: [{ key, kind: KIND_REGISTER, value: new Uint8Array([i]) }],
        replicas: 1,
      })),
    });
  return { core, lookups, give, land, put };
}

const types = (effects: readonly Effect[]): string[] => effects.map(({ type }) => type);

describe('local writes', () => {
  test('the next batch goes to the disk before the writes of the one before are answered', () => {
    const { put, give, land } = founder();
    const first = put('a', 'b', 'c', 'd', 'e');
    expect(types(first).filter((type) => type === 'persist' || type === 'prepare')).toEqual([
      'persist',
      'prepare',
    ]);
    const batches = first.flatMap((effect) => ('batch' in effect ? [effect.batch] : []));
    const second = give({ type: 'persisted', batch: batches[0]!.id });
    expect(second[0]).toMatchObject({ type: 'persist', batch: { id: batches[1]!.id } });
    expect(types(second)).not.toContain('settled');
    const flushed = give({ type: 'flushed', batch: batches[0]!.id });
    expect(
      flushed.flatMap((effect) => (effect.type === 'settled' ? effect.writes.map(({ id }) => id) : [])),
    ).toEqual([1, 2]);
    // Its own writes wait for it all the same.
    const third = land(batches[1]!.id);
    expect(
      third.flatMap((effect) => (effect.type === 'settled' ? effect.writes.map(({ id }) => id) : [])),
    ).toEqual([3, 4]);
  });

  test('a store that was empty is not asked for keys that it was never given', () => {
    const { core, put, lookups } = founder();
    put('a', 'b');
    expect(lookups).toEqual([]);
    expect(core.current('a')).toBeDefined();
    expect(core.current('c')).toBeUndefined();
    expect(lookups).toEqual([]);
  });

  test('a key that was given is looked for: among the rows on their way, then in the store', () => {
    const { core, put, give, lookups } = founder();
    const effects = put('a');
    const [batch] = effects.flatMap((effect) => (effect.type === 'persist' ? [effect.batch] : []));
    const row = batch!.rows.get('a')!.row;
    expect(core.current('a')).toBe(row);
    expect(lookups).toEqual([]);
    give({ type: 'persisted', batch: batch!.id });
    core.current('a');
    expect(lookups).toEqual(['a']);
  });

  test('a store that held something before may hold any key', () => {
    const dot = { origin: OWN, seq: 1 };
    const stamp = { ms: WALL - 1, counter: 0, writer: OWN };
    const old = makeLocalRow('a', KIND_REGISTER, stamp, dot, new Uint8Array([9]), checksum);
    const { put, lookups } = founder(new Map([['a', old]]));
    const effects = put('a', 'b');
    expect(lookups).toEqual(['a', 'b']);
    const [batch] = effects.flatMap((effect) => (effect.type === 'persist' ? [effect.batch] : []));
    expect(batch!.rows.get('a')!.replaces).toEqual(dot);
  });

  test('a receipt names the stamp and the dot of its own write', () => {
    const { put, land } = founder();
    const effects = put('a', 'b');
    const [batch] = effects.flatMap((effect) => (effect.type === 'persist' ? [effect.batch] : []));
    const receipts = land(batch!.id).flatMap((effect) =>
      effect.type === 'settled' ? effect.writes.map(receiptOf) : [],
    );
    expect(receipts).toHaveLength(2);
    expect(receipts[0]!.stamp < receipts[1]!.stamp).toBe(true);
    for (const [i, { stamp, token, replicas, superseded }] of receipts.entries()) {
      expect(token).toBe(`${OWN}.${i + 1}.${stamp}`);
      expect({ replicas, superseded }).toEqual({ replicas: 1, superseded: false });
    }
  });
});
