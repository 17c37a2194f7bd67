/**
 * Makes figures readable from their names alone: `lagMs`, `bytesMax`, `messagesPerSecond` carry their units, so a new
 * key in /health shows up well without a change here.
 */
import { formatAge, formatBytes, formatCount, formatDuration, formatNumber } from './format.ts';

export type Figure = { readonly label: string; readonly text: string };
export type FigureGroup = { readonly title: string; readonly figures: readonly Figure[] };

/** `eventLoopLag` → `Event loop lag` */
export function humanize(name: string): string {
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replace(/[_-]+/g, ' ')
    .toLowerCase()
    .trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

type Unit = { readonly suffix: RegExp; readonly write: (value: number, nowMs: number) => string };

const UNITS: readonly Unit[] = [
  {
    suffix: /PerSecond$/,
    write: value =>
      `${value < 100 ? formatNumber(Number(value.toPrecision(3))) : formatCount(Math.round(value))} /s`,
  },
  {
    suffix: /Ms$/,
    write: value =>
      value < 1_000 ? `${formatNumber(Number(value.toPrecision(3)))} ms` : formatDuration(value),
  },
  { suffix: /Seconds$/, write: value => formatDuration(value * 1_000) },
  { suffix: /At$/, write: (value, nowMs) => formatAge(value, nowMs) },
];

/** @param unitName the name whose unit applies: its own, or the group's (`eventLoopLagMs` of `p99`) */
export function figureOf(name: string, value: unknown, nowMs: number, unitName = name): Figure {
  const unit =
    UNITS.find(({ suffix }) => suffix.test(name)) ?? UNITS.find(({ suffix }) => suffix.test(unitName));
  const label = humanize(unit === undefined ? name : name.replace(unit.suffix, '') || name);
  if (typeof value === 'number') {
    if (unit !== undefined) return { label, text: unit.write(value, nowMs) };
    if (/bytes/i.test(name)) {
      return { label: humanize(name.replace(/bytes/i, '').trim() || 'size'), text: formatBytes(value) };
    }
    return { label, text: Number.isInteger(value) ? formatCount(value) : formatNumber(value) };
  }
  if (typeof value === 'boolean') return { label, text: value ? 'yes' : 'no' };
  return { label, text: value === null || value === undefined ? '–' : String(value) };
}

/** Top-level figures make the first group, every nested object one of its own; empty ones are left out. */
export function figureGroups(
  health: { readonly [name: string]: unknown },
  nowMs: number,
  leaveOut: ReadonlySet<string>,
): FigureGroup[] {
  const top: Figure[] = [];
  const groups: FigureGroup[] = [];
  for (const [name, value] of Object.entries(health)) {
    if (leaveOut.has(name)) continue;
    if (typeof value !== 'object' || value === null) top.push(figureOf(name, value, nowMs));
    else {
      const title = humanize(name.replace(/Ms$|Seconds$/, ''));
      groups.push({ title, figures: flatten(value, nowMs, name, '') });
    }
  }
  return [{ title: '', figures: top }, ...groups].filter(({ figures }) => figures.length > 0);
}

const NESTING_MAX = 4;

function flatten(value: object, nowMs: number, unitName: string, prefix: string, depth = 1): Figure[] {
  return Object.entries(value).flatMap(([name, inner]): Figure[] => {
    if (typeof inner === 'object' && inner !== null) {
      return depth < NESTING_MAX ? flatten(inner, nowMs, unitName, `${prefix}${name} `, depth + 1) : [];
    }
    const { label, text } = figureOf(name, inner, nowMs, unitName);
    return [{ label: prefix === '' ? label : `${humanize(prefix)} ${label.toLowerCase()}`, text }];
  });
}
