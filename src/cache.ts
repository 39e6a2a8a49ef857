/**
 * A bounded cache of decoded values by key. What makes it fast is what a hit does not do: SIEVE (Zhang et al.,
 * NSDI 2024) evicts about as well as LRU, yet a hit sets one flag instead of moving the entry in a list.
 *
 * Entries stand in a ring in the order in which they came. A hand goes from the oldest to the newest: an entry
 * that was read since the hand last passed is spared once, and loses its flag; the first one that was not is
 * evicted. New entries come in at the newest end, behind which the hand starts over.
 *
 * The owner of the cache deletes or replaces a key's value in the same step in which the store's value changes;
 * the cache knows nothing of the store. Values must be shareable (frozen): each hit hands out the same instance.
 */

/** What an entry takes beside its value and key, bytes: the node, its place in the map, the key's header. */
const ENTRY_OVERHEAD = 160;

class Entry<V> {
  readonly key: string;
  value: V;
  bytes: number;
  wasRead = false;
  /** Neighbours in the ring; the newest's `newer` is the oldest. */
  older: Entry<V> = this;
  newer: Entry<V> = this;

  constructor(key: string, value: V, bytes: number) {
    this.key = key;
    this.value = value;
    this.bytes = bytes;
  }
}

export interface CacheStats {
  readonly entries: number;
  /** Estimated memory, overhead included. */
  readonly bytes: number;
  readonly bytesMax: number;
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
}

export class Cache<V extends NonNullable<unknown> | null> {
  readonly #entries = new Map<string, Entry<V>>();
  readonly #bytesMax: number;
  #bytes = 0;
  #newest: Entry<V> | undefined;
  /** The next entry to be judged; undefined: the oldest. */
  #hand: Entry<V> | undefined;
  #hits = 0;
  #misses = 0;
  #evictions = 0;

  /** `bytesMax`: estimated memory that entries may take together; 0 keeps none. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The cached value; undefined if there is none (null is a value). */
  get(key: string): V | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      this.#misses++;
      return undefined;
    }
    this.#hits++;
    if (!entry.wasRead) entry.wasRead = true;
    return entry.value;
  }

  /**
   * Caches the value, whose memory is about `bytes`, in place of the key's former one. One that would take more
   * than an eighth of the cache is not kept, since it would cost too many others their place.
   */
  set(key: string, value: V, bytes: number): void {
    const size = bytes + 2 * key.length + ENTRY_OVERHEAD;
    const known = this.#entries.get(key);
    if (size > this.#bytesMax / 8) {
      if (known !== undefined) this.#remove(known);
      return;
    }
    if (known === undefined) {
      this.#makeRoom(size);
      this.#add(key, value, size);
      return;
    }
    this.#bytes += size - known.bytes;
    known.value = value;
    known.bytes = size;
    // Whichever entry has to go, this one included: `known` may be cached no longer after this.
    this.#makeRoom(0);
  }

  delete(key: string): boolean {
    // Every key that is written comes by.
    if (this.#newest === undefined) return false;
    const entry = this.#entries.get(key);
    if (entry === undefined) return false;
    this.#remove(entry);
    return true;
  }

  clear(): void {
    this.#entries.clear();
    this.#newest = undefined;
    this.#hand = undefined;
    this.#bytes = 0;
  }

  get stats(): CacheStats {
    return {
      entries: this.#entries.size,
      bytes: this.#bytes,
      bytesMax: this.#bytesMax,
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
    };
  }

  #add(key: string, value: V, bytes: number): void {
    const entry = new Entry(key, value, bytes);
    const newest = this.#newest;
    if (newest !== undefined) {
      entry.older = newest;
      entry.newer = newest.newer;
      newest.newer.older = entry;
      newest.newer = entry;
    }
    this.#newest = entry;
    this.#entries.set(key, entry);
    this.#bytes += bytes;
  }

  #remove(entry: Entry<V>): void {
    const isLast = entry.newer === entry;
    if (this.#hand === entry) this.#hand = entry === this.#newest ? undefined : entry.newer;
    if (this.#newest === entry) this.#newest = isLast ? undefined : entry.older;
    entry.older.newer = entry.newer;
    entry.newer.older = entry.older;
    this.#entries.delete(entry.key);
    this.#bytes -= entry.bytes;
  }

  /** Ends, since a round takes every flag away. */
  #makeRoom(bytes: number): void {
    while (this.#bytes + bytes > this.#bytesMax) {
      let entry = this.#hand ?? this.#newest!.newer;
      while (entry.wasRead) {
        entry.wasRead = false;
        entry = entry.newer;
      }
      this.#hand = entry;
      this.#remove(entry);
      this.#evictions++;
    }
  }
}
