/**
 * Reading LevelDB in bulk: ranges of entries, the dot index, and snapshots that hold both still.
 *
 * Rows come in slices that are small enough for the event loop: LevelDB reads a slice on a thread of its own,
 * this thread turns it into strings and buffers and checks it.
 */
import type { ClassicLevel, Iterator, Snapshot as LevelDbSnapshot } from 'classic-level';
import { isIntact } from '../checksum.js';
import { originOf, seqOf } from '../core/entry.js';
import type { Dot, OriginId, Row } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import { Chunk, ChunkCursor, damagedRecord } from './chunk-cursor.js';
import { readFailure } from './disk-errors.js';
import { keyInterval } from './key-range.js';
import {
  DOT,
  decodeHead,
  dotKey,
  dotKeyAbove,
  ENTRY,
  HEAD,
  META,
  META_HLC,
  META_RUN,
  parseDotKey,
  unseal,
} from './physical.js';
import type { KeyRange, RowCursor, Snapshot } from './store.js';

export type Db = ClassicLevel<string, Uint8Array>;

/** Rows and bytes of one trip to LevelDB's thread. Its default byte mark (16 KiB) would make ten trips of one. */
const SLICE_ROWS_MAX = 512;
const SLICE_BYTES_MAX = 262_144;
/** Entries fetched at once by dot: as many as make about so many bytes, going by the size of those before. */
const FETCH_ROWS_MIN = 8;
const FETCH_ROWS_MAX = 128;
const FETCH_BYTES = 1_048_576;

function nextAfter(family: string): string {
  return String.fromCharCode(family.charCodeAt(0) + 1);
}

/** The key that comes next after every key that is equal or less. */
const ABOVE = '\0';

/**
 * LevelDB's options for a range of entries. The interval is half-open and the object of one shape: an iterator is
 * opened for each short scan, and LevelDB's binding looks every option up by its name.
 */
function entryOptions(range: KeyRange, snapshot: LevelDbSnapshot | undefined) {
  const { lower, lowerInclusive, upper, upperInclusive } = keyInterval(range);
  return {
    gte: ENTRY + lower + (lowerInclusive ? '' : ABOVE),
    lt: upper === undefined ? nextAfter(ENTRY) : ENTRY + upper + (upperInclusive ? ABOVE : ''),
    reverse: range.reverse === true,
    highWaterMarkBytes: SLICE_BYTES_MAX,
    snapshot,
  };
}

/** Entries of one range, from one iterator. */
export class EntryCursor extends ChunkCursor {
  readonly #iterator: Iterator<Db, string, Uint8Array>;
  protected override readonly source: string;
  #left: number;
  /** The next slice of a long scan: LevelDB's thread reads on while this one works on the slice before. */
  #ahead: { readonly size: number; readonly entries: Promise<[string, Uint8Array][]> } | undefined;

  constructor(db: Db, range: KeyRange, snapshot?: LevelDbSnapshot) {
    super();
    this.source = db.location;
    this.#left = range.limit ?? Number.POSITIVE_INFINITY;
    const options = entryOptions(range, snapshot);
    try {
      this.#iterator = db.iterator(options);
    } catch (error) {
      throw readFailure(this.source, error);
    }
  }

  protected override async refill(rowsWanted: number): Promise<Chunk> {
    const { size, entries: reading } = this.#ahead ?? this.#read(rowsWanted);
    this.#ahead = undefined;
    let entries: [string, Uint8Array][];
    try {
      entries = await reading;
    } catch (error) {
      throw readFailure(this.source, error);
    }
    this.#left -= entries.length;
    if (size === SLICE_ROWS_MAX && entries.length > 0) {
      this.#ahead = this.#read(SLICE_ROWS_MAX);
      // Whoever asks for the slice hears of a failure; if nobody does, it is nobody's.
      this.#ahead.entries.catch(() => undefined);
    }
    const chunk = new Chunk();
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!;
      const physical = entry[0];
      const row = entry[1];
      const key = physical.slice(ENTRY.length);
      if (isIntact(physical, row, ENTRY.length)) chunk.add(key, row);
      else chunk.addDamaged(damagedRecord(key));
    }
    return chunk;
  }

  #read(rowsWanted: number): { size: number; entries: Promise<[string, Uint8Array][]> } {
    const size = Math.min(rowsWanted, SLICE_ROWS_MAX, this.#left);
    return { size, entries: size <= 0 ? Promise.resolve([]) : this.#iterator.nextv(size) };
  }

  protected override async release(): Promise<void> {
    await this.#iterator.close();
  }
}

