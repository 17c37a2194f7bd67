/**
 * Which twins the fleet list shows, in which order, and which rows of it are in view. Made for 10,000 twins: names are
 * sorted once per change of membership, every other order is a stable sort on top of that.
 */
import { freshness } from './format.ts';
import type { Twin } from './model.ts';

export type SortBy = 'device' | 'site' | 'age' | 'alerts';
export type Only = 'all' | 'alerts' | 'stale';
export type ListChoice = {
  readonly search: string;
  /** `''`: every site. */
  readonly site: string;
  readonly only: Only;
  readonly sort: SortBy;
  readonly descending: boolean;
};

export const DEFAULT_CHOICE: ListChoice = {
  search: '',
  site: '',
  only: 'all',
  sort: 'device',
  descending: false,
};

const names = new Intl.Collator('en', { numeric: true });

/** Keys by device, then site: `pump-2` before `pump-10`. */
export function sortedKeys(twins: ReadonlyMap<string, Twin>): string[] {
  return [...twins.values()]
    .sort((a, b) => names.compare(a.device, b.device) || names.compare(a.site, b.site))
    .map(twin => twin.key);
}

export type Selection = {
  readonly keys: readonly string[];
  /** Within the chosen site and search, whatever `only` says. */
  readonly counts: { readonly all: number; readonly alerts: number; readonly stale: number };
};

/**
 * @param byName the keys in the order of {@link sortedKeys}
 * @param silentSince of a site: its gateways' silence makes its twins stale, whatever their values' ages
 */
export function selectTwins(
  twins: ReadonlyMap<string, Twin>,
  byName: readonly string[],
  choice: ListChoice,
  nowMs: number,
  silentSince: (site: string) => number | null = () => null,
): Selection {
  const words = choice.search.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen: Twin[] = [];
  const counts = { all: 0, alerts: 0, stale: 0 };
  for (const key of byName) {
    const twin = twins.get(key);
    if (twin === undefined || (choice.site !== '' && twin.site !== choice.site)) continue;
    const name = key.toLowerCase();
    if (!words.every(word => name.includes(word))) continue;
    const alerting = twin.alerts.size > 0;
    const state = freshness(twin.newestAt, nowMs, silentSince(twin.site));
    const stale = state !== 'fresh' && state !== 'recent';
    counts.all += 1;
    counts.alerts += Number(alerting);
    counts.stale += Number(stale);
    if (choice.only === 'all' || (choice.only === 'alerts' ? alerting : stale)) chosen.push(twin);
  }
  return { keys: ordered(chosen, choice).map(twin => twin.key), counts };
}

function ordered(twins: Twin[], { sort, descending }: ListChoice): Twin[] {
  const sign = descending ? -1 : 1;
  switch (sort) {
    case 'device':
      return descending ? twins.reverse() : twins;
    case 'site':
      return twins.sort((a, b) => sign * names.compare(a.site, b.site));
    case 'alerts':
      return twins.sort((a, b) => sign * (a.alerts.size - b.alerts.size));
    case 'age':
      // Youngest first; a twin without any value counts as the oldest.
      return twins.sort((a, b) => sign * ((b.newestAt ?? 0) - (a.newestAt ?? 0)));
  }
}

export type Window = {
  readonly first: number;
  /** Exclusive. */
  readonly last: number;
  readonly heightBefore: number;
  readonly heightAfter: number;
};

/** The rows to draw for a scroll position, with `overscan` more on both sides; heights in CSS pixels. */
export function visibleWindow(
  scrollTop: number,
  viewportHeight: number,
  rowHeight: number,
  count: number,
  overscan = 8,
): Window {
  const top = Math.min(Math.max(0, scrollTop), Math.max(0, count * rowHeight - viewportHeight));
  const first = Math.max(0, Math.floor(top / rowHeight) - overscan);
  const last = Math.min(count, Math.ceil((top + viewportHeight) / rowHeight) + overscan);
  return { first, last, heightBefore: first * rowHeight, heightAfter: (count - last) * rowHeight };
}
