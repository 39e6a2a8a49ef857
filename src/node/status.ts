/** The status report of a node, from what its parts know. */
import { createRequire } from 'node:module';
import type { CacheStats } from '../cache.js';
import type { ReplicaCore } from '../core/replica.js';
import type { Instant } from '../core/types.js';
import type { EncodedCacheStats } from '../encoded-cache.js';
import type { HealthIssue, Phase, ScrubStatus, SetAsideStatus, Status } from '../read-store.js';
import { bootstrapStatusOf } from './bootstrap-status.js';

const require = createRequire(import.meta.url);

export interface StatusSources {
  core: ReplicaCore;
  closing: boolean;
  /** `performance.now()` at the start. */
  startedAt: number;
  integrity: Status['integrity'];
  scrub?: ScrubStatus;
  quarantined: number;
  cache: CacheStats;
  encoded: EncodedCacheStats;
  watches: number;
  watchExpiriesDropped: number;
  loopLagMs: number;
  now: Instant;
  /** Issues of the node itself, beside the core's. */
  issues: readonly HealthIssue[];
  store: NonNullable<Status['store']>;
  setAside: SetAsideStatus | undefined;
  /** A store that the cluster went on without is being set aside. */
  isOutdated: boolean;
}

export function statusOf(sources: StatusSources): Status {
  const { core, closing, cache, encoded, now, isOutdated } = sources;
  const { identity, config, bootstrap } = core;
  return {
    cluster: config.cluster,
    clusterUid: identity.uid,
    name: config.name,
    host: config.host,
    address: config.address,
    origin: identity.origin,
    phase: closing ? 'closed' : isOutdated ? 'outdated' : phaseOf(core),
    ready: core.ready && !closing,
    issues: [
      ...sources.issues,
      ...core.issues().filter(
        ({ code }) =>
          // Its store was given up, as a part of that.
          !(isOutdated && code === 'STORE_FAILED') && sources.issues.every((issue) => issue.code !== code),
      ),
    ],
    members: core
      .memberViews()
      .map(({ name, host, address, origin, self, state, linked, lastHeardMs, votes }) => ({
        name,
        host,
        address,
        origin,
        self,
        state,
        linked,
        ...(lastHeardMs === undefined ? {} : { lastHeardMs: Math.round(lastHeardMs) }),
        ...(votes === 0 ? {} : { votes }),
      })),
    ...excludedOf(core),
    heads: Object.fromEntries(core.written.heads()),
    ...(bootstrap === undefined ? {} : { bootstrap: bootstrapStatusOf(bootstrap, now) }),
    digest: digestOf(core, now),
    garbage: { collectedTo: core.collection.begun, sweeping: !core.collection.isSwept },
    integrity: sources.integrity,
    ...(sources.scrub === undefined ? {} : { scrub: sources.scrub }),
    queues: {
      pendingRows: core.queue.rows,
      pendingBytes: core.queue.bytes,
      unacknowledged: core.acks.unsettled,
    },
    store: sources.store,
    horizonMs: core.horizon.collectable,
    asOfMs: core.horizon.asOf,
    gcBlockedBy: core.horizon.blockedBy,
    ...(sources.setAside === undefined ? {} : { setAside: sources.setAside }),
    counters: {
      ...core.counters,
      recordsQuarantined: sources.quarantined,
      cacheEntries: cache.entries,
      cacheBytes: cache.bytes,
      cacheHits: cache.hits,
      cacheMisses: cache.misses,
      encodedCacheEntries: encoded.entries,
      encodedCacheHits: encoded.hits,
      encodedCacheMisses: encoded.misses,
      watches: sources.watches,
      watchExpiriesDropped: sources.watchExpiriesDropped,
    },
    loopLagMs: sources.loopLagMs,
    uptimeMs: Math.round(now.mono - sources.startedAt),
    version,
  };
}

function excludedOf(core: ReplicaCore): Pick<Status, 'excluded'> {
  const excluded = core.members.absent().map(({ name, origin, at }) => ({ name, origin, at }));
  return excluded.length === 0 ? {} : { excluded };
}

function digestOf(core: ReplicaCore, now: Instant): Status['digest'] {
  const { keys, root, builtPercent, doubt } = core.digest;
  const { provedAt } = core;
  return {
    keys,
    root,
    builtPercent,
    doubt,
    ...(provedAt === undefined ? {} : { lastProvedMs: Math.round(now.mono - provedAt) }),
  };
}

function phaseOf(core: ReplicaCore): Phase {
  const { phase } = core.identity;
  if (phase === 'failed') return 'degraded';
  return phase === 'new' ? 'joining' : phase;
}

/** package.json stands two folders above the sources and three above the build. */
function readVersion(): string {
  for (const path of ['../../package.json', '../../../package.json']) {
    try {
      return (require(path) as { version: string }).version;
    } catch {
      // The other one, then.
    }
  }
  return 'unknown';
}

export const version = readVersion();
