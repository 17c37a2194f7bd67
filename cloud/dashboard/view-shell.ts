/** The frame around every view: navigation, the state of the push link, and the notice when it is cut. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { paths, serverNow } from './api.ts';
import { formatDuration, formatTime } from './format.ts';
import { useLive, useNow, usePolled } from './hooks.ts';
import type { Live } from './live.ts';
import { readIncidents, twinKey } from './model.ts';
import type { LinkStatus } from './push-client.ts';
import { parseRoute, type Route } from './route.ts';
import { AlertsView } from './view-alerts.ts';
import { FleetView } from './view-fleet.ts';
import { HealthView } from './view-health.ts';
import { Notice } from './view-parts.ts';
import { SiteView } from './view-site.ts';
import { TwinView } from './view-twin.ts';

const INCIDENTS_INTERVAL_MS = 5_000;
const INCIDENTS_MAX = 200;

function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const onChange = (): void => setHash(location.hash);
    addEventListener('hashchange', onChange);
    return () => removeEventListener('hashchange', onChange);
  }, []);
  return parseRoute(hash);
}

/** What a change of means that another page is shown. */
function placeOf(route: Route): string {
  if (route.view === 'twin') return twinKey(route.site, route.device);
  return route.view === 'site' ? `site ${route.site}` : route.view;
}

function titleOf(route: Route): string {
  if (route.view === 'twin') return route.device;
  return route.view === 'site' ? route.site : TITLES[route.view];
}

const TITLES = { fleet: 'Fleet', alerts: 'Alerts', health: 'Pipeline', unknown: 'Not found' } as const;

export function Shell({ live }: { live: Live }): VNode {
  useLive(live);
  const route = useRoute();
  const main = useRef<HTMLElement>(null);
  const incidents = usePolled(
    paths.incidents(INCIDENTS_MAX),
    readIncidents,
    INCIDENTS_INTERVAL_MS,
    live.incidentsRevision(),
  );
  const open = incidents.value?.filter(({ clearedAt }) => clearedAt === null).length ?? 0;
  const place = placeOf(route);

  useEffect(() => {
    if (route.view === 'twin') live.focus({ view: 'twin', key: place });
    else live.focus(route.view === 'fleet' ? { view: 'fleet' } : null);
    document.title = `${titleOf(route)} · Holdfast`;
    scrollTo(0, 0);
  }, [live, route.view, place]);

  const tab = (view: Route['view'], href: string, label: string, count = 0): VNode => html`
    <a href=${href} aria-current=${route.view === view ? 'page' : undefined}>
      ${label}${count > 0 ? html` <span class="count" aria-label="${count} open">${count}</span>` : null}
    </a>`;

  return html`
    <a class="skip" href=${location.hash || '#/'} onClick=${(event: Event) => {
      event.preventDefault();
      main.current?.focus();
    }}>Skip to content</a>
    <header class="top">
      <a class="mark" href="#/"><img src="/dashboard/icon.svg" alt="" width="22" height="22" />Holdfast</a>
      <nav aria-label="Views">
        ${tab('fleet', '#/', 'Fleet')} ${tab('alerts', '#/alerts', 'Alerts', open)}
        ${tab('health', '#/health', 'Pipeline')}
      </nav>
      <${LinkState} link=${live.link()} />
    </header>
    <${CutNotice} live=${live} />
    <main ref=${main} tabindex="-1" class="view-${route.view}" data-live=${live.link().phase === 'open'}>${viewOf(route, live, incidents)}</main>`;
}

function viewOf(route: Route, live: Live, incidents: ReturnType<typeof usePolled>): VNode {
  switch (route.view) {
    case 'fleet':
      return html`<${FleetView} live=${live} choice=${route.choice} />`;
    case 'twin':
      return html`<${TwinView}
        key=${twinKey(route.site, route.device)} live=${live} site=${route.site} device=${route.device}
        chart=${{ metric: route.metric, range: route.range }} />`;
    case 'site':
      return html`<${SiteView} key=${route.site} live=${live} site=${route.site} />`;
    case 'alerts':
      return html`<${AlertsView} incidents=${incidents} incidentsMax=${INCIDENTS_MAX} onChanged=${live.incidentsChanged} />`;
    case 'health':
      return html`<${HealthView} live=${live} />`;
    case 'unknown':
      return html`<${Notice} title="There is nothing at this address">
        <p>No view is called <code>${route.path}</code>. <a href="#/">Back to the fleet</a></p>
      <//>`;
  }
}

const LINK_LABELS: Record<LinkStatus['phase'], string> = {
  open: 'Live',
  connecting: 'Connecting',
  waiting: 'Cut off',
  stopped: 'Stopped',
};

function LinkState({ link }: { link: LinkStatus }): VNode {
  return html`<p class="link" role="status" data-phase=${link.phase}>
    <span class="lamp" aria-hidden="true"></span>${LINK_LABELS[link.phase]}
  </p>`;
}

/** Also up while a lost link is being opened again: only an open link makes the values live. */
function CutNotice({ live }: { live: Live }): VNode | null {
  useNow();
  const link = live.link();
  if (link.phase === 'open' || link.phase === 'stopped') return null;
  if (link.phase === 'connecting' && link.attempt === 0 && Date.now() - link.downSince < 1_500) return null;
  const skew = serverNow() - Date.now();
  const since = link.downSince + skew;
  const retry =
    link.phase === 'connecting'
      ? 'Connecting…'
      : `Next try in ${formatDuration(Math.max(1_000, link.retryAt - Date.now() + 999))}.`;
  return html`<div class="cut" role="alert">
    <p>
      <strong>No live connection for ${formatDuration(serverNow() - since)}.</strong>${' '}
      Values are as they were at ${formatTime(since, serverNow())}. <span aria-live="off">${retry}</span>
    </p>
    <button type="button" onClick=${() => live.retryNow()} disabled=${link.phase === 'connecting'}>Try now</button>
  </div>`;
}
