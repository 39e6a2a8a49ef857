/** What a node says of its store: what it had lost when it was opened, whether that is back, and what failed since. */
import { restoredOf } from '../core/lifecycle.js';
import type { ReplicaCore } from '../core/replica.js';
import type { ReadmeshError } from '../errors.js';
import type { HealthIssue, Status } from '../read-store.js';
import type { DataFolder } from '../storage/data-folder.js';
import type { Logger } from './driver.js';
import type { StoreRecovery } from './store-recovery.js';

const NOBODY_KNOWN_TEXT =
  'But no member has an address that this node could dial: start it with --join HOST:PORT. Until then its store stays as it is';

/** Functions, since the store, and all that stands on it, may be replaced. */
export interface StoreReportSources {
  core(): ReplicaCore;
  folder(): DataFolder;
  readonly recovery: StoreRecovery;
  /** Why the node ended by itself. */
  fatal(): ReadmeshError | undefined;
  isOutdated(): boolean;
  /** There is no other member that could be dialed. */
  isAlone(): boolean;
}

export class StoreReport {
  readonly #sources: StoreReportSources;
  readonly #logger: Logger;
  /** When the store was opened, `performance.now()`, if it had lost something then and may not have it back yet. */
  #catchingUpSince: number | undefined;

  constructor(sources: StoreReportSources, logger: Logger) {
    this.#sources = sources;
    this.#logger = logger;
  }

  /** A store was opened. */
  opened(folder: DataFolder): void {
    const lost = folder.evidence.some((evidence) => evidence !== 'unproved');
    this.#catchingUpSince = lost ? performance.now() : undefined;
    if (folder.evidence.length > 0)
      this.#logger[lost ? 'warn' : 'info'](
        { event: 'store-evidence', evidence: folder.evidence.join(' ') },
        'the store may be an older state than the last one: a new origin, and what is missing comes from the other members',
      );
  }

  /** Until a restored store was served together with its cluster, its age is told, and it has yet to catch up. */
  noteRestored(folder: DataFolder): void {
    const restored = restoredOf(folder.store.recovered.meta);
    if (restored?.isUnmet !== true) return;
    this.#catchingUpSince = performance.now();
    const ageMs = Date.now() - restored.takenAtMs;
    const takenAt = new Date(restored.takenAtMs).toISOString();
    this.#logger.warn(
      { event: 'store-restored', takenAt, ageMs, node: restored.node },
      `the store was restored from a backup that was taken of "${restored.node}" at ${takenAt}: a new origin, and what was written since comes from the other members`,
    );
  }

  issues(): HealthIssue[] {
    const issues: HealthIssue[] = [];
    const { core, fatal, isOutdated, isAlone, recovery } = this.#sources;
    const failure = fatal() ?? recovery.failure;
    if (isOutdated())
      issues.push({
        code: 'OUTDATED',
        message: `${core().outdatedText}${isAlone() ? `. ${NOBODY_KNOWN_TEXT}` : ''}`,
      });
    else if (failure !== undefined) issues.push({ code: failure.code, message: failure.message });
    if (this.#catchingUpSince !== undefined) {
      if (this.#hasCaughtUp(this.#catchingUpSince)) this.#catchingUpSince = undefined;
      else
        issues.push({
          code: 'CATCHING_UP',
          message:
            'the store lacked the latest writes when it was opened (lost, or restored from a backup): they are being fetched from the other members',
        });
    }
    return issues;
  }

  status(): NonNullable<Status['store']> {
    const { fatal, recovery } = this.#sources;
    const { failure, failedForMs, attempts, reopenings, isClosed } = recovery;
    const folder = this.#sources.folder();
    const restored = restoredOf(folder.store.recovered.meta);
    return {
      ...(failure === undefined
        ? {}
        : { failure: { message: failure.message, forMs: Math.round(failedForMs), attempts } }),
      readable: !isClosed && fatal() === undefined,
      reopenings,
      evidence: [...folder.evidence],
      ...(restored === undefined
        ? {}
        : {
            restored: {
              node: restored.node,
              takenAt: new Date(restored.takenAtMs).toISOString(),
              restoredAt: new Date(restored.restoredAtMs).toISOString(),
            },
          }),
    };
  }

  /** All that the members had announced since then is here. */
  #hasCaughtUp(since: number): boolean {
    const core = this.#sources.core();
    return !core.identity.unmet && core.coversAnnouncedSince(since);
  }
}
