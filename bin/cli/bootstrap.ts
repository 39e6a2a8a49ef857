/** How the copying of everything from other members is shown: as a line of text, and as a bar. */
import type { BootstrapStatus, Status } from '../../src/read-store.js';
import { bytes, counted, duration, printable } from './format.js';

const BAR_CHARACTERS = 24;

/** Share of what there is to copy that is here, by the estimate; undefined without one. */
export function shareOf(bootstrap: BootstrapStatus): number | undefined {
  const { totalBytes, resumedBytes, complete } = bootstrap;
  if (complete) return 1;
  return totalBytes === undefined
    ? undefined
    : Math.min(0.999, (resumedBytes + bootstrap.bytes) / totalBytes);
}

export function bootstrapText(bootstrap: BootstrapStatus): string {
  const { sources, entries, resumedEntries, bytesPerSecond, remainingMs, elapsedMs, complete } = bootstrap;
  const share = shareOf(bootstrap);
  const names = sources.map(({ name }) => printable(name)).join(', ');
  return [
    ...(share === undefined || complete ? [] : [`${(share * 100).toFixed(1)} %`]),
    `${counted(entries, 'entry', 'entries')}, ${bytes(bootstrap.bytes)} in ${duration(elapsedMs)}${names === '' ? '' : ` from ${names}`}`,
    ...(resumedEntries === 0 ? [] : [`${counted(resumedEntries, 'entry', 'entries')} from before`]),
    ...(complete ? [] : [`${bytes(bytesPerSecond)}/s`]),
    ...(remainingMs === undefined || complete ? [] : [`about ${duration(remainingMs)} left`]),
  ].join(', ');
}

/** One line for the foot of a terminal; empty when there is nothing to show. */
export function progressLine({ phase, ready, bootstrap }: Status): string {
  if (ready) return '';
  if (bootstrap === undefined) return `${phase}: looking for the cluster`;
  const share = shareOf(bootstrap);
  return `${phase} ${share === undefined ? '' : `${bar(share)} `}${bootstrapText(bootstrap)}`;
}

function bar(share: number): string {
  return '='.repeat(Math.round(share * BAR_CHARACTERS)).padEnd(BAR_CHARACTERS, '-');
}
