/** The sending half of a gateway, disk buffer and uplink, without a broker: messages of the standard fleet are put on its disk. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { openLinkAccount } from '../../edge-gateway/link-account.ts';
import type { LinkTerms } from '../../edge-gateway/link-terms.ts';
import { openDiskBuffer } from '../../edge-gateway/log/disk-buffer.ts';
import { compileMapping } from '../../edge-gateway/mapping/compile.ts';
import { NO_MAPPING } from '../../edge-gateway/mapping/mapping-file.ts';
import { startUplink } from '../../edge-gateway/uplink.ts';
import type { GatewayReport } from '../../protocol/handshake.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';
import { standardFleet } from '../bench/standard-fleet.ts';
import type { SmallCloud } from './small-cloud.ts';

export const logger = pino({ level: 'silent' });
export const FLUSH_MS = 5;

export interface SendingSite {
  readonly messages: number;
  readonly link: ReturnType<typeof openLinkAccount>;
  readonly uplink: ReturnType<typeof startUplink>;
  readonly directory: string;
  /** Puts messages of the standard fleet on disk; resolves when they are durable. */
  take(count: number): Promise<void>;
  settled(): number;
  close(): Promise<void>;
}

export async function openSendingSite(
  t: TestContext,
  cloud: SmallCloud,
  terms: LinkTerms,
  nowMs?: () => number,
  /** Puts something there before the buffer is opened. */
  prepare?: (logDirectory: string) => Promise<void>,
): Promise<SendingSite> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-metered-'));
  await prepare?.(join(directory, 'log'));
  const opened = await openDiskBuffer({
    directory: join(directory, 'log'),
    bytesMax: 64 * 1024 * 1024,
    bootId: 'test',
    logger,
  });
  assert.ok(opened.outcome === 'open');
  const { buffer } = opened;
  const link = openLinkAccount({
    terms,
    directory,
    flushIntervalMs: FLUSH_MS,
    logger,
    ...(nowMs && { nowMs }),
  });
  const uplink = startUplink({
    config: {
      site: siteId('demo'),
      gateway: gatewayId('gw-1'),
      natsUrl: cloud.natsUrl,
      batchMessagesMax: 2000,
      flushIntervalMs: FLUSH_MS,
    },
    buffer,
    mapping: compileMapping(NO_MAPPING),
    account: link,
    hearing: () => ({ hears: true, coversSite: false }),
    report: () => ({ dataBudget: link.dataBudget }) as GatewayReport,
    logger,
  });
  const fleet = standardFleet({ sites: 1, devices: 100 });
  let messages = 0;
  let closed = false;
  async function close() {
    if (closed) return;
    closed = true;
    await uplink.close(100);
    await link.close();
    await buffer.close();
  }
  t.after(async () => {
    await close();
    await rm(directory, { recursive: true, force: true });
  });
  return {
    get messages() {
      return messages;
    },
    link,
    uplink,
    directory,
    take: count =>
      new Promise(resolve => {
        let durable = 0;
        for (let i = 0; i < count; i++) {
          const { topic, payload } = fleet.next().value;
          const bytes = Buffer.from(payload);
          messages++;
          const accepted = buffer.append(
            {
              receivedAt: Date.now(),
              monotonicMs: performance.now(),
              qos: 1,
              retain: false,
              duplicate: false,
              packetId: 1,
              topic,
              payload: bytes,
              payloadBytes: bytes.length,
            },
            () => ++durable === count && resolve(),
          );
          assert.equal(accepted, 'accepted');
        }
      }),
    settled: () => cloud.settled.get(buffer.current)?.size ?? 0,
    close,
  };
}
