import type { Rows } from './read-store.js';

/** The rows of a generator, as a store hands them out. */
export function rowsOf<T>(generator: AsyncGenerator<T, void, undefined>): Rows<T> {
  const toArray = async (): Promise<T[]> => {
    const all: T[] = [];
    for await (const row of generator) all.push(row);
    return all;
  };
  return Object.assign(generator, { toArray });
}
