/** All twins as one list: search, site, filter, order, and only the rows in view in the document. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import {
  DEFAULT_CHOICE,
  type ListChoice,
  type Only,
  type SortBy,
  selectTwins,
  sortedKeys,
  visibleWindow,
} from './fleet-list.ts';
import { formatCount, formatDuration, formatTime } from './format.ts';
import { replaceHash, useLive, useNow } from './hooks.ts';
import type { Live } from './live.ts';
import type { Twin } from './model.ts';
import { fleetHash, siteHash, twinHash } from './route.ts';
import { DemoLinks } from './view-demo-links.ts';
import { Age, Notice, Value } from './view-parts.ts';

/** Widths, row heights and columns of values must be those of style.css. */
const phone = matchMedia('(max-width: 720px)');
const small = matchMedia('(max-width: 900px)');
const rowHeightNow = (): number => (phone.matches ? 68 : 44);
const metricsShownNow = (): number => (small.matches ? 2 : 4);

function useLayoutOf<T>(media: MediaQueryList, read: () => T): T {
  const [value, setValue] = useState(read);
  useEffect(() => {
    const onChange = (): void => setValue(read);
    media.addEventListener('change', onChange);
    return () => media.removeEventListener('change', onChange);
  }, [media, read]);
  return value;
}

export function FleetView({ live, choice }: { live: Live; choice: ListChoice }): VNode {
  useLive(live);
  const now = useNow();
  const search = useRef<HTMLInputElement>(null);
  const { fleet } = live;
  // Membership says when the names changed
  const byName = useMemo(() => sortedKeys(fleet.twins), [fleet, fleet.membership]);
  // Once a second, so that rows ordered by age can be read and clicked while values change many times a second.
  const second = Math.floor(now / 1_000);
  const text = fleetHash(choice);
  // `text` stands for `choice`, `second` for `now`
  const selection = useMemo(
    () => selectTwins(fleet.twins, byName, choice, now, live.silentSince),
    [fleet, byName, text, second],
  );

  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
      if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      search.current?.focus();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);

  const choose: Choose = change => replaceHash(fleetHash({ ...choice, ...change }));
  const sites = (live.sites() ?? []).map(({ site }) => site);
  if (choice.site !== '' && !sites.includes(choice.site)) sites.push(choice.site);
  const only = (value: Only, label: string, count: number): VNode => html`
    <button type="button" aria-pressed=${choice.only === value} onClick=${() => choose({ only: value })}>
      ${label} <span class="figure">${formatCount(count)}</span>
    </button>`;

  return html`
    <h1 class="unseen">Fleet</h1>
    <form class="toolbar" role="search" onSubmit=${(event: Event) => event.preventDefault()}>
      <input ref=${search} type="search" aria-label="Search devices" placeholder="Search devices  ( / )"
        autocomplete="off" spellcheck=${false} value=${choice.search}
        onInput=${(event: Event) => choose({ search: (event.target as HTMLInputElement).value })} />
      <select aria-label="Site" value=${choice.site}
        onChange=${(event: Event) => choose({ site: (event.target as HTMLSelectElement).value })}>
        <option value="">All sites</option>
        ${sites.map(site => html`<option key=${site} value=${site}>${site}</option>`)}
      </select>
      ${choice.site === '' ? null : html`<a class="site-link" href=${siteHash(choice.site)}>About this site</a>`}
      <div class="choices" role="group" aria-label="Show">
        ${only('all', 'All', selection.counts.all)} ${only('alerts', 'Alerts', selection.counts.alerts)}
        ${only('stale', 'Stale', selection.counts.stale)}
      </div>
    </form>
    <${DemoLinks} live=${live} />
    <${SilentSites} live=${live} site=${choice.site} now=${now} />
    ${fleet.refused > 0 ? html`<p class="old">This page shows at most ${formatCount(fleet.twinsMax)} twins; there are more.</p>` : null}
    ${
      selection.keys.length > 0
        ? html`<${TwinList} live=${live} twins=${fleet.twins} keys=${selection.keys} now=${now} choice=${choice} choose=${choose} />`
        : html`<${NoTwins} live=${live} choice=${choice} choose=${choose} />`
    }`;
}

const SILENT_SITES_SHOWN = 4;

