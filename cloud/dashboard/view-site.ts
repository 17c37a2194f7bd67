/** One site: what each of its gateways says of itself, and what of its messages history has. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { paths, serverNow } from './api.ts';
import { DEFAULT_CHOICE } from './fleet-list.ts';
import { formatAge, formatBytes, formatCount, formatDuration, formatTime } from './format.ts';
import { useLive, useNow, usePolled } from './hooks.ts';
import type { Live } from './live.ts';
import { fleetHash } from './route.ts';
import {
  type Counts,
  type DataBudget,
  type Gateway,
  type GatewayLedger,
  type LogLedger,
  readCompleteness,
} from './site-model.ts';
import {
  countWords,
  FATE_WORDS,
  fatesOf,
  forecastWords,
  ledgerWords,
  linkWords,
  rangeWords,
  waitingWords,
} from './site-words.ts';
import { Notice, OldFigures, ProblemNotice, ShareBar } from './view-parts.ts';
import { Swatch } from './view-shades.ts';

const COMPLETENESS_INTERVAL_MS = 5_000;

export function SiteView({ live, site }: { live: Live; site: string }): VNode {
  useLive(live);
  const now = useNow();
  const polled = live.polledSites();
  const found = polled.value?.find(each => each.site === site) ?? null;
  const choice = { ...DEFAULT_CHOICE, site };
  return html`
    <nav class="trail" aria-label="Place"><a href="#/">Fleet</a> / <a href=${fleetHash(choice)}>${site}</a></nav>
    <div class="twin-head"><h1>${site}</h1>
      ${found === null ? null : html`<a href=${fleetHash(choice)}>${countWords(found.twins, 'twin')}</a>`}</div>
    ${
      polled.value === null
        ? polled.problem === null
          ? html`<${Notice} title="Loading the site…" kind="busy" />`
          : html`<${ProblemNotice} title="The site cannot be loaded" problem=${polled.problem} />`
        : html`<${OldFigures} polled=${polled} now=${now} />
          ${
            found === null
              ? html`<${Notice} title="No gateway of a site with this name has been heard">
                  <p>It appears here with the first hello of its gateway.</p>
                <//>`
              : found.gateways.length === 0
                ? html`<${Notice} title="No gateway of this site has been heard yet" />`
                : html`<div class="gateways">${found.gateways.map(
                    gateway => html`<${GatewayPanel} key=${gateway.gateway} gateway=${gateway} now=${now}
                      current=${polled.problem === null} />`,
                  )}</div>`
          }`
    }
    <${CompletenessPanel} key=${site} site=${site} now=${now} />`;
}

/** @param current whether the page itself is up to date; otherwise nothing here is known to be so now */
function GatewayPanel({ gateway, now, current }: { gateway: Gateway; now: number; current: boolean }): VNode {
  const { silentSince, role, broker, forecast, dataBudget } = gateway;
  const link = silentSince !== null ? 'silent' : current ? 'up' : 'unknown';
  const id = `gateway-${gateway.gateway}`;
  const waiting = gateway.unsettledMessages;
  return html`<section class="panel gateway" data-gateway=${gateway.gateway} data-link=${link} aria-labelledby=${id}>
    <div class="gateway-head">
      <h2 id=${id}>${gateway.gateway}</h2>
      ${role === null ? null : html`<span class="role" title=${ROLE_TITLES[role]}>${role}</span>`}
      <p class="gateway-link"><span class="lamp" aria-hidden="true"></span>${linkWords(gateway, now, current)}</p>
    </div>
    ${
      silentSince === null
        ? null
        : html`<p class="old">These figures are what it said ${formatAge(silentSince, now)}. Whatever it has taken since waits on its disk.</p>`
    }
    <dl class="figures">
      <div><dt>Broker</dt><dd>${
        broker === null
          ? '–'
          : broker.connected
            ? 'connected'
            : html`<strong class="still">${broker.reason || 'not connected'}</strong>`
      }</dd></div>
      <div><dt>Buffer</dt><dd>${
        gateway.bufferBytes === null
          ? '–'
          : html`<${ShareBar} used=${gateway.bufferBytes} max=${gateway.bufferBytesMax} label="Buffer of ${gateway.gateway}" />`
      }</dd></div>
      <div><dt>Waiting</dt><dd>${waitingWords(gateway, now)}</dd></div>
      <div><dt>Forecast</dt><dd>${forecast === null ? '–' : forecastWords(forecast, waiting)}${silentSince === null || forecast === null ? '' : ', it said then'}</dd></div>
      <div><dt>Left to send</dt><dd>${gateway.wireBytesLeft === null ? '–' : formatBytes(gateway.wireBytesLeft)}</dd></div>
      ${dataBudget === null ? null : html`<div><dt>Data budget</dt><dd><${Budget} budget=${dataBudget} now=${now} /></dd></div>`}
      ${gateway.thinnedMessages === 0 ? null : html`<div><dt>Thinned on disk</dt><dd>${countWords(gateway.thinnedMessages, 'message')}</dd></div>`}
      ${gateway.lostMessages === 0 ? null : html`<div><dt>Lost</dt><dd class="still">${countWords(gateway.lostMessages, 'message')}</dd></div>`}
      ${gateway.dropped === 0 ? null : html`<div><dt>Refused, buffer full</dt><dd class="still">${countWords(gateway.dropped, 'message')}</dd></div>`}
    </dl>
  </section>`;
}

