/** A record that makes its reader throw: it is passed on, counted and set apart, and harms nothing else. */
import { afterEach, expect, test } from 'vitest';
import { checksum } from '../../src/checksum.js';
import { connect } from '../../src/client/index.js';
import { KIND_REGISTER, makeRow } from '../../src/core/entry.js';
import { stampFromHex } from '../../src/core/hlc.js';
import { openDataFolder } from '../../src/storage/data-folder.js';
import { eventually } from '../support/copies.js';
import { type Daemon, endDaemons, startCluster } from '../support/daemon.js';
import { httpGet, httpPut, httpScan, httpStatus } from '../support/http-api.js';

afterEach(endDaemons);

/** The byte that msgpack never uses. */
const NO_VALUE_AT_ALL = Uint8Array.of(0xc1);

/** Puts a record into the store of a stopped node as a bug of its own would: with a checksum and a dot that are right. */
async function plant(daemon: Daemon, key: string, origin: string): Promise<void> {
  const { store, close } = await opened(daemon);
  const seq = (store.recovered.heads.get(origin) ?? 0) + 1;
  const stamp = stampFromHex(`${Date.now().toString(16).padStart(12, '0')}0000${origin}`);
  const row = makeRow(key, { kind: KIND_REGISTER, stamp, origin, seq, value: NO_VALUE_AT_ALL }, checksum);
  await store.write({
    id: 1,
    rows: new Map([[key, { row, replaces: undefined }]]),
    heads: new Map([[origin, seq]]),
    meta: new Map(),
  });
  await close();
}

async function opened(daemon: Daemon) {
  const folder = await openDataFolder(daemon.data, { flush: true });
  return { store: folder.store, close: () => folder.close() };
}

test('a record that nobody can decode is quarantined and counted on every host: the fleet lives, all else is served, and a new write mends it', async () => {
  const daemons = await startCluster(3);
  const [first, , third] = daemons as [Daemon, Daemon, Daemon];
  for (const key of ['a', 'z'])
    expect((await httpPut(first.address, key, key, { replicas: 3 })).status).toBe(200);
  const { origin } = await httpStatus(third.address);
  await third.stop();
  await plant(third, 'm', origin);
  await third.start();
  for (const { address } of daemons) {
    const answer = await eventually('the record has arrived', async () => {
      const got = await httpGet(address, 'm');
      return got.status === 404 ? undefined : got;
    });
    expect([answer.status, (answer.body as { code: string }).code]).toEqual([500, 'UNREADABLE']);
    // Neither hides what is around it.
    expect([...(await httpScan(address)).keys()]).toEqual(['a', 'z']);
    const { ready, counters, issues } = await httpStatus(address);
    expect([ready, counters.recordsQuarantined]).toEqual([true, 1]);
    expect(issues.map(({ code }) => code)).toContain('UNREADABLE');
  }
  const client = await connect({ hosts: [first.address] });
  await expect(client.get('m')).rejects.toMatchObject({ code: 'UNREADABLE' });
  expect(await client.get('z')).toBe('z');
  await client.close();
  // It survives a restart of its host, and is no reason for a second one.
  await third.restart();
  expect((await httpGet(third.address, 'm')).status).toBe(500);
  expect((await httpPut(first.address, 'm', 'mended', { replicas: 3 })).status).toBe(200);
  for (const { address } of daemons) {
    expect((await httpGet(address, 'm')).body).toBe('mended');
    const { counters, issues } = await httpStatus(address);
    expect(counters.recordsQuarantined).toBe(0);
    expect(issues.map(({ code }) => code)).not.toContain('UNREADABLE');
  }
}, 90_000);
