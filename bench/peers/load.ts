/**
 * What the benches compare with is no dependency of ours: packages lie in the folder bench/peers of the sources
 * (see bench/install-peers), programs on the PATH. What is missing is skipped, and the reason said.
 */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context } from '../harness.js';

/** Why a peer cannot take part. */
export class PeerMissing extends Error {}

/** Debian puts servers where an ordinary user's PATH does not look. */
const SERVER_FOLDERS = ['/usr/sbin', '/usr/local/sbin'];
const INSTALL = 'run bench/install-peers';

/** This file is dist/bench/peers/load.js. */
function peersFolder(): string {
  return process.env.READMESH_BENCH_PEERS ?? fileURLToPath(new URL('../../../bench/peers/', import.meta.url));
}

/** Throws PeerMissing. `T` is the narrow part of the package that a bench uses. */
export function requirePeer<T>(name: string): T {
  const require = createRequire(join(peersFolder(), 'package.json'));
  try {
    return require(name) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND')
      throw new PeerMissing(`the npm package ${name} is not installed: ${INSTALL}`);
    throw new PeerMissing(`the npm package ${name} cannot be loaded: ${(error as Error).message}`);
  }
}

export function peerVersion(name: string): string {
  const file = join(peersFolder(), 'node_modules', name, 'package.json');
  return existsSync(file)
    ? (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
    : 'unknown';
}

/** Path of a program. Throws PeerMissing. */
export function findProgram(name: string): string {
  const onPath = process.env.PATH ?? '';
  // An empty PATH is how a test says that nothing is installed.
  const folders = onPath === '' ? [] : [...onPath.split(delimiter), ...SERVER_FOLDERS];
  for (const folder of folders) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here.
    }
  }
  throw new PeerMissing(`the program ${name} is not installed: ${INSTALL}`);
}

/** Starts a peer; undefined, with the reason in the report, when it is not installed. */
export async function peer<T>(
  context: Context,
  name: string,
  start: () => Promise<T> | T,
): Promise<T | undefined> {
  try {
    return await start();
  } catch (error) {
    if (!(error instanceof PeerMissing)) throw error;
    context.skip(name, error.message);
    return undefined;
  }
}
