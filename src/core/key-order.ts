/**
 * The order of keys, on the wire and on disk: bytewise UTF-8. That is the order of code points, but not the one in
 * which JavaScript compares strings (UTF-16 code units put U+FF01 behind every emoji).
 */

/** Negative, 0 or positive as `a` sorts before, with or behind `b` on disk. Both must be well-formed. */
export function compareKeys(a: string, b: string): number {
  return compareFrom(a, b, commonPrefix(a, b, 0));
}

/** Length of what both begin with, of which `known` code units are known already. */
export function commonPrefix(a: string, b: string, known: number): number {
  const length = Math.min(a.length, b.length);
  let at = known;
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  return at;
}

/** The same as `compareKeys`, for keys whose common prefix has this length. */
export function compareFrom(a: string, b: string, common: number): number {
  if (common === a.length || common === b.length) return a.length - b.length;
  return codePointRank(a.charCodeAt(common)) - codePointRank(b.charCodeAt(common));
}

/** Surrogates stand for code points above U+FFFF: they rank behind the units U+E000 to U+FFFF. */
function codePointRank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

/** Whether the keys rise strictly, from above `after` (null: from the least) up to `to` (null: without end). */
export function riseWithin(keys: readonly string[], after: string | null, to: string | null): boolean {
  let last = after;
  for (const key of keys) {
    if (last !== null && compareKeys(last, key) >= 0) return false;
    last = key;
  }
  return keys.length === 0 || to === null || compareKeys(keys.at(-1)!, to) <= 0;
}
