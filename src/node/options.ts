/** What a node is started with, checked before anything is touched. */
import { getHeapStatistics } from 'node:v8';
import type { ReplicaConfig } from '../core/core.js';
import { utf8Length } from '../core/entry.js';
import { storedIdentity } from '../core/lifecycle.js';
import { ReadmeshError } from '../errors.js';
import { CORE_DEFAULTS, type CoreOptions, DEFAULT_CLUSTER, MAY_BE_ZERO } from '../options.js';
import { type Address, formatAddress, isLoopback, parseAddress } from '../transport/address.js';
import type { Logger } from './driver.js';

/** Logs nothing: the default. */
export const SILENT: Logger = { info: () => {}, warn: () => {}, error: () => {} };

export interface NodeOptions {
  /** Data folder of this node alone. Created when missing. */
  data: string;
  /** `host:port` to listen on; port 0 takes a free one. Without it the node only dials (and needs `join`). */
  listen?: string;
  /** `host:port` by which other hosts reach this one. Default: what it listens on. */
  advertise?: string;
  /** Members to join through. Without them a new store founds a cluster. */
  join?: readonly string[];
  /** Default `default`. */
  cluster?: string;
  /** Stable name of this member. Default: what the store remembers, else random. */
  name?: string;
  /** Label of the machine, by which acknowledging hosts are counted. Default: the name. */
  host?: string;
  /** Sets a store that cannot be trusted aside and starts anew from the cluster (needs `join`). */
  rebuild?: boolean;
  /** Founds a cluster although `join` is given. */
  found?: boolean;
  /** Until this node has copied everything, it answers what it lacks by asking a member that is ready. */
  readThrough?: boolean;
  /** Whether every write to the store is flushed to the disk. Default true. Without it this host never counts for `fsync`. */
  flush?: boolean;
  /** Lets it listen beyond loopback without authentication; warns every minute. */
  insecureNoAuth?: boolean;
  /** Departures from the defaults in src/options.ts. */
  tuning?: Partial<CoreOptions>;
  /** Default: nothing is logged. */
  logger?: Logger;
}

export interface CheckedOptions {
  readonly data: string;
  readonly listen: Address | undefined;
  readonly advertise: Address | undefined;
  readonly join: readonly string[];
  readonly cluster: string;
  readonly tuning: CoreOptions;
}

const NAME_BYTES_MAX = 128;
const WILDCARDS = new Set(['0.0.0.0', '::', '']);

function assertName(what: string, text: string): void {
  if (
    text.length === 0 ||
    Buffer.byteLength(text) > NAME_BYTES_MAX ||
    utf8Length(text) === -1 ||
    /\p{Cc}/u.test(text)
  )
    throw new ReadmeshError(
      'INVALID_OPTION',
      `${what} must have 1 to ${NAME_BYTES_MAX} bytes and no control characters`,
    );
}

/** Throws INVALID_OPTION or INSECURE_LISTEN; changes nothing. */
export function checkOptions(options: NodeOptions): CheckedOptions {
  if (typeof options.data !== 'string' || options.data === '')
    throw new ReadmeshError('INVALID_OPTION', 'data names the folder of this node: give one');
  const cluster = options.cluster ?? DEFAULT_CLUSTER;
  assertName('the cluster name', cluster);
  if (options.name !== undefined) assertName('the node name', options.name);
  if (options.host !== undefined) assertName('the host label', options.host);
  const listen = options.listen === undefined ? undefined : parseAddress(options.listen);
  const advertise = options.advertise === undefined ? undefined : parseAddress(options.advertise);
  const join = (options.join ?? []).map((address) => formatAddress(parseAddress(address)));
  if (listen !== undefined && !isLoopback(listen.host)) {
    if (options.insecureNoAuth !== true)
      throw new ReadmeshError(
        'INSECURE_LISTEN',
        `listening on ${listen.host} lets anyone who reaches it read and write: ` +
          'listen on 127.0.0.1, or pass --insecure-no-auth on a network that you trust',
      );
    if (WILDCARDS.has(listen.host) && advertise === undefined)
      throw new ReadmeshError(
        'INVALID_OPTION',
        `other hosts cannot dial ${listen.host}: say with --advertise HOST:PORT how they reach this one`,
      );
  }
  if (options.rebuild === true && join.length === 0)
    throw new ReadmeshError('INVALID_OPTION', 'a rebuild needs a member to copy from: pass --join HOST:PORT');
  return { data: options.data, listen, advertise, join, cluster, tuning: checkTuning(options.tuning ?? {}) };
}

