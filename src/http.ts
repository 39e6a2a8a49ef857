/**
 * The HTTP face of a node, beside its WebSockets on the same port. Host and Origin are checked by the listener
 * before a request comes here.
 *
 *     GET    /v1/kv/KEY          the value as JSON, with its stamp in X-Readmesh-Stamp; 404 when missing
 *     PUT    /v1/kv/KEY          body: the value's JSON form; answers the receipt once it is acknowledged
 *     DELETE /v1/kv/KEY          answers the receipt (also when the key was missing: the deletion still wins over older writes)
 *     any of these on /v1/kv?key=KEY   for keys that URL clients rewrite, such as `..`
 *     GET    /v1/kv?prefix=&after=&limit=   {"entries":[{"key","value"}],"next"}; next: `after` of the next page, null at the end
 *     GET    /v1/backup          the bytes of a backup (storage/backup-format.ts), as fast as they are taken
 *     GET    /metrics            the same as /v1/status, for Prometheus
 *     GET    /v1/status, /livez, /readyz (503 until reads are served)
 *
 * KEY is one percent-encoded segment. Writes take `replicas`, `fsync`, `timeoutMs` and (PUT) `ttlMs` in the query. A write that is
 * sent again with the X-Readmesh-Stamp of its first answer is idempotent, at any host. HEAD works wherever GET
 * does. Errors are {"code","message"} with the status that the code stands for (errors.ts); ACK_TIMEOUT carries
 * the stamp as well.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import findMyWay from 'find-my-way';
import { assertKey, KIND_REGISTER, KIND_TOMBSTONE, NO_VALUE, stampHexOf } from './core/entry.js';
import { endlessDeletion } from './core/expiry.js';
import { textOfStamp } from './core/hlc.js';
import type { Row } from './core/types.js';
import { isReadmeshError, ReadmeshError } from './errors.js';
import { BackupFace } from './http/backup.js';
import { Aborted, BodyBudget, SlowBody, withBody } from './http/body.js';
import { METRICS_TYPE, metricsOf } from './http/metrics.js';
import {
  checkListQuery,
  checkNoQuery,
  checkReadQuery,
  checkWriteQuery,
  keyOfPath,
  parseQuery,
  splitTarget,
  type Target,
} from './http/query.js';
import { asReadmeshError, failure, replyError, replyJson, replyText, STAMP_HEADER } from './http/reply.js';
import { parseValue, stringifyValue } from './json.js';
import { CLUSTER_DEFAULTS, HTTP_DEFAULTS, type HttpLimits } from './options.js';
import type { Value } from './read-store.js';
import type { NodeService, RowScan, WriteOp } from './service.js';
import { decodeRow, encodeValue } from './values.js';

export interface HttpOptions extends Partial<HttpLimits> {
  /** Longest encoded value, bytes. Default: the cluster's default. */
  valueBytesMax?: number;
  /** Told of errors that are no ReadmeshError: faults of ours, which the caller only learns as INTERNAL. */
  onFault?: (error: unknown) => void;
}

export type HttpHandler = (request: IncomingMessage, response: ServerResponse) => void;

type Route = (request: IncomingMessage, response: ServerResponse, target: Target) => void | Promise<void>;

/** Rows asked of a scan at once: with values of the longest kind still only some of them are in memory. */
const SCAN_ROWS = 64;
/** Longest parameter that is routed at all; longer targets do not pass the listener's cap on the request head. */
const PARAM_LENGTH_MAX = 65_536;

/** Answers every request, whatever it is; never throws. */
export function createHttpHandler(service: NodeService, options: HttpOptions = {}): HttpHandler {
  const face = new HttpFace(service, options);
  return (request, response) => face.handle(request, response);
}

const NO_STAMP = '0'.repeat(32);

class HttpFace {
  readonly #service: NodeService;
  readonly #limits: HttpLimits;
  readonly #valueBytesMax: number;
  readonly #onFault: (error: unknown) => void;
  readonly #budget: BodyBudget;
  readonly #router: findMyWay.Instance<findMyWay.HTTPVersion.V1>;
  readonly #backups: BackupFace;

