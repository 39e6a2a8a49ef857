/**
 * Who this node is and whether it may serve.
 *
 * Phases: `new` (asked to join, belongs to no cluster yet), `bootstrapping` (belongs, but does not hold
 * everything), `ready`; besides, `expelled` (an operator removed it), `failed` (its store refused a write) and
 * `outdated` (the cluster has collected what this store never heard of: horizon.ts).
 *
 * A cluster is told apart by its name, which the operator chooses, and by the uid of its founding, which is
 * random: a founder whose disk was wiped founds a second cluster of the same name, and must recognise that
 * when a member of the first one reaches it. Rule, applied alike by both ends of a link: where uids differ, a
 * founder that nobody ever joined (`alone`) gives way to a cluster that has members, and of two such founders
 * the one with the greater uid gives way. Giving way means to adopt the uid and to bootstrap; what was written
 * meanwhile is kept and merges. Two clusters that both have members are never merged: WRONG_CLUSTER.
 *
 * When every host is started with the same list to join, all are new: once every listed address but this
 * node's own has answered that it is new, too, the one with the smallest origin founds, the others join it.
 */
import { type Core, decodeMeta, encodeMeta } from './core.js';
import { stampBytes, stampFromHex, stampMs, stampToHex } from './hlc.js';
import type { Hello, PeerPhase } from './messages.js';
import type { Peer } from './peer.js';
import { restoredSeals } from './sealing.js';
import type { Excluded, MemberRow, OriginId } from './types.js';

/** Every new node must have been seen for this long before one of them founds, ms. */
const FOUNDING_QUIET_MS = 300;

/** What is wrong with a store that is `outdated`, and what becomes of it. */
export const OUTDATED_TEXT =
  'while this node was away the cluster deleted for good what this store may still hold: it is to be set aside and filled anew from the other members';

/** The same, of a store whose origin a majority has excluded. */
export const EXCLUDED_TEXT =
  'the other members have not heard this node for the time of a lease (leaseMs), and a majority has excluded it: its store is to be set aside and filled anew from them';

interface StoredNode {
  cluster: string;
  name: string;
  uid: string;
  origin: OriginId;
  phase: PeerPhase;
  founder: boolean;
  /** Restored, and has met no member of its cluster since. */
  unmet?: boolean;
}

interface StoredMembers {
  rows: MemberRow[];
  removed: OriginId[];
  /** Absent in stores from before there were any. */
  excluded?: Excluded[];
}

/** What a store says about its owner, before a replica is made from it. */
export function storedIdentity(
  meta: ReadonlyMap<string, Uint8Array>,
): { cluster: string; name: string; unmet?: boolean } | undefined {
  return decodeMeta<StoredNode>(meta.get('node'));
}

/** Small records of a node that belong to the data rather than to the node: backups have them. */
export const CARRIED_META: readonly string[] = ['seals', 'horizon', 'collected'];

/** Where a restored store comes from; kept in it for ever. */
export interface Restored {
  /** Node that the backup was taken from. */
  readonly node: string;
  /** When it was taken and when it was restored, ms since 1970. */
  readonly takenAtMs: number;
  readonly restoredAtMs: number;
}

/**
 * The identity of a store that is restored from a backup: of the cluster and its founding, without a name or an origin
 * until it is first served, and without members, since who is left is not for a backup to say. Until it has met one of
 * those it was told to join, it does not know how many hosts a write needs, and takes none. `carried`: records of the
 * store by the names in `CARRIED_META`, as the backup has them.
 */
export function restoredMeta(
  from: {
    cluster: string;
    uid: string;
    removed: readonly OriginId[];
    carried: ReadonlyMap<string, Uint8Array>;
  },
  restored: Restored,
): Map<string, Uint8Array> {
  const { cluster, uid, carried } = from;
  const node: StoredNode = {
    ...{ cluster, name: '', uid, origin: '' },
    ...{ phase: 'ready', founder: false, unmet: true },
  };
  const members: StoredMembers = { rows: [], removed: [...from.removed] };
  return new Map([
    ['node', encodeMeta(node)],
    ['members', encodeMeta(members)],
    ['restored', encodeMeta(restored)],
    ['seals', restoredSeals(carried.get('seals'))],
    ...[...carried].filter(([name]) => name === 'horizon' || name === 'collected'),
  ]);
}

/** undefined: the store was not restored. `isUnmet`: it was not served together with its cluster since. */
export function restoredOf(
  meta: ReadonlyMap<string, Uint8Array>,
): (Restored & { readonly isUnmet: boolean }) | undefined {
  const restored = decodeMeta<Restored>(meta.get('restored'));
  return restored === undefined ? undefined : { ...restored, isUnmet: storedIdentity(meta)?.unmet === true };
}

export interface LifecycleHooks {
  /** Peers must hear at once where this node stands now. */
  onChanged(): void;
  /** Looks for a source to bootstrap from. */
  onBootstrap(): void;
}

