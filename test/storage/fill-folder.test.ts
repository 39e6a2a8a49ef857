import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openDataFolder, setAside } from '../../src/storage/data-folder.js';
import { fillDataFolder } from '../../src/storage/fill-folder.js';
import { LevelStore } from '../../src/storage/level-store.js';
import { removeFolder, temporaryFolder } from './folders.js';
import { drainKeys, ORIGIN_A, puts } from './records.js';

let root: string;
beforeEach(() => {
  root = temporaryFolder();
});
afterEach(() => removeFolder(root));

describe('a filled data folder', () => {
  test('opens with what was put into it, as a store that nothing vouches for', async () => {
    const data = join(root, 'deep', 'data');
    await fillDataFolder(data, (store) => store.write(puts(ORIGIN_A, 1, ['a', 'b'])));
    expect(readdirSync(data).sort()).toEqual(['db', 'readmesh.json']);
    const folder = await openDataFolder(data, { flush: true });
    try {
      expect([folder.created, folder.originReusable, folder.evidence]).toEqual([false, false, ['unproved']]);
      expect(folder.store.recovered.heads.get(ORIGIN_A)).toBe(2);
      expect(await drainKeys(folder.store.rows({}))).toEqual(['a', 'b']);
    } finally {
      await folder.close();
    }
  });

  test.each<[string, (data: string) => unknown]>([
    ['a file', (data) => writeFileSync(join(data, 'notes.txt'), 'x')],
    ['a store', async (data) => (await openDataFolder(data, { flush: true })).close()],
    [
      'a store that was set aside',
      async (data) => {
        await (await openDataFolder(data, { flush: true })).close();
        await setAside(data);
      },
    ],
  ])('is not made where there is %s: that is left as it is', async (_, prepare) => {
    const data = join(root, 'data');
    mkdirSync(data);
    await prepare(data);
    const before = readdirSync(data);
    const fill = async (): Promise<void> => expect.unreachable();
    await expect(fillDataFolder(data, fill)).rejects.toMatchObject({ code: 'NOT_A_STORE' });
    expect(readdirSync(data)).toEqual(before);
  });

  test('an empty folder will do; while it is filled nobody else gets it', async () => {
    const data = join(root, 'data');
    mkdirSync(data);
    mkdirSync(join(data, 'lost+found'));
    await fillDataFolder(data, async (store) => {
      await store.write(puts(ORIGIN_A, 1, ['a']));
      await expect(openDataFolder(data, { flush: true })).rejects.toMatchObject({ code: 'STORE_IN_USE' });
    });
    await (await openDataFolder(data, { flush: true })).close();
  });

  test('a failure leaves nothing behind', async () => {
    const fail = (data: string): Promise<string> =>
      fillDataFolder(data, async (store) => {
        await store.write(puts(ORIGIN_A, 1, ['a']));
        throw new Error('it broke');
      });
    const missing = join(root, 'missing');
    await expect(fail(missing)).rejects.toThrow('it broke');
    expect(existsSync(missing)).toBe(false);
    const empty = join(root, 'empty');
    mkdirSync(empty);
    await expect(fail(empty)).rejects.toThrow('it broke');
    expect(readdirSync(empty)).toEqual([]);
  });

  test('a crash leaves a folder that no node opens', async () => {
    const data = join(root, 'data');
    await fillDataFolder(data, async (store) => {
      await store.write(puts(ORIGIN_A, 1, ['a']));
      const crashed = join(root, 'crashed');
      mkdirSync(crashed);
      writeFileSync(
        join(crashed, 'readmesh.json'),
        JSON.stringify({ product: 'readmesh', format: 1, state: 'new', created: '' }),
      );
      // As far as it came: marked new, with records.
      const location = join(crashed, 'db');
      const half = await LevelStore.open({ location, create: true, flush: false, run: '0'.repeat(16) });
      await half.write(puts(ORIGIN_A, 1, ['a']));
      await half.close();
      await expect(openDataFolder(crashed, { flush: true })).rejects.toMatchObject({
        code: 'STORE_UNTRUSTED',
        message: expect.stringContaining('a restore that was cut short'),
      });
    });
  });
});
