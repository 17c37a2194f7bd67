/** One twin: its live values with their ages, the chart of one of them, its alerts. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { paths } from './api.ts';
import { type Point, valueRuns } from './chart-series.ts';
import { summariesWithin } from './chart-shades.ts';
import { formatDuration, formatTime, formatValue } from './format.ts';
import type { Shade, Summary } from './history-model.ts';
import { replaceHash, useLive, useNow, usePolled } from './hooks.ts';
import type { Live } from './live.ts';
import { type FeedState, type MetricFeed, startMetricFeed } from './metric-feed.ts';
import { type Reading, readIncidents, readTwin, type Twin, twinKey } from './model.ts';
import { type ChartChoice, siteHash, twinHash } from './route.ts';
import { IncidentTable } from './view-alerts.ts';
import { Chart } from './view-chart.ts';
import { Age, Notice, OldFigures, ProblemNotice, Severity, Value } from './view-parts.ts';
import { ShadeLegend } from './view-shades.ts';

const TWIN_INTERVAL_MS = 10_000;
const INCIDENTS_INTERVAL_MS = 15_000;
const INCIDENTS_MAX = 50;
const RUNS_MAX = 50;

const RANGES = [
  { label: '15 min', words: '15 minutes', rangeMs: 15 * 60_000 },
  { label: '1 h', words: 'hour', rangeMs: 3_600_000 },
  { label: '24 h', words: '24 hours', rangeMs: 24 * 3_600_000 },
  { label: '7 d', words: '7 days', rangeMs: 7 * 24 * 3_600_000 },
  { label: '90 d', words: '90 days', rangeMs: 90 * 24 * 3_600_000 },
] as const;
type Range = (typeof RANGES)[number];

type Subject = { readonly live: Live; readonly site: string; readonly device: string };

export function TwinView({ live, site, device, chart }: Subject & { chart: ChartChoice }): VNode {
  useLive(live);
  const now = useNow();
  // The push link brings the same and sooner; this says "unknown" or "failed" when it cannot.
  const asked = usePolled(paths.twin(site, device), readTwin, TWIN_INTERVAL_MS);
  const twin = newerOf(live.fleet.twins.get(twinKey(site, device)) ?? null, asked.value);
  const silentSince = live.silentSince(site);
  const head = html`<nav class="trail" aria-label="Place"><a href="#/">Fleet</a> / <a href=${siteHash(site)}>${site}</a></nav>
    <div class="twin-head"><h1>${device}</h1>
      ${
        twin === null
          ? null
          : html`<${Age} at=${twin.newestAt} now=${now} silentSince=${silentSince} />
            <${PresenceWords} twin=${twin} now=${now} silent=${silentSince !== null} />`
      }</div>
    ${silentSince === null ? null : html`<${SilentGateway} site=${site} since=${silentSince} now=${now} />`}`;

  if (twin === null) {
    const { problem } = asked;
    const body =
      problem === null
        ? html`<${Notice} title="Loading the twin…" kind="busy" />`
        : problem.status === 404
          ? html`<${Notice} title="This device has never reported">
              <p>There is no twin <code>${twinKey(site, device)}</code> yet. It appears here with its first message.</p>
            <//>`
          : html`<${ProblemNotice} title="The twin cannot be loaded" problem=${problem} />`;
    return html`${head}${body}`;
  }
  const metrics = [...twin.metrics].sort(([a], [b]) => (a < b ? -1 : 1));
  const metric =
    chart.metric !== null && twin.metrics.has(chart.metric) ? chart.metric : firstToShow(twin, metrics);
  const range = RANGES.find(({ label }) => label === chart.range) ?? RANGES[0];
  const choose = (change: Partial<ChartChoice>): void =>
    replaceHash(twinHash(site, device, { ...chart, ...change }));
  return html`${head}
    <${OpenAlerts} twin=${twin} now=${now} />
    <div class="twin-body">
      <section class="panel" aria-labelledby="values">
        <h2 id="values">Values <span class="figure">${metrics.length}</span></h2>
        ${
          metrics.length === 0
            ? html`<${Notice} title="No value yet" />`
            : html`<${Values} metrics=${metrics} metric=${metric} now=${now} silentSince=${silentSince} choose=${(name: string) => choose({ metric: name })} />`
        }
      </section>
      ${
        metric === null
          ? null
          : html`<${History} key=${metric} live=${live} site=${site} device=${device} metric=${metric} twin=${twin} now=${now}
            range=${range} setRange=${(next: Range) => choose({ range: next.label })} />`
      }
    </div>
    <${PastAlerts} twin=${twin} now=${now} />`;
}

function PresenceWords({ twin, now, silent }: { twin: Twin; now: number; silent: boolean }): VNode | null {
  if (twin.presence === null) return null;
  const { online, at } = twin.presence;
  const said = html`<time title=${formatTime(at, now)}>${formatDuration(now - at)}</time>`;
  if (silent)
    return html`<span class="presence">it last said that it was ${online ? 'online' : 'offline'}</span>`;
  return online
    ? html`<span class="presence" data-online="true">online</span>`
    : html`<span class="presence" data-online="false">offline since ${formatTime(at, now)}, for ${said}</span>`;
}

function SilentGateway({ site, since, now }: { site: string; since: number; now: number }): VNode {
  return html`<p class="old silent-gateway" role="status">
    Its <a href=${siteHash(site)}>gateway</a> has been silent for ${formatDuration(now - since)}:
    these values are the last that arrived, and newer ones may wait at the site.
  </p>`;
}

function newerOf(a: Twin | null, b: Twin | null): Twin | null {
  if (a === null || b === null) return a ?? b;
  return (b.epoch - a.epoch || b.version - a.version) > 0 ? b : a;
}

type Metrics = ReadonlyArray<readonly [string, Reading]>;

/** What an alert is about comes first, then the first number. */
function firstToShow(twin: Twin, metrics: Metrics): string | null {
  const alerting = [...twin.alerts.values()].find(({ metric }) => twin.metrics.has(metric));
  const number = metrics.find(([, { value }]) => typeof value === 'number');
  return alerting?.metric ?? (number ?? metrics[0])?.[0] ?? null;
}

