/**
 * The wire between members: one WebSocket message is one frame, one frame is one msgpack array of fixed length,
 *
 *     [type, ...fields]
 *
 *      0 hello           version, cluster, clusterUid, name, host, address, origin, run, phase, alone, wallMs, head
 *      1 refuse          code, message
 *      2 members         [name, host, address, origin, stamp, [silent origin, ...], ...], [removed origin, ...],
 *                        [excluded origin, name, at, ...]
 *      3 beat            wallMs, phase, clusterUid, alone, vectorHash, membersHash, whole,
 *                        [origin, head, top, ...], report
 *      4 resend          vector, members
 *      5 push            frame, origin, from, to, [key, row, ...]
 *      6 ack             flushed, [frame, ...]
 *      7 prune           [origin, ...]
 *      8 pull            session, [origin, head, ...]
 *      9 pull-range      session, after or nil, until or nil
 *     10 session-opened  session, [origin, head, ...], clock, asOf, collected
 *     11 chunk           session, index, last, [origin, top, ...], [key, row, ...]
 *     12 chunk-ack       session, count
 *     13 session-end     session, asked, code
 *     14 graft           [origin, ...]
 *     15 pulse           origin, counter, suspect, membersHash, report
 *     16 offer           [origin, to, ...]
 *     17 fetch           [origin, to, ...]
 *     20 digest-root     vectorHash, sum, collected, swept
 *     21 ask-sums        question, [after, to or nil, ...]
 *     22 sums            question, [sum, ...]
 *     23 ask-entries     question, full, collected, after, to or nil, [key, ...]
 *     24 entries         question, answered, reached or nil, collected, [key, item, ...], [key, row, ...]
 *     28 plan-ask        plan, rangeBytes, rangesMax
 *     29 plan            plan, [key, ...], entries, bytes
 *     25 ask-records     request, [key, ...]
 *     26 lent            request, ready, [origin, head, ...], [key, row, ...], [absent key, ...], end
 *     27 ask-range       request, after or nil, until or nil
 *     32 seals           reply, [origin, head, seal, forgotten, stamp, ...],
 *                        [member, version, membersHash, forgotten, proven, root, [origin, head, top, state, ...], ...]
 *     33 seals-hash      hash
 *
 * A report is five fields: clock, accepted, clock - asOf, clock - collected, ended (core/horizon.ts).
 * Lists of entries are flat. Integers are msgpack integers (never floats) from 0 to 2^53 - 1, sequence numbers
 * to 2^48 - 1. Origins, uids and runs are 16 lower-case hex digits as text, stamps 32; keys are text; rows are
 * binary in their canonical bytes (core/entry.ts), each with a checksum that binds it to its key. Phases: 0 new,
 * 1 bootstrapping, 2 ready. Sums are 44 bytes (core/digest-sum.ts), items 1 or 49 (core/reconcile-item.ts). Codes of session-end: 0 busy, 1 not-ready, 2 failed, 3 cancelled.
 *
 * Compatibility: `hello` and `refuse` must stay readable across versions, so that a link between two versions
 * ends with a reason. Later versions may append fields to these two, and readers skip what they do not know.
 * Every other message has exactly the fields of its version.
 *
 * Whatever a peer sends, `decodeMessage` returns a message whose every field is within its range, or throws
 * PROTOCOL_ERROR; it takes time and memory in proportion to the frame.
 */
import { checksum } from './checksum.js';
import { SUM_BYTES, SUM_DIGITS } from './core/digest-sum.js';
import { assertRow, KEY_BYTES_MAX } from './core/entry.js';
import { ASK_KEYS_MAX } from './core/heal.js';
import { SILENT_MAX } from './core/membership.js';
import type {
  AskSums,
  Beat,
  Chunk,
  Entries,
  Hello,
  HorizonReport,
  KeySpan,
  Members,
  PeerMessage,
  PeerPhase,
  Plan,
  Push,
  Seals,
  Sums,
  VectorEntry,
} from './core/messages.js';
import { OFFERED_MAX } from './core/offers.js';
import { isItem } from './core/reconcile-item.js';
import {
  FORGOTTEN,
  REPORT_ENTRIES_MAX,
  type ReportEntry,
  SEALS_MAX,
  type SealReport,
  type SealRow,
} from './core/seal-table.js';
import type { Excluded, MemberRow, OriginId, Records, Row } from './core/types.js';
import { ReadmeshError } from './errors.js';
import { FrameReader } from './frame-reader.js';
import { guardMsgpack, type MsgpackLimits } from './msgpack-guard.js';
import { HOST_DEFAULTS } from './options.js';
import {
  ADDRESS_BYTES_MAX,
  END_CODES,
  FRAME_ENTRIES_MAX,
  FRAME_MEMBERS_MAX,
  FRAME_RANGES_MAX,
  FRAME_RECORDS_MAX,
  FRAME_SPANS_MAX,
  HASH_DIGITS_MAX,
  HELLO_FIELDS,
  NAME_BYTES_MAX,
  PHASES,
  REASON_BYTES_MAX,
  SEQ_MAX,
} from './wire-words.js';

