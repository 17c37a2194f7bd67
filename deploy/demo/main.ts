/**
 * `npm start`: the whole product on this machine, with a simulated fleet, until Ctrl-C or for a given time.
 *
 *   find servers ─▶ start stack ─▶ fleet, probe ─▶ status lines ─▶ fleet ends ─▶ count ─▶ drain ─▶ summary
 */
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { relative, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { withFolderLock } from '../local/folder-lock.ts';
import type { Stack } from '../local/stack.ts';
import { type DemoArguments, demoSites, HELP, readDemoArguments } from './arguments.ts';
import { bringUp, demoDirectory } from './bring-up.ts';
import { type Ending, EXIT_CODE_OF_INTERRUPTED, listenForEnd } from './ending.ts';
import type { FleetProgress } from './fleet.ts';
import { finish, fleetProcess } from './fleet-process.ts';
import { type Probe, startProbe } from './probe.ts';
import { parseRecording } from './recording.ts';
import type { Tool } from './tools.ts';
import { verifyStored } from './verify.ts';

const STATUS_MS = 5000;
const HISTORY_PATIENCE_MS = 30_000;

const say = (line: string) => console.log(line);

async function demo(options: DemoArguments): Promise<number> {
  const problem = options.replay && (await recordingProblem(options.replay.file));
  if (problem) {
    console.error(problem);
    return 2;
  }
  const end = listenForEnd();
  const refuse = (holder: number) => {
    throw new Error(`process ${holder} runs on the data in ${demoDirectory}: end that one first`);
  };
  try {
    // Beside the data, not in it: `--fresh` removes the data under the lock.
    return await withFolderLock(demoDirectory, refuse, () => run(options, end));
  } catch (error) {
    console.error(`\n${(error as Error).message}`);
    return error === end.signal.reason ? EXIT_CODE_OF_INTERRUPTED : 1;
  }
}

/** Rejects when the demo cannot come up, was stopped before it was up, or loses what it needs to count. */
async function run(options: DemoArguments, end: Ending): Promise<number> {
  const { stack, tools, close } = await bringUp(options, end.signal, say);
  for (const part of partsOf(stack)) {
    part.onUnexpectedExit(reason =>
      end.now(`${part.name} ${reason}\n${part.output().split('\n').slice(-5).join('\n')}`),
    );
  }
  try {
    await seedRule(stack.postgres.url);
    end.signal.throwIfAborted();
    const since = Date.now();
    const fleet = fleetProcess(options, stack);
    let progress: FleetProgress = { type: 'progress', published: 0, acknowledged: 0, replay: null };
    fleet.onMessage(message => {
      if (message.type === 'progress') progress = message as unknown as FleetProgress;
    });
    fleet.onUnexpectedExit(reason => end.now(`the fleet ${reason}\n${fleet.output()}`));
    await fleet.start();
    if (options.forMs !== null) end.after(options.forMs);
    const probe = startProbe(stack.url, demoSites);
    invite(options, stack, tools);

    const trouble = await statusUntil(end.ended, () => statusLine(stack, probe, progress));
    if (trouble) console.error(trouble);
    say('\nstopping: the fleet first, then gateways, cloud, servers');
    const journal = await finish(fleet);
    const count = await verifyStored({
      postgresUrl: stack.postgres.url,
      journal,
      since,
      replay: options.replay,
      patienceMs: HISTORY_PATIENCE_MS,
    });
    probe.close();
    await close();
    const nothing = count.acknowledged === 0 && (options.devices > 0 || options.replay !== null);
    if (nothing) console.error('nothing was acknowledged: this run shows nothing');
    const summary = {
      published: journal.published,
      ...count,
      pushed: probe.pushed,
      latency_ms: probe.total(),
    };
    say(JSON.stringify(summary));
    return trouble || nothing || count.missing > 0 || count.duplicates > 0 ? 1 : 0;
  } catch (error) {
    await close();
    throw error;
  }
}

/** Read before anything starts; null when it can be replayed. */
async function recordingProblem(file: string): Promise<string | null> {
  let text: string;
  try {
    text = await readFile(resolve(file), 'utf8');
  } catch {
    return `--replay ${file}: there is no such file, or it cannot be read`;
  }
  try {
    parseRecording(text);
    return null;
  } catch (error) {
    return `${file}: ${(error as Error).message}`;
  }
}

const partsOf = (stack: Stack) => [
  stack.nats,
  stack.redis,
  stack.postgres,
  ...[...stack.brokers.values()].map(broker => broker.server),
  stack.cloud,
  ...stack.gateways.values(),
];

/** So that there is an alert to see: the oven gets too hot every other minute. */
async function seedRule(postgresUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: postgresUrl });
  // A connection that breaks rejects the query below; the event alone must not end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query(
      `insert into holdfast.rule (id, metric, comparison, threshold, hysteresis, severity, device)
       values ('oven-too-hot', 'temperature', 'above', 31, 1, 'warning', 'oven-1') on conflict do nothing`,
    );
  } finally {
    await client.end().catch(() => undefined);
  }
}

