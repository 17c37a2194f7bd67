/**
 * An edge gateway, put together: disk buffer, intake, uplink. Whoever runs it (`main.ts`) brings the configuration and
 * says when to stop.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { GatewayReport } from '../protocol/handshake.ts';
import type { GatewayConfig } from './config.ts';
import { startIntake } from './intake.ts';
import { type FileOperations, openDiskBuffer } from './log/disk-buffer.ts';
import { compileMapping } from './mapping/compile.ts';
import type { MappingConfig } from './mapping/mapping-file.ts';
import { newRedelivery } from './redelivery.ts';
import { startUplink } from './uplink.ts';

export interface Gateway {
  report(): GatewayReport;
  /** Takes no more, sends what it has for a while, and closes. */
  close(): Promise<void>;
}

export type StartOutcome =
  | { readonly outcome: 'started'; readonly gateway: Gateway }
  | { readonly outcome: 'refused'; readonly reason: string };

const SEND_ON_EXIT_MS = 3000;
/** Contents remembered to recognise a device's own retries; some 10 MB. */
const REDELIVERY_WINDOW = 32_768;

export async function startGateway(options: {
  config: GatewayConfig;
  mapping: MappingConfig;
  logger: Logger;
  /** What stands for the file system; the real one by default. */
  files?: FileOperations;
}): Promise<StartOutcome> {
  const { config, logger } = options;
  const opened = await openDiskBuffer({
    directory: join(config.dataDirectory, 'log'),
    bytesMax: config.bufferBytesMax,
    bootId: bootId(),
    logger,
    ...(options.files && { files: options.files }),
  });
  if (opened.outcome === 'unusable') {
    const reason = `the disk buffer cannot be used: ${opened.reason}; set HOLDFAST_DATA_DIR to a folder this user may write`;
    return { outcome: 'refused', reason };
  }
  const { buffer } = opened;

  const redelivery = newRedelivery({ receiveMaximum: config.receiveMaximum, window: REDELIVERY_WINDOW });
  for (const frame of await buffer.recentFrames(REDELIVERY_WINDOW)) redelivery.remember(frame);

  const intake = startIntake({ config, buffer, redelivery, logger });
  const uplink = startUplink({ config, buffer, mapping: compileMapping(options.mapping), logger, report });

  function report(): GatewayReport {
    const stats = buffer.stats();
    return {
      bufferBytes: stats.bytes,
      bufferBytesMax: stats.bytesMax,
      unsettledMessages: stats.messagesUnsettled,
      messages: stats.messagesAppended,
      dropped: intake.dropped,
      syncMs: stats.fsyncMs.p99,
      broker: intake.broker,
      oldestUnsettledAt: null,
      wireBytesLeft: 0,
      forecast: { fullInSeconds: null, drainedInSeconds: null },
      thinnedMessages: 0,
      lostMessages: stats.messagesLost,
      dataBudget: null,
      role: 'active',
    };
  }

  return {
    outcome: 'started',
    gateway: {
      report,
      async close() {
        await intake.close();
        await uplink.close(SEND_ON_EXIT_MS);
        await buffer.close();
      },
    },
  };
}

/** Changes with every boot of the machine; monotonic times count from there. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return `process-${process.pid}-${Date.now()}`;
  }
}
