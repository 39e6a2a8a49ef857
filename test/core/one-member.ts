/** One member of a large cluster, whose links a test holds the other ends of. */

import { checksum } from '../../src/checksum.js';
import { encodeMeta } from '../../src/core/core.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { stampBytes } from '../../src/core/hlc.js';
import { NO_REPORT } from '../../src/core/horizon.js';
import type { Effect, Input } from '../../src/core/io.js';
import type { PeerMessage, Push } from '../../src/core/messages.js';
import { ReplicaCore } from '../../src/core/replica.js';
import { CORE_DEFAULTS } from '../../src/options.js';

export const WALL = 1_767_225_600_000;
export const UID = 'c'.repeat(16);
export const OWN = 'a'.repeat(16);
/** Members beyond a full mesh; those named here are linked. */
export const COUNT = 20;
export const origin = (i: number): string => i.toString(16).padStart(16, '0');
export const name = (i: number): string => `m${i.toString().padStart(2, '0')}`;

export interface Sent {
  readonly links: readonly number[];
  readonly message: PeerMessage;
}

export class Bench {
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
      this.give({ type: 'flushed', batch });
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

export function sent(effects: readonly Effect[]): Sent[] {
  return effects.filter((effect) => effect.type === 'send');
}

export function linksOf(sends: readonly Sent[], type: PeerMessage['type']): number[] {
  return sends
    .filter(({ message }) => message.type === type)
    .flatMap(({ links }) => links)
    .sort((a, b) => a - b);
}

/** Pulses of that origin. */
export function relayed(sends: readonly Sent[], of: string): Sent[] {
  return sends.filter(({ message }) => message.type === 'pulse' && message.origin === of);
}

export function push(of: number, from: number, to: number): Push {
  const stamp = stampBytes(WALL, to, origin(of));
  const row = makeRow(
    `k${to}`,
    { kind: KIND_REGISTER, stamp, origin: origin(of), seq: to, value: new Uint8Array(3) },
    checksum,
  );
  return { type: 'push', frame: 0, origin: origin(of), from, to, keys: [`k${to}`], rows: [row] };
}

export const pulse = (of: string, counter: number, suspect = false): PeerMessage => ({
  type: 'pulse',
  origin: of,
  counter,
  suspect,
  membersHash: '',
  report: NO_REPORT,
});
