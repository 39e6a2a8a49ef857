/**
 * Where a text stops being JSON. The error of JSON.parse names the place in some cases only, and differently
 * from one version of V8 to the next; this is asked only after it has failed.
 */

/** One token, after white space. Sticky: it begins where the last one ended. */
const TOKEN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON refuses them within strings.
  /[ \t\n\r]*(?:([{}[\],:])|("[^"\\\u0000-\u001f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\u0000-\u001f]*)*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null))/y;
const SPACE = /[ \t\n\r]*/y;

/** What may come next: a value, or (right after `[`) a value or `]`, and so on. */
type Next = 'value' | 'value-or-end' | 'name' | 'name-or-end' | 'colon' | 'comma-or-end';

/**
 * Offset of the first token that cannot be part of JSON; the length of the text if it only ends too soon (or is
 * JSON after all).
 */
export function jsonErrorPosition(text: string): number {
  const open: ('[' | '{')[] = [];
  let next: Next | 'nothing' = 'value';
  TOKEN.lastIndex = 0;
  for (;;) {
    const from = TOKEN.lastIndex;
    const token = TOKEN.exec(text);
    if (token === null) return tokenStart(text, from);
    const start = TOKEN.lastIndex - (token[1] ?? token[2] ?? token[3]!).length;
    const after = step(token, next, open);
    if (after === undefined) return start;
    next = after;
  }
}

function tokenStart(text: string, from: number): number {
  SPACE.lastIndex = from;
  SPACE.exec(text);
  return SPACE.lastIndex;
}

/** What may follow the token, or undefined if it may not stand here. */
function step(
  token: RegExpExecArray,
  next: Next | 'nothing',
  open: ('[' | '{')[],
): Next | 'nothing' | undefined {
  const [, mark, string] = token;
  const afterValue = (): Next | 'nothing' => (open.length === 0 ? 'nothing' : 'comma-or-end');
  const takesValue = next === 'value' || next === 'value-or-end';
  if (mark === undefined) {
    if (takesValue) return afterValue();
    return string !== undefined && (next === 'name' || next === 'name-or-end') ? 'colon' : undefined;
  }
  switch (mark) {
    case '{':
    case '[':
      if (!takesValue) return undefined;
      open.push(mark);
      return mark === '{' ? 'name-or-end' : 'value-or-end';
    case '}':
    case ']': {
      const own = mark === '}' ? '{' : '[';
      const empty = mark === '}' ? 'name-or-end' : 'value-or-end';
      if (open.at(-1) !== own || (next !== 'comma-or-end' && next !== empty)) return undefined;
      open.pop();
      return afterValue();
    }
    case ':':
      return next === 'colon' ? 'value' : undefined;
    default:
      if (next !== 'comma-or-end') return undefined;
      return open.at(-1) === '{' ? 'name' : 'value';
  }
}
