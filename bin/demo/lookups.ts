/**
 * Longest-prefix look-ups of phone numbers: one `getMany` over every prefix of a number, for the carrier and for
 * the place. What the answers must be is worked out beside, from the rows as they were read from their source.
 */
import type { ReadStore } from '../../src/read-store.js';
import { type PhoneData, type PhoneRow, prefixKeys } from '../phone-data.js';

export interface PhoneNumber {
  /** As people write it; country code first. */
  readonly shown: string;
  readonly language: string;
}

export interface Answer {
  readonly carrier: string | undefined;
  readonly place: string | undefined;
}

/** Where a country keeps numbers for films and books, one of those. */
const NUMBERS: readonly PhoneNumber[] = [
  { shown: '+1 212 555 0123', language: 'en' },
  { shown: '+44 20 7946 0123', language: 'en' },
  { shown: '+44 7700 900123', language: 'en' },
  { shown: '+49 30 23125 123', language: 'en' },
  { shown: '+49 171 3920012', language: 'en' },
  { shown: '+46 8 465 00 412', language: 'en' },
  { shown: '+41 44 668 18 00', language: 'de' },
  { shown: '+81 3 3213 1111', language: 'en' },
  { shown: '+86 10 6555 1234', language: 'zh' },
  { shown: '+86 199 1234 5678', language: 'zh' },
  { shown: '+55 11 3123 4567', language: 'pt' },
  { shown: '+380 67 123 4567', language: 'en' },
  { shown: '+27 82 123 4567', language: 'en' },
];
/** How many numbers are made from rows, where the list above would find nothing. */
const DRAWN_NUMBERS = 12;

/** Sees every row go by, and knows afterwards what each look-up must answer. */
export class Lookups {
  readonly numbers: readonly PhoneNumber[];
  readonly #expected = new Map<string, string>();
  readonly #wanted: ReadonlySet<string>;

  private constructor(numbers: readonly PhoneNumber[]) {
    this.numbers = numbers;
    this.#wanted = new Set(numbers.flatMap((number) => keysOf(number).flat()));
  }

  /** The well-known numbers for the whole real table; for a part, or a synthetic one, numbers made from its rows. */
  static async of(data: PhoneData, isWhole: boolean): Promise<Lookups> {
    if (isWhole) return new Lookups(NUMBERS);
    const step = Math.max(1, Math.floor(data.count / DRAWN_NUMBERS));
    const numbers: PhoneNumber[] = [];
    let at = 0;
    for await (const [key] of data.rows()) {
      if (at++ % step !== 0 || numbers.length === DRAWN_NUMBERS) continue;
      const [, language = 'en', prefix = ''] = key.split('/');
      numbers.push({ shown: `+${prefix} 0123`, language });
    }
    return new Lookups(numbers);
  }

  see([key, value]: PhoneRow): void {
    if (this.#wanted.has(key)) this.#expected.set(key, value);
  }

  expected(number: PhoneNumber): Answer {
    const [carrier, place] = keysOf(number).map((keys) => keys.map((key) => this.#expected.get(key)));
    return { carrier: firstOf(carrier!), place: firstOf(place!) };
  }

  isRight(number: PhoneNumber, answer: Answer): boolean {
    const { carrier, place } = this.expected(number);
    return answer.carrier === carrier && answer.place === place;
  }
}

export async function lookUp(store: Pick<ReadStore, 'getMany'>, number: PhoneNumber): Promise<Answer> {
  const [carrierKeys, placeKeys] = keysOf(number);
  const values = await store.getMany<string>([...carrierKeys, ...placeKeys]);
  return {
    carrier: firstOf(values.slice(0, carrierKeys.length)),
    place: firstOf(values.slice(carrierKeys.length)),
  };
}

function keysOf({ shown, language }: PhoneNumber): [carrier: string[], place: string[]] {
  const digits = shown.replace(/\D/g, '');
  return [prefixKeys('carrier', language, digits), prefixKeys('geocode', language, digits)];
}

/** Of the longest prefix that has one. */
function firstOf(values: readonly (string | undefined)[]): string | undefined {
  return values.find((value) => value !== undefined);
}
