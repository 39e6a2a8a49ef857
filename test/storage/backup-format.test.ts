import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { KIND_REGISTER, KIND_TOMBSTONE, makeRow } from '../../src/core/entry.js';
import { stampBytes } from '../../src/core/hlc.js';
import type { Records } from '../../src/core/types.js';
import { isReadmeshError, ReadmeshError } from '../../src/errors.js';
import {
  BACKUP_FORMAT,
  BackupEncoder,
  type BackupHeader,
  type BackupPart,
  encodeFailure,
  readBackup,
} from '../../src/storage/backup-format.js';

const ORIGIN = '00000000000000aa';
const HEADER: BackupHeader = {
  format: BACKUP_FORMAT,
  cluster: 'default',
  clusterUid: '1111111111111111',
  node: 'a',
  version: '0',
  takenAtMs: 1_000,
  hlc: { ms: 1_000, counter: 3 },
  heads: { [ORIGIN]: 9 },
  removed: [],
  meta: { seals: 'e30=' },
  entriesAbout: 4,
};

function recordsOf(count: number, from = 0): Records {
  const keys = Array.from({ length: count }, (_, i) => `key/${String(from + i).padStart(6, '0')}`);
  const rows = keys.map((key, i) =>
    makeRow(
      key,
      {
        kind: i % 3 === 2 ? KIND_TOMBSTONE : KIND_REGISTER,
        stamp: stampBytes(1_000, i, ORIGIN),
        origin: ORIGIN,
        seq: from + i + 1,
        ...(i % 3 === 1 ? { expiresAt: 2_000 } : {}),
        value: i % 3 === 2 ? new Uint8Array(0) : Uint8Array.of(0xc4, 2, i, 7),
      },
      checksum,
    ),
  );
  return { keys, rows };
}

function encode(chunks: readonly Records[], header: BackupHeader = HEADER): Buffer {
  const encoder = new BackupEncoder();
  return Buffer.concat([
    encoder.header(header),
    ...chunks.map((records) => encoder.records(records)),
    encoder.trailer(),
  ]);
}

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Uint8Array, size = 7): Promise<BackupPart[]> {
  const parts: BackupPart[] = [];
  for await (const part of readBackup(pieces(bytes, size), 'b.rmb')) parts.push(part);
  return parts;
}

async function refusal(bytes: Uint8Array, size = 64): Promise<ReadmeshError> {
  try {
    await read(bytes, size);
  } catch (error) {
    if (isReadmeshError(error)) return error;
    throw error;
  }
  throw new Error('it was taken for a whole backup');
}

describe('a backup', () => {
  test('is read back as it was written, however its bytes are portioned', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 5 }),
        fc.integer({ min: 1, max: 200 }),
        async (sizes, size) => {
          let from = 0;
          const chunks = sizes.map((count) => {
            const records = recordsOf(count, from);
            from += count;
            return records;
          });
          const bytes = encode(chunks);
          const [first, ...rest] = await read(bytes, size);
          expect(first).toEqual({ type: 'header', header: HEADER });
          const seen = rest.flatMap((part) => (part.type === 'records' ? [part.records] : []));
          expect(seen.flatMap(({ keys }) => keys)).toEqual(chunks.flatMap(({ keys }) => keys));
          expect(seen.flatMap(({ rows }) => rows.map((row) => Buffer.from(row).toString('hex')))).toEqual(
            chunks.flatMap(({ rows }) => rows.map((row) => Buffer.from(row).toString('hex'))),
          );
          expect(rest.at(-1)).toEqual({
            type: 'end',
            summary: { header: HEADER, entries: from, bytes: bytes.length },
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  const whole = encode([recordsOf(3), recordsOf(2, 3)]);

  test('with any one byte changed is refused, with a place at or before that byte', async () => {
    for (let at = 0; at < whole.length; at++) {
      const bytes = Buffer.from(whole);
      bytes[at]! ^= 1 << (at % 8);
      const { code, details } = await refusal(bytes);
      if (at < 8) expect(code, `byte ${at}`).toBe('INVALID_OPTION');
      else {
        expect(code, `byte ${at}`).toBe('BACKUP_DAMAGED');
        expect(Number(details.offset), `byte ${at}`).toBeLessThanOrEqual(at);
      }
    }
  });

  test('that ends early is refused, wherever it ends, and the place is its end', async () => {
    for (let length = 1; length < whole.length; length++) {
      const { code, details } = await refusal(whole.subarray(0, length));
      expect([code, details.offset], `${length} bytes`).toEqual(['BACKUP_DAMAGED', length]);
    }
  });

  test('the damaged record is named by its number and its first byte', async () => {
    const records = recsOf();
    const bytes = encode(records);
    // The last byte of the value of the fifth record.
    const fifth = records[1]!;
    const at = bytes.indexOf(Buffer.from(fifth.keys[1]!));
    bytes[at + fifth.keys[1]!.length + fifth.rows[1]!.length - 1]! ^= 1;
    const { details, message } = await refusal(bytes);
    expect(details).toEqual({ offset: at - 6, record: 5 });
    expect(message).toMatch(/damaged at byte \d+ \(record 5\)/);
  });

  test.each<[string, () => Buffer]>([
    ['a frame that is left out', () => cut(0)],
    ['frames in another order', () => encodeSwapped()],
    ['something behind its end', () => Buffer.concat([whole, Buffer.of(0)])],
    ['two in one file', () => Buffer.concat([whole, whole])],
    ['a key twice', () => encode([recordsOf(2), recordsOf(2)])],
  ])('%s is refused', async (_, make) => {
    expect((await refusal(make())).code).toBe('BACKUP_DAMAGED');
  });

  test('something else is no backup, a newer one is left alone', async () => {
    expect(await refusal(Buffer.from('{"key":"a","value":1}\n'))).toMatchObject({ code: 'INVALID_OPTION' });
    const newer = encode([], { ...HEADER, format: BACKUP_FORMAT + 1, version: '9.9.9' });
    expect(await refusal(newer)).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('9.9.9'),
    });
  });

  test('what its node could not finish says why', async () => {
    const encoder = new BackupEncoder();
    const failure = encodeFailure(new ReadmeshError('DAMAGED', 'the record of key "x" ...'));
    const bytes = Buffer.concat([encoder.header(HEADER), encoder.records(recordsOf(2)), failure]);
    expect(await refusal(bytes)).toMatchObject({ code: 'DAMAGED', message: expect.stringContaining('"x"') });
  });

  function recsOf(): [Records, Records] {
    return [recordsOf(3), recordsOf(2, 3)];
  }

  /** Without the first frame of records: what is left is well-formed, and only the whole is not. */
  function cut(index: number): Buffer {
    const encoder = new BackupEncoder();
    const frames = [encoder.header(HEADER), ...recsOf().map((records) => encoder.records(records))];
    const trailer = encoder.trailer();
    frames.splice(1 + index, 1);
    return Buffer.concat([...frames, trailer]);
  }

  function encodeSwapped(): Buffer {
    const encoder = new BackupEncoder();
    const header = encoder.header(HEADER);
    const [a, b] = recsOf().map((records) => encoder.records(records));
    return Buffer.concat([header, b!, a!, encoder.trailer()]);
  }
});
