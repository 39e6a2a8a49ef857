/**
 * The hosts that a light client knows, and its connections to them. Nearest first: the given ones in their
 * order, then those that hosts name in their greetings.
 *
 * A host is `fit` while it is connected, ready, not congested and not suspect. It becomes suspect when an attempt there is overdue
 * and nothing at all has come from it since; it is then left alone but for a ping after a back-off, whose
 * answer makes it fit again. Unfit hosts are asked only when no fit one is left.
 *
 * Level-triggered: `maintain` compares what is with what is wanted, and dials, pings or closes. It is called
 * by a coarse timer, and whenever a call finds nobody to ask.
 */
import { ReadmeshError } from '../errors.js';
import { type ClientOptions, DEFAULT_PORT } from '../options.js';
import { formatAddress, parseAddress } from '../transport/address.js';
import { ClientClock, type ClockVote } from './clock.js';
import { Connection, type ConnectionOwner } from './connection.js';
import type { Greeting } from './wire.js';

export class Host implements ClockVote {
  connection: Connection | undefined;
  clockOffset: number | undefined;
  /** What was last wrong with it. */
  problem: string | undefined;
  /** Set when it is no host of ours: another cluster, another protocol. */
  refused: ReadmeshError | undefined;
  origin = '';
  ready = false;
  suspect = false;
  /** Since a call last succeeded there. */
  failures = 0;
  /** Not dialed, and as a suspect not pinged, before this time. */
  notBefore = 0;
  pingAt = 0;
  /** Round trip of pings, ms, smoothed. */
  roundTripMs = 0;
  /** The same node is known by this other address. */
  aliasOf: Host | undefined;

  constructor(
    readonly address: string,
    /** Named by the application, not by other hosts. */
    readonly given: boolean,
  ) {}

  get isOpen(): boolean {
    return this.connection?.isOpen === true;
  }

  get isFit(): boolean {
    return this.isOpen && this.ready && !this.suspect && !this.connection!.congested;
  }
}

export interface HostsEvents {
  /** A host can be asked that could not before. */
  onAvailable(host: Host): void;
}

/** Refused hosts and second addresses of known nodes are tried again after this long, ms. */
const REFUSED_RETRY_MS = 60_000;

export class Hosts implements ConnectionOwner {
  readonly clock: ClientClock;
  readonly #hosts: Host[] = [];
  readonly #byConnection = new Map<Connection, Host>();
  readonly #options: ClientOptions;
  readonly #events: HostsEvents;
  readonly #only: boolean;
  /** Founding of the cluster that the hosts belong to. */
  #clusterUid: string | undefined;
  #cluster: string | undefined;
  #closed = false;

