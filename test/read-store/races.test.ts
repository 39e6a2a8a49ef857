import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect } from '../../src/client/index.js';
import { openReplica, type ReadStore, type Replica } from '../../src/index.js';

/**
 * Callers that race on a few keys of one host, in an order that fast-check draws. What each read may return follows
 * from the receipts alone: at least what was acknowledged before it began, at most what was asked for before
 * it ended. A failing order is shrunk to the few calls that make it.
 */
interface Call {
  readonly what: 'put' | 'del' | 'get' | 'batch' | 'getMany';
  /** One, but for the last two. */
  readonly keys: readonly string[];
}

interface Write {
  readonly key: string;
  /** Undefined for a delete. */
  readonly value: number | undefined;
  readonly began: number;
  ended: number;
  /** Of the receipt; for a batch it is that of its last operation, whose key this is. */
  stamp: string | undefined;
}

interface Read {
  readonly key: string;
  readonly value: number | undefined;
  readonly began: number;
  readonly ended: number;
}

const NEVER = Number.POSITIVE_INFINITY;
const key = fc.constantFrom('a', 'b', 'c');
const one = key.map((each) => [each]);
const some = fc.uniqueArray(key, { minLength: 1, maxLength: 3 });
const call: fc.Arbitrary<Call> = fc.oneof(
  fc.record({ what: fc.constantFrom('put' as const, 'del' as const), keys: one }),
  fc.record({ what: fc.constant('get' as const), keys: one }),
  fc.record({ what: fc.constantFrom('batch' as const, 'getMany' as const), keys: some }),
);
const callers = fc.array(fc.array(call, { minLength: 1, maxLength: 6 }), { minLength: 2, maxLength: 5 });

class History {
  readonly writes: Write[] = [];
  readonly reads: Read[] = [];
  readonly #store: ReadStore;
  readonly #prefix: string;
  #clock = 0;

  constructor(store: ReadStore, prefix: string) {
    this.#store = store;
    this.#prefix = prefix;
  }

  async make({ what, keys }: Call): Promise<void> {
    const began = ++this.#clock;
    const names = keys.map((each) => this.#prefix + each);
    if (what === 'get' || what === 'getMany') {
      const values =
        what === 'get'
          ? [await this.#store.get<number>(names[0]!)]
          : await this.#store.getMany<number>(names);
      const ended = ++this.#clock;
      for (const [i, each] of keys.entries()) this.reads.push({ key: each, value: values[i], began, ended });
      return;
    }
    const writes = this.#begin(keys, what !== 'del', began);
    const { stamp } = await this.#write(what, names, writes);
    writes.at(-1)!.stamp = stamp;
    const ended = ++this.#clock;
    for (const write of writes) write.ended = ended;
  }

  #write(what: 'put' | 'del' | 'batch', names: readonly string[], writes: readonly Write[]) {
    if (what === 'del') return this.#store.del(names[0]!);
    if (what === 'put') return this.#store.put(names[0]!, writes[0]!.value!);
    return this.#store.batch(
      writes.map((write, i) => ({ type: 'put' as const, key: names[i]!, value: write.value! })),
    );
  }

  #begin(keys: readonly string[], puts: boolean, began: number): Write[] {
    const writes = keys.map((each, i) => ({
      key: each,
      value: puts ? this.writes.length + i + 1 : undefined,
      began,
      ended: NEVER,
      stamp: undefined,
    }));
    this.writes.push(...writes);
    return writes;
  }

  check(): void {
    const stamped = this.writes.filter((write) => write.stamp !== undefined);
    expect(new Set(stamped.map(({ stamp }) => stamp)).size).toBe(stamped.length);
    for (const a of stamped)
      for (const b of stamped) if (a.ended < b.began) expect(a.stamp! < b.stamp!).toBe(true);
    for (const read of this.reads) this.#checkRead(read);
  }

  /** Real time decides: nothing that ended before another write of the key began, itself before the read, is read. */
  #checkRead(read: Read): void {
    const ofKey = this.writes.filter((write) => write.key === read.key);
    const before = ofKey.filter((write) => write.ended < read.began);
    const sources = ofKey.filter((write) => write.value === read.value && write.began < read.ended);
    const isStale = (source: Write): boolean => before.some((write) => source.ended < write.began);
    if (read.value === undefined && before.length === 0) return;
    expect(
      sources.some((source) => !isStale(source)),
      JSON.stringify({ read, ofKey }),
    ).toBe(true);
  }
}

