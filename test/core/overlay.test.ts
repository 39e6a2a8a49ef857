import { describe, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { encodeMeta } from '../../src/core/core.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { stampBytes } from '../../src/core/hlc.js';
import type { Effect, Input } from '../../src/core/io.js';
import type { PeerMessage, Push } from '../../src/core/messages.js';
import { ReplicaCore } from '../../src/core/replica.js';
import { CORE_DEFAULTS } from '../../src/options.js';

const WALL = 1_767_225_600_000;
const UID = 'c'.repeat(16);
const OWN = 'a'.repeat(16);
/** Members beyond a full mesh; those named here are linked. */
const COUNT = 20;
const origin = (i: number): string => i.toString(16).padStart(16, '0');
const name = (i: number): string => `m${i.toString().padStart(2, '0')}`;

interface Sent {
  readonly links: readonly number[];
  readonly message: PeerMessage;
}

/** One member of a large cluster, whose links this test holds the other ends of. */
class Bench {
  readonly core: ReplicaCore;
  now = 0;
  /** On its way to the disk. */
  #batch: number | undefined;

  constructor(members = COUNT) {
    const rows = Array.from({ length: members }, (_, i) => ({
      name: name(i),
      host: name(i),
      address: `${name(i)}:1`,
      origin: i === 0 ? OWN : origin(i),
      stamp: `0190000000000000${origin(i)}`,
    }));
    const node = { cluster: 'c', name: name(0), uid: UID, origin: OWN, phase: 'ready', founder: false };
    const meta = new Map([
      ['node', encodeMeta(node)],
      ['members', encodeMeta({ rows, removed: [] })],
    ]);
    let draws = 0;
    this.core = new ReplicaCore(
      {
        cluster: 'c',
        name: name(0),
        host: name(0),
        address: `${name(0)}:1`,
        join: [],
        found: false,
        run: 'f'.repeat(16),
        reuseOrigin: true,
        flushes: true,
        options: CORE_DEFAULTS,
      },
      {
        lookup: () => undefined,
        checksum,
        random: () => ((draws++ * 7) % 10) / 10,
        recovered: { heads: new Map(), tops: new Map(), hlc: { ms: 0, counter: 0 }, meta },
      },
    );
    this.give({ type: 'start' });
  }

  give(input: Input): readonly Effect[] {
    const effects = this.core.handle(input, { wall: WALL + this.now, mono: this.now });
    for (const effect of effects) if (effect.type === 'persist') this.#batch = effect.batch.id;
    return effects;
  }

  /** The disk writes all that waits for it. */
  flush(): void {
    for (let batch = this.#batch; batch !== undefined; batch = this.#batch) {
      this.#batch = undefined;
      this.give({ type: 'persisted', batch });
    }
  }

  /** What it sends on being told this on that link. */
  tell(link: number, message: PeerMessage): Sent[] {
    return sent(this.give({ type: 'message', link, message }));
  }

  /** Time passes, and whatever is due happens. */
  pass(ms: number): Sent[] {
    this.now += ms;
    return sent(this.give({ type: 'tick' }));
  }

  /** A link to member i, which has i as its number. */
  link(i: number, dialed = false): Sent[] {
    this.give({ type: 'link-opened', link: i, dialed: dialed ? `${name(i)}:1` : undefined });
    return this.tell(i, {
      type: 'hello',
      version: 1,
      cluster: 'c',
      clusterUid: UID,
      name: name(i),
      host: name(i),
      address: `${name(i)}:1`,
      origin: origin(i),
      run: origin(i),
      phase: 'ready',
      alone: false,
      wallMs: WALL + this.now,
      head: 0,
    });
  }
}

function sent(effects: readonly Effect[]): Sent[] {
  return effects.filter((effect) => effect.type === 'send');
}

function linksOf(sends: readonly Sent[], type: PeerMessage['type']): number[] {
  return sends
    .filter(({ message }) => message.type === type)
    .flatMap(({ links }) => links)
    .sort((a, b) => a - b);
}

/** Pulses of that origin. */
function relayed(sends: readonly Sent[], of: string): Sent[] {
  return sends.filter(({ message }) => message.type === 'pulse' && message.origin === of);
}

function push(of: number, from: number, to: number): Push {
  const stamp = stampBytes(WALL, to, origin(of));
  const row = makeRow(
    `k${to}`,
    { kind: KIND_REGISTER, stamp, origin: origin(of), seq: to, value: new Uint8Array(3) },
    checksum,
  );
  return { type: 'push', frame: 0, origin: origin(of), from, to, keys: [`k${to}`], rows: [row] };
}

const pulse = (of: string, counter: number, suspect = false): PeerMessage => ({
  type: 'pulse',
  origin: of,
  counter,
  suspect,
});

describe('a relay', () => {
  test('passes a frame on before it is written, to all but its sender and its origin', () => {
    const bench = new Bench();
    for (const i of [1, 2, 3]) bench.link(i);
    expect(linksOf(bench.tell(1, push(9, 0, 1)), 'push')).toEqual([2, 3]);
    expect(linksOf(bench.tell(2, push(3, 0, 1)), 'push')).toEqual([1]);
  });

  test('passes a frame behind a gap on once, however often it comes', () => {
    const bench = new Bench();
    for (const i of [1, 2, 3]) bench.link(i);
    expect(linksOf(bench.tell(1, push(9, 5, 6)), 'push')).toEqual([2, 3]);
    for (const link of [2, 3, 1]) expect(linksOf(bench.tell(link, push(9, 5, 6)), 'push')).toEqual([]);
  });
});

/** After this a pulse that came counts, and goes on; what it makes unwanted is told with the next beat. */
const HELD_MS = 10;

describe('the tree of an origin', () => {
  /** Pulses of member 9 come by these links, in this order; counters rise. */
  function round(bench: Bench, counter: number, links: readonly number[]): Sent[] {
    const out = links.flatMap((link) => bench.tell(link, pulse(origin(9), counter)));
    return [...out, ...bench.pass(HELD_MS), ...bench.pass(1_000 - HELD_MS)];
  }

  test('has the first to bring a pulse as parent, and asks the others to announce only', () => {
    const bench = new Bench();
    for (const i of [1, 2, 3]) bench.link(i);
    const sends = round(bench, 1, [2, 1, 3]);
    expect(linksOf(sends, 'graft')).toEqual([2]);
    expect(linksOf(sends, 'prune')).toEqual([1, 3]);
    expect(linksOf(relayed(sends, origin(9)), 'pulse')).toEqual([1, 3]);
  });

  test('turns to the next best at once when the link to the parent goes', () => {
    const bench = new Bench();
    for (const i of [1, 2, 3]) {
      bench.link(i);
      bench.tell(i, { type: 'prune', origins: [origin(9)] });
    }
    round(bench, 1, [2, 1, 3]);
    const sends = sent(bench.give({ type: 'link-closed', link: 2 }));
    expect(linksOf(sends, 'graft')).toEqual([1]);
  });

  test('keeps a parent that was late once, and replaces one that is late again', () => {
    const bench = new Bench();
    for (const i of [1, 2]) {
      bench.link(i);
      bench.tell(i, { type: 'prune', origins: [origin(9)] });
    }
    round(bench, 1, [2, 1]);
    for (const counter of [2, 3]) {
      bench.tell(1, pulse(origin(9), counter));
      expect(linksOf(bench.pass(250), 'graft')).toEqual([]);
      bench.tell(2, pulse(origin(9), counter));
      bench.pass(750);
    }
    bench.tell(1, pulse(origin(9), 4));
    expect(linksOf(bench.pass(HELD_MS), 'graft')).toEqual([1]);
  });

  test('does not hang on a peer that hangs on this node', () => {
    const bench = new Bench();
    for (const i of [1, 2]) {
      bench.link(i);
      bench.tell(i, { type: 'prune', origins: [origin(9)] });
    }
    round(bench, 1, [2, 1]);
    expect(linksOf(bench.tell(2, { type: 'graft', origins: [origin(9)] }), 'graft')).toEqual([1]);
    expect(linksOf(bench.tell(1, push(9, 0, 1)), 'push')).toEqual([2]);
  });

  test('asks for a second way in where two others depend on this node, and only there', () => {
    const bench = new Bench();
    for (const i of [1, 2, 3, 4]) bench.link(i);
    round(bench, 1, [1, 2, 3, 4]);
    bench.tell(2, { type: 'prune', origins: [origin(9)] });
    expect(linksOf(round(bench, 2, [1, 2]), 'graft')).toEqual([2]);
    bench.tell(3, { type: 'prune', origins: [origin(9)] });
    expect(linksOf(round(bench, 3, [1, 2]), 'prune')).toEqual([2]);
  });

  test('of an origin that is no member is not kept', () => {
    const bench = new Bench();
    for (const i of [1, 2]) bench.link(i);
    expect(bench.tell(1, pulse('d'.repeat(16), 1))).toEqual([]);
    expect(relayed(bench.pass(1_000), 'd'.repeat(16))).toEqual([]);
  });
});

describe('a suspicion', () => {
  test('of this node is answered with a newer sign of life', () => {
    const bench = new Bench();
    for (const i of [1, 2]) bench.link(i);
    const sends = bench
      .tell(1, pulse(OWN, WALL + 50, true))
      .filter(({ message }) => message.type === 'pulse');
    expect(sends.map(({ message }) => message)).toEqual([pulse(OWN, WALL + 51)]);
    expect(linksOf(sends, 'pulse')).toEqual([1, 2]);
  });

  test('of another is believed until that one is heard again, and passed on', () => {
    const bench = new Bench();
    for (const i of [1, 2]) bench.link(i);
    bench.tell(1, pulse(origin(9), 1));
    expect(bench.core.detector.state(origin(9), bench.now)).toBe('alive');
    expect(linksOf(bench.tell(1, pulse(origin(9), 1, true)), 'pulse')).toEqual([2]);
    expect(bench.core.detector.state(origin(9), bench.now)).toBe('suspect');
    bench.tell(2, pulse(origin(9), 2));
    expect(bench.core.detector.state(origin(9), bench.now)).toBe('alive');
  });

  test('is raised by whoever dialed a member, lost it and cannot get it back', () => {
    const bench = new Bench();
    bench.link(1);
    bench.link(2, true);
    bench.give({ type: 'link-closed', link: 2 });
    const suspicions: PeerMessage[] = [];
    for (let second = 1; second <= 10; second++) {
      bench.tell(1, { type: 'chunk-ack', session: 1, count: 0 });
      for (const { message } of bench.pass(1_000))
        if (message.type === 'pulse' && message.origin === origin(2)) suspicions.push(message);
      bench.give({ type: 'dial-failed', address: `${name(2)}:1`, reason: 'refused' });
    }
    expect(suspicions).toEqual([pulse(origin(2), 0, true)]);
  });
});

test('a large vector is greeted with by its hash, and spelled out only on demand', () => {
  const bench = new Bench(80);
  bench.link(1);
  for (let i = 2; i < 70; i++) bench.tell(1, push(i, 0, 1));
  bench.flush();
  const greeting = bench.link(2).find(({ message }) => message.type === 'beat')!.message;
  expect(greeting).toMatchObject({ whole: false, vector: [] });
  const [answer] = bench.tell(2, { type: 'resend', vector: true, members: false });
  const beat = answer!.message;
  expect(beat.type === 'beat' && beat.whole ? beat.vector.length : 0).toBe(68);
});