  constructor(
    addresses: readonly string[],
    { cluster, only }: { cluster: string | undefined; only: boolean },
    options: ClientOptions,
    events: HostsEvents,
  ) {
    this.#options = options;
    this.#events = events;
    this.#cluster = cluster;
    this.#only = only;
    for (const address of addresses) this.#add(formatAddress(dialable(address)), true);
    this.clock = new ClientClock(() => this.#votes());
  }

  get anyOpen(): boolean {
    return this.#hosts.some((host) => host.isOpen);
  }

  /** Why no host will ever do; undefined while one may. */
  get refused(): ReadmeshError | undefined {
    return this.#hosts.every((host) => host.refused !== undefined) ? this.#hosts[0]?.refused : undefined;
  }

  /**
   * The first host that is not among those excluded. `fit`: and is fit. `fit-first`: unfit ones only if no fit
   * one is left. `open`: whether it is ready does not matter.
   */
  pick(
    excluded: readonly { readonly host: Host }[],
    want: 'fit' | 'fit-first' | 'open' = 'fit-first',
  ): Host | undefined {
    let fallback: Host | undefined;
    for (const host of this.#hosts) {
      if (!host.isOpen) continue;
      if (excluded.length > 0 && excluded.some((other) => other.host === host)) continue;
      if (want === 'open' ? !host.suspect : host.isFit) return host;
      fallback ??= host;
    }
    return want === 'fit' ? undefined : fallback;
  }

  /** An attempt there is overdue. */
  suspect(host: Host, now: number): void {
    if (host.suspect) return;
    host.suspect = true;
    host.problem = 'does not answer in time';
    this.#backOff(host, now);
  }

  /** It says itself that it cannot serve now. */
  unready(host: Host, problem: string): void {
    host.ready = false;
    host.problem = problem;
    host.pingAt = Math.min(host.pingAt, performance.now() + this.#options.backoffMinMs);
  }

  /** Dials, pings and closes what is due. */
  maintain(now: number): void {
    if (this.#closed) return;
    const { connectionsWanted, pingMs, surplusMs } = this.#options;
    let wanted = connectionsWanted;
    for (const host of this.#hosts) {
      const { connection } = host;
      if (connection === undefined) {
        if (wanted <= 0 || now < host.notBefore) continue;
        this.#dial(host);
        wanted--;
      } else if (!connection.isOpen) {
        wanted--;
      } else {
        connection.poll(now);
        if (!connection.isOpen) continue;
        if (now >= host.pingAt && (!host.suspect || now >= host.notBefore)) {
          host.pingAt = now + pingMs;
          connection.ping();
        }
        if (host.isFit && --wanted < 0 && connection.pending === 0 && now - connection.usedAt > surplusMs)
          void connection.close('not needed now');
      }
    }
  }

  /** One line that says how it stands with each host. */
  describe(): string {
    return this.#hosts
      .map((host) => {
        const state = host.isFit
          ? 'connected'
          : (host.problem ?? (host.isOpen ? 'connected' : 'not tried yet'));
        return `${host.address}: ${state}`;
      })
      .join('; ');
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#byConnection.keys()].map((connection) => connection.close('client closed')));
  }

  // ConnectionOwner.

  onGreeting(connection: Connection, greeting: Greeting, elapsedMs: number): void {
    const host = this.#byConnection.get(connection);
    if (host === undefined) return;
    if (this.#cluster !== undefined && greeting.cluster !== this.#cluster)
      throw new ReadmeshError(
        'WRONG_CLUSTER',
        `${host.address} belongs to cluster "${greeting.cluster}", not "${this.#cluster}": correct the hosts or the cluster`,
      );
    this.#cluster = greeting.cluster;
    if (this.#isStray(host, greeting.clusterUid)) {
      host.problem = 'it has founded a cluster of its own, as a host does that lost its disk';
      void connection.close(host.problem);
      return;
    }
    const twin = this.#hosts.find(
      (other) => other !== host && other.isOpen && other.origin === greeting.origin,
    );
    if (twin !== undefined && greeting.origin !== '') return this.#makeAlias(host, twin);
    const wasFit = host.isFit;
    host.origin = greeting.origin;
    host.aliasOf = undefined;
    host.refused = undefined;
    host.ready = greeting.ready;
    host.suspect = false;
    if (!greeting.ready)
      host.pingAt = Math.min(host.pingAt, performance.now() + this.#jittered(++host.failures));
    host.problem = greeting.ready ? undefined : 'not ready yet';
    if (elapsedMs > 0) host.roundTripMs += (elapsedMs - host.roundTripMs) / (host.roundTripMs === 0 ? 1 : 4);
    if (!this.#only) this.#learn(greeting.addresses);
    this.clock.recount();
    if (!wasFit) this.#events.onAvailable(host);
  }

  /**
   * A founder that lost its disk comes back as an empty cluster of its own, until a member reaches it. While any
   * host of the founding that this client knows is there, such a one is passed over.
   */
  #isStray(host: Host, uid: string): boolean {
    if (uid === '') return false;
    const others = this.#hosts.some((other) => other !== host && other.isOpen && other.ready);
    if (others && this.#clusterUid !== undefined && this.#clusterUid !== uid) return true;
    this.#clusterUid = uid;
    return false;
  }

  onClock(connection: Connection, ms: number, counter: number): void {
    const host = this.#byConnection.get(connection);
    if (host !== undefined) this.clock.heard(host, ms, counter);
  }

  onClosed(connection: Connection, reason: string, refused: ReadmeshError | undefined): void {
    const host = this.#byConnection.get(connection);
    this.#byConnection.delete(connection);
    if (host === undefined || host.connection !== connection) return;
    const now = performance.now();
    host.connection = undefined;
    host.ready = false;
    host.suspect = false;
    this.clock.recount();
    for (const other of this.#hosts) if (other.aliasOf === host) other.notBefore = now;
    host.problem = reason;
    host.refused = refused;
    if (refused !== undefined || host.aliasOf !== undefined) host.notBefore = now + REFUSED_RETRY_MS;
    else this.#backOff(host, now);
  }

  #dial(host: Host): void {
    host.pingAt = performance.now() + this.#options.pingMs;
    host.connection = new Connection(host.address, this.#options, this);
    this.#byConnection.set(host.connection, host);
  }

  /** Asking the same node twice gains nothing. */
  #makeAlias(host: Host, twin: Host): void {
    host.aliasOf = twin;
    void host.connection?.close(`the same node as ${twin.address}`);
  }

  #learn(addresses: readonly string[]): void {
    const named = new Set<string>();
    for (const address of addresses) {
      try {
        named.add(formatAddress(dialable(address)));
      } catch {
        // One that cannot be dialed from here is of no use.
      }
    }
    // Members that are gone make room: those that no host names, and that are of no use at the moment.
    for (let i = this.#hosts.length - 1; i >= 0; i--) {
      const host = this.#hosts[i]!;
      if (!host.given && host.connection === undefined && !named.has(host.address)) this.#hosts.splice(i, 1);
    }
    for (const address of named) this.#add(address, false);
  }

  #add(address: string, given: boolean): void {
    if (this.#hosts.length >= this.#options.hostsMax) return;
    if (!this.#hosts.some((host) => host.address === address)) this.#hosts.push(new Host(address, given));
  }

  /** Those that are heard of now; without any, the last that is known. */
  #votes(): Iterable<ClockVote> {
    const open = this.#hosts.filter((host) => host.isOpen);
    return open.length > 0 ? open : this.#hosts;
  }

  #backOff(host: Host, now: number): void {
    host.failures++;
    host.notBefore = now + this.#jittered(host.failures);
    host.pingAt = host.notBefore;
  }

  #jittered(failures: number): number {
    const { backoffMinMs, backoffMaxMs } = this.#options;
    const ms = Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(Math.max(failures - 1, 0), 16));
    return ms * (0.5 + Math.random() / 2);
  }
}

function dialable(text: string): ReturnType<typeof parseAddress> {
  const address = parseAddress(text, { port: DEFAULT_PORT });
  if (address.port === 0)
    throw new ReadmeshError(
      'INVALID_OPTION',
      `${JSON.stringify(text)} has port 0: name the port to connect to`,
    );
  return address;
}
