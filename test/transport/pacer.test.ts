import { expect, test } from 'vitest';
import { type Inbox, Pacer } from '../../src/transport/pacer.js';

function setUp(sliceMs: number, framesMax = 1_000, bytesMax = 1_000_000) {
  const pacer = new Pacer(sliceMs);
  const log: string[] = [];
  let act: (inbox: Inbox, name: string) => void = () => {};
  const inbox = (name: string): Inbox => {
    const made: Inbox = pacer.inbox(
      { bytesMax, framesMax },
      {
        onFrame: (bytes) => {
          log.push(`${name}${bytes[0]}`);
          act(made, `${name}${bytes[0]}`);
        },
        onEnd: () => log.push(`${name} end`),
        pause: () => log.push(`${name} pause`),
        resume: () => log.push(`${name} resume`),
      },
    );
    return made;
  };
  return {
    pacer,
    log,
    inbox,
    act: (action: typeof act) => {
      act = action;
    },
  };
}

const byte = (value: number): Uint8Array => Uint8Array.of(value);

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}

test('a frame is never handed out while it is being pushed', async () => {
  const { log, inbox } = setUp(5);
  inbox('a').push(byte(1));
  expect(log).toEqual([]);
  await turns(1);
  expect(log).toEqual(['a1']);
});

test('the event loop turns between slices, however many frames wait', async () => {
  const { log, inbox, pacer } = setUp(0);
  const a = inbox('a');
  for (let i = 0; i < 50; i++) a.push(byte(i));
  let turnsSeen = 0;
  while (log.length < 50) {
    const before = log.length;
    await turns(1);
    turnsSeen++;
    // A slice of no length hands out one frame.
    expect(log.length - before).toBeLessThanOrEqual(1);
  }
  expect(turnsSeen).toBeGreaterThanOrEqual(50);
  expect(pacer.slices).toBe(50);
});

test('links take turns frame by frame, and each keeps its order', async () => {
  const { log, inbox } = setUp(0);
  const [a, b] = [inbox('a'), inbox('b')];
  for (let i = 0; i < 4; i++) a.push(byte(i));
  b.push(byte(0));
  b.push(byte(1));
  await turns(8);
  expect(log).toEqual(['a0', 'b0', 'a1', 'b1', 'a2', 'a3']);
});

test('a full inbox pauses its socket, and resumes it at a quarter', async () => {
  const { log, inbox } = setUp(0, 8);
  const a = inbox('a');
  for (let i = 0; i < 9; i++) a.push(byte(i));
  expect(log).toEqual(['a pause']);
  expect(a.paused).toBe(true);
  a.push(byte(9));
  await turns(20);
  expect(log).toEqual(['a pause', 'a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a resume', 'a7', 'a8', 'a9']);
  expect(a.paused).toBe(false);
  expect([a.bytes, a.frames]).toEqual([0, 0]);
});

test('bytes fill an inbox as frames do', async () => {
  const { log, inbox } = setUp(5, 1_000, 100);
  const a = inbox('a');
  a.push(new Uint8Array(100));
  expect(log).toEqual([]);
  a.push(new Uint8Array(1));
  expect(log).toEqual(['a pause']);
  await turns(1);
  expect(log).toEqual(['a pause', 'a resume', 'a0', 'a0']);
});

test('what came before the end is handed out before it, once', async () => {
  const { log, inbox } = setUp(0);
  const a = inbox('a');
  a.push(byte(1));
  a.push(byte(2));
  a.end();
  a.end();
  a.push(byte(3));
  await turns(6);
  expect(log).toEqual(['a1', 'a2', 'a end']);
});

test('a dropped inbox is silent, even when its own frame drops it', async () => {
  const { log, inbox, act } = setUp(5);
  const [a, b] = [inbox('a'), inbox('b')];
  act((made, name) => {
    if (name === 'a1') made.drop();
  });
  for (let i = 0; i < 3; i++) a.push(byte(i));
  a.end();
  b.push(byte(0));
  b.drop();
  b.push(byte(1));
  await turns(4);
  expect(log).toEqual(['a0', 'a1']);
});

test('frames pushed and an end called while one is handled come later, in order', async () => {
  const { log, inbox, act } = setUp(5);
  const a = inbox('a');
  act((made, name) => {
    if (name !== 'a0') return;
    made.push(byte(1));
    made.end();
  });
  a.push(byte(0));
  await turns(4);
  expect(log).toEqual(['a0', 'a1', 'a end']);
});

test('a long-lived queue that never runs empty does not keep what it handed out', async () => {
  const { log, inbox, act } = setUp(0, 4);
  const a = inbox('a');
  let left = 100;
  act((made) => {
    if (left-- > 0) made.push(byte(0));
  });
  a.push(byte(0));
  a.push(byte(0));
  await turns(150);
  expect(log).toHaveLength(102);
  expect([a.bytes, a.frames]).toEqual([0, 0]);
});
