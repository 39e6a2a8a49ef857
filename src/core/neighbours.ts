/**
 * Which members a node links to when there are too many to link to all: the next living one in the ring of names
 * (which keeps the mesh in one piece), its nearest, and random others, `meshLinks` in all at least.
 *
 * Near is what the handshake says: a first beat answers our hello, so it comes one round trip after the link was
 * opened. Near ones are found by probing: a member drawn at random is dialed; whoever is clearly nearer than one
 * of the nearest links so far stays, and a link that it makes superfluous is closed; whoever is not is let go.
 * So the mesh comes to consist of dense neighbourhoods, in which a frame spreads within milliseconds, with many
 * links between any two of them. After a while without a find, probes become rare.
 *
 * Each node decides about the links that it dialed, and only about those.
 */
import { type Core, isSparse } from './core.js';
import type { Peer } from './peer.js';
import type { MemberRow } from './types.js';

/** Share of `meshLinks` that are to be near. */
const NEAR_SHARE = 0.5;
/** How much nearer a find must be: by this factor, and by so many ms, lest jitter decide. */
const NEARER_FACTOR = 0.7;
const NEARER_MS = 5;
/** Probes in a row without a find, after which they become rare. */
const FRUITLESS_MAX = 40;
/** Between probes, in beats: at first, and when they are rare. */
const PROBE_BEATS = 0.5;
const RARE_PROBE_BEATS = 300;
/** Links above `meshLinks` that are let be: others dial, too. */
const SLACK = 2;
/** A probe that has no answer after so many beats is given up. */
const PROBE_BEATS_MAX = 5;
/** Draws for a member that fits. */
const DRAWS_MAX = 64;
/** Dials that fail in a row before a lost neighbour is replaced. */
export const REDIALS_MAX = 2;

/** What it needs to know of the links, and may do to them. */
export interface Dialing {
  /** Links on their way: being dialed, or shaking hands. */
  readonly pending: number;
  /** Dials of it that failed in a row. */
  failures(row: MemberRow): number;
  close(peer: Peer, reason: string): void;
}

export class Neighbours {
  readonly #core: Core;
  readonly #dialing: Dialing;
  /** Dialed, and lost otherwise than by our choice: dialed again before they are replaced. By name. */
  readonly #lost = new Set<string>();
  /** Probed before. By name; emptied when all were. */
  readonly #probed = new Set<string>();
  #probe: { readonly row: MemberRow; readonly since: number } | undefined;
  #probeAt = 0;
  #fruitless = 0;
  /** The member table's list, and what of it can be dialed: to filter it once per change. */
  #active: readonly MemberRow[] = [];
  #dialable: readonly MemberRow[] = [];
  /** Where this node's successor in the ring of names stands in it. */
  #successor = 0;

  constructor(core: Core, dialing: Dialing) {
    this.#core = core;
    this.#dialing = dialing;
  }

