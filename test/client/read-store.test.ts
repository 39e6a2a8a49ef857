/** The contract of every `ReadStore`, on a light client of a real node. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '../../src/client/index.js';
import { openReplica } from '../../src/index.js';
import { readStoreContract } from '../read-store/contract.js';

readStoreContract('the light client', async () => {
  const data = mkdtempSync(join(tmpdir(), 'readmesh-test-'));
  const replica = await openReplica({ data, name: 'one', listen: '127.0.0.1:0' });
  await replica.ready();
  const client = await connect({ hosts: [replica.address!], timeoutMs: 20_000 });
  return {
    store: client,
    close: async () => {
      await client.close();
      await replica.close();
      rmSync(data, { recursive: true, force: true });
    },
  };
});
