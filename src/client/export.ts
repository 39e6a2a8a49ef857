/** Reading entries together with how long they are still there: what `export` and reads through a peer need. */
import type { MsgpackWriter } from '../msgpack-writer.js';
import type { Range, Value } from '../read-store.js';
import { Call, type CallPolicy } from './calls.js';
import type { ClientFrame } from './frame.js';
import { expect, head, valueAt } from './operations.js';
import { OP_EXPORT, ROWS_PER_PAGE_MAX } from './wire.js';

export interface ExportedEntry {
  readonly key: string;
  readonly value: Value;
  /** Milliseconds until it expires, counted when its host answered; absent: it stays. */
  readonly ttlMs?: number;
}

export interface ExportPage {
  readonly entries: readonly ExportedEntry[];
  readonly end: boolean;
}

export class ExportCall extends Call<ExportPage> {
  readonly size = 64;

  constructor(
    readonly policy: CallPolicy,
    readonly range: Range,
    readonly limit: number,
  ) {
    super();
  }

  write(writer: MsgpackWriter, id: number): void {
    const { gt, gte, lt, lte, prefix, reverse } = this.range;
    head(writer, id, OP_EXPORT, 8);
    for (const bound of [gt, gte, lt, lte, prefix]) {
      if (bound === undefined) writer.nil();
      else writer.str(bound);
    }
    writer.bool(reverse ?? false);
    writer.uint(this.limit);
    writer.bool(false);
  }

  protected read(frame: ClientFrame, elements: number): ExportPage {
    expect(frame, elements, 2);
    const count = frame.array('rows', ROWS_PER_PAGE_MAX, 3);
    const found: { key: string; from: number; to: number; ttlMs: number | undefined }[] = [];
    for (let i = 0; i < count; i++) {
      const key = frame.key();
      if (!frame.value()) frame.fail('value', 'is missing');
      const { from, to } = frame;
      found.push({ key, from, to, ttlMs: frame.nil() ? undefined : frame.uint('ttlMs') });
    }
    const end = frame.bool('end');
    if (count === 0 && !end) frame.fail('rows', 'is empty before the end');
    const { bytes } = frame;
    const entries = found.map(({ key, from, to, ttlMs }): ExportedEntry => {
      const value = valueAt(key, bytes, from, to);
      return ttlMs === undefined ? { key, value } : { key, value, ttlMs };
    });
    return { entries, end };
  }
}

/** One page after the other, each from whichever host answers; the next one is asked for ahead of need. */
export async function* exportEntries(
  range: Range,
  fetch: (range: Range, limit: number) => Promise<ExportPage>,
): AsyncGenerator<ExportedEntry, void, undefined> {
  let left = range.limit ?? Number.POSITIVE_INFINITY;
  const ask = (rest: Range): Promise<ExportPage> => {
    const page = fetch(rest, Math.min(left, ROWS_PER_PAGE_MAX));
    // When the reader leaves early nobody awaits it.
    page.catch(() => {});
    return page;
  };
  for (let next = left === 0 ? undefined : ask(range); next !== undefined; ) {
    const { entries, end }: ExportPage = await next;
    left -= entries.length;
    const last = entries.at(-1)?.key;
    const more = !end && left > 0 && last !== undefined;
    next = more ? ask(range.reverse === true ? { ...range, lt: last } : { ...range, gt: last }) : undefined;
    yield* entries;
  }
}
