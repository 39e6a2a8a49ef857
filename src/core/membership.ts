/**
 * The member table: level-triggered state that nodes reconcile, never a stream of events that can be missed.
 *
 * A join-semilattice of two parts: per name the row with the greatest stamp (its owner writes it), and the
 * grow-only set of origins that an operator removed. A row whose origin was removed is no member, whatever its
 * stamp; the same name may come back under a new origin, with an empty disk. Equal tables have equal hashes.
 */
import { addTo, hashText, type Lanes, lanesHex } from './hash.js';
import type { MemberRow, OriginId } from './types.js';

/** Most rows and removals a table takes; further ones are dropped, and counted by the caller. */
export const MEMBERS_MAX = 4_096;

/** Rows and removals, as they were taken into a table. */
export interface MembersNews {
  readonly rows: MemberRow[];
  readonly removed: OriginId[];
}

function wins(a: MemberRow, b: MemberRow): boolean {
  if (a.stamp !== b.stamp) return a.stamp > b.stamp;
  return JSON.stringify([a.origin, a.host, a.address]) < JSON.stringify([b.origin, b.host, b.address]);
}

export class MemberTable {
  readonly #rows = new Map<string, MemberRow>();
  readonly #removed = new Set<OriginId>();
  #hash: string | undefined;
  #active: readonly MemberRow[] | undefined;
  #origins: ReadonlySet<OriginId> | undefined;
  #addresses: ReadonlySet<string> | undefined;

  /** True if the table changed; what was news to it is added to `news`. */
  merge(rows: Iterable<MemberRow>, removed: Iterable<OriginId>, news?: MembersNews): boolean {
    let changed = false;
    for (const row of rows) {
      const old = this.#rows.get(row.name);
      if (old === undefined ? this.#rows.size >= MEMBERS_MAX : !wins(row, old)) continue;
      this.#rows.set(row.name, row);
      news?.rows.push(row);
      changed = true;
    }
    for (const origin of removed) {
      if (this.#removed.has(origin) || this.#removed.size >= MEMBERS_MAX) continue;
      this.#removed.add(origin);
      news?.removed.push(origin);
      changed = true;
    }
    if (changed) {
      this.#hash = undefined;
      this.#active = undefined;
      this.#origins = undefined;
      this.#addresses = undefined;
    }
    return changed;
  }

  /** Everything, to send or to store. */
  rows(): MemberRow[] {
    return [...this.#rows.values()];
  }

  /** Of that name, though it may have been removed. */
  row(name: string): MemberRow | undefined {
    return this.#rows.get(name);
  }

  removed(): OriginId[] {
    return [...this.#removed];
  }

  /** Members that count, ordered by name. */
  active(): readonly MemberRow[] {
    this.#active ??= [...this.#rows.values()]
      .filter((row) => !this.#removed.has(row.origin))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    return this.#active;
  }

  byName(name: string): MemberRow | undefined {
    const row = this.#rows.get(name);
    return row !== undefined && !this.#removed.has(row.origin) ? row : undefined;
  }

  isRemoved(origin: OriginId): boolean {
    return this.#removed.has(origin);
  }

  isMember(origin: OriginId): boolean {
    this.#origins ??= new Set(this.active().map((row) => row.origin));
    return this.#origins.has(origin);
  }

  /** Whether a member listens there. */
  hasAddress(address: string): boolean {
    this.#addresses ??= new Set(this.active().map((row) => row.address));
    return this.#addresses.has(address);
  }

  /** How many rows and removals it ever held: 1 means that nobody but its owner was ever here. */
  get known(): number {
    return this.#rows.size + this.#removed.size;
  }

  get hash(): string {
    if (this.#hash === undefined) {
      const sum: Lanes = { a: 0, b: 0 };
      for (const row of this.#rows.values())
        addTo(sum, hashText(JSON.stringify([row.name, row.host, row.address, row.origin, row.stamp])));
      for (const origin of this.#removed) addTo(sum, hashText(`removed:${origin}`));
      this.#hash = lanesHex(sum);
    }
    return this.#hash;
  }
}
