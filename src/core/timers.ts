/**
 * Named deadlines of the core, in monotonic milliseconds. The driver keeps one real timer, for the earliest;
 * the core learns by a `tick` that it may be due.
 */
export class Timers<Name extends string> {
  readonly #due = new Map<Name, number>();

  /** (Re)sets the deadline. */
  set(name: Name, at: number): void {
    this.#due.set(name, at);
  }

  /** Moves the deadline forward in time only, or sets it. */
  atMost(name: Name, at: number): void {
    const old = this.#due.get(name);
    if (old === undefined || at < old) this.#due.set(name, at);
  }

  clear(name: Name): void {
    this.#due.delete(name);
  }

  /** Removes and returns what is due. */
  take(now: number): Name[] {
    const due: Name[] = [];
    for (const [name, at] of this.#due) if (at <= now) due.push(name);
    for (const name of due) this.#due.delete(name);
    return due;
  }

  next(): number | undefined {
    let earliest: number | undefined;
    for (const at of this.#due.values()) if (earliest === undefined || at < earliest) earliest = at;
    return earliest;
  }
}
