/**
 * Checks a LevelDB table without LevelDB (LevelDB, doc/table_format.md): the footer, the index, the filter and, if
 * asked to, every block against its checksum, which LevelDB itself does not look at when it reads.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { crc32c, unmask } from './crc32c.js';
import { VarintReader } from './level-manifest.js';

const FOOTER_BYTES = 48;
const MAGIC = Buffer.from('57fb808b247547db', 'hex');
/** Behind each block: its compression, and the checksum of both. */
const TRAILER_BYTES = 5;
const PLAIN = 0;
const SNAPPY = 1;
/** A block is inflated to a few KiB, an index to a few hundred. */
const INFLATED_BYTES_MAX = 64 * 1024 * 1024;

/** What is wrong with the table; undefined: nothing that was looked at. `size`: as the manifest has it. */
export function tableDamage(path: string, size: number, everyBlock: boolean): string | undefined {
  const fd = openSync(path, 'r');
  try {
    return damageOf(fd, size, everyBlock);
  } catch (error) {
    if (error instanceof RangeError) return `it is no table (${error.message})`;
    throw error;
  } finally {
    closeSync(fd);
  }
}

function damageOf(fd: number, size: number, everyBlock: boolean): string | undefined {
  if (size < FOOTER_BYTES) return 'it is too short';
  const footer = readAt(fd, size - FOOTER_BYTES, FOOTER_BYTES);
  if (!footer.subarray(FOOTER_BYTES - MAGIC.length).equals(MAGIC)) return 'its footer is damaged';
  const handles = new VarintReader(footer);
  const metaIndex = readHandle(handles);
  const index = readHandle(handles);
  const limit = size - FOOTER_BYTES;
  const filters = readBlock(fd, metaIndex, limit);
  if (filters === undefined) return 'its index of filters is damaged';
  // A damaged filter hides keys that are there.
  for (const handle of handlesIn(inflate(filters)))
    if (readBlock(fd, handle, limit) === undefined) return 'its filter is damaged';
  const block = readBlock(fd, index, limit);
  if (block === undefined) return 'its index is damaged';
  if (!everyBlock) return undefined;
  for (const handle of handlesIn(inflate(block)))
    if (readBlock(fd, handle, limit) === undefined) return `its block at ${handle.offset} is damaged`;
  return undefined;
}

interface Handle {
  readonly offset: number;
  readonly size: number;
}

function readHandle(reader: VarintReader): Handle {
  return { offset: reader.number(), size: reader.number() };
}

function readAt(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let read = 0;
  while (read < length) {
    const n = readSync(fd, bytes, read, length - read, offset + read);
    if (n === 0) throw new RangeError('it ends early');
    read += n;
  }
  return bytes;
}

/** The block and its kind of compression, which follows it; undefined when its checksum does not fit. */
function readBlock(fd: number, { offset, size }: Handle, limit: number): Buffer | undefined {
  if (offset + size + TRAILER_BYTES > limit) throw new RangeError('a block beyond its end');
  const bytes = readAt(fd, offset, size + TRAILER_BYTES);
  const end = size + 1;
  return crc32c(bytes, 0, end) === unmask(bytes.readUInt32LE(end)) ? bytes.subarray(0, end) : undefined;
}

function inflate(block: Buffer): Buffer {
  const kind = block[block.length - 1];
  const content = block.subarray(0, -1);
  if (kind === PLAIN) return content;
  if (kind === SNAPPY) return unsnappy(content);
  throw new RangeError('an unknown compression');
}

/** The values of an index block: where the blocks are. */
function handlesIn(block: Buffer): Handle[] {
  const handles: Handle[] = [];
  const restarts = block.readUInt32LE(block.length - 4);
  const end = block.length - 4 - 4 * restarts;
  const reader = new VarintReader(block);
  while (reader.at < end) {
    reader.number();
    const keyBytes = reader.number();
    const valueBytes = reader.number();
    const from = reader.at + keyBytes;
    handles.push(readHandle(new VarintReader(block, from)));
    reader.at = from + valueBytes;
  }
  return handles;
}

/** Snappy (github.com/google/snappy, format_description.txt). Throws RangeError. */
function unsnappy(bytes: Buffer): Buffer {
  const reader = new VarintReader(bytes);
  const length = reader.number();
  if (length > INFLATED_BYTES_MAX) throw new RangeError('a block of unlikely size');
  const out = Buffer.alloc(length);
  let at = 0;
  for (let from = reader.at; from < bytes.length; ) {
    const tag = bytes[from++]!;
    const upper = tag >>> 2;
    if ((tag & 3) === 0) {
      const wide = Math.max(0, upper - 59);
      const size = 1 + (wide === 0 ? upper : bytes.readUIntLE(from, wide));
      from += wide;
      if (from + size > bytes.length || at + size > length) throw new RangeError('a literal beyond the end');
      bytes.copy(out, at, from, from + size);
      from += size;
      at += size;
      continue;
    }
    const kind = tag & 3;
    const size = kind === 1 ? 4 + (upper & 7) : 1 + upper;
    const offset =
      kind === 1
        ? ((upper >>> 3) << 8) | bytes.readUInt8(from)
        : kind === 2
          ? bytes.readUInt16LE(from)
          : bytes.readUInt32LE(from);
    from += kind === 3 ? 4 : kind;
    if (offset === 0 || offset > at || at + size > length) throw new RangeError('a copy beyond the end');
    // Byte by byte: source and target may overlap, which repeats what is between them.
    for (let i = 0; i < size; i++) out[at + i] = out[at + i - offset]!;
    at += size;
  }
  if (at !== length) throw new RangeError('a block that ends early');
  return out;
}