export { PROTOCOL_VERSION } from './core/links.js';
export { encodeMessage } from './message-writer.js';

const LIMITS: MsgpackLimits = {
  depthMax: 8,
  elementsMax: 3 * FRAME_ENTRIES_MAX + 2 * FRAME_RECORDS_MAX + 64,
};

/**
 * The message in a frame. Rows are views into `bytes`: whoever keeps one keeps the whole frame alive. Throws
 * PROTOCOL_ERROR; for a type that this version does not know, with `details.unknownType`, so that the caller may
 * choose to ignore it.
 */
export function decodeMessage(
  bytes: Uint8Array,
  bytesMax: number = HOST_DEFAULTS.frameBytesMax,
): PeerMessage {
  if (bytes.length > bytesMax)
    throw new ReadmeshError('PROTOCOL_ERROR', `a frame of ${bytes.length} bytes exceeds ${bytesMax}`);
  guardMsgpack(bytes, 0, bytes.length, LIMITS);
  const frame = new FrameReader(bytes);
  const fields = frame.array('it', FRAME_ENTRIES_MAX);
  if (fields === 0) frame.fail('it', 'is empty');
  const type = frame.uint('its type');
  const reader = READERS[type];
  if (reader === undefined)
    throw new ReadmeshError('PROTOCOL_ERROR', `messages of type ${type} are unknown to this version`, {
      details: { unknownType: type },
    });
  frame.what = reader.what;
  if (reader.open ? fields < reader.fields : fields !== reader.fields)
    frame.fail('it', `has ${fields} fields, not ${reader.fields}`);
  return reader.read(frame);
}

interface MessageReader {
  readonly what: PeerMessage['type'];
  /** Including the type. */
  readonly fields: number;
  /** Later versions may append fields. */
  readonly open: boolean;
  read(frame: FrameReader): PeerMessage;
}

function reader(
  what: PeerMessage['type'],
  fields: number,
  read: (frame: FrameReader) => PeerMessage,
  open = false,
): MessageReader {
  return { what, fields, open, read };
}

/** By type. There are holes between them. */
const READERS: (MessageReader | undefined)[] = [
  reader('hello', HELLO_FIELDS, readHello, true),
  reader(
    'refuse',
    3,
    (frame) => ({
      type: 'refuse',
      code: frame.str('code', 1, NAME_BYTES_MAX),
      message: frame.str('message', 0, REASON_BYTES_MAX),
    }),
    true,
  ),
  reader('members', 4, readMembers),
  reader('beat', 14, readBeat),
  reader('resend', 3, (frame) => ({
    type: 'resend',
    vector: frame.bool('vector'),
    members: frame.bool('members'),
  })),
  reader('push', 6, readPush),
  reader('ack', 3, (frame) => ({ type: 'ack', flushed: frame.bool('flushed'), frames: readFrames(frame) })),
  reader('prune', 2, (frame) => ({
    type: 'prune',
    origins: readOrigins(frame, 'origins', FRAME_ENTRIES_MAX),
  })),
  reader('pull', 3, (frame) => ({
    type: 'pull',
    session: frame.uint('session'),
    heads: readPairs(frame, 'heads', SEQ_MAX),
  })),
  reader('pull-range', 4, (frame) => ({
    type: 'pull-range',
    session: frame.uint('session'),
    after: frame.strOrNil('after', 1, KEY_BYTES_MAX),
    until: frame.strOrNil('until', 1, KEY_BYTES_MAX),
  })),
  reader('session-opened', 6, (frame) => ({
    type: 'session-opened',
    session: frame.uint('session'),
    heads: readPairs(frame, 'heads', SEQ_MAX),
    clock: frame.uint('clock'),
    asOf: frame.uint('asOf'),
    collected: frame.uint('collected'),
  })),
  reader('chunk', 6, readChunk),
  reader('chunk-ack', 3, (frame) => ({
    type: 'chunk-ack',
    session: frame.uint('session'),
    count: frame.uint('count'),
  })),
  reader('session-end', 4, (frame) => ({
    type: 'session-end',
    session: frame.uint('session'),
    asked: frame.bool('asked'),
    code: END_CODES[frame.uint('code', END_CODES.length - 1)]!,
  })),
  reader('graft', 2, (frame) => ({
    type: 'graft',
    origins: readOrigins(frame, 'origins', FRAME_ENTRIES_MAX),
  })),
  reader('pulse', 10, (frame) => ({
    type: 'pulse',
    origin: frame.hex('origin', 16),
    counter: frame.uint('counter'),
    suspect: frame.bool('suspect'),
    membersHash: frame.hexUpTo('membersHash', HASH_DIGITS_MAX),
    report: readReport(frame),
  })),
  reader('offer', 2, (frame) => ({
    type: 'offer',
    frames: readPairs(frame, 'frames', SEQ_MAX, OFFERED_MAX),
  })),
  reader('fetch', 2, (frame) => ({
    type: 'fetch',
    frames: readPairs(frame, 'frames', SEQ_MAX, OFFERED_MAX),
  })),
];
READERS[28] = reader('plan-ask', 4, (frame) => ({
  type: 'plan-ask',
  plan: frame.uint('plan'),
  rangeBytes: frame.uint('rangeBytes'),
  rangesMax: frame.uint('rangesMax'),
}));
READERS[29] = reader('plan', 5, readPlan);

