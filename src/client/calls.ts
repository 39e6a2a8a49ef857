/**
 * Calls in progress, and how they are carried through: an attempt at the nearest fit host, a further one
 * elsewhere as soon as that one fails or is overdue, until an answer comes or the deadline passes.
 *
 * An overdue attempt stays open: on a slow network its answer may still be the first to come. So each host has at
 * most one open attempt of a call, and no amount of delay alone makes a call fail before its deadline. Whatever
 * is asked more than once is idempotent: reads, and writes, whose stamp and bytes stay the same.
 *
 * What becomes of an error from a host: codes that are not worth a retry are final, and so is ACK_TIMEOUT (the
 * host has waited for as long as the call had); others send the call to the next host. After all hosts the
 * round begins anew, after a pause. The one thing a failed write must never do is to claim that nothing
 * happened when an earlier attempt may have done it: then it says TIMEOUT.
 *
 * There are no timers per call. One coarse sweep serves all of them, which is exact to about 10 ms. It judges
 * after the sockets were read, so that a stall of this process is not mistaken for one of a host.
 */
import { type ErrorCode, isReadmeshError, ReadmeshError } from '../errors.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { ClientOptions } from '../options.js';
import type { Connection, Pending } from './connection.js';
import type { ClientFrame } from './frame.js';
import type { Host, Hosts } from './hosts.js';

export interface CallPolicy {
  /** Time until another host is asked as well. Infinity: never, while this attempt is open. */
  readonly attemptMs: number;
  readonly isWrite: boolean;
  /** A host that is not ready will do. */
  readonly anyHost: boolean;
  /** Must not be sent again once it may have arrived. */
  readonly once: boolean;
}

interface Attempt {
  readonly host: Host;
  readonly connection: Connection;
  readonly id: number;
  readonly at: number;
  open: boolean;
}

/** Errors that say that the host itself is of no use at the moment. */
const UNFIT: ReadonlySet<string> = new Set<ErrorCode>(['NOT_READY', 'CLOSED', 'REMOVED']);
const NO_ATTEMPTS: readonly Attempt[] = Object.freeze([]);
const SWEEP_MS = 10;
const IDLE_SWEEP_MS = 100;
/** Pauses between rounds over all hosts, ms; they double. */
const PAUSE_MIN_MS = 10;
const PAUSE_MAX_MS = 200;

let keptResolve: (value: never) => void;
let keptReject: (error: ReadmeshError) => void;
/** The executor of every call's promise: one of its own for each would be garbage. */
const keep = (resolve: (value: never) => void, reject: (error: ReadmeshError) => void): void => {
  keptResolve = resolve;
  keptReject = reject;
};

/** One call. Subclasses say what is asked and how the answer is read. */
export abstract class Call<T> implements Pending {
  readonly promise: Promise<T>;
  abstract readonly policy: CallPolicy;
  abstract readonly size: number;
  deadline = 0;
  /** When this call is looked at again. */
  due = 0;
  rounds = 0;
  /** Of this round; open ones are carried over into the next. */
  attempts: readonly Attempt[] = NO_ATTEMPTS;
  lastError: ReadmeshError | undefined;
  /** Some attempt ended without saying whether it took effect. */
  maybeDone = false;
  settled = false;
  /** Neighbours in the list of calls in progress. */
  previous: AnyCall | undefined;
  next: AnyCall | undefined;
  calls!: Calls;
  readonly #resolve: (value: T) => void;
  readonly #reject: (error: ReadmeshError) => void;

  constructor() {
    this.promise = new Promise<never>(keep);
    this.#resolve = keptResolve as (value: T) => void;
    this.#reject = keptReject;
  }

  abstract write(writer: MsgpackWriter, id: number, now: number): void;
  /** Reads the result. Throws PROTOCOL_ERROR for a bad frame. */
  protected abstract read(frame: ClientFrame, elements: number): T;

  /** An error of a host that would be final: whether another host, or another stamp, may do better. */
  mayRetry(_error: ReadmeshError): boolean {
    return false;
  }

  onResult(frame: ClientFrame, elements: number, connection: Connection): void {
    let value: T;
    try {
      value = this.read(frame, elements);
    } catch (error) {
      // A bad frame ends the connection, which loses this call there. A bad value is the value's fault alone.
      if (!isReadmeshError(error) || error.code === 'PROTOCOL_ERROR') throw error;
      return this.reject(error);
    }
    this.resolve(value, connection);
  }

  onPart(frame: ClientFrame, _elements: number, _connection: Connection): void {
    frame.fail('status', 'announces a part where none is due');
  }

  onFailed(error: ReadmeshError, connection: Connection): void {
    this.calls.failed(this as AnyCall, error, connection);
  }

  onLost(connection: Connection): void {
    this.calls.lost(this as AnyCall, connection);
  }

