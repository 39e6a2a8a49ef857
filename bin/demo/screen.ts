/** What the demo shows: headings, ticks, tables; a progress bar only where a person watches a terminal. */
import { SingleBar } from 'cli-progress';
import Table from 'cli-table3';
import pc from 'picocolors';
import { count } from '../cli/format.js';

const BAR_WIDTH = 30;
const LABEL_WIDTH = 54;
/** No rules between the rows: shorter, and easier to read. */
const PLAIN_ROWS = { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' };

export interface Progress {
  update(done: number): void;
  stop(): void;
}

export class Screen {
  readonly #quiet: boolean;
  readonly #colors = pc.createColors(process.stdout.isTTY === true && pc.isColorSupported);

  /** Quiet: prints nothing but what `raw` is given, and the progress bar. */
  constructor(quiet: boolean) {
    this.#quiet = quiet;
  }

  raw(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  title(text: string): void {
    this.#line(`\n${this.#colors.bold(text)}`);
  }

  heading(text: string): void {
    this.#line(`\n${this.#colors.cyan(this.#colors.bold(text))}`);
  }

  /** One thing that was done or checked, with its figure at the right. */
  check(ok: boolean, text: string, figure = ''): void {
    const mark = ok ? this.#colors.green('\u2714') : this.#colors.red('\u2718');
    this.#line(`  ${mark} ${text.padEnd(LABEL_WIDTH)} ${this.#colors.dim(figure)}`.trimEnd());
  }

  text(text: string): void {
    this.#line(text === '' ? '' : `  ${text}`);
  }

  table(head: readonly string[], rows: readonly (readonly string[])[]): void {
    const table = new Table({
      ...(head.length === 0 ? {} : { head: head.map((cell) => this.#colors.bold(cell)) }),
      chars: PLAIN_ROWS,
      style: { head: [], border: [] },
    });
    table.push(...rows.map((row) => [...row]));
    this.#line(
      table
        .toString()
        .split('\n')
        .map((line) => `  ${line}`)
        .join('\n'),
    );
  }

  progress(label: string, total: number): Progress {
    if (!process.stderr.isTTY) return { update: () => {}, stop: () => {} };
    const bar = new SingleBar({
      format: `  ${label}  {bar}  {percentage} %  {rows} rows  {duration_formatted}`,
      stream: process.stderr,
      hideCursor: true,
      gracefulExit: false,
      clearOnComplete: true,
      barCompleteChar: '\u2501',
      barIncompleteChar: '\u2500',
      barsize: BAR_WIDTH,
    });
    bar.start(total, 0, { rows: '0' });
    // Whatever ends the process gives the terminal its cursor back.
    const stop = (): void => bar.stop();
    process.once('exit', stop);
    let stopped = false;
    return {
      // A late figure must not draw the bar anew.
      update: (done) => stopped || bar.update(done, { rows: count(done) }),
      stop: () => {
        stopped = true;
        process.off('exit', stop);
        stop();
      },
    };
  }

  #line(text: string): void {
    if (!this.#quiet) process.stdout.write(`${text}\n`);
  }
}