/**
 * Everything above a version vector, by the dot index: from origin to origin with one seek each, past whatever
 * the asker already has. Each dot must lead to a record that bears this very dot, within the same snapshot;
 * anything else is damage, and silence about it would make the asker raise its head over a record it never got.
 */
export class DotCursor extends ChunkCursor {
  protected override readonly source: string;
  readonly #db: Db;
  readonly #heads: ReadonlyMap<OriginId, number>;
  readonly #snapshot: LevelDbSnapshot;
  readonly #iterator: Iterator<Db, string, Uint8Array>;
  #found: { readonly dot: Dot; readonly key: string | undefined }[] = [];
  /** Rows of the next read. Small after a seek, since the next origin may have nothing above its head. */
  #stride = 1;
  #fetchRows = FETCH_ROWS_MIN;

  constructor(db: Db, heads: ReadonlyMap<OriginId, number>, snapshot: LevelDbSnapshot) {
    super();
    this.source = db.location;
    this.#db = db;
    this.#heads = heads;
    this.#snapshot = snapshot;
    try {
      this.#iterator = db.iterator({
        gte: DOT,
        lt: nextAfter(DOT),
        snapshot,
        highWaterMarkBytes: SLICE_BYTES_MAX,
      });
    } catch (error) {
      throw readFailure(db.location, error);
    }
  }

  protected override async refill(rowsWanted: number): Promise<Chunk> {
    try {
      if (this.#found.length === 0) await this.#findDots();
      return await this.#fetch(this.#found.splice(0, Math.min(rowsWanted, this.#fetchRows)));
    } catch (error) {
      throw readFailure(this.#db.location, error);
    }
  }

  async #findDots(): Promise<void> {
    while (this.#found.length === 0) {
      const entries = await this.#iterator.nextv(this.#stride);
      if (entries.length === 0) return;
      this.#stride = Math.min(this.#stride * 8, SLICE_ROWS_MAX);
      for (const [physical, sealed] of entries) {
        const dot = parseDotKey(physical);
        const head = this.#heads.get(dot.origin) ?? 0;
        if (dot.seq <= head) {
          // The rest of this slice lies below the seek's target, or is read again from there.
          this.#iterator.seek(dotKeyAbove(dot.origin, head));
          this.#stride = 1;
          break;
        }
        this.#found.push({ dot, key: unseal(physical, sealed)?.toString() });
      }
    }
  }

  async #fetch(dots: readonly { readonly dot: Dot; readonly key: string | undefined }[]): Promise<Chunk> {
    const chunk = new Chunk();
    if (dots.length === 0) return chunk;
    const keys = dots.flatMap(({ key }) => (key === undefined ? [] : [ENTRY + key]));
    const rows = await this.#db.getMany(keys, { snapshot: this.#snapshot } as object);
    const bytes = rows.reduce((sum, row) => sum + (row?.length ?? 0), 1);
    const fitting = Math.floor((FETCH_BYTES * rows.length) / bytes);
    this.#fetchRows = Math.max(FETCH_ROWS_MIN, Math.min(fitting, FETCH_ROWS_MAX));
    let at = 0;
    for (const { dot, key } of dots) {
      const row = key === undefined ? undefined : rows[at++];
      const damage = damageOf(dot, key, row);
      if (damage === undefined) chunk.add(key!, row!);
      else chunk.addDamaged(damage);
    }
    return chunk;
  }

  protected override async release(): Promise<void> {
    await this.#iterator.close();
  }
}

/** What is wrong with what a dot leads to; undefined: nothing. */
function damageOf(dot: Dot, key: string | undefined, row: Row | undefined): ReadmeshError | undefined {
  if (key === undefined) return damagedDot(dot, undefined, 'does not match its checksum');
  if (row === undefined) return damagedDot(dot, key, 'names a key that has no record');
  if (!isIntact(key, row)) return damagedRecord(key);
  if (originOf(row) !== dot.origin || seqOf(row) !== dot.seq)
    return damagedDot(dot, key, 'names a key whose record has another dot');
  return undefined;
}

function damagedDot(dot: Dot, key: string | undefined, what: string): ReadmeshError {
  return new ReadmeshError(
    'DAMAGED',
    `row ${dot.seq} of origin ${dot.origin} in the dot index ${what}: catch up from another host; this one needs --rebuild if it happens again`,
    { details: { ...dot, ...(key === undefined ? {} : { key }) } },
  );
}

