/**
 * `npm start`: the whole product on this machine, with a simulated fleet, until Ctrl-C or for a given time.
 *
 *   find servers ─▶ start stack ─▶ fleet, probe ─▶ status lines ─▶ fleet ends ─▶ count ─▶ drain ─▶ summary
 */
import { access, constants, rm } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { defaultCacheDirectory, findBinaries } from '../local/find-servers.ts';
import { type NodeProcess, nodeProcess } from '../local/node-process.ts';
import { isFree } from '../local/ports.ts';
import { serverNames } from '../local/server.ts';
import { type Stack, startStack } from '../local/stack.ts';
import { standIn } from '../local/unprivileged.ts';
import { type DemoArguments, demoSites, HELP, readDemoArguments } from './arguments.ts';
import type { FleetJournal, FleetPlan, FleetProgress } from './fleet.ts';
import { type Probe, startProbe } from './probe.ts';
import { type Tool, writeTools } from './tools.ts';
import { verifyStored } from './verify.ts';

const DATA_DIRECTORY = fileURLToPath(new URL('../../.holdfast/data', import.meta.url));
const TOOLS_DIRECTORY = fileURLToPath(new URL('../../.holdfast/tools', import.meta.url));
const USUAL_PORT = 8080;
const STATUS_MS = 5000;
const DEVICE_INTERVAL_MS = 1000;
const HISTORY_PATIENCE_MS = 30_000;

const say = (line: string) => console.log(line);

async function demo(options: DemoArguments): Promise<number> {
  const end = endSignal(options.forMs);
  let stack: Stack;
  let tools: Map<Tool, string>;
  try {
    ({ stack, tools } = await bringUp(options));
  } catch (error) {
    console.error(`\n${(error as Error).message}`);
    return 1;
  }
  for (const part of partsOf(stack)) {
    part.onUnexpectedExit(reason =>
      end.now(`${part.name} ${reason}\n${part.output().split('\n').slice(-5).join('\n')}`),
    );
  }
  try {
    await seedRule(stack.postgres.url);
    const since = Date.now();
    const fleet = fleetProcess(options, stack);
    let progress: FleetProgress = { type: 'progress', published: 0, acknowledged: 0, replay: null };
    fleet.onMessage(message => {
      if (message.type === 'progress') progress = message as unknown as FleetProgress;
    });
    await fleet.start();
    fleet.onUnexpectedExit(reason => end.now(`the fleet ${reason}\n${fleet.output()}`));
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
    await stack.close();
    const summary = {
      published: journal.published,
      ...count,
      pushed: probe.pushed,
      latency_ms: probe.total(),
    };
    say(JSON.stringify(summary));
    return trouble || count.missing > 0 || count.duplicates > 0 ? 1 : 0;
  } catch (error) {
    console.error(`\n${(error as Error).message}`);
    await stack.close();
    return 1;
  }
}

async function bringUp(options: DemoArguments): Promise<{ stack: Stack; tools: Map<Tool, string> }> {
  if (options.replay) {
    await access(resolve(options.replay.file), constants.R_OK).catch(() => {
      throw new Error(`--replay ${options.replay!.file}: there is no such file, or it cannot be read`);
    });
  }
  if (options.fresh) {
    say('forgetting the data of earlier runs');
    // PostgreSQL's data is elsewhere where its user cannot reach this folder.
    for (const folder of [DATA_DIRECTORY, standIn(join(DATA_DIRECTORY, 'postgres'))]) {
      await rm(folder, { recursive: true, force: true });
    }
  }
  const [first, second] = demoSites;
  const env = process.env;
  const brokers = {
    [first]: env.HOLDFAST_MQTT_URL,
    [second]: env[`HOLDFAST_MQTT_URL_${second.toUpperCase()}`],
  };
  const given = {
    mosquitto: brokers[first] && brokers[second],
    nats: env.HOLDFAST_NATS_URL,
    redis: env.HOLDFAST_REDIS_URL,
    postgres: env.HOLDFAST_POSTGRES_URL,
  };
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: say,
    need: serverNames.filter(name => !given[name]),
  });
  const tools = await writeTools(binaries, TOOLS_DIRECTORY);
  const port = options.port ?? ((await isFree(USUAL_PORT)) ? USUAL_PORT : 0);
  if (options.port === null && port === 0) say(`port ${USUAL_PORT} is taken, the dashboard gets a free one`);
  const stack = await startStack({
    directory: DATA_DIRECTORY,
    binaries,
    report: say,
    sites: [
      { site: first, gateways: ['gateway-1'] },
      { site: second, gateways: ['gateway-1'] },
    ],
    urls: {
      ...(given.nats && { nats: given.nats }),
      ...(given.redis && { redis: given.redis }),
      ...(given.postgres && { postgres: given.postgres }),
      brokers: Object.fromEntries(
        Object.entries(brokers).filter((entry): entry is [string, string] => !!entry[1]),
      ),
    },
    ...(options.lan && { openToNetwork: { site: first } }),
    httpPort: port,
  });
  return { stack, tools };
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
  await client.connect();
  await client.query(
    `insert into holdfast.rule (id, metric, comparison, threshold, hysteresis, severity, device)
     values ('oven-too-hot', 'temperature', 'above', 31, 1, 'warning', 'oven-1') on conflict do nothing`,
  );
  await client.end();
}

function fleetProcess(options: DemoArguments, stack: Stack): NodeProcess {
  const { replay } = options;
  const perSite = Math.floor(options.devices / demoSites.length);
  const plan: FleetPlan = {
    sites: demoSites.map((site, index) => ({
      site,
      url: stack.brokers.get(site)!.deviceUrl,
      devices: perSite + (index === 0 ? options.devices % demoSites.length : 0),
    })),
    intervalMs: DEVICE_INTERVAL_MS,
    replay: replay && {
      file: resolve(replay.file),
      url: stack.brokers.get(replay.site)!.deviceUrl,
      device: replay.device,
      metric: replay.metric,
      speed: replay.speed,
    },
  };
  return nodeProcess({
    name: 'fleet',
    entry: new URL('./fleet.ts', import.meta.url),
    env: { HOLDFAST_DEMO_FLEET: JSON.stringify(plan) },
  });
}

function finish(fleet: NodeProcess): Promise<FleetJournal> {
  return new Promise((resolve, reject) => {
    fleet.onMessage(message => {
      if (message.type === 'journal') resolve(message as unknown as FleetJournal);
    });
    fleet.onUnexpectedExit(reason =>
      reject(new Error(`the fleet ${reason} before it told what was acknowledged`)),
    );
    fleet.send({ type: 'finish' });
  });
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

/** Resolves with null at the end of the time or on Ctrl-C, with a reason when a part died. A second Ctrl-C ends at once. */
function endSignal(forMs: number | null): { ended: Promise<string | null>; now: (reason: string) => void } {
  const { promise, resolve } = Promise.withResolvers<string | null>();
  if (forMs !== null) setTimeout(() => resolve(null), forMs);
  let asked = 0;
  const onSignal = () => {
    asked++;
    if (asked > 1) process.exit(130);
    resolve(null);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return { ended: promise, now: resolve };
}

const parsed = readDemoArguments(process.argv.slice(2));
if (!parsed.ok) {
  if (parsed.problem) console.error(`${parsed.problem}\n`);
  console.log(HELP);
  process.exit(parsed.problem ? 2 : 0);
}
process.exit(await demo(parsed.value));
