/**
 * What can be told of a gateway's data folder while no gateway runs on it. It takes no lock and writes nothing, so it may
 * look while one starts; then it tells what it saw.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { RangeSet } from '../../protocol/range-set.ts';
import { USAGE_FILE } from '../link-account.ts';
import { openReadOnly } from '../log/read-only.ts';

export interface StoppedGateway {
  readonly logs: number;
  readonly bytes: number;
  /** On disk and not known to be settled. */
  readonly unsettledMessages: number;
  readonly dataBudgetBytesUsed: number | null;
  readonly problems: readonly string[];
}

export async function lookAtStopped(dataDirectory: string): Promise<StoppedGateway> {
  const directory = join(dataDirectory, 'log');
  const opened = await openReadOnly(directory);
  const nothing = { logs: 0, unsettledMessages: 0, problems: [] as string[] };
  const found = { ...nothing, bytes: await bytesBelow(directory), dataBudgetBytesUsed: await budgetUsed() };
  if (opened.outcome === 'unusable') return { ...found, problems: [opened.reason] };
  const { logs } = opened.buffer;
  const unsettledMessages = logs.reduce(
    (sum, { firstSequence, nextSequence, settled }) =>
      sum + RangeSet.of(firstSequence, nextSequence).difference(settled).size,
    0,
  );
  return { ...found, logs: logs.length, unsettledMessages };

  async function budgetUsed(): Promise<number | null> {
    try {
      const { bytes } = JSON.parse(await readFile(join(dataDirectory, USAGE_FILE), 'utf8')) as {
        bytes?: unknown;
      };
      return typeof bytes === 'number' ? bytes : null;
    } catch {
      return null;
    }
  }
}

/** Of all files in it; what cannot be looked at counts for nothing. */
async function bytesBelow(directory: string): Promise<number> {
  const names = await readdir(directory, { recursive: true }).catch(() => []);
  let bytes = 0;
  for (const name of names) {
    const found = await stat(join(directory, name)).catch(() => null);
    if (found?.isFile()) bytes += found.size;
  }
  return bytes;
}
