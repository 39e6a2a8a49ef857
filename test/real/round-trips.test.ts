/**
 * Awkward keys and values, written and read through every way in: an embedded replica, a light client, HTTP and
 * the command line, all of one cluster of real daemons. Each write is held by all members before it counts, so
 * that whoever reads next must see it, whichever host answers.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect, type LightClient } from '../../src/client/index.js';
import { type EmbeddedReplica, openReplica } from '../../src/index.js';
import { fromJson, parseValue, stringifyValue, toJson } from '../../src/json.js';
import type { Value } from '../../src/read-store.js';
import { type Daemon, endDaemons, runCli, startCluster, tempFolder } from '../support/daemon.js';
import { httpGet, httpPut, httpScan } from '../support/http-api.js';

const KEYS = [
  ...[
    '中文/鍵',
    '字'.repeat(341),
    'ключ',
    '😀',
    '👩‍👩‍👧‍👦 family',
    '𐀀',
    '\u{10ffff}',
    '\uffff',
    '\ufeffmark',
  ],
  ...['a/b//c/', '/', '%', '100%25%', '%2F', '%zz', 'a+b c', ' ', '?key=x&y#z', '\\"\n\t'],
  ...['\0', 'a\0b', '__proto__', 'constructor', '-x', '--json', '--', '.', '..', '../..'],
  'k'.repeat(1_024),
];
/** A NUL cannot be passed to a program, and one process per key takes its time. */
const KEYS_AS_ARGUMENTS = [
  '中文/鍵',
  '😀',
  'a/b//c/',
  '100%25%',
  '__proto__',
  '-x',
  '--',
  '..',
  'k'.repeat(1_024),
];

const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i % 256);
const VALUES: readonly Value[] = [
  ...[0n, -1n, 2n ** 53n, 2n ** 64n, -(2n ** 64n), 10n ** 40n, -(7n ** 5_000n), 2n ** 40_000n],
  ...[bytes(0), bytes(1), bytes(256), bytes(70_000)],
  ...[new Date(0), new Date(-1), new Date('2024-02-29T23:59:59.999Z'), new Date(8.64e15)],
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, 0, 1e308, 5e-324, 2 ** 53, 0.1],
  ...['', '\0', '中文 😀', 'x'.repeat(100_000), null, true, false],
  { nested: [{ in: { depth: [null, [], {}, 1n, bytes(3), new Date(5), Number.NaN] } }], 'ü/%': '\u2028' },
  [[[[[[[[[[['deep']]]]]]]]]]],
  // Objects that look like the JSON forms of other values.
  { $bigint: '1' },
  { $literal: { $bytes: 'aGk=' } },
  { $price: 1, constructor: 'x' },
];

let daemons: Daemon[];
let embedded: EmbeddedReplica;
let light: LightClient;

/** One way in. Writes are held by all three hosts. */
interface Way {
  put(key: string, value: Value): Promise<void>;
  get(key: string): Promise<Value | undefined>;
}

const EVERYWHERE = { replicas: 3, timeoutMs: 10_000 };
let asked = 0;
/** Another host each time. */
const host = (): string => daemons[asked++ % daemons.length]!.address;

const ways: Record<string, Way> = {
  replica: {
    put: async (key, value) => void (await embedded.put(key, value, EVERYWHERE)),
    get: async (key) => embedded.getSync(key),
  },
  'light client': {
    put: async (key, value) => void (await light.put(key, value, EVERYWHERE)),
    get: (key) => light.get(key),
  },
  HTTP: {
    put: async (key, value) => {
      const { status, body } = await httpPut(host(), key, toJson(value), EVERYWHERE);
      expect(status, JSON.stringify(body)).toBe(200);
    },
    get: async (key) => {
      const { status, body } = await httpGet(host(), key);
      return status === 404 ? undefined : fromJson(body);
    },
  },
};

async function cli(args: readonly string[], stdin = ''): Promise<string> {
  const result = await runCli(args, { stdin, env: { READMESH_HOSTS: host() } });
  expect(result, result.stderr).toMatchObject({ code: 0, stderr: '' });
  return result.stdout;
}

const importAll = (entries: readonly (readonly [string, Value])[]): Promise<string> =>
  cli(
    ['import', '-', '--replicas', '3'],
    entries
      .map(([key, value]) => `{"key":${JSON.stringify(key)},"value":${stringifyValue(value)}}\n`)
      .join(''),
  );

function parseLines(text: string): [string, Value][] {
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => {
    const { key, value } = JSON.parse(line) as { key: string; value: unknown };
    return [key, fromJson(value)];
  });
}

/** Reads the entries back through every way in. */
async function expectEverywhere(entries: readonly (readonly [string, Value])[]): Promise<void> {
  for (const [name, way] of Object.entries(ways))
    for (const [key, value] of entries) expect(await way.get(key), `${key} by ${name}`).toEqual(value);
  const exported = new Map(parseLines(await cli(['export'])));
  for (const [key, value] of entries) expect(exported.get(key), `${key} by export`).toEqual(value);
}

beforeAll(async () => {
  daemons = await startCluster(2);
  embedded = await openReplica({
    data: join(tempFolder(), 'embedded'),
    name: 'embedded',
    listen: '127.0.0.1:0',
    join: [daemons[1]!.address],
  });
  await embedded.ready();
  light = await connect({ hosts: daemons.map((daemon) => daemon.address), timeoutMs: 10_000 });
});