export class Lifecycle {
  readonly #core: Core;
  readonly #hooks: LifecycleHooks;
  /** Why this store is outdated, once it is. */
  outdatedText = OUTDATED_TEXT;
  #quietSince: number | undefined;

  constructor(core: Core, hooks: LifecycleHooks) {
    this.#core = core;
    this.#hooks = hooks;
  }

  start(): void {
    const { config, identity, members, deps } = this.#core;
    const stored = decodeMeta<StoredNode>(deps.recovered.meta.get('node'));
    const table = decodeMeta<StoredMembers>(deps.recovered.meta.get('members'));
    // Alone, a restored store is a cluster of its own: that is how a lost one is brought back.
    const isAnew = stored?.unmet === true && (config.join.length === 0 || config.found);
    if (table !== undefined && !isAnew) members.merge(table.rows, table.removed, table.excluded);
    if (stored !== undefined) {
      identity.uid = isAnew ? '' : stored.uid;
      identity.unmet = stored.unmet === true && !isAnew;
      identity.phase = stored.phase;
      identity.founder = stored.founder;
      if (config.reuseOrigin) identity.origin = stored.origin;
      else this.#core.log('info', 'origin-minted', { old: stored.origin, origin: identity.origin });
    }
    if (isAnew) this.#found();
    else if (
      identity.phase !== 'ready' &&
      (config.found || (stored === undefined && config.join.length === 0))
    ) {
      this.#found();
    } else {
      if (identity.uid !== '') this.publishSelf();
      this.#store();
    }
    if (members.isRemoved(identity.origin)) this.expel();
    else if (stored !== undefined && members.isExcluded(stored.origin)) this.outdate('', EXCLUDED_TEXT);
  }

  /** Nobody but this node was ever a member. */
  get alone(): boolean {
    return this.#core.identity.founder && this.#core.members.known <= 1;
  }

  /** A member of this founding has the same table as this node. */
  met(): void {
    const { identity } = this.#core;
    if (!identity.unmet) return;
    identity.unmet = false;
    this.#store();
    this.#core.emit({ type: 'state' });
  }

  get peerPhase(): PeerPhase {
    const { phase } = this.#core.identity;
    return phase === 'ready' || phase === 'bootstrapping' ? phase : 'new';
  }

  /** Why a link to a peer of another founding cannot be; undefined: it can. */
  refusal(hello: Hello): string | undefined {
    const { uid } = this.#core.identity;
    if (uid === '' || hello.clusterUid === '' || uid === hello.clusterUid || this.alone || hello.alone)
      return undefined;
    return (
      `both are clusters named "${hello.cluster}" with members of their own, founded apart. ` +
      'Empty the data folder of the one that is to give way, and start it with --join'
    );
  }

  /** A peer said where it stands (hello or beat). */
  consider(peer: Peer): void {
    const { identity } = this.#core;
    if (identity.phase === 'expelled' || identity.phase === 'failed' || identity.phase === 'outdated') return;
    const theirs = peer.clusterUid;
    if (theirs === '' || theirs === identity.uid) {
      if (identity.uid === '') this.#watchFounding();
      else if (identity.phase === 'bootstrapping') this.#hooks.onBootstrap();
      return;
    }
    const yieldTo = !peer.alone || theirs < identity.uid;
    if (identity.uid === '' ? peer.phase === 'ready' : this.alone && yieldTo) this.#adopt(theirs);
  }

  /** A seed answered, vanished, or turned out to be this node: perhaps all are new. */
  seedsAre(state: { unknown: number; newcomers: readonly Peer[] }): void {
    const { identity, now, timers, config } = this.#core;
    if (identity.uid !== '' || identity.phase !== 'new' || config.mustRejoin === true) return;
    if (state.unknown > 0 || state.newcomers.some((peer) => peer.origin < identity.origin)) {
      this.#quietSince = undefined;
      return;
    }
    this.#quietSince ??= now.mono;
    if (now.mono - this.#quietSince >= FOUNDING_QUIET_MS) this.#found();
    else timers.atMost('founding', this.#quietSince + FOUNDING_QUIET_MS);
  }

  /** The bootstrap is complete and on its way to disk. */
  becomeReady(): void {
    const { identity } = this.#core;
    this.#store('ready');
    this.#core.afterDurable(() => {
      if (identity.phase !== 'bootstrapping') return;
      identity.phase = 'ready';
      this.#core.log('info', 'bootstrapped');
      this.#hooks.onChanged();
      this.#core.emit({ type: 'state' });
    });
  }

  /** The store lacks what cannot be named by its vector: it is filled anew, and keeps what it has. */
  rebuild(): void {
    const { identity } = this.#core;
    if (identity.phase !== 'ready') return;
    identity.phase = 'bootstrapping';
    this.#store();
    this.#core.emit({ type: 'state' });
    this.#hooks.onChanged();
    this.#hooks.onBootstrap();
  }