/** Why many twins at once look old: their site is not heard. */
function SilentSites({ live, site, now }: { live: Live; site: string; now: number }): VNode | null {
  const silent = (live.sites() ?? [])
    .filter(each => site === '' || each.site === site)
    .map(each => ({ site: each.site, since: live.silentSince(each.site) }))
    .filter(({ since }) => since !== null);
  if (silent.length === 0) return null;
  const more = silent.length - SILENT_SITES_SHOWN;
  return html`<p class="old silent-sites" role="status">No word from${' '}
    ${silent.slice(0, SILENT_SITES_SHOWN).map(
      (
        each,
        index,
      ) => html`${index === 0 ? '' : ', '}<a key=${each.site} href=${siteHash(each.site)}>${each.site}</a>${' '}
        for ${formatDuration(now - (each.since ?? now))}`,
    )}${more > 0 ? ` and ${more} more sites` : ''}: the values shown are the last that arrived.
  </p>`;
}

type Choose = (change: Partial<ListChoice>) => void;

function NoTwins({ live, choice, choose }: { live: Live; choice: ListChoice; choose: Choose }): VNode {
  const { fleet } = live;
  const sites = live.sites();
  const failure = live.sitesFailure();
  if (fleet.twins.size > 0) {
    return html`<${Notice} title="No twin matches">
      <p>${formatCount(fleet.twins.size)} twins are outside of this search.</p>
      <button type="button" onClick=${() => choose({ ...DEFAULT_CHOICE, sort: choice.sort, descending: choice.descending })}>Show all</button>
    <//>`;
  }
  if (sites === null && failure !== null) {
    return html`<${Notice} title="The fleet cannot be loaded" kind="failed"><p>${failure}. Trying again.</p><//>`;
  }
  const waiting = sites === null || sites.some(({ site }) => !fleet.complete.has(`site:${site}`));
  if (waiting) {
    const problem = live.pushProblem();
    return problem === null
      ? html`<${Notice} title="Loading the fleet…" kind="busy" />`
      : html`<${Notice} title="The fleet cannot be loaded" kind="failed"><p>${problem}. Trying again.</p><//>`;
  }
  return html`<${Notice} title="No device has reported yet">
    <p>A twin appears here as soon as its device publishes, for example</p>
    <p><code>mosquitto_pub -t devices/x/telemetry -m '{"temperature":21}' -q 1</code></p>
  <//>`;
}

type ListProps = {
  live: Live;
  twins: ReadonlyMap<string, Twin>;
  keys: readonly string[];
  now: number;
  choice: ListChoice;
  choose: Choose;
};

/** Where the list was left last, so that coming back from a twin finds it as it was. */
const leftAt = new Map<string, number>();

function TwinList({ live, twins, keys, now, choice, choose }: ListProps): VNode {
  const rowHeight = useLayoutOf(phone, rowHeightNow);
  const metricsShown = useLayoutOf(small, metricsShownNow);
  const scroller = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 900 });
  const focusOn = useRef<number | null>(null);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const measure = (): void => setView({ top: element.scrollTop, height: element.clientHeight });
    element.scrollTop = leftAt.get(location.hash) ?? 0;
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener('scroll', measure, { passive: true });
    const { hash } = location;
    return () => {
      leftAt.clear();
      leftAt.set(hash, element.scrollTop);
      observer.disconnect();
      element.removeEventListener('scroll', measure);
    };
  }, []);

  const rows = visibleWindow(view.top, view.height, rowHeight, keys.length);

  const focusRow = (): void => {
    if (focusOn.current === null) return;
    const link = scroller.current?.querySelector<HTMLElement>(`[aria-rowindex="${focusOn.current + 2}"] a`);
    if (link == null) return;
    focusOn.current = null;
    link.focus({ preventScroll: true });
  };
  // A row reached by key may only be in the document after the scroll has drawn it.
  useEffect(focusRow);

  const onKey = (event: KeyboardEvent): void => {
    const row = (event.target as HTMLElement).closest('[aria-rowindex]');
    const element = scroller.current;
    if (row === null || element === null) return;
    const index = Number(row.getAttribute('aria-rowindex')) - 2;
    const page = Math.max(1, Math.floor(element.clientHeight / rowHeight) - 2);
    const steps = new Map([
      ['ArrowDown', 1],
      ['ArrowUp', -1],
      ['PageDown', page],
      ['PageUp', -page],
      ['Home', -keys.length],
      ['End', keys.length],
    ]);
    const step = steps.get(event.key);
    if (step === undefined || index < 0) return;
    event.preventDefault();
    const target = Math.min(keys.length - 1, Math.max(0, index + step));
    focusOn.current = target;
    const top = target * rowHeight;
    const room = element.clientHeight - 2 * rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top > element.scrollTop + room) element.scrollTop = top - room;
    setView({ top: element.scrollTop, height: element.clientHeight });
    focusRow();
  };

  const heading = (sort: SortBy, label: string): VNode => {
    const chosen = choice.sort === sort;
    const order = choice.descending ? 'descending' : 'ascending';
    return html`<div role="columnheader" class="cell-${sort}" aria-sort=${chosen ? order : 'none'}>
      <button type="button" onClick=${() => choose({ sort, descending: chosen ? !choice.descending : sort === 'age' || sort === 'alerts' })}>
        ${label}<span class="order" aria-hidden="true">${chosen ? (choice.descending ? '↓' : '↑') : ''}</span>
      </button>
    </div>`;
  };

  return html`<div class="twins" ref=${scroller} role="table" aria-label="Twins" aria-rowcount=${keys.length + 1} onKeyDown=${onKey}>
    <div role="rowgroup" class="twins-head">
      <div role="row" aria-rowindex="1" class="twins-row">
        ${heading('device', 'Device')} ${heading('site', 'Site')}
        <div role="columnheader" class="cell-values">Values</div>
        ${heading('age', 'Newest value')} ${heading('alerts', 'Alerts')}
      </div>
    </div>
    <div role="rowgroup">
      <div role="presentation" style=${{ height: `${rows.heightBefore}px` }}></div>
      ${keys.slice(rows.first, rows.last).map((key, offset) => {
        const twin = twins.get(key);
        return twin === undefined
          ? null
          : html`<${TwinRow} key=${key} twin=${twin} now=${now} silentSince=${live.silentSince(twin.site)} metricsShown=${metricsShown} rowIndex=${rows.first + offset + 2} />`;
      })}
      <div role="presentation" style=${{ height: `${rows.heightAfter}px` }}></div>
    </div>
  </div>`;
}