afterAll(async () => {
  await light?.close();
  await embedded?.close();
  await endDaemons();
});

describe('round trips', () => {
  for (const [name, way] of Object.entries(ways)) {
    test(`keys written by ${name} are read by every way in`, async () => {
      const entries = KEYS.map((key, i) => [key, `${name} ${i}`] as const);
      for (const [key, value] of entries) await way.put(key, value);
      await expectEverywhere(entries);
    });

    test(`values written by ${name} are read by every way in`, async () => {
      const entries = VALUES.map((value, i) => [`${name}/${i}`, value] as const);
      for (const [key, value] of entries) await way.put(key, value);
      await expectEverywhere(entries);
    });
  }

  test('keys and values imported on the command line are read by every way in', async () => {
    const entries = [
      ...KEYS.map((key, i) => [key, `imported ${i}`] as const),
      ...VALUES.map((value, i) => [`imported/${i}`, value] as const),
    ];
    await importAll(entries);
    await expectEverywhere(entries);
  });

  test('keys given as arguments of the command line name what the other ways in wrote', {
    timeout: 120_000,
  }, async () => {
    const one = async (key: string, i: number): Promise<void> => {
      await embedded.put(key, i, EVERYWHERE);
      expect(parseValue(await cli(['get', '--', key])), key).toBe(i);
      await cli(['put', '--replicas', '3', '--', key, `{"$bigint":"${i}"}`]);
      expect(embedded.getSync(key), key).toBe(BigInt(i));
      expect(await light.get(key), key).toBe(BigInt(i));
    };
    // A few processes at a time: most of their time is waiting for their start.
    for (let i = 0; i < KEYS_AS_ARGUMENTS.length; i += 3)
      await Promise.all(KEYS_AS_ARGUMENTS.slice(i, i + 3).map((key, n) => one(key, i + n)));
    expect(parseLines(await cli(['scan', '--limit', '1', '--', '-x']))).toEqual([
      ['-x', BigInt(KEYS_AS_ARGUMENTS.indexOf('-x'))],
    ]);
  });

  test('what one cluster exports another imports, and both are the same', async () => {
    const exported = await cli(['export']);
    const [other] = await startCluster(1, { name: 'other' });
    const imported = await other!.cli('import', '-');
    expect(imported.code).toBe(0);
    const filled = await runCli(['import', '-', '--hosts', other!.address], { stdin: exported });
    expect(filled, filled.stderr).toMatchObject({ code: 0 });
    expect((await other!.cli('export')).stdout).toBe(exported);
    const keys = parseLines(exported).map(([key]) => key);
    expect(keys.length).toBeGreaterThan(KEYS.length);
    expect(keys).toEqual([...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
    expect([...(await httpScan(other!.address)).keys()]).toEqual(keys);
  });

  test('an embedded replica and its daemons are found identical, awkward keys and all', async () => {
    const report = await light.verify({ timeoutMs: 20_000 });
    expect(report.members.map(({ name, state }) => [name, state]).sort()).toEqual([
      ['embedded', 'identical'],
      ['n1', 'identical'],
      ['n2', 'identical'],
    ]);
    expect(report.identical).toBe(true);
  });
});

describe('refusals', () => {
  const refused: readonly [what: string, key: string][] = [
    ['empty', ''],
    ['one byte too long', 'k'.repeat(1_025)],
    ['one byte too long in UTF-8', `${'字'.repeat(341)}ab`],
    ['a lone surrogate', 'a\ud800'],
  ];
  for (const [what, key] of refused)
    test(`a key that is ${what} is refused by every way in`, async () => {
      await expect(embedded.put(key, 1)).rejects.toMatchObject({ code: 'INVALID_KEY' });
      await expect(light.put(key, 1)).rejects.toMatchObject({ code: 'INVALID_KEY' });
      const line = `{"key":${JSON.stringify(key)},"value":1}\n`;
      const imported = await runCli(['import', '-', '--hosts', host()], { stdin: line });
      expect(imported.code).toBe(2);
      expect(imported.stderr).toMatch(/^readmesh: INVALID_KEY: line 1: .*\n$/);
      // A URL cannot carry a lone surrogate: what encodes it does not.
      if (what === 'a lone surrogate') return;
      const { status, body } = await httpPut(host(), key, 1);
      expect({ status, code: body.code }).toEqual({ status: 400, code: 'INVALID_KEY' });
    });

  test('a member of a value named __proto__ is refused by every way in', async () => {
    const json = '{"a":{"__proto__":1}}';
    const value = JSON.parse(json) as Value;
    await expect(embedded.put('k', value)).rejects.toMatchObject({ code: 'INVALID_VALUE' });
    await expect(light.put('k', value)).rejects.toMatchObject({ code: 'INVALID_VALUE' });
    const { status, body } = await httpPut(host(), 'k', value);
    expect({ status, code: body.code }).toEqual({ status: 400, code: 'INVALID_VALUE' });
    const put = await runCli(['put', 'k', json, '--hosts', host()]);
    expect(put.code).toBe(2);
    expect(put.stderr).toContain('INVALID_VALUE');
  });
});
