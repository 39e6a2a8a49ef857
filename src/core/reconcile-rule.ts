/**
 * One member holds a record, another whose head is at or above the record's dot lacks it. Either the one lost it,
 * or the other shows a record that was superseded long ago: then what superseded it, a tombstone, was collected,
 * and spreading the record would undo a deletion. Absence is an answer, unless it comes from whoever is known to
 * have lost something there.
 *
 * Votes are those of members (the two included) without evidence of damage at this key, and with a head at or above
 * the dot. In this order:
 *
 * 1. A majority of all members lacks it: its holder sets it aside. A majority holds it: who lacks it fetches it.
 * 2. All votes there are say the same: so be it. Two members are thus decided by evidence: whoever's store is known
 *    to disagree with what it should hold has no vote. A holder with evidence sets aside what nobody vouches for
 *    and a sound member lacks; who lacks it with evidence fetches what a sound member holds.
 * 3. No votes at all, both have evidence: the record is fetched. Nobody vouches for its absence.
 * 4. Otherwise nobody does anything: it stays where it is, is not spread, and shows in health, until more members
 *    can be asked, or somebody writes the key anew.
 */
export type Verdict = 'fetch' | 'set-aside' | 'leave';

export interface Votes {
  holds: number;
  lacks: number;
}

export function judge({ holds, lacks }: Votes, members: number): Verdict {
  if (lacks * 2 > members) return 'set-aside';
  if (holds * 2 > members) return 'fetch';
  if (lacks === 0) return 'fetch';
  return holds === 0 ? 'set-aside' : 'leave';
}
