/**
 * The host's side of the client protocol (wire.ts): one session per connection, over whatever implements
 * `NodeService`. Reads are answered on the spot; everything else is answered when it is done. Answers of one
 * tick share a frame.
 *
 * Bounds. Requests are worked off for a few milliseconds at a time, and none is begun while too much waits for
 * the socket; meanwhile the socket is not read. What is in progress is counted and capped. A client that does
 * not read is cut off: at a cap of bytes, or when nothing has left for a minute. A frame that breaks the
 * protocol ends its connection and nothing else.
 */
import type { WebSocket } from 'ws';
import { isTombstone, KIND_REGISTER, KIND_TOMBSTONE, NO_VALUE, stampCounterOf, stampMsOf, valueOffset } from '../core/entry.js';
import { stampFromHex } from '../core/hlc.js';
import type { Row } from '../core/types.js';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import { guardMsgpack } from '../msgpack-guard.js';
import type { MsgpackWriter } from '../msgpack-writer.js';
import { CLIENT_SERVER_DEFAULTS, CLUSTER_DEFAULTS, type ClientServerOptions } from '../options.js';
import type { Range, Status } from '../read-store.js';
import type { NodeService, WriteOp, WriteRequest } from '../service.js';
import { consecutiveStamps } from './clock.js';
import { truncate } from './connection.js';
import { type ClientFrame, FrameBuilder, openFrame, writeGreeting, writeText } from './frame.js';
import { SessionWatches } from './server-watch.js';
import {
  ADDRESSES_MAX,
  CLIENT_PROTOCOL_VERSION,
  FRAME_BYTES_SOFT,
  GREETING_ELEMENTS,
  ID_MAX,
  KEYS_PER_GET_MAX,
  NAME_BYTES_MAX,
  OP_CANCEL,
  OP_DIGEST,
  OP_DIGEST_BUCKET,
  OP_GET,
  OP_GET_MANY,
  OP_HAS,
  OP_HELLO,
  OP_READY,
  OP_REMOVE,
  OP_SCAN,
  OP_STATUS,
  OP_VERIFY,
  OP_WATCH,
  OP_WRITE,
  PAGE_BYTES,
  REQUESTS_PER_FRAME_MAX,
  ROWS_PER_PAGE_MAX,
  STATUS_DONE,
  STATUS_FAILED,
  STATUS_PART,
  TIMEOUT_MS_MAX,
} from './wire.js';
