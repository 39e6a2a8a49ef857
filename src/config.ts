/**
 * What `readmesh serve` runs with: defaults, then the file of `--config` (config-file.ts), then the flags; the later
 * wins.
 */
import type { FileConfig } from './config-file.js';
import type { NodeOptions } from './node/options.js';
import { type CoreOptions, DEFAULT_CLUSTER, DEFAULT_DATA, DEFAULT_PORT } from './options.js';
import { splitList } from './schema.js';

/** Flags of `serve` as the command line hands them over; absent when not given. */
export interface ServeFlags {
  data?: string;
  listen?: string;
  advertise?: string;
  /** Addresses separated by commas. */
  join?: string;
  cluster?: string;
  name?: string;
  host?: string;
  config?: string;
  rebuild?: boolean;
  found?: boolean;
  insecureNoAuth?: boolean;
  readThrough?: boolean;
}

/** Joins flags, file and defaults into what the node is started with. Addresses are checked by the node. */
export function mergeConfig(flags: ServeFlags, file: FileConfig): NodeOptions & { listen: string } {
  const join = flags.join ?? file.join;
  const pick = <K extends 'advertise' | 'name' | 'host'>(name: K): { [P in K]?: string } => {
    const value = flags[name] ?? file[name];
    return value === undefined ? {} : ({ [name]: value } as { [P in K]: string });
  };
  return {
    data: flags.data ?? file.data ?? DEFAULT_DATA,
    listen: flags.listen ?? file.listen ?? `127.0.0.1:${DEFAULT_PORT}`,
    cluster: flags.cluster ?? file.cluster ?? DEFAULT_CLUSTER,
    ...pick('advertise'),
    ...pick('name'),
    ...pick('host'),
    join: splitList(join ?? []),
    rebuild: flags.rebuild ?? false,
    found: flags.found ?? false,
    insecureNoAuth: flags.insecureNoAuth ?? file.insecureNoAuth ?? false,
    readThrough: flags.readThrough ?? file.readThrough ?? false,
    tuning: definedOnly(file.tuning ?? {}),
  };
}

function definedOnly(tuning: Record<string, number | undefined>): Partial<CoreOptions> {
  return Object.fromEntries(Object.entries(tuning).filter(([, value]) => value !== undefined));
}
