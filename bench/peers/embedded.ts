/** Stores within the process: lmdb and better-sqlite3, each with the rows of a bench in it. */
import { join } from 'node:path';
import type { Context } from '../harness.js';
import { peerVersion, requirePeer } from './load.js';

/** One store to read from. */
export interface EmbeddedPeer extends AsyncDisposable {
  readonly label: string;
  get(key: string): string | undefined;
}

type Rows = readonly (readonly [key: string, value: string])[];

interface LmdbDatabase {
  get(key: string): string | undefined;
  put(key: string, value: string): Promise<boolean>;
  transactionSync<T>(work: () => T): T;
  putSync(key: string, value: string): unknown;
  close(): Promise<void>;
}

/** Throws PeerMissing. */
export function openLmdb(context: Context, rows: Rows): EmbeddedPeer {
  const { open } = requirePeer<{ open(options: object): LmdbDatabase }>('lmdb');
  const db = open({ path: join(context.folder(), 'db'), encoding: 'msgpack', cache: false, noSync: true });
  db.transactionSync(() => {
    for (const [key, value] of rows) db.putSync(key, value);
  });
  context.took({
    name: 'lmdb',
    version: `lmdb ${peerVersion('lmdb')} (npm)`,
    settings: 'msgpack values, cache off; loaded without flushing',
    caveat: 'one host; no checksums; the map is the page cache itself',
  });
  return { label: 'lmdb, cache off', get: (key) => db.get(key), [Symbol.asyncDispose]: () => db.close() };
}

interface SqliteDatabase {
  pragma(text: string): unknown;
  exec(sql: string): unknown;
  prepare(sql: string): SqliteStatement;
  transaction(work: () => void): () => void;
  close(): unknown;
}

interface SqliteStatement {
  pluck(): SqliteStatement;
  get(key: string): string | undefined;
  run(key: string, value: string): unknown;
}

/** Throws PeerMissing. */
export function openSqlite(context: Context, rows: Rows): EmbeddedPeer {
  const Database = requirePeer<new (file: string) => SqliteDatabase>('better-sqlite3');
  const db = new Database(join(context.folder(), 'db.sqlite'));
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = OFF');
  db.pragma('mmap_size = 1073741824');
  db.exec('CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID');
  const insert = db.prepare('INSERT INTO kv VALUES (?, ?)');
  db.transaction(() => {
    for (const [key, value] of rows) insert.run(key, value);
  })();
  const select = db.prepare('SELECT value FROM kv WHERE key = ?').pluck();
  context.took({
    name: 'SQLite',
    version: `better-sqlite3 ${peerVersion('better-sqlite3')} (npm)`,
    settings: 'WITHOUT ROWID, WAL, 1 GiB of mmap, prepared statement, TEXT values',
    caveat: 'one host; no checksums',
  });
  return {
    label: 'SQLite',
    get: (key) => select.get(key),
    [Symbol.asyncDispose]: async () => void db.close(),
  };
}
