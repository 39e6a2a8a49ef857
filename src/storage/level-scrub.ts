/**
 * Reading all of a LevelDB store to find what is damaged: every checksum, and whether entries and dot index agree.
 *
 * LevelDB hides damage in several ways: a block that cannot be read is skipped by iterators, which mention it only
 * when they end; a flipped bit in a key makes a row that nobody wrote, out of order perhaps, while the real one is
 * missing. So pages are read by iterators that end with the page, and what one index lacks is found by the other.
 * A page is one consistent view; what it finds is looked at once more, outside of it, before it is reported.
 */
import type { Snapshot as LevelDbSnapshot } from 'classic-level';
import { isIntact } from '../checksum.js';
import { dotOf, isWhole, KEY_BYTES_MAX, KIND_REGISTER, kindOf, valueOffset } from '../core/entry.js';
import type { Dot } from '../core/types.js';
import { guardMsgpack } from '../msgpack-guard.js';
import { compareKeys } from './key-range.js';
import type { Db } from './level-cursors.js';
import { DOT, dotKey, ENTRY, HEAD, META, META_HLC, META_RUN, parseDotKey, unseal } from './physical.js';
import type { Finding, ScrubPage, ScrubReader } from './store.js';

const PAGE_ROWS = 256;
const PAGE_BYTES = 1_048_576;
/** Damaged rows of the dot index that are looked at again at the end of a pass. */
const DAMAGED_DOTS_MAX = 65_536;
/** Small records that are written anew as a whole, so that damaged ones may be removed. */
const OWN = new Set(
  [META_HLC, META_RUN, 'node', 'members', 'bootstrap', 'digest', 'digest-leaves'].map((name) => META + name),
);
const OWN_FAMILY = `${META}bootstrap.`;
const RAW = { keyEncoding: 'view', valueEncoding: 'view' } as const;
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

type RawRow = readonly [physical: Uint8Array, value: Uint8Array];

export class LevelScrub implements ScrubReader {
  readonly #db: Db;
  #after: Uint8Array | undefined;
  #lastKey: string | null = null;
  #damagedDots: Uint8Array[] = [];

  constructor(db: Db) {
    this.#db = db;
  }

  /** Where the pass stands, 0 to 1. By the size of files, which is not exact. */
  async progress(): Promise<number> {
    if (this.#after === undefined) return 0;
    const size = (to: Uint8Array): Promise<number> =>
      this.#db.approximateSize(
        new Uint8Array(0) as unknown as string,
        to as unknown as string,
        {
          keyEncoding: 'view',
        } as object,
      );
    const total = await size(new Uint8Array([0xff]));
    return total === 0 ? 1 : Math.min(1, (await size(this.#after)) / total);
  }

  async next(): Promise<ScrubPage> {
    const snapshot = this.#db.snapshot();
    try {
      const findings: Finding[] = [];
      const { rows, isBroken } = await this.#read(snapshot);
      const previous = this.#lastKey;
      let bytes = 0;
      const entries: { key: string; dot: Dot }[] = [];
      const dots: { key: string; dot: Dot }[] = [];
      for (const [physical, value] of rows) {
        bytes += physical.length + value.length;
        this.#sort(physical, value, findings, entries, dots);
      }
      if (isBroken) this.#broken(rows, previous, findings);
      await this.#compare(snapshot, entries, dots, findings);
      return { rows: rows.length, bytes, findings, done: rows.length === 0 };
    } finally {
      await snapshot.close();
    }
  }

  damagedDots(): Uint8Array[] {
    return this.#damagedDots.filter((physical) => {
      const value = this.#get(physical);
      return value !== undefined && unseal(text(physical) ?? '', value) === undefined;
    });
  }

  /** One page. Broken: a block was skipped in it, or behind it if it is the last one. */
  async #read(snapshot: LevelDbSnapshot): Promise<{ rows: RawRow[]; isBroken: boolean }> {
    try {
      return { rows: await this.#page(snapshot), isBroken: false };
    } catch {
      // An iterator that is not asked to end does not complain.
      const rows: RawRow[] = [];
      try {
        const iterator = this.#iterator(snapshot);
        try {
          while (rows.length < PAGE_ROWS) {
            const [row] = await iterator.nextv(1);
            if (row === undefined) break;
            rows.push(row);
          }
        } finally {
          await iterator.close();
        }
      } catch {
        // It came to the end of the store.
      }
      this.#after = rows.at(-1)?.[0] ?? this.#after;
      return { rows, isBroken: true };
    }
  }

  /** Throws if a block was skipped in it. */
  async #page(snapshot: LevelDbSnapshot): Promise<RawRow[]> {
    const iterator = this.#iterator(snapshot);
    let rows: RawRow[];
    try {
      rows = await iterator.nextv(PAGE_ROWS);
    } finally {
      await iterator.close();
    }
    const last = rows.at(-1)?.[0];
    if (last === undefined) return rows;
    // Only an iterator that comes to its bound says what it has skipped. The blocks are in memory now.
    const bounds = { ...(this.#after === undefined ? {} : { gt: this.#after }), lte: last };
    const keys = this.#db.keys<Uint8Array>({ keyEncoding: 'view', ...bounds, snapshot });
    try {
      while ((await keys.nextv(2 * PAGE_ROWS)).length > 0);
    } finally {
      await keys.close();
    }
    this.#after = last;
    return rows;
  }

  #iterator(snapshot: LevelDbSnapshot) {
    return this.#db.iterator<Uint8Array, Uint8Array>({
      ...RAW,
      ...(this.#after === undefined ? {} : { gt: this.#after }),
      snapshot,
      highWaterMarkBytes: PAGE_BYTES,
    });
  }