READERS[20] = reader('digest-root', 5, (frame) => ({
  type: 'digest-root',
  vectorHash: frame.hexUpTo('vectorHash', HASH_DIGITS_MAX),
  root: readSum(frame),
  collected: frame.uint('collected'),
  swept: frame.bool('swept'),
}));
READERS[21] = reader('ask-sums', 3, readAskSums);
READERS[22] = reader('sums', 3, readSums);
READERS[23] = reader('ask-entries', 7, (frame) => ({
  type: 'ask-entries',
  question: frame.uint('question'),
  full: frame.bool('full'),
  collected: frame.uint('collected'),
  after: frame.str('after', 0, KEY_BYTES_MAX),
  to: frame.strOrNil('to', 1, KEY_BYTES_MAX),
  keys: readKeys(frame),
}));
READERS[24] = reader('entries', 7, readEntries);
READERS[25] = reader('ask-records', 3, (frame) => ({
  type: 'ask-records',
  request: frame.uint('request'),
  keys: readKeys(frame, ASK_KEYS_MAX),
}));
READERS[26] = reader('lent', 7, (frame) => ({
  type: 'lent',
  request: frame.uint('request'),
  ready: frame.bool('ready'),
  heads: readPairs(frame, 'heads', SEQ_MAX),
  ...readRecords(frame),
  absent: readKeys(frame, ASK_KEYS_MAX),
  end: frame.bool('end'),
}));
READERS[27] = reader('ask-range', 4, (frame) => ({
  type: 'ask-range',
  request: frame.uint('request'),
  after: frame.strOrNil('after', 1, KEY_BYTES_MAX),
  until: frame.strOrNil('until', 1, KEY_BYTES_MAX),
}));

function readSum(frame: FrameReader): Uint8Array {
  const sum = frame.bin('sum');
  // It is kept, unlike the frame.
  return sum.length === SUM_BYTES
    ? sum.slice()
    : frame.fail('sum', `has ${sum.length} bytes, not ${SUM_BYTES}`);
}

function readAskSums(frame: FrameReader): AskSums {
  const question = frame.uint('question');
  const spans: KeySpan[] = [];
  for (let left = frame.array('spans', FRAME_SPANS_MAX, 2); left > 0; left--)
    spans.push({ after: frame.str('after', 0, KEY_BYTES_MAX), to: frame.strOrNil('to', 1, KEY_BYTES_MAX) });
  return { type: 'ask-sums', question, spans };
}

function readSums(frame: FrameReader): Sums {
  const question = frame.uint('question');
  const sums: Uint8Array[] = [];
  for (let left = frame.array('sums', FRAME_SPANS_MAX); left > 0; left--) sums.push(readSum(frame));
  return { type: 'sums', question, sums };
}

function readKeys(frame: FrameReader, keysMax: number = FRAME_RECORDS_MAX): string[] {
  const keys: string[] = [];
  for (let left = frame.array('keys', keysMax); left > 0; left--)
    keys.push(frame.str('key', 1, KEY_BYTES_MAX));
  return keys;
}

