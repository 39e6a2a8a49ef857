/** Generators of every message that a member may send, within the ranges that the wire allows. */
import fc from 'fast-check';
import { checksum } from '../../src/checksum.js';
import { makeRow } from '../../src/core/entry.js';
import type { HorizonReport, PeerMessage, VectorEntry } from '../../src/core/messages.js';
import type { ReportEntry, SealReport, SealRow } from '../../src/core/seal-table.js';
import type { Records } from '../../src/core/types.js';

/** Plain objects only, as a decoder makes them. */
const shape = <T>(model: { [Member in keyof T]: fc.Arbitrary<T[Member]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>;

const hex = (digits: number): fc.Arbitrary<string> =>
  fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: digits, maxLength: digits });
const origin = hex(16);
const uid = fc.oneof(origin, fc.constant(''));
const hash = fc.oneof(hex(16), hex(32), fc.constant(''));
const uint = fc.oneof(
  fc.maxSafeNat(),
  fc.nat(300),
  fc.constantFrom(2 ** 16, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1),
);
const seq = fc.oneof(fc.nat(300), fc.integer({ min: 0, max: 2 ** 48 - 1 }), fc.constant(2 ** 48 - 1));
const phase = fc.constantFrom('new' as const, 'bootstrapping' as const, 'ready' as const);

/** Well-formed text of so many bytes of UTF-8 at most. */
const text = (bytesMin: number, bytesMax: number): fc.Arbitrary<string> =>
  fc
    .oneof(
      fc.string({ minLength: bytesMin, maxLength: bytesMax }),
      fc.string({ unit: 'binary', minLength: bytesMin, maxLength: Math.ceil(bytesMax / 2) }),
    )
    .filter((value) => Buffer.byteLength(value) <= bytesMax);

const name = text(1, 128);
const key = fc.oneof(
  text(1, 100),
  text(1, 1_024),
  fc.constantFrom('__proto__', '\0', '-x', '\uFEFFkey', 'k'.repeat(1_024)),
);
const pairs = (value: fc.Arbitrary<number>): fc.Arbitrary<[string, number][]> =>
  fc.array(fc.tuple(origin, value), { maxLength: 20 });

const vector: fc.Arbitrary<VectorEntry[]> = fc.array(
  fc.tuple(origin, seq, seq).map(([at, a, b]): VectorEntry => [at, Math.min(a, b), Math.max(a, b)]),
  { maxLength: 20 },
);

const record = shape({
  key,
  kind: fc.integer({ min: 1, max: 255 }),
  stamp: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  origin,
  seq: seq.filter((value) => value > 0),
  expiresAt: fc.option(fc.maxSafeNat(), { nil: undefined }),
  value: fc.uint8Array({ maxLength: 300 }),
}).map(({ key: of, expiresAt, ...entry }) => ({
  key: of,
  row: makeRow(of, expiresAt === undefined ? entry : { ...entry, expiresAt }, checksum),
}));

export const records: fc.Arbitrary<Records> = fc
  .array(record, { maxLength: 20 })
  .map((all) => ({ keys: all.map((one) => one.key), rows: all.map((one) => one.row) }));

const silentOnes = fc.array(origin, { minLength: 1, maxLength: 20 });
const member = fc
  .record({ name, host: name, address: text(0, 256), origin, stamp: hex(32), silent: fc.option(silentOnes) })
  .map(({ silent, ...row }) => (silent === null ? row : { ...row, silent }));

const sealRow: fc.Arbitrary<SealRow> = fc
  .record({ origin, a: seq, b: seq, forgotten: fc.boolean(), stamp: uint })
  .map(({ origin: of, a, b, forgotten, stamp }) => ({
    origin: of,
    head: Math.min(a, b),
    seal: Math.max(a, b),
    forgotten,
    stamp,
  }));
const sealReport: fc.Arbitrary<SealReport> = shape({
  member: origin,
  version: uint,
  membersHash: hash,
  forgotten: uint,
  proven: fc.boolean(),
  root: fc.oneof(fc.constant(''), hex(64)),
  entries: fc.array(
    fc
      .tuple(origin, seq, seq, fc.constantFrom(0 as const, 1 as const, 2 as const))
      .map(([of, a, b, state]): ReportEntry => [of, Math.min(a, b), Math.max(a, b), state]),
    { maxLength: 10 },
  ),
});
/** Neither time is above the clock. */
const report: fc.Arbitrary<HorizonReport> = fc
  .record({ clock: uint, accepted: seq, a: uint, b: uint, ended: uint })
  .map(({ clock, accepted, a, b, ended }) => ({
    clock,
    accepted,
    asOf: Math.min(clock, a),
    collected: Math.min(clock, b),
    ended,
  }));
const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });
const sum = bytes(44);
const item = fc.oneof(bytes(1), bytes(49));
const span = fc.record(
  { after: fc.oneof(fc.constant(''), key), to: fc.option(key) },
  { noNullPrototype: true },
);

const type = <T extends string>(value: T): fc.Arbitrary<T> => fc.constant(value);

