/** `holdfast history`: readings as files, the room that they take, and the move to TimescaleDB. */
import { parseArgs } from 'node:util';
import { CommandFailed, runCommand } from './api-client.ts';
import { exportHistory } from './export-history.ts';
import { showStats } from './history-stats.ts';
import { toTimescale } from './history-to-timescale.ts';

const USAGE = `holdfast history export --site S [--device D] [--metric M] [--from TIME] [--to TIME]
                        [--format csv|ndjson] [--out FILE]
                                        every reading in the order of device, metric and time, from the
                                        cloud node at HOLDFAST_URL (http://127.0.0.1:8080); without --out
                                        to stdout
                                        TIME: 2026-01-31T12:00Z, or 24h, 7d ago (default: all there is)
holdfast history stats [--json]         bytes and readings by day, from PostgreSQL itself
                                        (HOLDFAST_POSTGRES_URL)
holdfast history to-timescale           makes history's tables hypertables of TimescaleDB, readings included,
                                        whatever HOLDFAST_TIMESCALE says; see docs/history.md first`;

const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

await runCommand(USAGE, async args => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      site: { type: 'string' },
      device: { type: 'string' },
      metric: { type: 'string' },
      from: { type: 'string' },
      to: { type: 'string' },
      format: { type: 'string', default: 'csv' },
      out: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const [what = '', ...rest] = positionals;
  if (rest.length > 0) throw new CommandFailed(`too much: ${rest.join(' ')}`, 2);
  if (what === 'stats') return showStats(values.json);
  if (what === 'to-timescale') return toTimescale(values.json);
  if (what !== 'export') throw new CommandFailed('expected export, stats or to-timescale', 2);
  const { site, device, metric, format, out } = values;
  if (site === undefined) throw new CommandFailed('--site: missing', 2);
  if (format !== 'csv' && format !== 'ndjson') throw new CommandFailed('--format: expected csv or ndjson', 2);
  const now = Date.now();
  await exportHistory(
    {
      ...{ site, device, metric, format, out },
      from: timeOf(values.from, now, '--from'),
      to: timeOf(values.to, now, '--to'),
    },
    process.env.HOLDFAST_URL || 'http://127.0.0.1:8080',
  );
});

function timeOf(text: string | undefined, now: number, option: string): number | undefined {
  if (text === undefined) return undefined;
  const [, count, unit] = /^(\d+(?:\.\d+)?)([mhd])$/.exec(text) ?? [];
  const time = count === undefined ? Date.parse(text) : now - Number(count) * UNIT_MS[unit!]!;
  if (!Number.isFinite(time)) throw new CommandFailed(`${option}: "${text}" is no time`, 2);
  return time;
}
