/**
 * Keeps the account of a link: what it carried in this period (measured on its sockets, kept over restarts), what may be
 * sent now (`link-budget.ts`), and when a rate limit lets the next batch go.
 *
 * The count is kept in `link-usage.json`. It is written when it has grown by a hundredth of the budget, after a quarter of
 * an hour, and at the end, so a kill or a power cut forgets less than that, and a lost file a period's count at most. It is
 * never fdatasynced: only money is at stake, and flash is worn by every write.
 */
import { readFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { GatewayReport } from '../protocol/handshake.ts';
import {
  type Allowance,
  allowanceNow,
  BATCH_OVERHEAD_BYTES,
  PING_MS,
  periodOf,
  type Usage,
  usageNow,
} from './link-budget.ts';
import { newLinkMeter } from './link-meter.ts';
import type { LinkTerms } from './link-terms.ts';

export interface LinkAccount {
  readonly metered: boolean;
  /** Between the pings that keep up the connection. */
  readonly pingMs: number;
  /** On the wire both ways since start; null on a link without a budget, which is not measured. */
  readonly bytes: number | null;
  readonly dataBudget: GatewayReport['dataBudget'];
  /** What may be sent now, but for the rate limit. */
  now(): Allowance;
  /** Until the rate limit lets the next batch go; 0: now. */
  dueInMs(): number;
  /** Messages that one batch may have so that it does not fill a slow link for long. */
  messagesMax(wireBytesPerMessage: number): number;
  /** A batch of that many bytes is on its way. @returns what to call when it was answered, or given up */
  publishing(batchBytes: number, live: boolean): () => void;
  /** Bytes of a hello and its answer. */
  greeted(bytes: number): void;
  /** Counts the sockets that are opened by `open`, and those that follow from them. */
  measure<T>(open: () => T): T;
  close(): Promise<void>;
}

export const USAGE_FILE = 'link-usage.json';
const SAVE_SHARE = 0.01;
const SAVE_MS = 15 * 60_000;
const LOOK_MS = 5000;
/** A hello and its answer, before one was seen. */
const HELLO_BYTES = 2000;
/** Under a rate limit a batch takes about so long at most, which is how late live data may be for it. */
const BATCH_MS_MAX = 2000;
const BATCH_MESSAGES_MIN = 20;

const UsageFile = z.object({ startsAt: z.number(), bytes: z.number().nonnegative() });

export function openLinkAccount(options: {
  terms: LinkTerms;
  directory: string;
  flushIntervalMs: number;
  logger: Logger;
  nowMs?: () => number;
}): LinkAccount {
  const { terms, logger } = options;
  const nowMs = options.nowMs ?? Date.now;
  const path = join(options.directory, USAGE_FILE);
  // Following what a call leads to makes every promise of the process dearer: only where it is needed.
  const meter = terms.budget ? newLinkMeter() : null;
  let usage: Usage | null = terms.budget ? readUsage(path) : null;
  let counted = 0;
  let saved = { bytes: usage?.bytes ?? 0, at: performance.now() };
  let saving: Promise<void> = Promise.resolve();
  let inFlightBytes = 0;
  let liveBatchBytes = BATCH_OVERHEAD_BYTES;
  let helloBytes = HELLO_BYTES;
  let freeAt = 0;

  const timer = setInterval(() => {
    count();
    saveWhenDue();
  }, LOOK_MS);
  timer.unref();

  function count(): void {
    if (!terms.budget || !meter) return;
    usage = usageNow(usage, terms.budget, nowMs());
    const { bytes } = meter;
    usage = { ...usage, bytes: usage.bytes + bytes - counted };
    counted = bytes;
  }

  function saveWhenDue(): void {
    if (!terms.budget || !usage || usage.bytes === saved.bytes) return;
    const grown = Math.abs(usage.bytes - saved.bytes) >= terms.budget.bytesMax * SAVE_SHARE;
    if (grown || performance.now() - saved.at >= SAVE_MS) save(usage);
  }

  function save(now: Usage): void {
    saved = { bytes: now.bytes, at: performance.now() };
    saving = saving.then(async () => {
      try {
        await writeFile(`${path}.new`, JSON.stringify(now));
        await rename(`${path}.new`, path);
      } catch (error) {
        logger.warn({ err: error }, 'the count of the link budget could not be written');
      }
    });
  }

  return {
    metered: terms.budget !== null,
    pingMs: terms.budget ? PING_MS.metered : PING_MS.unmetered,
    get bytes() {
      return meter?.bytes ?? null;
    },
    get dataBudget() {
      count();
      if (!terms.budget || !usage) return null;
      const { endsAt } = periodOf(terms.budget.per, usage.startsAt);
      return { bytesMax: terms.budget.bytesMax, bytesUsed: usage.bytes, resetsAt: endsAt };
    },
    now() {
      count();
      const batchBytes = liveBatchBytes + BATCH_OVERHEAD_BYTES;
      const costs = { batchBytes, helloBytes, inFlightBytes };
      return allowanceNow(terms, usage, nowMs(), costs, options.flushIntervalMs);
    },
    dueInMs: () => Math.max(0, freeAt - performance.now()),
    messagesMax(wireBytesPerMessage) {
      if (terms.bytesPerSecond === null) return Number.POSITIVE_INFINITY;
      const bytesMax = (terms.bytesPerSecond * BATCH_MS_MAX) / 1000 - BATCH_OVERHEAD_BYTES;
      return Math.max(BATCH_MESSAGES_MIN, Math.floor(bytesMax / wireBytesPerMessage));
    },
    publishing(batchBytes, live) {
      const bytes = batchBytes + BATCH_OVERHEAD_BYTES;
      if (live) liveBatchBytes = batchBytes;
      if (terms.bytesPerSecond !== null) {
        const costMs = (bytes * 1000) / terms.bytesPerSecond;
        freeAt = Math.max(freeAt, performance.now()) + costMs;
      }
      inFlightBytes += bytes;
      return () => {
        inFlightBytes -= bytes;
      };
    },
    greeted(bytes) {
      helloBytes = bytes;
    },
    measure: open => (meter ? meter.measure(open) : open()),
    async close() {
      clearInterval(timer);
      count();
      if (usage && usage.bytes !== saved.bytes) save(usage);
      meter?.close();
      await saving;
    },
  };
}

/** @returns null when there is none, or it makes no sense: the period then starts at nothing. */
function readUsage(path: string): Usage | null {
  try {
    return UsageFile.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return null;
  }
}
