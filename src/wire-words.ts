/**
 * What both directions of the wire between members share: its caps, and the words that travel as numbers.
 * protocol.ts has the whole format.
 */
import type { PeerPhase, SessionEnd } from './core/messages.js';

/** Most records of one frame. */
export const FRAME_RECORDS_MAX = 65_536;
/** Most entries of every other list: origins, heads, frames. */
export const FRAME_ENTRIES_MAX = 65_536;
/** Most ranges of one question. */
export const FRAME_SPANS_MAX = 1_024;
/** Most members, and most removed origins. */
export const FRAME_MEMBERS_MAX = 4_096;
/** Most keys of one plan. */
export const FRAME_RANGES_MAX = 4_096;
/** Bytes of UTF-8. */
export const NAME_BYTES_MAX = 128;
export const ADDRESS_BYTES_MAX = 256;
export const REASON_BYTES_MAX = 1_024;
export const HASH_DIGITS_MAX = 32;
/** Greatest sequence number. A row keeps six bytes for it. */
export const SEQ_MAX = 2 ** 48 - 1;

/** Fields of a hello, its type included. */
export const HELLO_FIELDS = 13;
/** Their places are their numbers. */
export const PHASES: readonly PeerPhase[] = ['new', 'bootstrapping', 'ready'];
export const END_CODES: readonly SessionEnd['code'][] = ['busy', 'not-ready', 'failed', 'cancelled'];
