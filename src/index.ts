/** readmesh: the embedded replica. For the light client alone, import from `readmesh/client`. */
export { type ErrorCode, isReadmeshError, ReadmeshError } from './errors.js';
export type { NodeOptions as ReplicaOptions } from './node/options.js';
export { type EmbeddedReplica, openReplica } from './node/replica.js';
export type {
  BatchOperation,
  Change,
  Range,
  ReadStore,
  ReadyOptions,
  Receipt,
  Replica,
  Rows,
  Status,
  Value,
  WatchOptions,
  WriteOptions,
} from './read-store.js';
export type { VerifyReport } from './service.js';
