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
  /** How long a session token may be used, ms: so long is it remembered how far an ended origin had come. */
  tokenAgeMaxMs: 86_400_000,
  /**
   * How late a write may be sent again, ms: a client's stamp that is older than that is refused. So long, at least, is
   * a deletion remembered after everybody has it. At least twice the longest deadline and twice `maxClockDriftMs`.
   */
  lateRetryMs: 600_000,
  /** Silence after which members vote to exclude a member, ms. Until then it holds back the collection of garbage. */
  leaseMs: 86_400_000,
} as const;

/** Caps and times of one host. */
export const HOST_DEFAULTS = {
  /**
   * Rows after which a batch of the group commit is closed. More starve readers of the event loop, fewer cost an
   * fsync each. A call of `batch` may bring as many anyway, and arrives elsewhere as one frame.
   */
  commitRowsMax: 1_024,
  /** Bytes after which it is closed. */
  commitBytesMax: 262_144,
  /** Rows not yet written, and writes not yet acknowledged, above which local writes get OVERLOADED; less by default in a small heap. */
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
  /** A bootstrap runs in ranges of about so many bytes, the unit in which sources share it, and at most so many. */
  bootstrapRangeBytes: 4_194_304,
  bootstrapRangesMax: 64,
  /** Peers that a bootstrap copies from at once. More are faster until the own disk or line is the limit. */
  bootstrapSourcesMax: 3,
  /** A bootstrap takes at most so many bytes per second on average; 0: no limit. */
  bootstrapBytesPerSecond: 0,
  /** Comparing copies: ranges and entries of one question. More are fewer round trips, and longer ones. */
  reconcileSpansMax: 16,
  reconcileEntriesMax: 1_024,
  /** What comparing and mending may fetch from peers, bytes a second. Raise it to mend sooner, lower it to spare slow lines. */
  reconcileBytesPerSecond: 1_048_576,
  /** Pause before a peer that still differs after mending is compared with again, ms; it doubles. */
  reconcileRetryMinMs: 2_000,
  reconcileRetryMaxMs: 300_000,
  /** Reconnects: first and longest delay, ms; jittered. */
  redialMinMs: 100,
  redialMaxMs: 5_000,
  /** Decoded values kept in memory, bytes (estimated). */
  cacheBytesMax: 67_108_864,
  /** Encoded values kept for the answers to light clients, bytes; taken as they are read. */
  encodedCacheBytesMax: 67_108_864,
  /** Bytes of the disk that are checked per second in the background; 0 turns that off. Four times that while damage is known. */
  scrubBytesPerSecond: 4_194_304,
  /** Pause between two passes over the whole disk, ms. */
  scrubPauseMs: 21_600_000,
} as const;

type Widen<T> = { -readonly [K in keyof T]: T[K] extends number ? number : T[K] };
export type ClusterOptions = Widen<typeof CLUSTER_DEFAULTS>;
export type HostOptions = Widen<typeof HOST_DEFAULTS>;
/** What the replication core is configured with. */
export type CoreOptions = ClusterOptions & HostOptions;

/** Options that may be 0, which turns what they bound off. */
export const MAY_BE_ZERO: readonly string[] = [
  'cacheBytesMax',
  'encodedCacheBytesMax',
  'bootstrapBytesPerSecond',
  'scrubBytesPerSecond',
];

export const CORE_DEFAULTS: CoreOptions = { ...CLUSTER_DEFAULTS, ...HOST_DEFAULTS };

/** Sockets of one host: links to peers, clients and HTTP. Times in ms. */
export const TRANSPORT_DEFAULTS = {
  /** Largest frame accepted or sent on a link, bytes. */
  frameBytesMax: HOST_DEFAULTS.frameBytesMax,
  /** Bytes queued towards one peer, above which best-effort sends are dropped; twice that ends the link. */
  linkQueueBytesMax: HOST_DEFAULTS.linkQueueBytesMax,
  /** Links from peers, and as many again to peers: those that dial in can never take the places of those dialed. */
  peerLinksMax: 256,
  /** WebSocket clients. Their places are counted apart from the peers'. */
  clientLinksMax: 1_024,
  /** HTTP requests in progress (streams included); more get 503 OVERLOADED. */
  httpRequestsMax: 512,
  /** Connections without a request in progress; one more evicts the one that has waited longest. */
  waitingSocketsMax: 256,
  /** A connection whose request head (or upgrade) is not complete after this long is closed. */
  headersTimeoutMs: 5_000,
  /** The same for the whole request, body included. */
  requestTimeoutMs: 5_000,
  /** An idle HTTP connection is closed after this long. */
  keepAliveTimeoutMs: 5_000,
  /** Request head, bytes: two percent-encoded keys of the longest kind, a cursor, and ordinary headers. */
  headerBytesMax: 16_384,
  /** Deadline of a dial: name look-up, connect and upgrade together. */
  dialTimeoutMs: 2_000,
  /** How long a closed link or listener may flush before it is cut. */
  closeTimeoutMs: 1_000,
  /** How often sockets are looked at for bytes that arrived in mid-frame. Well under `beatMs`. */
  alivePollMs: 500,
  /** WebSocket pings and pongs from one peer in one `alivePollMs`; more end the link. Links of ours send none. */
  controlFramesMax: 64,
  /** Received frames are handed out for this long at a time, then the event loop turns. Longer starves readers. */
  sliceMs: 2,
  /** Received and not yet handed out, per link: above either, the socket is no longer read. */
  inboxBytesMax: 4_194_304,
  inboxFramesMax: 1_024,
} as const;

