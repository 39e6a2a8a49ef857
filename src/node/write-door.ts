/** What a write has to be like, whichever face it comes by. */
import { assertKey, KIND_REGISTER } from '../core/entry.js';
import { assertTtl, endlessDeletion } from '../core/expiry.js';
import { isStampHex } from '../core/hlc.js';
import { ReadmeshError } from '../errors.js';
import type { CoreOptions } from '../options.js';
import type { WriteRequest } from '../service.js';

/** Throws before anything has changed. */
export function assertWrite(request: WriteRequest, options: CoreOptions): void {
  const { ops, replicas, timeoutMs } = request;
  const { batchOpsMax, batchBytesMax, valueBytesMax } = options;
  if (ops.length === 0) throw new ReadmeshError('INVALID_OPTION', 'a batch has at least one operation');
  if (ops.length > batchOpsMax)
    throw new ReadmeshError('BATCH_TOO_LARGE', `a batch has at most ${batchOpsMax} operations: split it`);
  let bytes = 0;
  for (const { key, kind, value, stamp, ttlMs } of ops) {
    bytes += assertKey(key) + value.length;
    if (value.length > valueBytesMax)
      throw new ReadmeshError(
        'VALUE_TOO_LARGE',
        `a value has at most ${valueBytesMax} encoded bytes, this one ${value.length}`,
      );
    assertTtl(ttlMs);
    if (ttlMs !== undefined && kind !== KIND_REGISTER) throw endlessDeletion();
    if (typeof stamp === 'string' && !isStampHex(stamp))
      throw new ReadmeshError('INVALID_OPTION', 'a stamp is 32 lower-case hex digits');
  }
  if (bytes > batchBytesMax && ops.length > 1)
    throw new ReadmeshError('BATCH_TOO_LARGE', `a batch has at most ${batchBytesMax} bytes: split it`);
  if (replicas !== undefined && (!Number.isInteger(replicas) || replicas < 1))
    throw new ReadmeshError('INVALID_OPTION', 'replicas is an integer from 1 up');
  if (timeoutMs !== undefined && !(Number.isFinite(timeoutMs) && timeoutMs > 0))
    throw new ReadmeshError('INVALID_OPTION', 'timeoutMs is a number of milliseconds above 0');
}
