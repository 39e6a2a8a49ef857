/**
 * Turns messages of ours into frames; protocol.ts has the format. Only what would silently become something else
 * on the wire is checked here: the core builds messages from what was checked when it came in.
 */
import type { Beat, Hello, HorizonReport, Members, PeerMessage, Seals } from './core/messages.js';
import type { OriginId, Row } from './core/types.js';
import { ReadmeshError } from './errors.js';
import { MsgpackWriter } from './msgpack-writer.js';
import { HOST_DEFAULTS } from './options.js';
import { END_CODES, HELLO_FIELDS, NAME_BYTES_MAX, PHASES, REASON_BYTES_MAX } from './wire-words.js';

const writer = new MsgpackWriter(
  (bytesMax) => new ReadmeshError('INTERNAL', `a frame of ours would exceed ${bytesMax} bytes`),
);

/**
 * The frame as bytes of its own. Throws INTERNAL, our own mistake, if it would exceed `bytesMax`, or hold a number
 * or a text that the wire cannot carry.
 */
export function encodeMessage(
  message: PeerMessage,
  bytesMax: number = HOST_DEFAULTS.frameBytesMax,
): Uint8Array {
  writer.start(bytesMax);
  write(message);
  return writer.take();
}

function write(message: PeerMessage): void {
  switch (message.type) {
    case 'hello':
      return writeHello(message);
    case 'refuse':
      begin(1, 2);
      text(message.code.slice(0, NAME_BYTES_MAX));
      return text(reasonText(message.message));
    case 'members':
      return writeMembers(message);
    case 'beat':
      return writeBeat(message);
    case 'resend':
      begin(4, 2);
      writer.bool(message.vector);
      return writer.bool(message.members);
    case 'push':
      begin(5, 5);
      int(message.frame);
      text(message.origin);
      int(message.from);
      int(message.to);
      return records(message.keys, message.rows);
    case 'ack':
      begin(6, 2);
      writer.bool(message.flushed);
      writer.array(message.frames.length);
      for (const frame of message.frames) int(frame);
      return;
    case 'prune':
      begin(7, 1);
      return texts(message.origins);
    case 'pull':
      begin(8, 2);
      int(message.session);
      return pairs(message.heads);
    case 'pull-range':
      begin(9, 3);
      int(message.session);
      textOrNil(message.after);
      return textOrNil(message.until);
    case 'session-opened':
      begin(10, 5);
      int(message.session);
      pairs(message.heads);
      int(message.clock);
      int(message.asOf);
      return int(message.collected);
    case 'chunk':
      begin(11, 5);
      int(message.session);
      int(message.index);
      writer.bool(message.last);
      pairs(message.tops);
      return records(message.keys, message.rows);
    case 'chunk-ack':
      begin(12, 2);
      int(message.session);
      return int(message.count);
    case 'session-end':
      begin(13, 3);
      int(message.session);
      writer.bool(message.asked);
      return int(END_CODES.indexOf(message.code));
    case 'graft':
      begin(14, 1);
      return texts(message.origins);
    case 'offer':
      begin(16, 1);
      return pairs(message.frames);
    case 'fetch':
      begin(17, 1);
      return pairs(message.frames);
    case 'pulse':
      begin(15, 9);
      text(message.origin);
      int(message.counter);
      writer.bool(message.suspect);
      text(message.membersHash);
      return writeReport(message.report);
    case 'plan-ask':
      begin(28, 3);
      int(message.plan);
      int(message.rangeBytes);
      return int(message.rangesMax);
    case 'plan':
      begin(29, 4);
      int(message.plan);
      texts(message.keys);
      int(message.entries);
      return int(message.bytes);
    case 'digest-root':
      begin(20, 4);
      text(message.vectorHash);
      writer.bin(message.root);
      int(message.collected);
      return writer.bool(message.swept);
    case 'ask-sums':
      begin(21, 2);
      int(message.question);
      writer.array(message.spans.length * 2);
      for (const { after, to } of message.spans) {
        text(after);
        textOrNil(to);
      }
      return;
    case 'sums':
      begin(22, 2);
      int(message.question);
      writer.array(message.sums.length);
      for (const sum of message.sums) writer.bin(sum);
      return;
    case 'ask-entries':
      begin(23, 6);
      int(message.question);
      writer.bool(message.full);
      int(message.collected);
      text(message.after);
      textOrNil(message.to);
      return texts(message.keys);
    case 'entries': {
      begin(24, 6);
      int(message.question);
      writer.bool(message.answered);
      textOrNil(message.reached);
      int(message.collected);
      const { keys, items, rows } = message;
      records(items.length > 0 ? keys : [], items);
      return records(items.length > 0 ? [] : keys, rows);
    }
    case 'ask-records':
      begin(25, 2);
      int(message.request);
      return texts(message.keys);
    case 'lent':
      begin(26, 6);
      int(message.request);
      writer.bool(message.ready);
      pairs(message.heads);
      records(message.keys, message.rows);
      texts(message.absent);
      return writer.bool(message.end);
    case 'ask-range':
      begin(27, 3);
      int(message.request);
      textOrNil(message.after);
      return textOrNil(message.until);
    case 'seals':
      return writeSeals(message);
    case 'seals-hash':
      begin(33, 1);
      return text(message.hash);
  }
}

