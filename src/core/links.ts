/**
 * Links: whom this node dials, whom it lets in, and one link per peer.
 *
 * Handshake: both sides send a `hello` at once; each judges the other's by itself. A refused peer is told why.
 * Two nodes that dial each other end with the link that the smaller origin dialed; both sides know which.
 *
 * Dialing is level-triggered: `reconcile` compares the member table (and the seeds) with the links there are,
 * again and again. Up to `fullMeshMax` members every one is wanted; above that neighbours.ts chooses.
 *
 * A clock that runs ahead of ours by more than the drift bound is refused; it is the one ahead that is tested,
 * since a delayed message only ever makes a clock look late. Both sides thus hear of it, and a node that most
 * of the others refuse knows that the fault is its own.
 */
import { type Core, isSparse } from './core.js';
import type { LinkId } from './io.js';
import { EXCLUDED_TEXT, type Lifecycle } from './lifecycle.js';
import type { Hello, PeerPhase, Refuse } from './messages.js';
import { Neighbours } from './neighbours.js';
import { Peer } from './peer.js';
import type { MemberRow, OriginId } from './types.js';

export const PROTOCOL_VERSION = 1;

const SILENT = 'silent';
/** Code of the refusal of a store whose origin was excluded: it is to start anew, by itself. */
const EXCLUDED = 'EXCLUDED';

const NOT_ADMITTED_TEXT =
  'this node does not hear a majority of the members, so it lets no newcomer in: wait for them, or remove those that are gone for good (readmesh remove NAME)';

interface Dial {
  state: 'idle' | 'dialing' | 'open';
  failures: number;
  notBefore: number;
  /** Whose address it turned out to be. */
  origin: OriginId | undefined;
  self: boolean;
}

export interface LinkHandlers {
  onAccepted(peer: Peer): void;
  /** `lost`: not by this node's choice. */
  onGone(peer: Peer, lost: boolean): void;
}

export class Links {
  readonly #core: Core;
  readonly #lifecycle: Lifecycle;
  readonly #handlers: LinkHandlers;
  readonly #dials = new Map<string, Dial>();
  readonly #dialing = new Set<string>();
  readonly #neighbours: Neighbours;
  /** Peers (by name) that refused us, or that we refused, for their clock: until when that counts. */
  readonly #skewed = new Map<string, number>();
  /** What peers last refused us for, by code: the text, and until when it counts as a present issue. */
  readonly #refusals = new Map<string, { message: string; until: number }>();
  #sweptAt = 0;