export type TransportOptions = Widen<typeof TRANSPORT_DEFAULTS>;

/** The HTTP face of one host. */
export const HTTP_DEFAULTS = {
  /** A request body that brings nothing for this long is given up, ms. */
  bodyIdleMs: 5_000,
  /** JSON may take this many times the bytes of the value it stands for (`false,` and `\\u0000` take six). */
  jsonBytesPerValueByte: 6,
  /** Bytes of all request bodies in memory at once; a request that would exceed it gets 503 OVERLOADED. */
  bodyBytesMax: 67_108_864,
  /** Entries of one page of `GET /v1/kv`: default, and the most that may be asked for. */
  pageLimit: 100,
  pageLimitMax: 1_000,
  /** A page ends early above this many bytes of rows (it always holds one entry). */
  pageBytesMax: 4_194_304,
  /** Backups in progress; each holds a snapshot of the store, so that what is deleted meanwhile stays on the disk. */
  backupsMax: 2,
  /** A backup whose reader takes nothing for this long is given up, and one that takes longer in all, ms. */
  backupStallMs: 60_000,
  backupMsMax: 21_600_000,
} as const;

export type HttpLimits = Widen<typeof HTTP_DEFAULTS>;

/** Longest deadline that a caller of the command line or of HTTP may ask for, ms. */
export const TIMEOUT_MS_MAX = 3_600_000;
/** Greatest `replicas` that they may ask for. */
export const REPLICAS_MAX = 1_000;

/** Server side of the client protocol: what one connection may ask of a host. Times in ms. */
export const CLIENT_SERVER_DEFAULTS = {
  /** Requests in progress that wait for something (writes, scans, ...); more get OVERLOADED. */
  inFlightMax: 16_384,
  /** Bytes of writes in progress; more get OVERLOADED, unless nothing else is in progress. */
  inFlightBytesMax: 16_777_216,
  /** Scans, digests and verifications in progress: each holds a view of the store. */
  scansMax: 32,
  watchesMax: 64,
  /** Changes that wait for a client's socket, all its watches together; past it a watch ends with WATCH_OVERFLOW. */
  watchQueueBytesMax: 4_194_304,
  /** Bytes queued on the socket, above which no further request is begun until they have left. */
  outboundPauseBytes: 1_048_576,
  /** Above this the client is cut off: what it asked for earlier piles up unread. */
  outboundBytesMax: 16_777_216,
  /** Nothing of what is queued left for this long: the client does not read, and is cut off. */
  stallMs: 60_000,
  /** Nothing came for this long: the client is gone. The light client pings far more often. */
  idleMs: 60_000,
  /** Requests are worked off for this long at a time, then the event loop turns. */
  sliceMs: 2,
} as const;

export type ClientServerOptions = Widen<typeof CLIENT_SERVER_DEFAULTS>;

/** The light client (`connect`). Times in ms. */
export const CLIENT_DEFAULTS = {
  /** Deadline of each call, and of each page of a scan. */
  timeoutMs: 3_000,
  /** Answer time after which a read is asked of a second host as well, and of a third, ... Raised to 4 round trips. */
  readAttemptMs: 50,
  /** The same for reads of many keys, pages of scans, and status. */
  bulkAttemptMs: 250,
  /** The same for writes: at least this, and a third of their deadline. An acknowledgement takes an fsync or two. */
  writeAttemptMs: 500,
  /** A dial and the greeting that follows. */
  dialTimeoutMs: 2_000,
  /** Delays before a failed host is dialed or probed again; they double and are jittered. */
  backoffMinMs: 100,
  backoffMaxMs: 5_000,
  /** How often an open connection is pinged, and after how much silence it is given up. */
  pingMs: 2_000,
  silentMs: 6_000,
  /** Hosts to stay connected to, nearest first; more are dialed when these fail. */
  connectionsWanted: 3,
  /** Connections beyond that are closed when unused for this long. */
  surplusMs: 30_000,
  /** Hosts remembered, given and learned. */
  hostsMax: 64,
  /** Calls in progress, and bytes of their arguments, above which further ones get OVERLOADED. */
  pendingCallsMax: 100_000,
  pendingBytesMax: 134_217_728,
  /** Bytes queued towards one host, above which calls go elsewhere. */
  outboundBytesMax: 16_777_216,
  /** Changes that wait for the reader of a watch; past it the watch fails with WATCH_OVERFLOW. */
  watchQueueBytesMax: 16_777_216,
  watchesMax: 64,
} as const;

export type ClientOptions = Widen<typeof CLIENT_DEFAULTS>;

export const DEFAULT_PORT = 7_700;
export const DEFAULT_DATA = './readmesh-data';
export const DEFAULT_CLUSTER = 'default';
