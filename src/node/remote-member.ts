/** Another member as `verify` sees it: asked over the client protocol, at the address it advertises. */
import type { LightClient } from '../client/index.js';
import { ReadmeshError } from '../errors.js';
import type { Comparable } from './digest.js';

export interface RemoteMember extends Comparable {
  close(): Promise<void>;
}

export function remoteMember(name: string, address: string, timeoutMs: number): RemoteMember {
  let connecting: Promise<LightClient> | undefined;
  const client = (): Promise<LightClient> => {
    if (address === '')
      return Promise.reject(new ReadmeshError('UNREACHABLE', 'it does not listen, so it cannot be asked'));
    connecting ??= import('../client/index.js').then(({ connect }) =>
      connect({ hosts: [address], timeoutMs, only: true }),
    );
    return connecting;
  };
  return {
    name,
    address,
    heads: async () => (await (await client()).status()).heads,
    digest: async () => (await client()).digest(),
    bucket: async (bucket) => (await client()).digestBucket(bucket),
    close: async () => {
      await connecting?.then((open) => open.close()).catch(() => {});
    },
  };
}
