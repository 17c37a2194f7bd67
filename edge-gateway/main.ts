/**
 * The edge gateway's process: broker → disk → cloud, and what it tells of itself on the box. SIGTERM takes no more, sends
 * what it has, and ends.
 */
import pino from 'pino';
import { readGatewayConfig } from './config.ts';
import { startGateway } from './gateway.ts';
import { loadMappingFile, NO_MAPPING } from './mapping/mapping-file.ts';
import { startStatusServer } from './status/server.ts';
import { attention, type GatewayState } from './status/state.ts';
import { newTroubleMemory } from './status/trouble-memory.ts';
import { openServiceManager } from './systemd.ts';
import { examine, NEWBORN } from './vitals.ts';

const configured = readGatewayConfig(process.env);
if (!configured.ok) {
  for (const problem of configured.problems) console.error(`configuration: ${problem}`);
  process.exit(2);
}
const { config } = configured;
const mapped =
  config.mappingFile === null
    ? { ok: true as const, config: NO_MAPPING }
    : loadMappingFile(config.mappingFile);
if (!mapped.ok) {
  for (const problem of mapped.problems) console.error(`mapping: ${problem}`);
  process.exit(2);
}
const startedAt = Date.now();
const troubles = newTroubleMemory();
const logger = pino({
  level: config.logLevel,
  base: { site: config.site, gateway: config.gateway },
  hooks: troubles.hooks,
});

const started = await startGateway({ config, mapping: mapped.config, logger });
if (started.outcome === 'refused') {
  logger.fatal({ reason: started.reason }, 'the gateway cannot start');
  process.exit(1);
}
const { gateway } = started;
const state = (): GatewayState => ({
  ...gateway.state(),
  pid: process.pid,
  startedAt,
  now: Date.now(),
  residentBytes: process.memoryUsage.rss(),
  troubles: troubles.newest(),
});
const { dataDirectory, metricsPort } = config;
const statusServer = await startStatusServer({
  dataDirectory,
  metricsPort,
  state,
  markSent: gateway.markSent,
  logger,
});
let vitals = NEWBORN;
const serviceManager = openServiceManager({
  environment: process.env,
  status: () => attention(state())[0] ?? 'all is well',
  stuck(patienceMs) {
    vitals = examine(vitals, gateway.signs(), patienceMs);
    return vitals.stuck;
  },
  logger,
});
await serviceManager.ready('started');
process.send?.({ type: 'ready' });

let stopping = false;
async function stop(signal: string): Promise<void> {
  if (stopping) return;
  stopping = true;
  logger.info({ signal }, 'draining');
  await serviceManager.stopping();
  await statusServer.close();
  await gateway.close();
}
const stopOn = (signal: string) => {
  stop(signal).then(
    () => process.exit(0),
    error => {
      logger.error({ err: error }, 'not stopped cleanly');
      process.exit(1);
    },
  );
};
process.on('SIGTERM', () => stopOn('SIGTERM'));
process.on('SIGINT', () => stopOn('SIGINT'));
process.on('disconnect', () => stopOn('the parent process is gone'));
