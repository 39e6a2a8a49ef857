/**
 * `ws` for what serves, by `require`: of imported CommonJS Node goes through every source once more, for the names that
 * it exports, which is a tenth of the time that a daemon takes to start. The light client imports it as usual, so that
 * bundlers find it.
 */
import { createRequire } from 'node:module';
import type * as Ws from 'ws';

export const { WebSocket, WebSocketServer } = createRequire(import.meta.url)('ws') as typeof Ws;
export type WebSocket = Ws.WebSocket;
export type WebSocketServer = Ws.WebSocketServer;
