/**
 * Every option and default in one place. Cluster-wide ones must be the same on every host, since they bound
 * what hosts may send each other; per-host ones are the operator's choice for one machine.
 *
 * The replication core takes `CoreOptions`; nothing else of the product holds a default of its own.
 */

/** Must be equal on every host of a cluster. */
export const CLUSTER_DEFAULTS = {
  /** How far a stamp may be ahead of the wall clock, ms. Wider hides bad clocks, narrower needs good NTP. */
  maxClockDriftMs: 5_000,
  /** Longest encoded value, bytes. Every hop holds a few of these in memory at once. */
  valueBytesMax: 1_048_576,
  /** Most operations in one `batch` call. */
  batchOpsMax: 1_024,
  /** Most encoded bytes in one `batch` call. A batch travels in one frame. */
  batchBytesMax: 4_194_304,
  /** Time between heartbeats on a link, ms. A dead link is noticed after two. */
  beatMs: 1_000,
} as const;

/** Caps and times of one host. */
export const HOST_DEFAULTS = {
  /** Rows after which a batch of the group commit is closed. More starve readers of the event loop, fewer cost an fsync each. */
  commitRowsMax: 512,
  /** Bytes after which it is closed. */
  commitBytesMax: 262_144,
  /** Rows not yet written, above which local writes get OVERLOADED. */
  pendingRowsMax: 100_000,
  pendingBytesMax: 67_108_864,
  /** Deadline of an acknowledgement, ms. */
  ackTimeoutMs: 3_000,
  /** Largest frame accepted on a link, bytes: a whole batch and its envelope. */
  frameBytesMax: 8_388_608,
  /** Bytes queued towards one peer, above which pushes to it are dropped and left to anti-entropy. */
  linkQueueBytesMax: 16_777_216,
  /** Links up to which every member talks to every other; above it each keeps `meshLinks`. */
  fullMeshMax: 12,
  meshLinks: 6,
  /** How long a peer may be ahead before it is asked for what is missing, ms: pushes usually arrive first. */
  pullGraceMs: 250,
  /** Rows and bytes of one chunk of a session, and chunks in flight. */
  chunkRowsMax: 512,
  chunkBytesMax: 131_072,
  chunksInFlight: 4,
  /** Sessions served at once; others are told `busy`. */
  sessionsServedMax: 4,
  /** A session without progress for this long is given up, ms. */
  sessionStallMs: 10_000,
  /** Reconnects: first and longest delay, ms; jittered. */
  redialMinMs: 100,
  redialMaxMs: 5_000,
  /** Decoded values kept in memory, bytes (estimated). */
  cacheBytesMax: 67_108_864,
} as const;

type Widen<T> = { -readonly [K in keyof T]: T[K] extends number ? number : T[K] };
export type ClusterOptions = Widen<typeof CLUSTER_DEFAULTS>;
export type HostOptions = Widen<typeof HOST_DEFAULTS>;
/** What the replication core is configured with. */
export type CoreOptions = ClusterOptions & HostOptions;

export const CORE_DEFAULTS: CoreOptions = { ...CLUSTER_DEFAULTS, ...HOST_DEFAULTS };

export const DEFAULT_PORT = 7_700;
export const DEFAULT_DATA = './readmesh-data';
export const DEFAULT_CLUSTER = 'default';
