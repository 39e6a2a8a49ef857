import { describe, expect, test } from 'vitest';
import { LINE_BYTES_MAX, parseEntry, readLines } from '../../bin/cli/entry-lines.js';
import { Importer } from '../../bin/cli/importer.js';
import { formatDeletion, formatEntry } from '../../src/entry-line.js';
import { ReadmeshError } from '../../src/errors.js';
import type { BatchOperation, Receipt, Value } from '../../src/read-store.js';

async function* chunks(...pieces: (string | Uint8Array)[]): AsyncGenerator<Buffer> {
  for (const piece of pieces) yield Buffer.from(piece as string);
}

const RECEIPT: Receipt = { stamp: '', replicas: 2, token: '', superseded: false };

/** Takes batches, one after the other or all at once, and counts how many wait. */
class FakeStore {
  readonly ops: BatchOperation[][] = [];
  waiting = 0;
  waitingMax = 0;
  failAt = Number.POSITIVE_INFINITY;

  async batch(ops: readonly BatchOperation[]): Promise<Receipt> {
    const index = this.ops.push([...ops]) - 1;
    this.waiting += 1;
    this.waitingMax = Math.max(this.waitingMax, this.waiting);
    await new Promise(setImmediate);
    this.waiting -= 1;
    if (index >= this.failAt) throw new ReadmeshError('ACK_TIMEOUT', '1 of 2 hosts');
    return RECEIPT;
  }

  get all(): BatchOperation[] {
    return this.ops.flat();
  }
}

const lines = (count: number): string =>
  Array.from({ length: count }, (_, i) => `${formatEntry(`k${i}`, i)}\n`).join('');

describe('lines', () => {
  test('are cut wherever the chunks are, with or without a last line end', async () => {
    const seen: [number, string][] = [];
    for await (const { number, bytes } of readLines(chunks('a\nb', 'c\r\n', '\n', 'd\ne')))
      seen.push([number, bytes.toString()]);
    expect(seen).toEqual([
      [1, 'a'],
      [2, 'bc'],
      [3, ''],
      [4, 'd'],
      [5, 'e'],
    ]);
  });

  test('a multi-byte character may be cut by a chunk', async () => {
    const whole = Buffer.from(formatEntry('\u{1F30D}', '\u4E2D'));
    const pieces = Array.from(whole, (byte) => Uint8Array.of(byte));
    for await (const line of readLines(chunks(...pieces)))
      expect(parseEntry(line)).toEqual({ type: 'put', key: '\u{1F30D}', value: '\u4E2D' });
  });

  test('one without an end is refused at the cap', async () => {
    const endless = async (): Promise<void> => {
      const piece = 'x'.repeat(1_048_576);
      for await (const line of readLines(chunks('{}\n', ...new Array(9).fill(piece))))
        expect(line.number).toBe(1);
    };
    await expect(endless()).rejects.toMatchObject({
      code: 'INVALID_JSON',
      message: expect.stringContaining(`line 2 is longer than ${LINE_BYTES_MAX}`),
    });
  });

  test.each<[string, string, string]>([
    ['no JSON', '{"key":', 'INVALID_JSON'],
    ['no object', '5', 'INVALID_JSON'],
    ['a list', '["a",1]', 'INVALID_JSON'],
    ['no key', '{"value":1}', 'INVALID_JSON'],
    ['no value', '{"key":"a"}', 'INVALID_JSON'],
    ['a member too many', '{"key":"a","value":1,"stamp":"x"}', 'INVALID_JSON'],
    ['a deletion with a value', '{"key":"a","value":1,"deleted":true}', 'INVALID_JSON'],
    ['a deletion that is none', '{"key":"a","deleted":false}', 'INVALID_JSON'],
    ['a deletion of nothing', '{"key":"","deleted":true}', 'INVALID_KEY'],
    ['an expiry of nothing', '{"key":"a","value":1,"ttlMs":null}', 'INVALID_OPTION'],
    ['an expiry at once', '{"key":"a","value":1,"ttlMs":0}', 'INVALID_OPTION'],
    ['an expiry in words', '{"key":"a","value":1,"ttlMs":"5"}', 'INVALID_OPTION'],
    ['a key that is no text', '{"key":5,"value":1}', 'INVALID_KEY'],
    ['an empty key', '{"key":"","value":1}', 'INVALID_KEY'],
    ['a lone surrogate', '{"key":"\\ud800","value":1}', 'INVALID_KEY'],
    ['a value of no kind', '{"key":"a","value":{"$foo":1}}', 'INVALID_VALUE'],
    ['a prototype', '{"key":"a","value":{"__proto__":1}}', 'INVALID_VALUE'],
    ['a value too large', `{"key":"a","value":"${'x'.repeat(1_048_577)}"}`, 'VALUE_TOO_LARGE'],
  ])('%s is refused with the number of the line', (_, text, code) => {
    const parse = (): unknown => parseEntry({ number: 7, bytes: Buffer.from(text) });
    expect(parse).toThrow(expect.objectContaining({ code, message: expect.stringMatching(/^line 7: /) }));
  });

  test('an expiry is read back as it was written', () => {
    const bytes = Buffer.from(formatEntry('k', 'v', 2 ** 47 - 1));
    expect(bytes.toString()).toBe('{"key":"k","value":"v","ttlMs":140737488355327}');
    expect(parseEntry({ number: 1, bytes })).toEqual({
      type: 'put',
      key: 'k',
      value: 'v',
      ttlMs: 2 ** 47 - 1,
    });
  });

  test('a deletion is read back as one', () => {
    expect(parseEntry({ number: 1, bytes: Buffer.from(formatDeletion('k"')) })).toEqual({
      type: 'del',
      key: 'k"',
    });
  });

  test('what export writes is read back exactly', () => {
    const values: Value[] = [
      null,
      -0,
      Number.NaN,
      2n ** 70n,
      new Date(0),
      { $price: 1 },
      [Uint8Array.of(1, 255)],
    ];
    for (const value of values)
      expect(parseEntry({ number: 1, bytes: Buffer.from(formatEntry('k\0"', value)) })).toEqual({
        type: 'put',
        key: 'k\0"',
        value,
      });
  });
});

