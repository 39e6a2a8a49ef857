/**
 * A small non-cryptographic hash (two lanes of 32 bits) whose values can be added and subtracted, so that the
 * hash of a set is kept up to date member by member, in any order. It tells equal sets from unequal ones among
 * honest peers; a collision costs one late catch-up until the next change, never a wrong merge.
 */
export interface Lanes {
  a: number;
  b: number;
}

const PRIME_A = 0x01000193;
const PRIME_B = 0x85ebca6b;

function finish(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

export function hashText(text: string): Lanes {
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, PRIME_A);
    b = Math.imul(b ^ unit, PRIME_B);
  }
  return { a: finish(a), b: finish(b) };
}

export function addTo(sum: Lanes, part: Lanes): void {
  sum.a = (sum.a + part.a) >>> 0;
  sum.b = (sum.b + part.b) >>> 0;
}

export function subtractFrom(sum: Lanes, part: Lanes): void {
  sum.a = (sum.a - part.a) >>> 0;
  sum.b = (sum.b - part.b) >>> 0;
}

export function lanesHex(sum: Lanes): string {
  return sum.a.toString(16).padStart(8, '0') + sum.b.toString(16).padStart(8, '0');
}
