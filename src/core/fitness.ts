/**
 * What is wrong with this node: what its health says, and why it takes no writes. Each refusal says what to do, and has
 * its counterpart in health.
 */
import { ReadmeshError } from '../errors.js';
import type { Core } from './core.js';
import type { Lifecycle } from './lifecycle.js';
import type { Links } from './links.js';

export class Fitness {
  readonly #core: Core;
  readonly #lifecycle: Lifecycle;
  readonly #links: Links;
  /** Wall clock minus monotonic clock at the last input, ms: it changes when the clock is set. */
  #clockOffset: number | undefined;
  /** Monotonic ms until which a clock that was set ahead gives no stamps. */
  #clockUnconfirmedUntil = Number.NEGATIVE_INFINITY;
  /** The node is about to be closed. */
  isStopping = false;

  constructor(core: Core, lifecycle: Lifecycle, links: Links) {
    this.#core = core;
    this.#lifecycle = lifecycle;
    this.#links = links;
  }

  /**
   * A clock that is set ahead may be right or wrong, and the others say so within a beat. A stamp given before
   * that by a wrong one would keep them from taking anything of this node's for as long as it is ahead.
   */
  watchClock(): void {
    const { now, options, members, timers } = this.#core;
    const { wall, mono } = now;
    const offset = wall - mono;
    const step = offset - (this.#clockOffset ?? offset);
    this.#clockOffset = offset;
    if (step <= options.maxClockDriftMs || members.active().length < 2) return;
    this.#clockUnconfirmedUntil = mono + 2 * options.beatMs;
    timers.set('beat', mono);
    this.#core.log('warn', 'clock-set-ahead', { byMs: Math.round(step) });
    this.#core.emit({ type: 'state' });
  }

  get hasDoubtfulClock(): boolean {
    const core = this.#core;
    if (core.members.active().length < 2) return false;
    return (
      core.now.mono < this.#clockUnconfirmedUntil || core.partners().length === 0 || this.#links.clockIsOff
    );
  }

  get mayMerge(): boolean {
    const { phase } = this.#core.identity;
    return !this.isStopping && (phase === 'ready' || phase === 'bootstrapping');
  }

  /** What is wrong at present; `damages`: what is, with the copy. Empty when all is well. */
  issues(damages: readonly { code: string; message: string }[]): { code: string; message: string }[] {
    const { phase } = this.#core.identity;
    const out = this.#links.issues();
    if (phase === 'failed')
      out.push({
        code: 'STORE_FAILED',
        message: 'the store refused a write: nothing is acknowledged until it is reopened',
      });
    if (phase === 'outdated') out.push({ code: 'OUTDATED', message: this.#lifecycle.outdatedText });
    const minority = this.#minorityIssue();
    if (minority !== undefined) out.push({ code: 'NO_MAJORITY', message: minority });
    if (phase === 'expelled')
      out.push({
        code: 'REMOVED',
        message: 'this node was removed from its cluster: empty its data folder to join again',
      });
    out.push(...damages);
    const clock = this.#clockIssue();
    if (clock !== undefined && !out.some((issue) => issue.code === 'CLOCK_SKEW'))
      out.push({ code: 'CLOCK_SKEW', message: clock });
    return out;
  }

  /** Throws the reason why this node takes no writes. */
  refuseUnfit(): void {
    const { phase, unmet } = this.#core.identity;
    if (this.isStopping) throw new ReadmeshError('CLOSED', 'this node is closing: ask another');
    if (phase === 'expelled')
      throw new ReadmeshError('REMOVED', 'this node was removed from its cluster: ask another');
    if (phase === 'outdated')
      throw new ReadmeshError('NOT_READY', `${this.#lifecycle.outdatedText}: ask another`);
    if (phase === 'failed')
      throw new ReadmeshError('STORE_FAILED', 'the store of this node has failed: ask another');
    if (unmet)
      throw new ReadmeshError(
        'NOT_READY',
        'this node was restored from a backup and has met no member of its cluster yet: ask another, or start it without --join if there is no other',
      );
    if (phase !== 'ready')
      throw new ReadmeshError(
        'NOT_READY',
        'this node does not hold all data yet: ask another, or wait for /readyz',
      );
    if (this.#links.isFenced)
      throw new ReadmeshError(
        'DUPLICATE_ORIGIN',
        'another live node runs on a copy of this store: ask another',
      );
    const clock = this.#clockIssue();
    if (clock !== undefined) throw new ReadmeshError('CLOCK_SKEW', clock);
    const minority = this.#minorityIssue();
    if (minority !== undefined) throw new ReadmeshError('NO_MAJORITY', `${minority}: ask another`);
  }

  #clockIssue(): string | undefined {
    const { now, hlc, horizon } = this.#core;
    const { wall, mono } = now;
    if (mono < this.#clockUnconfirmedUntil)
      return "this host's clock was set ahead a moment ago: retry when the other members had time to object";
    if (this.#links.clockIsOff) return "most of the other members refuse this host's clock: correct it";
    if (Math.max(wall, hlc.ms) <= horizon.floor) return horizon.setBackText;
    if (hlc.isSkewed(wall))
      return `this host's clock is ${hlc.ms - wall} ms behind a stamp already given: correct it`;
    return undefined;
  }

  #minorityIssue(): string | undefined {
    const { identity, exclusion } = this.#core;
    const minority = identity.phase === 'ready' ? exclusion.minority : undefined;
    if (minority === undefined) return undefined;
    const { heard, members, forMs } = minority;
    return (
      `for ${Math.floor(forMs / 1_000)} s this node has heard no majority of the members (${heard} of ${members}, itself included), ` +
      'and the others may go on without it: it takes no writes until it hears them'
    );
  }
}
