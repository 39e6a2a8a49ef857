/**
 * The end of a run. Safety was checked all along; now liveness: a random majority is healed, the others stay
 * broken for good, and the healed ones must come to hold the same, byte for byte, within a bounded virtual time,
 * with everything that was acknowledged in it, and go on to take writes.
 */

import { DigestSum } from '../../src/core/digest-sum.js';
import { KIND_REGISTER } from '../../src/core/entry.js';
import { digestEntry } from '../../src/core/entry-hash.js';
import { hasEnded } from '../../src/core/seal-gossip.js';
import type { Row } from '../../src/core/types.js';
import { Violation } from './faults.js';
import { uncollected } from './graves.js';
import { clusterOnDisk, type Injector, isReadyOnDisk } from './inject.js';
import type { SimNode, WriteResult } from './node.js';
import type { Obligation } from './oracle.js';
import type { Plan } from './plan.js';
import type { World } from './world.js';

/**
 * Longest time in which healed nodes may still differ, ms. The longest single wait in it is a session that
 * stalled (10 s), then the longest pause between dials (5 s), then a session of its own.
 */
export const CONVERGENCE_MS_MAX = 45_000;
const POLL_MS = 250;
/** An operator looks what is the matter after so long, ms. */
const OPERATOR_MS = 12_000;
/** Longest time in which all members forget an origin that has ended, beyond the age of tokens, ms. */
const FORGETTING_MS_MAX = 20_000;
/** Links are back this long after they broke, ms; and what then is sent again is acknowledged after so long. */
const RELINK_MS_MAX = 15_000;
const SENT_AGAIN_MS_MAX = 700;
/** Longest time in which nodes that are left alone write something at every moment, ms. */
const REST_MS_MAX = 5_000;
/** Writes that wait for others when the healing comes have been on their way for so long. */
const WAITED_MS = 300;

export class Finish {
  readonly #world: World;
  readonly #plan: Plan;
  readonly #nodes: readonly SimNode[];
  readonly #injector: Injector;

  constructor(world: World, plan: Plan, nodes: readonly SimNode[], injector: Injector) {
    this.#world = world;
    this.#plan = plan;
    this.#nodes = nodes;
    this.#injector = injector;
  }

  /** Returns how long the healed ones took, virtual ms. */
  run(): number {
    const healed = this.#heal();
    const due = this.#due(healed);
    const from = this.#world.scheduler.now;
    const limit = this.#limit(healed);
    this.#world.run(POLL_MS);
    let hasRemoved = false;
    while (this.#difference(healed) !== undefined) {
      const waited = this.#world.scheduler.now - from;
      if (!hasRemoved && waited > OPERATOR_MS) hasRemoved = this.#removeDead(healed);
      if (waited > limit)
        throw new Violation('convergence', `after ${limit} ms, ${this.#difference(healed)}`);
      this.#world.run(POLL_MS);
    }
    const took = this.#world.scheduler.now - from;
    this.#checkEqual(healed);
    const { oracle } = this.#world;
    const hosts = new Set(healed.map(({ host }) => host)).size;
    for (const obligation of due) {
      const stored = oracle.holders(obligation, healed, false).size;
      // What was too old to be brought back is for the operator.
      const isWithOperator = stored === 0 && oracle.holders(obligation, healed).size > 0;
      if (stored !== hosts && !isWithOperator)
        throw new Violation('durability', `${obligation.key} at ${obligation.stamp} is not held by all`);
    }
    this.#checkSentAgain(healed);
    this.#checkUsable(healed);
    if (healed.length === this.#nodes.length) this.#checkBounded(healed);
    return took;
  }

  #heal(): SimNode[] {
    const { ledger, network } = this.#world;
    ledger.note('all', () => 'heals');
    this.#injector.healed = true;
    this.#injector.removeClones();
    const healed = this.#chooseHealed();
    const broken = this.#nodes.filter((node) => !healed.includes(node));
    const { minority } = this.#plan;
    this.#writeTooEarly(healed);
    network.heal((a, b) => {
      const between = healed.includes(a) !== healed.includes(b);
      return between && (minority === 'cut' || (minority === 'oneWay' && healed.includes(a)));
    }, this.#nodes);
    for (const node of broken) {
      if (minority === 'dead') node.kill();
      else if (minority === 'stopped') node.pause();
    }
    for (const node of healed) this.#repair(node);
    this.#endHopelessBootstrap(healed);
    return healed;
  }

  /**
   * Writes that are still without an answer when the faults end, and that all the healed hosts are to acknowledge:
   * what was lost on its way must be sent again, since nobody issues it anew.
   */
  #writeTooEarly(healed: readonly SimNode[]): void {
    const timeoutMs = 2 * WAITED_MS + this.#limit(healed);
    const options = { replicas: this.#hostsWithin(healed), fsync: this.#plan.flushes, timeoutMs };
    for (const node of healed) {
      if (!node.ready || node.paused) continue;
      const value = Buffer.from(`early of ${node.name}`);
      node.write([{ key: `early/${node.name}`, kind: KIND_REGISTER, value }], options, () => {});
    }
    this.#world.run(WAITED_MS);
  }

  /**
   * Acknowledgements come over a node's own links: from all others in a full mesh; in a sparse one the only link may
   * lead to a member on the same machine.
   */
  #hostsWithin(healed: readonly SimNode[]): number {
    const isFull = this.#world.options.fullMeshMax >= this.#nodes.length;
    const reached = isFull ? this.#nodes.length : this.#plan.sharedHost ? 1 : 2;
    return Math.min(reached, new Set(healed.map((node) => node.host)).size);
  }

