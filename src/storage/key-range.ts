/** Ranges of keys, in the order of the disk (core/key-order.ts). */
import { utf8Length } from '../core/entry.js';
import { compareKeys } from '../core/key-order.js';
import { ReadmeshError } from '../errors.js';
import type { KeyRange } from './store.js';

export { compareKeys };

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
