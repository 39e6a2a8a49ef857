/** A raw client: sends what it is told, and records what comes. */
import { pack, unpack } from 'msgpackr/index-no-eval';
import { WebSocket } from 'ws';
import { CLIENT_PROTOCOL_VERSION } from '../../src/client/wire.js';
import type { FakeHost } from '../support/fake-service.js';
import { closeLater, until } from './support.js';

export type Response = [id: number, status: number, ...rest: unknown[]];

export class Raw {
  readonly ws: WebSocket;
  readonly frames: unknown[][] = [];
  readonly responses: Response[] = [];
  closed: { code: number; reason: string } | undefined;

  constructor(address: string) {
    this.ws = new WebSocket(`ws://${address}/client`, { perMessageDeflate: false });
    this.ws.on('error', () => {});
    this.ws.on('message', (data: Buffer) => {
      const frame = unpack(data) as unknown[];
      this.frames.push(frame);
      this.responses.push(...(frame.slice(2) as Response[]));
    });
    this.ws.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() };
    });
    closeLater(async () => this.ws.terminate());
  }

  /** One that was greeted. */
  static async to(target: FakeHost): Promise<Raw> {
    const raw = new Raw(target.address);
    await until(() => raw.responses.length === 1);
    return raw;
  }

  /** One that has said hello, too. */
  static async greeted(target: FakeHost): Promise<Raw> {
    const raw = await Raw.to(target);
    raw.send([[1, 1, CLIENT_PROTOCOL_VERSION]]);
    await raw.answer(1);
    return raw;
  }

  send(frame: unknown): void {
    this.ws.send(pack(frame), { binary: true });
  }

  /** The first response under this id; undefined if the connection is closed first. */
  async answer(id: number): Promise<Response> {
    await until(() => this.responses.some((response) => response[0] === id) || this.closed !== undefined);
    return this.responses.find((response) => response[0] === id)!;
  }
}
