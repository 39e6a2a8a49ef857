import { describe, expect, test } from 'vitest';
import { NO_REPORT } from '../../src/core/horizon.js';
import type { PeerMessage } from '../../src/core/messages.js';
import { OFFERED_MAX } from '../../src/core/offers.js';
import { Bench, linksOf, origin, push, type Sent } from './one-member.js';

/** After this an offer is on its way. */
const OFFER_MS = 5;
/** After half of this at the earliest, and all of it at the latest, a frame that did not come is asked for. */
const PATIENCE_MS = 80;

const offer = (of: number, ...to: number[]): PeerMessage => ({
  type: 'offer',
  frames: to.map((end) => [origin(of), end]),
});
const fetch = (of: number, ...to: number[]): PeerMessage =>
  ({ ...offer(of, ...to), type: 'fetch' }) as PeerMessage;

function linked(count: number, members = 20): Bench {
  const bench = new Bench(members);
  for (let i = 1; i <= count; i++) bench.link(i);
  return bench;
}

function framesIn(sends: readonly Sent[], type: 'offer' | 'fetch'): [link: number, frame: string][] {
  return sends.flatMap(({ links, message }) =>
    message.type === type
      ? message.frames.map(([of, to]): [number, string] => [links[0]!, `${Number.parseInt(of, 16)}:${to}`])
      : [],
  );
}

describe('a frame that is passed on', () => {
  test('is offered on the links that it does not go out on, and not to where it comes from', () => {
    const bench = linked(4);
    for (const i of [2, 3]) bench.tell(i, { type: 'prune', origins: [origin(9)] });
    expect(linksOf(bench.tell(1, push(9, 0, 1)), 'push')).toEqual([4]);
    expect(framesIn(bench.pass(OFFER_MS), 'offer')).toEqual([
      [2, '9:1'],
      [3, '9:1'],
    ]);
  });

  test('goes neither to a peer that has offered it, nor is it offered to that one', () => {
    const bench = linked(4);
    for (const i of [2, 3]) bench.tell(i, { type: 'prune', origins: [origin(9)] });
    bench.tell(2, offer(9, 1));
    bench.tell(4, offer(9, 1));
    expect(linksOf(bench.tell(1, push(9, 0, 1)), 'push')).toEqual([]);
    expect(framesIn(bench.pass(OFFER_MS), 'offer')).toEqual([[3, '9:1']]);
  });

  test('is sent to whoever asks for it, for some seconds', () => {
    const bench = linked(3);
    bench.tell(1, push(9, 0, 1));
    const [answer] = bench.tell(2, fetch(9, 1));
    expect(answer).toMatchObject({ links: [2], message: { type: 'push', from: 0, to: 1, keys: ['k1'] } });
    expect(bench.tell(2, fetch(9, 2))).toEqual([]);
    for (let second = 0; second < 7; second++) {
      for (const i of [1, 2, 3]) bench.tell(i, { type: 'chunk-ack', session: 1, count: 0 });
      bench.pass(1_000);
    }
    expect(bench.tell(2, fetch(9, 1))).toEqual([]);
  });

  test('is not offered in a mesh where everybody sends to everybody', () => {
    const bench = linked(3, 5);
    bench.tell(1, { type: 'prune', origins: [origin(4)] });
    bench.tell(2, push(4, 0, 1));
    expect(framesIn(bench.pass(OFFER_MS), 'offer')).toEqual([]);
    bench.tell(3, fetch(4, 1));
  });

  test('is kept with few others: the oldest are dropped', () => {
    const bench = linked(2);
    for (let to = 1; to <= 1_100; to++) bench.tell(1, push(9, to - 1, to));
    expect(bench.tell(2, fetch(9, 1))).toEqual([]);
    expect(linksOf(bench.tell(2, fetch(9, 1_100)), 'push')).toEqual([2]);
  });
});

describe('a frame that is offered', () => {
  test('is asked for once it has not come by itself for a while', () => {
    const bench = linked(3);
    bench.tell(1, offer(9, 1));
    expect(framesIn(bench.pass(PATIENCE_MS / 2 - 1), 'fetch')).toEqual([]);
    expect(framesIn(bench.pass(PATIENCE_MS / 2 + 1), 'fetch')).toEqual([[1, '9:1']]);
  });

  test('is not asked for if it has come by itself', () => {
    const bench = linked(3);
    bench.tell(1, offer(9, 1));
    bench.tell(2, push(9, 0, 1));
    expect(framesIn(bench.pass(PATIENCE_MS), 'fetch')).toEqual([]);
    bench.tell(3, offer(9, 1));
    expect(framesIn(bench.pass(PATIENCE_MS), 'fetch')).toEqual([]);
  });

  test('is asked for elsewhere when the one that was asked does not answer or is gone, each once', () => {
    const bench = linked(3);
    for (const i of [1, 2, 3]) bench.tell(i, offer(9, 1));
    const [[first]] = framesIn(bench.pass(PATIENCE_MS), 'fetch') as [[number, string]];
    const others = [1, 2, 3].filter((i) => i !== first);
    bench.give({ type: 'link-closed', link: others[0]! });
    expect(framesIn(bench.pass(10 * PATIENCE_MS), 'fetch')).toEqual([[others[1], '9:1']]);
    expect(framesIn(bench.pass(10 * PATIENCE_MS), 'fetch')).toEqual([]);
  });

  test('behind a gap is taken and passed on', () => {
    const bench = linked(3);
    bench.tell(1, offer(9, 5));
    expect(framesIn(bench.pass(PATIENCE_MS), 'fetch')).toEqual([[1, '9:5']]);
    expect(linksOf(bench.tell(1, push(9, 4, 5)), 'push')).toEqual([2, 3]);
  });

  test('is one of a bounded number that are waited for, and that one message names', () => {
    const bench = linked(1);
    for (let i = 0; i < 10; i++)
      bench.tell(1, offer(9, ...Array.from({ length: OFFERED_MAX }, (_, at) => i * OFFERED_MAX + at + 1)));
    const asked = [bench.pass(PATIENCE_MS), bench.pass(PATIENCE_MS), bench.pass(1_000)].map(
      (sends) => framesIn(sends, 'fetch').length,
    );
    expect(asked[0]).toBe(OFFERED_MAX);
    expect(asked[0]! + asked[1]! + asked[2]!).toBeLessThanOrEqual(1_024);
  });

  test('by a member of another founding is not asked for', () => {
    const bench = linked(1);
    bench.tell(1, {
      type: 'beat',
      wallMs: 1_767_225_600_000,
      phase: 'ready',
      clusterUid: 'e'.repeat(16),
      alone: false,
      vectorHash: '0'.repeat(16),
      membersHash: '0'.repeat(16),
      whole: false,
      vector: [],
      report: NO_REPORT,
    });
    bench.tell(1, offer(9, 1));
    expect(framesIn(bench.pass(PATIENCE_MS), 'fetch')).toEqual([]);
  });
});
