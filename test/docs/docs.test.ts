import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ERRORS } from '../../src/errors.js';
import { CLUSTER_DEFAULTS, HOST_DEFAULTS, TRANSPORT_DEFAULTS } from '../../src/options.js';

const page = (name: string): string => readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');

test('the page of errors lists every code as the code has it, and no other', () => {
  const listed = new Map(
    [...page('docs/errors.md').matchAll(/^\| `([A-Z_]+)` \| .* \| (\w+) \| (\d+) \| (\d) \|$/gm)].map((m) => [
      m[1]!,
      { outcome: m[2], http: Number(m[3]), exit: Number(m[4]) },
    ]),
  );
  const expected = Object.entries(ERRORS).map(([code, { outcome, http, exit }]) => [
    code,
    { outcome, http, exit },
  ]);
  expect([...listed].sort()).toEqual(expected.sort());
});

test('the page of options lists every option with its default', () => {
  const text = page('docs/options.md');
  for (const [name, value] of Object.entries({
    ...TRANSPORT_DEFAULTS,
    ...CLUSTER_DEFAULTS,
    ...HOST_DEFAULTS,
  }))
    expect(text, name).toContain(`| \`${name}\` | ${value.toLocaleString('en-US')} |`);
});

test('the README begins with the two commands', () => {
  const text = page('README.md');
  expect(text).toContain('npm ci && npm run demo');
  expect(text).toContain('npm ci && npm test');
});

test('the page of the simulation names scenarios that exist', () => {
  const files = {
    R: 'scenarios/replication',
    F: 'scenarios/faults',
    X: 'scenarios/exclusion',
    Y: 'scenarios/exclusion-races',
    B: 'scenarios/bootstrap',
    D: 'scenarios/digest',
    H: 'scenarios/horizon',
    S: 'scenarios/sealing',
    L: 'scenarios/relays',
    T: 'scenarios/return',
    M: 'disk-model',
  };
  const text = page('docs/simulation.md');
  const table = text.slice(text.indexOf('| Rule |'), text.indexOf('## What it found'));
  const named = new Map<string, Set<string>>();
  for (const [, letter, title] of table.matchAll(/[|;] ([A-Z]): (.+?)(?=; [A-Z]: | \|\n)/g))
    named.set(letter!, (named.get(letter!) ?? new Set()).add(title!));
  expect([...named.keys()].sort()).toEqual(Object.keys(files).sort());
  for (const [letter, file] of Object.entries(files)) {
    const source = page(`test/simulator/${file}.test.ts`);
    const exists = new Set(
      [...source.matchAll(/^ *test(?:\.each\(.*\))?\(\s*['`"](.+)['`"],/gm)].map((match) => match[1]!),
    );
    expect([...named.get(letter)!].filter((title) => !exists.has(title))).toEqual([]);
  }
});
