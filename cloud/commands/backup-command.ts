/** `holdfast backup`: takes note of what a dump of the database will have, and tells gateways when it is safely stored. */
import { parseArgs } from 'node:util';
import type { BackupOutlook } from '../backup/outlook.ts';
import type { Backup } from '../backup/store.ts';
import { CommandFailed, print, runCommand, SERVER_HELP, table } from './api-client.ts';

const USAGE = `holdfast backup begin                   takes note of what history has now; then dump the database with pg_dump
holdfast backup confirm NUMBER          that dump is safely stored: gateways may give back what it has
holdfast backup status                  the last confirmed backup, and what is in none
${SERVER_HELP}`;

await runCommand(USAGE, async (args, api) => {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { json: { type: 'boolean', default: false } },
  });
  const [what = '', number, ...rest] = positionals;
  if (rest.length > 0 || (what !== 'confirm' && number !== undefined)) {
    throw new CommandFailed(`too much: ${[number, ...rest].join(' ')}`, 2);
  }
  if (what === 'begin') {
    const begun = await api.change<Backup & { messages: number }>('POST', '/backups');
    return print(values.json, begun, () => begunLines(begun));
  }
  if (what === 'confirm') {
    if (!/^\d+$/.test(number ?? '')) {
      throw new CommandFailed('NUMBER: expected the one that "holdfast backup begin" printed', 2);
    }
    const confirmed = await api.change<Backup>('POST', `/backups/${number}/confirm`);
    return print(values.json, confirmed, () => [
      `Backup ${confirmed.id} is confirmed. Gateways give back what it has when they next say hello.`,
    ]);
  }
  if (what === 'status') {
    const outlook = await api.get<BackupOutlook>('/backups');
    return print(values.json, outlook, () => statusLines(outlook));
  }
  throw new CommandFailed('expected begin, confirm NUMBER or status', 2);
});

function begunLines({ id, messages }: { readonly id: number; readonly messages: number }): string[] {
  const file = `holdfast-${id}.dump`;
  return [
    `Backup ${id} is begun: it will cover ${count(messages)} messages more than the last confirmed one.`,
    '',
    'Next, dump the database, not before now:',
    `  pg_dump --format=custom --file=${file} --dbname="$HOLDFAST_POSTGRES_URL"`,
    `and when ${file} is stored where the loss of this machine does not reach it:`,
    `  holdfast backup confirm ${id}`,
  ];
}

function statusLines({ confirmed, begun, uncovered, keptHours, state }: BackupOutlook): string[] {
  const lines = [
    confirmed
      ? `Last confirmed backup: ${confirmed.id}, begun ${time(confirmed.begunAt)}, confirmed ${time(confirmed.confirmedAt!)}.`
      : 'No backup was ever confirmed: see "holdfast backup begin".',
    state === 'empty'
      ? 'There is no data yet.'
      : `In no confirmed backup: ${uncovered.hours} h, ${count(uncovered.messages)} messages.`,
  ];
  if (state === 'fresh' || state === 'due') {
    lines.push(
      `Gateways keep settled messages ${keptHours} h, space permitting, and send again what a restore lacks.`,
    );
  }
  if (state === 'due') lines.push('A backup is due: it is more than a day.');
  if (state === 'overdue') {
    lines.push(
      `A backup is overdue: what gateways gave back after ${keptHours} h is in the database alone, and lost with it.`,
    );
  }
  if (begun.length > 0) {
    lines.push(
      '',
      ...table([['BEGUN', 'AT'], ...begun.map(({ id, begunAt }) => [String(id), time(begunAt)])]),
    );
    lines.push('Begun and not confirmed: confirm those whose dump is safely stored.');
  }
  return lines;
}

function time(ms: number): string {
  return new Date(ms).toISOString();
}

function count(messages: number): string {
  return new Intl.NumberFormat('en').format(messages);
}