/** Of the heap, what waiting writes, or the cache of decoded values, may take of it by default. */
const HEAP_SHARE = 1 / 4;
/** What a write keeps on the heap until it is answered, bytes, about; and writes that are always let in. */
const WRITE_HEAP_BYTES = 2_400;
const PENDING_ROWS_MIN = 4_096;

/** The defaults, as a heap of this size bears them: load is refused before memory runs out. */
export function defaultsFor(heapBytes: number): CoreOptions {
  const share = Math.floor(heapBytes * HEAP_SHARE);
  const rows = Math.max(PENDING_ROWS_MIN, Math.floor(share / WRITE_HEAP_BYTES));
  return {
    ...CORE_DEFAULTS,
    pendingRowsMax: Math.min(CORE_DEFAULTS.pendingRowsMax, rows),
    cacheBytesMax: Math.min(CORE_DEFAULTS.cacheBytesMax, share),
  };
}

function checkTuning(tuning: Partial<CoreOptions>): CoreOptions {
  const out: CoreOptions = defaultsFor(getHeapStatistics().heap_size_limit);
  for (const [name, value] of Object.entries(tuning)) {
    if (!(name in CORE_DEFAULTS))
      throw new ReadmeshError('INVALID_OPTION', `there is no option "${name}" to tune`);
    if (value === undefined) continue;
    const least = MAY_BE_ZERO.includes(name) ? 0 : 1;
    if (!Number.isSafeInteger(value) || value < least)
      throw new ReadmeshError(
        'INVALID_OPTION',
        `${name} is an integer from ${least} up, not ${String(value)}`,
      );
    out[name as keyof CoreOptions] = value;
  }
  return out;
}

/** Joins what the operator says with what the store remembers. Throws WRONG_CLUSTER or INVALID_OPTION. */
export function configOf(
  options: NodeOptions,
  checked: CheckedOptions,
  store: {
    meta: ReadonlyMap<string, Uint8Array>;
    run: string;
    reuseOrigin: boolean;
    flushes: boolean;
    rejoin: { name: string; join: readonly string[] } | undefined;
  },
  address: string,
): ReplicaConfig {
  const stored = storedIdentity(store.meta);
  if (stored !== undefined && stored.cluster !== checked.cluster)
    throw new ReadmeshError(
      'WRONG_CLUSTER',
      `${checked.data} belongs to cluster "${stored.cluster}", not "${checked.cluster}": correct --cluster or --data`,
    );
  // A restored store belongs to whoever first serves it.
  const { rejoin } = store;
  const storedName = stored?.name === '' ? undefined : (stored?.name ?? rejoin?.name);
  if (storedName !== undefined && options.name !== undefined && storedName !== options.name)
    throw new ReadmeshError(
      'INVALID_OPTION',
      `${checked.data} belongs to the node named "${storedName}", not "${options.name}": correct --name or --data`,
    );
  const name = options.name ?? storedName ?? `node-${randomHex(4)}`;
  return {
    cluster: checked.cluster,
    name,
    host: options.host ?? name,
    address,
    // Whatever it was started with when its cluster was new: it never founds a second one.
    join: rejoin === undefined ? checked.join : [...new Set([...checked.join, ...rejoin.join])],
    found: rejoin === undefined && (options.found ?? false),
    mustRejoin: rejoin !== undefined,
    run: store.run,
    reuseOrigin: store.reuseOrigin,
    flushes: store.flushes,
    options: checked.tuning,
  };
}

function randomHex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex');
}
