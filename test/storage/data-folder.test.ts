import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type DataFolder, openDataFolder, setAside } from '../../src/storage/data-folder.js';
import type { Machine } from '../../src/storage/run-record.js';
import { clearRejoin, readProgress, writeRejoin } from '../../src/storage/set-aside.js';
import { removeFolder, tamper, temporaryFolder } from './folders.js';
import { drainKeys, ORIGIN_A, puts } from './records.js';

let root: string;
let data: string;
let machine: Machine;
let opened: DataFolder[];

beforeEach(() => {
  root = temporaryFolder();
  data = join(root, 'data');
  machine = { bootId: 'boot-1', temporary: join(root, 'tmp') };
  mkdirSync(machine.temporary);
  opened = [];
});
afterEach(async () => {
  for (const folder of opened) await folder.close();
  removeFolder(root);
});

async function open(path = data, on: Machine = machine): Promise<DataFolder> {
  const folder = await openDataFolder(path, { flush: false, machine: on });
  opened.push(folder);
  return folder;
}

async function filled(path = data): Promise<void> {
  const folder = await open(path);
  await folder.store.write(puts(ORIGIN_A, 1, ['a', 'b']));
  await folder.close();
}

const refused = (code: string, message?: RegExp) =>
  expect.objectContaining({
    code,
    ...(message === undefined ? {} : { message: expect.stringMatching(message) }),
  });

const keysIn = (folder: DataFolder) => drainKeys(folder.store.rows({}));
const marker = () => join(data, 'readmesh.json');
const markerState = () => (JSON.parse(readFileSync(marker(), 'utf8')) as { state: string }).state;
const record = () => {
  const home = join(machine.temporary, readdirSync(machine.temporary)[0]!);
  return join(home, readdirSync(home)[0]!);
};

describe('what a data folder is', () => {
  it('a missing folder, an empty one and a fresh volume become a store, which is found again', async () => {
    mkdirSync(join(root, 'empty'));
    mkdirSync(join(root, 'volume/lost+found'), { recursive: true });
    for (const path of [join(root, 'not/yet/there'), join(root, 'empty'), join(root, 'volume')]) {
      const first = await open(path);
      expect(first).toMatchObject({ created: true, originReusable: false, path });
      await first.store.write(puts(ORIGIN_A, 1, ['a']));
      await first.close();
      const second = await open(path);
      expect(second).toMatchObject({ created: false, originReusable: true });
      expect(second.run).not.toBe(first.run);
      expect(await keysIn(second)).toEqual(['a']);
    }
  });

  it('a file and a folder with other things in it are refused and left alone', async () => {
    writeFileSync(join(root, 'file'), 'x');
    await expect(open(join(root, 'file'))).rejects.toEqual(refused('NOT_A_STORE', /not a folder/));
    mkdirSync(data);
    writeFileSync(join(data, 'thesis.tex'), 'x');
    await expect(open()).rejects.toEqual(refused('NOT_A_STORE', /thesis\.tex/));
    expect(readdirSync(data)).toEqual(['thesis.tex']);
  });

  it('a store of a newer format is refused and left untouched, also by setting aside', async () => {
    await filled();
    const newer = { ...JSON.parse(readFileSync(marker(), 'utf8')), format: 2, state: 'something else' };
    writeFileSync(marker(), JSON.stringify(newer));
    const before = readdirSync(data).sort();
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', /newer version/));
    await expect(setAside(data, machine)).rejects.toEqual(refused('STORE_UNTRUSTED', /newer version/));
    expect(readdirSync(data).sort()).toEqual(before);
    expect(JSON.parse(readFileSync(marker(), 'utf8'))).toEqual(newer);
  });

  it('a damaged marker is not taken for a missing one', async () => {
    await filled();
    for (const text of [
      '',
      '{"product":"readmesh","format":1}',
      '{"product":"other","format":1,"state":"new"}',
    ]) {
      writeFileSync(marker(), text);
      await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', /marker/));
    }
  });

  it('a missing database, or one without CURRENT, is never replaced by an empty one', async () => {
    await filled();
    const tables = readdirSync(join(data, 'db')).sort();
    renameSync(join(data, 'db/CURRENT'), join(root, 'CURRENT'));
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', /CURRENT/));
    renameSync(join(root, 'CURRENT'), join(data, 'db/CURRENT'));
    expect(readdirSync(join(data, 'db')).sort()).toEqual(tables);
    renameSync(join(data, 'db'), join(root, 'db'));
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', /missing/));
    expect(existsSync(join(data, 'db'))).toBe(false);
    renameSync(join(root, 'db'), join(data, 'db'));
    expect(await keysIn(await open())).toEqual(['a', 'b']);
  });

  it('a database that lost its manifest or holds rubbish is untrusted, and nothing is deleted', async () => {
    await filled();
    const db = join(data, 'db');
    const manifest = readdirSync(db).find((name) => name.startsWith('MANIFEST'))!;
    const intact = readFileSync(join(db, manifest));
    rmSync(join(db, manifest));
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', /--rebuild/));
    writeFileSync(
      join(db, manifest),
      intact.map((byte) => byte ^ 0x55),
    );
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', /--rebuild/));
    writeFileSync(join(db, manifest), intact);
    expect(await keysIn(await open())).toEqual(['a', 'b']);
  });

  it('a start that was cut short before the store was complete is done again', async () => {
    await (await open()).close();
    expect(markerState()).toBe('created');
    writeFileSync(marker(), readFileSync(marker(), 'utf8').replace('created"', 'new"'));
    expect(markerState()).toBe('new');
    writeFileSync(join(data, 'readmesh.json.tmp'), '{"prod');
    const again = await open();
    expect(again.created).toBe(true);
    await again.close();
    expect(markerState()).toBe('created');
    // Even before there was a marker, and with half a database.
    for (const name of ['readmesh.json', 'db/CURRENT']) rmSync(join(data, name));
    renameSync(join(data, 'db'), join(root, 'half'));
    writeFileSync(join(data, 'readmesh.json.tmp'), '{"prod');
    const fresh = await open();
    expect(fresh.created).toBe(true);
  });

  it('data under a marker that says new is not taken over', async () => {
    await filled();
    writeFileSync(marker(), readFileSync(marker(), 'utf8').replace('created"', 'new"'));
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', /holds data/));
    expect(markerState()).toBe('new');
  });
});

