/** `holdfast rules`: alert rules, and what they would have said of what is in history. */
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { parse } from 'yaml';
import type { IncidentTransition } from '../actors/incident.ts';
import { durationText, type Rule } from '../actors/rule.ts';
import { problemText, RuleBody, RuleId, ruleOf, type StoredRule } from '../rule-model.ts';
import { CommandFailed, print, runCommand, SERVER_HELP, table } from './api-client.ts';
import { tryRules } from './try-rules.ts';

const USAGE = `holdfast rules list
holdfast rules put FILE                 a rule or a list of them, as JSON or YAML; - reads stdin
holdfast rules delete ID
holdfast rules try FILE [--from TIME] [--to TIME] [--site S] [--device D]
                                        what they would have raised, from history (HOLDFAST_POSTGRES_URL); arms nothing
                                        TIME: 2026-01-31T12:00Z, or 24h, 7d ago (default: 7d ago until now)
${SERVER_HELP}`;

const DAY_MS = 86_400_000;
const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: DAY_MS };

await runCommand(USAGE, async (args, api) => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      from: { type: 'string' },
      to: { type: 'string' },
      site: { type: 'string' },
      device: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const [what = '', subject = '', ...rest] = positionals;
  if (rest.length > 0) throw new CommandFailed(`too much: ${rest.join(' ')}`, 2);
  switch (what) {
    case 'list': {
      const found = await api.get<{ rules: StoredRule[]; setAside: { id: string; reason: string }[] }>(
        '/rules',
      );
      return print(values.json, found, () => [
        ...asTable(found.rules),
        ...found.setAside.map(({ id, reason }) => `set aside: ${id}: ${reason}`),
      ]);
    }
    case 'put': {
      const rules = await rulesIn(subject);
      for (const { id, ...body } of rules) await api.change('PUT', `/rules/${encodeURIComponent(id)}`, body);
      return print(values.json, { rules }, () => asTable(rules));
    }
    case 'delete':
      if (subject === '') throw new CommandFailed('ID: missing', 2);
      await api.change('DELETE', `/rules/${encodeURIComponent(subject)}`);
      return print(values.json, { deleted: subject }, () => [
        `${subject} is gone; what it had open clears within seconds.`,
      ]);
    case 'try': {
      const now = Date.now();
      const to = timeOf(values.to, now, now, '--to');
      const from = timeOf(values.from, now, to - 7 * DAY_MS, '--from');
      if (from > to) throw new CommandFailed('--from lies after --to', 2);
      const rules = (await rulesIn(subject)).map(ruleOf);
      return await tryThem(
        rules,
        { from, to, site: values.site ?? null, device: values.device ?? null },
        values.json,
      );
    }
    default:
      throw new CommandFailed('expected list, put, delete or try', 2);
  }
});

/** @throws CommandFailed with all that is wrong in the file */
async function rulesIn(file: string): Promise<StoredRule[]> {
  if (file === '') throw new CommandFailed('FILE: missing', 2);
  let content: unknown;
  try {
    content = parse(await (file === '-' ? textOfStdin() : readFile(file, 'utf8')));
  } catch (error) {
    throw new CommandFailed(`${file}: ${(error as Error).message}`);
  }
  const list = Array.isArray(content) ? content : [content];
  const rules: StoredRule[] = [];
  const faults: string[] = [];
  for (const [index, entry] of list.entries()) {
    const { id, ...body } = (entry ?? {}) as Record<string, unknown>;
    const named = RuleId.safeParse(id);
    const parsed = RuleBody.safeParse(body);
    const name = named.success ? named.data : `rule ${index + 1}`;
    if (!named.success) faults.push(`${name}: id: ${problemText(named.error)}`);
    if (!parsed.success) faults.push(`${name}: ${problemText(parsed.error)}`);
    if (named.success && parsed.success) rules.push({ ...parsed.data, id: named.data });
  }
  if (list.length === 0) faults.push('there is no rule in it');
  if (faults.length > 0) throw new CommandFailed(faults.map(fault => `${file}: ${fault}`).join('\n'));
  return rules;
}

async function textOfStdin(): Promise<string> {
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) text += chunk;
  return text;
}

function timeOf(text: string | undefined, now: number, otherwise: number, option: string): number {
  if (text === undefined) return otherwise;
  const [, count, unit] = /^(\d+(?:\.\d+)?)([mhd])$/.exec(text) ?? [];
  const time = count === undefined ? Date.parse(text) : now - Number(count) * UNIT_MS[unit!]!;
  if (!Number.isFinite(time)) throw new CommandFailed(`${option}: "${text}" is no time`, 2);
  return time;
}

async function tryThem(
  rules: readonly Rule[],
  range: { from: number; to: number; site: string | null; device: string | null },
  json: boolean,
): Promise<void> {
  const connectionString = process.env.HOLDFAST_POSTGRES_URL;
  if (!connectionString) throw new CommandFailed('HOLDFAST_POSTGRES_URL: missing, history is read there', 2);
  const pool = new pg.Pool({ connectionString, max: 1 });
  pool.on('error', () => {});
  const say = (line: string) => process.stdout.write(`${line}\n`);
  try {
    const summary = await tryRules(pool, { ...range, rules }, incident =>
      say(json ? JSON.stringify(incident) : lineOf(incident)),
    );
    const { devices, messages, incidents, open } = summary;
    const days = (range.to - range.from) / DAY_MS;
    say(
      json
        ? JSON.stringify({ ...summary, days })
        : `${incidents} incidents (${open} still open) in ${days.toFixed(1)} days, of ${devices} devices and ${messages} messages.`,
    );
  } catch (error) {
    if (error instanceof CommandFailed) throw error;
    throw new CommandFailed(`PostgreSQL: ${(error as Error).message}`);
  } finally {
    await pool.end();
  }
}

function lineOf({ openedAt, clearedAt, severity, rule, site, device, summary }: IncidentTransition): string {
  const length =
    clearedAt === null
      ? 'still open'
      : `for ${durationText(Math.max(1000, Math.round((clearedAt - openedAt) / 1000) * 1000))}`;
  return `${new Date(openedAt).toISOString()}  ${length.padEnd(12)}  ${severity.padEnd(8)}  ${rule}  ${site}/${device}  ${summary}`;
}

function asTable(rules: readonly StoredRule[]): string[] {
  return table([
    ['ID', 'KIND', 'METRIC', 'CONDITION', 'FOR', 'SEVERITY', 'WHERE', 'STATE'],
    ...rules.map(rule => [
      rule.id,
      rule.kind,
      rule.metric ?? '',
      conditionOf(rule),
      rule.forMs > 0 ? durationText(rule.forMs) : '',
      rule.severity,
      whereOf(rule),
      rule.enabled ? 'armed' : 'off',
    ]),
  ]);
}

function conditionOf(rule: StoredRule): string {
  switch (rule.kind) {
    case 'threshold':
      return `${rule.comparison} ${rule.threshold}`;
    case 'range':
      return `outside ${rule.low} to ${rule.high}`;
    case 'rate':
      return `${rule.direction} ${rule.threshold} per ${durationText(rule.perMs)}`;
    case 'absence':
      return 'not heard';
    case 'anomaly':
      return `${rule.deviations} deviations`;
  }
}

function whereOf({ site, device, deviceType, tag }: StoredRule): string {
  const parts = [
    site && `site ${site}`,
    device && `device ${device}`,
    deviceType && `type ${deviceType}`,
    tag && `tag ${tag}`,
  ];
  return parts.filter(part => part).join(', ') || 'everywhere';
}