  /**
   * A power cut may have taken the only record that somebody held everything from disks that do not flush; or the
   * only source of a rebuild lost its disk, too. Then all wait for each other, and an operator has to decide: one of
   * them is restarted as the founder.
   */
  #endHopelessBootstrap(healed: readonly SimNode[]): void {
    if (this.#plan.flushes && this.#world.ledger.faults.missedForgetting === 0) return;
    const founded = new Set(healed.filter(isReadyOnDisk).map(clusterOnDisk));
    const joined = healed.filter((node) => {
      const uid = clusterOnDisk(node);
      return uid !== undefined && uid !== '' && !founded.has(uid);
    });
    if (joined.length === 0) return;
    const most = joined.reduce((a, b) => (a.disk.image.rows.size >= b.disk.image.rows.size ? a : b));
    this.#world.ledger.note(most.name, () => 'is told to found');
    most.kill();
    most.start(true);
  }

  /** A strict majority in which somebody holds everything; all, if nobody does. */
  #chooseHealed(): SimNode[] {
    const { healOrder, minority } = this.#plan;
    const holds = (node: SimNode): boolean => isReadyOnDisk(node) && !this.#world.oracle.damaged.has(node);
    const order = [...this.#nodes].sort((a, b) => healOrder[a.id]! - healOrder[b.id]!);
    if (minority === 'none' || !order.some(holds)) return order;
    const healed = order.slice(0, Math.floor(order.length / 2) + 1);
    if (!healed.some(holds)) healed[0] = order.find(holds)!;
    return healed;
  }

  /**
   * Whoever has lost the member table with its disk is a newcomer, and those who do not hear a majority let none in: an
   * operator says that the broken ones are gone for good. True if that was so.
   */
  #removeDead(healed: readonly SimNode[]): boolean {
    const isRefused = ({ core }: SimNode): boolean =>
      core!.issues().some(({ code }) => code === 'NO_MAJORITY');
    const member = healed.find((node) => node.ready);
    if (member === undefined || !healed.some(isRefused)) return false;
    for (const { name } of this.#nodes.filter((node) => !healed.includes(node)))
      member.input({ type: 'remove-member', id: 0, name });
    return true;
  }

