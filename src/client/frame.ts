/**
 * Frames of the client protocol (wire.ts): putting one together, and reading one. Both sides write straight into
 * the frame and read straight out of it, since a request costs little more than its bytes that way; no arrays of
 * arrays are built on the hot path.
 */
import { KEY_BYTES_MAX, stampHexAt } from '../core/entry.js';
import { STAMP_BYTES, STAMP_MS_MAX } from '../core/hlc.js';
import type { OriginId, StampHex } from '../core/types.js';
import { ReadmeshError } from '../errors.js';
import { FrameReader } from '../frame-reader.js';
import { guardMsgpack } from '../msgpack-guard.js';
import { MsgpackWriter } from '../msgpack-writer.js';
import { HOST_DEFAULTS } from '../options.js';
import { nameOf, textOf } from '../wire-text.js';
import { ADDRESSES_MAX, type Greeting, NAME_BYTES_MAX, TIMEOUT_MS_MAX } from './wire.js';

/** Largest frame of either direction, bytes: a whole batch and its envelope. */
export const FRAME_BYTES_MAX = HOST_DEFAULTS.frameBytesMax;

const ORIGIN_DIGITS = 16;

/** Bytes that the reason in a close frame may take. */
const CLOSE_REASON_BYTES_MAX = 123;

/** Frames are flat: a request in a list, a list or two within it. */
const FRAME_LIMITS = { depthMax: 5 };

const tooLarge = (bytesMax: number): ReadmeshError =>
  new ReadmeshError('BATCH_TOO_LARGE', `the request takes more than ${bytesMax} bytes: split it`);

// How many things a frame holds, and the clock, are known only when it is closed: they are written as
// placeholders of fixed width, and filled in then.
const COUNT_PLACEHOLDER = 2 ** 32 - 1;
const AT_COUNT = 1;
const MS_PLACEHOLDER = STAMP_MS_MAX;
const AT_MS = 6;
const COUNTER_PLACEHOLDER = 0xffff;
const AT_COUNTER = 15;
/** A scratch buffer that may have grown beyond this is let go. */
const SCRATCH_KEPT_BYTES = 262_144;

/** The frame that is being put together for one connection. */
export class FrameBuilder {
  readonly #clocked: boolean;
  #writer: MsgpackWriter | undefined;
  /** Requests or responses in it. */
  count = 0;
  /** About as many bytes, or fewer. */
  bytes = 0;

  /** `clocked`: whether frames begin with the clock. */
  constructor(clocked: boolean) {
    this.#clocked = clocked;
  }

  /** For one request or response of about `bytes` bytes, which the caller writes whole. */
  add(bytes: number): MsgpackWriter {
    this.#writer ??= new MsgpackWriter(tooLarge);
    if (this.count === 0) {
      this.#writer.start(FRAME_BYTES_MAX);
      this.#writer.array(COUNT_PLACEHOLDER);
      if (this.#clocked) {
        this.#writer.uint(MS_PLACEHOLDER);
        this.#writer.uint(COUNTER_PLACEHOLDER);
      }
    }
    this.count++;
    this.bytes += bytes;
    return this.#writer;
  }

