/**
 * How often in a row the process ended while it opened the store, or shortly after: LevelDB can abort the whole
 * process over damaged files, again at every start. The count stands in a small file of the data folder that is
 * removed once the store has been open for a while, and when it is closed.
 *
 * Ending early twice may as well be an impatient operator. It raises suspicion, and the caller checks the whole
 * database; only that, or ending again and again within the opening itself, tells against the store.
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

export class OpeningCount {
  readonly #path: string;
  #whileOpening: number;
  #soonAfter: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(folder: string) {
    this.#path = join(folder, OPENING_FILE);
    const [whileOpening, soonAfter] = readCounts(this.#path);
    this.#whileOpening = whileOpening;
    this.#soonAfter = soonAfter;
  }

  get suspicious(): boolean {
    return this.#whileOpening + this.#soonAfter >= SUSPICIOUS;
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
    this.#timer = setTimeout(() => this.clear(), SETTLED_MS);
    this.#timer.unref();
  }

  /** It is open for long enough, was closed, or could not be opened in an orderly way. */
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

function readCounts(path: string): [number, number] {
  try {
    const match = /^(\d{1,4}) (\d{1,4})\n$/.exec(readFileSync(path, 'latin1'));
    return match === null ? [0, 0] : [Number(match[1]), Number(match[2])];
  } catch {
    return [0, 0];
  }
}
