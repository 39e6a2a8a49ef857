/** Rows for tables of any size: short keys in no order, values of 20 to 60 characters. The same in every run. */
import type { PhoneRow } from '../bin/phone-data.js';

const VALUE_CHARS_MIN = 20;
const VALUE_CHARS_SPAN = 41;
/** Odd: multiplying by it permutes the 32-bit integers (Knuth), so that no key comes twice. */
const GOLDEN = 0x9e3779b1;

export function syntheticRow(i: number): PhoneRow {
  const mixed = Math.imul(i + 1, GOLDEN) >>> 0;
  const text = `${mixed.toString(36)} `;
  return [
    `item/${mixed.toString(36)}`,
    text.repeat(10).slice(0, VALUE_CHARS_MIN + (mixed % VALUE_CHARS_SPAN)),
  ];
}

export function* syntheticRows(count: number): Generator<PhoneRow, void, undefined> {
  for (let i = 0; i < count; i++) yield syntheticRow(i);
}
