/**
 * The request target, strictly. Keys are arbitrary text, so a decoder that guesses (replacement characters for
 * bad UTF-8, the first of two equal names) would read or write another key than the caller meant: whatever is
 * not exact is refused.
 *
 * In the path a key is one percent-encoded segment. In the query, names and values are form-encoded, as
 * URLSearchParams and `curl --data-urlencode` write them: `+` stands for a space, and a plus is `%2B`.
 */
import { z } from 'zod';
import { assertKey } from '../core/entry.js';
import { TTL_MS_MAX } from '../core/expiry.js';
import { type ErrorCode, ReadmeshError } from '../errors.js';
import { HTTP_DEFAULTS, REPLICAS_MAX, TIMEOUT_MS_MAX } from '../options.js';
import { parseWith } from '../schema.js';

export interface Target {
  /** Still percent-encoded. */
  readonly path: string;
  readonly query: string;
}

/** Splits a request target; the absolute form (`GET http://host/path`), which proxies send, loses its origin. */
export function splitTarget(url: string): Target {
  const target = url.startsWith('/') ? url : url.replace(/^[a-zA-Z][a-zA-Z0-9+.-]*:\/\/[^/?#]*/, '');
  const [, path = '', query = ''] = /^([^?#]*)(?:\?([^#]*))?/.exec(target) ?? [];
  return { path, query };
}

/** The key in `/v1/kv/KEY`. Throws INVALID_KEY. */
export function keyOfPath(path: string): string {
  const key = decode(path.split('/')[3] ?? '', 'INVALID_KEY', 'the key');
  assertKey(key);
  return key;
}

/** Names and values of a query string, each at most once. Throws INVALID_OPTION, or INVALID_KEY for a bad `key`. */
export function parseQuery(query: string): Record<string, string> {
  const out: Record<string, string> = Object.create(null);
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const at = pair.indexOf('=');
    const [rawName, rawText] = at === -1 ? [pair, ''] : [pair.slice(0, at), pair.slice(at + 1)];
    const name = decode(rawName.replaceAll('+', ' '), 'INVALID_OPTION', 'a name in the query');
    if (name in out)
      throw new ReadmeshError('INVALID_OPTION', `the query has ${JSON.stringify(name)} twice: send it once`);
    const code = name === 'key' ? 'INVALID_KEY' : 'INVALID_OPTION';
    out[name] = decode(rawText.replaceAll('+', ' '), code, name);
  }
  return out;
}

function decode(text: string, code: ErrorCode, what: string): string {
  // The HTTP parser passes bytes above 0x7e on as Latin-1: taking them for UTF-8 or not would both be guesses.
  if (!/[^\x21-\x7e ]/.test(text)) {
    try {
      return decodeURIComponent(text);
    } catch {
      // Refused below.
    }
  }
  throw new ReadmeshError(code, `${what} is not percent-encoded UTF-8: encode it as encodeURIComponent does`);
}

function integer(least: number, most: number): z.ZodType<number, string> {
  const message = `must be an integer from ${least} to ${most}`;
  return z
    .string()
    .regex(/^\d{1,15}$/, message)
    .transform(Number)
    .refine((value) => value >= least && value <= most, message);
}

const flag = z
  .enum(['true', 'false', '1', '0'], 'must be true or false')
  .transform((text) => text === 'true' || text === '1');

const key = z.string().optional();

const readSchema = z.strictObject({ key });
const writeSchema = z.strictObject({
  key,
  replicas: integer(1, REPLICAS_MAX).optional(),
  fsync: flag.optional(),
  ttlMs: integer(1, TTL_MS_MAX).optional(),
  timeoutMs: integer(1, TIMEOUT_MS_MAX).optional(),
});
const listSchema = z.strictObject({
  prefix: z.string().optional(),
  after: z.string().optional(),
  limit: integer(1, HTTP_DEFAULTS.pageLimitMax).optional(),
});
const noneSchema = z.strictObject({});

export interface WriteQuery {
  readonly replicas?: number;
  readonly fsync?: boolean;
  readonly timeoutMs?: number;
  readonly ttlMs?: number;
}

export interface ListQuery {
  readonly prefix?: string;
  /** Exclusive lower bound. */
  readonly after?: string;
  readonly limit?: number;
}

/** Throws INVALID_OPTION. */
export function checkReadQuery(query: Record<string, string>): void {
  parseWith(readSchema, query, 'query');
}

/** Throws INVALID_OPTION. */
export function checkWriteQuery(query: Record<string, string>): WriteQuery {
  const { replicas, fsync, timeoutMs, ttlMs } = parseWith(writeSchema, query, 'query');
  return {
    ...(replicas === undefined ? {} : { replicas }),
    ...(fsync === undefined ? {} : { fsync }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(ttlMs === undefined ? {} : { ttlMs }),
  };
}

/** Throws INVALID_OPTION. */
export function checkListQuery(query: Record<string, string>): ListQuery {
  return parseWith(listSchema, query, 'query');
}

/** Throws INVALID_OPTION when there is any query at all. */
export function checkNoQuery(query: Record<string, string>): void {
  parseWith(noneSchema, query, 'query');
}
