import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openDataFolder } from '../../src/storage/data-folder.js';
import type { Machine } from '../../src/storage/run-record.js';
import { removeFolder, temporaryFolder } from './folders.js';
import { compileOpener, type Openers } from './processes.js';
import { drainKeys } from './records.js';

describe('a data folder and several processes', () => {
  let openers: Openers;
  let root: string;
  let data: string;
  let machine: Machine;

  beforeEach(() => {
    root = temporaryFolder();
    data = join(root, 'data');
    machine = { bootId: 'boot-1', temporary: root };
  });
  afterEach(() => removeFolder(root));

  /** What is in the store, once every other process is done with it. */
  async function keys(): Promise<string[]> {
    const folder = await openDataFolder(data, { flush: false, machine });
    try {
      return await drainKeys(folder.store.rows({}));
    } finally {
      await folder.close();
    }
  }

  beforeAll(async () => {
    openers = await compileOpener();
  });
  afterAll(() => openers.dispose());

  it('a second process is refused, also when our lock file was removed; the first goes on', async () => {
    const first = openers.start(data);
    expect(await first.next()).toMatchObject({ created: true });
    const second = openers.start(data);
    expect(await second.next()).toMatchObject({
      code: 'STORE_IN_USE',
      message: expect.stringContaining(`process ${first.pid}`),
    });
    await expect(openDataFolder(data, { flush: false })).rejects.toMatchObject({ code: 'STORE_IN_USE' });
    rmSync(join(data, 'lock'));
    expect(await openers.start(data).next()).toMatchObject({ code: 'STORE_IN_USE' });
    first.say('write 10 100');
    expect(await first.next()).toEqual({ acknowledged: 10 });
    first.say('close');
    await first.ended();
    expect(await keys()).toHaveLength(10);
  });

  it('after SIGKILL the lock is taken over, nothing acknowledged is lost, and the origin is kept', async () => {
    const first = openers.start(data);
    await first.next();
    first.say('write 50 1000');
    expect(await first.next()).toEqual({ acknowledged: 50 });
    first.say('write 100000 1000');
    await first.kill('SIGKILL');
    expect(existsSync(join(data, 'lock'))).toBe(true);
    const second = openers.start(data);
    expect(await second.next()).toMatchObject({ created: false, originReusable: true });
    second.say('close');
    await second.ended();
    expect((await keys()).length).toBeGreaterThanOrEqual(50);
  });

  it('many starters race for a stale lock: exactly one gets the folder', async () => {
    await (await openDataFolder(data, { flush: false, machine })).close();
    for (let round = 0; round < 3; round++) {
      writeFileSync(join(data, 'lock'), JSON.stringify({ pid: 2 ** 22 + 1, startTime: 5, bootId: '' }));
      const racers = Array.from({ length: 4 }, () => openers.start(data));
      const answers = await Promise.all(racers.map((racer) => racer.next()));
      const winners = answers.filter((answer) => 'run' in answer);
      const losers = answers.filter((answer) => answer.code === 'STORE_IN_USE');
      expect([winners.length, losers.length]).toEqual([1, 3]);
      for (const racer of racers) racer.say('close');
      for (const racer of racers) await racer.ended();
    }
    expect(readdirSync(data).sort()).toEqual(['db', 'readmesh.json']);
  });

  it('after a write error nothing is acknowledged, what was acknowledged is there, and the origin is not kept', async () => {
    // The limit on a file's size stands in for a full disk: the append to the log is what fails in both.
    const limited = openers.start(data, { fileKibMax: 600 });
    await limited.next();
    limited.say('write 100 20000');
    const outcome = await limited.next();
    expect(outcome).toMatchObject({
      code: 'STORE_FAILED',
      message: expect.stringMatching(/file reached its size limit/),
      again: { code: 'STORE_FAILED' },
    });
    const acknowledged = outcome.acknowledged as number;
    expect(acknowledged).toBeGreaterThan(5);
    limited.say('close');
    await limited.ended();
    const reopened = openers.start(data);
    expect(await reopened.next()).toMatchObject({ created: false, originReusable: false });
    reopened.say('close');
    await reopened.ended();
    const found = await keys();
    for (let i = 1; i <= acknowledged; i++) expect(found).toContain(`key/${i}`);
    expect(found).not.toContain('again');
  });
});
