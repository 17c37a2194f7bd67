/**
 * Writes one file of an export: encrypted while the batches come, signed at its end, renamed to its name only when all
 * of it is on the stick. In memory is one batch at a time (F).
 */
import { createHash, type KeyObject } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Encrypter } from 'age-encryption';
import {
  batchRecord,
  EXPORT_CONTENT_BYTES_MAX,
  type ExportHeader,
  encodePreamble,
  endRecord,
  preambleRecord,
} from '../../protocol/export/export-file.ts';
import { signDigest } from '../../protocol/export/signing.ts';
import type { LogId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { EncodedBatch } from '../batch-reader.ts';

export interface ExportBatch extends EncodedBatch {
  readonly logId: LogId;
}

/** What comes next can be looked at before it is taken. */
export interface BatchSource {
  /** The next batch, or null at the end. Rejects with the system error when the buffer gives no answer. */
  peek(): Promise<ExportBatch | null>;
  take(): void;
}

export type WriteOutcome =
  | {
      readonly outcome: 'written';
      readonly bytes: number;
      readonly batches: number;
      readonly ranges: ReadonlyMap<LogId, RangeSet>;
      readonly last: boolean;
    }
  /** The stick did not take it; nothing is left of the file, as far as the stick allows. */
  | { readonly outcome: 'not-written'; readonly error: Error };

/** Rejects when the source does. @param file its final path */
export async function writeExportFile(
  file: string,
  header: ExportHeader,
  o: { source: BatchSource; key: KeyObject; contentBytesMax?: number },
): Promise<WriteOutcome> {
  const part = `${file}.part`;
  const preamble = encodePreamble(header);
  const content = contentOf(preamble, o.source, o.contentBytesMax ?? EXPORT_CONTENT_BYTES_MAX);
  const encrypter = new Encrypter();
  encrypter.addRecipient(header.recipient);
  const hash = createHash('sha512');
  let bytes = 0;
  let stickError: Error | null = null;

  /** Tells the stick's errors from the buffer's. */
  const onStick = <T>(operation: Promise<T>): Promise<T> =>
    operation.catch(error => {
      stickError ??= error as Error;
      throw error;
    });

  try {
    const handle = await onStick(open(part, 'w'));
    try {
      const write = async (chunk: Uint8Array) => {
        await onStick(handle.writeFile(chunk));
        bytes += chunk.length;
      };
      hash.update(preamble);
      await write(preamble);
      for await (const chunk of await encrypter.encrypt(content.stream)) {
        hash.update(chunk);
        await write(chunk);
      }
      await write(signDigest(hash.digest(), o.key));
      await onStick(handle.sync());
    } finally {
      await onStick(handle.close());
    }
    await onStick(rename(part, file));
    await syncFolder(dirname(file));
    return { outcome: 'written', bytes, ...content.summary() };
  } catch (error) {
    await rm(part, { force: true }).catch(() => undefined);
    if (stickError) return { outcome: 'not-written', error: stickError };
    throw error;
  }
}

function contentOf(preamble: Buffer, source: BatchSource, bytesMax: number) {
  const ranges = new Map<LogId, RangeSet>();
  let batches = 0;
  let bytes = 0;
  let last = false;

  async function nextBatch(): Promise<ExportBatch | null> {
    const next = await source.peek();
    last = next === null;
    if (next === null || (batches > 0 && bytes + next.bytes.length > bytesMax)) return null;
    source.take();
    return next;
  }

  async function* records(): AsyncGenerator<Uint8Array> {
    yield preambleRecord(preamble);
    for (let batch = await nextBatch(); batch; batch = await nextBatch()) {
      const { logId, range } = batch;
      batches++;
      bytes += batch.bytes.length;
      ranges.set(logId, (ranges.get(logId) ?? RangeSet.empty).add(range.from, range.to));
      yield batchRecord(batch.bytes);
    }
    yield endRecord({ batches, last });
  }

  const iterator = records();
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
    },
    { highWaterMark: 0 },
  );
  return { stream, summary: () => ({ batches, ranges, last }) };
}

/** Best effort: not every file system of a stick knows it. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, 'r');
    await handle.sync().finally(() => handle.close());
  } catch {
    return;
  }
}
