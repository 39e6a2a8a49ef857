/** What people and programs are told of a bootstrap. */
import type { BootstrapProgress } from '../core/bootstrap.js';
import type { Instant } from '../core/types.js';
import type { BootstrapStatus } from '../read-store.js';

export function bootstrapStatusOf(progress: BootstrapProgress, now: Instant): BootstrapStatus {
  const { sources, entries, bytes, resumedEntries, resumedBytes, totalEntries, totalBytes } = progress;
  const { ranges, rangesDone, rate, startedMono, endedMono } = progress;
  const complete = endedMono !== undefined;
  const bytesPerSecond = complete ? 0 : Math.round(rate.perSecond(now.mono));
  const isEstimated = totalBytes > 0;
  const left = Math.max(0, totalBytes - resumedBytes - bytes);
  return {
    sources: sources.map((source) => ({ name: source.name, entries: source.entries, bytes: source.bytes })),
    entries,
    bytes,
    resumedEntries,
    resumedBytes,
    ...(isEstimated ? { totalEntries, totalBytes } : {}),
    ranges,
    rangesDone,
    bytesPerSecond,
    ...(isEstimated && bytesPerSecond > 0
      ? { remainingMs: Math.round((left / bytesPerSecond) * 1_000) }
      : {}),
    elapsedMs: Math.round((endedMono ?? now.mono) - startedMono),
    complete,
  };
}
