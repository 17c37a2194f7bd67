/** What a gateway tells about itself on the box, and what of it somebody should look at. Pure. */
import type { GatewayReport } from '../../protocol/handshake.ts';
import type { Allowance } from '../link-budget.ts';
import type { BufferStats } from '../log/disk-buffer.ts';
import type { UplinkState } from '../uplink.ts';

export interface Trouble {
  /** Wall clock, milliseconds. */
  readonly at: number;
  readonly level: 'warn' | 'error' | 'fatal';
  readonly text: string;
}

/** Times are milliseconds since 1970 by the box's clock. */
export interface GatewayState {
  readonly site: string;
  readonly gateway: string;
  readonly pid: number;
  readonly startedAt: number;
  readonly now: number;
  /** Memory of the process, all of it. */
  readonly residentBytes: number;
  readonly report: GatewayReport;
  readonly disk: Pick<BufferStats, 'full' | 'logs' | 'segments' | 'fsyncs' | 'fsyncMs' | 'writeErrors'>;
  readonly link: Omit<UplinkState, 'turnAt'> & {
    /** On the wire both ways since start, as its sockets tell; null on a link without a budget. */
    readonly wireBytes: number | null;
    readonly allowance: Allowance;
  };
  /** The newest warnings and errors, oldest first. */
  readonly troubles: readonly Trouble[];
}

const SOON_FULL_SECONDS = 24 * 3600;
const OLD_TROUBLE_MS = 10 * 60_000;

/** What somebody should look at, each as a sentence; [] when all is well. */
export function attention({ report, disk, link, troubles, now }: GatewayState): string[] {
  const { broker, forecast, dataBudget } = report;
  const standby = report.role === 'standby';
  return [
    !broker.connected && !standby && `The broker is not connected: ${broker.reason ?? 'no reason known'}.`,
    !link.connected && `The cloud is not reached: ${link.reason ?? 'no answer to the hello yet'}.`,
    disk.full && 'The buffer is full: the broker holds what comes in.',
    !disk.full &&
      forecast.fullInSeconds !== null &&
      forecast.fullInSeconds < SOON_FULL_SECONDS &&
      'The buffer will be full within a day.',
    link.allowance.exhausted &&
      dataBudget !== null &&
      `The data budget is used up: all waits until ${new Date(dataBudget.resetsAt).toLocaleString('sv')}.`,
    report.lostMessages > 0 && `${report.lostMessages} messages cannot be read any more.`,
    report.dropped > 0 && `${report.dropped} messages of QoS 0 were dropped because the buffer was full.`,
    troubles.some(({ at, level }) => level !== 'warn' && at > now - OLD_TROUBLE_MS) &&
      'There were errors in the last ten minutes.',
  ].filter(sentence => typeof sentence === 'string');
}
