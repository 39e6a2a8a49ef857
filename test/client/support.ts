/** What the tests of the client share: hosts and clients that are always closed, and waiting for a condition. */
import { afterEach } from 'vitest';
import { type ConnectOptions, connect, type LightClient } from '../../src/client/index.js';
import type { ServeOptions } from '../../src/client/server.js';
import { FakeHost, FakeService } from '../support/fake-service.js';

const toClose: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of toClose.splice(0).reverse()) await close();
});

export function closeLater(close: () => Promise<void>): void {
  toClose.push(close);
}

/** A host on a loopback port, until the test ends. */
export async function host(options: ServeOptions = {}, set: Partial<FakeService> = {}): Promise<FakeHost> {
  const service = Object.assign(new FakeService(), set);
  const started = await new FakeHost(service, options).start();
  closeLater(() => started.stop());
  return started;
}

/** An address at which nothing listens. */
export async function deadAddress(): Promise<string> {
  const dead = await new FakeHost().start();
  await dead.stop();
  return dead.address;
}

export async function client(
  hosts: readonly (FakeHost | string)[],
  options: Partial<ConnectOptions> = {},
): Promise<LightClient> {
  const addresses = hosts.map((one) => (typeof one === 'string' ? one : one.address));
  const connected = await connect({ hosts: addresses, timeoutMs: 20_000, ...options });
  closeLater(() => connected.close());
  return connected;
}

/** Resolves once `condition` holds. The test's own time limit is the only one. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** A client that is connected to all of the hosts. */
export async function clientOfAll(
  hosts: readonly FakeHost[],
  options: Partial<ConnectOptions> = {},
): Promise<LightClient> {
  const connected = await client(hosts, options);
  await until(() => hosts.every((one) => one.service.statusCalls >= 2));
  return connected;
}

export async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of iterable) out.push(item);
  return out;
}

/** Resolves once the host has more to send to its (only) client than goes anywhere. */
export async function untilStuck(target: FakeHost): Promise<void> {
  const waiting = (): number => [...target.clients][0]?.bufferedAmount ?? 0;
  for (let before = 0; before === 0 || before !== waiting(); ) {
    before = waiting();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