  #sort(
    physical: Uint8Array,
    value: Uint8Array,
    findings: Finding[],
    entries: { key: string; dot: Dot }[],
    dots: { key: string; dot: Dot }[],
  ): void {
    const name = text(physical);
    const family = name?.[0];
    if (name === undefined || !'dehm'.includes(family!)) {
      findings.push({ what: 'junk', row: physical });
    } else if (family === ENTRY) {
      const key = name.slice(1);
      if (key.length === 0 || physical.length > KEY_BYTES_MAX + 1) {
        findings.push({ what: 'junk', row: physical });
        return;
      }
      if (this.#lastKey === null || compareKeys(key, this.#lastKey) > 0) this.#lastKey = key;
      if (!isIntact(key, value) || !isWhole(value)) {
        findings.push({ what: 'damaged', key });
        return;
      }
      entries.push({ key, dot: dotOf(value) });
      if (!isReadable(value)) findings.push({ what: 'unreadable', key, row: value });
    } else if (family === DOT) {
      const key = unseal(name, value)?.toString();
      if (key !== undefined) dots.push({ key, dot: parseDotKey(name) });
      else if (this.#damagedDots.length < DAMAGED_DOTS_MAX) this.#damagedDots.push(physical);
    } else if (unseal(name, value) === undefined) {
      const mayGo = family === HEAD || OWN.has(name) || name.startsWith(OWN_FAMILY);
      findings.push({ what: 'own', row: mayGo ? physical : undefined });
    }
  }

  /** Which rows are missing is unknown: of entries a range, of the dot index anything. */
  #broken(rows: readonly RawRow[], previous: string | null, findings: Finding[]): void {
    const last = rows.at(-1)?.[0][0];
    if (rows.length === 0 || String.fromCharCode(last!) >= ENTRY) {
      const until = rows.length > 0 && String.fromCharCode(last!) === ENTRY ? this.#lastKey : null;
      findings.push({ what: 'range', after: previous, until });
    }
    if (rows.length > 0 && String.fromCharCode(rows[0]![0][0]!) <= DOT) findings.push({ what: 'dots' });
  }

  async #compare(
    snapshot: LevelDbSnapshot,
    entries: readonly { key: string; dot: Dot }[],
    dots: readonly { key: string; dot: Dot }[],
    findings: Finding[],
  ): Promise<void> {
    const names = await this.#getMany(
      snapshot,
      entries.map(({ dot }) => dotKey(dot.origin, dot.seq)),
    );
    entries.forEach(({ key, dot }, i) => {
      const physical = dotKey(dot.origin, dot.seq);
      const value = names[i];
      if (value !== undefined && unseal(physical, value)?.toString() === key) return;
      if (this.#isAgreed(key, dot) === 'no dot') findings.push({ what: 'no-dot', key });
    });
    const rows = await this.#getMany(
      snapshot,
      dots.map(({ key }) => ENTRY + key),
    );
    dots.forEach(({ key, dot }, i) => {
      const row = rows[i];
      if (row !== undefined && isIntact(key, row)) {
        const own = dotOf(row);
        if (own.origin === dot.origin && own.seq === dot.seq) return;
      }
      if (this.#isAgreed(key, dot) === 'no entry') findings.push({ what: 'lost', key, dot });
    });
  }

  /** As it is now: a write may have come since the view was taken. */
  #isAgreed(key: string, dot: Dot): 'yes' | 'no dot' | 'no entry' {
    const row = this.#get(ENTRY + key);
    const hasEntry = row !== undefined && isIntact(key, row);
    const own = hasEntry ? dotOf(row) : undefined;
    const physical = dotKey(dot.origin, dot.seq);
    const value = this.#get(physical);
    const names = value !== undefined && unseal(physical, value)?.toString() === key;
    const leads = own !== undefined && own.origin === dot.origin && own.seq === dot.seq;
    if (leads) return names ? 'yes' : 'no dot';
    return names ? 'no entry' : 'yes';
  }

  #get(physical: string | Uint8Array): Uint8Array | undefined {
    try {
      const options = typeof physical === 'string' ? {} : RAW;
      return this.#db.getSync(physical as string, options as object) as Uint8Array | undefined;
    } catch {
      return undefined;
    }
  }

  async #getMany(snapshot: LevelDbSnapshot, keys: string[]): Promise<(Uint8Array | undefined)[]> {
    if (keys.length === 0) return [];
    try {
      return await this.#db.getMany(keys, { snapshot } as object);
    } catch {
      // One that cannot be read fails them all.
      return keys.map((key) => this.#get(key));
    }
  }
}

function isReadable(row: Uint8Array): boolean {
  if (kindOf(row) !== KIND_REGISTER) return true;
  try {
    guardMsgpack(row, valueOffset(row));
    return true;
  } catch {
    return false;
  }
}

function text(physical: Uint8Array): string | undefined {
  try {
    return decoder.decode(physical);
  } catch {
    return undefined;
  }
}