describe('an import', () => {
  test('writes every entry once, in batches of which only some are in flight', async () => {
    const store = new FakeStore();
    const importer = new Importer(store, {});
    expect(await importer.run(readLines(chunks(lines(4_321))))).toBe(4_321);
    expect(store.all.map((op) => op.key)).toEqual(Array.from({ length: 4_321 }, (_, i) => `k${i}`));
    expect(Math.max(...store.ops.map((ops) => ops.length))).toBe(500);
    expect(store.waitingMax).toBe(4);
  });

  test('closes a batch early when its lines are long', async () => {
    const store = new FakeStore();
    const value = 'x'.repeat(400_000);
    const text = Array.from({ length: 6 }, (_, i) => `${formatEntry(`k${i}`, value)}\n`).join('');
    await new Importer(store, {}).run(readLines(chunks(text)));
    expect(store.ops.map((ops) => ops.length)).toEqual([2, 2, 2]);
  });

  test('skips blank lines', async () => {
    const store = new FakeStore();
    expect(await new Importer(store, {}).run(readLines(chunks('\n', lines(1), '  \r\n')))).toBe(1);
  });

  test('stops at a bad line, with all before it imported and nothing after', async () => {
    const store = new FakeStore();
    const running = new Importer(store, {}).run(readLines(chunks(lines(1_200), 'oops\n', lines(3))));
    await expect(running).rejects.toMatchObject({
      code: 'INVALID_JSON',
      message: expect.stringMatching(/^line 1201: .*1,200 entries imported before/),
      details: { line: 1_201, imported: 1_200 },
    });
    expect(store.all).toHaveLength(1_200);
  });

  test('stops at a batch that fails, and counts only what was acknowledged', async () => {
    const store = new FakeStore();
    store.failAt = 2;
    const running = new Importer(store, {}).run(readLines(chunks(lines(50_000))));
    await expect(running).rejects.toMatchObject({
      code: 'ACK_TIMEOUT',
      message: expect.stringMatching(/^lines 1001 to 1500: /),
      details: { imported: 1_000, firstLine: 1_001, lastLine: 1_500 },
    });
    expect(store.ops.length).toBeLessThan(10);
  });

  test('tells how far it is', async () => {
    const seen: number[] = [];
    await new Importer(new FakeStore(), {}, (entries) => seen.push(entries)).run(
      readLines(chunks(lines(1_100))),
    );
    expect(seen).toEqual([500, 1_000, 1_100]);
  });
});
