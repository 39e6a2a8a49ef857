/**
 * The daemon's log: lines of JSON by pino on standard error, or one readable line each when a person watches a
 * terminal. READMESH_LOG sets the level.
 *
 * Writing to a pipe that nobody reads must not stop a node that has reads to serve, so lines are written
 * asynchronously and dropped above a cap.
 */
import pc from 'picocolors';
import { type Level, type Logger, pino } from 'pino';
import { ReadmeshError } from '../../src/errors.js';
import { nearest } from '../../src/schema.js';
import type { Terminal } from './terminal.js';

/** Bytes of log that wait for a slow reader; more are dropped. */
const LOG_BUFFER_BYTES_MAX = 1_048_576;
/** How long the end of the log may take to be written at exit, ms. */
const FLUSH_MS = 500;

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

export interface Log {
  readonly logger: Logger;
  /** Resolves when what was logged is written, or after a moment. */
  flush(): Promise<void>;
  /** The same at once, for a process that is about to end. */
  flushSync(): void;
}

/** Throws INVALID_OPTION for a bad READMESH_LOG. */
export function openLog(terminal: Terminal | undefined): Log {
  const level = levelOf(process.env.READMESH_LOG);
  const base = { pid: process.pid };
  if (terminal !== undefined) {
    const stream = { write: (line: string): void => terminal.line(pretty(line)) };
    return { logger: pino({ level, base }, stream), flush: async () => {}, flushSync: () => {} };
  }
  const destination = pino.destination({ dest: 2, sync: false, maxLength: LOG_BUFFER_BYTES_MAX });
  // A reader that has gone (EPIPE) costs the log, not the node.
  destination.on('error', () => {});
  return {
    logger: pino({ level, base, timestamp: pino.stdTimeFunctions.isoTime }, destination),
    flush: () =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, FLUSH_MS);
        destination.flush(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
    flushSync: () => {
      try {
        destination.flushSync();
      } catch {
        // Nobody is left to tell.
      }
    },
  };
}

function levelOf(text = ''): string {
  const level = text.trim().toLowerCase();
  if (level === '') return 'info';
  if (LEVELS.includes(level)) return level;
  const near = nearest(level, LEVELS);
  throw new ReadmeshError(
    'INVALID_OPTION',
    `READMESH_LOG is ${JSON.stringify(text)}: ${near === undefined ? `use one of ${LEVELS.join(', ')}` : `did you mean ${near}?`}`,
  );
}

const LABELS: Record<number, [name: string, color: (text: string) => string]> = {
  10: ['TRACE', pc.dim],
  20: ['DEBUG', pc.dim],
  30: ['INFO ', pc.cyan],
  40: ['WARN ', pc.yellow],
  50: ['ERROR', pc.red],
  60: ['FATAL', pc.red],
};

function pretty(line: string): string {
  const {
    level,
    time,
    pid: _pid,
    msg = '',
    ...details
  } = JSON.parse(line) as {
    level: Level & number;
    time: number;
    pid: number;
    msg?: string;
    [name: string]: unknown;
  };
  const [name, color] = LABELS[level] ?? ['?    ', pc.dim];
  const clock = new Date(time).toISOString().slice(11, 23);
  const facts = Object.entries(details)
    .filter(([key, value]) => value !== undefined && !(key === 'event' && value === msg))
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  return `${pc.dim(clock)} ${color(name)} ${msg}${facts.length === 0 ? '' : ` ${pc.dim(facts.join(' '))}`}`;
}
