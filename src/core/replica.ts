/**
 * The replica: the state machine that composes the parts (core.ts lists them). Sans-I/O: it holds no clock, no
 * sockets, no timers, no promises. See io.ts for the contract: one input, drain all effects, the next input.
 *
 * What it may look up synchronously is the row of one key as last written. Everything that is still on its
 * way to the store is known to its own write queue.
 */
import { isReadmeshError } from '../errors.js';
import type { CoreOptions } from '../options.js';
import { Acknowledgements } from './acknowledgements.js';
import type { BootstrapProgress } from './bootstrap.js';
import { Collection } from './collection.js';
import { Commit } from './commit.js';
import type { Core, Counters, Identity, ReplicaConfig, ReplicaDeps, TimerName } from './core.js';
import { Digest, type DigestView } from './digest.js';
import { Exclusion } from './exclusion.js';
import { FailureDetector } from './failure-detector.js';
import { Fitness } from './fitness.js';
import { Gossip } from './gossip.js';
import { DAMAGED, type Found, Heal, type Outcome } from './heal.js';
import { HealAnswers } from './heal-answers.js';
import { Hlc } from './hlc.js';
import { Horizon } from './horizon.js';
import type { Effect, Input, LinkId, LocalWrite } from './io.js';
import { Lifecycle } from './lifecycle.js';
import { Links } from './links.js';
import { MemberTable, noNews } from './membership.js';
import type { PeerMessage } from './messages.js';
import { Offers } from './offers.js';
import type { Peer } from './peer.js';
import { Reconcile } from './reconcile.js';
import { ReconcileAnswers } from './reconcile-answers.js';
import { Merge, Replication } from './replication.js';
import { type KnownToAll, type Verdict, verdictOn } from './returning.js';
import { Sealing } from './sealing.js';
import { Sessions } from './sessions.js';
import { Timers } from './timers.js';
import { Trees } from './trees.js';
import type { Instant, MemberRow, Row } from './types.js';
import { VersionVector } from './version-vector.js';
import { WriteQueue } from './write-queue.js';

const NO_COUNTS: Counters = {
  framesPushed: 0,
  framesReceived: 0,
  framesDuplicate: 0,
  framesRelayed: 0,
  framesFetched: 0,
  framesDropped: 0,
  gaps: 0,
  recordsReceived: 0,
  recordsApplied: 0,
  sessionsPulled: 0,
  sessionsServed: 0,
  sessionsFailed: 0,
  futureStamps: 0,
  linksRefused: 0,
  originsMinted: 0,
  originsSealed: 0,
  originsForgotten: 0,
  rebuilds: 0,
  digestDamages: 0,
  digestMismatches: 0,
  rangesRepaired: 0,
  recordsRepaired: 0,
  recordsSetAside: 0,
  recordsDisputed: 0,
  recordsCollected: 0,
  recordsOutdated: 0,
  damageFound: 0,
  damageHealed: 0,
  recordsLost: 0,
  recordsLent: 0,
  fetches: 0,
};

/** What is heard of a peer that has missed a part of the cluster's history, so that it may come back to it. */
const NO_DATA: ReadonlySet<PeerMessage['type']> = new Set(['beat', 'members', 'resend', 'pulse']);

export interface MemberView extends MemberRow {
  readonly self: boolean;
  readonly state: 'alive' | 'suspect' | 'unknown';
  readonly linked: boolean;
  readonly lastHeardMs: number | undefined;
  /** How many others vote to exclude it. */
  readonly votes: number;
}

export interface Sizes {
  readonly queuedRows: number;
  readonly queuedBytes: number;
  readonly links: number;
  /** Rows and removals of the member table. */
  readonly members: number;
  /** Origins with a tree, members with a pulse, and pulses that are held for a moment. */
  readonly branches: number;
  readonly pulses: number;
  readonly held: number;
  /** Frames kept to be fetched, and frames waited for; the most that one peer is remembered to have. */
  readonly keptFrames: number;
  readonly keptBytes: number;
  readonly awaited: number;
  readonly offeredByOne: number;
}

