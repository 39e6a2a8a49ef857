/**
 * What the simulated host does with a store that the cluster went on without, as node/returning.ts does: it is set
 * aside, an empty one takes its place, and once that is filled, what only the old one held is brought back, or kept.
 */
import { compareEntries, expiresAtOf, stampHexOf, stampMsOf } from '../../src/core/entry.js';
import { KnownToAll, retryOf } from '../../src/core/returning.js';
import type { Row, StampHex } from '../../src/core/types.js';
import { compareKeys } from '../../src/storage/key-range.js';
import { Image } from './disk.js';
import { Violation } from './faults.js';
import type { SimNode } from './node.js';

const LOOK_MS = 250;
const RETRY_MS = 500;
const PAGE_ROWS = 8;

interface OldStore {
  readonly image: Image;
  /** The last key that was dealt with. */
  after: string | undefined;
  done: boolean;
}

export class SetAside {
  readonly #node: SimNode;
  readonly #stores: OldStore[] = [];
  /** The file. */
  readonly kept = new Map<string, Row>();
  /** Neither brought back nor kept, since they were over by then. */
  readonly #expired = new Map<string, Row>();
  returned = 0;
  #members: string[] | undefined;

  constructor(node: SimNode) {
    this.#node = node;
  }

  /** Something is yet to be brought back, or put into the file. */
  get isPending(): boolean {
    return this.#stores.some(({ done }) => !done);
  }

  /** An empty disk has taken the place of the host's. Returns what was set aside, and is gone. */
  wipe(): Image[] {
    this.kept.clear();
    this.#expired.clear();
    this.#members = undefined;
    return this.#stores.splice(0).map(({ image }) => image);
  }

  /** Everything is back, or in the file. */
  get isDone(): boolean {
    return this.#stores.length > 0 && this.#stores.every(({ done }) => done);
  }

  /** What the core is told of its cluster. */
  membership(
    join: readonly string[],
    found: boolean,
  ): { join: string[]; found: boolean; mustRejoin: boolean } {
    const known = this.#members ?? [];
    const mustRejoin = this.#members !== undefined;
    return { join: [...new Set([...join, ...known])], found: found && !mustRejoin, mustRejoin };
  }

  /** Whether an old store or the file has it, or had it until it was over: then it is not lost. */
  holds(key: string, stamp: StampHex): boolean {
    const has = (row: Row | undefined): boolean => row !== undefined && stampHexOf(row) >= stamp;
    return (
      has(this.kept.get(key)) ||
      has(this.#expired.get(key)) ||
      this.#stores.some(({ image, done }) => !done && has(image.rows.get(key)))
    );
  }

  replaceStore(): void {
    const node = this.#node;
    const core = node.core;
    if (core?.identity.phase !== 'outdated') return;
    const known = core.memberViews().filter((member) => !member.self);
    this.#members = known.map(({ address }) => address);
    node.kill();
    const before = node.disk.image;
    this.#stores.push({ image: before.clone(), after: undefined, done: false });
    node.disk.distrust();
    node.disk.replace(new Image());
    node.world.ledger.note(node.name, () => 'sets its store aside');
    node.world.oracle.diskChanged(node, before, true);
    node.world.oracle.damaged.delete(node);
    node.start();
  }

  /** A process begins. */
  started(): void {
    this.#awaitStep(this.#node.now().mono);
  }

  #awaitStep(since: number): void {
    if (this.#stores.every(({ done }) => done)) return;
    this.#node.later(LOOK_MS, () => {
      const core = this.#node.core!;
      if (core.ready) this.#members = undefined;
      if (core.coversAnnouncedSince(since)) this.#read(this.#stores.find(({ done }) => !done)!);
      else this.#awaitStep(since);
    });
  }

  #read(store: OldStore): void {
    const { image, after } = store;
    const keys = [...image.rows.keys()]
      .filter((key) => after === undefined || compareKeys(key, after) > 0)
      .sort(compareKeys)
      .slice(0, PAGE_ROWS);
    if (keys.length === 0) {
      store.done = true;
      this.#check(image);
      return this.started();
    }
    this.#page(store, keys, new KnownToAll({ heads: image.heads, meta: image.meta }), () => {
      store.after = keys.at(-1)!;
      this.#node.later(1, () => this.#read(store));
    });
  }

  #page(store: OldStore, keys: readonly string[], known: KnownToAll, then: () => void): void {
    const node = this.#node;
    const core = node.core!;
    const again = (): void => node.later(RETRY_MS, () => this.#page(store, keys, known, then));
    if (!core.ready) return again();
    const back: [string, Row][] = [];
    for (const key of keys) {
      if (store.image.lookup(key) === 'damaged') continue;
      const row = store.image.rows.get(key)!;
      const verdict = core.verdictOn(known, key, row);
      if (verdict === 'keep') this.kept.set(key, row);
      else if (verdict === 'expired') this.#expired.set(key, row);
      else if (verdict === 'return') back.push([key, row]);
    }
    if (back.length === 0) return then();
    const { flushes } = node.disk;
    node.write(
      back.map(([key, row]) => retryOf(key, row)),
      { fsync: flushes },
      (result) => {
        if (!result.ok) return again();
        this.returned += back.length;
        node.world.ledger.mattered('returned');
        then();
      },
    );
  }

  /** Nothing of it is lost; nothing that may be brought back is left to an operator. */
  #check(image: Image): void {
    const { world, name } = this.#node;
    for (const [key, row] of image.rows) {
      if (image.lookup(key) === 'damaged') continue;
      const isOver = (expiresAtOf(row) ?? Number.POSITIVE_INFINITY) <= this.#node.wall();
      const holders = world.nodes.filter(({ disk }) => {
        const held = disk.image.rows.get(key);
        return held !== undefined && compareEntries(held, row) >= 0;
      });
      const isHeld = holders.length > 0 || world.oracle.graves.covers(key, row);
      if (!isHeld && !isOver && !this.kept.has(key))
        throw new Violation('return', `${name} drops ${key}, which only its old store held`);
      const isLate = this.#node.wall() - stampMsOf(row) > world.options.lateRetryMs / 2;
      if (this.kept.has(key) && !isLate)
        throw new Violation(
          'return',
          `${name} leaves ${key} to an operator, though it is not too late for it`,
        );
    }
  }
}
