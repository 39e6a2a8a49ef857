import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ReadmeshError } from '../../src/errors.js';
import { HTTP_DEFAULTS } from '../../src/options.js';
import type { Status } from '../../src/read-store.js';
import { encodeValue } from '../../src/values.js';
import { Face } from './server.js';

const STAMP = '000001900000000000000000000000ab';

let face: Face;
beforeEach(async () => {
  face = await Face.open();
});
afterEach(() => face.close());

const at = (key: string): string => `/v1/kv/${encodeURIComponent(key)}`;
const inQuery = (key: string): string => `/v1/kv?${new URLSearchParams({ key })}`;

describe('one key', () => {
  test('a value that is put comes back with its stamp', async () => {
    const put = await face.put(at('greeting'), '{"text":"hello"}');
    expect(put.status).toBe(200);
    expect(put.json).toEqual({ stamp: expect.any(String), replicas: 2, token: 't', superseded: false });
    const got = await face.get(at('greeting'));
    expect(got.status).toBe(200);
    expect(got.json).toEqual({ text: 'hello' });
    expect(got.headers['content-type']).toMatch(/^application\/json/);
    expect(got.headers['x-readmesh-stamp']).toBe(put.headers['x-readmesh-stamp']);
    expect(put.headers['x-readmesh-stamp']).toBe((put.json as { stamp: string }).stamp);
  });

  test('a missing key is 404 NOT_FOUND, and so is a deleted one', async () => {
    expect(await face.get(at('none'))).toMatchObject({ status: 404, json: { code: 'NOT_FOUND' } });
    await face.put(at('gone'), '1');
    expect((await face.send('DELETE', at('gone'))).status).toBe(200);
    expect((await face.get(at('gone'))).status).toBe(404);
  });

  test('HEAD answers as GET does, without the body', async () => {
    await face.put(at('a'), '"text"');
    const head = await face.send('HEAD', at('a'));
    const get = await face.get(at('a'));
    expect(head).toMatchObject({ status: 200, text: '' });
    expect(head.headers['content-length']).toBe(get.headers['content-length']);
    expect((await face.send('HEAD', at('none'))).status).toBe(404);
  });

  test('JSON forms carry what JSON has no words for, both ways', async () => {
    const text = '{"big":{"$bigint":"9007199254740993"},"raw":{"$bytes":"AAEC"},"nan":{"$number":"NaN"}}';
    await face.put(at('forms'), text);
    expect((await face.get(at('forms'))).text.trim()).toBe(text);
  });

  test.each([
    '\0',
    'a/b/c',
    '..',
    '.',
    '%',
    '%2F',
    '%25',
    'a%00b',
    'a?b#c',
    'a+b c',
    '__proto__',
    'constructor',
    '-x',
    ':key',
    '*',
    '\u{1F30D}\u{20AC}',
    '\u4E2D'.repeat(341),
    'x'.repeat(1_024),
  ])('key %j is one segment of the path, and one member of the query', async (key) => {
    await face.put(at(key), '"by path"');
    expect([...face.node.rows.keys()]).toEqual([key]);
    expect((await face.get(inQuery(key))).json).toBe('by path');
    await face.put(inQuery(key), '"by query"');
    expect([...face.node.rows.keys()]).toEqual([key]);
    expect((await face.get(at(key))).json).toBe('by query');
    await face.send('DELETE', inQuery(key));
    expect((await face.get(at(key))).status).toBe(404);
  });

  test('any well-formed key reaches the store unchanged', async () => {
    const key = fc.string({ unit: 'binary', minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(key, async (text) => {
        face.node.rows.clear();
        await face.put(at(text), '1');
        await face.put(inQuery(text), '2');
        expect([...face.node.rows.keys()]).toEqual([text]);
      }),
      { numRuns: 100 },
    );
  });

  test.each([
    ['an empty key', '/v1/kv?key='],
    ['a bad percent sign', '/v1/kv/%zz'],
    ['a cut-off percent sign', '/v1/kv/a%2'],
    ['UTF-8 that is cut off', '/v1/kv/%E2%82'],
    ['an encoded surrogate', '/v1/kv/%ED%A0%80'],
    ['bad UTF-8 in the query', '/v1/kv?key=%FF'],
    ['a key over 1,024 bytes', `/v1/kv/${'x'.repeat(1_025)}`],
    ['a key over 1,024 bytes of UTF-8', `/v1/kv/${encodeURIComponent('\u4E2D'.repeat(342))}`],
  ])('%s is 400 INVALID_KEY', async (_, path) => {
    for (const method of ['GET', 'PUT', 'DELETE'])
      expect(await face.send(method, path, method === 'PUT' ? { body: '1' } : {})).toMatchObject({
        status: 400,
        json: { code: 'INVALID_KEY' },
      });
    expect(face.node.writes).toEqual([]);
  });

  test('bytes above ASCII in the target are refused, not guessed at', async () => {
    const answer = await face.raw(
      Buffer.concat([
        Buffer.from('GET /v1/kv/'),
        Buffer.from([0xc3, 0xa9]),
        Buffer.from(' HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
      ]),
    );
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('a target in absolute form is served like the path alone', async () => {
    await face.put(at('a'), '1');
    expect(await face.get(`http://somewhere:1/v1/kv/a`)).toMatchObject({ status: 200, json: 1 });
  });

  test('a key in the path and another in the query is refused', async () => {
    expect(await face.put('/v1/kv/a?key=b', '1')).toMatchObject({
      status: 400,
      json: { code: 'INVALID_OPTION' },
    });
  });
});

describe('writes', () => {
  test('replicas, fsync and timeoutMs reach the node', async () => {
    await face.put(`${at('a')}?replicas=3&fsync=false&timeoutMs=50`, '1');
    await face.send('DELETE', `${at('a')}?fsync=true`);
    const [put, del] = face.node.writes;
    expect(put).toMatchObject({ replicas: 3, fsync: false, timeoutMs: 50 });
    expect(put?.ops[0]?.value).toEqual(encodeValue(1));
    expect(del).toMatchObject({ fsync: true });
    expect(del).not.toHaveProperty('replicas');
  });

  test.each([
    'replicas=0',
    'replicas=x',
    'replicas=1.5',
    'fsync=maybe',
    'timeoutMs=-1',
    'replicas=1&replicas=2',
  ])('?%s is 400 INVALID_OPTION and writes nothing', async (query) => {
    expect(await face.put(`${at('a')}?${query}`, '1')).toMatchObject({
      status: 400,
      json: { code: 'INVALID_OPTION' },
    });
    expect(face.node.writes).toEqual([]);
  });

  test('an unknown member of the query names the nearest that is known', async () => {
    const answer = await face.put(`${at('a')}?replica=2`, '1');
    expect(answer.json).toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('"replicas"'),
    });
  });

  test('ttlMs goes with the write; out of bounds, or with a deletion, it is refused', async () => {
    expect((await face.put(`${at('a')}?ttlMs=140737488355327`, '1')).status).toBe(200);
    expect(face.node.writes.at(-1)?.ops[0]?.ttlMs).toBe(140_737_488_355_327);
    const refused = [
      ...['0', '-1', '1.5', '140737488355328', '', '1e3'].map((ttlMs) =>
        face.put(`${at('a')}?ttlMs=${ttlMs}`, '1'),
      ),
      face.send('DELETE', `${at('a')}?ttlMs=5`),
    ];
    for (const answer of await Promise.all(refused))
      expect([answer.status, answer.json]).toMatchObject([400, { code: 'INVALID_OPTION' }]);
    expect(face.node.writes).toHaveLength(1);
  });

  test('a stamp that is sent along is the stamp that is written', async () => {
    const answer = await face.put(at('a'), '1', { 'X-Readmesh-Stamp': STAMP.toUpperCase() });
    expect(answer.headers['x-readmesh-stamp']).toBe(STAMP);
    await face.send('DELETE', at('b'), { headers: { 'X-Readmesh-Stamp': STAMP } });
    expect(face.node.writes.map((write) => write.ops[0]?.stamp)).toEqual([STAMP, STAMP]);
  });

  test.each(['', '12', `${STAMP}0`, `${STAMP.slice(1)}g`])('stamp %j is refused', async (stamp) => {
    expect(await face.put(at('a'), '1', { 'X-Readmesh-Stamp': stamp })).toMatchObject({
      status: 400,
      json: { code: 'INVALID_OPTION' },
    });
    expect(face.node.writes).toEqual([]);
  });

  test('ACK_TIMEOUT is 504 and carries the stamp, for a retry', async () => {
    face.node.failure = new ReadmeshError('ACK_TIMEOUT', '1 of 2 hosts', {
      details: { hosts: 1, needed: 2, stamp: STAMP },
    });
    const answer = await face.put(at('a'), '1');
    expect(answer).toMatchObject({ status: 504, json: { code: 'ACK_TIMEOUT', stamp: STAMP, hosts: 1 } });
    expect(answer.headers['x-readmesh-stamp']).toBe(STAMP);
  });

  test('any failure of a write answers the stamp that the request brought', async () => {
    face.node.failure = new ReadmeshError('STORE_FAILED', 'the disk is full');
    const answer = await face.put(at('a'), '1', { 'X-Readmesh-Stamp': STAMP });
    expect(answer).toMatchObject({ status: 503, json: { code: 'STORE_FAILED' } });
    expect(answer.headers['x-readmesh-stamp']).toBe(STAMP);
  });
});

describe('bodies', () => {
  test.each([
    ['empty', ''],
    ['not JSON', '{"a":'],
    ['not UTF-8', new Uint8Array([0x22, 0xff, 0x22])],
  ])('a body that is %s is 400 INVALID_JSON', async (_, body) => {
    expect(await face.put(at('a'), body)).toMatchObject({ status: 400, json: { code: 'INVALID_JSON' } });
  });

  test('JSON that is no value is 400 INVALID_VALUE', async () => {
    for (const body of ['{"__proto__":1}', '{"$bigint":"x"}', '"\\ud800"'])
      expect(await face.put(at('a'), body)).toMatchObject({ status: 400, json: { code: 'INVALID_VALUE' } });
    expect(face.node.writes).toEqual([]);
  });

  test('JSON is taken under any content type, but not compressed', async () => {
    expect((await face.put(at('a'), '1', { 'content-type': 'text/plain' })).status).toBe(200);
    expect((await face.put(at('a'), '1', { 'content-encoding': 'gzip' })).status).toBe(400);
  });

  test('a value over the cap is 413, though its JSON is within the cap of the body', async () => {
    const answer = await face.put(at('a'), JSON.stringify('x'.repeat(1_048_577)));
    expect(answer).toMatchObject({ status: 413, json: { code: 'VALUE_TOO_LARGE' } });
  });

  test('the longest value is taken whatever its JSON costs', async () => {
    const value = '\0'.repeat(1_048_576 - 5);
    expect((await face.put(at('a'), JSON.stringify(value))).status).toBe(200);
    expect((await face.get(at('a'))).json).toBe(value);
  });

  test('a body over the cap is 413 before it is complete, announced or not', async () => {
    await face.close();
    face = await Face.open({ valueBytesMax: 100 });
    const announced = await face.raw(
      'PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nConnection: close\r\n\r\n',
    );
    expect(announced).toMatch(/^HTTP\/1\.1 413 [\s\S]*VALUE_TOO_LARGE/);
    const piece = 'x'.repeat(4_000);
    const chunked = await face.raw(
      `PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nfa0\r\n${piece}\r\n`,
    );
    expect(chunked).toMatch(/^HTTP\/1\.1 413 [\s\S]*VALUE_TOO_LARGE/);
    expect(face.node.writes).toEqual([]);
  });

  test('a body that stops coming is 408, and the connection is closed', async () => {
    await face.close();
    face = await Face.open({ bodyIdleMs: 50 });
    const answer = await face.raw('PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"abc');
    expect(answer).toMatch(/^HTTP\/1\.1 408 [\s\S]*connection: close[\s\S]*TIMEOUT/i);
  });

  test('bodies beyond what all of them may hold get 503 OVERLOADED, and room returns', async () => {
    await face.close();
    face = await Face.open({ bodyBytesMax: 10 });
    expect(await face.put(at('a'), '"0123456789"')).toMatchObject({
      status: 503,
      json: { code: 'OVERLOADED' },
    });
    for (let i = 0; i < 5; i++) expect((await face.put(at('a'), '"0123456"')).status).toBe(200);
  });

  test('a client that goes away amid its body leaves nothing behind', async () => {
    await face.close();
    face = await Face.open({ bodyBytesMax: 10 });
    const gone = face.raw('PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"01234567');
    // Only the first one holds the budget; once it is cut, the next finds room again.
    await expect.poll(async () => (await face.put(at('b'), '"12"')).status).toBe(503);
    face.cut();
    await gone;
    await expect.poll(async () => (await face.put(at('b'), '"12"')).status).toBe(200);
    expect(face.faults).toEqual([]);
  });
});

describe('pages', () => {
  const keys = Array.from({ length: 250 }, (_, i) => `k/${String(i).padStart(3, '0')}`);

  async function fill(): Promise<void> {
    const ops = keys.map((key, i) => ({ key, kind: 1, value: encodeValue(i) }));
    await face.node.write({ ops });
  }

  interface Page {
    entries: { key: string; value: unknown }[];
    next: string | null;
  }

  test('pages follow each other by `next` until it is null, without a gap', async () => {
    await fill();
    await face.put(at('other'), '1');
    const seen: string[] = [];
    let after = '';
    const lengths: number[] = [];
    for (;;) {
      const page = (await face.get(`/v1/kv?prefix=k%2F&after=${encodeURIComponent(after)}`)).json as Page;
      seen.push(...page.entries.map((entry) => entry.key));
      lengths.push(page.entries.length);
      if (page.next === null) break;
      after = page.next;
    }
    expect(seen).toEqual(keys);
    expect(lengths).toEqual([100, 100, 50]);
    expect(face.node.openScans).toBe(0);
  });

  test('the page that ends with the last entry says that there is no next', async () => {
    await fill();
    const page = (await face.get('/v1/kv?limit=250')).json as Page;
    expect(page.entries.at(-1)).toEqual({ key: 'k/249', value: 249 });
    expect(page.next).toBeNull();
    expect(((await face.get('/v1/kv?limit=249')).json as Page).next).toBe('k/248');
  });

  test('an empty store has one empty page', async () => {
    expect((await face.get('/v1/kv')).json).toEqual({ entries: [], next: null });
  });

  test.each(['limit=0', `limit=${HTTP_DEFAULTS.pageLimitMax + 1}`, 'limit=x', 'limits=3', 'prefix=%FF'])(
    '?%s is 400',
    async (query) => {
      expect(await face.get(`/v1/kv?${query}`)).toMatchObject({
        status: 400,
        json: { code: 'INVALID_OPTION' },
      });
    },
  );

  test('a page of large values ends early, and the next goes on behind it', async () => {
    await face.close();
    face = await Face.open({ pageBytesMax: 250 });
    for (const key of ['a', 'b', 'c']) await face.put(at(key), JSON.stringify('x'.repeat(100)));
    const first = (await face.get('/v1/kv')).json as Page;
    expect(first.entries.map((entry) => entry.key)).toEqual(['a']);
    const second = (await face.get(`/v1/kv?after=${first.next}`)).json as Page;
    expect(second.entries.map((entry) => entry.key)).toEqual(['b']);
    await face.put(at('huge'), JSON.stringify('x'.repeat(1_000)));
    const huge = (await face.get('/v1/kv?prefix=huge')).json as Page;
    expect(huge).toMatchObject({ entries: [{ key: 'huge' }], next: null });
  });
});

describe('the rest', () => {
  test('livez is 200 always, readyz once reads are served', async () => {
    expect((await face.get('/livez')).status).toBe(200);
    expect((await face.get('/readyz')).status).toBe(200);
    face.node.isReady = false;
    expect((await face.get('/livez')).status).toBe(200);
    expect(await face.get('/readyz')).toMatchObject({
      status: 503,
      json: { code: 'NOT_READY', phase: 'bootstrapping' },
    });
  });

  test('a node that is not ready answers reads with 503 NOT_READY and says when to come back', async () => {
    face.node.failure = new ReadmeshError('NOT_READY', 'still bootstrapping');
    for (const path of [at('a'), '/v1/kv']) {
      const answer = await face.get(path);
      expect(answer).toMatchObject({
        status: 503,
        json: { code: 'NOT_READY', message: 'still bootstrapping' },
      });
      expect(answer.headers['retry-after']).toBe('1');
    }
  });

  test('status is the node\u2019s own', async () => {
    expect((await face.get('/v1/status')).json).toEqual(face.node.status());
  });

  test('the metrics say what the status says, in the words and units of Prometheus', async () => {
    const report: Status = {
      ...face.node.status(),
      name: 'a "quoted" name',
      issues: [{ code: 'DAMAGED', message: 'one record' }],
      members: (['alive', 'alive', 'suspect'] as const).map((state, i) => ({
        ...{ name: `n${i}`, host: 'h', address: '', origin: `${i}`, self: i === 0, state, linked: i === 1 },
      })),
      digest: { keys: 12, root: '', builtPercent: 50, doubt: true, lastProvedMs: 2_500 },
      counters: { damageFound: 3, gaps: 0 },
      loopLagMs: 7,
    };
    face.node.status = () => report;
    const { status, text, headers } = await face.get('/metrics');
    expect([status, headers['content-type']]).toEqual([
      200,
      expect.stringMatching(/^text\/plain; version=0\.0\.4/),
    ]);
    const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    for (const sample of [
      'readmesh_info{node="a \\"quoted\\" name",cluster="default",version="0"} 1',
      'readmesh_ready 1',
      'readmesh_issue{code="DAMAGED"} 1',
      'readmesh_members{state="alive"} 2',
      'readmesh_members{state="suspect"} 1',
      'readmesh_links 1',
      'readmesh_entries 12',
      'readmesh_digest_built_ratio 0.5',
      'readmesh_digest_doubt 1',
      'readmesh_proved_age_seconds 2.5',
      'readmesh_loop_lag_seconds 0.007',
      'readmesh_damage_found_total 3',
      'readmesh_gaps_total 0',
    ])
      expect(samples).toContain(sample);
    expect(text).not.toContain('readmesh_scrub_ratio');
    expect(samples.every((line) => /^readmesh_\w+(\{.*\})? [0-9.e+-]+$/.test(line))).toBe(true);
    report.issues = [];
    expect((await face.get('/metrics')).text).not.toContain('readmesh_issue{');
  });

  test('an unknown path is 404, a wrong method 405 with what is allowed', async () => {
    for (const path of ['/nothing', '/v1/kv/a/b', '/v1', '/metric'])
      expect(await face.get(path)).toMatchObject({ status: 404, json: { code: 'NOT_FOUND' } });
    const post = await face.send('POST', at('a'), { body: '1' });
    expect(post).toMatchObject({ status: 405, json: { code: 'UNSUPPORTED' } });
    expect(post.headers.allow).toBe('GET, HEAD, PUT, DELETE');
    expect((await face.send('DELETE', '/v1/status')).headers.allow).toBe('GET, HEAD');
  });

  test('a fault of ours is 500 INTERNAL, told to the log and not to the caller', async () => {
    face.node.failure = new Error('secret');
    for (const answer of [await face.get(at('a')), await face.put(at('a'), '1'), await face.get('/v1/kv')]) {
      expect(answer).toMatchObject({ status: 500, json: { code: 'INTERNAL' } });
      expect(answer.text).not.toContain('secret');
    }
    expect(face.faults).toHaveLength(3);
  });
});
