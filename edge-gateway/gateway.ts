/**
 * An edge gateway, put together: disk buffer, intake, uplink. Whoever runs it (`main.ts`) brings the configuration and
 * says when to stop.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { GatewayReport } from '../protocol/handshake.ts';
import type { GatewayConfig } from './config.ts';
import { startIntake } from './intake.ts';
import { openLinkAccount } from './link-account.ts';
import { bootId } from './log/boot-id.ts';
import { compactHere } from './log/compaction-job.ts';
import { startCompactor } from './log/compactor.ts';
import { type DiskBuffer, type FileOperations, openDiskBuffer } from './log/disk-buffer.ts';
import { compileFacts, compileMapping } from './mapping/compile.ts';
import { inDataFolder, type MappingConfig } from './mapping/mapping-file.ts';
import { observerFor } from './mapping/sparkplug/observer.ts';
import { startOutlook } from './outlook.ts';
import { newRedelivery } from './redelivery.ts';
import type { GatewayState } from './status/state.ts';
import { routeTopic } from './topics.ts';
import { startUplink } from './uplink.ts';
import type { Signs } from './vitals.ts';

export interface Gateway {
  report(): GatewayReport;
  /** What the gateway knows of itself; the process adds the rest. */
  state(): Omit<GatewayState, 'pid' | 'startedAt' | 'now' | 'residentBytes' | 'troubles'>;
  signs(): Signs;
  /** What is exported counts as sent: {@link DiskBuffer.markSent}. */
  markSent: DiskBuffer['markSent'];
  /** Takes no more, sends what it has for a while, and closes. */
  close(): Promise<void>;
}

export type StartOutcome =
  | { readonly outcome: 'started'; readonly gateway: Gateway }
  | { readonly outcome: 'refused'; readonly reason: string };

/** Kinds that are gathered for less long on a metered link. */
const URGENT: ReadonlySet<string> = new Set(['event', 'status']);
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
  const mapping = inDataFolder(options.mapping, config.dataDirectory);
  const facts = compileFacts(mapping);
  const logDirectory = join(config.dataDirectory, 'log');
  const opened = await openDiskBuffer({
    directory: logDirectory,
    bytesMax: config.bufferBytesMax,
    bootId: bootId(),
    compaction: {
      // What stands for the file system is known to this thread alone.
      compactor: options.files
        ? compactHere(options.files, compileMapping(mapping))
        : startCompactor(mapping),
      keepMessages: REDELIVERY_WINDOW,
      nearFull: config.bufferNearFull,
    },
    logger,
    ...(options.files && { files: options.files }),
  });
  if (opened.outcome === 'unusable') {
    const reason = `the disk buffer cannot be used: ${opened.reason}; set HOLDFAST_DATA_DIR to a folder this user may write`;
    return { outcome: 'refused', reason };
  }
  const { buffer } = opened;

  const redelivery = newRedelivery({
    receiveMaximum: config.receiveMaximum,
    window: REDELIVERY_WINDOW,
    hasOwnTime: facts.hasOwnTime,
  });
  const recent = await buffer.recentFrames(REDELIVERY_WINDOW);
  for (const frame of recent) redelivery.remember(frame);
  const sparkplug = await observerFor(mapping, {
    recent,
    logger,
    ...(options.files && { files: options.files }),
  });

  const account = openLinkAccount({
    terms: config.link,
    directory: config.dataDirectory,
    flushIntervalMs: config.flushIntervalMs,
    logger,
  });
  const intake = startIntake({
    config,
    buffer: account.metered ? tellOfEvents(buffer, () => uplink.eventWaits()) : buffer,
    redelivery,
    mapping,
    facts,
    sparkplug,
    logger,
  });
  const uplink = startUplink({
    config,
    buffer,
    mapping: compileMapping(mapping),
    account,
    // Of a shared subscription each gateway hears a part: what it does not hear says nothing.
    hearing: () => ({
      hears: intake.broker.connected && intake.role === 'active' && !config.shareGroup,
      coversSite: intake.role === 'active' && Boolean(config.standbyGroup),
    }),
    report,
    logger,
  });
  const outlook = startOutlook({ directory: logDirectory, buffer, uplink, account });

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
      ...outlook.now(),
      thinnedMessages: stats.messagesThinned,
      lostMessages: stats.messagesLost,
      dataBudget: account.dataBudget,
      role: intake.role,
    };
  }

  return {
    outcome: 'started',
    gateway: {
      report,
      state() {
        const { bytes: _, bytesMax: __, ...disk } = buffer.stats();
        const { turnAt: ___, ...link } = uplink.state();
        return {
          site: config.site,
          gateway: config.gateway,
          report: report(),
          disk,
          link: { ...link, wireBytes: account.bytes, allowance: account.now() },
        };
      },
      signs() {
        const { messagesPending, fsyncs, writeErrors } = buffer.stats();
        const { turnAt } = uplink.state();
        return {
          at: performance.now(),
          messagesPending,
          diskAnswers: fsyncs + writeErrors,
          uplinkTurnAt: turnAt,
        };
      },
      markSent: buffer.markSent,
      async close() {
        await intake.close();
        await sparkplug?.close();
        await uplink.close(SEND_ON_EXIT_MS);
        outlook.close();
        await account.close();
        await buffer.close();
      },
    },
  };
}

/** The same buffer, which says so when an event has become durable. Only the common topics say that without decoding. */
function tellOfEvents(buffer: DiskBuffer, eventWaits: () => void): DiskBuffer {
  return {
    ...buffer,
    append(message, onDurable) {
      const routed = routeTopic(message.topic);
      if (!routed.ok || !URGENT.has(routed.route.kind)) return buffer.append(message, onDurable);
      return buffer.append(message, () => {
        eventWaits();
        onDurable();
      });
    },
  };
}
