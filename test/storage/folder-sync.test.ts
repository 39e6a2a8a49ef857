import { mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FolderSync } from '../../src/storage/folder-sync.js';
import { removeFolder, temporaryFolder } from './folders.js';

describe('flushing a folder', () => {
  let root: string;
  let folder: string;
  let flushes: number;
  let sync: FolderSync;

  beforeEach(() => {
    root = temporaryFolder();
    folder = join(root, 'db');
    mkdirSync(folder);
    flushes = 0;
    sync = new FolderSync(folder, async () => {
      flushes++;
    });
  });
  afterEach(() => {
    sync.close();
    removeFolder(root);
  });

  /** As if the folder had last changed at that second of 1970. */
  const changedAt = (second: number) => utimesSync(folder, second, second);

  it('happens once for each change of its names, and not without one', async () => {
    changedAt(1_000);
    for (let i = 0; i < 3; i++) await sync.flush();
    expect(flushes).toBe(1);
    changedAt(1_001);
    for (let i = 0; i < 3; i++) await sync.flush();
    expect(flushes).toBe(2);
  });

  it('is repeated while the last change is so young that another one could hide in the same tick', async () => {
    writeFileSync(join(folder, '000003.log'), '');
    changedAt(Date.now() / 1_000 + 3_600);
    for (let i = 0; i < 3; i++) await sync.flush();
    expect(flushes).toBe(3);
  });

  it('fails when the folder was removed or replaced', async () => {
    renameSync(folder, `${folder}.old`);
    await expect(sync.flush()).rejects.toMatchObject({ code: 'ENOENT' });
    mkdirSync(folder);
    expect(() => sync.check()).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    rmSync(folder, { recursive: true });
    expect(flushes).toBe(0);
  });

  it('a failing flush is reported, and tried again the next time', async () => {
    changedAt(1_000);
    let broken = true;
    const failing = new FolderSync(folder, async () => {
      flushes++;
      if (broken) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
    });
    await expect(failing.flush()).rejects.toMatchObject({ code: 'EIO' });
    broken = false;
    await failing.flush();
    await failing.flush();
    expect(flushes).toBe(2);
    failing.close();
  });
});
