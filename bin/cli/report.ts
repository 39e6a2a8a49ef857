/**
 * How the command line fails: one line on standard error, `readmesh: CODE: message`, or with --json
 * `{"code","message",...}`; and the exit code of that error's row in errors.ts.
 */
import { CommanderError } from 'commander';
import { ERRORS, isReadmeshError, ReadmeshError } from '../../src/errors.js';

/** Exit codes, for the help text. */
export const EXIT_CODES = `Exit codes:
  0  done
  1  the key is missing; copies differ
  2  wrong usage: the message says what to mend
  3  no host could be reached, or it took too long (a write may still take effect; repeating it is safe)
  4  refused
  5  the data folder cannot be trusted (see readmesh serve --help)`;

/** Says what went wrong and returns the exit code. Help and version requests come this way, too. */
export function report(error: unknown, json: boolean, command: string | undefined): number {
  if (error instanceof CommanderError && error.exitCode === 0) return 0;
  const known = error instanceof CommanderError ? usageError(error, command) : error;
  if (!isReadmeshError(known)) {
    const text = describeFault(known);
    process.stderr.write(
      json ? `${JSON.stringify({ code: 'INTERNAL', message: text })}\n` : `readmesh: INTERNAL: ${text}\n`,
    );
    return ERRORS.INTERNAL.exit;
  }
  const { code, message, details } = known;
  process.stderr.write(
    json ? `${JSON.stringify({ code, message, ...details })}\n` : `readmesh: ${code}: ${oneLine(message)}\n`,
  );
  return known.info.exit;
}

/** A bug of ours: whoever mends it needs the stack. What the operating system refused explains itself. */
function describeFault(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'syscall' in error ? error.message : (error.stack ?? error.message);
}

function usageError(error: CommanderError, command: string | undefined): ReadmeshError {
  const what = oneLine(error.message.replace(/^error: /, ''))
    .replace(
      / ?\(Did you mean (one of )?(.*?)\?\)$/,
      (_, several, names) => `: did you mean ${several ?? ''}${names}?`,
    )
    .replace(/\.$/, '');
  const help = command === undefined ? 'readmesh --help' : `readmesh ${command} --help`;
  return new ReadmeshError('INVALID_OPTION', `${what} (see \`${help}\`)`, { cause: error });
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}
