/**
 * Requests that wait for an answer, by id. Ids rise, so that a late answer never meets
 * another request; each lies in a ring at the place that its last bits name, and an id whose place is taken is
 * skipped.
 *
 * Why not a Map: one that is filled and emptied all the time is rebuilt all the time, and each discarded table
 * refers to its successor. Once one of them has grown old, the collector of young objects takes all later ones,
 * and with them all requests ever made, to be alive until the next full collection.
 */

/** Ids are 1 to this. */
export const ID_MAX = 2 ** 32 - 1;
const SIZE_MIN = 64;

export class RequestTable<T> {
  #pending: (T | undefined)[] = emptyTable(SIZE_MIN);
  #ids = new Uint32Array(SIZE_MIN);
  #last = 0;
  size = 0;

  /** Returns its id. */
  add(pending: T): number {
    if (this.size * 2 >= this.#pending.length) this.#grow();
    const mask = this.#pending.length - 1;
    let id = this.#last;
    do id = id === ID_MAX ? 1 : id + 1;
    while (this.#pending[id & mask] !== undefined);
    this.#last = id;
    this.#pending[id & mask] = pending;
    this.#ids[id & mask] = id;
    this.size++;
    return id;
  }

  /** An id that nothing waits under. */
  unusedId(): number {
    const mask = this.#pending.length - 1;
    do this.#last = this.#last === ID_MAX ? 1 : this.#last + 1;
    while (this.#pending[this.#last & mask] !== undefined);
    return this.#last;
  }

  get(id: number): T | undefined {
    const place = id & (this.#pending.length - 1);
    return this.#ids[place] === id ? this.#pending[place] : undefined;
  }

  /** Whether it was there. */
  delete(id: number): boolean {
    const place = id & (this.#pending.length - 1);
    if (this.#ids[place] !== id || this.#pending[place] === undefined) return false;
    this.#pending[place] = undefined;
    this.size--;
    return true;
  }

  /** Empties the table, and returns what was in it. */
  clear(): T[] {
    const all = this.#pending.filter((pending) => pending !== undefined);
    this.#pending.fill(undefined);
    this.size = 0;
    return all;
  }

  #grow(): void {
    const [pending, ids] = [this.#pending, this.#ids];
    const size = pending.length * 2;
    this.#pending = emptyTable(size);
    this.#ids = new Uint32Array(size);
    // Places that differed in their last bits differ in more bits, too.
    for (let i = 0; i < pending.length; i++) {
      if (pending[i] === undefined) continue;
      const place = ids[i]! & (size - 1);
      this.#pending[place] = pending[i];
      this.#ids[place] = ids[i]!;
    }
  }
}

function emptyTable<T>(size: number): (T | undefined)[] {
  return new Array<T | undefined>(size).fill(undefined);
}
