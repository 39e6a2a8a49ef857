/** What the page says in words: the same for every run. Figures that it names were measured once, and say so. */

export interface Words {
  readonly title: string;
  /** What is compared, and why it is a fair comparison. */
  readonly about: string;
  /** What the figures cannot pass, and why. */
  readonly limits?: readonly string[];
}

/** In the order of the page, by the name of the bench. */
export const WORDS: Readonly<Record<string, Words>> = {
  'local-reads': {
    title: 'Reads within the process',
    about:
      'One `getSync` after the other, of a replica within the process. Hot: 10,000 keys that are all in the cache of decoded values. Zipf: all rows, with the default cache of 64 MB. Uniform: no cache; every read looks the row up in LevelDB, verifies its checksum and decodes it. LevelDB alone reads the very same files, is given its physical keys ready-made, decodes the value and verifies nothing. lmdb runs with its own cache off, node-redis with its client-side cache, filled.',
    limits: [
      'A read without a cache costs what LevelDB costs, and about a tenth more for the checksum, the gate and the key. lmdb reads a memory map and is two to three times as fast as LevelDB; the cache is the answer to that.',
    ],
  },
  'bulk-reads': {
    title: 'Many rows at once',
    about:
      '`getMany` of 100 keys, a scan of 100 rows under a prefix, and a scan of everything, all without a cache, every row verified and decoded. Against whichever way of LevelDB is faster on a copy of the same files: `getMany`, `getSync` in a loop, `nextv`, `all`.',
    limits: [
      'LevelDB has no faster way to fetch 100 keys than 100 calls of `getSync`, and `getMany` is one hop to another thread on top: both sides make the same calls, and what is left is verification.',
      'Measured once, processor time: a row of a scan costs LevelDB alone 1.1 µs with its decoding; its checksum costs 0.18 µs more, the `for await` loop 0.09 µs, taking the key out of the physical one 0.04 µs. So a full scan that verifies every row cannot come nearer to one that verifies none than about 0.8, but for what LevelDB’s thread does meanwhile.',
      'A scan of 100 rows is to a fifth the price of an iterator, which opens, goes to another thread once and closes: 60 µs of LevelDB alone, and 30 to 70 µs of the layers above it. On a machine that has no core to spare it is the trip to the other thread that is waited for.',
    ],
  },
  'client-reads': {
    title: 'Reads over the network',
    about:
      'The light client and one daemon on loopback, against Redis, which answers from memory. One at a time, 100 in flight, and 100 keys a call. A bare WebSocket echo of frames as short shows what is left when nothing is looked up at all.',
    limits: [
      'One get at a time is system calls and wake-ups on each side more than anything else: a third of the client’s and half of the daemon’s processor time is spent in `write` and `writev`. Measured once, medians of single calls in one run: Redis with node-redis 48 µs, a bare WebSocket echo between two Node processes 46 µs, a bare TCP echo 43 µs, a get 61 µs. A Node server that looks nothing up over bare TCP is 1.12 times as fast as Redis in that one run, so the bar of 1.2 looks out of reach of any server written for Node. A program that wants one value in less reads a replica within its process.',
    ],
  },
  'local-puts': {
    title: 'Writes to one node',
    about:
      'Puts of new keys, 4,000 in flight, which a group commit coalesces; against LevelDB alone, given the same physical rows ready-made in chained batches of 1,000 with the same flushing.',
  },
  'replicated-puts': {
    title: 'Writes to three nodes',
    about:
      'The default acknowledgement: two hosts have flushed the write. 1,000 puts in flight, by the light client and by a replica within the process. Redis gets pipelines of 1,000 SETs closed by one `WAIT 1` with `appendfsync always`; etcd and NATS get one call a put, 1,000 in flight.',
    limits: [
      'All servers share the cores and the disk of one machine: a third host that is not waited for still takes its share of both.',
      'NATS acknowledges what a majority holds in memory and flushes it every two minutes: with both measured by what survives a loss of power, the comparison would be another one.',
    ],
  },
  import: {
    title: 'Import',
    about:
      'All rows through the light client into three daemons, until all three hold the same; against three LevelDBs that are loaded side by side with the same physical rows, ready-made, just as often flushed.',
  },
  'watch-latency': {
    title: 'From a put to a watch elsewhere',
    about:
      'A put in one process to its change in a watch of another one, at 1,000 writes a second that do not wait for each other, from right before the call. readmesh and etcd flush each write before it is acknowledged.',
    limits: [
      'A batch is passed on and told of once it is written, while it is flushed; with the flush on the way, at the writer and at the watcher, the median was about three times as much. What is left, beside the wire: two handovers to LevelDB’s thread, one on each side, and the file system, in which a write of 300 bytes takes 31 µs by itself and 90 to 125 µs while a flush is under way (measured once, medians). Redis writes once a second and has nothing to wait for. Redis with `everysec`, and NATS, pass on what is in memory.',
    ],
  },
  propagation: {
    title: 'From a put to its being readable elsewhere',
    about: 'One put at a time, with and without flushing, beside a bare WebSocket round trip.',
  },
  rebuild: {
    title: 'Rebuilding an empty node',
    about:
      'A daemon starts with an empty folder and copies everything from two others, until it serves reads; the start of the process, the joining and the verification are included. Against a copy of the same LevelDB on one disk, read from end to end and written in batches, which needs no network and verifies nothing. A full resynchronisation of a Redis replica is shown beside it; it keeps nothing on disk.',
    limits: [
      'The start of a Node process and joining take a fixed time, which small tables do not spread out.',
    ],
  },
  'busy-reads': {
    title: 'Reads while writes arrive',
    about:
      '`getSync` of one of three members, without a cache, each read timed by itself: while nothing is written, while another process puts 5,000 times a second, and while it puts as fast as it is acknowledged. And for how long the event loop was held meanwhile.',
    limits: [
      'Four busy processes on two cores. Between the reads, arithmetic that takes as long and waits for nothing but its core is timed the same way: no read of whatever kind can have a shorter tail. Measured once on a quiet machine: at 5,000 writes a second its 99th percentile rose from 3.5 to 24 µs, that of the reads from 7.4 to 38 µs; at the highest rate, 42,000 a second in few large batches, from 3.5 to 3.7 µs and from 7.4 to 12.6 µs. So at 5,000 a second most of the tail is the operating system’s, which gives the core to somebody else at each of many small batches.',
    ],
  },
  reclaim: {
    title: 'Reads while disk space is given back',
    about:
      'Two tables of the same size, in turns of 12,500 keys; one is deleted and collected, and while LevelDB merges the ranges that it lay in, `getSync` of rows of the other one, without a cache, some 7,000 a second (from 10,000 on the merging is put off). Each read is timed by itself; against the same reads at rest.',
    limits: [
      'Tables that a merge has written are cold, and the merge wants a core of its own: a read that meets one waits longer, and with more busy processes than cores the tail is a slice of the operating system. So each merge is followed by a pause of four times its length.',
    ],
  },
  'catch-up': {
    title: 'Catching up after a partition',
    about:
      'One of two members loses its network, rows are overwritten at the other one, the network comes back. All bytes of both directions until everything is held, greetings and heartbeats included, against the changed entries as they are encoded on disk.',
  },
  idle: {
    title: 'An idle cluster',
    about: 'Eight members with some rows while nobody reads or writes: heartbeats and what else never rests.',
  },
  footprint: {
    title: 'Memory and start',
    about:
      'A process that opens a store of 1,000,000 rows after a clean stop, reads one and stays idle: a replica, against LevelDB alone on a copy of the same files.',
  },
  growth: {
    title: 'Growth of the table',
    about: 'Uncached reads and idle memory, by the number of rows, against LevelDB alone.',
  },
  'apply-cost': {
    title: 'Growth of the cluster',
    about:
      'Processor time of all nodes together, by the number of nodes and writes. All processes share this machine, so that what passes of time says little here. How a fleet of 1,000 behaves is simulated: [scale.md](scale.md).',
  },
  digest: {
    title: 'The digest of the whole table',
    about:
      'What it costs to keep the proof that copies are equal: its verified rebuild after a crash against a raw scan, and its upkeep against a whole put.',
  },
};

/** What was tried for speed and is not there. */
export const TRIED: readonly string[] = [
  'A larger thread pool (`UV_THREADPOOL_SIZE`): reads and writes became slower.',
  'LevelDB’s write buffer at 64 MB: reopening took over a second, and writes were slower.',
  'LevelDB’s block cache: it does nothing for blocks that are not compressed.',
  'Asynchronous `get` of LevelDB on the read path: 15 to 25 times the cost of `getSync`.',
  'Compression of WebSocket frames: 66 times slower for small ones.',
  'Unix sockets instead of loopback TCP: no faster.',
  'Async generators for scans: several turns of the microtask queue a row, more than reading it; iterators by hand instead.',
  'A rebuild with 6 or 8 chunks in flight rather than 4, with a larger young generation, `--always-sparkplug` or `--max-lazy`: no faster, since the main thread of the new node has no pause.',
  'Surveys of the digest from snapshots twice as long: no faster.',
  'msgpack with shared structures: no faster and no smaller than positional arrays, and state that both sides must share.',
];
