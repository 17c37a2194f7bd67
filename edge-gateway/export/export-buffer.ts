/**
 * What of a buffer goes onto the stick, and into which files: log by log, oldest first, the batches that the uplink
 * would publish.
 *
 * Left out is what history is known to have settled. Nothing is lost or doubled by the detour: whichever of stick and link
 * comes second is dropped by the ledger (B), and before anything is read, all that is to go counts as sent, so that the
 * gateway cannot thin it any more (A: count-as-sent.ts). What was thinned before goes thinned, as the link would carry it.
 * Messages that cannot be read are left out and counted, never declared lost: that word is final, and the gateway may
 * still be able to read what this process could not (A).
 */
import { type KeyObject, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { EXPORT_EXTENSION } from '../../protocol/export/export-file.ts';
import { signingKeyText } from '../../protocol/export/signing.ts';
import type { GatewayId, LogId, SiteId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { ReadBatch } from '../batch-reader.ts';
import type { LogRun } from '../log/disk-buffer.ts';
import type { MarkOutcome } from '../log/mark-stopped.ts';
import type { ReadOnlyBuffer, ReadOnlyLog } from '../log/read-only.ts';
import { type BatchSource, type ExportBatch, writeExportFile } from './export-file-writer.ts';

/** A place in the buffer: everything of earlier logs and lower sequences lies before it. */
export interface Place {
  readonly logId: LogId;
  readonly sequence: number;
}

export interface ExportedFile {
  readonly file: string;
  readonly bytes: number;
  readonly batches: number;
  readonly messages: number;
}

export interface ExportSummary {
  readonly export: string;
  readonly files: readonly ExportedFile[];
  readonly messages: number;
  readonly bytes: number;
}

export type ExportOutcome =
  /** Nothing was written: what is on the stick might be thinned by the gateway. */
  | { readonly outcome: 'not-marked'; readonly reason: string }
  | ({ readonly outcome: 'exported' } & ExportSummary)
  /** The files of the summary are whole; `goOnFrom` is where the next one would have begun. */
  | ({ readonly outcome: 'stopped'; readonly error: Error; readonly goOnFrom: Place } & ExportSummary);

export interface ExportOptions {
  readonly buffer: ReadOnlyBuffer;
  readonly readBatch: ReadBatch;
  /** Makes all of these count as sent, one run for each log. */
  readonly countAsSent: (runs: readonly LogRun[]) => Promise<MarkOutcome>;
  readonly site: SiteId;
  readonly gateway: GatewayId;
  readonly folder: string;
  /** `age1…` */
  readonly recipient: string;
  readonly key: KeyObject;
  readonly now: Date;
  /** Also what history has settled. */
  readonly all?: boolean;
  readonly from?: Place;
  readonly contentBytesMax?: number;
  readonly onFile?: (file: ExportedFile) => void;
}

/** Rejects with the system error when the buffer cannot be read for now. */
export async function exportBuffer(o: ExportOptions): Promise<ExportOutcome> {
  const marked = await o.countAsSent(runsOf(o));
  if (marked.outcome === 'not-marked') return marked;
  // Until then it might be thinned.
  await o.buffer.lookAgain();
  const id = randomBytes(6).toString('hex');
  const source = sourceOf(o);
  const files: ExportedFile[] = [];
  const summary = (): ExportSummary => ({
    export: id,
    files,
    messages: files.reduce((sum, file) => sum + file.messages, 0),
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
  });
  const time = o.now.toISOString().replace(/[-:]|\.\d+/g, '');

  for (let first = await source.peek(); first; first = await source.peek()) {
    const part = files.length + 1;
    const name = [o.site, o.gateway, time, id, String(part).padStart(4, '0')].join('.');
    const file = join(o.folder, `${name}${EXPORT_EXTENSION}`);
    const header = {
      site: o.site,
      gateway: o.gateway,
      key: signingKeyText(o.key),
      export: id,
      part,
      createdAt: o.now.toISOString(),
      recipient: o.recipient,
    };
    const written = await writeExportFile(file, header, {
      source,
      key: o.key,
      ...(o.contentBytesMax !== undefined && { contentBytesMax: o.contentBytesMax }),
    });
    if (written.outcome === 'not-written') {
      const goOnFrom = { logId: first.logId, sequence: first.range.from };
      return { outcome: 'stopped', error: written.error, goOnFrom, ...summary() };
    }
    const { bytes, batches, ranges } = written;
    const messages = [...ranges.values()].reduce((sum, set) => sum + set.size, 0);
    const exported = { file, bytes, batches, messages };
    files.push(exported);
    o.onFile?.(exported);
  }
  return { outcome: 'exported', ...summary() };
}

/** What is to go of one log. */
function wanted(log: ReadOnlyLog, o: { readonly all?: boolean; readonly fromSequence?: number }): RangeSet {
  const onDisk = RangeSet.of(Math.max(log.firstSequence, o.fromSequence ?? 1), log.nextSequence);
  return o.all ? onDisk : onDisk.difference(log.settled);
}

function sourceOf(o: ExportOptions): BatchSource {
  const batches = batchesOf(o);
  let next: Promise<ExportBatch | null> | null = null;
  return {
    peek: () => (next ??= batches.next().then(({ value }) => value ?? null)),
    take: () => {
      next = null;
    },
  };
}

function wantedOf({ buffer, from, all = false }: ExportOptions): { log: ReadOnlyLog; set: RangeSet }[] {
  const start = from ? buffer.logs.findIndex(log => log.logId === from.logId) : 0;
  return buffer.logs.slice(Math.max(0, start)).map(log => {
    const fromSequence = log.logId === from?.logId ? from.sequence : 1;
    return { log, set: wanted(log, { all, fromSequence }) };
  });
}

/** What is settled in between may be counted along: it is never thinned anyway. */
const runsOf = (o: ExportOptions): LogRun[] =>
  wantedOf(o).flatMap(({ log, set }) =>
    set.isEmpty ? [] : [{ logId: log.logId, from: set.ranges[0]!.from, to: set.ranges.at(-1)!.to }],
  );

async function* batchesOf(o: ExportOptions): AsyncGenerator<ExportBatch, undefined> {
  for (const { log, set } of wantedOf(o)) {
    // A block that is settled in part is given whole, and may reach into the next range.
    let reached = 1;
    for (const range of set.ranges) {
      for (let next = Math.max(range.from, reached); next < range.to; next = reached) {
        const rest = { from: next, to: range.to };
        const batch = await o.readBatch(log.logId, rest, limits.batchMessagesMax);
        if (!batch) break;
        yield { logId: log.logId, ...batch };
        reached = batch.range.to;
      }
    }
  }
}
