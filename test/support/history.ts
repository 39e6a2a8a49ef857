/**
 * A history of what clients did to a store and were told, and the checker of it. Kept outside the system under
 * test, one JSON line per event, in the order in which the test saw them:
 *
 *     invoke  an operation is about to be sent
 *     ok      it was acknowledged (or, of a read, answered)
 *     fail    it was refused, and certainly changed nothing
 *     info    nobody knows: a timeout, a lost connection, an acknowledgement that did not come
 *
 * What the checker demands:
 *
 * - no acknowledged write is lost: the final stamp of each key is at least its greatest acknowledged one, and
 *   bears that one's exact value if it is equal; keys written once are all there, as they were written;
 * - all copies are equal;
 * - nothing is invented: whatever was read, or is there in the end, was written by somebody;
 * - the clocks of writers rise: of two writes by one writer, the one that began after the other was acknowledged
 *   has the greater stamp, no two writes share one, and none is ahead of the wall clock by more than the bound;
 * - no sequence number of an origin was given to two writes.
 */
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Operation {
  kind: 'put' | 'del' | 'read';
  key: string;
  /** JSON form of what is written. */
  value?: unknown;
  /** Name of the node that was asked. */
  node: string;
  /** A stamp that the writer brought along. */
  stamp?: string;
}

export interface Outcome {
  /** JSON form of what was read; undefined: there was nothing. */
  value?: unknown;
  stamp?: string;
  token?: string;
  superseded?: boolean;
  /** Of a failure. */
  code?: string;
}

interface Event extends Partial<Operation>, Outcome {
  type: 'invoke' | 'ok' | 'fail' | 'info';
  op: number;
  at: number;
}

/** One entry of a copy: JSON form of its value, undefined for a tombstone. */
export interface FinalEntry {
  stamp: string;
  value: unknown;
  origin: string;
  seq: number;
}

export type Dump = ReadonlyMap<string, FinalEntry>;

export const canonical = (value: unknown): string =>
  value === undefined
    ? 'nothing'
    : JSON.stringify(value, (_, member: unknown) =>
        typeof member === 'object' && member !== null && !Array.isArray(member)
          ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
          : member,
      );

const writerOf = (stamp: string): string => stamp.slice(16);
const millisecondsOf = (stamp: string): number => Number.parseInt(stamp.slice(0, 12), 16);

export class History {
  readonly #events: Event[] = [];
  readonly #name: string;
  #ids = 0;

  constructor(name: string) {
    this.#name = name;
  }

  invoke(operation: Operation): number {
    const op = ++this.#ids;
    this.#events.push({ type: 'invoke', op, at: Date.now(), ...operation });
    return op;
  }

  end(type: 'ok' | 'fail' | 'info', op: number, outcome: Outcome = {}): void {
    this.#events.push({ type, op, at: Date.now(), ...outcome });
  }

  /** Events of one type. */
  count(type: Event['type']): number {
    return this.#events.filter((event) => event.type === type).length;
  }

  /** Throws what is wrong, and where the history was saved (unless `save` is false). `driftMs`: how far a stamp may be ahead. */
  check(copies: ReadonlyMap<string, Dump>, options: { driftMs: number; save?: boolean }): void {
    const faults = [
      ...differencesOf(copies),
      ...[...copies].flatMap(([name, dump]) => this.#lost(dump).map((fault) => `at ${name}: ${fault}`)),
      ...[...copies].flatMap(([name, dump]) => this.#invented(dump).map((fault) => `at ${name}: ${fault}`)),
      ...this.#clocks(options.driftMs),
      ...this.#sequences([...copies.values()]),
    ];
    if (faults.length === 0) return;
    const saved = options.save === false ? '' : ` (history: ${this.#save()})`;
    throw new Error(`${faults.length} faults${saved}\n${faults.slice(0, 20).join('\n')}`);
  }

  #save(): string {
    const file = join(tmpdir(), `readmesh-history-${this.#name}-${process.pid}.jsonl`);
    writeFileSync(file, this.#events.map((event) => `${JSON.stringify(event)}\n`).join(''));
    return file;
  }

  /** Invocations by operation, and the events that ended them. */
  #pairs(): { invoke: Event; end: Event }[] {
    const invokes = new Map<number, Event>();
    const out: { invoke: Event; end: Event }[] = [];
    for (const event of this.#events) {
      if (event.type === 'invoke') invokes.set(event.op, event);
      else out.push({ invoke: invokes.get(event.op)!, end: event });
    }
    return out;
  }

  #lost(dump: Dump): string[] {
    const greatest = new Map<string, { stamp: string; value: unknown }>();
    for (const { invoke, end } of this.#pairs()) {
      if (end.type !== 'ok' || invoke.kind === 'read') continue;
      const stamp = end.stamp!;
      if (stamp > (greatest.get(invoke.key!)?.stamp ?? ''))
        greatest.set(invoke.key!, { stamp, value: invoke.kind === 'put' ? invoke.value : undefined });
    }
    const faults: string[] = [];
    for (const [key, { stamp, value }] of greatest) {
      const final = dump.get(key);
      if (final === undefined) faults.push(`${key}: acknowledged with stamp ${stamp}, and gone`);
      else if (final.stamp < stamp) faults.push(`${key}: acknowledged ${stamp}, there is ${final.stamp}`);
      else if (final.stamp === stamp && canonical(final.value) !== canonical(value))
        faults.push(`${key}: acknowledged ${canonical(value)}, there is ${canonical(final.value)}`);
    }
    return faults;
  }

