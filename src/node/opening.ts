/** What a node opens before it is one: its folder, and its links. */
import { isReadmeshError } from '../errors.js';
import { TRANSPORT_DEFAULTS } from '../options.js';
import { type DataFolder, openDataFolder, setAside } from '../storage/data-folder.js';
import { Links } from '../transport/links.js';
import type { Places } from './descriptors.js';
import type { Driver } from './driver.js';
import { type CheckedOptions, type NodeOptions, SILENT } from './options.js';

/** With `rebuild`, a store that cannot be trusted is set aside for an empty one. */
export async function openFolder(options: NodeOptions, checked: CheckedOptions): Promise<DataFolder> {
  const flush = options.flush ?? true;
  if (options.rebuild !== true) return openDataFolder(checked.data, { flush });
  try {
    return await openDataFolder(checked.data, { flush });
  } catch (error) {
    if (!isReadmeshError(error) || error.code !== 'STORE_UNTRUSTED') throw error;
    const aside = await setAside(checked.data);
    (options.logger ?? SILENT).warn(
      { event: 'set-aside', aside, reason: error.message },
      'the store was set aside, nothing of it is deleted, and the data is copied from the other members',
    );
    return openDataFolder(checked.data, { flush });
  }
}

/** `driver`: of the node that the links are made for, once there is one. */
export function makeLinks(driver: () => Driver | undefined, checked: CheckedOptions, places: Places): Links {
  const { frameBytesMax, linkQueueBytesMax } = checked.tuning;
  return new Links(
    { ...TRANSPORT_DEFAULTS, ...places, frameBytesMax, linkQueueBytesMax },
    {
      onOpen: (link, { dialed }) => driver()?.input({ type: 'link-opened', link, dialed }),
      onMessage: (link, bytes) => driver()?.receive(link, bytes),
      onAlive: (link) => driver()?.input({ type: 'link-alive', link }),
      onCongested: (link) => driver()?.input({ type: 'link-congested', link }),
      onDrained: (link) => driver()?.input({ type: 'link-drained', link }),
      onClosed: (link) => driver()?.input({ type: 'link-closed', link }),
      onDialFailed: (address, reason) => driver()?.input({ type: 'dial-failed', address, reason }),
    },
  );
}
