/** `POST /sent` on the status socket: these runs leave by another way and count as sent. One line `LOG FROM TO` each. */
import { isLogId } from '../../protocol/ids.ts';
import type { LogRun } from '../log/disk-buffer.ts';

export const SENT_PATH = '/sent';
/** In one request. */
export const RUNS_MAX = 1000;
export const SENT_BODY_BYTES_MAX = 128 * 1024;

const LINE = /^(\S+) ([1-9]\d{0,14}) ([1-9]\d{0,14})$/;

export const encodeRuns = (runs: readonly LogRun[]): string =>
  runs.map(({ logId, from, to }) => `${logId} ${from} ${to}`).join('\n');

/** @returns null when it is none */
export function parseRuns(body: string): LogRun[] | null {
  const runs: LogRun[] = [];
  for (const line of body.split('\n')) {
    const [, logId = '', from, to] = LINE.exec(line) ?? [];
    if (!isLogId(logId) || runs.length === RUNS_MAX) return null;
    runs.push({ logId, from: Number(from), to: Number(to) });
  }
  return runs;
}