  resolve(value: T, connection: Connection): void {
    for (const attempt of this.attempts) {
      if (attempt.connection !== connection) continue;
      attempt.open = false;
      attempt.host.failures = 0;
    }
    this.calls.settle(this as AnyCall);
    this.#resolve(value);
  }

  reject(error: ReadmeshError): void {
    this.calls.settle(this as AnyCall);
    this.#reject(error);
  }
}

type AnyCall = Call<unknown>;

export class Calls {
  readonly #hosts: Hosts;
  readonly #options: ClientOptions;
  readonly #active = new CallList();
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #fast = false;
  #sweptAt = performance.now();
  /** No call is due, or past its deadline, before this. */
  #nothingBefore = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(hosts: Hosts, options: ClientOptions) {
    this.#hosts = hosts;
    this.#options = options;
    this.#arm(false);
  }

  /** Carries the call through. `deadline` is on the monotonic clock. */
  start<T>(call: Call<T>, now: number, deadline: number): Promise<T> {
    if (this.#closed) return Promise.reject(closedError());
    const { pendingCallsMax, pendingBytesMax } = this.#options;
    if (this.#active.size >= pendingCallsMax || this.#bytes + call.size > pendingBytesMax)
      return Promise.reject(
        new ReadmeshError(
          'OVERLOADED',
          `${this.#active.size} calls with ${this.#bytes} bytes are in progress already: await some of them first`,
        ),
      );
    call.calls = this;
    call.deadline = deadline;
    if (deadline < this.#nothingBefore) this.#nothingBefore = deadline;
    this.#active.add(call as AnyCall);
    this.#bytes += call.size;
    if (!this.#fast) this.#arm(true);
    this.#attempt(call as AnyCall, now);
    return call.promise;
  }

  /** A host can be asked again: calls that have nobody to wait for go there. */
  onAvailable(): void {
    const now = performance.now();
    for (const call of this.#active.all())
      if (!call.settled && !call.attempts.some(isOpen)) this.#newRound(call, now, 0);
  }

  failed(call: AnyCall, error: ReadmeshError, connection: Connection): void {
    const attempt = this.#ended(call, connection);
    if (attempt === undefined) return;
    const { code, info } = error;
    call.lastError = error;
    if (UNFIT.has(code)) this.#hosts.unready(attempt.host, `${code}: ${error.message}`);
    const wasMaybeDone = call.maybeDone;
    if (info.outcome === 'indeterminate') call.maybeDone = true;
    const again = code !== 'ACK_TIMEOUT' && (info.retry || UNFIT.has(code) || call.mayRetry(error));
    if (again && !(call.policy.once && call.maybeDone)) return this.#attempt(call, performance.now());
    // Another attempt may still succeed.
    if (call.attempts.some(isOpen) && info.retry) return;
    if (call.policy.isWrite && info.outcome === 'unchanged' && (wasMaybeDone || call.attempts.some(isOpen)))
      return call.reject(this.#indeterminate(call, error));
    call.reject(error);
  }

  lost(call: AnyCall, connection: Connection): void {
    const attempt = this.#ended(call, connection);
    if (attempt === undefined) return;
    call.maybeDone = true;
    if (!call.policy.once) return this.#attempt(call, performance.now());
    const { address, problem } = attempt.host;
    call.reject(
      new ReadmeshError(
        'UNREACHABLE',
        `${address} was lost before it answered (${problem}): look whether it took effect, then try again`,
      ),
    );
  }

  settle(call: AnyCall): void {
    if (call.settled) return;
    call.settled = true;
    this.#active.delete(call);
    this.#bytes -= call.size;
    for (const attempt of call.attempts) if (attempt.open) attempt.connection.forget(attempt.id);
  }

  /** Rejects whatever is in progress. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const call of this.#active.all()) call.reject(closedError());
  }

  #attempt(call: AnyCall, now: number): void {
    const hosts = this.#hosts;
    const host = hosts.pick(call.attempts, call.policy.anyHost ? 'open' : 'fit-first');
    if (host === undefined) {
      hosts.maintain(now);
      if (call.attempts.some(isOpen)) {
        // Those that failed may be asked again after a while.
        call.attempts = call.attempts.filter(isOpen);
        this.#setDue(call, now + this.#attemptMs(call, 0));
      } else this.#newRound(call, now, pauseMs(call.rounds++));
      return;
    }
    const connection = host.connection!;
    this.#setDue(call, now + this.#attemptMs(call, host.roundTripMs));
    const id = connection.send(call, now);
    const attempt = { host, connection, id, at: now, open: true };
    // Nearly always the only one: a list of one takes far less memory than one that may grow.
    call.attempts = call.attempts.length === 0 ? [attempt] : [...call.attempts, attempt];
  }

  #setDue(call: AnyCall, at: number): void {
    call.due = at;
    if (at < this.#nothingBefore) this.#nothingBefore = at;
  }

  #attemptMs(call: AnyCall, roundTripMs: number): number {
    return Math.max(call.policy.attemptMs, 4 * roundTripMs);
  }

  #newRound(call: AnyCall, now: number, pause: number): void {
    call.attempts = NO_ATTEMPTS;
    this.#setDue(call, now + pause);
    if (pause === 0) this.#attempt(call, now);
  }

  /** Undefined if the call was settled within. */
  #ended(call: AnyCall, connection: Connection): Attempt | undefined {
    const attempt = call.attempts.find((other) => other.connection === connection && other.open);
    if (attempt !== undefined) attempt.open = false;
    return attempt;
  }

  /** `fast`: calls are in progress. Only then the timer keeps the process alive. */
  #arm(fast: boolean): void {
    clearTimeout(this.#timer);
    this.#fast = fast;
    this.#timer = setTimeout(() => setImmediate(() => this.#sweep()), fast ? SWEEP_MS : IDLE_SWEEP_MS);
    if (!fast) this.#timer.unref();
  }

  #sweep(): void {
    if (this.#closed) return;
    const now = performance.now();
    // This process stood still: answers that came meanwhile may not all be read yet.
    const late = now - this.#sweptAt > IDLE_SWEEP_MS + 4 * SWEEP_MS;
    this.#sweptAt = now;
    this.#hosts.maintain(now);
    if (now >= this.#nothingBefore) this.#look(now, late);
    this.#arm(this.#active.size > 0);
  }

  #look(now: number, late: boolean): void {
    let next = Number.POSITIVE_INFINITY;
    for (const call of this.#active.all()) {
      if (call.settled) continue;
      if (now >= call.deadline) this.#expire(call);
      else if (now >= call.due && !late) this.#overdue(call, now);
      if (!call.settled) next = Math.min(next, call.due, call.deadline);
    }
    this.#nothingBefore = next;
  }

  #overdue(call: AnyCall, now: number): void {
    const last = call.attempts.at(-1);
    if (last?.open === true && !call.policy.anyHost && last.connection.heardAt < last.at)
      this.#hosts.suspect(last.host, now);
    this.#attempt(call, now);
  }

  #expire(call: AnyCall): void {
    const open = call.attempts.filter(isOpen);
    const { isWrite } = call.policy;
    if (open.length > 0 || (isWrite && call.maybeDone)) {
      call.reject(
        new ReadmeshError(
          'TIMEOUT',
          `no answer in time${isWrite ? '; the write may have taken effect, and repeating it with its stamp is safe' : ''} (${this.#hosts.describe()})`,
          {
            ...(call.lastError === undefined ? {} : { cause: call.lastError }),
            details: this.detailsOf(call),
          },
        ),
      );
    } else if (call.lastError !== undefined) {
      call.reject(call.lastError);
    } else {
      call.reject(
        new ReadmeshError('UNREACHABLE', `no host could be reached in time (${this.#hosts.describe()})`, {
          details: this.detailsOf(call),
        }),
      );
    }
  }

  #indeterminate(call: AnyCall, error: ReadmeshError): ReadmeshError {
    return new ReadmeshError(
      'TIMEOUT',
      `the write may have taken effect at one host; another one then refused it (${error.code}: ${error.message})`,
      { cause: error, details: this.detailsOf(call) },
    );
  }

  /** What identifies the call for a retry. */
  detailsOf(call: AnyCall): Record<string, string> {
    const stamp = (call as { stampHex?: string }).stampHex;
    return stamp === undefined ? {} : { stamp };
  }
}

/**
 * The calls in progress, oldest first. Linked through the calls themselves, for the reason that
 * request-table.ts gives; what leaves the list lets go of its neighbours.
 */
class CallList {
  #first: AnyCall | undefined;
  #last: AnyCall | undefined;
  size = 0;

  add(call: AnyCall): void {
    call.previous = this.#last;
    if (this.#last === undefined) this.#first = call;
    else this.#last.next = call;
    this.#last = call;
    this.size++;
  }

  delete(call: AnyCall): void {
    if (call.previous === undefined) this.#first = call.next;
    else call.previous.next = call.next;
    if (call.next === undefined) this.#last = call.previous;
    else call.next.previous = call.previous;
    call.previous = undefined;
    call.next = undefined;
    this.size--;
  }

  /** A copy: whoever looks at them may settle any of them. */
  all(): AnyCall[] {
    const calls: AnyCall[] = [];
    for (let call = this.#first; call !== undefined; call = call.next) calls.push(call);
    return calls;
  }
}

function isOpen(attempt: Attempt): boolean {
  return attempt.open;
}

function pauseMs(rounds: number): number {
  return Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** Math.min(rounds, 10)) * (0.5 + Math.random() / 2);
}

function closedError(): ReadmeshError {
  return new ReadmeshError('CLOSED', 'this client was closed: connect anew');
}
