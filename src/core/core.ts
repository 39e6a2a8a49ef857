/**
 * What the parts of the replica share: one object, no behaviour of its own beyond small accessors.
 *
 *     lifecycle.ts    who am I, may I serve: founding, joining, bootstrapping, removal
 *     links.ts        who am I connected to: handshake, dialing, one link per peer
 *     gossip.ts       what do others have: heartbeats, vectors, member table
 *     exclusion.ts    members that are gone for good: votes, and the minority that must not go on alone
 *     replication.ts  new writes: accept, push, relay, acknowledge
 *     sealing.ts      origins that have ended: sealed, forgotten
 *     horizon.ts      up to when all hold everything: what may be collected, and whom that leaves behind
 *     sessions.ts     missed writes: catch-up by dots, bootstrap by key range, and serving both; in four rooms
 *     digest.ts       does the store hold what it should: the digest tree, its build and upkeep
 *     reconcile.ts    do members with equal vectors hold the same: comparing digests, mending this node
 *     heal.ts         lost records: fetching them from peers, and what has to wait for that
 *     collection.ts   their removal, and older records that come afterwards
 *
 * `taken` counts what this node has taken in (perhaps still on its way to disk) and decides about gaps;
 * `written` counts what is on disk, and is all that is ever announced.
 */
import type { CoreOptions } from '../options.js';
import type { Acknowledgements } from './acknowledgements.js';
import type { Collection } from './collection.js';
import type { Checksum } from './entry.js';
import type { Exclusion } from './exclusion.js';
import type { FailureDetector } from './failure-detector.js';
import type { Found, Heal } from './heal.js';
import type { Hlc } from './hlc.js';
import type { Horizon } from './horizon.js';
import type { Effect, LinkId } from './io.js';
import type { MemberTable } from './membership.js';
import type { PeerMessage, PeerPhase } from './messages.js';
import type { Peer } from './peer.js';
import type { Sealing } from './sealing.js';
import type { Timers } from './timers.js';
import type { Dot, Instant, OriginId, Recovered } from './types.js';
import type { VersionVector } from './version-vector.js';
import type { WriteQueue } from './write-queue.js';

export interface ReplicaConfig {
  readonly cluster: string;
  readonly name: string;
  readonly host: string;
  /** `host:port` that peers may dial; empty when this node does not listen. */
  readonly address: string;
  /** Seeds. Empty: a new store founds a cluster. */
  readonly join: readonly string[];
  /** Found a cluster although `join` is given, or end a bootstrap that can never finish. */
  readonly found: boolean;
  /** It has belonged to a cluster, and never founds one, though its store is new. Default false. */
  readonly mustRejoin?: boolean;
  /** Random per opening of the store, 16 hex digits. */
  readonly run: string;
  /** Whether the store was provably closed without loss, so that its origin may go on. */
  readonly reuseOrigin: boolean;
  /** Whether the store flushes every batch. */
  readonly flushes: boolean;
  readonly options: CoreOptions;
}

export interface ReplicaDeps {
  /** The row as written to the store; undefined when missing, DAMAGED when it cannot be read. */
  readonly lookup: (key: string) => Found;
  /** Dot of the damaged record of the key, if its row in the dot index bears it out. */
  readonly damagedDot?: (key: string) => Dot | undefined;
  readonly checksum: Checksum;
  /** Uniform in [0, 1). Seeded in simulations. */
  readonly random: () => number;
  readonly recovered: Recovered;
}

export type TimerName =
  | 'beat'
  | 'pulses'
  | 'announce'
  | 'offers'
  | 'links'
  | 'pull'
  | 'acks'
  | 'sessions'
  | 'pace'
  | 'founding'
  | 'digest'
  | 'reconcile'
  | 'heal'
  | 'collection';

/** `outdated`: the cluster went on without this store, which is to be set aside and filled anew. */
export type LocalPhase = PeerPhase | 'expelled' | 'failed' | 'outdated';

export interface Identity {
  uid: string;
  origin: OriginId;
  phase: LocalPhase;
  /** This node founded the cluster (rather than joined it). */
  founder: boolean;
  /** Restored from a backup and told to join: it waits for a member to tell it who there is, and takes no writes. */
  unmet: boolean;
}

export type Counters = Record<
  | 'framesPushed'
  | 'framesReceived'
  | 'framesDuplicate'
  | 'framesRelayed'
  | 'framesFetched'
  | 'framesDropped'
  | 'gaps'
  | 'recordsReceived'
  | 'recordsApplied'
  | 'sessionsPulled'
  | 'sessionsServed'
  | 'sessionsFailed'
  | 'futureStamps'
  | 'linksRefused'
  | 'originsMinted'
  | 'originsSealed'
  | 'originsForgotten'
  | 'rebuilds'
  | 'digestDamages'
  | 'digestMismatches'
  | 'rangesRepaired'
  | 'recordsRepaired'
  | 'recordsSetAside'
  | 'recordsDisputed'
  | 'recordsCollected'
  | 'recordsOutdated'
  | 'damageFound'
  | 'damageHealed'
  | 'recordsLost'
  | 'recordsLent'
  | 'fetches',
  number
>;

export interface Core {
  readonly config: ReplicaConfig;
  readonly deps: ReplicaDeps;
  readonly options: CoreOptions;
  readonly identity: Identity;
  readonly hlc: Hlc;
  readonly taken: VersionVector;
  readonly written: VersionVector;
  readonly queue: WriteQueue;
  readonly acks: Acknowledgements;
  readonly members: MemberTable;
  readonly sealing: Sealing;
  readonly horizon: Horizon;
  readonly collection: Collection;
  readonly exclusion: Exclusion;
  readonly detector: FailureDetector;
  readonly timers: Timers<TimerName>;
  /** By link; accepted or still shaking hands. */
  readonly peers: Map<LinkId, Peer>;
  readonly counters: Counters;
  readonly heal: Heal;
  /** The reading that came with the current input. */
  now: Instant;
  emit(effect: Effect): void;
  send(peer: Peer, message: PeerMessage): void;
  log(
    level: 'info' | 'warn' | 'error',
    event: string,
    details?: Record<string, string | number | boolean>,
  ): void;
  /** Peers whose handshake is done. */
  linked(): Peer[];
  /** Linked peers that data is exchanged with: of this node's founding of the cluster, and on its side of the horizon. */
  partners(): Peer[];
  /** Newest row of the key, written or on its way; DAMAGED while it is lost. */
  current(key: string): Found;
  /** Something speaks against this host's wall clock, or nobody is there to confirm it. */
  readonly hasDoubtfulClock: boolean;
  /** A number for a scan that nobody else has. */
  nextScan(): number;
  /** Runs once everything taken in so far is written, which look-ups and scans then find; at once when it is. */
  afterWritten(then: () => void): void;
  /** Runs once it is flushed, too, where the store flushes: for what must not be taken back. */
  afterDurable(then: () => void): void;
  randomId(): string;
  /** A delay spread evenly over [half, full). */
  jitter(ms: number): number;
}

/** Whether there are too many members for everybody to be linked to everybody. */
export function isSparse(core: Core): boolean {
  return core.members.active().length > core.options.fullMeshMax;
}

/** Small records of the node are JSON in ASCII: the core has no text encoder. */
export function encodeMeta(value: unknown): Uint8Array {
  const text = JSON.stringify(value).replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** What `encodeMeta` wrote, by our own hand: the checksum of the store vouches for its shape. */
export function decodeMeta<T>(bytes: Uint8Array | undefined): T | undefined {
  if (bytes === undefined) return undefined;
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return JSON.parse(text) as T;
}
