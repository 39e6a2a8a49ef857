/**
 * Reads LevelDB's log format, as logs and manifests have it (LevelDB, doc/log_format.md), and says what LevelDB
 * does not: its reader drops what is damaged, up to a block of 32 KiB at a time, and opens as if nothing had been.
 *
 * Two kinds of damage differ in what they leave. At the end, the last records are missing, as after a power cut:
 * what is left is a state that the store once had. In the middle, later records were applied without earlier
 * ones: a state that never was, in which a version vector claims what the disk lacks.
 */
import { crc32c, unmask } from './crc32c.js';

const BLOCK_BYTES = 32_768;
const HEADER_BYTES = 7;
/** Types of fragments: a record that fits is one; others are 2 (first), 3 (any number of times) and 4 (last). */
const FULL = 1;
const FIRST = 2;
const LAST = 4;

export interface LogScan {
  /** Whole records, as LevelDB would apply them. */
  records: number;
  /** Offset of the first damage, whatever kind it is. */
  damagedAt: number | undefined;
  /** Whole records were found behind the damage. */
  inMiddle: boolean;
  /** The file ends within a record, as when its writer was killed, and is not damaged otherwise. */
  endsWithin: boolean;
}

/** `onRecord` gets each whole record; the bytes are valid during the call only. */
export function scanLog(bytes: Buffer, onRecord: (record: Buffer) => void): LogScan {
  const scan: LogScan = { records: 0, damagedAt: undefined, inMiddle: false, endsWithin: false };
  let parts: Buffer[] | undefined;
  const damaged = (at: number): void => {
    scan.damagedAt ??= at;
    parts = undefined;
  };
  const whole = (record: Buffer): void => {
    if (scan.damagedAt !== undefined) scan.inMiddle = true;
    scan.records += 1;
    onRecord(record);
  };
  for (let block = 0; block < bytes.length; block += BLOCK_BYTES) {
    const end = Math.min(block + BLOCK_BYTES, bytes.length);
    let at = block;
    while (end - at >= HEADER_BYTES) {
      const type = bytes[at + 6]!;
      const from = at + HEADER_BYTES;
      const to = from + bytes.readUInt16LE(at + 4);
      if (to > end && end === bytes.length && end - block < BLOCK_BYTES) {
        scan.endsWithin = true;
        return scan;
      }
      // Whatever follows in this block cannot be found: LevelDB goes on with the next one, and so does this.
      if (to > end || crc32c(bytes, at + 6, to) !== unmask(bytes.readUInt32LE(at))) {
        damaged(at);
        break;
      }
      const part = bytes.subarray(from, to);
      const begins = type === FULL || type === FIRST;
      if (type < FULL || type > LAST || begins === (parts !== undefined)) damaged(at);
      if (type === FULL) whole(part);
      else if (type === FIRST) parts = [part];
      else if (parts !== undefined && type <= LAST) {
        parts.push(part);
        if (type === LAST) {
          whole(Buffer.concat(parts));
          parts = undefined;
        }
      }
      at = to;
    }
    if (end === bytes.length && end - block < BLOCK_BYTES && at < end && end - at < HEADER_BYTES)
      scan.endsWithin = true;
  }
  if (parts !== undefined) scan.endsWithin = true;
  return scan;
}
