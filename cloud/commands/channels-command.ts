/** `holdfast channels`: who is told of incidents. */
import { parseArgs } from 'node:util';
import { CommandFailed, print, runCommand, SERVER_HELP, table } from './api-client.ts';

const USAGE = `holdfast channels list
holdfast channels put NAME --webhook URL [--secret whsec_…] [--site S …] [--severity warning] [--off]
                                        a new webhook's secret is shown once
holdfast channels put NAME --nats SUBJECT [--site S …] [--severity warning] [--off]
                                        bodies on SUBJECT.<site>
holdfast channels delete NAME           with what it has yet to be told
holdfast channels test NAME             sends a message of type channel.test now
${SERVER_HELP}`;

interface ChannelView {
  readonly id: string;
  readonly kind: 'webhook' | 'nats';
  readonly target: string;
  readonly sites: readonly string[] | null;
  readonly severityMin: string;
  readonly enabled: boolean;
  readonly pending?: number;
  readonly failed?: number;
  readonly secret?: string;
}

await runCommand(USAGE, async (args, api) => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      webhook: { type: 'string' },
      nats: { type: 'string' },
      secret: { type: 'string' },
      site: { type: 'string', multiple: true },
      severity: { type: 'string' },
      off: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const [what = '', name = '', ...rest] = positionals;
  if (rest.length > 0) throw new CommandFailed(`too much: ${rest.join(' ')}`, 2);
  if (what === 'list' && name === '') {
    const found = await api.get<{ channels: ChannelView[] }>('/channels');
    return print(values.json, found, () => asTable(found.channels));
  }
  if (!['put', 'delete', 'test'].includes(what)) {
    throw new CommandFailed('expected list, put, delete or test', 2);
  }
  if (name === '') throw new CommandFailed('NAME: missing', 2);
  const path = `/channels/${encodeURIComponent(name)}`;
  if (what === 'delete') {
    await api.change('DELETE', path);
    return print(values.json, { deleted: name }, () => [`${name} is told nothing any more.`]);
  }
  if (what === 'test') {
    const tested = await api.change<{ delivered: boolean; reason: string | null }>('POST', `${path}/test`);
    if (!tested.delivered) throw new CommandFailed(`${name} was not reached: ${tested.reason}`);
    return print(values.json, tested, () => [`${name} took the test message.`]);
  }
  if ((values.webhook === undefined) === (values.nats === undefined)) {
    throw new CommandFailed('expected --webhook URL or --nats SUBJECT', 2);
  }
  const put = await api.change<ChannelView>('PUT', path, {
    kind: values.webhook === undefined ? 'nats' : 'webhook',
    target: values.webhook ?? values.nats,
    secret: values.secret,
    sites: values.site,
    severityMin: values.severity,
    enabled: !values.off,
  });
  print(values.json, put, () => [
    ...asTable([put]),
    ...(put.secret === undefined ? [] : [`Secret for the receiver, shown this once: ${put.secret}`]),
  ]);
});

function asTable(found: readonly ChannelView[]): string[] {
  return table([
    ['NAME', 'KIND', 'TARGET', 'SITES', 'FROM', 'STATE', 'PENDING', 'FAILED'],
    ...found.map(({ id, kind, target, sites, severityMin, enabled, pending, failed }) => [
      id,
      kind,
      kind === 'nats' ? `${target}.<site>` : target,
      sites === null ? 'all' : sites.join(','),
      severityMin,
      enabled ? 'on' : 'off',
      String(pending ?? '-'),
      String(failed ?? '-'),
    ]),
  ]);
}