export class ReplicaCore implements Core {
  readonly config: ReplicaConfig;
  readonly deps: ReplicaDeps;
  readonly options: CoreOptions;
  readonly identity: Identity;
  readonly hlc: Hlc;
  readonly taken = new VersionVector();
  readonly written = new VersionVector();
  readonly queue: WriteQueue;
  readonly acks: Acknowledgements;
  readonly members = new MemberTable();
  readonly sealing: Sealing;
  readonly horizon: Horizon = new Horizon(this);
  readonly collection: Collection;
  readonly exclusion: Exclusion = new Exclusion(this);
  readonly detector: FailureDetector;
  readonly timers = new Timers<TimerName>();
  readonly peers = new Map<LinkId, Peer>();
  readonly counters: Counters = { ...NO_COUNTS };
  readonly heal: Heal;
  now: Instant = { wall: 0, mono: 0 };

  readonly #commit: Commit;
  readonly #lifecycle: Lifecycle;
  readonly #links: Links;
  readonly #fitness: Fitness;
  readonly #gossip: Gossip;
  readonly #trees: Trees;
  readonly #offers: Offers;
  readonly #replication: Replication;
  readonly #sessions: Sessions;
  readonly #digest: Digest;
  readonly #reconcile: Reconcile;
  readonly #answers: ReconcileAnswers;
  readonly #healAnswers: HealAnswers;
  #out: Effect[] = [];
  #wakeAt: number | undefined;
  #scans = 0;

