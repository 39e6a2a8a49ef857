/**
 * The member table: level-triggered state that nodes reconcile, never a stream of events that can be missed.
 *
 * A join-semilattice of three parts: per name the row with the greatest stamp (its owner writes it), the grow-only
 * set of origins that an operator removed, and the grow-only set of those that a majority has excluded
 * (exclusion.ts). A row whose origin was removed or excluded is no member, whatever its stamp; the same name may come
 * back under a new origin, with an empty disk. Equal tables have equal hashes.
 */
import { addTo, hashText, type Lanes, lanesHex } from './hash.js';
import type { Excluded, MemberRow, OriginId } from './types.js';

/** Most rows, removals and exclusions a table takes; further ones are dropped, and counted by the caller. */
export const MEMBERS_MAX = 4_096;
/** Most members that one member votes to exclude: the smallest origins come first, so that all vote for the same ones. */
export const SILENT_MAX = 64;

/** Rows, removals and exclusions, as they were taken into a table. */
export interface MembersNews {
  readonly rows: MemberRow[];
  readonly removed: OriginId[];
  readonly excluded: Excluded[];
}

export function noNews(): MembersNews {
  return { rows: [], removed: [], excluded: [] };
}

function textOf({ name, host, address, origin, stamp, silent = [] }: MemberRow): string {
  return JSON.stringify([name, host, address, origin, stamp, ...silent]);
}

function wins(a: MemberRow, b: MemberRow): boolean {
  return a.stamp !== b.stamp ? a.stamp > b.stamp : textOf(a) < textOf(b);
}

/** Those who saw it at the same time may have known different names. */
function isEarlier(a: Excluded, b: Excluded): boolean {
  return a.at !== b.at ? a.at < b.at : a.name < b.name;
}

export class MemberTable {
  readonly #rows = new Map<string, MemberRow>();
  readonly #removed = new Set<OriginId>();
  readonly #excluded = new Map<OriginId, Excluded>();
  #hash: string | undefined;
  #active: readonly MemberRow[] | undefined;
  #origins: ReadonlySet<OriginId> | undefined;
  #addresses: ReadonlySet<string> | undefined;
  #votes: ReadonlyMap<OriginId, number> | undefined;

  /** True if the table changed; what was news to it is added to `news`. */
  merge(
    rows: Iterable<MemberRow>,
    removed: Iterable<OriginId>,
    excluded: Iterable<Excluded> = [],
    news?: MembersNews,
  ): boolean {
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
    for (const one of excluded) {
      const old = this.#excluded.get(one.origin);
      if (old === undefined ? this.#excluded.size >= MEMBERS_MAX : !isEarlier(one, old)) continue;
      this.#excluded.set(one.origin, one);
      news?.excluded.push(one);
      changed = true;
    }
    if (changed) {
      this.#hash = undefined;
      this.#active = undefined;
      this.#origins = undefined;
      this.#addresses = undefined;
      this.#votes = undefined;
    }
    return changed;
  }

  /** Everything, to send or to store. */
  rows(): MemberRow[] {
    return [...this.#rows.values()];
  }

  /** Of that name, though it may have been removed or excluded. */
  row(name: string): MemberRow | undefined {
    return this.#rows.get(name);
  }

  removed(): OriginId[] {
    return [...this.#removed];
  }

  excluded(): Excluded[] {
    return [...this.#excluded.values()];
  }

  /** Excluded members that have not come back under a new origin, and that nobody removed. */
  absent(): Excluded[] {
    return this.excluded().filter(
      ({ origin, name }) => !this.#removed.has(origin) && this.byName(name) === undefined,
    );
  }

  /** Members that count, ordered by name. */
  active(): readonly MemberRow[] {
    this.#active ??= [...this.#rows.values()]
      .filter((row) => this.#counts(row))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    return this.#active;
  }

  byName(name: string): MemberRow | undefined {
    const row = this.#rows.get(name);
    return row !== undefined && this.#counts(row) ? row : undefined;
  }

  isRemoved(origin: OriginId): boolean {
    return this.#removed.has(origin);
  }

  isExcluded(origin: OriginId): boolean {
    return this.#excluded.has(origin);
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

  /** How many other members vote to exclude this one. */
  votes(origin: OriginId): number {
    this.#votes ??= this.#countVotes();
    return this.#votes.get(origin) ?? 0;
  }

  /** Members that a strict majority of all, silent ones included, votes to exclude. */
  outvoted(): MemberRow[] {
    const active = this.active();
    return active.filter(({ origin }) => this.votes(origin) * 2 > active.length);
  }

  /** How many rows, removals and exclusions it ever held: 1 means that nobody but its owner was ever here. */
  get known(): number {
    return this.#rows.size + this.#removed.size + this.#excluded.size;
  }

  get hash(): string {
    if (this.#hash === undefined) {
      const sum: Lanes = { a: 0, b: 0 };
      for (const row of this.#rows.values()) addTo(sum, hashText(textOf(row)));
      for (const origin of this.#removed) addTo(sum, hashText(`removed:${origin}`));
      for (const { origin, name, at } of this.#excluded.values())
        addTo(sum, hashText(`excluded:${origin}:${at}:${name}`));
      this.#hash = lanesHex(sum);
    }
    return this.#hash;
  }

  #counts({ origin }: MemberRow): boolean {
    return !this.#removed.has(origin) && !this.#excluded.has(origin);
  }

  #countVotes(): Map<OriginId, number> {
    const voters = new Map<OriginId, Set<OriginId>>();
    for (const { origin, silent = [] } of this.active())
      for (const other of silent) {
        if (other === origin) continue;
        const of = voters.get(other);
        if (of === undefined) voters.set(other, new Set([origin]));
        else of.add(origin);
      }
    return new Map([...voters].map(([origin, of]) => [origin, of.size]));
  }
}
