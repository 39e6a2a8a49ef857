/**
 * A node for tests of the client protocol: a Map of rows behind `NodeService`, which can be slow, hang, fail or
 * not be ready, and records what it was asked. `FakeHost` serves it on a real socket, and counts frames.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import { checksum } from '../../src/checksum.js';
import { type ClientSession, type ServeOptions, serveClient } from '../../src/client/server.js';
import { compareEntries, isTombstone, KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { stampBytes, stampFromHex, stampToHex, textOfStamp } from '../../src/core/hlc.js';
import type { Row } from '../../src/core/types.js';
import type { EncodedCache } from '../../src/encoded-cache.js';
import { ReadmeshError } from '../../src/errors.js';
import type { MemberStatus, Range, Receipt, Status, Value } from '../../src/read-store.js';
import type {
  DigestReport,
  NodeService,
  RowChange,
  RowScan,
  SubmittedWrite,
  VerifyReport,
  WriteRequest,
} from '../../src/service.js';
import { encodeValue } from '../../src/values.js';

export class FakeService implements NodeService {
  readonly rows = new Map<string, Row>();
  readonly writes: WriteRequest[] = [];
  readonly removed: string[] = [];
  readonly origin = randomBytes(8).toString('hex');
  name = 'fake';
  cluster = 'default';
  /** `host:port` of the members that it names. */
  addresses: string[] = [];
  isReady = true;
  /** What its clock is ahead of ours, ms. */
  clockOffsetMs = 0;
  /** Thrown by every read, scan and write while set. */
  failure: Error | undefined;
  /** Thrown by writes only, after the write was recorded but not applied. */
  writeFailure: ReadmeshError | undefined;
  /** Writes are applied, but never answered. */
  hangWrites = false;
  /** `ready`, `verify` and page reads never answer. */
  hang = false;
  encoded: EncodedCache | undefined;
  reads = 0;
  openScans = 0;
  statusCalls = 0;
  /** Called before each page of a scan. */
  onPage: () => void = () => {};
  bucket: { key: string; stamp: string }[] = [];
  readonly #subscribers = new Set<{ prefix: string; onChange: (change: RowChange) => void }>();
  #seq = 0;
  #counter = 0;

  get subscribers(): number {
    return this.#subscribers.size;
  }

  /** Puts a row in place and tells watchers, as replication would. */
  apply(key: string, value: Value, stamp: Uint8Array = this.#stamp()): void {
    this.#merge(key, KIND_REGISTER, encodeValue(value), stamp);
  }

  clockMs(): number {
    return Date.now() + this.clockOffsetMs;
  }

  readRow(key: string): Row | undefined {
    this.reads++;
    this.#gate();
    const row = this.rows.get(key);
    return row === undefined || isTombstone(row) ? undefined : row;
  }

  noteUnreadable(): void {}

  async readRows(keys: readonly string[]): Promise<(Row | undefined)[]> {
    return keys.map((key) => this.readRow(key));
  }

  scanRows(range: Range): RowScan {
    this.#gate();
    this.openScans++;
    const order = range.reverse === true ? -1 : 1;
    const left = [...this.rows]
      .filter(([key, row]) => !isTombstone(row) && isWithin(key, range))
      .sort(([a], [b]) => order * bytewise(a, b))
      .slice(0, range.limit);
    return {
      next: async (rowsMax) => {
        this.onPage();
        if (this.hang) await new Promise(() => {});
        const page = left.splice(0, rowsMax);
        return { keys: page.map(([key]) => key), rows: page.map(([, row]) => row) };
      },
      close: async () => {
        this.openScans--;
      },
    };
  }

  async write(request: WriteRequest): Promise<Receipt> {
    this.writes.push(request);
    this.#gate();
    if (this.writeFailure !== undefined) throw this.writeFailure;
    let stamp = '';
    let superseded = false;
    for (const op of request.ops) {
      const bytes = op.stamp === undefined ? this.#stamp() : stampFromHex(textOfStamp(op.stamp));
      stamp = stampToHex(bytes);
      superseded = !this.#merge(op.key, op.kind, op.value, bytes) || superseded;
    }
    if (this.hangWrites) await new Promise(() => {});
    return { stamp, replicas: request.replicas ?? 2, token: `token-${stamp}`, superseded };
  }

  submit(write: SubmittedWrite): void {
    this.write(write).then(
      ({ stamp: givenStamp, replicas, superseded }) => {
        const row = this.rows.get(write.ops.at(-1)!.key)!;
        write.settled({ id: write.id, givenStamp, row, replicas, superseded });
      },
      (error: unknown) => write.failed(error),
    );
  }

  subscribe(prefix: string, onChange: (change: RowChange) => void): () => void {
    const subscriber = { prefix, onChange };
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  status(): Status {
    this.statusCalls++;
    return {
      cluster: this.cluster,
      clusterUid: '1111111111111111',
      name: this.name,
      host: this.name,
      address: this.addresses[0] ?? '',
      origin: this.origin,
      phase: this.isReady ? 'ready' : 'bootstrapping',
      ready: this.isReady,
      issues: [],
      members: this.addresses.map((address, i) => memberAt(address, i)),
      heads: { [this.origin]: this.#seq },
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

  async ready(): Promise<void> {
    if (this.hang) await new Promise(() => {});
    this.#gate();
  }

  async removeMember(name: string): Promise<void> {
    this.removed.push(name);
    if (name === 'nobody') throw new ReadmeshError('NOT_FOUND', 'there is no such member');
  }

  async digest(): Promise<DigestReport> {
    return {
      heads: { [this.origin]: this.#seq },
      entries: this.rows.size,
      root: 'ab',
      damaged: 0,
      collected: 0,
      swept: true,
      buckets: ['aa', 'bb'],
    };
  }

  async digestBucket(): Promise<{ key: string; stamp: string }[]> {
    return this.bucket;
  }

  async *backup(): AsyncGenerator<Uint8Array, void, undefined> {
    yield new Uint8Array(0);
  }

  async verify(): Promise<VerifyReport> {
    if (this.hang) await new Promise(() => {});
    return {
      identical: false,
      entries: this.rows.size,
      members: [{ name: 'x', address: 'y', state: 'differs', message: 'why' }],
      differing: [{ key: 'k', stamps: { x: '' } }],
    };
  }

  #gate(): void {
    if (this.failure !== undefined) throw this.failure;
    if (!this.isReady) throw new ReadmeshError('NOT_READY', 'this fake is not ready');
  }

  /** Whether it won. */
  #merge(key: string, kind: number, value: Uint8Array, stamp: Uint8Array): boolean {
    const row = makeRow(key, { kind, stamp, origin: this.origin, seq: ++this.#seq, value }, checksum);
    const before = this.rows.get(key);
    const order = before === undefined ? 1 : compareEntries(row, before);
    if (order <= 0) return order === 0;
    this.rows.set(key, row);
    for (const { prefix, onChange } of this.#subscribers) if (key.startsWith(prefix)) onChange({ key, row });
    return true;
  }

  #stamp(): Uint8Array {
    return stampBytes(Math.floor(this.clockMs()), ++this.#counter % 0x1_0000, this.origin);
  }
}

function memberAt(address: string, i: number): MemberStatus {
  return { name: `m${i}`, host: `m${i}`, address, origin: '', self: i === 0, state: 'alive', linked: i > 0 };
}

function isWithin(key: string, { gt, gte, lt, lte, prefix = '' }: Range): boolean {
  return (
    key.startsWith(prefix) &&
    (gt === undefined || bytewise(key, gt) > 0) &&
    (gte === undefined || bytewise(key, gte) >= 0) &&
    (lt === undefined || bytewise(key, lt) < 0) &&
    (lte === undefined || bytewise(key, lte) <= 0)
  );
}

export function bytewise(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Serves a service at `/client` of a loopback port. */
export class FakeHost {
  readonly service: FakeService;
  readonly #options: ServeOptions;
  #server: Server | undefined;
  #webSockets: WebSocketServer | undefined;
  readonly #sockets = new Set<Socket>();
  readonly clients = new Set<WebSocket>();
  readonly sessions: ClientSession[] = [];
  readonly faults: unknown[] = [];
  #port = 0;
  /** Frames received, those that hold nothing but a ping left out. */
  frames = 0;
  connections = 0;
  /** While true, nothing that clients send is read, and what they dial is not answered. */
  #frozen = false;

  constructor(service: FakeService = new FakeService(), options: ServeOptions = {}) {
    this.service = service;
    this.#options = options;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Listens at a free port, or again at the one it had. */
  async start(): Promise<this> {
    const server = createServer();
    this.#server = server;
    this.#webSockets = new WebSocketServer({
      noServer: true,
      perMessageDeflate: false,
      maxPayload: 8_388_608,
    });
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => {});
      if (this.#frozen) socket.pause();
    });
    server.on('upgrade', (request, socket, head) => {
      if (request.url !== '/client') socket.destroy();
      else this.#webSockets!.handleUpgrade(request, socket, head, (ws) => this.#accept(ws, socket as Socket));
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#port, '127.0.0.1', resolve);
    });
    this.#port = (server.address() as AddressInfo).port;
    if (this.service.addresses.length === 0) this.service.addresses = [this.address];
    return this;
  }

  /** As a killed process: connections are reset, the port is free. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const socket of this.#sockets) socket.destroy();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  /** As a stopped process: connections stay, nothing comes back. */
  freeze(): void {
    this.#frozen = true;
    for (const socket of this.#sockets) socket.pause();
  }

  thaw(): void {
    this.#frozen = false;
    for (const socket of this.#sockets) socket.resume();
  }

  #accept(ws: WebSocket, socket: Socket): void {
    this.connections++;
    this.clients.add(ws);
    ws.on('close', () => this.clients.delete(ws));
    ws.on('error', () => {});
    ws.on('message', (data: Buffer) => {
      if (!isPing(data)) this.frames++;
    });
    const onFault = (error: unknown): void => void this.faults.push(error);
    this.sessions.push(serveClient(ws, this.service, { socket, onFault, ...this.#options }));
  }
}

/** [[id, 1, version]], with an id of any width. */
function isPing(frame: Buffer): boolean {
  return (
    frame.length <= 14 && frame.at(-2) === 1 && frame.at(-1) === 1 && frame[4] === 1 && frame[5] === 0x93
  );
}