  constructor(service: NodeService, options: HttpOptions) {
    const { valueBytesMax = CLUSTER_DEFAULTS.valueBytesMax, onFault = () => {}, ...limits } = options;
    this.#service = service;
    this.#limits = { ...HTTP_DEFAULTS, ...limits };
    this.#valueBytesMax = valueBytesMax;
    this.#onFault = onFault;
    this.#backups = new BackupFace(service, this.#limits, onFault);
    this.#budget = new BodyBudget(this.#limits.bodyBytesMax);
    this.#router = findMyWay({
      maxParamLength: PARAM_LENGTH_MAX,
      defaultRoute: (request, response) => this.#noRoute(request, response),
      onBadUrl: (_path, _request, response) =>
        replyError(response, failure('INVALID_KEY', 'the URL is not percent-encoded UTF-8: encode the key')),
      // Queries are parsed by http/query.ts, which refuses what this one would guess.
      querystringParser: () => ({}),
    });
    this.#addRoutes();
  }

  handle(request: IncomingMessage, response: ServerResponse): void {
    response.on('error', () => {});
    try {
      this.#router.lookup(request, response);
    } catch (error) {
      this.#fail(response, error);
    }
  }

  #addRoutes(): void {
    const on = (methods: ('GET' | 'HEAD' | 'PUT' | 'DELETE')[], path: string, route: Route): void =>
      this.#router.on(methods, path, (request, response) => void this.#run(route, request, response));
    const get: ('GET' | 'HEAD')[] = ['GET', 'HEAD'];
    on(get, '/livez', (_, response) => replyJson(response, 200, '{"live":true}\n'));
    on(get, '/readyz', (_, response) => this.#readyz(response));
    on(get, '/v1/status', (_, response, { query }) => {
      checkNoQuery(parseQuery(query));
      replyJson(response, 200, `${JSON.stringify(this.#service.status())}\n`);
    });
    on(get, '/metrics', async (_, response, { query }) => {
      checkNoQuery(parseQuery(query));
      replyText(response, 200, await metricsOf(this.#service.status()), { 'content-type': METRICS_TYPE });
    });
    on(['GET'], '/v1/backup', (_, response, { query }) => {
      checkNoQuery(parseQuery(query));
      return this.#backups.send(response);
    });
    on(get, '/v1/kv/:key', (_, response, { path, query }) => {
      checkNoQuery(parseQuery(query));
      return this.#get(response, keyOfPath(path));
    });
    on(['PUT'], '/v1/kv/:key', (request, response, { path, query }) =>
      this.#put(request, response, keyOfPath(path), withoutKey(query)),
    );
    on(['DELETE'], '/v1/kv/:key', (request, response, { path, query }) =>
      this.#delete(request, response, keyOfPath(path), withoutKey(query)),
    );
    on(get, '/v1/kv', (_, response, { query }) => {
      const parsed = parseQuery(query);
      if (parsed.key === undefined) return this.#list(response, parsed);
      checkReadQuery(parsed);
      return this.#get(response, checkedKey(parsed));
    });
    on(['PUT'], '/v1/kv', (request, response, { query }) => {
      const parsed = parseQuery(query);
      return this.#put(request, response, checkedKey(parsed), parsed);
    });
    on(['DELETE'], '/v1/kv', (request, response, { query }) => {
      const parsed = parseQuery(query);
      return this.#delete(request, response, checkedKey(parsed), parsed);
    });
  }

  async #run(route: Route, request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await route(request, response, splitTarget(request.url ?? '/'));
    } catch (error) {
      this.#fail(response, error);
    }
  }

  #fail(response: ServerResponse, error: unknown): void {
    if (error instanceof Aborted) {
      response.destroy();
      return;
    }
    if (!isReadmeshError(error)) this.#onFault(error);
    // The rest of a body that does not come would be awaited before the next request on this connection.
    if (error instanceof SlowBody) replyError(response, error, { connection: 'close' }, 408);
    else replyError(response, asReadmeshError(error));
  }

  #noRoute(request: IncomingMessage, response: ServerResponse): void {
    const { path } = splitTarget(request.url ?? '/');
    const allowed = ['GET', 'HEAD', 'PUT', 'DELETE'].filter(
      (method) => this.#router.find(method as findMyWay.HTTPMethod, path) !== null,
    );
    if (allowed.length === 0)
      return replyError(
        response,
        failure(
          'NOT_FOUND',
          'there is nothing at this path: keys are at /v1/kv/KEY, with KEY percent-encoded as one segment',
        ),
      );
    const allow = allowed.join(', ');
    const message = `${request.method} does not work here: use ${allow}`;
    replyError(response, failure('UNSUPPORTED', message), { allow }, 405);
  }

  #readyz(response: ServerResponse): void {
    const { ready, phase, issues } = this.#service.status();
    if (ready) return replyJson(response, 200, `${JSON.stringify({ ready, phase })}\n`);
    const why = issues.map((issue) => issue.message).join('; ');
    replyError(
      response,
      new ReadmeshError('NOT_READY', `this node is not ready (${phase})${why === '' ? '' : `: ${why}`}`, {
        details: { phase },
      }),
    );
  }

  async #get(response: ServerResponse, key: string): Promise<void> {
    const row = await this.#service.readRow(key);
    if (row === undefined) throw failure('NOT_FOUND', 'there is no such key');
    const stamp = stampHexOf(row);
    // What was read through another member comes without one.
    const headers: Record<string, string> = stamp === NO_STAMP ? {} : { [STAMP_HEADER]: stamp };
    replyJson(response, 200, `${stringifyValue(this.#decoded(key, row))}\n`, headers);
  }

  /** Throws UNREADABLE. */
  #decoded(key: string, row: Row): Value {
    try {
      return decodeRow(key, row).value;
    } catch (error) {
      this.#service.noteUnreadable(error);
      throw error;
    }
  }

  /** An entry of a list. undefined: it cannot be read, and must not hide what follows it. */
  #jsonOf(key: string, row: Row): string | undefined {
    try {
      return `{"key":${JSON.stringify(key)},"value":${stringifyValue(this.#decoded(key, row))}}`;
    } catch (error) {
      if (!isReadmeshError(error) || error.code !== 'UNREADABLE') throw error;
      return undefined;
    }
  }

  async #put(
    request: IncomingMessage,
    response: ServerResponse,
    key: string,
    query: Record<string, string>,
  ): Promise<void> {
    const { bodyIdleMs, jsonBytesPerValueByte } = this.#limits;
    const { ttlMs, ...options } = checkWriteQuery(query);
    const stamp = stampOf(request);
    const ttl = ttlMs === undefined ? {} : { ttlMs };
    const encoding = request.headers['content-encoding'] ?? 'identity';
    if (encoding !== 'identity')
      throw failure('UNSUPPORTED', 'compressed bodies are not taken: send the JSON as it is');
    const limits = {
      // Room for white space and the brackets of an empty value.
      bytesMax: this.#valueBytesMax * jsonBytesPerValueByte + 1_024,
      idleMs: bodyIdleMs,
      budget: this.#budget,
    };
    const value = await withBody(request, limits, (body) =>
      encodeValue(parseValue(textOf(body)), this.#valueBytesMax),
    );
    await this.#write(response, { key, kind: KIND_REGISTER, value, ...ttl, ...stamp }, options);
  }

  async #delete(
    request: IncomingMessage,
    response: ServerResponse,
    key: string,
    query: Record<string, string>,
  ): Promise<void> {
    const { ttlMs, ...options } = checkWriteQuery(query);
    if (ttlMs !== undefined) throw endlessDeletion();
    await this.#write(response, { key, kind: KIND_TOMBSTONE, value: NO_VALUE, ...stampOf(request) }, options);
  }

  async #write(
    response: ServerResponse,
    op: WriteOp,
    options: { replicas?: number; fsync?: boolean; timeoutMs?: number },
  ): Promise<void> {
    try {
      const { stamp, replicas, token, superseded } = await this.#service.write({ ops: [op], ...options });
      const receipt = JSON.stringify({ stamp, replicas, token, superseded });
      replyJson(response, 200, `${receipt}\n`, { [STAMP_HEADER]: stamp });
    } catch (error) {
      if (!isReadmeshError(error)) this.#onFault(error);
      const headers: Record<string, string> =
        op.stamp === undefined ? {} : { [STAMP_HEADER]: textOfStamp(op.stamp) };
      replyError(response, asReadmeshError(error), headers);
    }
  }

  async #list(response: ServerResponse, query: Record<string, string>): Promise<void> {
    const { prefix, after, limit = this.#limits.pageLimit } = checkListQuery(query);
    // One more than asked for says whether there is a next page.
    const scan = this.#service.scanRows({
      ...(prefix === undefined ? {} : { prefix }),
      ...(after === undefined || after === '' ? {} : { gt: after }),
      limit: limit + 1,
    });
    try {
      const { entries, next } = await this.#page(response, scan, limit);
      replyJson(response, 200, `{"entries":[${entries.join(',')}],"next":${JSON.stringify(next)}}\n`);
    } finally {
      await scan.close();
    }
  }

  /** Up to `limit` entries as JSON, fewer if they are large. */
  async #page(
    response: ServerResponse,
    scan: RowScan,
    limit: number,
  ): Promise<{ entries: string[]; next: string | null }> {
    const entries: string[] = [];
    let bytes = 0;
    let last: string | null = null;
    while (!response.destroyed) {
      const { keys, rows } = await scan.next(SCAN_ROWS);
      if (keys.length === 0) break;
      for (let i = 0; i < keys.length; i++) {
        const key = keys[i]!;
        const row = rows[i]!;
        if (
          entries.length === limit ||
          (entries.length > 0 && bytes + row.length > this.#limits.pageBytesMax)
        )
          return { entries, next: last };
        last = key;
        const json = this.#jsonOf(key, row);
        if (json === undefined) continue;
        entries.push(json);
        bytes += row.length;
      }
    }
    return { entries, next: null };
  }
}

