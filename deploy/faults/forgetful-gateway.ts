/**
 * The gateway on a disk that forgets: the product's own, configured by the same environment, with that file system
 * under its log. SIGKILL of this process is a power cut; told to "keep" before, it is a kill on a machine that lives on.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import pino from 'pino';
import { readGatewayConfig } from '../../edge-gateway/config.ts';
import { startGateway } from '../../edge-gateway/gateway.ts';
import { NO_MAPPING } from '../../edge-gateway/mapping/mapping-file.ts';
import { forgetfulFiles } from './forgetful-files.ts';
import { randomFrom } from './random.ts';

const configured = readGatewayConfig(process.env);
if (!configured.ok) {
  for (const problem of configured.problems) console.error(`configuration: ${problem}`);
  process.exit(2);
}
const { config } = configured;
const logger = pino({ level: config.logLevel, base: { site: config.site, gateway: config.gateway } });
const logDirectory = join(config.dataDirectory, 'log');
/** Every start draws other luck. */
const starts = existsSync(logDirectory) ? readdirSync(logDirectory).length : 0;
const random = randomFrom(Number(process.env.HOLDFAST_LAB_SEED ?? 0) + starts);
const files = await forgetfulFiles(logDirectory, random, Number(process.env.HOLDFAST_LAB_SYNC_MS ?? 0));

const started = await startGateway({ config, mapping: NO_MAPPING, logger, files });
if (started.outcome === 'refused') {
  logger.fatal({ reason: started.reason }, 'the gateway cannot start');
  process.exit(1);
}
const { gateway } = started;
process.on('message', message => {
  if ((message as { type?: string }).type !== 'keep') return;
  files.keep().then(
    () => process.send?.({ type: 'kept' }),
    error => logger.error({ err: error }, 'the disk that forgets failed'),
  );
});
process.send?.({ type: 'ready' });

let stopping = false;
async function stop(): Promise<void> {
  if (stopping) return;
  stopping = true;
  await gateway.close();
  // A machine that is not switched off writes everything back in the end.
  await files.keep();
}
const stopOn = () => {
  stop().then(
    () => process.exit(0),
    error => {
      logger.error({ err: error }, 'not stopped cleanly');
      process.exit(1);
    },
  );
};
process.on('SIGTERM', stopOn);
process.on('SIGINT', stopOn);
process.on('disconnect', stopOn);
