/**
 * Ranges of keys, in the order of the disk: bytewise UTF-8. That is the order of code points, but not the one in
 * which JavaScript compares strings (UTF-16 code units put U+FF01 behind every emoji).
 */
import { utf8Length } from '../core/entry.js';
import { ReadmeshError } from '../errors.js';
import type { KeyRange } from './store.js';

/** One interval of keys: the intersection of everything a `KeyRange` says, but for order and limit. */
export interface KeyInterval {
  /** The empty string, inclusive, when there is no lower bound. */
  readonly lower: string;
  readonly lowerInclusive: boolean;
  /** undefined: no upper bound. */
  readonly upper: string | undefined;
  readonly upperInclusive: boolean;
}

/** Throws INVALID_KEY for a bound or prefix that is not well-formed Unicode: it has no place in byte order. */
export function keyInterval(range: KeyRange): KeyInterval {
  let lower = '';
  let lowerInclusive = true;
  let upper: string | undefined;
  let upperInclusive = false;

  const raise = (bound: string, inclusive: boolean): void => {
    const order = compareKeys(bound, lower);
    if (order > 0) [lower, lowerInclusive] = [bound, inclusive];
    else if (order === 0) lowerInclusive &&= inclusive;
  };
  const cut = (bound: string | undefined, inclusive: boolean): void => {
    if (bound === undefined) return;
    const order = upper === undefined ? -1 : compareKeys(bound, upper);
    if (order < 0) [upper, upperInclusive] = [bound, inclusive];
    else if (order === 0) upperInclusive &&= inclusive;
  };

  for (const name of ['gt', 'gte', 'lt', 'lte', 'prefix'] as const) {
    const bound = range[name];
    if (bound === undefined) continue;
    if (utf8Length(bound) === -1)
      throw new ReadmeshError('INVALID_KEY', `${name} holds a lone surrogate: use well-formed Unicode`);
    if (name === 'gt' || name === 'gte') raise(bound, name === 'gte');
    else if (name === 'lt' || name === 'lte') cut(bound, name === 'lte');
    else {
      raise(bound, true);
      cut(successor(bound), false);
    }
  }
  return { lower, lowerInclusive, upper, upperInclusive };
}

/**
 * The least well-formed string above every one that begins with `prefix`: its last code point raised by one. A
 * last code point cannot be raised beyond U+10FFFF: then the one before it is. undefined: there is none.
 */
function successor(prefix: string): string | undefined {
  const points = [...prefix];
  for (;;) {
    const last = points.pop()?.codePointAt(0);
    if (last === undefined) return undefined;
    if (last === 0x10ffff) continue;
    // Surrogates are not code points of text: the next one above U+D7FF is U+E000.
    return points.join('') + String.fromCodePoint(last === 0xd7ff ? 0xe000 : last + 1);
  }
}

/** Negative, 0 or positive as `a` sorts before, with or behind `b` on disk. Both must be well-formed. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return codePointRank(x) - codePointRank(y);
  }
  return a.length - b.length;
}

/** Surrogates stand for code points above U+FFFF: they rank behind the units U+E000 to U+FFFF. */
function codePointRank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}
