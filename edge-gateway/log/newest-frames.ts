/** The newest frames of a buffer, whichever of its logs they are in. */
import type { Frame } from './frame.ts';
import type { Claim, ReadLog } from './log-reader.ts';
import { firstSequenceOf, type LogState } from './log-state.ts';

const MIB = 1024 * 1024;
/** It is not for sending. */
const unclaimed: Claim = () => Promise.resolve(true);

/** @param logs oldest first @returns oldest first */
export async function newestFrames(
  readLog: ReadLog,
  logs: readonly LogState[],
  countMax: number,
): Promise<Frame[]> {
  let frames: Frame[] = [];
  for (const log of logs.toReversed()) {
    if (frames.length >= countMax) break;
    if (!log.synced) continue;
    frames = [...(await newestOf(readLog, log, countMax - frames.length)), ...frames];
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
