/** Whether a folder takes writes again: asked before a store is reopened, which needs room by itself. */
import { open, readdir, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';

const PROBE_FILE = 'probe';
const PROBE_BYTES = 65_536;
/** Beyond what replaying the logs takes: a manifest, a new log, some to go on with. */
const SPARE_BYTES = 4 * 1024 * 1024;

/** Resolves when `folder` takes a flushed file and has room for its database to be reopened; else rejects. */
export async function probeFolder(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < (await logBytes(join(folder, 'db'))) + SPARE_BYTES)
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  const path = join(folder, PROBE_FILE);
  const file = await open(path, 'w');
  try {
    await file.write(new Uint8Array(PROBE_BYTES));
    await file.sync();
  } finally {
    await file.close();
    await unlink(path).catch(() => undefined);
  }
}

/** Replaying the logs writes their contents once more, as tables. */
async function logBytes(database: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(database))
    if (name.endsWith('.log')) bytes += (await stat(join(database, name))).size;
  return bytes;
}
