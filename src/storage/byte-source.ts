/** Bytes in the portions that their reader wants, whatever portions they come in. */
export class ByteSource {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #held: Buffer[] = [];
  #length = 0;
  /** Bytes taken so far. */
  offset = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** The next `count` bytes; fewer only at the end. */
  async take(count: number): Promise<Buffer> {
    while (this.#length < count) {
      const { done, value } = await this.#chunks.next();
      if (done === true) break;
      this.#held.push(Buffer.from(value.buffer, value.byteOffset, value.length));
      this.#length += value.length;
    }
    const taken = Math.min(count, this.#length);
    const first = this.#held[0];
    if (first === undefined) return Buffer.alloc(0);
    const all = first.length >= taken ? first : Buffer.concat(this.#held);
    if (all !== first) this.#held = [all];
    if (all.length > taken) this.#held[0] = all.subarray(taken);
    else this.#held.shift();
    this.#length -= taken;
    this.offset += taken;
    return all.subarray(0, taken);
  }
}
