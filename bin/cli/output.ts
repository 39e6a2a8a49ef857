/**
 * Standard output as commands need it: a write resolves when the stream has taken it, so that a slow reader
 * slows the command down instead of filling its memory; and a reader that has gone (`| head`) is an answer, not
 * an error.
 */
import { ReadmeshError } from '../../src/errors.js';

/** Lines are collected up to this many characters before they are written. */
const CHUNK_CHARS = 65_536;

export class Output {
  readonly #stream: NodeJS.WritableStream;
  #pending = '';
  #closed = false;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    // Each write reports its own failure; without a listener the event would end the process.
    stream.on('error', () => {});
  }

  /** True once the reader has gone. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Writes at once. False when the reader has gone: stop. Throws INVALID_OPTION when the output cannot be written. */
  async write(text: string): Promise<boolean> {
    const all = this.#pending + text;
    this.#pending = '';
    if (this.#closed || all === '') return !this.#closed;
    const error = await new Promise<NodeJS.ErrnoException | null | undefined>((resolve) => {
      this.#stream.write(all, resolve);
    });
    if (!error) return true;
    if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED')
      throw new ReadmeshError(
        'INVALID_OPTION',
        `the output cannot be written (${error.message}): send it elsewhere`,
        {
          cause: error,
        },
      );
    this.#closed = true;
    return false;
  }

  /** Collects; writes when enough has come together. For many lines: `flush` at the end. */
  line(text: string): Promise<boolean> | boolean {
    this.#pending += `${text}\n`;
    return this.#pending.length < CHUNK_CHARS ? !this.#closed : this.write('');
  }

  flush(): Promise<boolean> {
    return this.write('');
  }
}
