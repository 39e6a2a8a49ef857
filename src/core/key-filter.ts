/**
 * Tells keys that were certainly never taken in from those that may have been: a blocked Bloom filter (Putze, Sanders
 * and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007). Loading new keys asks for each of them
 * whether there is an older record, and LevelDB takes over a microsecond to say no.
 *
 * It can only be relied on when every key since the store was empty has been added. It grows by layers, and is of no
 * more use (`isFull`) above `FILTER_BYTES_MAX`.
 */

/** 512 bits: one cache line, in which all bits of a key lie. */
const BLOCK_WORDS = 16;
const BITS_PER_KEY = 16;
const PROBES = 6;
/** Keys of the first layer; each next one takes this many times as many. */
const FIRST_KEYS = 262_144;
const GROWTH = 4;
export const FILTER_BYTES_MAX = 67_108_864;

interface Layer {
  readonly words: Uint32Array;
  readonly blockMask: number;
  free: number;
}

function layerOf(keys: number): Layer {
  const words = new Uint32Array((keys * BITS_PER_KEY) / 32);
  return { words, blockMask: words.length / BLOCK_WORDS - 1, free: keys };
}

export class KeyFilter {
  readonly #layers: Layer[] = [];
  #bytes = 0;
  /** The key that was hashed last, its block, and where its bits lie in it. */
  #key = '';
  #block = 0;
  #bits = 0;

  /** No further key may be added: the filter is of no use any more. */
  get isFull(): boolean {
    return this.#bytes > FILTER_BYTES_MAX;
  }

  /** False: the key was never added. */
  mayHold(key: string): boolean {
    this.#hash(key);
    for (const layer of this.#layers) if (this.#isIn(layer)) return true;
    return false;
  }

  add(key: string): void {
    if (this.mayHold(key)) return;
    let layer = this.#layers.at(-1);
    if (layer === undefined || layer.free === 0) {
      layer = layerOf(FIRST_KEYS * GROWTH ** this.#layers.length);
      this.#bytes += layer.words.byteLength;
      if (this.isFull) {
        this.#layers.length = 0;
        return;
      }
      this.#layers.push(layer);
    }
    layer.free -= 1;
    const base = (this.#block & layer.blockMask) * BLOCK_WORDS;
    let bits = this.#bits;
    for (let i = 0; i < PROBES; i++) {
      layer.words[base + ((bits >>> 5) & 15)]! |= 1 << (bits & 31);
      bits = nextBits(bits);
    }
  }

  #isIn({ words, blockMask }: Layer): boolean {
    const base = (this.#block & blockMask) * BLOCK_WORDS;
    let bits = this.#bits;
    for (let i = 0; i < PROBES; i++) {
      if ((words[base + ((bits >>> 5) & 15)]! & (1 << (bits & 31))) === 0) return false;
      bits = nextBits(bits);
    }
    return true;
  }

  /** Once for a key that is asked for and then added. */
  #hash(key: string): void {
    if (key === this.#key) return;
    this.#key = key;
    let hash = 0x811c9dc5 ^ key.length;
    for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
    // Both come of 32 bits: of four million keys one in a thousand shares them with another.
    this.#block = finish(hash);
    this.#bits = finish(hash ^ 0x9e3779b9);
  }
}

function finish(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The nine bits at the bottom name one of the 512 of a block. */
function nextBits(bits: number): number {
  return Math.imul(bits, 0x2545f491) + 0x9e3779b9 + (bits >>> 15);
}
