#!/usr/bin/env node
/** Entry point of the command line. */
import { run } from './program.js';

/** What is still open after a command is done must not keep the process. */
const LINGER_MS = 1_000;

process.exitCode = await run(process.argv.slice(2));
setTimeout(() => process.exit(), LINGER_MS).unref();