function readEntries(frame: FrameReader): Entries {
  const question = frame.uint('question');
  const answered = frame.bool('answered');
  const reached = frame.strOrNil('reached', 1, KEY_BYTES_MAX);
  const collected = frame.uint('collected');
  const keys: string[] = [];
  const items: Uint8Array[] = [];
  for (let left = frame.array('items', FRAME_RECORDS_MAX, 2); left > 0; left--) {
    keys.push(frame.str('key', 1, KEY_BYTES_MAX));
    const item = frame.bin('item');
    if (!isItem(item)) frame.fail('item', `has ${item.length} bytes`);
    items.push(item);
  }
  const records = readRecords(frame);
  if (items.length > 0 && records.keys.length > 0) frame.fail('rows', 'come without items only');
  return {
    type: 'entries',
    question,
    answered,
    reached,
    collected,
    keys: items.length > 0 ? keys : records.keys,
    items,
    rows: records.rows,
  };
}
READERS[32] = reader('seals', 4, readSeals);
READERS[33] = reader('seals-hash', 2, (frame) => ({
  type: 'seals-hash',
  hash: frame.hexUpTo('hash', HASH_DIGITS_MAX),
}));

function readPhase(frame: FrameReader): PeerPhase {
  return PHASES[frame.uint('phase', PHASES.length - 1)]!;
}

function readHello(frame: FrameReader): Hello {
  return {
    type: 'hello',
    version: frame.uint('version'),
    cluster: frame.str('cluster', 1, NAME_BYTES_MAX),
    clusterUid: frame.hex('clusterUid', 16, true),
    name: frame.str('name', 1, NAME_BYTES_MAX),
    host: frame.str('host', 1, NAME_BYTES_MAX),
    address: frame.str('address', 0, ADDRESS_BYTES_MAX),
    origin: frame.hex('origin', 16),
    run: frame.hex('run', 16),
    phase: readPhase(frame),
    alone: frame.bool('alone'),
    wallMs: frame.uint('wallMs'),
    head: frame.uint('head', SEQ_MAX),
  };
}

function readMembers(frame: FrameReader): Members {
  const rows: MemberRow[] = [];
  for (let left = frame.array('rows', FRAME_MEMBERS_MAX, 6); left > 0; left--) {
    const row = {
      name: frame.str('name', 1, NAME_BYTES_MAX),
      host: frame.str('host', 1, NAME_BYTES_MAX),
      address: frame.str('address', 0, ADDRESS_BYTES_MAX),
      origin: frame.hex('origin', 16),
      stamp: frame.hex('stamp', 32),
    };
    const silent = readOrigins(frame, 'silent', SILENT_MAX);
    rows.push(silent.length === 0 ? row : { ...row, silent });
  }
  const removed = readOrigins(frame, 'removed', FRAME_MEMBERS_MAX);
  const excluded: Excluded[] = [];
  for (let left = frame.array('excluded', FRAME_MEMBERS_MAX, 3); left > 0; left--)
    excluded.push({
      origin: frame.hex('origin', 16),
      name: frame.str('name', 1, NAME_BYTES_MAX),
      at: frame.uint('at'),
    });
  return { type: 'members', rows, removed, excluded };
}

function readBeat(frame: FrameReader): Beat {
  return {
    type: 'beat',
    wallMs: frame.uint('wallMs'),
    phase: readPhase(frame),
    clusterUid: frame.hex('clusterUid', 16, true),
    alone: frame.bool('alone'),
    vectorHash: frame.hexUpTo('vectorHash', HASH_DIGITS_MAX),
    membersHash: frame.hexUpTo('membersHash', HASH_DIGITS_MAX),
    whole: frame.bool('whole'),
    vector: readVector(frame),
    report: readReport(frame),
  };
}

function readReport(frame: FrameReader): HorizonReport {
  const clock = frame.uint('clock');
  const accepted = frame.uint('accepted', SEQ_MAX);
  const asOf = clock - frame.uint('asOf', clock);
  const collected = clock - frame.uint('collected', clock);
  return { clock, accepted, asOf, collected, ended: frame.uint('ended') };
}

