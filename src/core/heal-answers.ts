/**
 * The answering side of healing (heal.ts): records, and the absence of records, for a peer that has lost them. What
 * this node has itself lost, or may have lost, is in no answer: the peer asks elsewhere. One that bootstraps, or
 * was restored and has met nobody yet, says what it has so far, and claims nothing: its heads stay out of the answer.
 */
import type { Core } from './core.js';
import { DAMAGED, type Doubts } from './heal.js';
import type { AskRange, AskRecords } from './messages.js';
import type { Peer } from './peer.js';
import type { OriginId, Records, Row } from './types.js';

/** Records of one answer, and bytes after which the rest has to be asked for again. */
const LENT_ROWS_MAX = 1_024;
const LENT_BYTES_MAX = 1_048_576;
/** Range requests served at a time. */
const RANGES_SERVED_MAX = 4;

interface RangeServed {
  readonly peer: Peer;
  readonly request: number;
  heads: ReadonlyMap<OriginId, number>;
}

export class HealAnswers {
  readonly #core: Core;
  readonly #doubts: Doubts;
  readonly #served = new Map<number, RangeServed>();

  constructor(core: Core, doubts: Doubts) {
    this.#core = core;
    this.#doubts = doubts;
  }

  gone(peer: Peer): void {
    for (const [scan, served] of [...this.#served]) if (served.peer === peer) this.#stop(scan);
  }

  onAskRecords(peer: Peer, message: AskRecords): void {
    const core = this.#core;
    if (!this.#isOurs(peer)) return this.#refuse(peer, message.request);
    // Whatever the asker pushed before it asked is then written, and its heads are likely to be covered.
    core.afterWritten(() => {
      const keys: string[] = [];
      const rows: Row[] = [];
      const absent: string[] = [];
      let bytes = 0;
      for (const key of message.keys) {
        if (bytes >= LENT_BYTES_MAX) break;
        const row = core.heal.isLost(key) ? DAMAGED : core.deps.lookup(key);
        if (row === DAMAGED) core.heal.damaged(key);
        else if (row !== undefined) {
          keys.push(key);
          rows.push(row);
          bytes += key.length + row.length;
        } else if (!this.#doubts.isSuspect(key)) absent.push(key);
      }
      const { phase, unmet } = core.identity;
      const heads = phase === 'ready' && !unmet ? core.written.heads() : undefined;
      this.#answer(peer, message.request, heads, { keys, rows }, absent, false);
    });
  }

  onAskRange(peer: Peer, message: AskRange): void {
    const core = this.#core;
    const { phase, unmet } = core.identity;
    const isWhole = phase === 'ready' && !unmet;
    if (!this.#isOurs(peer) || !isWhole || this.#served.size >= RANGES_SERVED_MAX)
      return this.#refuse(peer, message.request);
    const scan = core.nextScan();
    this.#served.set(scan, { peer, request: message.request, heads: new Map() });
    core.afterWritten(() => {
      if (!this.#served.has(scan)) return;
      const { after, until } = message;
      core.emit({ type: 'open-scan', scan, what: { after, until } });
    });
  }

  /** False: not a scan of this part. */
  scanOpened(scan: number, heads: ReadonlyMap<OriginId, number>): boolean {
    const served = this.#served.get(scan);
    if (served === undefined) return false;
    served.heads = heads;
    this.#core.emit({ type: 'read-scan', scan, rowsMax: LENT_ROWS_MAX, bytesMax: LENT_BYTES_MAX });
    return true;
  }

  scanRead(scan: number, records: Records, last: boolean): boolean {
    const served = this.#served.get(scan);
    if (served === undefined) return false;
    this.#answer(served.peer, served.request, [...served.heads], records, [], last);
    this.#stop(scan);
    return true;
  }

  scanFailed(scan: number): boolean {
    const served = this.#served.get(scan);
    if (served === undefined) return false;
    this.#refuse(served.peer, served.request);
    this.#stop(scan);
    return true;
  }

  #isOurs(peer: Peer): boolean {
    const { phase, uid } = this.#core.identity;
    return (phase === 'ready' || phase === 'bootstrapping') && peer.clusterUid === uid;
  }

  #answer(
    peer: Peer,
    request: number,
    heads: readonly (readonly [origin: OriginId, head: number])[] | undefined,
    { keys, rows }: Records,
    absent: readonly string[],
    end: boolean,
  ): void {
    if (!this.#core.peers.has(peer.link)) return;
    this.#core.counters.recordsLent += keys.length;
    const ready = heads !== undefined;
    this.#core.send(peer, { type: 'lent', request, ready, heads: heads ?? [], keys, rows, absent, end });
  }

  #refuse(peer: Peer, request: number): void {
    const nothing = { heads: [], keys: [], rows: [], absent: [] };
    this.#core.send(peer, { type: 'lent', request, ready: false, ...nothing, end: false });
  }

  #stop(scan: number): void {
    this.#served.delete(scan);
    this.#core.emit({ type: 'close-scan', scan });
  }
}
