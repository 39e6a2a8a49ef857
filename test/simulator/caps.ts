/** What a core may hold at most, whatever happens to it. */
import { AWAITED_MAX, KEPT_BYTES_MAX, KEPT_FRAMES_MAX } from '../../src/core/offers.js';
import { OFFERED_REMEMBERED_MAX } from '../../src/core/peer.js';
import type { ReplicaCore } from '../../src/core/replica.js';
import type { CoreOptions } from '../../src/options.js';

/** The first thing of which the core holds more than it may; undefined while all is well. */
export function overCap(core: ReplicaCore): string | undefined {
  const { sizes, options } = core;
  // One may have been sent on by others under an origin that the table has not taken yet, and there is its own.
  const members = sizes.members + 1;
  const caps: readonly [what: string, held: number, cap: number][] = [
    ['trees', sizes.branches, members],
    ['pulses', sizes.pulses, members],
    ['pulses on hold', sizes.held, members],
    ['frames kept', sizes.keptFrames, KEPT_FRAMES_MAX],
    ['bytes of frames kept', sizes.keptBytes, KEPT_BYTES_MAX],
    ['frames waited for', sizes.awaited, AWAITED_MAX],
    ['frames remembered of one peer', sizes.offeredByOne, OFFERED_REMEMBERED_MAX],
    ['links', sizes.links, linksMax(options)],
  ];
  const over = caps.find(([, held, cap]) => held > cap);
  return over === undefined ? undefined : `${over[1]} ${over[0]}, of which it may hold ${over[2]}`;
}

/** Its neighbours in the ring of names, and newcomers, come on top of what it takes. */
function linksMax({ meshLinks, fullMeshMax }: CoreOptions): number {
  return Math.max(meshLinks * 3, fullMeshMax * 2) + 4;
}
