/** Folders and raw databases for the storage tests. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';

export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), 'readmesh-storage-test-'));
}

export function removeFolder(path: string): void {
  rmSync(path, { recursive: true, force: true });
}

/** Works on a closed store's database behind its back. */
export async function tamper(
  location: string,
  work: (db: ClassicLevel<string, Uint8Array>) => Promise<void>,
): Promise<void> {
  const db = new ClassicLevel<string, Uint8Array>(location, {
    createIfMissing: false,
    keyEncoding: 'utf8',
    valueEncoding: 'view',
  });
  await db.open();
  try {
    await work(db);
  } finally {
    await db.close();
  }
}