  #repair(node: SimNode): void {
    node.clockOffsetMs = 0;
    node.frozenWall = undefined;
    Object.assign(node.diskFaults, { nextWrite: undefined, nextRead: false, full: false, slowMs: 0 });
    node.proceed();
    const { core } = node;
    if (core?.identity.phase === 'failed') node.kill();
    node.start();
  }

  /** Acknowledged operations that the healed ones must hold in the end. */
  #due(healed: readonly SimNode[]): Obligation[] {
    const { oracle } = this.#world;
    const out: Obligation[] = [];
    for (const list of oracle.obligations.values())
      for (const obligation of list) {
        if (oracle.holders(obligation, healed).size > 0) {
          out.push(obligation);
          continue;
        }
        const gone = new Set([...obligation.lost, ...oracle.holders(obligation)]);
        if (gone.size < obligation.replicas)
          throw new Violation(
            'durability',
            `${obligation.key} at ${obligation.stamp}, acknowledged by ${obligation.replicas}, is gone with ${gone.size} hosts`,
          );
      }
    return out;
  }

  /** Stamps of a clock that was ahead are refused until true time comes near. */
  #limit(healed: readonly SimNode[]): number {
    const ahead = healed.map((node) => node.disk.image.hlc.ms - this.#world.wall());
    return CONVERGENCE_MS_MAX + Math.max(0, ...ahead);
  }

  /** A member that is away holds up every step by which an ended origin leaves vectors (sealing.ts). */
  #isSettlingHeldUp(healed: readonly SimNode[]): boolean {
    const present = new Set(healed.map((node) => node.core!.identity.origin));
    return healed.some((node) => node.core!.members.active().some(({ origin }) => !present.has(origin)));
  }

  /** Why they have not converged yet. */
  #difference(healed: readonly SimNode[]): string | undefined {
    const first = healed[0]!;
    for (const node of healed) {
      const core = node.core!;
      if (!core.ready) return `${node.name} is ${core.identity.phase}`;
      if (node.aside.isPending) return `${node.name} has a store yet to be read that was set aside`;
      if (core.queue.last() !== undefined || core.acks.unsettled > 0 || node.scans.size > 0)
        return `${node.name} is busy: ${core.queue.rows} rows, ${core.acks.unsettled} writes, ${node.scans.size} scans`;
      if (core.digest.builtPercent < 100) return `${node.name} has not read all of its store yet`;
      if (!core.digest.settled) return `${node.name} has to read what was healed`;
      if (node.disk.image.flipped.size > 0)
        return `${node.name} has ${node.disk.image.flipped.size} damaged records`;
      const isSame = core.written.hash === first.core!.written.hash;
      if (!isSame && !(this.#isSettlingHeldUp(healed) && differByForgotten(first, node)))
        return `the vectors of ${first.name} and ${node.name} differ: ${vectorOf(first)} and ${vectorOf(node)}`;
      // Equal vectors without gaps promise equal entries, which is checked at the end; with gaps it may take longer.
      const odd = !isSame || core.written.hasGaps ? entriesDiffer(first, node) : undefined;
      if (odd !== undefined) return odd;
      const issues = core.issues();
      if (issues.length > 0) return `${node.name} complains: ${issues.map(({ code }) => code).join(', ')}`;
      if (core.members.hash !== first.core!.members.hash)
        return `the members of ${first.name} and ${node.name} differ`;
      const links = new Set(core.linked().map((peer) => peer.origin));
      if (healed.length > 1 && !healed.some((other) => links.has(other.core!.identity.origin)))
        return `${node.name} has no link to any of the others`;
      for (const other of healed) {
        if (other === node) continue;
        const row = core.members.byName(other.name);
        if (row?.origin !== other.core!.identity.origin || row.address !== other.address)
          return `${node.name} takes ${other.name} for ${row?.origin} at ${row?.address}`;
        if (core.options.fullMeshMax >= this.#nodes.length && !links.has(row.origin))
          return `${node.name} has no link to ${other.name}`;
      }
    }
    return undefined;
  }

  #checkEqual(healed: readonly SimNode[]): void {
    const first = healed[0]!;
    for (const node of healed) {
      const { image } = node.disk;
      const odd = image.inconsistency();
      if (odd !== undefined) throw new Violation('dots', `${node.name}: ${odd}`);
      const different = entriesDiffer(first, node);
      if (different !== undefined) throw new Violation('equality', different);
      for (const [origin, head] of node.core!.written.entries())
        if ((image.heads.get(origin) ?? 0) !== head)
          throw new Violation('written', `${node.name} announces ${origin}:${head}, its disk says otherwise`);
      this.#world.oracle.checkAllHeads(node);
      this.#world.oracle.ended.checkAll(node);
      checkDigest(node);
      if (node.open.size > 0)
        throw new Violation('answers', `${node.name} left ${node.open.size} writes unanswered`);
    }
  }

  /** Vectors end with the members' origins. */
  #checkBounded(healed: readonly SimNode[]): void {
    const { tokenAgeMaxMs } = this.#world.options;
    if (tokenAgeMaxMs > FORGETTING_MS_MAX) return;
    const limit = this.#world.scheduler.now + tokenAgeMaxMs + FORGETTING_MS_MAX;
    while (surplus(healed) !== undefined) {
      if (this.#world.scheduler.now > limit) throw new Violation('vectors', surplus(healed)!);
      this.#world.run(POLL_MS);
    }
    rest(this.#world, healed);
    this.#checkEqual(healed);
  }

  /**
   * What was lost with a link is sent again as soon as there is another one, rather than when a later look finds it
   * unanswered. Only where nothing else delays an answer: no losses, and caps that nothing reaches.
   */
  #checkSentAgain(healed: readonly SimNode[]): void {
    const { rates, tinyCaps, flushes } = this.#plan;
    if (rates.loss > 0 || tinyCaps || healed.length < 2) return;
    const options = { replicas: this.#hostsWithin(healed), fsync: flushes, timeoutMs: 2 * RELINK_MS_MAX };
    let waiting = healed.length;
    for (const node of healed) {
      const value = Buffer.from(`again of ${node.name}`);
      node.write([{ key: `again/${node.name}`, kind: KIND_REGISTER, value }], options, ({ ok }) => {
        if (ok) waiting -= 1;
      });
      for (const wire of [...node.wires.values()]) this.#world.network.breakWire(wire);
    }
    this.#world.run(SENT_AGAIN_MS_MAX / 10);
    const isLinked = (node: SimNode): boolean => {
      const links = new Set(node.core!.linked().map((peer) => peer.name));
      return healed.every((other) => other === node || links.has(other.name));
    };
    if (!this.#world.runUntil(() => healed.every(isLinked), RELINK_MS_MAX))
      throw new Violation('usable', `links that broke are not back after ${RELINK_MS_MAX} ms`);
    this.#world.run(SENT_AGAIN_MS_MAX);
    if (waiting > 0) throw new Violation('sent again', `${waiting} writes wait, though all links are back`);
  }

  /** Each of the healed nodes takes a write, and all of their hosts acknowledge it. */
  #checkUsable(healed: readonly SimNode[]): void {
    const hosts = this.#hostsWithin(healed);
    const results: WriteResult[] = [];
    for (const node of healed) {
      const value = Buffer.from(`last of ${node.name}`);
      const options = { replicas: hosts, fsync: this.#plan.flushes, timeoutMs: 3_000 };
      node.write([{ key: `last/${node.name}`, kind: KIND_REGISTER, value }], options, (result) =>
        results.push(result),
      );
    }
    this.#world.run(3_500);
    const bad = results.find((result) => !result.ok);
    if (bad !== undefined || results.length < healed.length)
      throw new Violation(
        'usable',
        `a write after healing ended as ${bad === undefined ? 'nothing' : JSON.stringify(bad)}`,
      );
  }
}

/**
 * Until nothing is on its way to a disk: between the writing of a batch and the node's hearing of it the two differ.
 * Garbage is collected at any time.
 */
export function rest(world: World, nodes: readonly SimNode[]): void {
  const isAtRest = ({ core }: SimNode): boolean => core!.queue.last() === undefined;
  if (!world.runUntil(() => nodes.every(isAtRest), REST_MS_MAX))
    throw new Violation('rest', `something is on its way to a disk after ${REST_MS_MAX} ms`);
}

function vectorOf(node: SimNode): string {
  const { written, members } = node.core!;
  const entry = ([origin, head, top]: readonly [string, number, number]): string =>
    `${origin.slice(0, 4)}${members.isMember(origin) ? '' : '!'}:${head}/${top}`;
  return [...written.entries()].map(entry).sort().join(' ');
}

/** An origin that should have left somebody's vector. */
function surplus(healed: readonly SimNode[]): string | undefined {
  for (const node of healed)
    for (const origin of node.core!.written.origins())
      if (!node.core!.members.isMember(origin)) return `${node.name} still has ${origin} in its vector`;
  return undefined;
}

/** What the node says of its store is what the store holds, and the store says the same of itself. */
export function checkDigest(node: SimNode): void {
  const { image } = node.disk;
  const core = node.core!;
  const actual = new DigestSum();
  for (const [key, row] of image.rows) actual.add(digestEntry(key, row));
  if (core.digest.builtPercent < 100)
    throw new Violation('digest', `${node.name} has read ${core.digest.builtPercent} % of its store`);
  if (core.digest.root !== actual.hex)
    throw new Violation(
      'digest',
      `${node.name} counts ${core.digest.keys} keys, its disk holds ${actual.count}`,
    );
  const stored = image.meta.get('digest');
  if (stored === undefined ? actual.count > 0 : !DigestSum.read(stored, 1).equals(actual))
    throw new Violation('digest', `the disk of ${node.name} holds another digest than its contents have`);
  const { digestDamages, digestMismatches, recordsDisputed, recordsSetAside } = core.counters;
  const unfounded = image.wasDamaged ? 0 : digestDamages;
  if (unfounded + digestMismatches + recordsDisputed + recordsSetAside > 0)
    throw new Violation(
      'digest',
      `${node.name} takes a sound store for a damaged one: ${JSON.stringify(core.counters)}`,
    );
}

function entriesDiffer(first: SimNode, node: SimNode): string | undefined {
  const [others, rows] = uncollected([first, node]) as [ReadonlyMap<string, Row>, ReadonlyMap<string, Row>];
  if (rows.size !== others.size)
    return `${first.name} and ${node.name} hold ${others.size} and ${rows.size} entries`;
  for (const [key, row] of rows) {
    const other = others.get(key);
    if (other === undefined || Buffer.compare(row, other) !== 0)
      return `${first.name} and ${node.name} differ at ${key}`;
  }
  return undefined;
}

/** Whether their vectors differ only in ended origins that one of the two has forgotten, and holds as far as the other. */
function differByForgotten(a: SimNode, b: SimNode): boolean {
  const isKnown = (holder: SimNode, other: SimNode): boolean => {
    const { written, sealing } = other.core!;
    for (const [origin, head, top] of holder.core!.written.entries())
      if (written.head(origin) !== head || written.top(origin) !== top)
        if (written.has(origin) || !hasEnded(holder.core!, origin) || !sealing.isCovered(origin, top))
          return false;
    return true;
  };
  return isKnown(a, b) && isKnown(b, a);
}
