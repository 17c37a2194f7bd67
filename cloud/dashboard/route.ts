/** The part of the address behind `#`, so that every view, search and filter can be bookmarked and sent to somebody. */
import type { ListChoice, Only, SortBy } from './fleet-list.ts';
import { DEFAULT_CHOICE } from './fleet-list.ts';

/** What the twin's chart shows; `null` leaves it to the view. */
export type ChartChoice = { readonly metric: string | null; readonly range: string | null };

export type Route =
  | { readonly view: 'fleet'; readonly choice: ListChoice }
  | ({ readonly view: 'twin'; readonly site: string; readonly device: string } & ChartChoice)
  | { readonly view: 'site'; readonly site: string }
  | { readonly view: 'alerts' }
  | { readonly view: 'health' }
  | { readonly view: 'unknown'; readonly path: string };

const SORTS: readonly SortBy[] = ['device', 'site', 'age', 'alerts'];
const ONLY: readonly Only[] = ['all', 'alerts', 'stale'];

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % in a hand-written address
  }
}

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#/, '').split('?', 2);
  const [head = '', ...rest] = path.split('/').filter(Boolean).map(decode);
  const parameters = new URLSearchParams(query);
  if (head === '') return { view: 'fleet', choice: parseChoice(parameters) };
  if (head === 'alerts' || head === 'health') return { view: head };
  const [site, device] = rest;
  if (head === 'twin' && rest.length === 2 && site && device) {
    return { view: 'twin', site, device, metric: parameters.get('metric'), range: parameters.get('range') };
  }
  if (head === 'site' && rest.length === 1 && site) return { view: 'site', site };
  return { view: 'unknown', path };
}

function parseChoice(query: URLSearchParams): ListChoice {
  return {
    search: query.get('q') ?? '',
    site: query.get('site') ?? '',
    only: ONLY.find(only => only === query.get('only')) ?? DEFAULT_CHOICE.only,
    sort: SORTS.find(sort => sort === query.get('sort')) ?? DEFAULT_CHOICE.sort,
    descending: query.get('order') === 'desc',
  };
}

export function fleetHash(choice: ListChoice): string {
  const query = new URLSearchParams();
  if (choice.search !== '') query.set('q', choice.search);
  if (choice.site !== '') query.set('site', choice.site);
  if (choice.only !== DEFAULT_CHOICE.only) query.set('only', choice.only);
  if (choice.sort !== DEFAULT_CHOICE.sort) query.set('sort', choice.sort);
  if (choice.descending) query.set('order', 'desc');
  return query.size === 0 ? '#/' : `#/?${query}`;
}

export const siteHash = (site: string): string => `#/site/${encodeURIComponent(site)}`;

export function twinHash(site: string, device: string, chart?: ChartChoice): string {
  const query = new URLSearchParams();
  if (chart?.metric != null) query.set('metric', chart.metric);
  if (chart?.range != null) query.set('range', chart.range);
  const path = `#/twin/${encodeURIComponent(site)}/${encodeURIComponent(device)}`;
  return query.size === 0 ? path : `${path}?${query}`;
}
