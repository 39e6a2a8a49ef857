/** The HTTP face on a bare server of its own, and requests that no URL class has tidied up. */
import { createServer, request as httpRequest, type IncomingHttpHeaders, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { createHttpHandler, type HttpOptions } from '../../src/http.js';
import { FakeNode } from './fake-node.js';

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  json: unknown;
}

export interface Sent {
  headers?: Record<string, string>;
  body?: string | Uint8Array;
}

export class Face {
  readonly node = new FakeNode();
  readonly faults: unknown[] = [];
  readonly #server: Server;

  private constructor(options: HttpOptions) {
    const handler = createHttpHandler(this.node, { onFault: (error) => this.faults.push(error), ...options });
    this.#server = createServer(handler);
  }

  static async open(options: HttpOptions = {}): Promise<Face> {
    const face = new Face(options);
    await new Promise<void>((resolve) => face.#server.listen(0, '127.0.0.1', resolve));
    return face;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** `path` goes out as it stands. */
  send(method: string, path: string, { headers = {}, body }: Sent = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        port: this.port,
        host: '127.0.0.1',
        method,
        path,
        headers,
        agent: false,
      });
      request.once('error', reject);
      request.once('response', (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.once('error', reject);
        response.once('end', () => {
          const text = Buffer.concat(pieces).toString();
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json: parsed(text) });
        });
      });
      request.end(body);
    });
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return this.send('GET', path, { headers });
  }

  put(path: string, body: string | Uint8Array, headers: Record<string, string> = {}): Promise<Answer> {
    return this.send('PUT', path, { headers, body });
  }

  /** Sends raw bytes, then waits until the server has closed the connection. */
  raw(bytes: string | Uint8Array): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.port, '127.0.0.1', () => socket.write(bytes));
      let text = '';
      socket.setEncoding('latin1').on('data', (piece: string) => (text += piece));
      socket.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ECONNRESET') reject(error);
      });
      socket.once('close', () => resolve(text));
    });
  }

  /** Cuts every connection. */
  cut(): void {
    this.#server.closeAllConnections();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
