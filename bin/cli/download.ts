/**
 * Fetching a backup into a file: every byte is checked on its way, and the file gets its name only once the whole of
 * it is on the disk.
 */

import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { basename, dirname, join, resolve } from 'node:path';
import { ERRORS, type ErrorCode, isReadmeshError, ReadmeshError } from '../../src/errors.js';
import { type BackupSummary, readBackup } from '../../src/storage/backup-format.js';
import { syncFolder } from '../../src/storage/folder-sync.js';
import { parseAddress } from '../../src/transport/address.js';

/** Most that is read of an answer that is no backup. */
const ERROR_BYTES_MAX = 65_536;

export interface DownloadOptions {
  /** Nothing came for this long: the host is given up, ms. */
  readonly idleMs: number;
  readonly signal: AbortSignal;
  readonly onProgress: (entries: number, total: number | undefined) => void;
}

export interface Downloaded extends BackupSummary {
  readonly host: string;
}

/**
 * From the first host that gives one. Throws what the last one said, or UNREACHABLE, TIMEOUT; INVALID_OPTION when the
 * file cannot be written. A file of that name is replaced at the end, and else untouched.
 */
export async function downloadBackup(
  hosts: readonly string[],
  file: string,
  options: DownloadOptions,
): Promise<Downloaded> {
  const path = resolve(file);
  const draft = join(dirname(path), `.${basename(path)}.${process.pid}.part`);
  let why: unknown;
  for (const host of hosts) {
    const handle = await open(draft, 'w', 0o600).catch((error: unknown) => {
      throw unwritable(file, error);
    });
    try {
      const summary = await fetchInto(handle, host, file, options);
      await handle.sync();
      await handle.close();
      await rename(draft, path).catch((error: unknown) => {
        throw unwritable(file, error);
      });
      syncFolder(dirname(path));
      return { ...summary, host };
    } catch (error) {
      await handle.close().catch(() => {});
      await rm(draft, { force: true });
      why = error;
      if (options.signal.aborted || !isReadmeshError(error) || !error.info.retry) throw error;
    }
  }
  throw why;
}

async function fetchInto(
  handle: FileHandle,
  host: string,
  file: string,
  options: DownloadOptions,
): Promise<BackupSummary> {
  const response = await ask(host, options);
  if (response.statusCode !== 200) throw await refusalOf(response, host);
  let total: number | undefined;
  let entries = 0;
  try {
    for await (const part of readBackup(tee(response, handle, file), host)) {
      if (part.type === 'header') total = part.header.entriesAbout;
      else if (part.type === 'records') options.onProgress((entries += part.records.keys.length), total);
      else return part.summary;
    }
    throw new ReadmeshError('INTERNAL', 'a backup was read without an end: report this bug');
  } catch (error) {
    throw isReadmeshError(error) && error.code === 'BACKUP_DAMAGED' && !response.complete
      ? broken(host, error)
      : error;
  } finally {
    response.destroy();
  }
}

function ask(host: string, { idleMs, signal }: DownloadOptions): Promise<IncomingMessage> {
  const address = parseAddress(host);
  return new Promise((resolve_, reject) => {
    const request = httpRequest({
      host: address.host,
      port: address.port,
      path: '/v1/backup',
      agent: false,
      signal,
    });
    request.setTimeout(idleMs, () =>
      request.destroy(
        new ReadmeshError('TIMEOUT', `${host} sent nothing for ${idleMs} ms: ask another host`),
      ),
    );
    request.once('error', (error) => reject(isReadmeshError(error) ? error : broken(host, error)));
    request.once('response', (response: IncomingMessage) => {
      // Later troubles of the connection show when it is read.
      request.on('error', () => {});
      resolve_(response);
    });
    request.end();
  });
}

async function* tee(
  response: IncomingMessage,
  handle: FileHandle,
  file: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const chunks = response[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  for (;;) {
    let chunk: IteratorResult<Buffer>;
    try {
      chunk = await chunks.next();
    } catch {
      // What came so far is too little, and the reader says so.
      return;
    }
    if (chunk.done === true) return;
    try {
      await handle.writeFile(chunk.value);
    } catch (error) {
      throw unwritable(file, error);
    }
    yield chunk.value;
  }
}

async function refusalOf(response: IncomingMessage, host: string): Promise<ReadmeshError> {
  let text = '';
  for await (const chunk of response as AsyncIterable<Buffer>)
    if ((text += chunk.toString()).length > ERROR_BYTES_MAX) break;
  try {
    const { code, message } = JSON.parse(text) as { code: string; message: string };
    if (Object.hasOwn(ERRORS, code)) return new ReadmeshError(code as ErrorCode, `${host}: ${message}`);
  } catch {
    // No answer of ours.
  }
  return new ReadmeshError(
    'PROTOCOL_ERROR',
    `${host} answered ${response.statusCode}: is it a readmesh node?`,
  );
}

function broken(host: string, cause: unknown): ReadmeshError {
  const why = isReadmeshError(cause) ? 'the connection broke' : (cause as Error).message;
  return new ReadmeshError('UNREACHABLE', `no whole backup came from ${host} (${why}): ask another host`, {
    cause,
  });
}

function unwritable(file: string, cause: unknown): ReadmeshError {
  if (isReadmeshError(cause)) return cause;
  return new ReadmeshError('INVALID_OPTION', `${file} cannot be written: ${(cause as Error).message}`, {
    cause,
  });
}
