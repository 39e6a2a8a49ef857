/**
 * How far this store covers what one origin has accepted, by the origin's own clock. Reports (c, a) say: whatever is
 * accepted above sequence number a is accepted at c or later (horizon.ts).
 */

/** Reports of one origin that wait for its head; past it every other one goes, so that first and last stay. */
export const PENDING_MAX = 64;

export class OriginProgress {
  /** Rising in both. */
  #pending: { readonly clock: number; readonly accepted: number }[] = [];
  /** The greatest clock whose report is covered; 0: none. */
  asOf = 0;

  get pending(): number {
    return this.#pending.length;
  }

  note(clock: number, accepted: number): void {
    if (clock <= Math.max(this.asOf, this.#pending.at(-1)?.clock ?? 0)) return;
    // A later report that needs no more. It may need less: of a store that has lost its tail.
    while ((this.#pending.at(-1)?.accepted ?? -1) >= accepted) this.#pending.pop();
    if (this.#pending.length >= PENDING_MAX) this.#pending = this.#pending.filter((_, i) => i % 2 === 0);
    this.#pending.push({ clock, accepted });
  }

  /** Everything up to `head` is written. Returns asOf. */
  settle(head: number): number {
    let covered = 0;
    while (covered < this.#pending.length && this.#pending[covered]!.accepted <= head)
      this.asOf = this.#pending[covered++]!.clock;
    if (covered > 0) this.#pending.splice(0, covered);
    return this.asOf;
  }
}
