/**
 * Reading a request body: bounded in bytes and in time, and bounded over all requests together, so that a few
 * hundred large or slow uploads cannot fill the memory of a node that has reads to serve.
 */
import type { IncomingMessage } from 'node:http';
import { ReadmeshError } from '../errors.js';

/** Bytes that all bodies together may hold. */
export class BodyBudget {
  #left: number;

  constructor(bytesMax: number) {
    this.#left = bytesMax;
  }

  /** False when there is no room. */
  take(bytes: number): boolean {
    if (bytes > this.#left) return false;
    this.#left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#left += bytes;
  }
}

export interface BodyLimits {
  readonly bytesMax: number;
  /** Longest pause between two pieces, ms. */
  readonly idleMs: number;
  readonly budget: BodyBudget;
}

/** The request brought nothing for `idleMs`: answered with 408. */
export class SlowBody extends ReadmeshError {
  constructor(idleMs: number) {
    super('TIMEOUT', `the request body brought nothing for ${idleMs} ms: send it at once`);
  }
}

/** The client went away; there is nobody to answer. */
export class Aborted extends ReadmeshError {
  constructor() {
    super('UNREACHABLE', 'the client closed the connection');
  }
}

/**
 * Hands the whole body to `use`, and gives its bytes back to the budget once that has returned. Throws
 * VALUE_TOO_LARGE, OVERLOADED, SlowBody, Aborted. What is not read is left to the HTTP server to discard, so
 * that the client can finish sending and read the answer.
 */
export async function withBody<T>(
  request: IncomingMessage,
  limits: BodyLimits,
  use: (body: Buffer) => T,
): Promise<T> {
  const { bytesMax, budget } = limits;
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge(bytesMax);
  const held = { bytes: 0 };
  try {
    return use(await readAll(request, limits, held));
  } finally {
    budget.give(held.bytes);
  }
}

function readAll(request: IncomingMessage, limits: BodyLimits, held: { bytes: number }): Promise<Buffer> {
  const { bytesMax, idleMs, budget } = limits;
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    const timer = setTimeout(() => settle(new SlowBody(idleMs)), idleMs);
    const onData = (piece: Buffer): void => {
      timer.refresh();
      if (held.bytes + piece.length > bytesMax) return settle(tooLarge(bytesMax));
      if (!budget.take(piece.length))
        return settle(
          new ReadmeshError('OVERLOADED', 'too many request bodies at once: try again, or another host'),
        );
      held.bytes += piece.length;
      pieces.push(piece);
    };
    const onEnd = (): void => settle();
    const onGone = (): void => settle(new Aborted());
    const settle = (error?: ReadmeshError): void => {
      clearTimeout(timer);
      request.off('data', onData).off('end', onEnd).off('close', onGone).off('error', onGone);
      // Errors of a request that is no longer read have no other listener.
      request.on('error', () => {});
      if (error === undefined) return resolve(Buffer.concat(pieces, held.bytes));
      request.resume();
      reject(error);
    };
    request.on('data', onData).once('end', onEnd).once('close', onGone).once('error', onGone);
  });
}

function tooLarge(bytesMax: number): ReadmeshError {
  return new ReadmeshError(
    'VALUE_TOO_LARGE',
    `the body has more than ${bytesMax} bytes, more than any value needs`,
  );
}
