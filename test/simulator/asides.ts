/**
 * What a host does about a store that the cluster went on without, as the production driver does it (src/node/node.ts,
 * src/node/returning.ts): the store is set aside, an empty one takes its place under the same name, joins by way of the
 * members that the old one knew, and once it holds what the others hold, what only the old store held is written once
 * more, or kept for the operator.
 */
import { KnownToAll, retryOf, verdictOn } from '../../src/core/returning.js';
import type { Row } from '../../src/core/types.js';
import type { Image } from './disk.js';
import type { SimNode } from './node.js';

/** How soon it is noticed that a store has had its time, how often the next one is looked at, ms. */
const NOTICE_MS = 50;
const LOOK_MS = 250;
const RETRY_MS = 1_000;
const ACK_MS = 10_000;

export class Asides {
  readonly #node: SimNode;
  /** Stores that were set aside and are yet to be read to the end. */
  images: Image[] = [];
  /** What was too old to come back by itself: the file that the operator gets. */
  readonly kept = new Map<string, Row>();
  /** Where the members were that the old store knew. */
  addresses: readonly string[] = [];
  /** What becomes of an entry; bugs are planted here. */
  judge: typeof verdictOn = verdictOn;
  /** False: an outdated node stays so. */
  enabled = true;
  /** The incarnation that is being replaced, or that reads. */
  #replacing = -1;
  #reading = -1;

  constructor(node: SimNode) {
    this.#node = node;
  }

  /** Nothing waits to be brought back. */
  get isDone(): boolean {
    return this.images.length === 0;
  }

  /** An empty disk has taken the place of this one. */
  wipe(): void {
    this.images = [];
    this.kept.clear();
    this.addresses = [];
  }

  /** The core has taken an input. */
  watch(): void {
    const { core, incarnation } = this.#node;
    if (this.enabled && core?.identity.phase === 'outdated' && this.#replacing !== incarnation) {
      this.#replacing = incarnation;
      this.#node.later(NOTICE_MS, () => this.#replace());
    }
    if (core?.ready === true && this.images.length > 0 && this.#reading !== incarnation) {
      this.#reading = incarnation;
      const since = this.#node.now().mono;
      this.#node.later(LOOK_MS, () => this.#read(since));
    }
  }

  #replace(): void {
    const node = this.#node;
    const members = node.core!.memberViews().filter(({ self, address }) => !self && address !== '');
    const addresses = [...new Set([...(node.settings.join ?? []), ...members.map(({ address }) => address)])];
    // Without anybody to copy from it keeps what it has.
    if (addresses.length === 0) return void node.later(RETRY_MS, () => this.#replace());
    this.addresses = addresses;
    node.world.ledger.note(node.name, () => 'sets its store aside');
    node.world.ledger.mattered('setAside');
    node.kill();
    this.images.push(node.disk.image);
    node.setAside();
    node.start();
  }

  #read(since: number): void {
    const node = this.#node;
    const core = node.core!;
    if (!core.coversAnnouncedSince(since)) return void node.later(LOOK_MS, () => this.#read(since));
    const image = this.images[0];
    if (image === undefined) return;
    const back: [string, Row][] = [];
    const kept: [string, Row][] = [];
    const known = new KnownToAll(image);
    for (const [key, row] of image.rows) {
      if (image.lookup(key) === 'damaged') continue;
      const verdict = this.judge(core, known, key, row);
      if (verdict === 'return') back.push([key, row]);
      if (verdict === 'keep') kept.push([key, row]);
    }
    for (const [key, row] of kept) this.kept.set(key, row);
    this.#bringBack(back, (isDone) => {
      if (!isDone) return void node.later(RETRY_MS, () => this.#read(since));
      if (back.length > 0) node.world.ledger.mattered('returned');
      this.images.shift();
      node.world.oracle.asideRead(node, image);
      node.later(LOOK_MS, () => this.#read(since));
    });
  }

  /** Acknowledged by as many hosts as any write; what is not is decided anew. */
  #bringBack(rows: readonly [string, Row][], then: (isDone: boolean) => void): void {
    let left = rows.length;
    let isDone = true;
    if (left === 0) return then(true);
    const writes = rows.map(([key, row]) => [retryOf(key, row)]);
    const fsync = this.#node.disk.flushes;
    this.#node.writeAll(writes, { timeoutMs: ACK_MS, fsync }, ({ ok }) => {
      isDone &&= ok;
      // Where the process has ended, the next one begins anew.
      if (--left === 0 && this.#node.alive) this.#node.later(0, () => then(isDone));
    });
  }
}
