/**
 * A bounded cache of values as the bytes that their writers encoded, by the bytes of their keys: what the network
 * face answers from. Bytes of a frame are looked up and bytes are copied into a frame; neither the key becomes a
 * string on the way nor the value an object, and an entry is no object either, so that a million of them cost the
 * collector nothing.
 *
 * One buffer in segments, filled one after the other. The segment that is filled next was filled longest ago: of
 * its entries those that were read since stay, once, up to half of it; the others go. An index of open addressing
 * leads to the entries: one word each, of which 24 bits are the place and 8 are of the hash.
 *
 *     entry   hash (4)  length of the key (2)  flags (1)  unused (1)  length of the value (4)
 *             milliseconds (6) and counter (2) of the stamp  key  value           padded to 4 bytes
 *
 * The owner deletes a key in the same step in which the store's value changes; the cache knows nothing of the
 * store. Nothing is allocated before the first entry comes.
 */
import { expiresAtOf, KEY_BYTES_MAX, stampCounterOf, stampMsOf, valueOffset } from './core/entry.js';
import type { Row } from './core/types.js';

const SEGMENT_BYTES = 65_536;
/** What a segment may keep of its entries when it is filled anew. */
const KEPT_BYTES_MAX = SEGMENT_BYTES / 2;
/** A larger entry would push out too many others, and gains least. */
const ENTRY_BYTES_MAX = SEGMENT_BYTES / 8;
/** As many as 24 bits name places of 4 bytes. */
const BYTES_ADDRESSABLE = 2 ** 26;
/** Bytes of the budget per word of the index. */
const BYTES_PER_SLOT = 32;

const HEADER = 20;
const AT_KEY_LENGTH = 4;
const AT_FLAGS = 6;
const AT_VALUE_LENGTH = 8;
const AT_STAMP = 12;
const WAS_READ = 1;
const IS_DEAD = 2;

const NONE = -1;
const PLACE = 0xff_ffff;

export interface EncodedCacheStats {
  readonly entries: number;
  readonly hits: number;
  readonly misses: number;
}

interface Memory {
  readonly bytes: Uint8Array;
  /** The same memory. */
  readonly words: Uint32Array;
  readonly index: Uint32Array;
  /** Where each segment ends, as an offset within it; 0: it was never filled. */
  readonly ends: Uint32Array;
}

export class EncodedCache {
  readonly #segments: number;
  readonly #slots: number;
  readonly #countMax: number;
  /** Whoever chooses the keys does not know which of them share a place in the index. */
  readonly #seed = Math.floor(Math.random() * 2 ** 32);
  readonly #scratch = Buffer.alloc(KEY_BYTES_MAX);
  #memory: Memory | undefined;
  #segment = 0;
  /** Where the next entry goes, from the beginning of the segment. */
  #at = 0;
  #count = 0;
  /** Rises with everything that a row read before it may have missed. */
  version = 0;
  #hits = 0;
  #misses = 0;

  /** `bytesMax`: memory it may take, the index included; at most 64 MiB are used, and less than 256 KiB is none. */
  constructor(bytesMax: number) {
    const budget = Math.min(bytesMax, BYTES_ADDRESSABLE);
    this.#slots = 2 ** Math.floor(Math.log2(Math.max(1, budget / BYTES_PER_SLOT)));
    this.#segments = budget < 4 * SEGMENT_BYTES ? 0 : Math.floor((budget - this.#slots * 4) / SEGMENT_BYTES);
    this.#countMax = Math.floor(this.#slots * 0.75);
  }

  /**
   * The place of the entry whose key is `bytes` from `from` to `to`; -1: there is none. Places are valid until
   * the next `put`, `delete` or `clear`.
   */
  find(bytes: Uint8Array, from: number, to: number): number {
    const memory = this.#memory;
    const place =
      memory === undefined ? NONE : this.#look(memory, this.#hashOf(bytes, from, to), bytes, from, to);
    if (place === NONE) {
      this.#misses++;
      return NONE;
    }
    this.#hits++;
    memory!.bytes[place + AT_FLAGS]! |= WAS_READ;
    return place;
  }

