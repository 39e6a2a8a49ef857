import { request as httpRequest, type IncomingMessage } from 'node:http';
import { afterEach, expect, test } from 'vitest';
import { ReadmeshError } from '../../src/errors.js';
import type { HttpOptions } from '../../src/http.js';
import { BackupEncoder, readBackup } from '../../src/storage/backup-format.js';
import { eventually } from '../support/copies.js';
import { Face } from './server.js';

const CHUNK = new Uint8Array(1_048_576);
let face: Face;
afterEach(() => face.close());

/** A face whose node gives these chunks, and counts the backups that are open and the chunks that were read. */
async function open(
  chunks: () => Iterable<Uint8Array | Error>,
  options: HttpOptions = {},
): Promise<{ open: number; read: number }> {
  face = await Face.open(options);
  const seen = { open: 0, read: 0 };
  face.node.backup = async function* () {
    seen.open += 1;
    try {
      for (const chunk of chunks()) {
        if (chunk instanceof Error) throw chunk;
        seen.read += 1;
        yield chunk;
      }
    } finally {
      seen.open -= 1;
    }
  };
  return seen;
}

function* endless(): Generator<Uint8Array> {
  for (;;) yield CHUNK;
}

/** Takes nothing of the body. */
function begin(): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ port: face.port, host: '127.0.0.1', path: '/v1/backup', agent: false });
    request.once('error', reject);
    request.once('response', (response: IncomingMessage) => {
      request.on('error', () => {});
      response.on('error', () => {});
      resolve(response);
    });
    request.end();
  });
}

test('a reader that takes nothing makes the node read nothing more, and one that goes ends its snapshot', async () => {
  const seen = await open(endless);
  const response = await begin();
  expect(response.headers['content-type']).toBe('application/octet-stream');
  let last = -1;
  await eventually('the node stops reading', () => {
    const same = seen.read === last;
    last = seen.read;
    return same && last > 0;
  });
  // What sockets hold on both sides, and no more.
  expect(last).toBeLessThan(64);
  expect(seen.open).toBe(1);
  response.destroy();
  await eventually('the snapshot is closed', () => seen.open === 0);
});

test('one that takes nothing for too long is given up', async () => {
  const seen = await open(endless, { backupStallMs: 300 });
  const response = await begin();
  await eventually('the snapshot is closed', () => seen.open === 0);
  response.destroy();
});

test('as many at once as the cap says; the next is told to come again', async () => {
  const seen = await open(endless, { backupsMax: 2 });
  const running = [await begin(), await begin()];
  const refused = await face.get('/v1/backup');
  expect([refused.status, refused.json]).toMatchObject([503, { code: 'OVERLOADED' }]);
  for (const response of running) response.destroy();
  await eventually('both are closed', () => seen.open === 0);
  const again = await begin();
  expect(again.statusCode).toBe(200);
  again.destroy();
});

test('a failure before the first byte is an answer, a later one ends the stream with its reason', async () => {
  let broken = true;
  await open(() => {
    if (broken) return [new ReadmeshError('NOT_READY', 'not yet')];
    const header = new BackupEncoder().header({
      ...{ format: 1, cluster: 'c', clusterUid: '', node: 'n', version: '', takenAtMs: 0 },
      ...{ hlc: { ms: 0, counter: 0 }, heads: {}, removed: [], meta: {} },
    });
    return [header, new ReadmeshError('DAMAGED', 'the record of key "x"')];
  });
  const early = await face.get('/v1/backup');
  expect([early.status, early.json]).toMatchObject([503, { code: 'NOT_READY' }]);
  broken = false;
  const read = async (): Promise<void> => {
    for await (const part of readBackup(await begin(), 'the node')) expect(part.type).toBe('header');
  };
  await expect(read()).rejects.toMatchObject({ code: 'DAMAGED', message: expect.stringContaining('"x"') });
});

test('it takes no query and no other method', async () => {
  await open(() => []);
  expect((await face.get('/v1/backup?prefix=a')).status).toBe(400);
  expect((await face.send('PUT', '/v1/backup')).status).toBe(405);
});