  gone(peer: Peer, lost: boolean): void {
    if (lost && peer.dialed !== undefined && isSparse(this.#core)) this.#lost.add(peer.name);
  }

  /** Members to dial now. */
  wanted(): MemberRow[] {
    const { options } = this.#core;
    const linked = this.#core.linked();
    const names = new Set(linked.map((peer) => peer.name));
    const wanted = this.#ringSuccessors(names);
    for (const name of this.#lost) {
      const row = this.#core.members.byName(name);
      if (row === undefined || names.has(name) || this.#dialing.failures(row) >= REDIALS_MAX)
        this.#lost.delete(name);
      else if (!wanted.includes(row)) wanted.push(row);
    }
    let missing = options.meshLinks - names.size - wanted.length - this.#dialing.pending;
    for (; missing > 0; missing--) {
      const row = this.#draw((other) => !names.has(other.name) && !wanted.includes(other));
      if (row === undefined) break;
      wanted.push(row);
    }
    const probe = this.#probing(linked);
    if (probe !== undefined) wanted.push(probe);
    return wanted;
  }

  isNeighbour(name: string): boolean {
    const active = this.#core.members.active();
    const at = active.findIndex((row) => row.name === name);
    const mine = active.findIndex((row) => row.name === this.#core.config.name);
    if (at < 0 || mine < 0) return true;
    const distance = (at - mine + active.length) % active.length;
    return distance === 1 || distance === active.length - 1;
  }

  /** The next member in the ring of names, and those after it while it does not answer. */
  #ringSuccessors(linked: ReadonlySet<string>): MemberRow[] {
    const others = this.#others();
    const out: MemberRow[] = [];
    for (let i = 0; i < others.length; i++) {
      const row = others[(this.#successor + i) % others.length]!;
      if (linked.has(row.name)) break;
      out.push(row);
      if (this.#dialing.failures(row) < REDIALS_MAX) break;
    }
    return out;
  }

  /** Ends the probe that has its answer, and begins the next when it is time. */
  #probing(linked: readonly Peer[]): MemberRow | undefined {
    const { now, options, members } = this.#core;
    if (this.#probe !== undefined && !this.#judge(this.#probe, linked)) return this.#probe.row;
    this.#probe = undefined;
    if (now.mono < this.#probeAt || linked.length < options.meshLinks) return undefined;
    if (this.#probed.size >= members.active().length - 1) this.#probed.clear();
    const names = new Set(linked.map((peer) => peer.name));
    const row = this.#draw((other) => !names.has(other.name) && !this.#probed.has(other.name));
    const beats = this.#fruitless < FRUITLESS_MAX ? PROBE_BEATS : RARE_PROBE_BEATS;
    this.#probeAt = now.mono + this.#core.jitter(beats * options.beatMs);
    if (row === undefined) return undefined;
    this.#probed.add(row.name);
    this.#fruitless += 1;
    this.#probe = { row, since: now.mono };
    return row;
  }

  /** True once the probe is decided. */
  #judge(probe: { readonly row: MemberRow; readonly since: number }, linked: readonly Peer[]): boolean {
    const { now, options } = this.#core;
    const found = linked.find((peer) => peer.name === probe.row.name);
    if (found?.roundTripMs === undefined) {
      const late = now.mono - probe.since > PROBE_BEATS_MAX * options.beatMs;
      if (late && found?.dialed !== undefined) this.#dialing.close(found, 'a probe without an answer');
      return late || this.#dialing.failures(probe.row) > 0;
    }
    if (found.dialed === undefined) return true;
    const nearest = linked
      .filter((peer) => peer !== found && peer.roundTripMs !== undefined)
      .sort((a, b) => a.roundTripMs! - b.roundTripMs!);
    const count = Math.ceil(options.meshLinks * NEAR_SHARE);
    const bound = nearest[count - 1]?.roundTripMs ?? Number.POSITIVE_INFINITY;
    if (found.roundTripMs > bound * NEARER_FACTOR || found.roundTripMs > bound - NEARER_MS) {
      this.#dialing.close(found, 'not near');
      if (linked.length - 1 > options.meshLinks + SLACK)
        this.#dropSurplus(linked, new Set([found, ...nearest.slice(0, count)]));
      return true;
    }
    this.#fruitless = 0;
    this.#dropSurplus(linked, new Set([found, ...nearest.slice(0, count - 1)]));
    return true;
  }

  /** Lets one go that this node dialed and that is neither near nor next in the ring. */
  #dropSurplus(linked: readonly Peer[], near: ReadonlySet<Peer>): void {
    if (linked.length <= this.#core.options.meshLinks) return;
    const surplus = linked.filter(
      (peer) => peer.dialed !== undefined && !near.has(peer) && !this.isNeighbour(peer.name),
    );
    const peer = surplus[Math.floor(this.#core.deps.random() * surplus.length)];
    if (peer !== undefined) this.#dialing.close(peer, 'farther than another');
  }

  /** A random other member for which this holds; undefined when none turned up in a fair number of draws. */
  #draw(holds: (row: MemberRow) => boolean): MemberRow | undefined {
    const others = this.#others();
    for (let tries = Math.min(others.length * 2, DRAWS_MAX); tries > 0; tries--) {
      const row = others[Math.floor(this.#core.deps.random() * others.length)]!;
      if (holds(row)) return row;
    }
    return undefined;
  }

  /** Members that can be dialed, in order of names. */
  #others(): readonly MemberRow[] {
    const active = this.#core.members.active();
    if (this.#active !== active) {
      const { name } = this.#core.config;
      this.#active = active;
      this.#dialable = active.filter((row) => row.name !== name && row.address !== '');
      this.#successor = Math.max(
        this.#dialable.findIndex((row) => row.name > name),
        0,
      );
    }
    return this.#dialable;
  }
}
