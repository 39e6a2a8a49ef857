/** A terminal with one line of progress at its foot, above which log lines scroll. */
export class Terminal {
  readonly #stream: NodeJS.WriteStream;
  #progress = '';

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  line(text: string): void {
    this.#stream.write(`${this.#erase()}${text}\n${this.#progress}`);
  }

  /** Replaces the line at the foot; empty removes it. */
  progress(text: string): void {
    const erased = this.#erase();
    this.#progress = text.slice(0, Math.max(0, (this.#stream.columns || 80) - 1));
    this.#stream.write(`${erased}${this.#progress}`);
  }

  #erase(): string {
    return this.#progress === '' ? '' : '\r\u001b[2K';
  }
}
