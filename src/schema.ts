/**
 * Checking what people write (configuration files, query strings) with zod, and saying what is wrong in one line
 * that can be acted on: the member's path, what it must be, and for a name that is not known the nearest that is.
 */
import type { z } from 'zod';
import { ReadmeshError } from './errors.js';

/** Parses `input`. Throws INVALID_OPTION; `where` begins the message. */
export function parseWith<T extends z.ZodType>(schema: T, input: unknown, where: string): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new ReadmeshError('INVALID_OPTION', `${where}: ${describeIssue(result.error.issues[0]!, schema)}`);
}

function describeIssue(issue: z.core.$ZodIssue, schema: z.ZodType): string {
  const path = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    const [name = ''] = issue.keys;
    const known = membersAt(schema, path);
    const near = nearest(name, known);
    const hint = near === undefined ? `known are ${known.join(', ')}` : `did you mean "${near}"?`;
    return `"${[...path, name].join('.')}" is not known: ${hint}`;
  }
  return path.length === 0 ? issue.message : `${path.join('.')} ${issue.message}`;
}

interface ObjectShape {
  shape?: Record<string, z.ZodType>;
  unwrap?: () => z.ZodType;
}

/** Names that the object at `path` may have. */
function membersAt(schema: z.ZodType, path: readonly string[]): string[] {
  const object = schema as ObjectShape;
  if (object.shape === undefined) return object.unwrap === undefined ? [] : membersAt(object.unwrap(), path);
  const [head, ...rest] = path;
  if (head === undefined) return Object.keys(object.shape);
  const next = object.shape[head];
  return next === undefined ? [] : membersAt(next, rest);
}

/** The candidate that a typing mistake most likely meant, if one is near enough. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 2)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance >= bestDistance) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best;
}

const NAME_LENGTH_MAX = 64;

/** Levenshtein's distance; names far too long count as entirely different. */
function editDistance(a: string, b: string): number {
  if (a.length > NAME_LENGTH_MAX || b.length > NAME_LENGTH_MAX) return Number.POSITIVE_INFINITY;
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substitution, previous[j]! + 1, current[j - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}

/** Items of a comma-separated list (or of several), without blanks. */
export function splitList(list: string | readonly string[]): string[] {
  const items = typeof list === 'string' ? [list] : list;
  return items
    .flatMap((item) => item.split(','))
    .map((item) => item.trim())
    .filter((item) => item !== '');
}
