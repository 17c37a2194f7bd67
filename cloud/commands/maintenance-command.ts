/** `holdfast maintenance`: a site's incidents are recorded and page nobody, for a time that is always set. */
import { userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import { CommandFailed, print, runCommand, SERVER_HELP, table } from './api-client.ts';

const USAGE = `holdfast maintenance SITE --for 2h --reason "new pump" [--by NAME]
                                        incidents of the site are recorded and page nobody until then; 30m, 2h, 3d, at most 30d
holdfast maintenance list [--site S] [--past]
holdfast maintenance end ID             over before its time
${SERVER_HELP}`;

interface Maintenance {
  readonly id: number;
  readonly site: string;
  readonly reason: string;
  readonly by: string | null;
  readonly startsAt: number;
  readonly endsAt: number;
  readonly isOn: boolean;
}

const unitMs = { m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

await runCommand(USAGE, async (args, api) => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      for: { type: 'string' },
      reason: { type: 'string' },
      by: { type: 'string' },
      site: { type: 'string' },
      past: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const [first = '', second, ...rest] = positionals;
  if (rest.length > 0) throw new CommandFailed(`too much: ${rest.join(' ')}`, 2);
  if (first === 'list') {
    const query = { site: values.site, past: String(values.past), limit: 1000 };
    const found = await api.get<{ maintenance: Maintenance[] }>('/maintenance', query);
    return print(values.json, found, () => asTable(found.maintenance));
  }
  if (first === 'end') {
    if (!/^\d+$/.test(second ?? '')) throw new CommandFailed('ID: expected a number, as list shows it', 2);
    const ended = await api.change<Maintenance>('DELETE', `/maintenance/${second}`);
    return print(values.json, ended, () => [`Maintenance of ${ended.site} is over.`]);
  }
  if (first === '' || second !== undefined) throw new CommandFailed('expected SITE, list or end ID', 2);
  if (!values.reason?.trim())
    throw new CommandFailed('--reason: missing: whoever comes next wants to know', 2);
  const begun = await api.change<Maintenance>('POST', '/maintenance', {
    site: first,
    forMs: durationMs(values.for),
    reason: values.reason,
    by: values.by ?? userInfo().username,
  });
  print(values.json, begun, () => [
    `Maintenance of ${begun.site} until ${time(begun.endsAt)}: incidents page nobody. (${begun.id})`,
  ]);
});

function durationMs(text: string | undefined): number {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(m|h|d)$/.exec(text ?? '') ?? [];
  if (amount === undefined) throw new CommandFailed('--for: expected a time such as 30m, 2h or 3d', 2);
  return Math.round(Number(amount) * unitMs[unit as keyof typeof unitMs]);
}

function time(ms: number): string {
  return new Date(ms).toISOString();
}

function asTable(found: readonly Maintenance[]): string[] {
  if (found.length === 0) return ['No site is under maintenance.'];
  return table([
    ['ID', 'SITE', 'UNTIL', 'BY', 'REASON'],
    ...found.map(({ id, site, endsAt, by, reason, isOn }) => [
      String(id),
      site,
      isOn ? time(endsAt) : `over since ${time(endsAt)}`,
      by ?? '-',
      reason,
    ]),
  ]);
}