describe('setting aside', () => {
  it('puts the database out of the way, deletes nothing, and makes room for a new one', async () => {
    await filled();
    const aside = (await setAside(data, machine))!;
    expect(basename(aside)).toMatch(/^db\.set-aside-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z$/);
    await tamper(aside, async (db) => expect(await db.get('ea')).toBeDefined());
    const fresh = await open();
    expect(fresh).toMatchObject({ created: true, originReusable: false });
    expect(await keysIn(fresh)).toEqual([]);
  });

  it('mends a missing database and a damaged marker, and may be repeated', async () => {
    await filled();
    rmSync(join(data, 'db'), { recursive: true });
    expect(await setAside(data, machine)).toBeUndefined();
    await (await open()).close();
    writeFileSync(marker(), 'rubbish');
    expect(await setAside(data, machine)).toBeDefined();
    expect(await setAside(data, machine)).toBeUndefined();
    expect(readdirSync(data).filter((name) => name.startsWith('readmesh.json.set-aside-'))).toHaveLength(1);
    // Cut short after the damaged marker was moved.
    rmSync(marker());
    expect((await open()).created).toBe(true);
  });

  it('is refused while the store is in use, and for a folder that is not ours', async () => {
    await open();
    await expect(setAside(data, machine)).rejects.toEqual(refused('STORE_IN_USE'));
    writeFileSync(join(root, 'tmp/x'), '');
    await expect(setAside(join(root, 'tmp'), machine)).rejects.toEqual(refused('NOT_A_STORE'));
    expect(await setAside(join(root, 'nowhere'), machine)).toBeUndefined();
    expect(existsSync(join(root, 'nowhere'))).toBe(false);
  });
});

