/**
 * How often in a row the process ended while it opened the store, or shortly after: LevelDB can abort the whole
 * process over damaged files, again at every start. The count stands in a small file of the data folder. It is zero
 * once the store has been open for a while; the file goes when the store is closed.
 *
 * Ending early twice may as well be an impatient operator. It raises suspicion, and the caller checks the whole
 * database; only that, or ending again and again within the opening itself, tells against the store. A store that was
 * not closed at all is checked where that costs little.
 */
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const OPENING_FILE = 'opening';
/** A store that was open for so long is not what ends the process, ms. */
const SETTLED_MS = 10_000;
/** From so many early ends in a row on the whole database is checked. */
const SUSPICIOUS = 2;
/** So many ends within the opening itself are not chance, whatever the check says. */
const HOPELESS = 5;
/** Tables of a store that was not closed are checked up to so many bytes: a third of a second. */
const UNCLOSED_BYTES_MAX = 134_217_728;

export class OpeningCount {
  readonly #path: string;
  /** The last opening was not ended in order. */
  readonly unclosed: boolean;
  #whileOpening: number;
  #soonAfter: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(folder: string) {
    this.#path = join(folder, OPENING_FILE);
    const counts = readCounts(this.#path);
    this.unclosed = counts !== undefined;
    const [whileOpening, soonAfter] = counts ?? [0, 0];
    this.#whileOpening = whileOpening;
    this.#soonAfter = soonAfter;
  }

  /** Tables of up to so many bytes are to be checked block by block before the database is opened. */
  get checkedBytesMax(): number {
    if (this.#whileOpening + this.#soonAfter >= SUSPICIOUS) return Number.POSITIVE_INFINITY;
    return this.unclosed ? UNCLOSED_BYTES_MAX : 0;
  }

  get hopeless(): boolean {
    return this.#whileOpening >= HOPELESS;
  }

  /** LevelDB is about to open the database. */
  begin(): void {
    this.#write(this.#whileOpening + 1, this.#soonAfter);
  }

  /** It is open. */
  opened(): void {
    this.#whileOpening = 0;
    this.#write(0, this.#soonAfter + 1);
    this.#timer = setTimeout(() => {
      this.#soonAfter = 0;
      this.#write(0, 0);
    }, SETTLED_MS);
    this.#timer.unref();
  }

  /** It was closed, or could not be opened in an orderly way. */
  clear(): void {
    clearTimeout(this.#timer);
    this.#soonAfter = 0;
    try {
      unlinkSync(this.#path);
    } catch {
      // It is not there, or will be counted once too often.
    }
  }

  #write(whileOpening: number, soonAfter: number): void {
    try {
      writeFileSync(this.#path, `${whileOpening} ${soonAfter}\n`);
    } catch {
      // Without the count a crash is not suspected; the opening itself says what is wrong with the folder.
    }
  }
}

/** undefined: there are none, since the store was closed. */
function readCounts(path: string): [number, number] | undefined {
  try {
    const match = /^(\d{1,4}) (\d{1,4})\n$/.exec(readFileSync(path, 'latin1'));
    return match === null ? [0, 0] : [Number(match[1]), Number(match[2])];
  } catch {
    return undefined;
  }
}
