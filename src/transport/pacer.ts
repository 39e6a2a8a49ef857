/**
 * Pacing of what arrives. Sockets deliver as fast as peers send; handling a frame (decode, merge, queue a
 * write) costs far more than receiving it. So a frame is only queued when it arrives, one inbox per link, and
 * the pacer hands frames out in slices: `sliceMs` of work, then one turn of the event loop (timers, reads of
 * clients, other sockets), then the next slice. Links take turns frame by frame, so that one that floods
 * does not delay the others' heartbeats.
 *
 * An inbox is bounded: above `bytesMax` or `framesMax` its socket is paused, and TCP tells the sender. What is
 * already read from the socket still comes in, so the bound is exceeded by at most one frame and one read.
 */

export interface InboxSink {
  /** One received frame. Never called within `Inbox.push`. May drop or end the inbox. */
  onFrame(bytes: Uint8Array): void;
  /** `end` was called and every frame before it is handed out. Called once, and not after `drop`. */
  onEnd(): void;
  /** Stop and go on reading the socket. */
  pause(): void;
  resume(): void;
}

export interface InboxCaps {
  readonly bytesMax: number;
  readonly framesMax: number;
}

export class Pacer {
  readonly #sliceMs: number;
  /** Inboxes with something to hand out, in turn. Each stands here at most once. */
  #turns: Inbox[] = [];
  #scheduled = false;
  /** Slices so far: how often the event loop was given back. */
  slices = 0;

  constructor(sliceMs: number) {
    this.#sliceMs = sliceMs;
  }

  inbox(caps: InboxCaps, sink: InboxSink): Inbox {
    return new Inbox(caps, sink, (inbox) => this.#enqueue(inbox));
  }

  #enqueue(inbox: Inbox): void {
    this.#turns.push(inbox);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#slice);
  }

  readonly #slice = (): void => {
    this.slices++;
    const end = performance.now() + this.#sliceMs;
    do {
      const round = this.#turns;
      this.#turns = [];
      for (let i = 0; i < round.length; i++) {
        const inbox = round[i]!;
        if (inbox.handOutOne()) this.#turns.push(inbox);
        if (performance.now() >= end) {
          this.#turns = [...round.slice(i + 1), ...this.#turns];
          break;
        }
      }
    } while (this.#turns.length > 0 && performance.now() < end);
    this.#scheduled = this.#turns.length > 0;
    if (this.#scheduled) setImmediate(this.#slice);
  };
}

export class Inbox {
  readonly #caps: InboxCaps;
  readonly #sink: InboxSink;
  readonly #wantTurn: (inbox: Inbox) => void;
  #frames: Uint8Array[] = [];
  /** Frames before it are handed out already. */
  #next = 0;
  #bytes = 0;
  #paused = false;
  #waiting = false;
  #state: 'open' | 'ended' | 'done' = 'open';

  /** Made by `Pacer.inbox`. */
  constructor(caps: InboxCaps, sink: InboxSink, wantTurn: (inbox: Inbox) => void) {
    this.#caps = caps;
    this.#sink = sink;
    this.#wantTurn = wantTurn;
  }

  /** Bytes not yet handed out. */
  get bytes(): number {
    return this.#bytes;
  }

  get frames(): number {
    return this.#frames.length - this.#next;
  }

  /** True while the socket is not read because of this inbox. */
  get paused(): boolean {
    return this.#paused;
  }

  push(bytes: Uint8Array): void {
    if (this.#state !== 'open') return;
    this.#frames.push(bytes);
    this.#bytes += bytes.length;
    this.#await();
    if (!this.#paused && (this.#bytes > this.#caps.bytesMax || this.frames > this.#caps.framesMax)) {
      this.#paused = true;
      this.#sink.pause();
    }
  }

  /** No frame follows. Those queued are still handed out, then `onEnd` is called. */
  end(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ended';
    this.#await();
  }

  /** Forgets everything queued, at once; nothing of the sink is called again. */
  drop(): void {
    this.#state = 'done';
    this.#frames = [];
    this.#next = 0;
    this.#bytes = 0;
    this.#paused = false;
  }

  /** One frame, or the end. Returns whether another turn is wanted. For the pacer. */
  handOutOne(): boolean {
    this.#waiting = false;
    const bytes = this.#frames[this.#next];
    if (bytes !== undefined) {
      this.#advance(bytes.length);
      this.#sink.onFrame(bytes);
    }
    if (this.#state === 'ended' && this.frames === 0) {
      this.#state = 'done';
      this.#sink.onEnd();
    }
    // A call of the sink may have queued a turn already.
    if (this.frames === 0 || this.#waiting) return false;
    this.#waiting = true;
    return true;
  }

  #advance(bytes: number): void {
    this.#next++;
    this.#bytes -= bytes;
    if (this.#next === this.#frames.length) {
      this.#frames = [];
      this.#next = 0;
    } else if (this.#next > this.#caps.framesMax) {
      this.#frames = this.#frames.slice(this.#next);
      this.#next = 0;
    }
    const { bytesMax, framesMax } = this.#caps;
    if (this.#paused && this.#bytes <= bytesMax / 4 && this.frames <= framesMax / 4) {
      this.#paused = false;
      this.#sink.resume();
    }
  }

  #await(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    this.#wantTurn(this);
  }
}
