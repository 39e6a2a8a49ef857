/** `GET /v1/backup`: the bytes of a backup, read from the store only as fast as the other side takes them. */
import type { ServerResponse } from 'node:http';
import { isReadmeshError, ReadmeshError } from '../errors.js';
import type { HttpLimits } from '../options.js';
import type { NodeService } from '../service.js';
import { encodeFailure } from '../storage/backup-format.js';
import { asReadmeshError } from './reply.js';

export class BackupFace {
  readonly #service: NodeService;
  readonly #limits: HttpLimits;
  readonly #onFault: (error: unknown) => void;
  #running = 0;

  constructor(service: NodeService, limits: HttpLimits, onFault: (error: unknown) => void) {
    this.#service = service;
    this.#limits = limits;
    this.#onFault = onFault;
  }

  /** Throws while the answer has not begun; later, the last frame says why there are no more. */
  async send(response: ServerResponse): Promise<void> {
    const { backupsMax, backupMsMax } = this.#limits;
    if (this.#running >= backupsMax)
      throw new ReadmeshError(
        'OVERLOADED',
        `${this.#running} backups of this node are in progress: try again, or another host`,
      );
    this.#running += 1;
    const overdue = setTimeout(() => response.destroy(), backupMsMax);
    try {
      for await (const chunk of this.#service.backup()) {
        if (!response.headersSent) begin(response);
        if (!response.write(chunk)) await this.#drained(response);
        if (response.destroyed) return;
      }
      response.end();
    } catch (error) {
      if (!isReadmeshError(error)) this.#onFault(error);
      if (!response.headersSent) throw error;
      response.end(encodeFailure(asReadmeshError(error)));
    } finally {
      clearTimeout(overdue);
      this.#running -= 1;
    }
  }

  /** Until there is room for more, or nobody there any more. */
  #drained(response: ServerResponse): Promise<void> {
    return new Promise((resolve) => {
      const stalled = setTimeout(() => response.destroy(), this.#limits.backupStallMs);
      const done = (): void => {
        clearTimeout(stalled);
        response.off('drain', done).off('close', done);
        resolve();
      };
      response.once('drain', done).once('close', done);
      if (response.destroyed) done();
    });
  }
}

function begin(response: ServerResponse): void {
  response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
}
