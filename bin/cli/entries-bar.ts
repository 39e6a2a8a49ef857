/** The progress bar of what goes through entries: import, backup, restore. */
import { SingleBar } from 'cli-progress';

/** Stands on standard error. `total`: of what `update` is told; 0 where that is unknown, and entries are only counted. */
export function startEntriesBar(what: string, total: number): SingleBar {
  const share = total === 0 ? '' : '{bar}  {percentage} %  ';
  const bar = new SingleBar({
    format: `${what}  ${share}{entries} entries  {duration_formatted}`,
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    barCompleteChar: '\u2501',
    barIncompleteChar: '\u2500',
    barsize: 30,
  });
  bar.start(total, 0, { entries: '0' });
  return bar;
}
