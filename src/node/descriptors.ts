/**
 * Sockets must not take the descriptors that the store needs: LevelDB fails a batch when it cannot open its next
 * log. So where the limit of this process is low, the places for connections are cut down to what is left.
 */
import { readdirSync, readFileSync } from 'node:fs';
import type { TransportOptions } from '../options.js';

/** Kept for the store, the log, and what Node opens for itself. */
const RESERVED = 64;
/** Of each kind of place, however few descriptors there are. */
const PLACES_MIN = 8;

export type Places = Pick<
  TransportOptions,
  'peerLinksMax' | 'clientLinksMax' | 'httpRequestsMax' | 'waitingSocketsMax'
>;

/** How many more descriptors this process may open; undefined where that cannot be known. */
export function descriptorsLeft(): number | undefined {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return limit === undefined ? undefined : Number(limit) - readdirSync('/proc/self/fd').length;
  } catch {
    return undefined;
  }
}

/** `places` as they are, or scaled down so that all of them together leave the reserve alone. */
export function fitPlaces(places: Places, left: number | undefined): Places {
  const { peerLinksMax, clientLinksMax, httpRequestsMax, waitingSocketsMax } = places;
  // Links that are dialed have as many places as those that are accepted.
  const wanted = 2 * peerLinksMax + clientLinksMax + httpRequestsMax + waitingSocketsMax;
  const share = Math.min(1, Math.max(0, (left ?? Number.POSITIVE_INFINITY) - RESERVED) / wanted);
  const scaled = (most: number): number => Math.min(most, Math.max(PLACES_MIN, Math.floor(most * share)));
  return {
    peerLinksMax: scaled(peerLinksMax),
    clientLinksMax: scaled(clientLinksMax),
    httpRequestsMax: scaled(httpRequestsMax),
    waitingSocketsMax: scaled(waitingSocketsMax),
  };
}