describe('a store with damage that cannot be healed in place', () => {
  it('is refused from then on, with the reason, until it is set aside', async () => {
    await filled();
    const folder = await open();
    folder.distrust('a block of one of its tables cannot be read\nand more');
    expect(await keysIn(folder)).toEqual(['a', 'b']);
    await folder.close();
    const why = /a block of one of its tables cannot be read; start with --rebuild/;
    for (let i = 0; i < 2; i++) await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED', why));
    await setAside(data, machine);
    const fresh = await open();
    expect([fresh.created, await keysIn(fresh)]).toEqual([true, []]);
    await fresh.close();
    expect((await open()).created).toBe(false);
  });

  it('is set aside and replaced by an empty one while the folder stays locked', async () => {
    await filled();
    const folder = await open();
    folder.distrust('it is broken');
    await expect(folder.reopen()).rejects.toEqual(refused('STORE_UNTRUSTED', /it is broken/));
    const rebuilding = folder.rebuild();
    await expect(open()).rejects.toEqual(refused('STORE_IN_USE'));
    const { folder: fresh, aside } = await rebuilding;
    opened.push(fresh);
    expect([fresh.created, fresh.missing(), await keysIn(fresh)]).toEqual([true, undefined, []]);
    expect(readdirSync(aside!)).toContain('CURRENT');
    await fresh.store.write(puts(ORIGIN_A, 1, ['c']));
    await fresh.close();
    expect(await keysIn(await open())).toEqual(['c']);
  });

  it('may have lost its latest writes if it was not closed, and not merely because the machine started anew', async () => {
    await filled();
    const reboot = { ...machine, bootId: 'boot-2' };
    const folder = await open(data, reboot);
    expect([folder.evidence, folder.mayHaveLost]).toEqual([['unproved'], false]);
    await folder.close();
    writeFileSync(join(data, 'opening'), '0 0\n');
    const unclosed = await open(data, { ...machine, bootId: 'boot-3' });
    expect([unclosed.evidence, unclosed.mayHaveLost]).toEqual([['unproved'], true]);
  });
});

describe('a store that the cluster went on without', () => {
  const who = { name: 'n', join: ['127.0.0.1:1'] };
  const aside = () => readdirSync(data).filter((name) => /^db\.set-aside-[0-9TZ.-]*$/.test(name));

  /** The old store is aside, whole, and an empty one in its place, which knows whom it belongs to. */
  async function expectReplaced(folder: DataFolder): Promise<void> {
    expect([folder.created, folder.rejoin, await keysIn(folder)]).toMatchObject([true, who, []]);
    expect(aside()).toEqual([folder.rejoin!.aside]);
    expect(readProgress(join(data, folder.rejoin!.aside))).toMatchObject({ isWhole: true, done: false });
    await tamper(join(data, folder.rejoin!.aside), async (db) => expect(await db.get('ea')).toBeDefined());
  }

  it('gives way to an empty one, and is not set aside twice', async () => {
    await filled();
    const { folder } = await (await open()).replace(who);
    opened.push(folder);
    await expectReplaced(folder);
    await folder.store.write(puts(ORIGIN_A, 1, ['c']));
    await folder.close();
    const again = await open();
    expect([await keysIn(again), aside().length, again.rejoin]).toMatchObject([['c'], 1, who]);
    clearRejoin(data);
    await again.close();
    expect((await open()).rejoin).toBeUndefined();
  });

  it.each<[string, (target: string) => void]>([
    ['the intention was written', () => undefined],
    ['the database was renamed', (target) => renameSync(join(data, 'db'), target)],
    [
      'the marker says new',
      (target) => {
        renameSync(join(data, 'db'), target);
        const { created } = JSON.parse(readFileSync(marker(), 'utf8')) as { created: string };
        writeFileSync(marker(), JSON.stringify({ product: 'readmesh', format: 1, state: 'new', created }));
      },
    ],
    [
      'an older process had crashed in opening it again and again',
      () => writeFileSync(join(data, 'opening'), '9 9\n'),
    ],
  ])('gives way at the next opening if the process ended when %s', async (_, spoil) => {
    await filled();
    const rejoin = writeRejoin(data, who);
    expect(writeRejoin(data, who)).toEqual(rejoin);
    spoil(join(data, rejoin.aside));
    await expectReplaced(await open());
  });
});