/** One generator for each type of message; the compiler notices when one is missing. */
export const messages: { [Type in PeerMessage['type']]: fc.Arbitrary<Extract<PeerMessage, { type: Type }>> } =
  {
    hello: shape({
      type: type('hello'),
      version: uint,
      cluster: name,
      clusterUid: uid,
      name,
      host: name,
      address: text(0, 256),
      origin,
      run: origin,
      phase,
      alone: fc.boolean(),
      wallMs: uint,
      head: seq,
    }),
    refuse: shape({ type: type('refuse'), code: text(1, 64), message: text(0, 256) }),
    members: shape({
      type: type('members'),
      rows: fc.array(member, { maxLength: 20 }),
      removed: fc.array(origin, { maxLength: 20 }),
      excluded: fc.array(shape({ origin, name, at: uint }), { maxLength: 20 }),
    }),
    beat: shape({
      type: type('beat'),
      wallMs: uint,
      phase,
      clusterUid: uid,
      alone: fc.boolean(),
      vectorHash: hash,
      membersHash: hash,
      whole: fc.boolean(),
      vector,
      report,
    }),
    resend: shape({ type: type('resend'), vector: fc.boolean(), members: fc.boolean() }),
    push: fc
      .record({ type: type('push'), frame: uint, origin, from: seq, to: seq, records })
      .map(({ from, to, records: { keys, rows }, ...rest }) => ({
        ...rest,
        from: Math.min(from, to),
        to: Math.max(from, to),
        keys,
        rows,
      })),
    ack: shape({ type: type('ack'), flushed: fc.boolean(), frames: fc.array(uint, { maxLength: 40 }) }),
    prune: shape({ type: type('prune'), origins: fc.array(origin, { maxLength: 40 }) }),
    graft: shape({ type: type('graft'), origins: fc.array(origin, { maxLength: 40 }) }),
    offer: shape({ type: type('offer'), frames: pairs(seq) }),
    fetch: shape({ type: type('fetch'), frames: pairs(seq) }),
    pulse: shape({
      type: type('pulse'),
      origin,
      counter: uint,
      suspect: fc.boolean(),
      membersHash: hash,
      report,
    }),
    seals: shape({
      type: type('seals'),
      reply: fc.boolean(),
      rows: fc.array(sealRow, { maxLength: 20 }),
      reports: fc.array(sealReport, { maxLength: 10 }),
    }),
    'seals-hash': shape({ type: type('seals-hash'), hash }),
    pull: shape({ type: type('pull'), session: uint, heads: pairs(seq) }),
    'pull-range': shape({
      type: type('pull-range'),
      session: uint,
      after: fc.option(key),
      until: fc.option(key),
    }),
    'session-opened': shape({
      type: type('session-opened'),
      session: uint,
      heads: pairs(seq),
      clock: uint,
      asOf: uint,
      collected: uint,
    }),
    chunk: fc
      .record({
        type: type('chunk'),
        session: uint,
        index: uint,
        last: fc.boolean(),
        tops: pairs(seq),
        records,
      })
      .map(({ records: { keys, rows }, ...rest }) => ({
        ...rest,
        keys,
        rows,
        tops: rest.last ? rest.tops : [],
      })),
    'chunk-ack': shape({ type: type('chunk-ack'), session: uint, count: uint }),
    'ask-records': shape({
      type: type('ask-records'),
      request: uint,
      keys: fc.array(key, { maxLength: 20 }),
    }),
    lent: fc
      .record({
        type: type('lent'),
        request: uint,
        ready: fc.boolean(),
        heads: pairs(seq),
        records,
        absent: fc.array(key, { maxLength: 20 }),
        end: fc.boolean(),
      })
      .map(({ records: { keys, rows }, ...rest }) => ({ ...rest, keys, rows })),
    'ask-range': shape({
      type: type('ask-range'),
      request: uint,
      after: fc.option(key),
      until: fc.option(key),
    }),
    'session-end': shape({
      type: type('session-end'),
      session: uint,
      asked: fc.boolean(),
      code: fc.constantFrom('busy' as const, 'not-ready' as const, 'failed' as const, 'cancelled' as const),
    }),
    'plan-ask': shape({ type: type('plan-ask'), plan: uint, rangeBytes: uint, rangesMax: uint }),
    plan: shape({
      type: type('plan'),
      plan: uint,
      keys: fc.array(key, { maxLength: 40 }),
      entries: uint,
      bytes: uint,
    }),
    'digest-root': shape({
      type: type('digest-root'),
      vectorHash: hash,
      root: sum,
      collected: uint,
      swept: fc.boolean(),
    }),
    'ask-sums': shape({ type: type('ask-sums'), question: uint, spans: fc.array(span, { maxLength: 20 }) }),
    sums: shape({ type: type('sums'), question: uint, sums: fc.array(sum, { maxLength: 20 }) }),
    'ask-entries': fc
      .record({
        type: type('ask-entries'),
        question: uint,
        full: fc.boolean(),
        collected: uint,
        span,
        keys: fc.array(key, { maxLength: 20 }),
      })
      .map(({ span: { after, to }, ...rest }) => ({ ...rest, after, to })),
    entries: fc
      .record({
        type: type('entries'),
        question: uint,
        answered: fc.boolean(),
        reached: fc.option(key),
        collected: uint,
        found: fc.oneof(
          fc
            .array(fc.tuple(key, item), { maxLength: 20 })
            .map((all) => ({ keys: all.map(([k]) => k), items: all.map(([, one]) => one), rows: [] })),
          records.map(({ keys, rows }) => ({ keys, items: [], rows })),
        ),
      })
      .map(({ found, ...rest }) => ({ ...rest, ...found })),
  };

export const anyMessage: fc.Arbitrary<PeerMessage> = fc.oneof(...Object.values(messages));
