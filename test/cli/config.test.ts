import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { mergeConfig } from '../../src/config.js';
import { parseConfig, readConfig } from '../../src/config-file.js';
import { CORE_DEFAULTS } from '../../src/options.js';
import { splitList } from '../../src/schema.js';

const folder = mkdtempSync(join(tmpdir(), 'readmesh-config-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const refusal = (source: string): unknown => {
  try {
    parseConfig(source, 'c.yaml');
  } catch (error) {
    return error;
  }
  return undefined;
};

describe('the configuration file', () => {
  test('holds every flag that may be repeated at each start, and tuning', () => {
    const source = `
data: /srv/readmesh
listen: 127.0.0.1:7701
advertise: db1:7701
join: [db1:7700, db2:7700]
cluster: prices
name: n1
host: rack-3
insecureNoAuth: true
tuning:
  cacheBytesMax: 0
  ackTimeoutMs: 5000
`;
    expect(mergeConfig({}, parseConfig(source, 'c.yaml'))).toEqual({
      data: '/srv/readmesh',
      listen: '127.0.0.1:7701',
      advertise: 'db1:7701',
      join: ['db1:7700', 'db2:7700'],
      cluster: 'prices',
      name: 'n1',
      host: 'rack-3',
      insecureNoAuth: true,
      readThrough: false,
      rebuild: false,
      found: false,
      tuning: { cacheBytesMax: 0, ackTimeoutMs: 5_000 },
    });
  });

  test('may be JSON, empty, or absent', () => {
    expect(parseConfig('{"cluster":"c","join":"a:1,b:2"}', 'c.json')).toEqual({
      cluster: 'c',
      join: 'a:1,b:2',
    });
    expect(parseConfig('', 'c.yaml')).toEqual({});
    expect(mergeConfig({}, {})).toMatchObject({
      data: './readmesh-data',
      listen: '127.0.0.1:7700',
      cluster: 'default',
      join: [],
      tuning: {},
    });
  });

  test('gives way to flags', () => {
    const file = parseConfig('{"cluster":"file","name":"file","join":["a:1"]}', 'c.json');
    expect(mergeConfig({ cluster: 'flag', join: 'b:2, c:3' }, file)).toMatchObject({
      cluster: 'flag',
      name: 'file',
      join: ['b:2', 'c:3'],
    });
  });

  test('every option of the core can be tuned', () => {
    expect(parseConfig(JSON.stringify({ tuning: CORE_DEFAULTS }), 'c.json').tuning).toEqual(CORE_DEFAULTS);
  });

  test.each([
    ['an unknown member', 'lisen: 127.0.0.1:1', /"lisen" is not known: did you mean "listen"\?/],
    ['an unknown option to tune', 'tuning: { cacheBytes: 1 }', /"tuning\.cacheBytes".*"cacheBytesMax"/],
    ['a member that is like no other', 'zzzzzzzzzzzzzzzz: 1', /known are data, listen/],
    ['rebuild, which is for one start', 'rebuild: true', /"rebuild" is not known/],
    ['text for a number', 'tuning: { beatMs: fast }', /tuning\.beatMs must be an integer from 1/],
    ['a number out of range', 'tuning: { beatMs: 0 }', /tuning\.beatMs must be an integer from 1/],
    ['a number for text', 'name: 5', /name must be text/],
    ['a list', '[1]', /must hold NAME: VALUE/],
    ['broken YAML', 'a: [1', /line 1/],
    ['a name twice', 'name: a\nname: b', /line 2/],
    [
      'bounds that contradict each other',
      'tuning: { redialMinMs: 6000 }',
      /redialMinMs \(6000\).*redialMaxMs/,
    ],
    ['a batch that fits no frame', 'tuning: { batchBytesMax: 8388608 }', /batchBytesMax.*frameBytesMax/],
  ])('refuses %s, and says where', (_, source, message) => {
    expect(refusal(source)).toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(message),
    });
    expect((refusal(source) as Error).message).toMatch(/^--config c\.yaml: [^\n]*$/);
  });

  test('a bomb of aliases is refused instead of unfolded', () => {
    const levels = Array.from({ length: 12 }, (_, i) => `l${i + 1}: &l${i + 1} [${`*l${i},`.repeat(10)}]`);
    expect(refusal(`l0: &l0 x\n${levels.join('\n')}`)).toMatchObject({ code: 'INVALID_OPTION' });
  });

  test('is read from where it is said to be', async () => {
    const path = join(folder, 'c.yaml');
    writeFileSync(path, 'name: here\n');
    expect(await readConfig(path)).toEqual({ name: 'here' });
    await expect(readConfig(join(folder, 'none'))).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('no such file'),
    });
    await expect(readConfig(folder)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  });
});

test('lists are split at commas, without blanks', () => {
  expect(splitList(' a:1 ,b:2,, ')).toEqual(['a:1', 'b:2']);
  expect(splitList(['a:1,b:2', 'c:3'])).toEqual(['a:1', 'b:2', 'c:3']);
});
