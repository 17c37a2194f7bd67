/** What the pipeline page reads and says of backups: what is in none, and what that means. Pure. */

import { humanize } from './figures.ts';
import { formatCount, formatDuration, formatTime } from './format.ts';
import { field, isFields, numberOf, textOf } from './model.ts';

export type Backups = {
  /** When the last confirmed one was begun; `null` when none ever was. */
  readonly confirmedAt: number | null;
  readonly number: number | null;
  /** Begun after that one and not confirmed. */
  readonly begun: number;
  /** Since when what came in is in no confirmed backup; `null` when there is no data. */
  readonly since: number | null;
  readonly messages: number;
  /** How long gateways keep what is settled. */
  readonly keptHours: number;
  readonly state: 'empty' | 'fresh' | 'due' | 'overdue';
};

const STATES = ['empty', 'fresh', 'due', 'overdue'] as const;

export function readBackups(body: unknown): Backups {
  const of = (name: string, within: unknown = body): unknown =>
    isFields(within) ? field(within, name) : undefined;
  const [confirmed, uncovered, begun] = [of('confirmed'), of('uncovered'), of('begun')];
  return {
    confirmedAt: numberOf(of('begunAt', confirmed)),
    number: numberOf(of('id', confirmed)),
    begun: Array.isArray(begun) ? begun.length : 0,
    since: numberOf(of('since', uncovered)),
    messages: numberOf(of('messages', uncovered)) ?? 0,
    keptHours: numberOf(of('keptHours')) ?? 72,
    // What is not known is no reason to rest.
    state: STATES.find(state => state === textOf(of('state'))) ?? 'due',
  };
}

export type BackupWords = {
  readonly last: string;
  readonly uncovered: string;
  /** What is to be done about it; empty when nothing is. */
  readonly warning: string;
};

export function backupWords(backups: Backups, now: number): BackupWords {
  const { confirmedAt, number, since, messages, keptHours, state } = backups;
  const last =
    confirmedAt === null
      ? 'No backup was ever confirmed'
      : `Backup ${number}, begun ${formatTime(confirmedAt, now)} (${formatDuration(now - confirmedAt)} ago)`;
  const counted = `${formatCount(messages)} ${messages === 1 ? 'message' : 'messages'}`;
  const uncovered = since === null ? 'There is no data yet' : `${hoursWords(now - since)}, ${counted}`;
  return { last, uncovered, warning: warningOf(state, keptHours) };
}

/** Hours as such, however many: what gateways keep is told in hours too. */
const hoursWords = (ms: number): string =>
  ms < 3_600_000 ? formatDuration(ms) : `${Math.floor(ms / 3_600_000)} h`;

function warningOf(state: Backups['state'], keptHours: number): string {
  if (state === 'due')
    return `A backup is due. Gateways send again what a restore lacks for ${keptHours} h, space permitting.`;
  if (state === 'overdue')
    return `A backup is overdue: what gateways have given back after ${keptHours} h is in the database alone, and would be lost with it.`;
  return '';
}

/** One line on the whole pipeline. Neither old figures nor a missing backup let it say that all is well. */
export function stateWords(of: { status: string; overdue: boolean; current: boolean }): string {
  const { status, overdue, current } = of;
  const well = overdue ? 'Running; a backup is overdue' : 'All is well';
  const words = status === 'ok' ? well : humanize(status);
  return current ? words : `Unknown; last heard: ${words.toLowerCase()}`;
}
