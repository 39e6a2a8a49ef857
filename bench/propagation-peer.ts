/** The other process of the bench `propagation`: says what it can read, and when; echoes WebSocket frames. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';
import { openReplica } from '../src/index.js';

export type PeerMessage =
  | { type: 'ready'; echoPort: number }
  /** `at`: nanoseconds of the machine's monotonic clock when a read first gave `value`. */
  | { type: 'seen'; key: string; at: string; value: unknown };

const [data, join, flush] = process.argv.slice(2);
const tell = (message: PeerMessage): void => {
  process.send?.(message);
};

const replica = await openReplica({
  data: data!,
  cluster: 'bench',
  name: 'reader',
  listen: '127.0.0.1:0',
  join: [join!],
  flush: flush === 'true',
});
await replica.ready();

const echo = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
echo.on('connection', (socket) => {
  socket.on('error', () => socket.terminate());
  socket.on('message', (bytes) => socket.send(bytes));
});
await once(echo, 'listening');

const watching = (async () => {
  for await (const { key } of replica.watch('propagation/')) {
    const value = replica.getSync(key);
    tell({ type: 'seen', key, at: String(process.hrtime.bigint()), value });
  }
})();

// The one who started this is done, or gone.
process.once('disconnect', async () => {
  echo.close();
  for (const socket of echo.clients) socket.terminate();
  await replica.close();
  await watching;
  process.exit();
});
tell({ type: 'ready', echoPort: (echo.address() as AddressInfo).port });
