/** A node service over a Map, for the HTTP face: it stamps, records what it was asked, and fails on demand. */
import { checksum } from '../../src/checksum.js';
import { isTombstone, makeRow } from '../../src/core/entry.js';
import { stampBytes, stampFromHex, stampToHex, textOfStamp } from '../../src/core/hlc.js';
import type { Row } from '../../src/core/types.js';
import type { ReadmeshError } from '../../src/errors.js';
import type { Range, Receipt, Status } from '../../src/read-store.js';
import type { DigestReport, NodeService, RowScan, WriteRequest } from '../../src/service.js';

const ORIGIN = '00000000000000aa';

export class FakeNode implements NodeService {
  readonly rows = new Map<string, Row>();
  readonly writes: WriteRequest[] = [];
  readonly scans: Range[] = [];
  openScans = 0;
  /** Thrown by every read and write while set. */
  failure: ReadmeshError | Error | undefined;
  isReady = true;
  #seq = 0;

  clockMs(): number {
    return this.#seq;
  }

  readRow(key: string): Row | undefined {
    if (this.failure !== undefined) throw this.failure;
    const row = this.rows.get(key);
    return row === undefined || isTombstone(row) ? undefined : row;
  }

  noteUnreadable(): void {}

  async readRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    return keys.map((key) => this.readRow(key));
  }

  scanRows(range: Range): RowScan {
    if (this.failure !== undefined) throw this.failure;
    this.scans.push(range);
    this.openScans += 1;
    const { prefix = '', gt, limit = Number.POSITIVE_INFINITY } = range;
    const left = [...this.rows]
      .filter(
        ([key, row]) =>
          key.startsWith(prefix) && !isTombstone(row) && (gt === undefined || byteOrder(key, gt) > 0),
      )
      .sort(([a], [b]) => byteOrder(a, b))
      .slice(0, limit);
    return {
      next: async (rowsMax) => {
        const page = left.splice(0, rowsMax);
        return { keys: page.map(([key]) => key), rows: page.map(([, row]) => row) };
      },
      close: async () => {
        this.openScans -= 1;
      },
    };
  }

  async write(request: WriteRequest): Promise<Receipt> {
    this.writes.push(request);
    if (this.failure !== undefined) throw this.failure;
    let stamp = '';
    for (const op of request.ops) {
      const seq = ++this.#seq;
      const bytes =
        op.stamp === undefined ? stampBytes(1_000 + seq, 0, ORIGIN) : stampFromHex(textOfStamp(op.stamp));
      stamp = stampToHex(bytes);
      const { kind, value } = op;
      this.rows.set(op.key, makeRow(op.key, { kind, stamp: bytes, origin: ORIGIN, seq, value }, checksum));
    }
    return { stamp, replicas: request.replicas ?? 2, token: 't', superseded: false };
  }

  submit(): void {
    throw new Error('HTTP has a promise for each write');
  }

  subscribe(): () => void {
    return () => {};
  }

  status(): Status {
    return {
      cluster: 'default',
      clusterUid: '1111111111111111',
      name: 'fake',
      host: 'fake',
      address: '127.0.0.1:1',
      origin: ORIGIN,
      phase: this.isReady ? 'ready' : 'bootstrapping',
      ready: this.isReady,
      issues: [],
      members: [],
      heads: {},
      horizonMs: 0,
      asOfMs: 0,
      gcBlockedBy: [],
      digest: { keys: 0, root: '', builtPercent: 100, doubt: false },
      garbage: { collectedTo: 0, sweeping: false },
      integrity: { proved: true, evidence: [], lost: 0, broken: false },
      queues: { pendingRows: 0, pendingBytes: 0, unacknowledged: 0 },
      counters: {},
      loopLagMs: 0,
      uptimeMs: 1,
      version: '0',
    };
  }

  ready(): Promise<void> {
    return Promise.resolve();
  }

  removeMember(): Promise<void> {
    return Promise.resolve();
  }

  digest(): Promise<DigestReport> {
    return Promise.resolve({
      heads: {},
      horizonMs: 0,
      asOfMs: 0,
      gcBlockedBy: [],
      entries: this.rows.size,
      root: '',
      collected: 0,
      swept: true,
      damaged: 0,
      buckets: [],
    });
  }

  digestBucket(): Promise<{ key: string; stamp: string }[]> {
    return Promise.resolve([]);
  }

  async *backup(): AsyncGenerator<Uint8Array, void, undefined> {
    yield new Uint8Array(0);
  }

  verify(): ReturnType<NodeService['verify']> {
    return Promise.resolve({ identical: true, entries: this.rows.size, members: [], differing: [] });
  }
}

function byteOrder(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
