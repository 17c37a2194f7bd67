/**
 * What of a buffer goes onto the stick, and into which files: log by log, oldest first, the batches that the uplink
 * would publish.
 *
 * Left out is what history is known to have settled. That nothing is lost or doubled by the detour is the ledger's doing
 * (B): the gateway goes on as if there had been no export, and whichever of stick and link comes second is dropped.
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
  | ({ readonly outcome: 'exported' } & ExportSummary)
  /** The files of the summary are whole; `goOnFrom` is where the next one would have begun. */
  | ({ readonly outcome: 'stopped'; readonly error: Error; readonly goOnFrom: Place } & ExportSummary);

export interface ExportOptions {
  readonly buffer: ReadOnlyBuffer;
  readonly readBatch: ReadBatch;
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

async function* batchesOf(o: ExportOptions): AsyncGenerator<ExportBatch, undefined> {
  const { buffer, from } = o;
  const start = from ? buffer.logs.findIndex(log => log.logId === from.logId) : 0;
  for (const log of buffer.logs.slice(Math.max(0, start))) {
    const fromSequence = log.logId === from?.logId ? from.sequence : 1;
    // A block that is settled in part is given whole, and may reach into the next range.
    let reached = 1;
    for (const range of wanted(log, { all: o.all ?? false, fromSequence }).ranges) {
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
