/** Looking at the cluster and tending it: status, members, remove, verify. */
import type { Command } from 'commander';
import pc from 'picocolors';
import type { ExcludedStatus, MemberStatus, Status } from '../../src/read-store.js';
import type { VerifyReport } from '../../src/service.js';
import { bootstrapText } from '../cli/bootstrap.js';
import { type Cli, type ClientFlags, clientOptions, withClient } from '../cli/command.js';
import { bytes, counted, duration, printable } from '../cli/format.js';
import { table } from '../cli/table.js';

/** Deadline of verify unless --timeout-ms says otherwise, ms: writes in flight have to settle first. */
const VERIFY_TIMEOUT_MS = 30_000;

export function addStatus(program: Command, cli: Cli): void {
  const command = program
    .command('status')
    .summary('show how a node and its members are')
    .description('Shows the node that answers first: its phase, what ails it, its members and its queues.')
    .addHelpText(
      'after',
      `
Examples:
  readmesh status
  readmesh status --hosts 10.0.0.2:7700 --json | jq .issues`,
    );
  clientOptions(command, 'print everything as JSON');
  cli.action(command, async (flags: ClientFlags) => {
    const status = await withClient(flags, (client) => client.status());
    await cli.out.write(flags.json === true ? `${JSON.stringify(status)}\n` : renderStatus(status));
    return 0;
  });
}

export function addMembers(program: Command, cli: Cli): void {
  const command = program
    .command('members')
    .summary('list the members of the cluster')
    .description(
      'Lists the members as the node that answers first knows them, votes to exclude some of them, and those that are excluded.',
    )
    .addHelpText(
      'after',
      `
Examples:
  readmesh members
  readmesh members --json | jq -r '.[].address'`,
    );
  clientOptions(command, 'print them as a JSON array');
  cli.action(command, async (flags: ClientFlags) => {
    const { members, excluded } = await withClient(flags, (client) => client.status());
    await cli.out.write(
      flags.json === true ? `${JSON.stringify(members)}\n` : `${renderMembers(members, excluded)}\n`,
    );
    return 0;
  });
}

export function addRemove(program: Command, cli: Cli): void {
  const command = program
    .command('remove')
    .summary('remove a member for good')
    .description(
      'Removes the member NAME: nobody waits for it any more, and its present store is refused from now on. Start it again with an empty data folder to take it back.',
    )
    .argument('<name>', 'as `readmesh members` lists it')
    .addHelpText(
      'after',
      `
Examples:
  readmesh remove db3`,
    );
  clientOptions(command, 'print the result as JSON: {"removed"}');
  cli.action(command, async (name: string, flags: ClientFlags) => {
    await withClient(flags, (client) => client.remove(name));
    await cli.out.write(
      flags.json === true ? `${JSON.stringify({ removed: name })}\n` : `removed ${printable(name)}\n`,
    );
    return 0;
  });
}

export function addVerify(program: Command, cli: Cli): void {
  const command = program
    .command('verify')
    .summary('compare the copies of all members')
    .description(
      'Compares every entry of every member. Exits 0 when all copies are identical, 1 when they differ (some of the keys are named), 3 when a member cannot be reached.',
    )
    .addHelpText(
      'after',
      `
A member that is gone for good is left out after \`readmesh remove NAME\`. While writes go on, copies differ for a
moment: verify waits for them to settle, for 30 s or for --timeout-ms.

Examples:
  readmesh verify
  readmesh verify --timeout-ms 120000 --json`,
    );
  clientOptions(command, 'print the report as JSON');
  cli.action(command, async (flags: ClientFlags) => {
    const timeoutMs = flags.timeoutMs ?? VERIFY_TIMEOUT_MS;
    const report = await withClient(flags, (client) => client.verify({ timeoutMs }));
    await cli.out.write(flags.json === true ? `${JSON.stringify(report)}\n` : renderVerify(report));
    return verifyExit(report);
  });
}

/** Unreachable comes first: while a member is away the others are compared as they are, perhaps in mid-flight. */
export function verifyExit(report: VerifyReport): 0 | 1 | 3 {
  if (report.members.some((member) => member.state === 'unreachable')) return 3;
  return report.identical ? 0 : 1;
}

function renderStatus(status: Status): string {
  const { name, host, address, cluster, clusterUid, phase, ready, issues, queues, bootstrap } = status;
  const state = ready ? pc.green(phase) : pc.yellow(phase);
  const uid = clusterUid === '' ? '' : ` (${clusterUid})`;
  const lines = [
    `${pc.bold(printable(name))} at ${printable(address)}: ${state}`,
    '',
    `cluster    ${printable(cluster)}${uid}`,
    `host       ${printable(host)}`,
    `up         ${duration(status.uptimeMs)}, version ${printable(status.version)}`,
    `queues     ${counted(queues.pendingRows, 'record')} (${bytes(queues.pendingBytes)}) to write, ${counted(queues.unacknowledged, 'write')} to acknowledge`,
  ];
  lines.push(`digest     ${digestLine(status.digest)}`);
  const { restored } = status.store ?? {};
  if (restored !== undefined) {
    const ageMs = Date.now() - Date.parse(restored.takenAt);
    lines.push(`restored   from a backup of ${printable(restored.node)} taken ${duration(ageMs)} ago`);
  }
  lines.push(...garbageLines(status));
  if (bootstrap !== undefined) lines.push(`bootstrap  ${bootstrapText(bootstrap)}`);
  lines.push(`copy       ${renderIntegrity(status)}`);
  if (issues.length === 0) lines.push(`health     ${ready ? pc.green('no issues') : 'no issues'}`);
  for (const { code, message } of issues)
    lines.push(`${pc.yellow('health')}     ${code}: ${printable(message)}`);
  return `${lines.join('\n')}\n\n${renderMembers(status.members, status.excluded)}\n`;
}