  /** Where the bytes are that `valueFrom` and `valueTo` speak of. Only while there is an entry. */
  get bytes(): Uint8Array {
    return this.#memory!.bytes;
  }

  valueFrom(place: number): number {
    const { bytes } = this.#memory!;
    return place + HEADER + keyLength(bytes, place);
  }

  valueTo(place: number): number {
    return this.valueFrom(place) + this.#memory!.words[(place + AT_VALUE_LENGTH) >> 2]!;
  }

  stampMs(place: number): number {
    const { bytes } = this.#memory!;
    let ms = 0;
    for (let i = 0; i < 6; i++) ms = ms * 256 + bytes[place + AT_STAMP + i]!;
    return ms;
  }

  stampCounter(place: number): number {
    const { bytes } = this.#memory!;
    return (bytes[place + AT_STAMP + 6]! << 8) | bytes[place + AT_STAMP + 7]!;
  }

  /** A live row as it is in the store now. Its bytes are copied. */
  put(key: string, row: Row): void {
    if (this.#segments === 0) return;
    const length = this.#encode(key);
    const from = valueOffset(row);
    const size = entryBytes(length, row.length - from);
    const memory = (this.#memory ??= this.#allocate());
    const hash = this.#hashOf(this.#scratch, 0, length);
    const known = this.#look(memory, hash, this.#scratch, 0, length);
    if (known !== NONE) this.#remove(memory, known);
    // It has no clock: what expires is read from the store each time.
    if (size > ENTRY_BYTES_MAX || expiresAtOf(row) !== undefined) return;
    if (this.#at + size > SEGMENT_BYTES) this.#advance(memory);
    while (this.#count >= this.#countMax) this.#advance(memory);
    const place = this.#segment * SEGMENT_BYTES + this.#at;
    const { bytes, words } = memory;
    words[place >> 2] = hash;
    bytes[place + AT_KEY_LENGTH] = length >>> 8;
    bytes[place + AT_KEY_LENGTH + 1] = length;
    bytes[place + AT_FLAGS] = 0;
    words[(place + AT_VALUE_LENGTH) >> 2] = row.length - from;
    writeStamp(bytes, place + AT_STAMP, stampMsOf(row), stampCounterOf(row));
    for (let i = 0; i < length; i++) bytes[place + HEADER + i] = this.#scratch[i]!;
    bytes.set(from === 0 ? row : row.subarray(from), place + HEADER + length);
    this.#at += size;
    this.#insert(memory, hash, place);
    this.#count++;
  }

  delete(key: string): void {
    this.version++;
    const memory = this.#memory;
    if (memory === undefined || this.#count === 0) return;
    const length = this.#encode(key);
    const place = this.#look(memory, this.#hashOf(this.#scratch, 0, length), this.#scratch, 0, length);
    if (place !== NONE) this.#remove(memory, place);
  }

  /** Gives the memory back, too. */
  clear(): void {
    this.version++;
    this.#memory = undefined;
    this.#segment = 0;
    this.#at = 0;
    this.#count = 0;
  }

  get stats(): EncodedCacheStats {
    return { entries: this.#count, hits: this.#hits, misses: this.#misses };
  }

  /** Pages of it that were never written take no memory. */
  #allocate(): Memory {
    const buffer = new ArrayBuffer(this.#segments * SEGMENT_BYTES);
    // Place 0 would look like an empty slot.
    this.#at = HEADER;
    return {
      bytes: new Uint8Array(buffer),
      words: new Uint32Array(buffer),
      index: new Uint32Array(this.#slots),
      ends: new Uint32Array(this.#segments),
    };
  }

  /** Writes the key's bytes into the scratch buffer; returns their number. */
  #encode(key: string): number {
    const scratch = this.#scratch;
    for (let i = 0; i < key.length; i++) {
      const unit = key.charCodeAt(i);
      if (unit >= 0x80) return scratch.write(key);
      scratch[i] = unit;
    }
    return key.length;
  }

  /** FNV-1a, stirred. */
  #hashOf(bytes: Uint8Array, from: number, to: number): number {
    let hash = this.#seed | 0;
    for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    return (hash ^ (hash >>> 13)) >>> 0;
  }

  #look(memory: Memory, hash: number, key: Uint8Array, from: number, to: number): number {
    const { bytes, words, index } = memory;
    const mask = index.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const word = index[slot]!;
      if (word === 0) return NONE;
      if (word >>> 24 !== hash >>> 24) continue;
      const place = (word & PLACE) * 4;
      if (words[place >> 2] !== hash || keyLength(bytes, place) !== to - from) continue;
      let at = place + HEADER;
      let i = from;
      while (i < to && bytes[at] === key[i]) {
        at++;
        i++;
      }
      if (i === to) return place;
    }
  }

  #insert({ index }: Memory, hash: number, place: number): void {
    const mask = index.length - 1;
    let slot = hash & mask;
    while (index[slot] !== 0) slot = (slot + 1) & mask;
    index[slot] = wordOf(hash, place);
  }

  #slotOf({ index, words }: Memory, place: number): number {
    const hash = words[place >> 2]!;
    const word = wordOf(hash, place);
    const mask = index.length - 1;
    let slot = hash & mask;
    while (index[slot] !== word) slot = (slot + 1) & mask;
    return slot;
  }

  #remove(memory: Memory, place: number): void {
    const { index, words, bytes } = memory;
    const mask = index.length - 1;
    let hole = this.#slotOf(memory, place);
    bytes[place + AT_FLAGS] = IS_DEAD;
    this.#count--;
    // Those behind it that were pushed on by it, or past it, close up: a search ends at the first empty slot.
    for (let slot = (hole + 1) & mask; index[slot] !== 0; slot = (slot + 1) & mask) {
      const home = words[index[slot]! & PLACE]! & mask;
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
      index[hole] = index[slot]!;
      hole = slot;
    }
    index[hole] = 0;
  }

  /** Goes on with the next segment, and makes room in it. */
  #advance(memory: Memory): void {
    memory.ends[this.#segment] = this.#at;
    this.#segment = (this.#segment + 1) % this.#segments;
    this.#at = this.#sift(memory, this.#segment);
  }

  /** Moves what stays of a segment to its beginning; returns where that ends. */
  #sift(memory: Memory, segment: number): number {
    const { bytes, words, index, ends } = memory;
    const base = segment * SEGMENT_BYTES;
    const first = segment === 0 ? HEADER : 0;
    let kept = first;
    let size: number;
    for (let at = first; at < ends[segment]!; at += size) {
      const place = base + at;
      size = entryBytes(keyLength(bytes, place), words[(place + AT_VALUE_LENGTH) >> 2]!);
      const flags = bytes[place + AT_FLAGS]!;
      if ((flags & IS_DEAD) !== 0) continue;
      if ((flags & WAS_READ) === 0 || kept + size > KEPT_BYTES_MAX) {
        this.#remove(memory, place);
        continue;
      }
      index[this.#slotOf(memory, place)] = wordOf(words[place >> 2]!, base + kept);
      bytes.copyWithin(base + kept, place, place + size);
      bytes[base + kept + AT_FLAGS] = 0;
      kept += size;
    }
    return kept;
  }
}

function keyLength(bytes: Uint8Array, place: number): number {
  return (bytes[place + AT_KEY_LENGTH]! << 8) | bytes[place + AT_KEY_LENGTH + 1]!;
}

function entryBytes(key: number, value: number): number {
  return (HEADER + key + value + 3) & ~3;
}

function wordOf(hash: number, place: number): number {
  return (((hash >>> 24) << 24) | (place >> 2)) >>> 0;
}

function writeStamp(bytes: Uint8Array, at: number, ms: number, counter: number): void {
  let rest = ms;
  for (let i = 5; i >= 0; i--) {
    bytes[at + i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  bytes[at + 6] = counter >>> 8;
  bytes[at + 7] = counter;
}
