/**
 * Sees to it that what goes onto a stick counts as sent: by the gateway that runs, which is told, or on its disk when none
 * runs. Otherwise a gateway that is nearly full might thin it together with newer messages, and once history had the stick's
 * part of such a run, the rest could only be declared lost (A).
 */
import type { LogRun } from '../log/disk-buffer.ts';
import { type MarkOutcome, markStopped } from '../log/mark-stopped.ts';
import { askGateway } from '../status/ask.ts';
import { encodeRuns, RUNS_MAX, SENT_PATH } from '../status/sent-request.ts';
import { logFolderOf } from './command-options.ts';

/** It may have to end the thinning of a file first. */
const ANSWER_MS = 60_000;

export async function countAsSent(dataDirectory: string, runs: readonly LogRun[]): Promise<MarkOutcome> {
  for (let start = 0; start < runs.length; start += RUNS_MAX) {
    const body = encodeRuns(runs.slice(start, start + RUNS_MAX));
    const asked = await askGateway(dataDirectory, {
      method: 'POST',
      path: SENT_PATH,
      body,
      answerMs: ANSWER_MS,
    });
    if (asked.outcome === 'none') return markStopped(logFolderOf(dataDirectory), runs);
    if (asked.outcome === 'forbidden') {
      return { outcome: 'not-marked', reason: `${asked.reason}; run it as the gateway's user or as root` };
    }
    if (asked.outcome === 'mute') return { outcome: 'not-marked', reason: asked.reason };
    if (asked.status === 204) continue;
    const reason =
      asked.status === 404
        ? 'the gateway that runs is of an older version: restart it'
        : `the gateway that runs says: ${asked.body.trim()}`;
    return { outcome: 'not-marked', reason };
  }
  return { outcome: 'marked' };
}