type ValuesProps = {
  metrics: Metrics;
  metric: string | null;
  now: number;
  silentSince: number | null;
  choose: (metric: string) => void;
};

function Values({ metrics, metric, now, silentSince, choose }: ValuesProps): VNode {
  return html`<table class="values">
    <thead class="unseen"><tr><th scope="col">Metric</th><th scope="col">Value</th><th scope="col">Age</th></tr></thead>
    <tbody>
      ${metrics.map(
        ([name, reading]) => html`<tr key=${name} data-metric=${name} data-chosen=${name === metric}>
          <th scope="row"><button type="button" aria-pressed=${name === metric} title="Show the history of ${name}"
            onClick=${() => choose(name)}>${name}</button></th>
          <td class="number"><${Value} value=${reading.value} /></td>
          <td><${Age} at=${reading.at} now=${now} silentSince=${silentSince} /></td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

function OpenAlerts({ twin, now }: { twin: Twin; now: number }): VNode | null {
  if (twin.alerts.size === 0) return null;
  return html`<ul class="open-alerts" aria-label="Open alerts">
    ${[...twin.alerts.values()].map(
      alert => html`<li key=${alert.rule} data-severity=${alert.severity}>
        <${Severity} severity=${alert.severity} /> <strong>${alert.rule}</strong>
        <span>${alert.metric} was ${formatValue(alert.value)}${alert.threshold === null ? '' : `, limit ${formatValue(alert.threshold)}`}</span>
        <span class="aside">open for ${formatDuration(now - alert.openedAt)}</span>
      </li>`,
    )}
  </ul>`;
}

function PastAlerts({ twin, now }: { twin: Twin; now: number }): VNode {
  const path = paths.incidents(INCIDENTS_MAX, { site: twin.site, device: twin.device });
  const incidents = usePolled(path, readIncidents, INCIDENTS_INTERVAL_MS, [...twin.alerts.keys()].join());
  return html`<section class="panel" aria-labelledby="incidents">
    <h2 id="incidents">Incidents <span class="figure">${incidents.value?.length ?? ''}</span></h2>
    <${OldFigures} polled=${incidents} now=${now} />
    ${
      incidents.value === null
        ? incidents.problem === null
          ? html`<${Notice} title="Loading the incidents…" kind="busy" />`
          : html`<${ProblemNotice} title="The incidents cannot be loaded" problem=${incidents.problem} />`
        : incidents.value.length === 0
          ? html`<${Notice} title="No rule has ever fired for this device" />`
          : html`<${IncidentTable} incidents=${incidents.value} now=${now} ofOneTwin=${true} />`
    }
  </section>`;
}

type HistoryProps = Subject & {
  readonly metric: string;
  readonly twin: Twin;
  readonly now: number;
  readonly range: Range;
  readonly setRange: (range: Range) => void;
};

function History({ live, site, device, metric, twin, now, range, setRange }: HistoryProps): VNode {
  const [revision, setRevision] = useState(0);
  const feed = useRef<MetricFeed | null>(null);
  useEffect(() => {
    let changes = 0;
    const started = startMetricFeed(live, { site, device, metric, rangeMs: range.rangeMs }, () => {
      changes += 1;
      setRevision(before => before + changes);
    });
    feed.current = started;
    setRevision(before => before + 1);
    return () => started.stop();
  }, [live, site, device, metric, range]);

  const points = (): readonly Point[] => feed.current?.points() ?? [];
  const summaries = (): readonly Summary[] => feed.current?.summaries() ?? [];
  const silentSince = live.silentSince(site);
  // A silence goes on between two answers of history.
  const silence: readonly Shade[] =
    silentSince === null ? [] : [{ from: silentSince, to: now, what: 'missing' }];
  const shades = (): readonly Shade[] => [...(feed.current?.shades() ?? []), ...silence];
  const from = now - range.rangeMs;
  const state: FeedState = feed.current?.state() ?? { phase: 'loading' };
  const numeric =
    typeof twin.metrics.get(metric)?.value === 'number' ||
    summaries().length > 0 ||
    points().some(([, value]) => typeof value === 'number');
  const limits = [...twin.alerts.values()]
    .filter(alert => alert.metric === metric)
    .map(({ threshold }) => threshold)
    .filter(threshold => typeof threshold === 'number');

  return html`<section class="panel history" aria-labelledby="history">
    <div class="history-head">
      <h2 id="history">${metric}</h2>
      <div class="choices" role="group" aria-label="Range">
        ${RANGES.map(
          each => html`<button type="button" key=${each.label} aria-pressed=${each === range}
            onClick=${() => setRange(each)}>${each.label}</button>`,
        )}
      </div>
    </div>
    ${
      numeric
        ? html`<${Chart} label="${metric}, last ${range.words}" points=${points} summaries=${summaries} shades=${shades} rangeMs=${range.rangeMs}
            revision=${revision} limits=${limits} />`
        : html`<${ValueRuns} points=${points()} from=${from} now=${now} />`
    }
    <${ShadeLegend} shades=${shades()} from=${from} to=${now} band=${summariesWithin(summaries(), from, now).length > 0} />
    <${FeedNote} state=${state} now=${now} />
  </section>`;
}

function FeedNote({ state, now }: { state: FeedState; now: number }): VNode | null {
  if (state.phase === 'loading') return html`<p class="aside" role="status">Loading the history…</p>`;
  if (state.phase === 'failed') {
    return html`<p class="old" role="alert">The history cannot be loaded: ${state.problem.title}. Only live values are drawn. Trying again.</p>`;
  }
  return html`
    ${state.problem === null ? null : html`<p class="old" role="alert">The history is not up to date: ${state.problem.title}.</p>`}
    ${state.truncatedBefore === null ? null : html`<p class="aside">Too many readings for one picture: shown since ${formatTime(state.truncatedBefore, now)}.</p>`}`;
}

/** Words and switches: what it was, since when, newest first. */
function ValueRuns({ points, from, now }: { points: readonly Point[]; from: number; now: number }): VNode {
  const runs = valueRuns(
    points.filter(([at]) => at >= from),
    RUNS_MAX,
  );
  if (runs.length === 0) return html`<${Notice} title="No value in this range" />`;
  return html`<div class="scroll-x"><table class="runs">
    <thead><tr><th scope="col">Value</th><th scope="col">First seen</th><th scope="col">Last seen</th></tr></thead>
    <tbody>${runs.map(
      run => html`<tr key=${run.from}><th scope="row"><${Value} value=${run.value} /></th>
        <td>${formatTime(run.from, now)}</td><td>${formatTime(run.to, now)}</td></tr>`,
    )}</tbody>
  </table></div>`;
}
