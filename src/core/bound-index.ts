/**
 * Finds the place of a key among bounds in order, without comparing it with many of them: a few units behind what all
 * bounds begin with make a number (its rank) that never falls as keys rise, and numbers are searched many times
 * faster than text. Only bounds of equal rank are compared as keys.
 */
import { compareKeys } from './key-order.js';

/** Units of a key that its rank holds: 6 of 8 bits each are exact in a double. */
const RANK_UNITS = 6;
/** Units from here on all rank alike, whatever follows them. */
const UNIT_MAX = 255;

export class BoundIndex {
  readonly #bounds: readonly string[];
  /** What all bounds begin with, but for an empty one at the beginning. */
  readonly #prefix: string;
  readonly #ranks: Float64Array;

  /** `bounds`: rising, at least one. */
  constructor(bounds: readonly string[]) {
    this.#bounds = bounds;
    const first = bounds[0] === '' && bounds.length > 1 ? 1 : 0;
    this.#prefix = commonPrefix(bounds[first]!, bounds.at(-1)!);
    const skip = this.#prefix.length;
    this.#ranks = Float64Array.from(bounds, (bound, i) => (i < first ? -1 : rankOf(bound, skip)));
  }

  /** The last bound below the key; 0 if there is none. */
  find(key: string): number {
    const ranks = this.#ranks;
    const { length } = ranks;
    if (!beginsWith(key, this.#prefix)) return this.#findAmong(key, 0, length - 1);
    const rank = rankOf(key, this.#prefix.length);
    let low = 0;
    for (let high = length - 1; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (ranks[middle]! < rank) low = middle;
      else high = middle - 1;
    }
    // The last bound of a lower rank is below the key, those of a higher one are not.
    if (low + 1 >= length || ranks[low + 1]! > rank) return low;
    let last = low;
    for (let high = length - 1; last < high; ) {
      const middle = (last + high + 1) >> 1;
      if (ranks[middle]! <= rank) last = middle;
      else high = middle - 1;
    }
    return this.#findAmong(key, low, last);
  }

  /** The last of these bounds that is below the key; the first of them, if there is none. */
  #findAmong(key: string, first: number, last: number): number {
    let low = first;
    for (let high = last; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (compareKeys(this.#bounds[middle]!, key) < 0) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** `startsWith` costs more than this for the short texts that keys begin with. */
function beginsWith(key: string, prefix: string): boolean {
  const { length } = prefix;
  if (key.length < length) return false;
  for (let i = 0; i < length; i++) if (key.charCodeAt(i) !== prefix.charCodeAt(i)) return false;
  return true;
}

function rankOf(key: string, from: number): number {
  const { length } = key;
  let rank = 0;
  let at = from;
  for (const end = from + RANK_UNITS; at < end; at++) {
    const unit = at < length ? key.charCodeAt(at) : 0;
    if (unit >= UNIT_MAX) {
      rank = rank * 256 + UNIT_MAX;
      break;
    }
    rank = rank * 256 + unit;
  }
  return at >= from + RANK_UNITS ? rank : rank * 256 ** (from + RANK_UNITS - 1 - at);
}

function commonPrefix(a: string, b: string): string {
  const most = Math.min(a.length, b.length);
  let same = 0;
  while (same < most && a.charCodeAt(same) === b.charCodeAt(same)) same += 1;
  return a.slice(0, same);
}
