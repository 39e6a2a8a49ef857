/** Starting a node: what the daemon (bin/) builds on. The parts are in src/node/. */
import type { ReadmeshError } from './errors.js';
import { Node } from './node/node.js';
import type { NodeOptions } from './node/options.js';
import { EmbeddedReplica } from './node/replica.js';
import type { NodeService } from './service.js';

export type { Logger } from './node/driver.js';
export { version } from './node/status.js';
export type { NodeOptions };

export interface RunningNode {
  readonly service: NodeService;
  readonly replica: EmbeddedReplica;
  /** `host:port` that others dial; empty when it does not listen. */
  readonly address: string;
  /** `host:port` that it listens on, with the port that it got; differs from `address` when another is advertised. */
  readonly listening: string;
  /** Resolves once reads are served; rejects after `timeoutMs` (default: waits for ever). */
  ready(timeoutMs?: number): Promise<void>;
  /** Resolves, with the reason, when the node ended by itself because its store is lost. */
  readonly ended: Promise<ReadmeshError>;
  /** Drains, then closes everything. */
  close(): Promise<void>;
}

/** Opens the store, listens and joins. Resolves before it is ready. */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  const node = await Node.start(options);
  return {
    service: node,
    replica: new EmbeddedReplica(node),
    address: node.address,
    listening: node.listening,
    ready: (timeoutMs = 2 ** 31 - 1) => node.ready('local', timeoutMs),
    ended: node.ended,
    close: () => node.close(),
  };
}