function renderIntegrity({ integrity, scrub, counters }: Status): string {
  const { damageFound = 0, damageHealed = 0 } = counters;
  const known = integrity.proved ? 'all read and found whole' : 'not all read since the start';
  const damage =
    damageFound === 0 ? '' : `; ${counted(damageFound, 'damaged record')} found, ${damageHealed} healed`;
  if (scrub === undefined) return `${known}; not read in the background${damage}`;
  const pass = scrub.running ? `; reading, ${scrub.percent} % done` : '';
  const last =
    scrub.lastPassAt === undefined ? '' : `; last read ${duration(Date.now() - scrub.lastPassAt)} ago`;
  return `${known}${pass}${last}${damage}`;
}

/** How old deletions are before they leave the disk, and who keeps them there. */
function garbageLines({ horizonMs, gcBlockedBy, phase }: Status): string[] {
  if (phase !== 'ready') return [];
  const upTo =
    horizonMs === 0 ? 'none was collected yet' : `collected up to ${duration(Date.now() - horizonMs)} ago`;
  const [first] = gcBlockedBy;
  if (first === undefined) return [`garbage    ${upTo}`];
  const others = gcBlockedBy.length > 1 ? ` and ${gcBlockedBy.length - 1} more` : '';
  return [
    `garbage    ${upTo}; held up by ${printable(first.who)} (${first.why}) for ${duration(first.forMs)}${others}`,
  ];
}

function digestLine(digest: Status['digest']): string {
  const { keys, builtPercent, lastProvedMs } = digest;
  const entries = counted(keys, 'entry', 'entries');
  if (builtPercent < 100) return `${entries}, ${builtPercent} % read`;
  return lastProvedMs === undefined
    ? `${entries}, not yet compared with all linked members`
    : `${entries}, equal to all linked members ${duration(lastProvedMs)} ago`;
}

function renderMembers(members: readonly MemberStatus[], excluded: readonly ExcludedStatus[] = []): string {
  const sorted = [...members].sort((a, b) => (a.name < b.name ? -1 : 1));
  const notes = [
    ...sorted.flatMap((member) => silenceNote(member, members.length)),
    ...excluded.map(absenceNote),
  ];
  return [memberTable(sorted), ...notes].join('\n');
}

/** What the others are about to do with a member that is silent, and what an operator may do. */
function silenceNote({ name, self, state, votes = 0 }: MemberStatus, members: number): string[] {
  const who = printable(name);
  if (members === 2 && !self && state !== 'alive')
    return [`${who}: of two members none excludes the other; if it is gone for good: readmesh remove ${who}`];
  if (votes === 0) return [];
  const needed = Math.floor(members / 2) + 1;
  return [
    `${who}: ${votes} of ${members} members vote to exclude it, ${needed} are needed; at once and for good: readmesh remove ${who}`,
  ];
}

function absenceNote({ name, at }: ExcludedStatus): string {
  const who = printable(name);
  return `${who}: excluded ${duration(Date.now() - at)} ago; it joins again when it is back; to refuse it for good: readmesh remove ${who}`;
}

function memberTable(sorted: readonly MemberStatus[]): string {
  return table(
    ['member', 'host', 'address', 'state', 'link', 'last heard', 'origin'],
    sorted.map((member) => [
      printable(member.name),
      printable(member.host),
      member.address === '' ? '(does not listen)' : printable(member.address),
      member.self ? 'this node' : coloredState(member.state),
      member.self ? '' : member.linked ? 'yes' : 'no',
      member.self ? '' : member.lastHeardMs === undefined ? 'never' : `${duration(member.lastHeardMs)} ago`,
      member.origin,
    ]),
  );
}

function coloredState(state: MemberStatus['state']): string {
  return state === 'alive' ? pc.green(state) : pc.yellow(state);
}

function renderVerify(report: VerifyReport): string {
  const { members, differing, entries, identical } = report;
  const marks = {
    identical: pc.green('identical'),
    differs: pc.red('differs'),
    unreachable: pc.yellow('unreachable'),
  };
  const lines = [
    table(
      ['member', 'address', 'copy', ''],
      members.map(({ name, address, state, message }) => [
        printable(name),
        printable(address),
        marks[state],
        printable(message ?? ''),
      ]),
    ),
    '',
  ];
  for (const { key, stamps } of differing) {
    const held = Object.entries(stamps).map(
      ([name, stamp]) => `${printable(name)} ${stamp === '' ? 'none' : stamp}`,
    );
    lines.push(`${JSON.stringify(printable(key))}: ${held.join(', ')}`);
  }
  lines.push(
    identical
      ? `${counted(members.length, 'copy', 'copies')} of ${counted(entries, 'entry', 'entries')}, tombstones included: identical`
      : 'the copies are not known to be identical',
  );
  return `${lines.join('\n')}\n`;
}
