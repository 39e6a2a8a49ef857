/** The faults of a torture run: each takes one node, breaks it, mends it, and ends when the node is ready again. */
import {
  closeSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { SeededRandom } from '../../bin/seeded-random.js';
import { eventually } from '../support/copies.js';
import { httpStatus } from '../support/http-api.js';
import { pause } from '../support/workload.js';
import type { Fleet, TorturedNode } from './fleet.js';

const HOUR_MS = 3_600_000;
const FLIPS_MAX = 40;
const REACHABLE_MS = 60_000;

export interface Fault {
  /** What it destroys was perhaps held by one other host only: the next such fault has to wait until all caught up. */
  readonly losesData: boolean;
  /** False when there was nothing to break: then it does not count. */
  run(node: TorturedNode, fleet: Fleet, random: SeededRandom): Promise<boolean>;
}

/** Files of the node's database that end so, the newest first. */
function files({ daemon }: TorturedNode, ending: string): string[] {
  const folder = join(daemon.data, 'db');
  return readdirSync(folder)
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).size > 0)
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
}

export function flipBit(path: string, random: SeededRandom): void {
  const fd = openSync(path, 'r+');
  try {
    const at = random.below(statSync(path).size);
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, at);
    byte[0] = byte[0]! ^ (1 << random.below(8));
    writeSync(fd, byte, 0, 1, at);
  } finally {
    closeSync(fd);
  }
}

const between = (random: SeededRandom, from: number, to: number): number => from + random.below(to - from);

/** Of the network between peers: on, for a while, off. */
function network(breakIt: (node: TorturedNode, random: SeededRandom) => void): Fault {
  return {
    losesData: false,
    run: async (node, _fleet, random) => {
      breakIt(node, random);
      await pause(between(random, 500, 6_000));
      node.proxy.heal();
      return true;
    },
  };
}

/** With the process killed and the node's files as they lie on disk. */
function damagedFiles(damage: (node: TorturedNode, random: SeededRandom) => boolean): Fault {
  return {
    losesData: true,
    run: async (node, fleet, random) => {
      await node.daemon.kill9();
      const damaged = damage(node, random);
      await fleet.revive(node);
      return damaged;
    },
  };
}

const clock = (setting: (random: SeededRandom) => string): Fault => ({
  losesData: false,
  run: async ({ daemon }, _fleet, random) => {
    daemon.setClock(setting(random));
    await pause(between(random, 1_000, 5_000));
    daemon.setClock('');
    // Where it stamped while it was wrong, the true clock has to pass what it gave first.
    await eventually(
      'its clock is right again',
      async () => !(await httpStatus(daemon.address)).issues.some(({ code }) => code === 'CLOCK_SKEW'),
      REACHABLE_MS,
    );
    return true;
  },
});

export const FAULTS: Readonly<Record<string, Fault>> = {
  kill: {
    losesData: false,
    run: async (node, fleet, random) => {
      await node.daemon.kill9();
      await pause(random.below(1_500));
      await fleet.revive(node);
      return true;
    },
  },
  restart: {
    losesData: false,
    run: async (node, fleet) => {
      const exit = await node.daemon.stop();
      if (exit.code !== 0)
        throw new Error(`${node.name} was told to stop and ended with ${JSON.stringify(exit)}`);
      await fleet.revive(node);
      return true;
    },
  },
  stop: {
    losesData: false,
    run: async ({ daemon }, _fleet, random) => {
      daemon.pause();
      await pause(between(random, 500, 6_000));
      daemon.resume();
      return true;
    },
  },
  cut: network(({ proxy }) => proxy.cut()),
  halfOpen: network(({ proxy }) => proxy.blackhole()),
  cutOneWay: network(({ proxy }, random) => proxy.blackhole(random.pick(['toTarget', 'toClient']))),
  slowLink: network(({ proxy }, random) => {
    proxy.delay(random.below(200), random.below(300));
    proxy.limit(between(random, 32_768, 262_144));
  }),
  reset: network(({ proxy }, random) =>
    proxy.resetAfter(random.below(20_000), random.pick(['toTarget', 'toClient']), 3),
  ),
  truncate: network(({ proxy }, random) =>
    proxy.truncateAfter(random.below(20_000), random.pick(['toTarget', 'toClient']), 3),
  ),
  clockAhead: clock((random) => `+${between(random, 6_000, HOUR_MS)}`),
  clockBehind: clock((random) => `-${between(random, 6_000, 2 * HOUR_MS)}`),
  wipe: damagedFiles(({ daemon }) => {
    daemon.wipe();
    return true;
  }),
  flippedBits: damagedFiles((node, random) => {
    const tables = files(node, '.ldb');
    for (let i = 1 + random.below(FLIPS_MAX); i > 0 && tables.length > 0; i--)
      flipBit(random.pick(tables), random);
    return tables.length > 0;
  }),
  flippedLog: damagedFiles((node, random) => {
    const [log] = files(node, '.log');
    if (log !== undefined) flipBit(log, random);
    return log !== undefined;
  }),
  lostTail: damagedFiles((node, random) => {
    const [log] = files(node, '.log');
    if (log !== undefined) truncateSync(log, random.below(statSync(log).size));
    return log !== undefined;
  }),
  lostTable: damagedFiles((node, random) => {
    const tables = files(node, '.ldb');
    if (tables.length > 0) rmSync(random.pick(tables));
    return tables.length > 0;
  }),
  lostCurrent: damagedFiles(({ daemon }) => {
    rmSync(join(daemon.data, 'db', 'CURRENT'));
    return true;
  }),
};
