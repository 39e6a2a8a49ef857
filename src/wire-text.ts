/** Text out of bytes that are known to be well-formed UTF-8, as fast as Node allows; and the test of well-formedness. */

/** Native, and work on any Uint8Array; Node's own types leave them out. */
const { latin1Slice, utf8Slice } = Buffer.prototype as unknown as Record<
  'latin1Slice' | 'utf8Slice',
  { call(bytes: Uint8Array, from: number, to: number): string }
>;

/** Above this many bytes the native decoder finds out faster than a loop that a string is ASCII. */
const SHORT_STRING = 48;

/** False if the string holds a lone surrogate. Part of JavaScript since ES2024, and of Node 20. */
export function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}

/** The text of well-formed UTF-8 in `bytes` from `from` to `to`. A leading U+FEFF is kept. */
export function textOf(bytes: Uint8Array, from: number, to: number): string {
  if (to - from > SHORT_STRING) return utf8Slice.call(bytes, from, to);
  for (let at = from; at < to; at++) if (bytes[at]! >= 0x80) return utf8Slice.call(bytes, from, to);
  return latin1Slice.call(bytes, from, to);
}

/** Ids repeat from frame to frame: the last ones, by a hash of their bytes. */
const NAME_CACHE = new Array<string>(1_024).fill('');
const CACHED_NAME_MAX = 32;

/** The same, for names that are likely to have been seen before: no new string if so. */
export function nameOf(bytes: Uint8Array, from: number, to: number): string {
  const length = to - from;
  if (length === 0) return '';
  if (length > CACHED_NAME_MAX) return textOf(bytes, from, to);
  let hash = length;
  for (let at = from; at < to; at++) hash = (hash * 31 + bytes[at]!) | 0;
  const place = (hash ^ (hash >>> 10)) & (NAME_CACHE.length - 1);
  const known = NAME_CACHE[place]!;
  if (known.length === length && isAsciiOf(known, bytes, from)) return known;
  const name = textOf(bytes, from, to);
  if (name.length === length) NAME_CACHE[place] = name;
  return name;
}

/** Bytes from 0x80 on are no characters of their own: a name that holds any must not match one of latin-1. */
function isAsciiOf(text: string, bytes: Uint8Array, from: number): boolean {
  for (let i = 0; i < text.length; i++) {
    const byte = bytes[from + i]!;
    if (byte >= 0x80 || byte !== text.charCodeAt(i)) return false;
  }
  return true;
}
