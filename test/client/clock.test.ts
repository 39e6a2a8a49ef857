/** How a light client stamps: rising, on the hosts' time, whatever its own clock says. */
import { describe, expect, test } from 'vitest';
import { ClientClock, type ClockVote, consecutiveStamps } from '../../src/client/clock.js';
import { stampCounter, stampMs, stampToHex, textOfStamp } from '../../src/core/hlc.js';
import { client, clientOfAll, host } from './support.js';

const HOUR = 3_600_000;

/** A clock on settable time, and its hosts. */
function clockAt(wall: number) {
  const time = { wall, mono: 1_000 };
  const votes: (ClockVote & { isOpen: boolean })[] = [];
  const clock = new ClientClock(() => votes.filter((vote) => vote.isOpen), {
    wall: () => time.wall,
    mono: () => time.mono,
  });
  const addHost = (): ClockVote & { isOpen: boolean } => {
    const vote = { clockOffset: undefined, isOpen: true };
    votes.push(vote);
    return vote;
  };
  const writerOf = (stamp: Uint8Array): string => stampToHex(stamp).slice(16);
  return { time, clock, addHost, writerOf };
}

describe('the clock', () => {
  test('follows the only host, however far its own machine is off, either way', () => {
    for (const off of [-HOUR, HOUR]) {
      const { clock, addHost } = clockAt(10 * HOUR + off);
      clock.heard(addHost(), 10 * HOUR, 0);
      expect(stampMs(clock.stamp(1))).toBe(10 * HOUR);
    }
  });

  test('goes on with the time that elapses, not with the wall clock', () => {
    const { clock, time, addHost } = clockAt(0);
    clock.heard(addHost(), 10 * HOUR, 0);
    time.mono += 250;
    time.wall += HOUR;
    expect(stampMs(clock.stamp(1))).toBe(10 * HOUR + 250);
  });

  test('is not dragged along by one host of several', () => {
    for (const off of [-HOUR, HOUR, 87_600 * HOUR]) {
      const { clock, addHost } = clockAt(100_000 * HOUR);
      clock.heard(addHost(), 100_000 * HOUR + off, 0);
      clock.heard(addHost(), 100_000 * HOUR, 0);
      const third = addHost();
      clock.heard(third, 100_000 * HOUR + 3, 0);
      const ms = stampMs(clock.stamp(1));
      expect(ms).toBeGreaterThanOrEqual(100_000 * HOUR);
      expect(ms).toBeLessThanOrEqual(100_000 * HOUR + 3);
    }
  });

  test('stamps above everything it was told within the drift bound', () => {
    const { clock, addHost } = clockAt(HOUR);
    const one = addHost();
    clock.heard(one, HOUR, 0);
    clock.heard(addHost(), HOUR + 4_000, 77);
    clock.heard(one, HOUR, 5);
    const stamp = clock.stamp(1);
    expect([stampMs(stamp), stampCounter(stamp)]).toEqual([HOUR + 4_000, 78]);
  });

  test('rises within a millisecond, over a full counter, and while time stands still', () => {
    const { clock, addHost } = clockAt(HOUR);
    clock.heard(addHost(), HOUR, 0xfff0);
    const stamps: string[] = [];
    for (let i = 0; i < 100; i++) stamps.push(...consecutiveStamps(clock.stamp(3), 3).map(textOfStamp));
    expect(stamps).toEqual([...stamps].sort());
    expect(new Set(stamps).size).toBe(300);
    expect(new Set(stamps.map((stamp) => stamp.slice(16))).size).toBe(1);
  });

  test('takes a new writer id when the stamps given turn out to be of the future', () => {
    const { clock, addHost, writerOf } = clockAt(10 * HOUR);
    const wrong = addHost();
    clock.heard(wrong, 11 * HOUR, 0);
    const first = clock.stamp(1);
    expect(stampMs(first)).toBe(11 * HOUR);
    clock.heard(addHost(), 10 * HOUR, 0);
    expect(clock.isPlausible(stampMs(first))).toBe(false);
    const second = clock.stamp(1);
    expect(stampMs(second)).toBe(10 * HOUR);
    expect(writerOf(second)).not.toBe(writerOf(first));
    expect(writerOf(clock.stamp(1))).toBe(writerOf(second));
  });

  test('is above what beat it after a write that did not win', () => {
    const { clock, addHost } = clockAt(HOUR);
    clock.heard(addHost(), HOUR + 900, 0);
    clock.lost();
    const stamp = clock.stamp(1);
    expect(stampMs(stamp)).toBe(HOUR + 901);
  });
});

describe('a client', () => {
  test('that reads a key and writes it wins over what it read, even if that is from a fast clock', async () => {
    const only = await host();
    const stamp = Buffer.alloc(16, 0xff);
    stamp.writeUIntBE(Date.now() + 4_000, 0, 6);
    stamp.writeUInt16BE(500, 6);
    only.service.apply('k', 'theirs', stamp);
    const store = await client([only]);
    expect(await store.get('k')).toBe('theirs');
    expect(await store.put('k', 'ours')).toMatchObject({ superseded: false });
    expect(await store.get('k')).toBe('ours');
  });

  test('whose write did not win learns it, and wins with the next', async () => {
    const only = await host({}, { clockOffsetMs: 3_000 });
    const stamp = Buffer.alloc(16, 0xff);
    stamp.writeUIntBE(Date.now() + 2_900 + 3_000, 0, 6);
    only.service.apply('k', 'theirs', stamp);
    const store = await client([only]);
    expect(await store.put('k', 'ours')).toMatchObject({ superseded: true });
    only.service.clockOffsetMs = 6_000;
    expect(await store.put('k', 'ours')).toMatchObject({ superseded: expect.any(Boolean) });
    expect(await store.put('k', 'ours')).toMatchObject({ superseded: false });
  });

  test('stamps on the time of a host whose clock is an hour behind its own', async () => {
    const only = await host({}, { clockOffsetMs: -HOUR });
    const store = await client([only]);
    const { stamp } = await store.put('k', 1);
    expect(Number.parseInt(stamp.slice(0, 12), 16)).toBeLessThan(Date.now() - HOUR + 60_000);
  });

  test('has writers of different ids in different clients, and one id in each', async () => {
    const only = await host();
    const [one, two] = [await client([only]), await client([only])];
    const stamps = await Promise.all([one.put('a', 1), one.put('b', 2), two.put('c', 3)]);
    const writers = stamps.map(({ stamp }) => stamp.slice(16));
    expect(writers[0]).toBe(writers[1]);
    expect(writers[2]).not.toBe(writers[0]);
  });

  test('gives a write a new stamp when the first came from a host with a wrong clock', async () => {
    const wrong = await host({}, { clockOffsetMs: HOUR });
    const right = await host();
    const store = await client([wrong]);
    const { stamp } = await store.put('a', 1);
    expect(Number.parseInt(stamp.slice(0, 12), 16)).toBeGreaterThan(Date.now() + HOUR - 60_000);
    await store.close();
    // Both are known now: two against one, this machine included.
    const other = await clientOfAll([wrong, right]);
    const receipt = await other.put('b', 1);
    expect(Number.parseInt(receipt.stamp.slice(0, 12), 16)).toBeLessThan(Date.now() + 60_000);
  });
});