/** The query of a write whose key is in the path. Throws INVALID_OPTION when it names another. */
function withoutKey(query: string): Record<string, string> {
  const parsed = parseQuery(query);
  if (parsed.key !== undefined)
    throw failure('INVALID_OPTION', 'the key is in the path already: leave it out of the query');
  return parsed;
}

function checkedKey(query: Record<string, string>): string {
  const { key } = query;
  if (key === undefined) throw failure('INVALID_KEY', 'name the key: /v1/kv/KEY or /v1/kv?key=KEY');
  assertKey(key);
  return key;
}

/** The stamp of an earlier attempt, if the request brings one. Throws INVALID_OPTION. */
function stampOf(request: IncomingMessage): { stamp?: string } {
  const text = request.headers[STAMP_HEADER];
  if (text === undefined) return {};
  if (typeof text !== 'string' || !/^[0-9a-fA-F]{32}$/.test(text))
    throw failure(
      'INVALID_OPTION',
      'X-Readmesh-Stamp is the 32 hex digits that the first attempt was answered with',
    );
  return { stamp: text.toLowerCase() };
}

const decoder = new TextDecoder('utf-8', { fatal: true });

/** Throws INVALID_JSON. */
function textOf(body: Buffer): string {
  if (body.length === 0) throw failure('INVALID_JSON', 'the body is empty: send the value as JSON');
  try {
    return decoder.decode(body);
  } catch {
    throw failure('INVALID_JSON', 'the body is not UTF-8: send the value as JSON in UTF-8');
  }
}