  constructor(core: Core, lifecycle: Lifecycle, handlers: LinkHandlers) {
    this.#core = core;
    this.#lifecycle = lifecycle;
    this.#handlers = handlers;
    const pending = (): number => this.#pending();
    this.#neighbours = new Neighbours(core, {
      get pending() {
        return pending();
      },
      failures: (row) => this.#dials.get(row.address)?.failures ?? 0,
      close: (peer, reason) => this.close(peer, reason),
    });
  }

  start(): void {
    this.#sweptAt = this.#core.now.mono;
    this.reconcile();
  }

  opened(link: LinkId, dialed: string | undefined): void {
    const core = this.#core;
    const peer = new Peer(link, dialed, core.now.mono);
    core.peers.set(link, peer);
    if (dialed !== undefined) {
      this.#dial(dialed).state = 'open';
      this.#dialing.delete(dialed);
    }
    // Nothing that a peer says could be kept.
    if (core.identity.phase === 'failed') return this.close(peer, 'the store failed');
    core.send(peer, this.#hello());
  }

  closed(link: LinkId): void {
    const peer = this.#core.peers.get(link);
    if (peer !== undefined) this.#gone(peer, true);
  }

  dialFailed(address: string, reason: string): void {
    const dial = this.#dial(address);
    dial.state = 'idle';
    this.#dialing.delete(address);
    dial.failures += 1;
    if (dial.failures === 1) this.#core.log('warn', 'unreachable', { address, reason });
    this.#backOff(dial);
  }

  /** Closes the link; the peer is gone at once, whatever the driver still hears of it. */
  close(peer: Peer, reason: string): void {
    this.#core.emit({ type: 'close-link', link: peer.link, reason });
    this.#gone(peer, reason === SILENT);
  }

  closeAll(reason: string): void {
    for (const peer of [...this.#core.peers.values()]) this.close(peer, reason);
  }

  refuse(peer: Peer, code: string, message: string): void {
    const core = this.#core;
    core.counters.linksRefused += 1;
    core.log('warn', 'refused-peer', { code, message, peer: peer.name || (peer.dialed ?? 'inbound') });
    core.send(peer, { type: 'refuse', code, message });
    if (peer.dialed !== undefined) this.#dial(peer.dialed).failures += 1;
    // Whoever belongs to no cluster yet, and finds a seed to be the wrong one, has this as its own trouble.
    if (peer.dialed !== undefined && core.identity.uid === '' && code === 'WRONG_CLUSTER')
      this.#note(code, message);
    this.close(peer, code);
  }

  refused(peer: Peer, refuse: Refuse): void {
    const core = this.#core;
    core.log('warn', 'refused-by-peer', {
      code: refuse.code,
      message: refuse.message,
      peer: peer.name || (peer.dialed ?? ''),
    });
    if (refuse.code === 'CLOCK_SKEW') this.#noteSkew(peer.name || (peer.dialed ?? ''));
    if (refuse.code === 'REMOVED') this.#lifecycle.expel();
    if (refuse.code === EXCLUDED) this.#lifecycle.outdate(peer.name, EXCLUDED_TEXT);
    else this.#note(refuse.code, refuse.message);
    core.emit({ type: 'state' });
    if (peer.dialed !== undefined) this.#dial(peer.dialed).failures += 1;
    this.close(peer, refuse.code);
  }

  hello(peer: Peer, hello: Hello): void {
    const core = this.#core;
    const { identity, config } = core;
    if (peer.hello !== undefined) return this.close(peer, 'a second hello');
    const dial = peer.dialed === undefined ? undefined : this.#dial(peer.dialed);
    if (dial !== undefined) dial.origin = hello.origin;
    if (hello.origin === identity.origin && hello.run === config.run) {
      if (dial !== undefined) dial.self = true;
      return this.close(peer, 'this is myself');
    }
    const refusal = this.#judge(hello);
    if (refusal !== undefined) {
      if (refusal[0] === 'CLOCK_SKEW') this.#noteSkew(hello.name);
      return this.refuse(peer, refusal[0], refusal[1]);
    }
    if (!this.#isTheOneLink(peer, hello)) return this.close(peer, 'duplicate');
    peer.hello = hello;
    peer.phase = hello.phase;
    peer.clusterUid = hello.clusterUid;
    peer.alone = hello.alone;
    core.log('info', 'linked', { peer: hello.name, address: hello.address, phase: hello.phase });
    this.#handlers.onAccepted(peer);
    this.#lifecycle.consider(peer);
    this.reconcile();
  }

  /** The wall clock in a later message of an accepted peer. */
  checkClock(peer: Peer, wallMs: number): boolean {
    if (!this.#isAhead(wallMs)) {
      if (peer.beatAt === Number.NEGATIVE_INFINITY) this.#isAgreed(peer);
      return true;
    }
    this.#noteSkew(peer.name);
    this.refuse(peer, 'CLOCK_SKEW', this.#skewText(wallMs));
    return false;
  }

  /**
   * The first beat says that the peer has accepted this node, too; its hello does not. A node that took the hello
   * for it would dial those that refuse it without a pause, and forget between two refusals that its clock is off.
   */
  #isAgreed(peer: Peer): void {
    this.#skewed.delete(peer.name);
    if (peer.dialed === undefined) return;
    this.#skewed.delete(peer.dialed);
    this.#dial(peer.dialed).failures = 0;
  }

  /**
   * More members refuse to talk to this node's clock (or it to theirs) than agree with it. A write stamped by such
   * a clock could not reach the others for as long as it is ahead.
   */
  get clockIsOff(): boolean {
    const { now } = this.#core;
    let skewed = 0;
    for (const until of this.#skewed.values()) if (until > now.mono) skewed += 1;
    return skewed > 0 && skewed > this.#core.partners().length;
  }

  /** What peers refuse this node for at present. */
  issues(): { code: string; message: string }[] {
    const { now } = this.#core;
    const out: { code: string; message: string }[] = [];
    // One that is out of step calls everybody else so: it takes more than one word to make that an issue.
    for (const [code, refusal] of this.#refusals)
      if (refusal.until > now.mono && (code !== 'CLOCK_SKEW' || this.clockIsOff))
        out.push({ code, message: refusal.message });
    return out;
  }

  /** A live node bears this node's origin: its sequence numbers are not this node's to give. */
  get isFenced(): boolean {
    return (this.#refusals.get('DUPLICATE_ORIGIN')?.until ?? 0) > this.#core.now.mono;
  }

  /** Drops silent links and dials whom it should. Runs several times a beat. */
  reconcile(): void {
    const core = this.#core;
    const { now, options, timers } = core;
    timers.set('links', now.mono + options.beatMs / 4);
    if (core.identity.phase === 'failed') return;
    this.#sweepSilent();
    for (const peer of core.linked()) {
      if (core.members.isRemoved(peer.origin))
        this.refuse(peer, 'REMOVED', 'this member was removed from the cluster');
      else if (core.members.isExcluded(peer.origin)) this.refuse(peer, EXCLUDED, EXCLUDED_TEXT);
    }
    if (core.identity.phase === 'expelled') return;
    for (const member of this.#wanted()) this.#dialIfDue(member.address, this.#courtesy(member));
    this.#reconcileSeeds();
  }

  /** A refusal that is this node's own trouble: shows in its health for a while after the last time. */
  #note(code: string, message: string): void {
    const { now, options } = this.#core;
    this.#refusals.set(code, { message, until: now.mono + options.redialMaxMs * 4 });
  }

  #reconcileSeeds(): void {
    const core = this.#core;
    const newcomers: Peer[] = [];
    let unknown = 0;
    for (const seed of core.config.join) {
      const dial = this.#dial(seed);
      if (dial.self || seed === core.config.address) continue;
      const peer = core
        .linked()
        .find((p) => p.dialed === seed || p.hello?.address === seed || p.origin === dial.origin);
      if (peer === undefined || peer.clusterUid !== '') unknown += 1;
      else newcomers.push(peer);
      if (peer === undefined && !core.members.hasAddress(seed)) this.#dialIfDue(seed, 0);
    }
    if (core.config.join.length > 0) {
      const inbound = core.linked().filter((p) => p.clusterUid === '' && !newcomers.includes(p));
      this.#lifecycle.seedsAre({ unknown, newcomers: [...newcomers, ...inbound] });
    }
  }

  /** Links on their way: being dialed, or shaking hands. */
  #pending(): number {
    let count = this.#dialing.size;
    for (const peer of this.#core.peers.values()) if (peer.hello === undefined) count += 1;
    return count;
  }

  #hello(): Hello {
    const { identity, config, taken, now } = this.#core;
    return {
      type: 'hello',
      version: PROTOCOL_VERSION,
      cluster: config.cluster,
      clusterUid: identity.uid,
      name: config.name,
      host: config.host,
      address: config.address,
      origin: identity.origin,
      run: config.run,
      phase: this.#greetedPhase,
      alone: this.#lifecycle.alone,
      wallMs: now.wall,
      head: taken.head(identity.origin),
    };
  }

  #judge(hello: Hello): readonly [code: string, message: string] | undefined {
    const core = this.#core;
    const { identity, config, members, now, options } = core;
    if (hello.version !== PROTOCOL_VERSION)
      return [
        'VERSION_MISMATCH',
        `this node speaks version ${PROTOCOL_VERSION}, you speak ${hello.version}: upgrade the older one`,
      ];
    if (hello.cluster !== config.cluster)
      return [
        'WRONG_CLUSTER',
        `this is cluster "${config.cluster}", you belong to "${hello.cluster}": correct --cluster or the address`,
      ];
    const apart = this.#lifecycle.refusal(hello);
    if (apart !== undefined) return ['WRONG_CLUSTER', apart];
    if (this.#isAhead(hello.wallMs)) return ['CLOCK_SKEW', this.#skewText(hello.wallMs)];
    if (members.isRemoved(hello.origin))
      return ['REMOVED', `member "${hello.name}" was removed: empty its data folder to let it join again`];
    if (members.isExcluded(hello.origin)) return [EXCLUDED, EXCLUDED_TEXT];
    if (this.#isNewcomer(hello) && !core.exclusion.admits) return ['NO_MAJORITY', NOT_ADMITTED_TEXT];
    if (hello.origin === identity.origin)
      return [
        'DUPLICATE_ORIGIN',
        `"${hello.name}" runs on a copy of the store of "${config.name}": stop one and empty its folder`,
      ];
    if (hello.name === config.name)
      return [
        'NAME_IN_USE',
        `the name "${hello.name}" is this node's own: start the other with another --name`,
      ];
    const limit =
      members.active().length > options.fullMeshMax ? options.meshLinks * 3 : options.fullMeshMax * 2;
    if (core.linked().length >= limit && hello.phase === 'ready' && !this.#neighbours.isNeighbour(hello.name))
      return ['OVERLOADED', 'this node has enough links: try another member'];
    for (const other of core.linked()) {
      if (now.mono - other.heardAt >= options.beatMs * 2) continue;
      if (other.origin === hello.origin && other.hello?.run !== hello.run)
        return [
          'DUPLICATE_ORIGIN',
          `another live node bears the origin of "${hello.name}": is its store a copy?`,
        ];
      if (other.name === hello.name && other.origin !== hello.origin)
        return ['NAME_IN_USE', `a live node is already called "${hello.name}": choose another --name`];
    }
    return undefined;
  }

  /** Whether the member table would grow by it. */
  #isNewcomer({ clusterUid, name }: Hello): boolean {
    const { identity, members } = this.#core;
    const { uid } = identity;
    return uid !== '' && clusterUid !== uid && !this.#lifecycle.alone && members.byName(name) === undefined;
  }

  /** A newcomer joins at the word of somebody who is ready, before it can hear of a refusal. The first beat tells members. */
  get #greetedPhase(): PeerPhase {
    const phase = this.#lifecycle.peerPhase;
    return phase === 'ready' && !this.#core.exclusion.admits ? 'bootstrapping' : phase;
  }

  /** Drops the link that loses; true if the new one stays. */
  #isTheOneLink(peer: Peer, hello: Hello): boolean {
    const core = this.#core;
    const mine = core.identity.origin;
    for (const other of core.linked()) {
      if (other.name === hello.name && other.origin !== hello.origin) this.close(other, 'replaced');
      if (other.origin !== hello.origin) continue;
      const otherDialer = other.dialed === undefined ? hello.origin : mine;
      const newDialer = peer.dialed === undefined ? hello.origin : mine;
      const keepNew = otherDialer === newDialer ? newDialer !== mine : newDialer < otherDialer;
      if (!keepNew && other.hello?.run === hello.run) return false;
      this.close(other, 'duplicate');
    }
    return true;
  }

  #isAhead(wallMs: number): boolean {
    return wallMs - this.#core.now.wall > this.#core.options.maxClockDriftMs;
  }

  #skewText(wallMs: number): string {
    const { now, options } = this.#core;
    return `your clock is ${Math.round(wallMs - now.wall)} ms ahead of this node's, more than the ${options.maxClockDriftMs} ms allowed: correct the clock that is wrong`;
  }

  #noteSkew(who: string): void {
    const { now, options } = this.#core;
    this.#skewed.set(who, now.mono + options.redialMaxMs * 4);
    this.#core.emit({ type: 'state' });
  }

  #sweepSilent(): void {
    const core = this.#core;
    const { now, options } = core;
    // A loop that was late could not hear anybody: what it slept is not their silence.
    const lag = now.mono - this.#sweptAt - options.beatMs / 4;
    this.#sweptAt = now.mono;
    if (lag > options.beatMs / 4) {
      core.detector.forgive(lag, now.mono);
      for (const peer of core.peers.values()) peer.heardAt = Math.min(now.mono, peer.heardAt + lag);
    }
    for (const peer of [...core.peers.values()])
      if (now.mono - (peer.hello === undefined ? peer.openedAt : peer.heardAt) > options.beatMs * 2) {
        core.log('warn', 'link-silent', { peer: peer.name || (peer.dialed ?? 'inbound') });
        this.close(peer, SILENT);
      }
  }

  #gone(peer: Peer, lost: boolean): void {
    const core = this.#core;
    if (!core.peers.delete(peer.link)) return;
    if (peer.dialed !== undefined) {
      const dial = this.#dial(peer.dialed);
      dial.state = 'idle';
      this.#backOff(dial);
    }
    if (peer.hello === undefined) return;
    this.#neighbours.gone(peer, lost);
    this.#handlers.onGone(peer, lost);
  }

  #dial(address: string): Dial {
    let dial = this.#dials.get(address);
    if (dial === undefined) {
      dial = { state: 'idle', failures: 0, notBefore: 0, origin: undefined, self: false };
      this.#dials.set(address, dial);
    }
    return dial;
  }

  #backOff(dial: Dial): void {
    const { options, now } = this.#core;
    const delay = Math.min(options.redialMaxMs, options.redialMinMs * 2 ** Math.min(dial.failures, 16));
    dial.notBefore = now.mono + this.#core.jitter(delay);
  }

  #dialIfDue(address: string, courtesyMs: number): void {
    const { now, config } = this.#core;
    if (address === '' || address === config.address) return;
    const fresh = !this.#dials.has(address);
    const dial = this.#dial(address);
    if (fresh && courtesyMs > 0) dial.notBefore = now.mono + courtesyMs;
    if (dial.state !== 'idle' || dial.self || now.mono < dial.notBefore) return;
    dial.state = 'dialing';
    this.#dialing.add(address);
    this.#core.emit({ type: 'dial', address });
  }

  /**
   * Of two members the one with the smaller name dials first, so that most pairs never make two links. Not to one that
   * has nothing yet: every source that it has to wait for is time in which it does not serve.
   */
  #courtesy(member: MemberRow): number {
    const { config, options, identity } = this.#core;
    const isEager = config.address === '' || identity.phase === 'bootstrapping' || isSparse(this.#core);
    const first = isEager || config.name < member.name;
    return first ? 0 : this.#core.jitter(options.beatMs);
  }

  /** Members to dial now: unlinked and wanted. */
  #wanted(): MemberRow[] {
    const core = this.#core;
    if (isSparse(core)) return this.#neighbours.wanted();
    const linked = new Set(core.linked().map((peer) => peer.origin));
    return core.members
      .active()
      .filter((row) => row.name !== core.config.name && row.address !== '' && !linked.has(row.origin));
  }
}
