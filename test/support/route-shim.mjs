/**
 * Leads the connections of one Node process through other ports, for tests that cut single wires: load it with
 * `--import`, and give in the environment variable READMESH_TEST_ROUTES, as JSON, which port to take instead of which.
 */
import { Socket } from 'node:net';

const routes = JSON.parse(process.env.READMESH_TEST_ROUTES ?? '{}');
const connect = Socket.prototype.connect;

Socket.prototype.connect = function (...args) {
  // Node's own callers hand over the options, and what to call, in one array.
  const options = Array.isArray(args[0]) ? args[0][0] : args[0];
  const port = routes[options?.port];
  if (port !== undefined) options.port = port;
  return connect.apply(this, args);
};