const ROLE_TITLES = {
  active: 'Takes messages from the broker',
  standby: 'Takes over when the active gateway fails',
} as const;

function Budget({ budget, now }: { budget: DataBudget; now: number }): VNode {
  const { bytesUsed, bytesMax, resetsAt } = budget;
  return html`<${ShareBar} used=${bytesUsed} max=${bytesMax} label="Data budget" />
    ${
      resetsAt === null
        ? null
        : html`<span class="aside">${resetsAt > now ? `resets in ${formatDuration(resetsAt - now)}` : `was to reset at ${formatTime(resetsAt, now)}`}</span>`
    }`;
}

function CompletenessPanel({ site, now }: { site: string; now: number }): VNode {
  const polled = usePolled(
    paths.completeness(site),
    body => readCompleteness(body, serverNow()),
    COMPLETENESS_INTERVAL_MS,
  );
  const { value, problem } = polled;
  const ledgers = value?.gateways.filter(({ logs }) => logs.length > 0) ?? [];
  return html`<section class="panel completeness" aria-labelledby="completeness">
    <h2 id="completeness">Completeness</h2>
    <${OldFigures} polled=${polled} now=${now} />
    ${
      value === null
        ? problem === null
          ? html`<${Notice} title="Loading the ledger…" kind="busy" />`
          : problem.status === 404
            ? html`<${Notice} title="No message of this site is known yet" />`
            : html`<${ProblemNotice} title="The ledger cannot be loaded" problem=${problem} />`
        : ledgers.length === 0
          ? html`<${Notice} title="No message of this site is known yet" />`
          : html`<p class="aside">What became of every message that a gateway has taken, one row per run of its process.
                Missing ones are on its disk or under way, and are sent by themselves.</p>
              ${ledgers.map(ledger => html`<${Ledger} key=${ledger.gateway} ledger=${ledger} now=${now} />`)}`
    }
    ${value?.truncated ? html`<p class="aside">The newest logs are shown; the totals count all of them.</p>` : null}
  </section>`;
}

function Ledger({ ledger, now }: { ledger: GatewayLedger; now: number }): VNode {
  return html`<section class="ledger" aria-label="Completeness of ${ledger.gateway}">
    <h3>${ledger.gateway} <span class="aside">${ledgerWords(ledger.totals)}</span></h3>
    <ol class="logs">${ledger.logs.map(log => html`<${Log} key=${log.logId} log=${log} now=${now} />`)}</ol>
  </section>`;
}

const LOG_ID_END_CHARS = 6;

function Log({ log, now }: { log: LogLedger; now: number }): VNode {
  const { logId, startedAt, lastSeenAt, counts, missing } = log;
  const missingCount = counts.get('missing') ?? 0;
  return html`<li class="log" data-log=${logId}>
    <p class="log-name">
      <strong>${startedAt === null ? 'Log' : `Begun ${formatTime(startedAt, now)}`}</strong>${' '}
      <code title=${logId}>…${logId.slice(-LOG_ID_END_CHARS)}</code>${' '}
      ${lastSeenAt === null ? null : html`<span class="aside">last named ${formatAge(lastSeenAt, now)}</span>`}
    </p>
    <div class="log-body">
      <${LedgerBar} counts=${counts} />
      <ul class="fates">${fatesOf(counts).map(
        ([fate, count]) =>
          html`<li key=${fate} data-fate=${fate}><${Swatch} kind=${fate} />${formatCount(count)} ${FATE_WORDS[fate]}</li>`,
      )}</ul>
      ${
        missingCount === 0 || missing.ranges.length === 0
          ? null
          : html`<details>
              <summary>Which are missing</summary>
              <p>Sequences ${missing.ranges.map(rangeWords).join(', ')}${missing.more ? ', and more' : ''}</p>
            </details>`
      }
    </div>
  </li>`;
}

/** Parts in proportion; a single message is still seen. The numbers beside it say the same. */
function LedgerBar({ counts }: { counts: Counts }): VNode {
  return html`<div class="ledger-bar" role="img" aria-label=${ledgerWords(counts)}>
    ${fatesOf(counts)
      .filter(([, count]) => count > 0)
      .map(([fate, count]) => html`<span key=${fate} data-kind=${fate} style=${{ flexGrow: count }}></span>`)}
  </div>`;
}
