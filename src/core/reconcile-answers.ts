/**
 * The answering side of a comparison (reconcile.ts): sums of ranges, and entries, as they lie on this node's disk.
 * Answering changes nothing but where leaves are cut: a leaf that a range ends in is surveyed and cut there, so that
 * ranges are whole leaves and the next question about them costs nothing. One question of each peer at a time.
 */
import type { Core } from './core.js';
import type { Digest } from './digest.js';
import type { DigestSum } from './digest-sum.js';
import { DAMAGED, type Found } from './heal.js';
import { compareKeys } from './key-order.js';
import type { AskEntries, AskSums, KeySpan } from './messages.js';
import type { Peer } from './peer.js';
import { isWithin } from './reconcile.js';
import { type Item, itemOf } from './reconcile-item.js';
import type { Row } from './types.js';

export class ReconcileAnswers {
  readonly #core: Core;
  readonly #digest: Digest;
  readonly #busy = new Set<Peer>();

  constructor(core: Core, digest: Digest) {
    this.#core = core;
    this.#digest = digest;
  }

  gone(peer: Peer): void {
    this.#busy.delete(peer);
  }

  onAskSums(peer: Peer, { question, spans }: AskSums): void {
    const answer = (sums: readonly Uint8Array[]): void => {
      if (this.#core.peers.has(peer.link)) this.#core.send(peer, { type: 'sums', question, sums });
    };
    if (!this.#mayAnswer(peer) || spans.length > this.#core.options.reconcileSpansMax) return answer([]);
    const { tree } = this.#digest;
    const uncut = new Set<string>();
    for (const { after, to } of spans)
      for (const bound of [after, to]) if (bound !== null && !tree.isBound(bound)) uncut.add(bound);
    this.#busy.add(peer);
    this.#cut([...uncut].sort(compareKeys), (ok) => {
      this.#busy.delete(peer);
      const sums = spans.map(({ after, to }) => this.#digest.tree.sum(after, to ?? undefined));
      const known = sums.filter((sum): sum is DigestSum => sum !== undefined);
      answer(ok && known.length === sums.length ? known.map((sum) => sum.bytes()) : []);
    });
  }

  onAskEntries(peer: Peer, message: AskEntries): void {
    const { question, full, keys } = message;
    if (!this.#mayAnswer(peer) || keys.length > this.#core.options.reconcileEntriesMax)
      return this.#entries(peer, question, false);
    if (keys.length === 0) return this.#ofRange(peer, message);
    return full ? this.#records(peer, question, keys) : this.#itemsOf(peer, message);
  }

  #mayAnswer(peer: Peer): boolean {
    const { identity } = this.#core;
    return (
      this.#digest.built &&
      identity.phase === 'ready' &&
      identity.uid === peer.clusterUid &&
      !this.#busy.has(peer)
    );
  }

  /** Makes bounds of these keys, one leaf after the other. */
  #cut(bounds: readonly string[], then: (ok: boolean) => void): void {
    const { tree } = this.#digest;
    const first = bounds.find((bound) => !tree.isBound(bound));
    if (first === undefined) return then(true);
    const { after } = tree.leafOf(first);
    const to = tree.endOf(first);
    const cuts = bounds.filter((bound) => isWithin({ after, to: to ?? null }, bound));
    const ordered = this.#digest.order({
      after,
      to,
      cuts,
      onDone: () => this.#cut(bounds, then),
      onFailed: () => then(false),
    });
    if (!ordered) then(false);
  }

  #ofRange(peer: Peer, { question, after, to, collected }: AskEntries): void {
    const cut = Math.max(collected, this.#core.collection.begun);
    const reached = this.#reachOf({ after, to });
    const span: KeySpan = { after, to: reached ?? to };
    const keys: string[] = [];
    const rows: Row[] = [];
    this.#busy.add(peer);
    const done = (answered: boolean): void => {
      this.#busy.delete(peer);
      // What is there of a lost record says nothing, and neither does its absence: whoever asks for the key hears so.
      const sound = keys.flatMap((key, i) => (this.#core.heal.isLost(key) ? [] : [i]));
      const items = sound.map((i) => itemOf(keys[i]!, rows[i], this.#digest.isSuspect(keys[i]!), cut));
      this.#entries(peer, question, answered, { reached, keys: sound.map((i) => keys[i]!), items });
    };
    const ordered = this.#digest.order({
      after,
      to: span.to ?? undefined,
      cuts: [],
      onRow: (key, row) => {
        if (!isWithin(span, key)) return;
        keys.push(key);
        rows.push(row);
      },
      onDone: () => done(true),
      onFailed: () => done(false),
    });
    if (!ordered) done(false);
  }

  /** How far one answer goes: as many leaves as it has room for, at least one; null: all of the range. */
  #reachOf({ after, to }: KeySpan): string | null {
    const { tree } = this.#digest;
    const { reconcileEntriesMax } = this.#core.options;
    let count = tree.isBound(after) ? 0 : tree.leafOf(after).count;
    let bound = tree.isBound(after) ? after : tree.endOf(after);
    for (let leaf = 0; bound !== undefined && (to === null || compareKeys(bound, to) < 0); leaf++) {
      const next = tree.leafAt(bound)!;
      if (leaf > 0 && count + next.count > reconcileEntriesMax) return bound;
      count += next.count;
      bound = tree.endOfLeafAt(bound);
    }
    return null;
  }

  #itemsOf(peer: Peer, { question, keys, collected }: AskEntries): void {
    const cut = Math.max(collected, this.#core.collection.begun);
    const items = keys.map((key) => {
      const row = this.#row(key);
      if (row === DAMAGED) return itemOf(key, undefined, true);
      return itemOf(key, row, this.#digest.isSuspect(key), cut);
    });
    this.#entries(peer, question, true, { keys, items });
  }

  #records(peer: Peer, question: number, wanted: readonly string[]): void {
    const { options } = this.#core;
    const keys: string[] = [];
    const rows: Row[] = [];
    let bytes = 0;
    for (const key of wanted) {
      const row = this.#row(key);
      if (row === undefined || row === DAMAGED) continue;
      bytes += key.length + row.length;
      if (keys.length > 0 && bytes > options.chunkBytesMax) break;
      keys.push(key);
      rows.push(row);
    }
    this.#entries(peer, question, true, { keys, rows });
  }

  #row(key: string): Found {
    const { deps, heal } = this.#core;
    const row = heal.isLost(key) ? DAMAGED : deps.lookup(key);
    if (row === DAMAGED) heal.damaged(key);
    return row;
  }

  #entries(
    peer: Peer,
    question: number,
    answered: boolean,
    what: {
      reached?: string | null;
      keys?: readonly string[];
      items?: readonly Item[];
      rows?: readonly Row[];
    } = {},
  ): void {
    if (!this.#core.peers.has(peer.link)) return;
    const { reached = null, keys = [], items = [], rows = [] } = answered ? what : {};
    const { begun: collected } = this.#core.collection;
    this.#core.send(peer, { type: 'entries', question, answered, reached, collected, keys, items, rows });
  }
}
