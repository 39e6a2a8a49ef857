/**
 * The client protocol, spoken between light clients (index.ts) and hosts (server.ts).
 *
 * A WebSocket at path `/client`, without compression. Each message is one binary frame that holds one msgpack
 * array, in the subset that msgpack-guard.ts passes. Everything is positional; a length other than the one
 * given here is an error. `nil` stands for "absent". Keys are well-formed UTF-8 of 1 to 1,024 bytes.
 *
 *     client to host   [request, ...]                      1 to 4,096 requests
 *     host to client   [hlcMs, hlcCounter, response, ...]  the clock, then any number of responses
 *
 *     request   [id, op, ...arguments]      id: 1 to 2^32-1, not in use by another request in progress
 *     response  [id, 0, ...result]          the last one for this id
 *               [id, 1, code, message, details]   the last one, too; details: JSON text of an object
 *               [id, 2, ...part]            more follow
 *
 * hlcMs and hlcCounter are the greatest of the host's hybrid logical clock and the stamps of all records in
 * the frame. A client that merges them stamps above all it has been told, which is what makes "read, then
 * write" come out in that order. The first frame from the host is the greeting: the result of `hello`, under
 * id 0. A client that does not speak its version closes; its own first request is `hello`.
 *
 *     op              arguments                               result
 *      1 hello        version                                 version, cluster, clusterUid, origin, name, ready, [address...]
 *      2 get          key                                     value
 *      3 getMany      [key...]                                [value...]
 *      4 has          key                                     bool
 *      5 scan         gt, gte, lt, lte, prefix, reverse,      [key, value, ...], end
 *                     limit, keysOnly
 *      6 write        stamp, replicas, fsync, timeoutMs,      stamp, replicas, origin, seq, superseded
 *                     [[kind, key, value]...], or
 *                     [[kind, key, value, ttlMs]...]
 *      7 watch        prefix                                  (parts: [kind, key, stamp, value, ...])
 *      8 status                                               JSON text
 *      9 ready        level (`local`, `synced`), timeoutMs
 *     10 remove       name
 *     11 digest                                               JSON text
 *     12 digestBucket bucket                                  (parts: [key, stamp, ...])
 *     13 verify       timeoutMs                               JSON text
 *     14 cancel       id                                      (never answered, nor is what it names)
 *     15 export       as scan                                 [key, value, ttlMs, ...], end
 *
 * Values are binary: the bytes of the writer's encoding; nil for a missing key (and in place of values when
 * keysOnly). Stamps are 16 bytes. Clusters, names, addresses, levels, origins and JSON are strings.
 *
 * - Requests are begun in order and may be answered out of order, several in one frame. Those of one tick share
 *   a frame, too.
 * - getMany takes up to 1,000 keys, and may answer fewer (at least one): its values are those of the first keys.
 * - A ttlMs is an integer from 1 to 2^47 - 1. In a write (of any operation by itself) it counts from the stamp; in an
 *   export it is what is left by the clock in the frame, nil for entries that stay.
 * - A page of a scan has at most `limit` (up to 1,000) rows and about 256 KiB. `end`: there is no more.
 * - A receipt's token is put together by whoever asked: `origin.seq.stamp`, stamps as 32 hex digits.
 * - A write's stamp is that of its first operation; each further one bears the next stamp. Replicas, fsync nil:
 *   the cluster's default. The same write under the same stamp may be sent again, to any host: it is
 *   idempotent.
 * - A watch begins with an empty part, once it is in effect. Changes that wait for the socket coalesce by key.
 *   It ends by `cancel`, or with WATCH_OVERFLOW when too much waits.
 * - An operation that is not known is answered with UNSUPPORTED. A frame that breaks these rules ends its
 *   connection with a reason; nothing of it from the fault on is begun.
 * - A host closes a connection from which it hears nothing for a minute: clients send `hello` as a ping.
 */
export const CLIENT_PROTOCOL_VERSION = 1;

export const OP_HELLO = 1;
export const OP_GET = 2;
export const OP_GET_MANY = 3;
export const OP_HAS = 4;
export const OP_SCAN = 5;
export const OP_WRITE = 6;
export const OP_WATCH = 7;
export const OP_STATUS = 8;
export const OP_READY = 9;
export const OP_REMOVE = 10;
export const OP_DIGEST = 11;
export const OP_DIGEST_BUCKET = 12;
export const OP_VERIFY = 13;
export const OP_CANCEL = 14;
export const OP_EXPORT = 15;

export const STATUS_DONE = 0;
export const STATUS_FAILED = 1;
export const STATUS_PART = 2;

export const REQUESTS_PER_FRAME_MAX = 4_096;
export const KEYS_PER_GET_MAX = 1_000;
export const ROWS_PER_PAGE_MAX = 1_000;
/** Bytes after which a page of a scan, a getMany or a part is closed. */
export const PAGE_BYTES = 262_144;
/** Bytes after which a frame is closed. The last thing in it may be larger. */
export const FRAME_BYTES_SOFT = 131_072;
export { ID_MAX } from '../request-table.js';
/** Longest deadline that a request may ask for, ms. */
export const TIMEOUT_MS_MAX = 3_600_000;
/** Operations in one write that are read at all; how many are accepted is the cluster's option. */
export const OPS_PER_WRITE_MAX = 16_384;
export const BUCKETS = 256;
/** Longest prefix or bound of a range, bytes. */
export const PREFIX_BYTES_MAX = 4_096;
/** Most addresses in a greeting, and bytes of each and of names. */
export const ADDRESSES_MAX = 256;
export const NAME_BYTES_MAX = 4_096;

/** What a host says of itself, in its greeting and in answer to each ping. */
export interface Greeting {
  readonly version: number;
  readonly cluster: string;
  /** Empty while the host belongs to no founding of the cluster yet. */
  readonly clusterUid: string;
  readonly origin: string;
  readonly name: string;
  /** Whether it answers reads. */
  readonly ready: boolean;
  /** Addresses of all members that listen, its own included. */
  readonly addresses: readonly string[];
}

export const GREETING_ELEMENTS = 7;
