/** `holdfast quarantine`: messages that could not be used, looked at, replayed, or discarded. */
import { parseArgs } from 'node:util';
import { loadMappingFile, type MappingConfig } from '../../edge-gateway/mapping/mapping-file.ts';
import { type ApiClient, CommandFailed, print, runCommand, SERVER_HELP, table } from './api-client.ts';

const USAGE = `holdfast quarantine list [--site S] [--limit 50]
holdfast quarantine show ID
holdfast quarantine replay (ID… | --site S | --all) [--mapping FILE]
                     decodes them again, with the mended mapping file of their gateway or none, and puts the rows into
                     history with their original times; doing it again changes nothing
holdfast quarantine discard (ID… | --site S | --all)
                     forgets what was kept of them; the ledger goes on counting them as quarantined
${SERVER_HELP}
  Exit codes: 0 done, 1 some are still in quarantine or it failed, 2 wrong options`;

interface Listed {
  readonly id: number;
  readonly site: string;
  readonly gateway: string;
  readonly receivedAt: number;
  readonly reason: string;
  readonly topic: string;
  readonly payloadBytes: number;
  readonly payload: string;
}
interface Shown extends Listed {
  readonly logId: string | null;
  readonly sequence: number | null;
  readonly replayedAt: number | null;
  readonly payloadBase64: string;
}
interface Replayed {
  readonly replayed: number;
  readonly rows: number;
  readonly kept: readonly { readonly id: number; readonly reason: string }[];
  readonly twinsTold: boolean;
  readonly next: number | null;
}

/** Entries whose reasons are printed; all of them are counted. */
const REASONS_SHOWN = 20;
const IDS_AT_ONCE = 1000;

await runCommand(USAGE, async (args, api) => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      site: { type: 'string' },
      all: { type: 'boolean', default: false },
      limit: { type: 'string' },
      mapping: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const { json, site, all, limit } = values;
  const [command, ...named] = positionals;
  switch (command) {
    case 'list': {
      const found = await api.get<{ quarantined: Listed[]; total: number }>('/quarantine', { site, limit });
      return print(json, found, () => asTable(found));
    }
    case 'show': {
      const [id] = idsOf(named);
      if (id === undefined) throw new CommandFailed('ID: missing', 2);
      const found = await api.get<Shown>(`/quarantine/${id}`);
      return print(json, found, () => asText(found));
    }
    case 'replay': {
      const mapping = values.mapping === undefined ? undefined : readMapping(values.mapping);
      const result = await replay(api, selections(named, site, all), mapping);
      print(json, result, () => replayAsText(result));
      if (result.kept.length > 0) process.exitCode = 1;
      return;
    }
    case 'discard': {
      let discarded = 0;
      for (const selection of selections(named, site, all)) {
        discarded += (await api.change<{ discarded: number }>('POST', '/quarantine/discard', selection))
          .discarded;
      }
      return print(json, { discarded }, () => [`Discarded: ${discarded}.`]);
    }
    default:
      throw new CommandFailed(`quarantine has no ${command}`, 2);
  }
});

type Selection = { ids: number[] } | { site: string } | { all: true };

function selections(named: readonly string[], site: string | undefined, all: boolean): Selection[] {
  if ([named.length > 0, site !== undefined, all].filter(Boolean).length !== 1) {
    throw new CommandFailed('expected either IDs, or --site, or --all', 2);
  }
  if (site !== undefined) return [{ site }];
  if (all) return [{ all: true }];
  const ids = idsOf(named);
  const chunks: Selection[] = [];
  for (let from = 0; from < ids.length; from += IDS_AT_ONCE) {
    chunks.push({ ids: ids.slice(from, from + IDS_AT_ONCE) });
  }
  return chunks;
}

function idsOf(named: readonly string[]): number[] {
  const wrong = named.find(text => !/^[1-9]\d{0,14}$/.test(text));
  if (wrong !== undefined)
    throw new CommandFailed(`ID: expected a number as list shows it, not "${wrong}"`, 2);
  return named.map(Number);
}

function readMapping(file: string): MappingConfig {
  const read = loadMappingFile(file);
  if (!read.ok) throw new CommandFailed(read.problems.join('\n'), 1);
  return read.config;
}

async function replay(
  api: ApiClient,
  of: readonly Selection[],
  mapping: MappingConfig | undefined,
): Promise<Omit<Replayed, 'next'>> {
  const sum = { replayed: 0, rows: 0, kept: [] as Replayed['kept'][number][], twinsTold: true };
  for (const selection of of) {
    let after: number | null = 0;
    while (after !== null) {
      const page: Replayed = await api.change('POST', '/quarantine/replay', { ...selection, mapping, after });
      sum.replayed += page.replayed;
      sum.rows += page.rows;
      sum.kept.push(...page.kept);
      sum.twinsTold &&= page.twinsTold;
      after = page.next;
    }
  }
  return sum;
}

function replayAsText({ replayed, rows, kept, twinsTold }: Omit<Replayed, 'next'>): string[] {
  const lines = kept.slice(0, REASONS_SHOWN).map(({ id, reason }) => `${id}  still set aside: ${reason}`);
  if (kept.length > REASONS_SHOWN) lines.push(`… and ${kept.length - REASONS_SHOWN} more`);
  lines.push(`Replayed: ${replayed} messages, ${rows} rows. Still in quarantine: ${kept.length}.`);
  if (!twinsTold) lines.push('The stream is away: the twins learn of it when it is back.');
  return lines;
}

function asTable({ quarantined, total }: { quarantined: readonly Listed[]; total: number }): string[] {
  if (total === 0) return ['Nothing is in quarantine.'];
  return [
    ...table([
      ['ID', 'RECEIVED', 'GATEWAY', 'TOPIC', 'REASON'],
      ...quarantined.map(({ id, receivedAt, site, gateway, topic, reason }) => [
        String(id),
        new Date(receivedAt).toISOString(),
        `${site}/${gateway}`,
        topic || '-',
        reason,
      ]),
    ]),
    `${quarantined.length} of ${total}, newest first.`,
  ];
}

function asText(found: Shown): string[] {
  return [
    ...table([
      ['id', String(found.id)],
      ['gateway', `${found.site}/${found.gateway}`],
      ['received', new Date(found.receivedAt).toISOString()],
      ['message', `${found.logId ?? '-'}:${found.sequence ?? '-'}`],
      ['topic', found.topic || '-'],
      ['reason', found.reason],
      ['payload', `${found.payloadBytes} bytes`],
      ['replayed', found.replayedAt === null ? 'no' : new Date(found.replayedAt).toISOString()],
    ]),
    '',
    // A payload may hold anything: nothing of it must reach the terminal as a command.
    found.payload.replaceAll(/[^\P{C}\n\t]/gu, '\uFFFD'),
  ];
}
