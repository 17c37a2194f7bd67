/**
 * Looks at the buffer every few seconds for the forecast (`forecast.ts`), and knows about when the oldest message arrived
 * that history has not settled. It reads no message for that, because one that was read counts as sent: of this run's log it
 * remembers when which sequence was reached, of older logs it takes the time in the header of the message's segment.
 */
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { GatewayReport } from '../protocol/handshake.ts';
import type { LogId } from '../protocol/ids.ts';
import { forecastOf, remember, type Sample, unsettledBytesOf } from './forecast.ts';
import type { LinkAccount } from './link-account.ts';
import type { DiskBuffer } from './log/disk-buffer.ts';
import { decodeHeader, parseSegmentName, SEGMENT_HEADER_BYTES } from './log/segment.ts';
import type { Uplink } from './uplink.ts';

export type Outlook = Pick<GatewayReport, 'oldestUnsettledAt' | 'wireBytesLeft' | 'forecast'>;

const LOOK_MS = 5000;
/** Moments remembered of this run; beyond it every other one is forgotten, so it grows coarse and never large. */
const MARKS_MAX = 2000;
/** Before the first batch nobody knows; the columns of a usual fleet take about a tenth of its frames. */
const WIRE_SHARE_OF_DISK = 0.1;
/** From arrival to the settled notice, while nothing is held up, besides what is gathered for. */
const UNDER_WAY_MS = 5000;

export function startOutlook(options: {
  /** The disk buffer's. */
  directory: string;
  buffer: DiskBuffer;
  uplink: Pick<Uplink, 'state'>;
  account: Pick<LinkAccount, 'now'>;
}): { now(): Outlook; close(): void } {
  const { buffer, uplink, account } = options;
  let samples: Sample[] = [];
  /** From `sequence` on messages arrived at `at` or later. */
  let marks: { readonly sequence: number; readonly at: number }[] = [];
  let oldest: { readonly segment: string; readonly at: number | null } = { segment: '', at: null };

  look();
  const timer = setInterval(look, LOOK_MS);
  timer.unref();

  function look(): void {
    const logs = buffer.logs();
    const { messagesUnsettled, messagesAppended } = buffer.stats();
    samples = remember(samples, {
      at: performance.now(),
      unsettledBytes: logs.reduce((sum, log) => sum + unsettledBytesOf(log), 0),
      unsettledMessages: messagesUnsettled,
      messages: messagesAppended,
    });
    const { nextSequence } = logs.at(-1)!;
    // Nothing came: what comes next arrives later.
    if (marks.at(-1)?.sequence === nextSequence) marks.pop();
    marks.push({ sequence: nextSequence, at: Date.now() });
    if (marks.length > MARKS_MAX) marks = marks.filter((_, index) => index % 2 === 0);
    void findOldest();
  }

  async function findOldest(): Promise<void> {
    const { oldest: found } = uplink.state();
    if (!found) oldest = { segment: '', at: null };
    else if (found.logId === buffer.current) {
      const mark = marks.findLast(({ sequence }) => sequence <= found.sequence) ?? marks[0]!;
      oldest = { segment: '', at: mark.at };
    } else {
      const segment = await segmentOf(found.logId, found.sequence);
      if (segment === oldest.segment) return;
      oldest = { segment, at: segment === '' ? null : await createdAt(segment) };
    }
  }

  /** @returns '' when it is gone */
  async function segmentOf(logId: LogId, sequence: number): Promise<string> {
    const folder = join(options.directory, logId);
    let best = { name: '', firstSequence: 0 };
    for (const name of await readdir(folder).catch(() => [])) {
      const firstSequence = parseSegmentName(name)?.firstSequence ?? Number.POSITIVE_INFINITY;
      if (firstSequence <= sequence && firstSequence >= best.firstSequence) best = { name, firstSequence };
    }
    return best.name && join(folder, best.name);
  }

  return {
    now() {
      const { waitingWireBytes, connected } = uplink.state();
      const last = samples.at(-1)!;
      return {
        oldestUnsettledAt: last.unsettledMessages === 0 ? null : oldest.at,
        wireBytesLeft: waitingWireBytes ?? Math.round(last.unsettledBytes * WIRE_SHARE_OF_DISK),
        forecast: forecastOf(samples, {
          bytesMax: buffer.stats().bytesMax,
          connected,
          underWayMs: UNDER_WAY_MS + 2 * account.now().gatherMs,
        }),
      };
    },
    close: () => clearInterval(timer),
  };
}

async function createdAt(segment: string): Promise<number | null> {
  try {
    const file = await open(segment, 'r');
    try {
      const header = Buffer.alloc(SEGMENT_HEADER_BYTES);
      await file.read(header, 0, header.length, 0);
      return decodeHeader(header)?.createdAtMs ?? null;
    } finally {
      await file.close();
    }
  } catch {
    // It became blocks or was given back meanwhile: the next look finds what stands there now.
    return null;
  }
}
