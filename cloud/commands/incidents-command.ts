/** `holdfast incidents`: what is wrong, and who sees to it. */
import { userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import type { Incident } from '../incidents/incident-table.ts';
import { CommandFailed, print, runCommand, SERVER_HELP, table } from './api-client.ts';

const USAGE = `holdfast incidents list [--site S] [--device D] [--state open|acknowledged|cleared] [--severity info|warning|critical] [--limit 100]
holdfast incidents show ID
holdfast incidents ack ID [--by NAME] [--note "on my way"]
holdfast incidents clear ID [--by NAME] [--note "sensor removed"]
                                        over, whatever the readings say
${SERVER_HELP}`;

await runCommand(USAGE, async (args, api) => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      site: { type: 'string' },
      device: { type: 'string' },
      state: { type: 'string' },
      severity: { type: 'string' },
      limit: { type: 'string' },
      by: { type: 'string' },
      note: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const [what = '', id = '', ...rest] = positionals;
  if (rest.length > 0) throw new CommandFailed(`too much: ${rest.join(' ')}`, 2);
  if (what === 'list' && id === '') {
    const { site, device, state, severity, limit } = values;
    const found = await api.get<{ incidents: Incident[]; next: string | null }>('/incidents', {
      site,
      device,
      state,
      severity,
      limit,
    });
    return print(values.json, found, () => asTable(found.incidents, found.next !== null));
  }
  if (!['show', 'ack', 'clear'].includes(what))
    throw new CommandFailed('expected list, show, ack or clear', 2);
  if (id === '') throw new CommandFailed('ID: missing, list shows it', 2);
  const path = `/incidents/${encodeURIComponent(id)}`;
  if (what === 'show') return print(true, await api.get(path), () => []);
  const signed = { by: values.by ?? userInfo().username, note: values.note };
  const change = what === 'ack' ? 'acknowledge' : 'clear';
  const incident = await api.change<Incident>('POST', `${path}/${change}`, signed);
  print(values.json, incident, () => [
    what === 'ack'
      ? `Acknowledged by ${incident.acknowledgedBy}: ${incident.summary}`
      : `Cleared${incident.clearedBy === null ? ' before, by the readings' : ` by ${incident.clearedBy}`}: ${incident.summary}`,
  ]);
});

function asTable(found: readonly Incident[], isMore: boolean): string[] {
  if (found.length === 0) return ['No incidents.'];
  const lines = table([
    ['OPENED', 'STATE', 'SEVERITY', 'WHERE', 'WHAT', 'ID'],
    ...found.map(({ openedAt, state, severity, site, device, summary, late, maintenance, id }) => [
      new Date(openedAt).toISOString(),
      `${state}${late ? ', late' : ''}${maintenance ? ', maintenance' : ''}`,
      severity,
      device === null ? site : `${site}/${device}`,
      summary,
      id,
    ]),
  ]);
  return isMore ? [...lines, 'There are more: --limit'] : lines;
}