function invite(options: DemoArguments, stack: Stack, tools: ReadonlyMap<Tool, string>): void {
  const [first] = demoSites;
  const broker = stack.brokers.get(first)!;
  const here = (tool: Tool) => relative(process.cwd(), tools.get(tool) ?? '') || tool;
  say(`\n  Dashboard   ${stack.url}/`);
  say(
    `  History     ${here('psql')} ${stack.postgres.url} -c 'select * from holdfast.reading order by time desc limit 10'`,
  );
  say(`  Live state  ${here('redis-cli')} -u ${stack.redis.url} zrange '{${first}}:twins' 0 9`);
  say(`  NATS        ${stack.nats.url}`);
  for (const [site, { deviceUrl }] of stack.brokers) say(`  MQTT ${site.padEnd(6)} ${deviceUrl}`);
  const publish = (program: string, host: string) =>
    `${program} -h ${host} -p ${broker.server.port} -u ${broker.user} -P ${broker.password} ` +
    `-t devices/x/telemetry -m '{"temperature":21}' -q 1`;
  if (!broker.server.external) {
    say(`\n  Publish something yourself:\n  ${publish(here('mosquitto_pub'), '127.0.0.1')}`);
    for (const address of options.lan ? networkAddresses() : []) {
      say(`  From another machine:\n  ${publish('mosquitto_pub', address)}`);
    }
  }
  say(options.forMs === null ? '\n  Ctrl-C stops everything.\n' : '');
}

const networkAddresses = (): string[] =>
  Object.values(networkInterfaces())
    .flatMap(addresses => addresses ?? [])
    .filter(address => address.family === 'IPv4' && !address.internal)
    .map(address => address.address);

async function statusLine(stack: Stack, probe: Probe, progress: FleetProgress): Promise<string> {
  const health = (await (await fetch(`${stack.url}/health`)).json()) as {
    status: string;
    reasons: string[];
    messagesPerSecond: number;
    lagMs: number;
    historyQueue: { batches: number };
  };
  const { p50, p99 } = probe.latest();
  const ms = (value: number | null) => (value === null ? '–' : `${Math.round(value)} ms`);
  const { replay } = progress;
  return [
    `${Math.round(health.messagesPerSecond)} messages/s`,
    `lag ${ms(health.lagMs)}`,
    `device to dashboard p50 ${ms(p50)}, p99 ${ms(p99)}`,
    `published ${progress.published}, acknowledged ${progress.acknowledged}`,
    ...(replay ? [`replayed ${replay.done} of ${replay.of}`] : []),
    ...(health.status === 'ok' ? [] : [health.reasons.join('; ')]),
  ].join(' · ');
}

/** @returns what went wrong, or null. */
async function statusUntil(
  ended: Promise<string | null>,
  line: () => Promise<string>,
): Promise<string | null> {
  let over = false;
  void ended.then(() => {
    over = true;
  });
  while (!over) {
    await Promise.race([ended, sleep(STATUS_MS)]);
    if (over) break;
    say(await line().catch(error => `no status: ${(error as Error).message}`));
  }
  return ended;
}

// Whoever read our output may be gone with the terminal: no reason not to drain.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const parsed = readDemoArguments(process.argv.slice(2));
if (!parsed.ok) {
  if (parsed.problem) console.error(`${parsed.problem}\n`);
  console.log(HELP);
  process.exit(parsed.problem ? 2 : 0);
}
process.exit(await demo(parsed.value));
