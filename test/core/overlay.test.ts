import { describe, expect, test } from 'vitest';
import type { PeerMessage } from '../../src/core/messages.js';
import {
  Bench,
  linksOf,
  name,
  OWN,
  origin,
  pulse,
  push,
  relayed,
  type Sent,
  sent,
  WALL,
} from './one-member.js';

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

  test('asks for a second way in where three others depend on this node, and only there', () => {
    const bench = new Bench();
    for (const i of [1, 2, 3, 4, 5]) bench.link(i);
    round(bench, 1, [1, 2, 3, 4, 5]);
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
    expect(sends.map(({ message }) => message)).toMatchObject([
      { type: 'pulse', origin: OWN, counter: WALL + 51, suspect: false },
    ]);
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