  /** Closes the frame and begins the next one. Throws BATCH_TOO_LARGE; the frame is gone then. */
  take(ms = 0, counter = 0): Uint8Array {
    const elements = this.count + (this.#clocked ? 2 : 0);
    const writer = this.#writer!;
    if (this.bytes > SCRATCH_KEPT_BYTES) this.#writer = undefined;
    this.count = 0;
    this.bytes = 0;
    const frame = writer.take();
    writeBig(frame, AT_COUNT, 4, elements);
    if (this.#clocked) {
      writeBig(frame, AT_MS, 8, ms);
      writeBig(frame, AT_COUNTER, 2, counter);
    }
    return frame;
  }
}

function writeBig(bytes: Uint8Array, at: number, size: number, value: number): void {
  let rest = value;
  for (let i = at + size - 1; i >= at; i--) {
    bytes[i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}

/** Reads a frame that the guard has passed, thing by thing. Throws PROTOCOL_ERROR where it finds another kind. */
export class ClientFrame extends FrameReader {
  /** Where the value that was read last begins and ends. */
  from = 0;
  to = 0;

  /** An array of exactly `length` elements. */
  arrayOf(field: string, length: number): void {
    const found = this.array(field, length);
    if (found !== length) this.fail(field, `has ${found} elements instead of ${length}`);
  }

  /** Whether nil is next, which is then passed over. */
  nil(): boolean {
    if (this.bytes[this.at] !== 0xc0) return false;
    this.at++;
    return true;
  }

  key(): string {
    return this.str('key', 1, KEY_BYTES_MAX);
  }

  /** Passes over a key; returns where its bytes begin. They end at `at`. */
  keyFrom(): number {
    return this.strFrom('key', 1, KEY_BYTES_MAX);
  }

  /** The text of well-formed UTF-8 that was passed over. */
  text(from: number, to: number): string {
    return textOf(this.bytes, from, to);
  }

  /** Sets `from` and `to`. False for nil. */
  value(): boolean {
    const byte = this.bytes[this.at++]!;
    if (byte === 0xc0) return false;
    if (byte < 0xc4 || byte > 0xc6) this.fail('value', 'is neither binary nor nil');
    const length = this.#take(1 << (byte - 0xc4));
    this.from = this.at;
    this.at = this.to = this.from + length;
    return true;
  }

  /** A view of the value that was read last. Of the plain kind: what comes of it meets others of that kind. */
  valueBytes(): Uint8Array {
    const { buffer, byteOffset } = this.bytes;
    return new Uint8Array(buffer, byteOffset + this.from, this.to - this.from);
  }

  /** Passes over a stamp; returns where its bytes begin. */
  stampFrom(): number {
    if (!this.value()) this.fail('stamp', 'is nil');
    if (this.to - this.from !== STAMP_BYTES)
      this.fail('stamp', `has ${this.to - this.from} bytes instead of ${STAMP_BYTES}`);
    return this.from;
  }

  stampHex(): StampHex {
    return stampHexAt(this.bytes, this.stampFrom());
  }

  /** An origin, as text that is likely to be known. */
  origin(): OriginId {
    const from = this.strFrom('origin', ORIGIN_DIGITS, ORIGIN_DIGITS);
    return nameOf(this.bytes, from, this.at);
  }

  timeoutMs(): number {
    const timeoutMs = this.uint('timeoutMs', TIMEOUT_MS_MAX);
    return timeoutMs > 0 ? timeoutMs : this.fail('timeoutMs', 'is 0');
  }

  /** JSON text of an object. */
  json(field: string): Record<string, unknown> {
    const text = this.str(field, 2, FRAME_BYTES_MAX);
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch {
      this.fail(field, 'is not JSON');
    }
    if (typeof parsed !== 'object' || parsed === null) return this.fail(field, 'is not a JSON object');
    return parsed as Record<string, unknown>;
  }

  /** Passes over `count` things of any kind: arguments of operations that are not known here. */
  skip(count: number): void {
    for (let left = count; left > 0; left--) {
      const byte = this.bytes[this.at++]!;
      if (byte < 0x80 || byte >= 0xe0 || byte === 0xc0 || byte === 0xc2 || byte === 0xc3) continue;
      if (byte < 0x90) left += 2 * (byte & 0x0f);
      else if (byte < 0xa0) left += byte & 0x0f;
      else if (byte < 0xc0) this.at += byte & 0x1f;
      else if (byte <= 0xc6) this.#pass(1 << (byte - 0xc4), 0);
      else if (byte <= 0xc9) this.#pass(1 << (byte - 0xc7), 1);
      else if (byte <= 0xcb) this.at += 4 << (byte - 0xca);
      else if (byte <= 0xd3) this.at += 1 << (byte & 3);
      else if (byte <= 0xd8) this.at += 1 + (1 << (byte - 0xd4));
      else if (byte <= 0xdb) this.#pass(1 << (byte - 0xd9), 0);
      else left += (byte <= 0xdd ? 1 : 2) * this.#take(byte % 2 === 0 ? 2 : 4);
    }
  }

  /** The GREETING_ELEMENTS elements of a greeting. */
  greeting(): Greeting {
    const version = this.uint('version');
    const cluster = this.str('cluster', 1, NAME_BYTES_MAX);
    const clusterUid = this.str('clusterUid', 0, NAME_BYTES_MAX);
    const origin = this.str('origin', 0, NAME_BYTES_MAX);
    const name = this.str('name', 0, NAME_BYTES_MAX);
    const ready = this.bool('ready');
    const count = this.array('addresses', ADDRESSES_MAX);
    const addresses: string[] = [];
    for (let i = 0; i < count; i++) addresses.push(this.str('address', 1, NAME_BYTES_MAX));
    return { version, cluster, clusterUid, origin, name, ready, addresses };
  }

  /** Passes over a length of `size` bytes, what it tells of, and `more` bytes. */
  #pass(size: number, more: number): void {
    const length = this.#take(size);
    this.at += length + more;
  }

  /** A big-endian integer of `size` bytes. */
  #take(size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value = value * 256 + this.bytes[this.at++]!;
    return value;
  }
}

/** Proves that a frame is msgpack, then opens it. Throws PROTOCOL_ERROR. */
export function openFrame(bytes: Uint8Array, what: string): ClientFrame {
  guardMsgpack(bytes, 0, bytes.length, FRAME_LIMITS);
  const frame = new ClientFrame(bytes);
  frame.what = what;
  return frame;
}

/** Text that comes from elsewhere: a lone surrogate in it becomes U+FFFD. */
export function writeText(writer: MsgpackWriter, text: string): void {
  if (!writer.str(text)) writer.str(Buffer.from(text).toString());
}

/** Writes what `ClientFrame.greeting` reads. */
export function writeGreeting(writer: MsgpackWriter, greeting: Greeting): void {
  writer.uint(greeting.version);
  writeText(writer, greeting.cluster);
  writeText(writer, greeting.clusterUid);
  writeText(writer, greeting.origin);
  writeText(writer, greeting.name);
  writer.bool(greeting.ready);
  writer.array(greeting.addresses.length);
  for (const address of greeting.addresses) writeText(writer, address);
}

/** Cut to what a close frame has room for. */
export function truncate(reason: string): string {
  const bytes = Buffer.from(reason);
  if (bytes.length <= CLOSE_REASON_BYTES_MAX) return reason;
  let end = CLOSE_REASON_BYTES_MAX;
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end).toString();
}
