/**
 * The light client, imported as `readmesh/client`: reads and writes through daemons nearby, without a copy of
 * its own. It loads neither LevelDB nor anything else of a node.
 */
import { ReadmeshError } from '../errors.js';
import { CLIENT_DEFAULTS, type ClientOptions } from '../options.js';
import { Client, type LightClient } from './client.js';

export { type ErrorCode, type ErrorDetails, isReadmeshError, ReadmeshError } from '../errors.js';
export type { ClientOptions } from '../options.js';
export type {
  BatchOperation,
  Change,
  MemberStatus,
  Range,
  ReadStore,
  ReadyOptions,
  Receipt,
  Rows,
  Status,
  Value,
  WatchOptions,
  WriteOptions,
} from '../read-store.js';
export type { DigestReport, VerifyReport } from '../service.js';
export type { Admin, LightClient } from './client.js';
export type { ExportedEntry } from './export.js';

export interface ConnectOptions {
  /** `host:port` of some members, nearest first (port 7700 when left out); the others are learned from them. */
  hosts: readonly string[];
  /** Deadline of each call unless it says otherwise, and of connecting, ms. Default 3,000. */
  timeoutMs?: number;
  /** Name of the cluster that hosts must belong to. Default: that of the first host that answers. */
  cluster?: string;
  /** Only the given hosts are used, none that they name. Default false. */
  only?: boolean;
  /** Waits and limits other than the defaults (CLIENT_DEFAULTS). */
  tuning?: Partial<ClientOptions>;
}

/**
 * Connects to a cluster through the given hosts. Resolves once one of them has answered, ready or not.
 *
 * Reads are answered by the nearest host that is fit; what it does not answer within 50 ms is asked of the next
 * one as well. Writes go on at another host when one fails, under the same stamp, so that they take effect once.
 * Every call ends by its deadline: with TIMEOUT when an answer is missing, UNREACHABLE when there was nobody
 * to ask, else with the last error of a host. ACK_TIMEOUT (a host accepted the write, too few others hold it) is final;
 * `details.stamp` lets the caller repeat the very same write.
 *
 * A scan is a sequence of pages, each with a deadline of its own, and goes on at another host when one is lost; it
 * is no snapshot. A watch goes on at another host, too, but is not told what was written in between.
 *
 * Throws INVALID_OPTION; UNREACHABLE when no host answers within `timeoutMs`, with the reason of each;
 * WRONG_CLUSTER or VERSION_MISMATCH when all hosts are unfit for good.
 */
export async function connect(options: ConnectOptions): Promise<LightClient> {
  const { hosts, cluster, only = false } = options;
  if (!Array.isArray(hosts) || hosts.length === 0 || hosts.some((host) => typeof host !== 'string'))
    throw new ReadmeshError('INVALID_OPTION', "hosts names at least one host, as in ['127.0.0.1:7700']");
  const client = new Client({ hosts, cluster, only, options: tuned(options) });
  try {
    await client.connected();
    return client;
  } catch (error) {
    await client.close();
    throw error;
  }
}

function tuned({ timeoutMs, tuning }: ConnectOptions): ClientOptions {
  const options: ClientOptions = { ...CLIENT_DEFAULTS, ...tuning };
  if (timeoutMs !== undefined) options.timeoutMs = timeoutMs;
  for (const name of Object.keys(options) as (keyof ClientOptions)[]) {
    if (!Object.hasOwn(CLIENT_DEFAULTS, name))
      throw new ReadmeshError('INVALID_OPTION', `there is no option "${name}" to tune`);
    const value: unknown = options[name];
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0)
      throw new ReadmeshError('INVALID_OPTION', `${name} is a number above 0`);
  }
  return options;
}
