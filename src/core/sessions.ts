/**
 * Sessions: how a node gets what pushes did not bring. This is their front door; the rooms are
 *
 *     serving.ts     snapshots for others
 *     asking.ts      what all sessions of ours have in common: order, flow control, giving up
 *     catch-up.ts    what to ask for when ready: everything above our heads, by dots
 *     bootstrap.ts   what to ask for when empty: everything, by ranges of keys, from several peers at once
 */
import { Asking } from './asking.js';
import { Bootstrap, type BootstrapProgress } from './bootstrap.js';
import { CatchUp } from './catch-up.js';
import type { Core } from './core.js';
import type { Digest } from './digest.js';
import type { Lifecycle } from './lifecycle.js';
import type {
  Chunk,
  ChunkAck,
  Plan,
  PlanAsk,
  Pull,
  PullRange,
  SessionEnd,
  SessionOpened,
} from './messages.js';
import type { Peer } from './peer.js';
import type { Merge } from './replication.js';
import { Serving } from './serving.js';
import type { Trees } from './trees.js';

export class Sessions {
  readonly serving: Serving;
  readonly #core: Core;
  readonly #asking: Asking;
  readonly #catchUp: CatchUp;
  readonly #bootstrap: Bootstrap;

  constructor(core: Core, lifecycle: Lifecycle, merge: Merge, trees: Trees, digest: Digest) {
    this.#core = core;
    this.serving = new Serving(core, trees, digest);
    this.#asking = new Asking(core, merge);
    this.#catchUp = new CatchUp(core, this.#asking, merge);
    this.#bootstrap = new Bootstrap(core, this.#asking, merge, lifecycle, digest);
  }

  get progress(): BootstrapProgress | undefined {
    return this.#bootstrap.progress;
  }

  /** Whether everything that the sources hold under this key has been copied: absence is an answer then. */
  isCopied(key: string): boolean {
    return this.#bootstrap.isCopied(key);
  }

  /** What sessions brought so far stays, but does not count: the store is filled anew. */
  restart(): void {
    this.#asking.cancel('the bootstrap begins anew');
    this.#bootstrap.restart();
  }

  /** Looks for something to ask for, and for someone to ask. Level-triggered: safe to call at any time. */
  evaluate(): void {
    const core = this.#core;
    const { identity } = core;
    if (identity.uid === '' || (identity.phase !== 'ready' && identity.phase !== 'bootstrapping')) return;
    const peers = core.partners().filter((peer) => peer.phase === 'ready');
    if (identity.phase === 'ready') this.#catchUp.evaluate(peers);
    else this.#bootstrap.evaluate(peers);
  }

  onPull(peer: Peer, message: Pull | PullRange): void {
    this.serving.onPull(peer, message);
  }

  onOpened(peer: Peer, message: SessionOpened): void {
    this.#asking.onOpened(peer, message);
  }

  onChunk(peer: Peer, chunk: Chunk): void {
    this.#asking.onChunk(peer, chunk);
    if (!chunk.last) return;
    this.evaluate();
    this.#core.afterWritten(() => this.evaluate());
  }

  onChunkAck(peer: Peer, message: ChunkAck): void {
    this.serving.onChunkAck(peer, message);
  }

  onEnd(peer: Peer, message: SessionEnd): void {
    if (message.asked) this.serving.onEnd(peer, message.session);
    else this.#asking.onEnd(peer, message);
  }

  onPlanAsk(peer: Peer, message: PlanAsk): void {
    this.serving.onPlanAsk(peer, message);
  }

  onPlan(peer: Peer, message: Plan): void {
    if (this.#bootstrap.onPlan(peer, message)) this.evaluate();
  }

  gone(peer: Peer): void {
    this.#asking.gone(peer);
    this.#bootstrap.gone(peer);
    this.serving.gone(peer);
  }

  /** What was held back may go on. */
  resume(): void {
    this.#asking.resume();
    this.serving.resume();
  }

  /** Ends what makes no progress. */
  sweep(): void {
    this.#asking.sweep();
    this.#bootstrap.sweep();
    this.serving.sweep();
  }
}