function readSeals(frame: FrameReader): Seals {
  const reply = frame.bool('reply');
  const rows: SealRow[] = [];
  for (let left = frame.array('rows', SEALS_MAX, 5); left > 0; left--) {
    const origin = frame.hex('rows', 16);
    const head = frame.uint('rows', SEQ_MAX);
    const seal = frame.uint('rows', SEQ_MAX);
    if (seal < head) frame.fail('rows', 'has a seal below its head');
    rows.push({ origin, head, seal, forgotten: frame.bool('rows'), stamp: frame.uint('rows') });
  }
  const reports: SealReport[] = [];
  for (let left = frame.array('reports', FRAME_MEMBERS_MAX, 7); left > 0; left--)
    reports.push({
      member: frame.hex('reports', 16),
      version: frame.uint('reports'),
      membersHash: frame.hexUpTo('reports', HASH_DIGITS_MAX),
      forgotten: frame.uint('reports'),
      proven: frame.bool('reports'),
      root: frame.hex('reports', SUM_DIGITS, true),
      entries: readReportEntries(frame),
    });
  return { type: 'seals', reply, rows, reports };
}

function readReportEntries(frame: FrameReader): ReportEntry[] {
  const entries: ReportEntry[] = [];
  for (let left = frame.array('entries', REPORT_ENTRIES_MAX, 4); left > 0; left--) {
    const origin = frame.hex('entries', 16);
    const head = frame.uint('entries', SEQ_MAX);
    const top = frame.uint('entries', SEQ_MAX);
    if (top < head) frame.fail('entries', 'has a top below its head');
    entries.push([origin, head, top, frame.uint('entries', FORGOTTEN) as ReportEntry[3]]);
  }
  return entries;
}

function readVector(frame: FrameReader): VectorEntry[] {
  const vector: VectorEntry[] = [];
  for (let left = frame.array('vector', FRAME_ENTRIES_MAX, 3); left > 0; left--) {
    const origin = frame.hex('vector', 16);
    const head = frame.uint('vector', SEQ_MAX);
    const top = frame.uint('vector', SEQ_MAX);
    if (top < head) frame.fail('vector', 'has a top below its head');
    vector.push([origin, head, top]);
  }
  return vector;
}

function readPush(frame: FrameReader): Push {
  const number = frame.uint('frame');
  const origin = frame.hex('origin', 16);
  const from = frame.uint('from', SEQ_MAX);
  const to = frame.uint('to', SEQ_MAX);
  if (from > to) frame.fail('from', 'is above to');
  const { keys, rows } = readRecords(frame);
  return { type: 'push', frame: number, origin, from, to, keys, rows };
}

function readChunk(frame: FrameReader): Chunk {
  const session = frame.uint('session');
  const index = frame.uint('index');
  const last = frame.bool('last');
  const tops = readPairs(frame, 'tops', SEQ_MAX);
  if (!last && tops.length > 0) frame.fail('tops', 'come with the last chunk only');
  const { keys, rows } = readRecords(frame);
  return { type: 'chunk', session, index, keys, rows, last, tops };
}

/**
 * Keys need no other check: the guard has found them well-formed, `str` bounds their bytes, and that is all there
 * is to a key.
 */
function readRecords(frame: FrameReader): Records {
  const count = frame.array('records', FRAME_RECORDS_MAX, 2);
  const keys = new Array<string>(count);
  const rows = new Array<Row>(count);
  for (let i = 0; i < count; i++) {
    const key = frame.str('key', 1, KEY_BYTES_MAX);
    const row = frame.bin('row');
    assertRow(key, row, checksum);
    keys[i] = key;
    rows[i] = row;
  }
  return { keys, rows };
}

function readPlan(frame: FrameReader): Plan {
  const plan = frame.uint('plan');
  const keys: string[] = [];
  for (let left = frame.array('keys', FRAME_RANGES_MAX); left > 0; left--)
    keys.push(frame.str('keys', 1, KEY_BYTES_MAX));
  return { type: 'plan', plan, keys, entries: frame.uint('entries'), bytes: frame.uint('bytes') };
}

function readFrames(frame: FrameReader): number[] {
  const frames: number[] = [];
  for (let left = frame.array('frames', FRAME_ENTRIES_MAX); left > 0; left--)
    frames.push(frame.uint('frames'));
  return frames;
}

function readOrigins(frame: FrameReader, field: string, countMax: number): OriginId[] {
  const origins: OriginId[] = [];
  for (let left = frame.array(field, countMax); left > 0; left--) origins.push(frame.hex(field, 16));
  return origins;
}

function readPairs(
  frame: FrameReader,
  field: string,
  max: number,
  countMax: number = FRAME_ENTRIES_MAX,
): [OriginId, number][] {
  const pairs: [OriginId, number][] = [];
  for (let left = frame.array(field, countMax, 2); left > 0; left--)
    pairs.push([frame.hex(field, 16), frame.uint(field, max)]);
  return pairs;
}
