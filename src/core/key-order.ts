/**
 * The order of keys, on the wire and on disk: bytewise UTF-8. That is the order of code points, but not the one in
 * which JavaScript compares strings (UTF-16 code units put U+FF01 behind every emoji).
 */

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

/** Whether the keys rise strictly, from above `after` (null: from the least) up to `to` (null: without end). */
export function riseWithin(keys: readonly string[], after: string | null, to: string | null): boolean {
  let last = after;
  for (const key of keys) {
    if (last !== null && compareKeys(last, key) >= 0) return false;
    last = key;
  }
  return keys.length === 0 || to === null || compareKeys(keys.at(-1)!, to) <= 0;
}
