/** Writing responses: nearly always JSON, errors as {"code","message"} with whatever facts the error carries. */
import type { ServerResponse } from 'node:http';
import { ERRORS, type ErrorCode, isReadmeshError, ReadmeshError } from '../errors.js';

/** Bears the stamp of a value or of a write; sent back on a retry it makes the retry idempotent. */
export const STAMP_HEADER = 'x-readmesh-stamp';

type Headers = Record<string, string>;

export function replyJson(
  response: ServerResponse,
  status: number,
  json: string,
  headers: Headers = {},
): void {
  replyText(response, status, json, { 'content-type': 'application/json; charset=utf-8', ...headers });
}

export function replyText(response: ServerResponse, status: number, text: string, headers: Headers): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const body = Buffer.from(text);
  response.writeHead(status, {
    'content-length': body.length,
    // A copy in a cache could be older than any bound that the store states.
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  });
  response.end(body);
}

/** `status` overrides the one that the code stands for. */
export function replyError(
  response: ServerResponse,
  error: ReadmeshError,
  headers: Headers = {},
  status: number = ERRORS[error.code].http,
): void {
  const { code, message, details } = error;
  const all: Headers = {};
  if (details.stamp !== undefined) all[STAMP_HEADER] = String(details.stamp);
  if (status === 503) all['retry-after'] = '1';
  const body = `${JSON.stringify({ code, message, ...details })}\n`;
  replyJson(response, status, body, Object.assign(all, headers));
}

/** What a caller is told of any error: nothing of the inside of a fault of ours. */
export function asReadmeshError(error: unknown): ReadmeshError {
  if (isReadmeshError(error)) return error;
  return failure('INTERNAL', 'the request failed by a fault of this node: see its log');
}

export function failure(code: ErrorCode, message: string): ReadmeshError {
  return new ReadmeshError(code, message);
}
