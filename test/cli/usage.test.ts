/** What the command line says to wrong usage. No node runs. */
import { createServer } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import { endDaemons, runCli, tempFolder } from '../support/daemon.js';

afterAll(endDaemons);

const oneLine = (code: string): RegExp => new RegExp(`^readmesh: ${code}: [^\\n]+\\n$`);

describe('wrong usage exits 2 with one line', () => {
  test.each([
    [
      'an unknown option, naming the nearest',
      ['get', 'a', '--host', 'x'],
      /did you mean --hosts\?.*readmesh get --help/,
    ],
    ['an unknown command, naming the nearest', ['gte', 'a'], /unknown command 'gte': did you mean get\?/],
    ['a missing argument', ['put', 'a'], /missing required argument 'json'/],
    ['too many arguments', ['get', 'a', 'b'], /too many arguments/],
    ['an option without its value', ['get', 'a', '--hosts'], /argument missing/],
    ['a bad number', ['put', 'a', '1', '--replicas', '0'], /integer from 1/],
    ['a bad address', ['get', 'a', '--hosts', 'http://x'], /HOST:PORT/],
    ['no address', ['get', 'a', '--hosts', ','], /names no host/],
    ['a dash without --', ['get', '-x'], /unknown option '-x'/],
    [
      'an address that is not loopback',
      ['serve', '--listen', '0.0.0.0:0'],
      /INSECURE_LISTEN: .*--insecure-no-auth/,
    ],
    ['a bad listen address', ['serve', '--listen', 'nonsense'], /add the port/],
    ['a configuration file that is not there', ['serve', '--config', '/nonexistent/x'], /no such file/],
    ['rebuild without anybody to copy from', ['serve', '--rebuild'], /--join/],
  ])('%s', async (_, args, message) => {
    const { code, stdout, stderr } = await runCli(args, { cwd: tempFolder() });
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(oneLine('[A-Z_]+'));
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });

  test('bad JSON is INVALID_JSON', async () => {
    const { code, stderr } = await runCli(['put', 'a', '{oops']);
    expect(stderr).toMatch(oneLine('INVALID_JSON'));
    expect(code).toBe(2);
  });

  test('a bad READMESH_HOSTS is named as such', async () => {
    const { code, stderr } = await runCli(['get', 'a'], { env: { READMESH_HOSTS: 'a b' } });
    expect(stderr).toMatch(/INVALID_OPTION/);
    expect(code).toBe(2);
  });

  test('a bad READMESH_LOG names the nearest level', async () => {
    const { code, stderr } = await runCli(['serve'], { env: { READMESH_LOG: 'dbug' }, cwd: tempFolder() });
    expect(stderr).toMatch(/did you mean debug\?/);
    expect(code).toBe(2);
  });

  test('--json makes the error JSON, too', async () => {
    for (const args of [
      ['put', 'a', '{oops', '--json'],
      ['put', '--json', '--oops'],
    ]) {
      const { code, stderr } = await runCli(args);
      expect(JSON.parse(stderr)).toMatchObject({ code: expect.any(String), message: expect.any(String) });
      expect(code).toBe(2);
    }
  });
});

test('no command at all shows the help on standard error and exits 2', async () => {
  const { code, stdout, stderr } = await runCli([]);
  expect(stderr).toContain('Usage: readmesh');
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
});

test.each([
  ['put', 'a', '1', '--ttl-ms', '0'],
  ['put', 'a', '1', '--ttl-ms', '1.5'],
  ['put', 'a', '1', '--ttl-ms', String(2 ** 47)],
])('an expiry out of bounds exits 2: %s %s %s %s %s', async (...args) => {
  const { code, stderr } = await runCli(args);
  expect(stderr).toMatch(oneLine('INVALID_OPTION'));
  expect(code).toBe(2);
});

test('a port in use exits 2 and says how to mend it', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const args = ['serve', '--listen', `127.0.0.1:${port}`, '--data', tempFolder()];
  const { code, stderr } = await runCli(args, { env: { READMESH_LOG: 'silent' } });
  server.close();
  expect(stderr).toMatch(oneLine('PORT_IN_USE'));
  expect(code).toBe(2);
});

test('nobody there is UNREACHABLE, exit code 3', async () => {
  for (const args of [
    ['get', 'a'],
    ['put', 'a', '1'],
    ['del', 'a'],
    ['scan'],
    ['status'],
    ['verify'],
    ['watch'],
  ]) {
    const { code, stdout, stderr } = await runCli([...args, '--hosts', '127.0.0.1:1', '--timeout-ms', '300']);
    expect(stderr).toMatch(oneLine('UNREACHABLE'));
    expect({ code, stdout }).toEqual({ code: 3, stdout: '' });
  }
});

describe('help', () => {
  test('of every command has examples and exits 0', async () => {
    const root = await runCli(['--help']);
    expect(root.code).toBe(0);
    const names = [...root.stdout.matchAll(/^ {2}([a-z]+) /gm)]
      .map(([, name]) => name!)
      .filter((name) => name !== 'readmesh');
    const commands = names.slice(0, names.indexOf('help'));
    expect(commands).toEqual(
      expect.arrayContaining(['serve', 'get', 'put', 'del', 'scan', 'import', 'export', 'verify']),
    );
    for (const command of commands) {
      const { code, stdout } = await runCli([command, '--help']);
      expect(stdout).toMatch(/Example/);
      expect(code).toBe(0);
    }
  });

  test('names the environment and the exit codes', async () => {
    const { stdout } = await runCli(['--help']);
    for (const word of ['READMESH_HOSTS', 'READMESH_LOG', 'Exit codes']) expect(stdout).toContain(word);
  });

  test('--version prints the version alone', async () => {
    expect((await runCli(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});
