/**
 * The one error class. Every code a caller can meet is a row of `ERRORS`: what it means for the data
 * (`outcome`), how HTTP and the command line report it, and whether the same call may be sent again.
 *
 * `outcome: 'unchanged'` promises that nothing was written. `'indeterminate'` means that the write may
 * take effect, now or later; a retry with the same stamp is always safe.
 */
export interface ErrorInfo {
  readonly outcome: 'unchanged' | 'indeterminate';
  /** HTTP status of the JSON faces. */
  readonly http: number;
  /** Exit code of the command line: 1 missing/different, 2 usage, 3 unreachable/timed out, 4 refused, 5 store untrusted. */
  readonly exit: 1 | 2 | 3 | 4 | 5;
  /** Whether a client should try again (at another host, or later). */
  readonly retry: boolean;
}

const row = (
  outcome: ErrorInfo['outcome'],
  http: number,
  exit: ErrorInfo['exit'],
  retry: boolean,
): ErrorInfo => ({ outcome, http, exit, retry });

export const ERRORS = {
  // Misuse: mend the call.
  INVALID_KEY: row('unchanged', 400, 2, false),
  INVALID_VALUE: row('unchanged', 400, 2, false),
  INVALID_JSON: row('unchanged', 400, 2, false),
  INVALID_OPTION: row('unchanged', 400, 2, false),
  VALUE_TOO_LARGE: row('unchanged', 413, 2, false),
  BATCH_TOO_LARGE: row('unchanged', 413, 2, false),
  UNSUPPORTED: row('unchanged', 400, 4, false),
  NOT_FOUND: row('unchanged', 404, 1, false),
  FORBIDDEN: row('unchanged', 403, 4, false),
  INSECURE_LISTEN: row('unchanged', 500, 2, false),
  PORT_IN_USE: row('unchanged', 500, 2, false),
  // The host cannot serve this now: try another one, or later.
  NOT_READY: row('unchanged', 503, 3, true),
  OVERLOADED: row('unchanged', 503, 3, true),
  NO_MAJORITY: row('unchanged', 503, 3, true),
  CLOSED: row('indeterminate', 503, 3, true),
  UNREACHABLE: row('indeterminate', 503, 3, true),
  TIMEOUT: row('indeterminate', 504, 3, true),
  ACK_TIMEOUT: row('indeterminate', 504, 3, true),
  // Clocks.
  CLOCK_SKEW: row('unchanged', 503, 4, true),
  FUTURE_STAMP: row('unchanged', 400, 4, false),
  STALE_STAMP: row('unchanged', 400, 4, false),
  // Identity.
  WRONG_CLUSTER: row('unchanged', 403, 4, false),
  NAME_IN_USE: row('unchanged', 409, 4, true),
  DUPLICATE_ORIGIN: row('unchanged', 409, 4, true),
  REMOVED: row('unchanged', 403, 4, false),
  VERSION_MISMATCH: row('unchanged', 400, 4, false),
  PROTOCOL_ERROR: row('unchanged', 400, 4, false),
  // Storage.
  STORE_IN_USE: row('unchanged', 500, 4, false),
  NOT_A_STORE: row('unchanged', 500, 2, false),
  STORE_UNTRUSTED: row('unchanged', 500, 5, false),
  STORE_FAILED: row('indeterminate', 503, 4, true),
  DAMAGED: row('unchanged', 503, 4, true),
  UNPROVED: row('unchanged', 503, 4, true),
  UNREADABLE: row('unchanged', 500, 4, false),
  BACKUP_DAMAGED: row('unchanged', 400, 4, false),
  // A reader that does not keep up.
  WATCH_OVERFLOW: row('unchanged', 503, 4, true),
  // A bug of ours.
  INTERNAL: row('indeterminate', 500, 4, false),
} as const satisfies Record<string, ErrorInfo>;

export type ErrorCode = keyof typeof ERRORS;

/** Facts a program may want beside the message: `hosts`, `stamp`, `needed`, ... JSON-safe. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | undefined>>;

export class ReadmeshError extends Error {
  override readonly name = 'ReadmeshError';
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  /** `message` is one line that says what is wrong and how to mend it. */
  constructor(code: ErrorCode, message: string, options: { cause?: unknown; details?: ErrorDetails } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

  get info(): ErrorInfo {
    return ERRORS[this.code];
  }
}

export function isReadmeshError(error: unknown): error is ReadmeshError {
  return error instanceof ReadmeshError;
}