/** Greatest dot per origin, as far as the index can be read: a lower top only has more asked for. A reverse iterator lands on the last dot of each origin, one seek per origin. */
export async function readTops(db: Db, snapshot?: LevelDbSnapshot): Promise<Map<OriginId, number>> {
  const tops = new Map<OriginId, number>();
  let iterator: Iterator<Db, string, Uint8Array> | undefined;
  try {
    iterator = db.iterator({
      gte: DOT,
      lt: nextAfter(DOT),
      reverse: true,
      ...(snapshot === undefined ? {} : { snapshot }),
    });
    for (;;) {
      const [row] = await iterator.nextv(1);
      if (row === undefined) return tops;
      const [physical, sealed] = row;
      // A damaged one may name an origin that never was: the one before it will do.
      if (unseal(physical, sealed) === undefined) continue;
      const { origin, seq } = parseDotKey(physical);
      tops.set(origin, seq);
      iterator.seek(dotKey(origin, 0));
    }
  } catch (error) {
    const failure = readFailure(db.location, error);
    if (failure.code === 'DAMAGED') return tops;
    throw failure;
  } finally {
    await iterator?.close();
  }
}

/** All rows of a sealed family, by what follows the family's letter. Throws DAMAGED. */
export async function readSealed(
  db: Db,
  family: typeof HEAD | typeof META,
  snapshot?: LevelDbSnapshot,
): Promise<Map<string, Buffer>> {
  const rows = new Map<string, Buffer>();
  let iterator: Iterator<Db, string, Uint8Array> | undefined;
  try {
    iterator = db.iterator({
      gte: family,
      lt: nextAfter(family),
      highWaterMarkBytes: SLICE_BYTES_MAX,
      ...(snapshot === undefined ? {} : { snapshot }),
    });
    for (;;) {
      const entries = await iterator.nextv(SLICE_ROWS_MAX);
      if (entries.length === 0) return rows;
      for (const [physical, sealed] of entries) {
        const payload = unseal(physical, sealed);
        if (payload === undefined)
          throw new ReadmeshError(
            'DAMAGED',
            `row ${JSON.stringify(physical)} does not match its checksum: start with --rebuild`,
          );
        rows.set(physical.slice(1), payload);
      }
    }
  } catch (error) {
    throw readFailure(db.location, error);
  } finally {
    await iterator?.close();
  }
}

export async function readHeads(db: Db, snapshot?: LevelDbSnapshot): Promise<Map<OriginId, number>> {
  const heads = new Map<OriginId, number>();
  for (const [origin, payload] of await readSealed(db, HEAD, snapshot)) {
    const head = decodeHead(payload);
    if (Number.isNaN(head))
      throw new ReadmeshError('DAMAGED', `the head of origin ${origin} has a wrong size: use --rebuild`);
    heads.set(origin, head);
  }
  return heads;
}

/** Entries, dots and heads of one moment. Closing it closes its cursors, too. */
export class LevelSnapshot implements Snapshot {
  readonly heads: ReadonlyMap<OriginId, number>;
  readonly #db: Db;
  readonly #snapshot: LevelDbSnapshot;
  readonly #cursors = new Set<RowCursor>();

  private constructor(db: Db, snapshot: LevelDbSnapshot, heads: ReadonlyMap<OriginId, number>) {
    this.#db = db;
    this.#snapshot = snapshot;
    this.heads = heads;
  }

  /** Heads are read from the snapshot itself: whether it holds a batch that is in flight, nobody else knows. */
  static async take(db: Db): Promise<LevelSnapshot> {
    let snapshot: LevelDbSnapshot | undefined;
    try {
      snapshot = db.snapshot();
      return new LevelSnapshot(db, snapshot, await readHeads(db, snapshot));
    } catch (error) {
      await snapshot?.close();
      throw readFailure(db.location, error);
    }
  }

  tops(): Promise<ReadonlyMap<OriginId, number>> {
    return readTops(this.#db, this.#snapshot);
  }

  async meta(): Promise<ReadonlyMap<string, Uint8Array>> {
    const rows = await readSealed(this.#db, META, this.#snapshot);
    rows.delete(META_HLC);
    rows.delete(META_RUN);
    return rows;
  }

  rows(range: KeyRange): RowCursor {
    return this.#keep(new EntryCursor(this.#db, range, this.#snapshot));
  }

  above(heads: ReadonlyMap<OriginId, number>): RowCursor {
    return this.#keep(new DotCursor(this.#db, heads, this.#snapshot));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#cursors].map((cursor) => cursor.close()));
    this.#cursors.clear();
    await this.#snapshot.close();
  }

  #keep(cursor: RowCursor): RowCursor {
    this.#cursors.add(cursor);
    return cursor;
  }
}
