/** The cloud node's process: configuration in, a running node, SIGTERM drains it. */
import pino from 'pino';
import { readCloudConfig } from './config.ts';
import { startCloudNode } from './node.ts';

const configured = readCloudConfig(process.env);
if (!configured.ok) {
  for (const problem of configured.problems) console.error(`configuration: ${problem}`);
  process.exit(2);
}
const { config } = configured;
const logger = pino({ level: config.logLevel, base: { node: config.node } });

const started = await startCloudNode(config, logger, (reason, exitCode) => {
  logger.fatal({ reason }, 'this node stops writing and ends');
  process.exit(exitCode);
  // A server that went away while it was starting.
}).catch(error => ({ outcome: 'refused' as const, reason: (error as Error).message }));
if (started.outcome === 'refused') {
  logger.fatal({ reason: started.reason }, 'the cloud node cannot start');
  process.exit(1);
}
process.send?.({ type: 'ready', port: started.node.port });

let stopping = false;
const stop = (signal: string) => {
  if (stopping) return;
  stopping = true;
  logger.info({ signal }, 'draining');
  started.node.close().then(
    () => process.exit(0),
    error => {
      logger.error({ err: error }, 'not drained cleanly');
      process.exit(1);
    },
  );
};
process.on('SIGTERM', () => stop('SIGTERM'));
process.on('SIGINT', () => stop('SIGINT'));
process.on('disconnect', () => stop('the parent process is gone'));