  #invented(dump: Dump): string[] {
    const written = new Map<string, Set<string>>();
    const faults: string[] = [];
    const isKnown = (key: string, value: unknown): boolean =>
      value === undefined || written.get(key)?.has(canonical(value)) === true;
    const keys = new Map<number, string>();
    for (const event of this.#events) {
      if (event.type === 'invoke') {
        keys.set(event.op, event.key!);
        if (event.kind === 'put') {
          const values = written.get(event.key!) ?? new Set();
          written.set(event.key!, values.add(canonical(event.value)));
        }
      } else if (event.type === 'ok' && !isKnown(keys.get(event.op)!, event.value))
        faults.push(`${keys.get(event.op)}: read ${canonical(event.value)}, which nobody had written`);
    }
    for (const [key, { value }] of dump)
      if (!isKnown(key, value)) faults.push(`${key}: there is ${canonical(value)}, which nobody wrote`);
    return faults;
  }

  #clocks(driftMs: number): string[] {
    const faults: string[] = [];
    const finished = new Map<string, string>();
    const floors = new Map<number, ReadonlyMap<string, string>>();
    const owners = new Map<string, number>();
    const broughtAlong = new Set<number>();
    for (const { type, op, stamp, at, kind } of this.#events) {
      if (type === 'invoke') {
        if (stamp !== undefined || kind === 'read') broughtAlong.add(op);
        else floors.set(op, new Map(finished));
        continue;
      }
      if (type !== 'ok' || stamp === undefined || broughtAlong.has(op)) continue;
      const writer = writerOf(stamp);
      const floor = floors.get(op)?.get(writer) ?? '';
      if (stamp <= floor)
        faults.push(`operation ${op}: stamp ${stamp}, but ${floor} was given before it began`);
      if (owners.has(stamp))
        faults.push(`stamp ${stamp} was given to operations ${owners.get(stamp)} and ${op}`);
      owners.set(stamp, op);
      if (millisecondsOf(stamp) > at + driftMs) faults.push(`stamp ${stamp} is too far ahead of ${at}`);
      if (stamp > (finished.get(writer) ?? '')) finished.set(writer, stamp);
    }
    return faults;
  }

  /** Tokens of receipts begin with the dot of the record that holds the write. */
  #sequences(dumps: readonly Dump[]): string[] {
    const faults = new Set<string>();
    const owners = new Map<string, string>();
    const claim = (dot: string, key: string, stamp: string): void => {
      const owner = `${key} ${stamp}`;
      const before = owners.get(dot) ?? owner;
      if (before !== owner) faults.add(`sequence number ${dot} was given to ${before} and to ${owner}`);
      owners.set(dot, before);
    };
    for (const { invoke, end } of this.#pairs()) {
      if (end.type !== 'ok' || end.token === undefined || end.superseded === true) continue;
      const [origin, seq] = end.token.split('.');
      claim(`${origin}.${seq}`, invoke.key!, end.stamp!);
    }
    for (const dump of dumps)
      for (const [key, { origin, seq, stamp }] of dump) claim(`${origin}.${seq}`, key, stamp);
    return [...faults];
  }
}

/** What the copies disagree on: dots are no part of it. */
export function differencesOf(copies: ReadonlyMap<string, Dump>): string[] {
  const [first, ...others] = [...copies];
  if (first === undefined) return [];
  const [firstName, reference] = first;
  const faults: string[] = [];
  const text = (entry: FinalEntry | undefined): string =>
    entry === undefined ? 'nothing' : `${entry.stamp} ${canonical(entry.value)}`;
  for (const [name, dump] of others)
    for (const key of new Set([...reference.keys(), ...dump.keys()]))
      if (text(reference.get(key)) !== text(dump.get(key)))
        faults.push(
          `${key}: ${firstName} has ${text(reference.get(key))}, ${name} has ${text(dump.get(key))}`,
        );
  return faults;
}