const byMetricName = (a: readonly [string, unknown], b: readonly [string, unknown]): number =>
  a[0] < b[0] ? -1 : 1;

type RowProps = {
  twin: Twin;
  now: number;
  silentSince: number | null;
  metricsShown: number;
  rowIndex: number;
};

function TwinRow({ twin, now, silentSince, metricsShown, rowIndex }: RowProps): VNode {
  const metrics = [...twin.metrics].sort(byMetricName);
  const more = metrics.length - metricsShown;
  return html`<div role="row" class="twins-row twin" aria-rowindex=${rowIndex} data-twin=${twin.key}>
    <div role="cell" class="cell-device"><a href=${twinHash(twin.site, twin.device)}>${twin.device}</a>
      <${Away} twin=${twin} now=${now} silentSince=${silentSince} /></div>
    <div role="cell" class="cell-site"><a href=${siteHash(twin.site)}>${twin.site}</a></div>
    <div role="cell" class="cell-values">
      ${metrics.slice(0, metricsShown).map(
        ([name, { value }]) => html`<span class="reading" key=${name}>
          <span class="name" title=${name}>${name}</span><${Value} value=${value} /></span>`,
      )}
      ${more > 0 ? html`<span class="more">+${more}</span>` : null}
    </div>
    <div role="cell" class="cell-age"><${Age} at=${twin.newestAt} now=${now} silentSince=${silentSince} /></div>
    <div role="cell" class="cell-alerts">
      ${
        twin.alerts.size === 0
          ? null
          : html`<span class="badge" data-severity=${worstOf(twin)} title=${[...twin.alerts.keys()].join(', ')}>
              ${twin.alerts.size} open</span>`
      }
    </div>
  </div>`;
}

/** Behind a silent gateway nobody knows whether a device is connected. */
function Away({
  twin,
  now,
  silentSince,
}: {
  twin: Twin;
  now: number;
  silentSince: number | null;
}): VNode | null {
  if (silentSince !== null) {
    const title = `Its gateway has been silent since ${formatTime(silentSince, now)}`;
    return html`<span class="away" title=${title}>gateway silent</span>`;
  }
  if (twin.presence === null || twin.presence.online) return null;
  const title = `Offline since ${formatTime(twin.presence.at, now)}`;
  return html`<span class="away" title=${title}>offline ${formatDuration(now - twin.presence.at)}</span>`;
}

const worstOf = (twin: Twin): string =>
  [...twin.alerts.values()].some(({ severity }) => severity === 'critical') ? 'critical' : 'warning';
