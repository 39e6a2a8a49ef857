/**
 * Reading entries as lines of JSON (src/entry-line.ts says how they look), with a bound on their length, since a file
 * without line ends must not fill the memory.
 */
import { assertKey } from '../../src/core/entry.js';
import { assertTtl } from '../../src/core/expiry.js';
import { isReadmeshError, ReadmeshError } from '../../src/errors.js';
import { fromJson } from '../../src/json.js';
import type { BatchOperation } from '../../src/read-store.js';
import { encodeValue } from '../../src/values.js';

/** A value of the longest kind takes up to six times its bytes as JSON; the rest is for the key and white space. */
export const LINE_BYTES_MAX = 8 * 1_048_576;

export interface Line {
  /** From 1. */
  readonly number: number;
  /** Without its line end. */
  readonly bytes: Buffer;
}

/** Lines of a stream. Throws INVALID_JSON for one over `LINE_BYTES_MAX`. */
export async function* readLines(stream: AsyncIterable<Buffer>): AsyncGenerator<Line, void, undefined> {
  let number = 1;
  let pieces: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, from)) {
      pieces.push(chunk.subarray(from, end));
      yield { number, bytes: withoutReturn(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)) };
      number += 1;
      pieces = [];
      length = 0;
      from = end + 1;
    }
    if (from === chunk.length) continue;
    pieces.push(chunk.subarray(from));
    length += chunk.length - from;
    if (length > LINE_BYTES_MAX)
      throw new ReadmeshError(
        'INVALID_JSON',
        `line ${number} is longer than ${LINE_BYTES_MAX} bytes: write one entry per line`,
      );
  }
  if (length > 0) yield { number, bytes: withoutReturn(Buffer.concat(pieces)) };
}

function withoutReturn(line: Buffer): Buffer {
  return line.at(-1) === 0x0d ? line.subarray(0, -1) : line;
}

const decoder = new TextDecoder('utf-8', { fatal: true });

/** What a line is to do; undefined for a blank one. Throws a coded error that names the line. */
export function parseEntry(line: Line): BatchOperation | undefined {
  try {
    const text = decodeUtf8(line.bytes).trim();
    return text === '' ? undefined : checkEntry(parseObject(text));
  } catch (error) {
    if (!isReadmeshError(error)) throw error;
    throw new ReadmeshError(error.code, `line ${line.number}: ${error.message}`, {
      details: { ...error.details, line: line.number },
    });
  }
}

function decodeUtf8(bytes: Buffer): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new ReadmeshError('INVALID_JSON', 'it is not UTF-8');
  }
}

function parseObject(text: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new ReadmeshError('INVALID_JSON', `it is no JSON (${(error as Error).message})`);
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw new ReadmeshError('INVALID_JSON', 'it is no object: write {"key":"...","value":...}');
  return parsed as Record<string, unknown>;
}

function checkEntry(record: Record<string, unknown>): BatchOperation {
  if (Object.hasOwn(record, 'deleted')) return checkDeletion(record);
  for (const member of ['key', 'value'])
    if (!Object.hasOwn(record, member))
      throw new ReadmeshError('INVALID_JSON', `there is no "${member}": write {"key":"...","value":...}`);
  for (const member of Object.keys(record))
    if (member !== 'key' && member !== 'value' && member !== 'ttlMs')
      throw new ReadmeshError('INVALID_JSON', `"${member}" is not known: write {"key":"...","value":...}`);
  const { key, ttlMs } = record;
  assertKey(key);
  // Not as undefined: a null here is somebody's mistake.
  if (Object.hasOwn(record, 'ttlMs')) assertTtl(ttlMs);
  const value = fromJson(record.value);
  // Encoded only to be checked here, where the line is still known; the client encodes it again.
  encodeValue(value);
  return {
    type: 'put',
    key: key as string,
    value,
    ...(ttlMs === undefined ? {} : { ttlMs: ttlMs as number }),
  };
}

function checkDeletion({ key, deleted, ...others }: Record<string, unknown>): BatchOperation {
  const [other] = Object.keys(others);
  if (deleted !== true || other !== undefined)
    throw new ReadmeshError(
      'INVALID_JSON',
      `${other === undefined ? '"deleted" is not true' : `"${other}" does not go with "deleted"`}: write {"key":"...","deleted":true}`,
    );
  assertKey(key);
  return { type: 'del', key: key as string };
}
