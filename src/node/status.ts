/** The status report of a node, from what its parts know. */
import { createRequire } from 'node:module';
import type { CacheStats } from '../cache.js';
import type { Integrity } from '../core/integrity.js';
import type { ReplicaCore } from '../core/replica.js';
import type { Instant } from '../core/types.js';
import type { Phase, ScrubStatus, Status } from '../read-store.js';

const require = createRequire(import.meta.url);

export interface StatusSources {
  core: ReplicaCore;
  closing: boolean;
  /** `performance.now()` at the start. */
  startedAt: number;
  integrity: Integrity;
  /** Blocks of the disk cannot be read. */
  isBroken: boolean;
  scrub: ScrubStatus | undefined;
  cache: CacheStats;
  watches: number;
  now: Instant;
}

export function statusOf(sources: StatusSources): Status {
  const { core, closing, cache, now, integrity } = sources;
  const { identity, config, bootstrap } = core;
  return {
    cluster: config.cluster,
    clusterUid: identity.uid,
    name: config.name,
    host: config.host,
    address: config.address,
    origin: identity.origin,
    phase: closing ? 'closed' : phaseOf(core),
    ready: core.ready && !closing,
    issues: [...core.issues(), ...damageIssues(sources)],
    members: core.memberViews().map(({ name, host, address, origin, self, state, linked, lastHeardMs }) => ({
      name,
      host,
      address,
      origin,
      self,
      state,
      linked,
      ...(lastHeardMs === undefined ? {} : { lastHeardMs: Math.round(lastHeardMs) }),
    })),
    heads: Object.fromEntries(core.written.heads()),
    ...(bootstrap === undefined
      ? {}
      : {
          bootstrap: {
            source: bootstrap.source,
            entries: bootstrap.entries,
            bytes: bootstrap.bytes,
            elapsedMs: Math.round((bootstrap.endedMono ?? now.mono) - bootstrap.startedMono),
          },
        }),
    integrity: {
      proved: integrity.isAllProved,
      evidence: [...integrity.evidence],
      lost: core.heal.lost,
      broken: sources.isBroken,
    },
    ...(sources.scrub === undefined ? {} : { scrub: sources.scrub }),
    queues: {
      pendingRows: core.queue.rows,
      pendingBytes: core.queue.bytes,
      unacknowledged: core.acks.unsettled,
    },
    counters: {
      ...core.counters,
      cacheEntries: cache.entries,
      cacheBytes: cache.bytes,
      cacheHits: cache.hits,
      cacheMisses: cache.misses,
      watches: sources.watches,
    },
    uptimeMs: Math.round(now.mono - sources.startedAt),
    version,
  };
}

function damageIssues({ core, integrity, isBroken }: StatusSources): Status['issues'] {
  if (isBroken)
    return [
      {
        code: 'DAMAGED',
        message:
          'blocks of this disk cannot be read, and reads go to peers for them: restart this node with --rebuild',
      },
    ];
  const { lost } = core.heal;
  if (lost > 0)
    return [
      {
        code: 'DAMAGED',
        message: `${lost} records are damaged on this disk and are being fetched from peers`,
      },
    ];
  const { evidence } = integrity;
  if (!evidence.has('damaged-record') && !evidence.has('unreadable') && !evidence.has('digest')) return [];
  return [
    { code: 'UNPROVED', message: 'damage was found on this disk: all of it is being read and compared' },
  ];
}

function phaseOf(core: ReplicaCore): Phase {
  const { phase } = core.identity;
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