  constructor(config: ReplicaConfig, deps: ReplicaDeps) {
    this.config = config;
    this.deps = deps;
    this.options = config.options;
    this.identity = { uid: '', origin: this.randomId(), phase: 'new', founder: false, unmet: false };
    this.hlc = new Hlc(config.options.maxClockDriftMs, deps.recovered.hlc);
    for (const vector of [this.taken, this.written]) {
      for (const [origin, head] of deps.recovered.heads) vector.raise(origin, head, head);
      for (const [origin, top] of deps.recovered.tops)
        if (deps.recovered.heads.has(origin)) vector.raise(origin, 0, top);
    }
    const { commitRowsMax, commitBytesMax } = config.options;
    // Not by the vector: records of origins that are forgotten are not in it.
    const isEmpty = deps.recovered.heads.size === 0 && deps.recovered.tops.size === 0;
    this.queue = new WriteQueue(commitRowsMax, commitBytesMax, config.flushes, isEmpty);
    this.acks = new Acknowledgements((effect) => this.emit(effect));
    this.detector = new FailureDetector(config.options.beatMs);
    this.sealing = new Sealing(this, {
      onMissed: () => {
        this.#sessions.restart();
        this.#lifecycle.rebuild();
      },
      onDoubt: () => this.#sessions.restart(),
      root: () =>
        this.#digest.built && !this.#digest.view.doubt && this.collection.isSwept
          ? this.#digest.view.root
          : '',
    });
    const merge = new Merge(this);
    this.#digest = new Digest(this);
    this.#commit = new Commit(this, this.#digest, {
      onLanded: (batch) => this.#replication.landed(batch),
      onVector: (origins) => this.#gossip.changed(origins),
    });
    this.heal = new Heal(this, this.#digest, merge);
    this.collection = new Collection(this, this.#digest);
    this.#healAnswers = new HealAnswers(this, this.#digest);
    this.#reconcile = new Reconcile(this, this.#digest, merge);
    this.#answers = new ReconcileAnswers(this, this.#digest);
    this.#lifecycle = new Lifecycle(this, {
      onChanged: () => this.#gossip.greetAll(),
      onBootstrap: () => this.#sessions.evaluate(),
    });
    this.#links = new Links(this, this.#lifecycle, {
      onAccepted: (peer) => this.#accepted(peer),
      onGone: (peer, lost) => this.#gone(peer, lost),
    });
    this.#fitness = new Fitness(this, this.#lifecycle, this.#links);
    this.#trees = new Trees(this);
    this.#offers = new Offers(this);
    this.#replication = new Replication(this, merge, this.#trees, this.#offers);
    this.#gossip = new Gossip(this, this.#lifecycle, this.#links, this.#trees, (peer) =>
      this.#replication.resend(peer),
    );
    this.#sessions = new Sessions(this, this.#lifecycle, merge, this.#trees, this.#digest);
  }

  /** One input in, all its effects out. `now` never goes back in `mono`. */
  handle(input: Input, now: Instant): readonly Effect[] {
    this.now = now;
    this.#out = [];
    this.#fitness.watchClock();
    this.#take(input);
    this.#commit.launch();
    this.#commit.prepare();
    const wakeAt = this.timers.next();
    if (wakeAt !== this.#wakeAt) {
      this.#wakeAt = wakeAt;
      this.emit({ type: 'wake', at: wakeAt ?? null });
    }
    return this.#out;
  }

  // What the driver may read between inputs.

  get ready(): boolean {
    return this.identity.phase === 'ready';
  }

  get bootstrap(): BootstrapProgress | undefined {
    return this.#sessions.progress;
  }

  /** Whether this node, which bootstraps, has copied what there is under the key. */
  isCopied(key: string): boolean {
    return this.ready || this.#sessions.isCopied(key);
  }

  /** Where members are reached that hold everything. */
  sourceAddresses(): string[] {
    return this.partners()
      .filter((peer) => peer.phase === 'ready' && peer.hello?.address !== '')
      .map((peer) => peer.hello!.address);
  }

  /** Local evidence that the key's record may be lost, so that its absence says nothing. */
  isSuspect(key: string): boolean {
    return this.#digest.isSuspect(key);
  }

  /** The same of records with keys above `after`, up to `until`. */
  isSuspectWithin(after: string, until: string | undefined): boolean {
    return this.#digest.isSuspectWithin(after, until);
  }

  /** Whether no range of keys is suspect. */
  get isSound(): boolean {
    return this.#digest.isSound;
  }

  /** The store did not hold what its digest says, and no peer has vouched for all being well since. */
  get hasDoubt(): boolean {
    return this.#digest.hasDoubt;
  }

  /** Whether all of the store was read since it was opened, rather than vouched for by the last stop. */
  get wasRead(): boolean {
    return this.#digest.wasRead;
  }

  get digest(): DigestView {
    return this.#digest.view;
  }

  /** Whether what the store says of this key, absence included, was found equal to a peer's, or intact, since opening. */
  isProved(key: string): boolean {
    return this.#digest.isProved(key);
  }

  /** When everything here was last proved equal to what every linked member holds, monotonic ms. */
  get provedAt(): number | undefined {
    return this.#reconcile.provedAt;
  }

  /** Time by the hybrid clock, ms: what a client merges before it stamps. */
  clockMs(wall: number): number {
    return Math.max(wall, this.hlc.ms);
  }

  /** Whether this node has written everything that a majority of members (itself included) announced since then. */
  coversAnnouncedSince(mono: number): boolean {
    if (!this.ready) return false;
    const heard = this.partners().filter((peer) => peer.beatAt >= mono && this.members.isMember(peer.origin));
    if ((heard.length + 1) * 2 <= this.members.active().length) return false;
    return heard.every((peer) => !this.written.isBehind(peer.vector, this.sealing.isCovered));
  }

  /** How much there is of everything that members, links and traffic make grow; each has its cap. */
  get sizes(): Sizes {
    let offeredByOne = 0;
    for (const peer of this.peers.values()) offeredByOne = Math.max(offeredByOne, peer.offered.size);
    return {
      queuedRows: this.queue.rows,
      queuedBytes: this.queue.bytes,
      links: this.linked().length,
      members: this.members.known,
      branches: this.#trees.size,
      ...this.#gossip.sizes,
      ...this.#offers.sizes,
      offeredByOne,
    };
  }

  memberViews(): MemberView[] {
    const linked = new Set(this.linked().map((peer) => peer.origin));
    return this.members.active().map((row) => {
      const self = row.origin === this.identity.origin;
      return {
        ...row,
        self,
        state: self ? 'alive' : this.detector.state(row.origin, this.now.mono),
        linked: linked.has(row.origin),
        lastHeardMs: self ? 0 : this.detector.silence(row.origin, this.now.mono),
        votes: this.members.votes(row.origin),
      };
    });
  }

  /** What is wrong at present, for health. Empty when all is well. */
  issues(): { code: string; message: string }[] {
    const damages = [this.#digest.issue(), this.#reconcile.issue()];
    return this.#fitness.issues(damages.filter((damage) => damage !== undefined));
  }

  /** What becomes of an entry of a store that this node had before. */
  verdictOn(known: KnownToAll, key: string, row: Row): Verdict {
    return verdictOn(this, known, key, row);
  }

  /** Why the cluster went on without this store, if it did. */
  get outdatedText(): string {
    return this.#lifecycle.outdatedText;
  }

  // Core, for the parts.

  emit(effect: Effect): void {
    this.#out.push(effect);
  }

  send(peer: Peer, message: PeerMessage): void {
    this.emit({ type: 'send', links: [peer.link], message, bestEffort: false });
  }

  log(
    level: 'info' | 'warn' | 'error',
    event: string,
    details: Record<string, string | number | boolean> = {},
  ): void {
    this.emit({ type: 'log', level, event, details });
  }

  linked(): Peer[] {
    const out: Peer[] = [];
    for (const peer of this.peers.values()) if (peer.hello !== undefined) out.push(peer);
    return out;
  }

  current(key: string): Found {
    if (this.queue.isNew(key)) return undefined;
    const pending = this.queue.pending(key);
    if (pending !== undefined) return pending;
    if (this.queue.isRemoving(key)) return undefined;
    return this.heal.isLost(key) ? DAMAGED : this.deps.lookup(key);
  }

  nextScan(): number {
    return ++this.#scans;
  }

  partners(): Peer[] {
    const { uid, phase } = this.identity;
    if (uid === '' || phase === 'outdated') return [];
    return this.linked().filter((peer) => peer.clusterUid === uid && !peer.isOutdated);
  }

  get hasDoubtfulClock(): boolean {
    return this.#fitness.hasDoubtfulClock;
  }

  afterWritten(then: () => void): void {
    const last = this.queue.lastUnwritten();
    if (last === undefined) then();
    else last.whenWritten.push(then);
  }

  afterDurable(then: () => void): void {
    const last = this.queue.last();
    if (last === undefined) then();
    else last.whenDurable.push(then);
  }

  randomId(): string {
    const half = (): string =>
      Math.floor(this.deps.random() * 0x1_0000_0000)
        .toString(16)
        .padStart(8, '0');
    return half() + half();
  }

  jitter(ms: number): number {
    return ms / 2 + (this.deps.random() * ms) / 2;
  }

  // Inputs.

  #take(input: Input): void {
    switch (input.type) {
      case 'writes':
        for (const write of input.writes) this.#write(write);
        return;
      case 'message':
        return this.#message(input.link, input.message);
      case 'persisted':
        return this.#commit.persisted(input.batch);
      case 'flushed':
        return this.#commit.flushed(input.batch);
      case 'persist-failed':
        return this.#storeFailed(input.message);
      case 'tick':
        return this.#tick();
      case 'start':
        this.sealing.start();
        this.horizon.start();
        this.exclusion.start();
        this.#lifecycle.start();
        this.#gossip.start();
        this.#digest.start();
        return this.#links.start();
      case 'link-opened':
        return this.#links.opened(input.link, input.dialed);
      case 'link-closed':
        return this.#links.closed(input.link);
      case 'dial-failed':
        return this.#links.dialFailed(input.address, input.reason);
      case 'link-alive':
        return this.#alive(input.link);
      case 'link-congested':
      case 'link-drained':
        return this.#congestion(input.link, input.type === 'link-congested');
      case 'scan-opened':
        if (this.#digest.owns(input.scan)) return this.#digest.scanOpened(input.scan);
        if (this.#healAnswers.scanOpened(input.scan, input.heads)) return;
        return this.#sessions.serving.scanOpened(input.scan, input.heads);
      case 'scan-read':
        if (this.#digest.owns(input.scan))
          return this.#digest.scanRead(input.scan, input.records, input.last, input.damaged);
        if (this.#healAnswers.scanRead(input.scan, input.records, input.last)) return;
        return this.#sessions.serving.scanRead(input.scan, input.records, input.last, input.tops);
      case 'scan-failed':
        if (this.#digest.owns(input.scan)) return this.#digest.scanFailed(input.scan, input.message);
        if (this.#healAnswers.scanFailed(input.scan)) return;
        return this.#sessions.serving.scanFailed(input.scan, input.message, input.damaged);
      case 'planned':
        return this.#sessions.serving.planned(input.plan, input.keys, input.entries, input.bytes);
      case 'remove-member':
        return this.#removeMember(input.id, input.name);
      case 'damaged':
        return this.heal.damaged(input.key, input.dot, (outcome) => this.#healed(input.id, outcome));
      case 'confirm':
        return this.heal.confirm(input.key, (outcome) => this.#healed(input.id, outcome));
      case 'suspect':
        return this.heal.suspect(input.after, input.until, (ok) =>
          this.#healed(input.id, ok ? { ok, row: undefined } : { ok }),
        );
      case 'mend-dot':
        return this.heal.mendDot(input.key);
      case 'drop-row':
        this.queue.batch().drops.push({ raw: input.row });
        return;
      case 'rewrite-own':
        return this.#rewriteOwn(input.row);
      case 'stop':
        this.#fitness.isStopping = true;
        return this.#digest.checkpoint();
    }
  }

  #tick(): void {
    // The driver's timer is spent, even if it rang a little early and nothing is due yet.
    this.#wakeAt = undefined;
    for (const timer of this.timers.take(this.now.mono)) {
      if (timer === 'beat') {
        this.#gossip.beat();
        this.collection.evaluate();
        this.#reconcile.beat();
        this.#offers.sweep();
        this.horizon.storeIfDue();
      } else if (timer === 'announce') this.#gossip.announce();
      else if (timer === 'pulses') this.#gossip.relayPulses();
      else if (timer === 'offers') this.#offers.tick();
      else if (timer === 'links' || timer === 'founding') this.#links.reconcile();
      else if (timer === 'pull') this.#sessions.evaluate();
      else if (timer === 'sessions') this.#sessions.sweep();
      else if (timer === 'pace') this.#sessions.resume();
      else if (timer === 'digest') this.#digest.tick();
      else if (timer === 'reconcile') this.#reconcile.tick();
      else if (timer === 'heal') this.heal.evaluate();
      else if (timer === 'collection') this.collection.evaluate();
      else if (timer === 'acks') {
        const next = this.acks.expire(this.now.mono);
        if (next !== undefined) this.timers.atMost('acks', next);
      }
    }
  }

  #message(link: LinkId, message: PeerMessage): void {
    const peer = this.peers.get(link);
    if (peer === undefined) return;
    peer.heardAt = this.now.mono;
    if (message.type === 'hello') return this.#links.hello(peer, message);
    if (message.type === 'refuse') return this.#links.refused(peer, message);
    if (peer.hello === undefined) return this.#links.close(peer, 'a message before the hello');
    if (peer.isOutdated && !NO_DATA.has(message.type)) return;
    switch (message.type) {
      case 'beat':
        this.#gossip.onBeat(peer, message);
        if (this.peers.has(peer.link)) this.#replication.remind(peer);
        this.heal.evaluate();
        return this.#sessions.evaluate();
      case 'members':
        return this.#gossip.onMembers(peer, message);
      case 'resend':
        return this.#gossip.onResend(peer, message);
      case 'seals':
        this.sealing.onSeals(peer, message);
        return this.#sessions.evaluate();
      case 'seals-hash':
        return this.sealing.onSealsHash(peer, message.hash);
      case 'push':
        if (this.#fitness.mayMerge) this.#replication.onPush(peer, message);
        return;
      case 'ack':
        if (this.members.isMember(peer.origin))
          for (const frame of message.frames) this.acks.acknowledge(frame, peer.host, message.flushed);
        return;
      case 'prune':
        return this.#trees.pruned(peer, message.origins);
      case 'graft':
        return this.#trees.grafted(peer, message.origins);
      case 'offer':
        return this.#offers.onOffer(peer, message);
      case 'fetch':
        return this.#offers.onFetch(peer, message);
      case 'pulse':
        return this.#gossip.onPulse(peer, message);
      case 'pull':
      case 'pull-range':
        return this.#sessions.onPull(peer, message);
      case 'session-opened':
        return this.#sessions.onOpened(peer, message);
      case 'chunk':
        if (this.#fitness.mayMerge) this.#sessions.onChunk(peer, message);
        return;
      case 'chunk-ack':
        return this.#sessions.onChunkAck(peer, message);
      case 'session-end':
        return this.#sessions.onEnd(peer, message);
      case 'plan-ask':
        return this.#sessions.onPlanAsk(peer, message);
      case 'plan':
        return this.#sessions.onPlan(peer, message);
      case 'digest-root':
        return this.#reconcile.onRoot(peer, message);
      case 'ask-sums':
        return this.#answers.onAskSums(peer, message);
      case 'ask-entries':
        return this.#answers.onAskEntries(peer, message);
      case 'sums':
      case 'entries':
        if (this.#fitness.mayMerge) this.#reconcile.onAnswer(peer, message);
        return;
      case 'ask-records':
        return this.#healAnswers.onAskRecords(peer, message);
      case 'ask-range':
        return this.#healAnswers.onAskRange(peer, message);
      case 'lent':
        if (this.#fitness.mayMerge) this.heal.onLent(peer, message);
        return;
    }
  }

  #write(write: LocalWrite): void {
    try {
      this.#fitness.refuseUnfit();
      this.#replication.write(write);
    } catch (error) {
      if (!isReadmeshError(error)) throw error;
      const { code, message, details } = error;
      this.emit({ type: 'rejected', id: write.id, code, message, details });
    }
  }

  #accepted(peer: Peer): void {
    this.detector.heard(peer.origin, this.now.mono);
    this.#gossip.greet(peer);
    this.#trees.accepted(peer);
    this.#replication.resend(peer);
  }

  #gone(peer: Peer, lost: boolean): void {
    this.#sessions.gone(peer);
    this.heal.gone(peer);
    this.#healAnswers.gone(peer);
    this.#trees.gone(peer);
    this.#reconcile.gone(peer);
    this.#answers.gone(peer);
    this.#gossip.gone(peer, lost);
  }

  #alive(link: LinkId): void {
    const peer = this.peers.get(link);
    if (peer === undefined) return;
    peer.heardAt = this.now.mono;
  }

  #congestion(link: LinkId, congested: boolean): void {
    const peer = this.peers.get(link);
    if (peer === undefined || peer.congested === congested) return;
    peer.congested = congested;
    if (congested) return;
    if (peer.hello !== undefined) this.#replication.resend(peer);
    this.#sessions.resume();
  }

  #removeMember(id: number, name: string): void {
    const row = this.members.row(name);
    if (row === undefined || this.members.isRemoved(row.origin))
      return this.emit({ type: 'removed-member', id, found: false });
    this.members.merge([], [row.origin]);
    this.#gossip.membersChanged({ ...noNews(), removed: [row.origin] });
    this.afterDurable(() => this.emit({ type: 'removed-member', id, found: true }));
  }

  #healed(id: number, outcome: Outcome): void {
    this.emit({ type: 'healed', id, ok: outcome.ok, row: outcome.ok ? outcome.row : undefined });
  }

  #rewriteOwn(row: Uint8Array | undefined): void {
    const batch = this.queue.batch();
    if (row !== undefined) batch.drops.push({ raw: row });
    for (const [origin, head] of this.taken.entries()) {
      this.queue.startHead(batch, origin);
      this.queue.raiseHead(batch, origin, head);
    }
    this.#lifecycle.rewrite();
    this.sealing.rewrite();
    this.horizon.store();
    this.#digest.rewrite();
    this.collection.rewrite();
    this.#commit.rewrite();
  }

  #storeFailed(message: string): void {
    this.identity.phase = 'failed';
    this.queue.drop();
    this.acks.failAll(
      'STORE_FAILED',
      `the store failed, so the outcome is unknown (${message}): retry with the same stamp`,
    );
    this.#links.closeAll('the store failed');
    this.log('error', 'store-failed', { message });
    this.emit({ type: 'state' });
  }
}