test('the check finds a read that goes back behind an acknowledged write, and one of nothing that was written', () => {
  const write = { key: 'a', began: 1, ended: 2, stamp: '1', value: 1 };
  const later = { key: 'a', began: 3, ended: 4, stamp: '2', value: 2 };
  for (const [value, holds] of [
    [1, false],
    [2, true],
    [3, false],
    [undefined, false],
  ] as const) {
    const history = new History({} as ReadStore, '');
    history.writes.push({ ...write }, { ...later });
    history.reads.push({ key: 'a', value, began: 5, ended: 6 });
    if (holds) history.check();
    else expect(() => history.check()).toThrow();
  }
});

let folder: string;
let replica: Replica & { readonly address: string | undefined };
const opened: Record<'the embedded replica' | 'the light client', ReadStore | undefined> = {
  'the embedded replica': undefined,
  'the light client': undefined,
};
let runs = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'readmesh-test-'));
  replica = await openReplica({ data: folder, name: 'one', listen: '127.0.0.1:0' });
  opened['the embedded replica'] = replica;
  opened['the light client'] = await connect({ hosts: [replica.address!] });
});

afterAll(async () => {
  await opened['the light client']?.close();
  await replica?.close();
  rmSync(folder, { recursive: true, force: true });
});

describe.each(['the embedded replica', 'the light client'] as const)('calls that race at %s', (face) => {
  test('read what was acknowledged or is newer, whatever the order in which they run', async () => {
    let mostRacing = 0;
    await fc.assert(
      fc.asyncProperty(callers, fc.scheduler(), async (scripts, scheduler) => {
        const history = new History(opened[face]!, `${++runs}/`);
        let racing = 0;
        const run = async (calls: readonly Call[]): Promise<void> => {
          for (const each of calls) {
            await scheduler.schedule(Promise.resolve(), each.what);
            mostRacing = Math.max(mostRacing, ++racing);
            await history.make(each);
            racing -= 1;
          }
        };
        await scheduler.waitFor(Promise.all(scripts.map(run)));
        history.check();
      }),
      { numRuns: 25 },
    );
    expect(mostRacing).toBeGreaterThan(2);
  });

  test('all end when the store is closed under them, and what was acknowledged is there when it is opened again', async () => {
    const data = mkdtempSync(join(tmpdir(), 'readmesh-test-'));
    await fc.assert(
      fc.asyncProperty(fc.array(key, { minLength: 1, maxLength: 30 }), fc.nat(5), async (keys, turns) => {
        const one = await openReplica({ data, name: 'one', listen: '127.0.0.1:0' });
        const store =
          face === 'the light client' ? await connect({ hosts: [one.address!], timeoutMs: 500 }) : one;
        const values = keys.map(() => ++runs);
        const writes = keys.map((each, i) => store.put(`${runs}/${each}/${i}`, values[i]!));
        const names = keys.map((each, i) => `${runs}/${each}/${i}`);
        const outcomes = Promise.allSettled(writes);
        for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
        await one.close();
        const settled = await outcomes;
        if (store !== one) await store.close();
        const again = await openReplica({ data, name: 'one' });
        for (const [i, outcome] of settled.entries())
          if (outcome.status === 'fulfilled') expect(again.getSync(names[i]!)).toBe(values[i]);
          else expect(outcome.reason).toMatchObject({ name: 'ReadmeshError' });
        await again.close();
      }),
      { numRuns: 5 },
    );
    rmSync(data, { recursive: true, force: true });
  });
});