describe('whether the origin may be kept', () => {
  const reusable = async (on: Machine = machine) => {
    const folder = await open(data, on);
    // As a replica does: its first batch says which origin it uses.
    await folder.store.write({ id: 1, rows: new Map(), heads: new Map(), meta: new Map() });
    await folder.close();
    return folder.originReusable;
  };

  it('not after an opening that ended before it could store what it decided', async () => {
    await filled();
    expect(await reusable({ ...machine, bootId: 'boot-2' })).toBe(false);
    const unlucky = await open(data, { ...machine, bootId: 'boot-3' });
    expect(unlucky.originReusable).toBe(false);
    await unlucky.close();
    expect(await reusable({ ...machine, bootId: 'boot-3' })).toBe(false);
    expect(await reusable({ ...machine, bootId: 'boot-3' })).toBe(true);
  });

  it('yes after a clean close, again and again', async () => {
    await filled();
    expect([await reusable(), await reusable()]).toEqual([true, true]);
  });

  it('not after a reboot, nor on a system that cannot tell', async () => {
    await filled();
    expect(await reusable({ ...machine, bootId: 'boot-2' })).toBe(false);
    expect(await reusable({ ...machine, bootId: 'boot-2' })).toBe(true);
    const unknowing = { ...machine, bootId: undefined };
    expect([await reusable(unknowing), await reusable(unknowing)]).toEqual([false, false]);
  });

  it('not in a copy of the folder, while the original keeps its own', async () => {
    await filled();
    const copy = join(root, 'copy');
    cpSync(data, copy, { recursive: true });
    const clone = await open(copy);
    expect(clone).toMatchObject({ created: false, originReusable: false });
    expect(await keysIn(clone)).toEqual(['a', 'b']);
    expect(await reusable()).toBe(true);
  });

  it('not in a copy that was put in the place of the original', async () => {
    await filled();
    cpSync(data, join(root, 'copy'), { recursive: true });
    renameSync(data, join(root, 'old'));
    renameSync(join(root, 'copy'), data);
    expect(await reusable()).toBe(false);
  });

  it('not when an earlier backup of the database was restored in place', async () => {
    await filled();
    cpSync(join(data, 'db'), join(root, 'backup'), { recursive: true });
    await (await open()).close();
    rmSync(join(data, 'db'), { recursive: true });
    cpSync(join(root, 'backup'), join(data, 'db'), { recursive: true });
    expect(await reusable()).toBe(false);
  });

  it('not when a copy taken during the very same opening was restored: it lacks acknowledged batches', async () => {
    const folder = await open();
    await folder.store.write(puts(ORIGIN_A, 1, ['a']));
    cpSync(join(data, 'db'), join(root, 'hot'), { recursive: true });
    await folder.store.write(puts(ORIGIN_A, 2, ['b']));
    await folder.close();
    rmSync(join(data, 'db'), { recursive: true });
    cpSync(join(root, 'hot'), join(data, 'db'), { recursive: true });
    const restored = await open();
    expect(restored.store.recovered.heads.get(ORIGIN_A)).toBe(1);
    expect(restored.originReusable).toBe(false);
  });

  it('not after it was invalidated, and not after a batch failed', async () => {
    const first = await open();
    first.invalidate();
    first.invalidate();
    await first.close();
    expect(await reusable()).toBe(false);
    expect(await reusable()).toBe(true);
    const failing = await open();
    renameSync(join(data, 'db'), join(data, 'db.gone'));
    await expect(failing.store.write(puts(ORIGIN_A, 1, ['a']))).rejects.toEqual(refused('STORE_FAILED'));
    renameSync(join(data, 'db.gone'), join(data, 'db'));
    await failing.close();
    expect(await reusable()).toBe(false);
  });

  it('not when somebody else could have written the record, or it is unreadable', async () => {
    await filled();
    writeFileSync(record(), 'rubbish\n');
    expect([await reusable(), await reusable()]).toEqual([false, true]);
    rmSync(record());
    expect([await reusable(), await reusable()]).toEqual([false, true]);
    chmodSync(join(record(), '..'), 0o777);
    expect([await reusable(), await reusable()]).toEqual([false, false]);
  });

  it('an opening that fails in between does not let an older state pass for the latest', async () => {
    await filled();
    const current = join(data, 'db/CURRENT');
    renameSync(current, join(root, 'CURRENT'));
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED'));
    renameSync(join(root, 'CURRENT'), current);
    expect(await reusable()).toBe(true);
  });
});

