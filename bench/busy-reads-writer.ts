/** The writing process of the bench `busy-reads`: puts through a daemon, at a rate or as fast as acknowledged. */
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from '../src/client/index.js';

export type WriterOrder =
  /** Begin. Writes a second; 0: none; -1: as fast as they are acknowledged. */
  { readonly rate: number } | { readonly stop: true };

export interface WriterReply {
  /** Writes acknowledged a second; 0 in the reply to a beginning. */
  readonly rate: number;
}

const IN_FLIGHT = 1_000;
/** Overwritten in turn: the table stays as it is. */
const KEYS = 20_000;
const TIMEOUT_MS = 30_000;
const VALUE = 'a value of about as many characters as a row has';

const client = await connect({ hosts: [process.argv[2]!] });
let goal = 0;
let begun = 0;
let acknowledged = 0;
let inFlight = 0;
let began = 0;

function put(): void {
  inFlight++;
  void client.put(`busy/${begun++ % KEYS}`, VALUE, { timeoutMs: TIMEOUT_MS }).then(() => {
    inFlight--;
    acknowledged++;
    if (goal < 0) put();
  });
}

async function pace(): Promise<void> {
  while (goal > 0) {
    const due = ((performance.now() - began) * goal) / 1_000;
    while (begun < due && inFlight < IN_FLIGHT) put();
    await delay(1);
  }
}

async function stop(): Promise<void> {
  goal = 0;
  while (inFlight > 0) await delay(1);
}

process.on('message', async (order: WriterOrder) => {
  let reply: WriterReply = { rate: 0 };
  if ('stop' in order) {
    reply = { rate: (acknowledged / (performance.now() - began)) * 1_000 };
    await stop();
  } else {
    goal = order.rate;
    begun = acknowledged = 0;
    began = performance.now();
    if (goal < 0) for (let i = 0; i < IN_FLIGHT; i++) put();
    else void pace();
  }
  process.send?.(reply);
});
// Whoever started this may be gone without having told.
process.on('disconnect', () => process.exit());