  expel(): void {
    const { identity, acks } = this.#core;
    if (identity.phase === 'expelled') return;
    identity.phase = 'expelled';
    acks.failAll('REMOVED', 'this node was removed from its cluster');
    this.#core.log('error', 'removed-from-cluster', {
      code: 'REMOVED',
      message: 'empty the data folder to let this node join again',
    });
    this.#core.emit({ type: 'state' });
  }

  /**
   * The cluster went on without this store: what a peer has collected may still be here, and would come back from here; or
   * its origin was excluded. `peer`: who told; empty: the own member table.
   */
  outdate(peer: string, message = OUTDATED_TEXT): void {
    const { identity, acks } = this.#core;
    if (identity.phase !== 'ready' && identity.phase !== 'bootstrapping') return;
    identity.phase = 'outdated';
    acks.failAll(
      'CLOSED',
      'the cluster went on without this node, so the outcome is unknown: retry with the same stamp at another host',
    );
    this.outdatedText = message;
    this.#core.log('error', 'outdated', { peer, message });
    this.#core.emit({ type: 'state' });
    this.#hooks.onChanged();
  }

  /** Peers know more of this origin than this store does: it lost writes, and its sequence numbers must not be used again. */
  mintOrigin(): void {
    const { identity, counters, queue } = this.#core;
    const old = identity.origin;
    queue.seal();
    identity.origin = this.#core.randomId();
    counters.originsMinted += 1;
    this.#core.log('warn', 'origin-minted', { old, origin: identity.origin });
    this.publishSelf();
    this.#store();
  }

  /** Writes this node's own row of the member table, if anything in it changed; returns it then. */
  publishSelf(): MemberRow | undefined {
    const { identity, config, members, now } = this.#core;
    const { silent } = this.#core.exclusion;
    const old = members.row(config.name);
    if (
      old !== undefined &&
      old.origin === identity.origin &&
      old.address === config.address &&
      old.host === config.host &&
      // Votes against those that were excluded since stay until there are others.
      String((old.silent ?? []).filter((origin) => members.isMember(origin))) === String(silent)
    )
      return undefined;
    const ms = Math.max(
      now.wall,
      this.#core.hlc.ms,
      old === undefined ? 0 : stampMs(stampFromHex(old.stamp)) + 1,
    );
    const stamp = stampToHex(stampBytes(ms, 0, identity.origin));
    const { name, host, address } = config;
    const { origin } = identity;
    const row = { name, host, address, origin, stamp, ...(silent.length === 0 ? {} : { silent }) };
    members.merge([row], []);
    this.storeMembers();
    // Whoever bore the name meanwhile was asked in this node's place.
    if (old !== undefined && old.origin !== identity.origin) {
      this.#core.sealing.doubt();
      this.#core.horizon.doubt();
    }
    return row;
  }

  /** Everything that is stored of this node, anew. */
  rewrite(): void {
    this.storeMembers();
    this.#store();
  }

  storeMembers(): void {
    const { members, queue } = this.#core;
    const table: StoredMembers = {
      rows: members.rows(),
      removed: members.removed(),
      excluded: members.excluded(),
    };
    queue.batch().meta.set('members', encodeMeta(table));
  }

  /**
   * Ready, and known to others as such, only once it is written: whoever joined a founding that was then lost with
   * its founder's process would wait for ever for somebody who is ready.
   */
  #found(): void {
    const { identity } = this.#core;
    if (identity.uid === '') identity.uid = this.#core.randomId();
    const { uid } = identity;
    identity.founder = true;
    this.publishSelf();
    this.#core.sealing.founded();
    this.#core.horizon.founded();
    this.#store('ready');
    this.#core.log('info', 'founded', { uid });
    this.#core.afterDurable(() => {
      // It may have given way to another founding meanwhile.
      if (identity.uid !== uid || !identity.founder || identity.phase === 'expelled') return;
      identity.phase = 'ready';
      this.#hooks.onChanged();
      this.#core.emit({ type: 'state' });
    });
  }

  #adopt(uid: string): void {
    const { identity } = this.#core;
    this.#core.log('info', identity.uid === '' ? 'joining' : 'gave-way', { uid });
    identity.uid = uid;
    identity.phase = 'bootstrapping';
    identity.founder = false;
    this.#core.sealing.adopted();
    this.#core.horizon.adopted();
    this.#core.collection.reset();
    this.publishSelf();
    this.#store();
    this.#core.emit({ type: 'state' });
    this.#hooks.onChanged();
    this.#hooks.onBootstrap();
  }

  #watchFounding(): void {
    this.#core.timers.atMost('founding', this.#core.now.mono);
  }

  #store(phase: PeerPhase = this.peerPhase): void {
    const { identity, config, queue } = this.#core;
    const node: StoredNode = {
      cluster: config.cluster,
      name: config.name,
      uid: identity.uid,
      origin: identity.origin,
      phase,
      founder: identity.founder,
      ...(identity.unmet ? { unmet: true } : {}),
    };
    queue.batch().meta.set('node', encodeMeta(node));
  }
}