function begin(type: number, fields: number): void {
  writer.array(fields + 1);
  writer.uint(type);
}

/** What is no such integer would reach the peer as some other number, or break the frame. */
function int(value: number): void {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new ReadmeshError(
      'INTERNAL',
      `a frame of ours would hold ${value} in place of a non-negative integer`,
    );
  writer.uint(value);
}

function text(value: string): void {
  if (!writer.str(value)) throw new ReadmeshError('INTERNAL', 'a text of ours holds a lone surrogate');
}

function textOrNil(value: string | null): void {
  if (value === null) writer.nil();
  else text(value);
}

function texts(values: readonly string[]): void {
  writer.array(values.length);
  for (const value of values) text(value);
}

function pairs(entries: readonly (readonly [OriginId, number])[]): void {
  writer.array(entries.length * 2);
  for (const [origin, value] of entries) {
    text(origin);
    int(value);
  }
}

function records(keys: readonly string[], rows: readonly Row[]): void {
  writer.array(keys.length * 2);
  for (let i = 0; i < keys.length; i++) {
    text(keys[i]!);
    writer.bin(rows[i]!);
  }
}

/** Reasons may quote whatever a user wrote: well-formed, and short enough for the peer to take. */
function reasonText(message: string): string {
  return Buffer.from(message.slice(0, REASON_BYTES_MAX / 4)).toString();
}

function writeHello(hello: Hello): void {
  begin(0, HELLO_FIELDS - 1);
  int(hello.version);
  text(hello.cluster);
  text(hello.clusterUid);
  text(hello.name);
  text(hello.host);
  text(hello.address);
  text(hello.origin);
  text(hello.run);
  int(PHASES.indexOf(hello.phase));
  writer.bool(hello.alone);
  int(hello.wallMs);
  int(hello.head);
}

function writeMembers(members: Members): void {
  begin(2, 3);
  writer.array(members.rows.length * 6);
  for (const row of members.rows) {
    text(row.name);
    text(row.host);
    text(row.address);
    text(row.origin);
    text(row.stamp);
    texts(row.silent ?? []);
  }
  texts(members.removed);
  writer.array(members.excluded.length * 3);
  for (const { origin, name, at } of members.excluded) {
    text(origin);
    text(name);
    int(at);
  }
}

function writeSeals({ reply, rows, reports }: Seals): void {
  begin(32, 3);
  writer.bool(reply);
  writer.array(rows.length * 5);
  for (const row of rows) {
    text(row.origin);
    int(row.head);
    int(row.seal);
    writer.bool(row.forgotten);
    int(row.stamp);
  }
  writer.array(reports.length * 7);
  for (const report of reports) {
    text(report.member);
    int(report.version);
    text(report.membersHash);
    int(report.forgotten);
    writer.bool(report.proven);
    text(report.root);
    writer.array(report.entries.length * 4);
    for (const [origin, head, top, state] of report.entries) {
      text(origin);
      int(head);
      int(top);
      int(state);
    }
  }
}

function writeBeat(beat: Beat): void {
  begin(3, 13);
  int(beat.wallMs);
  int(PHASES.indexOf(beat.phase));
  text(beat.clusterUid);
  writer.bool(beat.alone);
  text(beat.vectorHash);
  text(beat.membersHash);
  writer.bool(beat.whole);
  writer.array(beat.vector.length * 3);
  for (const [origin, head, top] of beat.vector) {
    text(origin);
    int(head);
    int(top);
  }
  writeReport(beat.report);
}

/** How far behind the clock is shorter to write than the time. */
function writeReport({ clock, accepted, asOf, collected, ended }: HorizonReport): void {
  int(clock);
  int(accepted);
  int(clock - asOf);
  int(clock - collected);
  int(ended);
}
