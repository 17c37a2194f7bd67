/** What the site page says of gateways and their logs, as words. Pure. */
import { formatCount, formatDuration, formatTime } from './format.ts';
import {
  type Counts,
  FATES,
  type Fate,
  type Forecast,
  type Gateway,
  type SequenceRange,
} from './site-model.ts';

/** `full in 3 d 4 h at this rate`, `drained in 40 s`, `does not fill`. */
export function forecastWords({ fullInSeconds, drainedInSeconds }: Forecast, waiting: number | null): string {
  if (fullInSeconds !== null) {
    return fullInSeconds <= 0 ? 'full now' : `full in ${formatDuration(fullInSeconds * 1_000)} at this rate`;
  }
  if (drainedInSeconds !== null && drainedInSeconds > 0) {
    return `drained in ${formatDuration(drainedInSeconds * 1_000)}`;
  }
  const stuck = drainedInSeconds === null && waiting !== null && waiting > 0;
  return stuck ? 'does not fill, and does not drain yet' : 'does not fill';
}

/** @param current whether the page itself is up to date: otherwise nobody knows that a gateway is up */
export const linkWords = ({ silentSince, lastHelloAt }: Gateway, now: number, current: boolean): string => {
  if (silentSince !== null) {
    return `silent since ${formatTime(silentSince, now)}, for ${formatDuration(now - silentSince)}`;
  }
  const heard = lastHelloAt === null ? '' : `heard ${formatDuration(now - lastHelloAt)} ago`;
  if (!current) return heard === '' ? 'unknown' : `last ${heard}`;
  return heard === '' ? 'up' : `up, ${heard}`;
};

export function waitingWords({ unsettledMessages, oldestUnsettledAt }: Gateway, now: number): string {
  if (unsettledMessages === null) return '–';
  if (unsettledMessages === 0) return 'nothing';
  const messages = countWords(unsettledMessages, 'message');
  return oldestUnsettledAt === null
    ? messages
    : `${messages}, the oldest from ${formatTime(oldestUnsettledAt, now)} (${formatDuration(now - oldestUnsettledAt)} ago)`;
}

export const countWords = (count: number, of: string): string =>
  `${formatCount(count)} ${of}${count === 1 ? '' : 's'}`;

export const FATE_WORDS: Readonly<Record<Fate, string>> = {
  live: 'live',
  late: 'late',
  thinned: 'thinned',
  quarantined: 'set aside',
  expired: 'expired',
  missing: 'missing',
  lost: 'lost',
};

/** Fates that occur, with their messages; `live` always, so that there is something to say of an empty log too. */
export const fatesOf = (counts: Counts): Array<readonly [Fate, number]> =>
  FATES.map((fate): readonly [Fate, number] => [fate, counts.get(fate) ?? 0]).filter(
    ([fate, count]) => count > 0 || fate === 'live',
  );

export const ledgerWords = (counts: Counts): string =>
  fatesOf(counts)
    .map(([fate, count]) => `${formatCount(count)} ${FATE_WORDS[fate]}`)
    .join(', ');

/** `5 to 8 (4 messages)`, `12` */
export const rangeWords = ({ first, last }: SequenceRange): string =>
  first === last
    ? formatCount(first)
    : `${formatCount(first)} to ${formatCount(last)} (${countWords(last - first + 1, 'message')})`;
