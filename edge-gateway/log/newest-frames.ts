/** The newest frames of a buffer, whichever of its logs they are in. */
import type { BufferLogger } from './buffer-api.ts';
import { codeOf } from './files.ts';
import type { Frame } from './frame.ts';
import type { Claim, ReadLog } from './log-reader.ts';
import { firstSequenceOf, type LogState } from './log-state.ts';

const MIB = 1024 * 1024;
/** It is not for sending. */
const unclaimed: Claim = () => Promise.resolve(true);

/**
 * A log that gives no answer for now is left out: a gateway that does not start would take nothing at all, and what it does
 * not recognise it stores (A).
 * @param logs oldest first @returns oldest first
 */
export async function newestFrames(
  readLog: ReadLog,
  logs: readonly LogState[],
  countMax: number,
  logger: Pick<BufferLogger, 'warn'>,
): Promise<Frame[]> {
  let frames: Frame[] = [];
  for (const log of logs.toReversed()) {
    if (frames.length >= countMax) break;
    if (!log.synced) continue;
    const newest = await newestOf(readLog, log, countMax - frames.length).catch(error => {
      if (codeOf(error) === '') throw error;
      logger.warn(
        { err: error, logId: log.logId },
        'a log cannot be read for now: not known for re-deliveries',
      );
      return [];
    });
    frames = [...newest, ...frames];
  }
  return frames;
}

/** Frames alone: what has become blocks is too old to come again. */
async function newestOf(readLog: ReadLog, log: LogState, countMax: number): Promise<Frame[]> {
  const newest: Frame[] = [];
  let from = Math.max(firstSequenceOf(log), log.nextSequence - countMax);
  for (;;) {
    const limits = { toSequence: log.nextSequence, messagesMax: 1000, bytesMax: MIB };
    const run = await readLog(log, from, limits, unclaimed);
    if (run.form === 'block') from = run.range.to;
    else if (run.frames.length === 0) return newest;
    else {
      for (const frame of run.frames) newest.push(frame);
      from = run.frames.at(-1)!.sequence + 1;
    }
  }
}
