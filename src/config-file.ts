/**
 * The file of `readmesh serve --config`. It is YAML (and so JSON, too). Its members are the flags' names in camel case,
 * and `tuning` for the options of options.ts:
 *
 *     data: /var/lib/readmesh
 *     listen: 127.0.0.1:7700
 *     join: [db1:7700, db2:7700]
 *     tuning: { cacheBytesMax: 268435456 }
 *
 * `rebuild` and `found` are flags only: what is said once, for one start, must not be repeated by every restart.
 * Relative paths count from the current folder, as they do in a flag.
 */
import { readFile } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { ReadmeshError } from './errors.js';
import { CORE_DEFAULTS, type CoreOptions, MAY_BE_ZERO } from './options.js';
import { parseWith } from './schema.js';

const FILE_BYTES_MAX = 1_048_576;
const DAY_MS = 86_400_000;
/** Bytes that a batch's envelope adds in a frame, per operation and once: key length, header, names. */
const ENVELOPE_BYTES_MAX = 262_144;

const text = z.string('must be text').min(1, 'must not be empty');

function tuningShape(): Record<string, z.ZodOptional<z.ZodNumber>> {
  const shape: Record<string, z.ZodOptional<z.ZodNumber>> = {};
  for (const name of Object.keys(CORE_DEFAULTS)) {
    const least = MAY_BE_ZERO.includes(name) ? 0 : 1;
    const most = name.endsWith('Ms') ? DAY_MS : Number.MAX_SAFE_INTEGER;
    const message = `must be an integer from ${least} to ${most}`;
    shape[name] = z.number(message).int(message).min(least, message).max(most, message).optional();
  }
  return shape;
}

const fileSchema = z.strictObject(
  {
    data: text.optional(),
    listen: text.optional(),
    advertise: text.optional(),
    join: z.union([text, z.array(text)], 'must be a list of HOST:PORT').optional(),
    cluster: text.optional(),
    name: text.optional(),
    host: text.optional(),
    insecureNoAuth: z.boolean('must be true or false').optional(),
    readThrough: z.boolean('must be true or false').optional(),
    tuning: z.strictObject(tuningShape(), 'must be a list of NAME: NUMBER').optional(),
  },
  'must hold NAME: VALUE lines',
);

export type FileConfig = z.output<typeof fileSchema>;

/** Reads and checks a configuration file. Throws INVALID_OPTION, which names the file and the place. */
export async function readConfig(path: string): Promise<FileConfig> {
  let source: string;
  try {
    source = await readFile(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such file' : (error as Error).message;
    throw new ReadmeshError('INVALID_OPTION', `--config ${path}: ${why}`, { cause: error });
  }
  return parseConfig(source, path);
}

/** `path` only serves the messages. Throws INVALID_OPTION. */
export function parseConfig(source: string, path: string): FileConfig {
  if (source.length > FILE_BYTES_MAX)
    throw new ReadmeshError(
      'INVALID_OPTION',
      `--config ${path}: the file has more than ${FILE_BYTES_MAX} bytes`,
    );
  const document = parseDocument(source);
  const [fault] = document.errors;
  if (fault !== undefined) {
    const line = fault.linePos?.[0].line;
    const [reason] = fault.message.split('\n');
    const where = line === undefined || / at line \d+/.test(reason ?? '') ? '' : ` at line ${line}`;
    throw new ReadmeshError('INVALID_OPTION', `--config ${path}: ${reason?.replace(/:$/, '')}${where}`);
  }
  let content: unknown;
  try {
    content = document.toJS();
  } catch (error) {
    throw new ReadmeshError('INVALID_OPTION', `--config ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const config = parseWith(fileSchema, content ?? {}, `--config ${path}`);
  checkTogether(config.tuning ?? {}, path);
  return config;
}

/** Bounds that contain each other must stay so, or a legal batch could not travel. */
function checkTogether(tuning: Partial<CoreOptions>, path: string): void {
  const all: CoreOptions = { ...CORE_DEFAULTS, ...tuning };
  const atMost = (small: keyof CoreOptions, large: keyof CoreOptions, margin = 0): void => {
    if (all[small] + margin <= all[large]) return;
    throw new ReadmeshError(
      'INVALID_OPTION',
      `--config ${path}: tuning.${small} (${all[small]})${margin === 0 ? '' : ` plus ${margin}`} must not be greater than ${large} (${all[large]})`,
    );
  };
  atMost('valueBytesMax', 'batchBytesMax');
  atMost('batchBytesMax', 'frameBytesMax', ENVELOPE_BYTES_MAX);
  atMost('frameBytesMax', 'linkQueueBytesMax');
  atMost('redialMinMs', 'redialMaxMs');
}
