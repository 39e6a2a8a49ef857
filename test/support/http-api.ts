/** The HTTP face of a daemon, as a test calls it: status and parsed body, whatever the answer is. */

export interface Answer<T = Record<string, unknown>> {
  readonly status: number;
  readonly body: T;
  /** X-Readmesh-Stamp of the answer; empty when there is none. */
  readonly stamp: string;
}

export interface ReceiptBody {
  stamp: string;
  replicas: number;
  token: string;
  superseded: boolean;
}

export interface ErrorBody {
  code: string;
  message: string;
  stamp?: string;
  hosts?: number;
  needed?: number;
}

export interface WriteQuery {
  replicas?: number;
  fsync?: boolean;
  timeoutMs?: number;
  /** Of an earlier attempt. */
  stamp?: string;
}

export interface StatusBody {
  name: string;
  origin: string;
  clusterUid: string;
  phase: string;
  ready: boolean;
  issues: { code: string; message: string }[];
  members: {
    name: string;
    self: boolean;
    host: string;
    address: string;
    origin: string;
    state: string;
    linked: boolean;
  }[];
  heads: Record<string, number>;
  counters: Record<string, number>;
  store: {
    failure?: { message: string; forMs: number; attempts: number };
    readable: boolean;
    reopenings: number;
    evidence: string[];
  };
  integrity: { proved: boolean; evidence: string[]; lost: number; broken: boolean };
  scrub?: { running: boolean; found: number; unhealed: number; passes: number };
  bootstrap?: { entries: number };
}

/** An answer that does not come at all is the test's fault or a hang of the daemon: both must fail, not wait. */
const ANSWER_MS = 15_000;

async function call<T>(address: string, path: string, init: RequestInit = {}): Promise<Answer<T>> {
  const response = await fetch(`http://${address}${path}`, {
    ...init,
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  const text = await response.text();
  const stamp = response.headers.get('x-readmesh-stamp') ?? '';
  return { status: response.status, body: JSON.parse(text) as T, stamp };
}

const target = (key: string, query: WriteQuery = {}): string => {
  const { replicas, fsync, timeoutMs } = query;
  const parts = new URLSearchParams({ key });
  if (replicas !== undefined) parts.set('replicas', String(replicas));
  if (fsync !== undefined) parts.set('fsync', String(fsync));
  if (timeoutMs !== undefined) parts.set('timeoutMs', String(timeoutMs));
  return `/v1/kv?${parts}`;
};

const stampHeader = (stamp: string | undefined): Record<string, string> =>
  stamp === undefined ? {} : { 'x-readmesh-stamp': stamp };

export type WriteAnswer = Answer<ReceiptBody & ErrorBody>;

/** `json`: the JSON form of the value. */
export function httpPut(
  address: string,
  key: string,
  json: unknown,
  query: WriteQuery = {},
): Promise<WriteAnswer> {
  return call(address, target(key, query), {
    method: 'PUT',
    body: JSON.stringify(json),
    headers: stampHeader(query.stamp),
  });
}

export function httpDelete(address: string, key: string, query: WriteQuery = {}): Promise<WriteAnswer> {
  return call(address, target(key, query), { method: 'DELETE', headers: stampHeader(query.stamp) });
}

export function httpGet(address: string, key: string): Promise<Answer<unknown>> {
  return call(address, target(key));
}

/** Without what it says of a machine that stalls, which is no matter of these tests. */
export async function httpStatus(address: string): Promise<StatusBody> {
  const { body } = await call<StatusBody>(address, '/v1/status');
  return { ...body, issues: body.issues.filter(({ code }) => code !== 'LAGGING') };
}

/** Every live entry, page by page: key and the JSON form of its value. */
export async function httpScan(address: string, prefix = ''): Promise<Map<string, unknown>> {
  const out = new Map<string, unknown>();
  for (let after: string | null = ''; after !== null; ) {
    const query: URLSearchParams = new URLSearchParams({ prefix, after, limit: '1000' });
    const page: Answer<{ entries: { key: string; value: unknown }[]; next: string | null }> = await call(
      address,
      `/v1/kv?${query}`,
    );
    if (page.status !== 200) throw new Error(`a page of the scan was answered with ${page.status}`);
    for (const { key, value } of page.body.entries) out.set(key, value);
    after = page.body.next;
  }
  return out;
}
