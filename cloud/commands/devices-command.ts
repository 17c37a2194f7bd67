/** `holdfast devices`: the registry's devices, and the moves of a device's life. */
import { parseArgs } from 'node:util';
import type { DeviceRow } from '../registry/store.ts';
import {
  type ApiClient,
  CommandFailed,
  fullName,
  nameAtSite,
  print,
  runCommand,
  SERVER_HELP,
  table,
} from './api-client.ts';

const USAGE = `holdfast devices list [--site S] [--type T] [--tag T] [--group G] [--search TEXT] [--retired | --all]
holdfast devices show SITE/DEVICE
holdfast devices replace SITE/OLD NEW   new hardware, which calls itself NEW, takes the place of OLD: name, rules and
                                        history of OLD stay, and what NEW has sent already is OLD's
holdfast devices rename SITE/OLD NEW    the name changes everywhere; what still comes under the old one is the device's
holdfast devices retire SITE/DEVICE     hidden from lists, no absence alerts; its history stays
holdfast devices restore SITE/DEVICE    back from retirement
${SERVER_HELP}`;

await runCommand(USAGE, async (args, api) => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      site: { type: 'string' },
      type: { type: 'string' },
      tag: { type: 'string' },
      group: { type: 'string' },
      search: { type: 'string' },
      retired: { type: 'boolean', default: false },
      all: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const { json, retired, all, ...filter } = values;
  const [command, first, second, ...rest] = positionals;
  if (rest.length > 0) throw new CommandFailed(`too much: ${rest.join(' ')}`, 2);
  if (command === 'list') {
    const devices = await listed(api, { ...filter, state: all ? 'all' : retired ? 'retired' : 'active' });
    return print(json, { devices }, () => asTable(devices));
  }
  if (!['show', 'replace', 'rename', 'retire', 'restore'].includes(command ?? '')) {
    throw new CommandFailed(`devices has no ${command}`, 2);
  }
  const { site, device } = fullName(first, 'SITE/DEVICE');
  const path = `/registry/devices/${site}/${encodeURIComponent(device)}`;
  const shown = (found: DeviceRow) => print(json, found, () => asText(found));
  const done = (found: DeviceRow, said: string) => print(json, found, () => [said]);
  switch (command) {
    case 'show':
      return shown(await api.get<DeviceRow>(path));
    case 'replace': {
      const hardware = nameAtSite(second, site, 'NEW');
      const found = await api.change<DeviceRow>('POST', `${path}/replace`, { hardware });
      return done(found, `What ${hardware} sends is ${site}/${device}'s now.`);
    }
    case 'rename': {
      const to = nameAtSite(second, site, 'NEW');
      const found = await api.change<DeviceRow>('POST', `${path}/rename`, { to });
      return done(
        found,
        `${site}/${device} is ${site}/${to} now; what comes under the old name is still taken.`,
      );
    }
    case 'retire':
      return done(await api.change<DeviceRow>('POST', `${path}/retire`), `${site}/${device} is retired.`);
    default:
      return done(
        await api.change<DeviceRow>('POST', `${path}/restore`),
        `${site}/${device} is active again.`,
      );
  }
});

async function listed(
  api: ApiClient,
  filter: Readonly<Record<string, string | undefined>>,
): Promise<DeviceRow[]> {
  const devices: DeviceRow[] = [];
  let after: string | undefined;
  do {
    const page = await api.get<{ devices: DeviceRow[]; next: string | null }>('/registry/devices', {
      ...filter,
      limit: 1000,
      after,
    });
    devices.push(...page.devices);
    after = page.next ?? undefined;
  } while (after !== undefined);
  return devices;
}

function asTable(devices: readonly DeviceRow[]): string[] {
  if (devices.length === 0)
    return ['No entry fits. Devices that were only ever heard are on the dashboard and under /twins.'];
  return table([
    ['DEVICE', 'NAME', 'TYPE', 'TAGS', 'GROUPS', 'STATE'],
    ...devices.map(({ site, device, displayName, type, tags, groups, retired }) => [
      `${site}/${device}`,
      displayName ?? '-',
      type ?? '-',
      tags.join(',') || '-',
      groups.join(',') || '-',
      retired ? 'retired' : 'active',
    ]),
  ]);
}

function asText(found: DeviceRow): string[] {
  return table([
    ['device', `${found.site}/${found.device}`],
    ['name', found.displayName ?? '-'],
    ['type', found.type ?? '-'],
    ['tags', found.tags.join(', ') || '-'],
    ['groups', found.groups.join(', ') || '-'],
    ['state', found.retired ? 'retired' : 'active'],
    ['other names', found.aliases.join(', ') || '-'],
    ...Object.entries(found.metadata).map(([name, value]) => [`  ${name}`, String(value)]),
    ['changed', new Date(found.changedAt).toISOString()],
  ]);
}
