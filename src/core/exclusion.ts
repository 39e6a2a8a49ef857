/**
 * Members that are gone for good: who votes to exclude them, and who of the living must not go on alone.
 *
 * **Votes.** A member that has not heard another for `leaseMs` says so in its own row of the member table, and no
 * longer once it hears it again. It counts only time in which it was up itself and heard a strict majority of the
 * table. Whoever slept hears nobody on waking, and is the one that was away: it begins to count anew. So does whoever
 * starts, so a cluster that was off for longer than any lease simply resumes.
 *
 * **Exclusion.** Whoever sees votes of a strict majority of the whole table against an origin (silent members are in
 * the size; excluded ones neither are, nor vote) puts it into the table's set of excluded ones, for ever. Never by
 * one clock, never by one member: two halves of four do nothing, and of two members only an operator removes one. An
 * excluded origin is no member: it counts for no acknowledgement and holds up neither the garbage horizon nor the
 * sealing of origins. Links to it are refused, so nothing of its data comes in; it hears why, and is `outdated`.
 *
 * **Newcomers** make the table larger. Were a minority to take some, it would become a majority of its own, and the two
 * sides exclude each other. So only who hears a strict majority lets newcomers in; the one that is left of two members
 * does so once an operator has removed the other. A host that lost its disk comes back under its name: the table does
 * not grow by it, so whoever is left fills it again.
 *
 * **The minority.** Whoever has not heard a strict majority for half a lease, while those that it has not heard could
 * form one, takes no writes: they may be about to go on without it. It stops half a lease before the others can, and
 * takes writes again as soon as it hears them. Here sleep counts, or a sleeper would not know how late it is: time is
 * the greater of what the wall clock and the monotonic clock say, from one beat to the next.
 */
import type { Core } from './core.js';
import { noNews, SILENT_MAX } from './membership.js';
import type { Excluded, Instant, OriginId } from './types.js';

/** Longer between two beats, in beats, and this host has slept. */
const SLEEP_BEATS = 10;

/** A member that was never heard since the start of this node counts as heard for so long, in beats. */
const UNKNOWN_BEATS = 30;

/** When a member was last heard: by all time since the start of this node, and by the time that counts for a vote. */
interface Heard {
  elapsed: number;
  counted: number;
}

export interface Minority {
  /** Members that it has heard within half a lease, itself included. */
  readonly heard: number;
  readonly members: number;
  /** For how long these have been too few, ms. */
  readonly forMs: number;
}

export class Exclusion {
  readonly #core: Core;
  readonly #heard = new Map<OriginId, Heard>();
  /** The last beat. */
  #at: Instant = { wall: 0, mono: 0 };
  /** Since the start, ms. */
  #elapsed = 0;
  #counted = 0;
  #silent: readonly OriginId[] = [];
  #minority: Minority | undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  start(): void {
    this.#at = this.#core.now;
  }

  /**
   * A sign of life of that member, sent at `wallMs` by the clock of whoever sent it; undefined: not told. What has waited
   * in this host's buffers while it slept is none: clocks on an admitted link are no further apart than the drift bound.
   */
  heard(origin: OriginId, wallMs?: number): void {
    const { now, options } = this.#core;
    if (wallMs !== undefined && now.wall - wallMs > 2 * options.maxClockDriftMs) return;
    this.#heard.set(origin, { elapsed: this.#elapsed + this.#gap, counted: this.#counted });
  }

  /** Members that this one votes to exclude, rising. */
  get silent(): readonly OriginId[] {
    return this.#silent;
  }

  /** Set while the others may go on without this node. */
  get minority(): Minority | undefined {
    // Looked for at each beat; in between it may end, or this host may have slept.
    const slept = this.#gap > SLEEP_BEATS * this.#core.options.beatMs;
    return this.#minority !== undefined || slept ? this.#findMinority() : undefined;
  }

  /** Whether newcomers of new names may join by this node. */
  get admits(): boolean {
    const { members, identity, detector, now, options } = this.#core;
    let heard = 0;
    for (const { origin } of members.active()) {
      const state = origin === identity.origin ? 'alive' : detector.state(origin, now.mono);
      const isNew = state === 'unknown' && this.#silence(origin) < UNKNOWN_BEATS * options.beatMs;
      if (state === 'alive' || isNew) heard += 1;
    }
    return heard * 2 > members.active().length;
  }

  beat(): void {
    const { now, members, identity, options } = this.#core;
    const gap = this.#gap;
    const slept = gap > SLEEP_BEATS * options.beatMs;
    this.#elapsed += gap;
    if (!slept && this.#hearsMajority()) this.#counted += gap;
    for (const origin of this.#heard.keys()) if (!members.isMember(origin)) this.#heard.delete(origin);
    for (const { origin } of members.active()) {
      const heard = this.#heard.get(origin);
      if (heard === undefined) this.#heard.set(origin, { elapsed: this.#elapsed, counted: this.#counted });
      else if (slept) heard.counted = this.#counted;
    }
    this.#at = now;
    this.#silent = this.#findSilent();
    const before = this.#minority;
    this.#minority = identity.phase === 'ready' ? this.#findMinority() : undefined;
    if ((before === undefined) === (this.#minority === undefined)) return;
    this.#core.log('warn', this.#minority === undefined ? 'majority-heard' : 'no-majority');
    this.#core.emit({ type: 'state' });
  }

  /** Excludes whom a majority has voted out; returns them. */
  decide(): Excluded[] {
    const { members, now } = this.#core;
    const outvoted = members
      .outvoted()
      .map(({ origin, name }) => ({ origin, name, at: Math.floor(now.wall) }));
    if (outvoted.length === 0) return [];
    const news = noNews();
    members.merge([], [], outvoted, news);
    for (const { name, origin } of news.excluded)
      this.#core.log('warn', 'excluded', { member: name, origin });
    return news.excluded;
  }

  /** Since the last beat, ms. */
  get #gap(): number {
    const { wall, mono } = this.#core.now;
    return Math.max(wall - this.#at.wall, mono - this.#at.mono);
  }

  /** Of a member, by all time, ms. */
  #silence(origin: OriginId): number {
    const heard = this.#heard.get(origin);
    return heard === undefined ? 0 : this.#elapsed + this.#gap - heard.elapsed;
  }

  #hearsMajority(): boolean {
    const { members, identity, detector, now } = this.#core;
    let heard = 0;
    for (const { origin } of members.active())
      if (origin === identity.origin || detector.state(origin, now.mono) === 'alive') heard += 1;
    return heard * 2 > members.active().length;
  }

  #findSilent(): OriginId[] {
    const { identity, members, options } = this.#core;
    if (identity.phase !== 'ready' || identity.unmet || !members.isMember(identity.origin)) return [];
    const out: OriginId[] = [];
    for (const { origin } of members.active())
      if (origin !== identity.origin && this.#counted - this.#heard.get(origin)!.counted >= options.leaseMs)
        out.push(origin);
    return out.sort().slice(0, SILENT_MAX);
  }

  #findMinority(): Minority | undefined {
    const { identity, members, options } = this.#core;
    const active = members.active();
    let unheard = 0;
    let shortest = Number.POSITIVE_INFINITY;
    for (const { origin } of active) {
      if (origin === identity.origin) continue;
      const silence = this.#silence(origin);
      if (silence < options.leaseMs / 2) continue;
      unheard += 1;
      shortest = Math.min(shortest, silence);
    }
    if (unheard * 2 <= active.length) return undefined;
    return { heard: active.length - unheard, members: active.length, forMs: shortest };
  }
}
