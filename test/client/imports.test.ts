/** What `readmesh/client` loads: nothing of a node, and no native store. */
import { readFileSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const SOURCE = resolve(dirname(fileURLToPath(import.meta.url)), '../../src');
const IMPORT = /^(?:import|export)\s(?!type\s)[^;]*?from\s'([^']+)'|^import\s'([^']+)'/gm;

/** Files and packages that are loaded with `entry`; type-only imports are not. */
function loadedWith(entry: string): Set<string> {
  const loaded = new Set<string>();
  const visit = (file: string): void => {
    const name = relative(SOURCE, file);
    if (loaded.has(name)) return;
    loaded.add(name);
    for (const [, from, bare] of readFileSync(file, 'utf8').matchAll(IMPORT)) {
      const target = (from ?? bare)!;
      if (target.startsWith('.')) visit(resolve(dirname(file), target.replace(/\.js$/, '.ts')));
      else loaded.add(target);
    }
  };
  visit(resolve(SOURCE, entry));
  return loaded;
}

test('the light client loads no store, no node and no replication core', () => {
  const loaded = [...loadedWith('client/index.ts')];
  expect(loaded).toContain('client/connection.ts');
  expect(loaded).toContain('ws');
  expect(loaded.filter((name) => /^(classic-level|storage\/|node\/|node\.ts|http)/.test(name))).toEqual([]);
  const core = loaded.filter((name) => name.startsWith('core/')).sort();
  expect(core).toEqual(['core/entry.ts', 'core/expiry.ts', 'core/hlc.ts']);
  expect(loaded.filter((name) => name.startsWith('client/server'))).toEqual([]);
});

test('the same look at the node does find its store', () => {
  expect([...loadedWith('index.ts')]).toContain('classic-level');
});
