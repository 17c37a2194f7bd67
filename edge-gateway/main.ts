/** The edge gateway's process: broker → disk → cloud. SIGTERM takes no more, sends what it has, and ends. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pino from 'pino';
import { readGatewayConfig } from './config.ts';
import { startIntake } from './intake.ts';
import { openDiskBuffer } from './log/disk-buffer.ts';
import { compileMapping } from './mapping/compile.ts';
import { loadMappingFile, NO_MAPPING } from './mapping/mapping-file.ts';
import { newRedelivery } from './redelivery.ts';
import { startUplink } from './uplink.ts';

const SEND_ON_EXIT_MS = 3000;
/** Contents remembered to recognise a device's own retries; some 10 MB. */
const REDELIVERY_WINDOW = 32_768;

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
const logger = pino({ level: config.logLevel, base: { site: config.site, gateway: config.gateway } });

const opened = await openDiskBuffer({
  directory: join(config.dataDirectory, 'log'),
  bytesMax: config.bufferBytesMax,
  bootId: bootId(),
  logger,
});
if (opened.outcome === 'unusable') {
  logger.fatal(
    { reason: opened.reason },
    'the disk buffer cannot be used; set HOLDFAST_DATA_DIR to a folder this user may write',
  );
  process.exit(1);
}
const { buffer } = opened;

const redelivery = newRedelivery({ receiveMaximum: config.receiveMaximum, window: REDELIVERY_WINDOW });
for (const frame of await buffer.recentFrames(REDELIVERY_WINDOW)) redelivery.remember(frame);

const intake = startIntake({ config, buffer, redelivery, logger });
const uplink = startUplink({
  config,
  buffer,
  mapping: compileMapping(mapped.config),
  logger,
  report() {
    const stats = buffer.stats();
    return {
      bufferBytes: stats.bytes,
      bufferBytesMax: stats.bytesMax,
      unsettledMessages: stats.messagesUnsettled,
      messages: stats.messagesAppended,
      dropped: intake.dropped,
      syncMs: stats.fsyncMs.p99,
      broker: intake.broker,
    };
  },
});
process.send?.({ type: 'ready' });

let stopping = false;
async function stop(signal: string): Promise<void> {
  if (stopping) return;
  stopping = true;
  logger.info({ signal }, 'draining');
  await intake.close();
  await uplink.close(SEND_ON_EXIT_MS);
  await buffer.close();
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

/** Changes with every boot of the machine; monotonic times count from there. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return `process-${process.pid}-${Date.now()}`;
  }
}
