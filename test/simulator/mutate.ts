/**
 * Builds patched copies of the core, so that no test code stands in src/: the copies and what the compiler makes
 * of them live in a folder of their own below node_modules, which is not checked in, until they are removed.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { ReplicaCore } from '../../src/core/replica.js';
import type { Mutant } from './mutants.js';

/** What the core is made of, below src/. */
const PARTS = ['core', 'errors.ts', 'options.ts', 'checksum.ts'];

export interface Copies {
  /** The core of one mutant. */
  load(mutant: Mutant): Promise<typeof ReplicaCore>;
  remove(): void;
}

/** Throws when a patch does not fit its file exactly once. */
export function copyWithBugs(mutants: readonly Mutant[]): Copies {
  const root = projectRoot();
  const folder = join(root, 'node_modules', '.cache', 'mutants', String(process.pid));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }\n');
  mutants.forEach((mutant, i) => {
    const src = join(folder, 'src', String(i));
    for (const part of PARTS) cpSync(join(root, 'src', part), join(src, part), { recursive: true });
    for (const { file, find, replace } of mutant.edits) {
      const path = join(src, file);
      const text = readFileSync(path, 'utf8');
      const places = text.split(find).length - 1;
      if (places !== 1)
        throw new Error(`"${mutant.name}": ${places} places in ${file} fit ${JSON.stringify(find)}`);
      writeFileSync(
        path,
        text.replace(find, () => replace),
      );
    }
  });
  const config = join(folder, 'tsconfig.json');
  const options = { noCheck: true, declaration: false, sourceMap: false, rootDir: 'src', outDir: 'out' };
  const base = join(root, 'tsconfig.base.json');
  writeFileSync(
    config,
    JSON.stringify({
      extends: base,
      compilerOptions: options,
      include: ['src'],
      exclude: ['src/*/core/tsconfig.json'],
    }),
  );
  const compiler = join(
    dirname(createRequire(import.meta.url).resolve('typescript/package.json')),
    'bin',
    'tsc',
  );
  execFileSync(process.execPath, [compiler, '-p', config], { stdio: 'pipe' });
  return {
    load: async (mutant) => {
      const file = join(folder, 'out', String(mutants.indexOf(mutant)), 'core', 'replica.js');
      const module = (await import(/* @vite-ignore */ pathToFileURL(file).href)) as {
        ReplicaCore: typeof ReplicaCore;
      };
      return module.ReplicaCore;
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!folderHas(folder, 'tsconfig.base.json')) folder = dirname(folder);
  return folder;
}

function folderHas(folder: string, file: string): boolean {
  try {
    readFileSync(join(folder, file));
    return true;
  } catch {
    return false;
  }
}