describe('one opener at a time', () => {
  const lock = () => join(data, 'lock');

  it('a second opening in this process is refused, whatever the path is called, and works after closing', async () => {
    const first = await open();
    symlinkSync(data, join(root, 'alias'));
    for (const path of [data, `${data}/`, join(root, 'alias'), join(data, '../data')])
      await expect(open(path)).rejects.toEqual(refused('STORE_IN_USE', /this very process/));
    // The refusal cost the first one nothing.
    await first.store.write(puts(ORIGIN_A, 1, ['a']));
    expect(existsSync(lock())).toBe(true);
    await first.close();
    expect(existsSync(lock())).toBe(false);
    expect(await keysIn(await open(join(root, 'alias')))).toEqual(['a']);
  });

  it('two openings at the same moment: one wins', async () => {
    const results = await Promise.allSettled([open(), open(), open()]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected']);
  });

  it('a failed opening gives the folder up', async () => {
    await filled();
    renameSync(join(data, 'db'), join(root, 'db'));
    await expect(open()).rejects.toEqual(refused('STORE_UNTRUSTED'));
    expect(existsSync(lock())).toBe(false);
    renameSync(join(root, 'db'), join(data, 'db'));
    expect(await keysIn(await open())).toEqual(['a', 'b']);
  });

  it('a lock of an earlier boot, of a process that is gone, of a number given anew or without content is stale', async () => {
    await filled();
    const gone = { pid: 2 ** 22 + 1, startTime: 5, bootId: 'boot-1' };
    const locks = [{ ...gone, pid: 1, bootId: 'boot-0' }, gone, { ...gone, pid: process.pid }];
    for (const content of [...locks.map((holder) => JSON.stringify(holder)), '']) {
      writeFileSync(lock(), content);
      const folder = await open();
      expect(JSON.parse(readFileSync(lock(), 'utf8'))).toMatchObject({ pid: process.pid, bootId: 'boot-1' });
      await folder.close();
      expect(readdirSync(data).sort()).toEqual(['db', 'readmesh.json']);
    }
  });

  it('a lock of a living process, and a file that is not a lock of ours, are respected', async () => {
    await filled();
    const stat = readFileSync(`/proc/${process.ppid}/stat`, 'utf8');
    const startTime = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
    writeFileSync(lock(), JSON.stringify({ pid: process.ppid, startTime, bootId: 'boot-1' }));
    await expect(open()).rejects.toEqual(refused('STORE_IN_USE', new RegExp(`process ${process.ppid}`)));
    writeFileSync(lock(), 'somebody was here');
    await expect(open()).rejects.toEqual(refused('STORE_IN_USE', /not a lock of ours/));
    expect(readFileSync(lock(), 'utf8')).toBe('somebody was here');
  });

  it("closing leaves alone a lock that is not this opening's", async () => {
    const folder = await open();
    writeFileSync(lock(), 'another');
    await folder.close();
    expect(readFileSync(lock(), 'utf8')).toBe('another');
  });
});

describe('troubles of the machine', () => {
  it('are told from damage, in one line that says what to do', async () => {
    const { openFailure } = await import('../../src/storage/disk-errors.js');
    const cases: [unknown, string, RegExp][] = [
      [
        Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' }),
        'STORE_FAILED',
        /ulimit -n/,
      ],
      [
        levelError('IO error: /d/db/000005.log: Too many open files', 'LEVEL_IO_ERROR'),
        'STORE_FAILED',
        /ulimit -n/,
      ],
      [
        Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' }),
        'STORE_FAILED',
        /own the folder/,
      ],
      [
        levelError('IO error: /d/db/LOCK: Permission denied', 'LEVEL_IO_ERROR'),
        'STORE_FAILED',
        /own the folder/,
      ],
      [
        levelError('IO error: /d/db/LOG: No space left on device', 'LEVEL_IO_ERROR'),
        'STORE_FAILED',
        /free some/,
      ],
      [Object.assign(new Error('EROFS: read-only'), { code: 'EROFS' }), 'STORE_FAILED', /read-only/],
      [Object.assign(new Error('ELOOP: loop'), { code: 'ELOOP' }), 'STORE_FAILED', /mend the folder/],
      [levelError('IO error: lock /d/db/LOCK: busy', 'LEVEL_LOCKED'), 'STORE_IN_USE', /stop it first/],
      [
        levelError('Corruption: 2 missing files; e.g.: /d/db/000007.ldb', 'LEVEL_CORRUPTION'),
        'STORE_UNTRUSTED',
        /--rebuild/,
      ],
      [
        levelError('Invalid argument: /d/db: does not exist (create_if_missing is false)'),
        'STORE_UNTRUSTED',
        /--rebuild/,
      ],
    ];
    for (const [error, code, message] of cases) {
      const failure = openFailure('/d', error);
      expect(failure).toEqual(refused(code, message));
      expect(failure.message).not.toContain('\n');
    }
  });

  it('a full or unwritable place for temporary files costs the origin, never the store', async () => {
    const nowhere = { ...machine, temporary: join(root, 'tmp/file') };
    writeFileSync(nowhere.temporary, '');
    for (let i = 0; i < 2; i++) {
      const folder = await open(data, nowhere);
      expect(folder.originReusable).toBe(false);
      await folder.store.write(puts(ORIGIN_A, i + 1, [`k${i}`]));
      await folder.close();
    }
    expect(realpathSync(data)).toBe(realpathSync(opened[0]!.path));
  });
});

function levelError(text: string, code?: string): Error {
  const cause = Object.assign(new Error(text), code === undefined ? {} : { code });
  return Object.assign(new Error('Database failed to open', { cause }), { code: 'LEVEL_DATABASE_NOT_OPEN' });
}
