/** Members of a cluster, each in a process of its own, as a bench commands them. See member-child.ts. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Context } from './harness.js';

/** Long: loading many rows is one answer. */
const ANSWER_MS_MAX = 480_000;

/** Since the start of the process. */
export interface Usage {
  readonly cpuMicros: number;
  /** Bytes on links. */
  readonly received: number;
  readonly sent: number;
  /** Open links. */
  readonly links: number;
  readonly heads: Readonly<Record<string, number>>;
}

type Order =
  | { readonly type: 'usage' }
  /** Loads synthetic rows in batches, not flushed. */
  | { readonly type: 'load'; readonly count: number }
  /** Puts rows one by one, 1,000 in flight, whose values differ with `version`; not flushed. */
  | {
      readonly type: 'put';
      readonly from: number;
      readonly count: number;
      readonly version: number;
      readonly replicas: number;
    }
  /** Takes the network away, or gives it back. */
  | { readonly type: 'cut'; readonly cut: boolean }
  /** Answers when everything of the origin up to `head` is written here: ms since the first socket after a cut. */
  | { readonly type: 'holds'; readonly origin: string; readonly head: number }
  | { readonly type: 'read'; readonly row: number };

export type MemberOrder = Order & { readonly id: number };

export interface MemberReply {
  readonly id: number;
  readonly ready?: { readonly address: string; readonly origin: string };
  readonly usage?: Usage;
  readonly tookMs?: number;
  readonly value?: string;
  readonly error?: string;
}

export class Member implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<
    number,
    { resolve: (reply: MemberReply) => void; reject: (e: Error) => void }
  >();
  #lastId = 0;
  address = '';
  origin = '';

  /** Resolves once it is ready. `join`: address of a member; empty: founds the cluster. */
  static async start(
    context: Context,
    { name, join, flush = false }: { name: string; join: string; flush?: boolean },
  ): Promise<Member> {
    const script = fileURLToPath(new URL('./member-child.js', import.meta.url));
    const member = new Member(fork(script, [context.folder(), name, join, String(flush)]));
    try {
      const { ready } = await member.#answer(0, 'start');
      member.address = ready!.address;
      member.origin = ready!.origin;
      return member;
    } catch (error) {
      await member[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on('message', (message) => {
      const reply = message as MemberReply;
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if (reply.error !== undefined) waiting?.reject(new Error(reply.error));
      else waiting?.resolve(reply);
    });
    child.once('exit', (code) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`a member ended with ${code}`));
      this.#waiting.clear();
    });
  }

  async ask(order: Order): Promise<MemberReply> {
    const id = ++this.#lastId;
    const answer = this.#answer(id, order.type);
    this.#child.send({ ...order, id });
    return answer;
  }

  async usage(): Promise<Usage> {
    return (await this.ask({ type: 'usage' })).usage!;
  }

  /** Head of what it has accepted itself. */
  async head(): Promise<number> {
    return (await this.usage()).heads[this.origin] ?? 0;
  }

  async #answer(id: number, what: string): Promise<MemberReply> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        timer = setTimeout(
          () => reject(new Error(`a member was to answer "${what}" within ${ANSWER_MS_MAX} ms`)),
          ANSWER_MS_MAX,
        );
        this.#waiting.set(id, { resolve, reject });
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

/** Members that know each other; all are ended with it. */
export class Members implements AsyncDisposable {
  readonly all: readonly Member[];

  static async start(context: Context, count: number, flush = false): Promise<Members> {
    const all: Member[] = [];
    try {
      for (let i = 0; i < count; i++)
        all.push(await Member.start(context, { name: `m${i}`, join: all[0]?.address ?? '', flush }));
      return new Members(all);
    } catch (error) {
      await new Members(all)[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(all: readonly Member[]) {
    this.all = all;
  }

  /** Until every member holds what `writer` has accepted. Milliseconds of the last one. */
  async hold(writer: Member): Promise<number> {
    const head = await writer.head();
    const replies = await Promise.all(
      this.all.map((member) => member.ask({ type: 'holds', origin: writer.origin, head })),
    );
    return Math.max(...replies.map(({ tookMs }) => tookMs!));
  }

  /** What all have used, added up. */
  async usage(): Promise<Omit<Usage, 'heads'>> {
    const all = await Promise.all(this.all.map((member) => member.usage()));
    const sum = (of: (usage: Usage) => number): number => all.reduce((total, one) => total + of(one), 0);
    return {
      cpuMicros: sum(({ cpuMicros }) => cpuMicros),
      received: sum(({ received }) => received),
      sent: sum(({ sent }) => sent),
      links: sum(({ links }) => links) / 2,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.all.map((member) => member[Symbol.asyncDispose]()));
  }
}
