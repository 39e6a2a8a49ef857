/**
 * Entries as lines of JSON: `{"key":...,"value":...}`, with `"ttlMs":...` if they expire, and `{"key":...,"deleted":true}`
 * for a deletion. `export` and `scan` write the former, files of what was set aside both; `import` reads both.
 */
import { stringifyValue } from './json.js';
import type { Value } from './read-store.js';

/** `ttlMs`: how long it is still there. */
export function formatEntry(key: string, value: Value, ttlMs?: number): string {
  const ttl = ttlMs === undefined ? '' : `,"ttlMs":${ttlMs}`;
  return `{"key":${JSON.stringify(key)},"value":${stringifyValue(value)}${ttl}}`;
}

export function formatDeletion(key: string): string {
  return `{"key":${JSON.stringify(key)},"deleted":true}`;
}
