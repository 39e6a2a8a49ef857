/** A store that was set aside, read by a process of its own (set-aside-child.ts) that may die of it. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { isIntact } from '../checksum.js';
import { isWhole } from '../core/entry.js';
import type { OldStore } from '../core/returning.js';
import type { Row } from '../core/types.js';
import {
  DAMAGED,
  END,
  type Frame,
  FrameCutter,
  OPENED,
  type Opened,
  parseRow,
  type Reading,
} from './set-aside-frames.js';

/** Where sources are run as they are, the build stands beside them. */
const SCRIPT = [
  new URL('./set-aside-child.js', import.meta.url),
  new URL('../../dist/src/node/set-aside-child.js', import.meta.url),
].find((script) => existsSync(script));
/** How long it may keep silent while it is waited for, ms: LevelDB may have to put the store together first. */
const SILENCE_MS_MAX = 120_000;
const STDERR_CHARS_MAX = 2_000;

export interface OldPage {
  readonly rows: readonly { readonly key: string; readonly row: Row }[];
  readonly damaged: number;
}

/** The store cannot be read on. */
export class UnreadableStore extends Error {}

export class SetAsideReader {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #cutter = new FrameCutter();
  readonly #ended: Promise<void>;
  #pending: Frame[] = [];
  #stderr = '';
  #ending = '';

  constructor(reading: Reading) {
    if (SCRIPT === undefined) throw new Error('set-aside-child.js is missing: run `npm run build`');
    this.#child = spawn(process.execPath, [fileURLToPath(SCRIPT), JSON.stringify(reading)], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#chunks = this.#child.stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    this.#child.stdin.on('error', () => {});
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_CHARS_MAX);
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => {
        this.#ending = error.message;
        resolve();
      });
      this.#child.once('close', (code, signal) => {
        this.#ending ||= signal === null ? `exit ${code}` : signal;
        resolve();
      });
    });
  }

  /** What the store says of itself. Throws if it cannot be opened. */
  async open(): Promise<OldStore> {
    const [first, ...rest] = (await this.#frames()) ?? [];
    if (first?.type !== OPENED) throw await this.#failure();
    this.#pending = rest;
    const { heads, meta } = JSON.parse(first.payload.toString()) as Opened;
    return {
      heads: new Map(heads),
      meta: new Map(meta.map(([name, bytes]) => [name, Buffer.from(bytes, 'base64')])),
    };
  }

  /** undefined at the end. Throws if its process ends before that. */
  async next(): Promise<OldPage | undefined> {
    const frames = this.#pending.length > 0 ? this.#pending : await this.#frames();
    this.#pending = [];
    if (frames === undefined) throw await this.#failure();
    if (frames[0]!.type === END) return undefined;
    const rows: { key: string; row: Row }[] = [];
    let damaged = 0;
    for (let i = 0; i < frames.length; i++) {
      const { type, payload } = frames[i]!;
      if (type === END) {
        this.#pending = frames.slice(i);
        break;
      }
      const record = type === DAMAGED ? undefined : parseRow(payload);
      if (record !== undefined && isWhole(record.row) && isIntact(record.key, record.row)) rows.push(record);
      else damaged += 1;
    }
    return { rows, damaged };
  }

  /** Ends its process. */
  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  /** undefined: its process has ended. */
  async #frames(): Promise<Frame[] | undefined> {
    const timer = setTimeout(() => {
      this.#ending = `silent for ${SILENCE_MS_MAX} ms`;
      this.#child.kill('SIGKILL');
    }, SILENCE_MS_MAX);
    try {
      for (;;) {
        const { value, done } = await this.#chunks.next();
        if (done === true) return undefined;
        const frames = this.#cutter.cut(value);
        if (frames.length > 0) return frames;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async #failure(): Promise<UnreadableStore> {
    this.#child.kill('SIGKILL');
    await this.#ended;
    const said = this.#stderr.trim().split('\n', 1)[0];
    return new UnreadableStore(`its reader ended (${this.#ending})${said ? `: ${said}` : ''}`);
  }
}
