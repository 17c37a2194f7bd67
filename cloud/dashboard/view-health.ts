/** How the pipeline itself is doing: its state and reasons, servers, gateways, figures, backups, and what it set aside. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { paths } from './api.ts';
import { readBackups, stateWords } from './backup-words.ts';
import { figureGroups } from './figures.ts';
import { excerpt, formatBytes, formatCount, formatTime } from './format.ts';
import { useLive, useNow, usePolled } from './hooks.ts';
import type { Live } from './live.ts';
import { field, isFields, readQuarantine, textOf } from './model.ts';
import { siteHash } from './route.ts';
import type { Gateway } from './site-model.ts';
import { BACKUPS_INTERVAL_MS, BackupsPanel } from './view-backups.ts';
import { Age, Notice, OldFigures, ProblemNotice, ShareBar } from './view-parts.ts';

const HEALTH_INTERVAL_MS = 2_000;
const QUARANTINE_INTERVAL_MS = 5_000;
const QUARANTINE_MAX = 50;
const PAYLOAD_CHARS_MAX = 160;
const SHOWN_APART = new Set(['status', 'reasons', 'servers']);

type Health = { readonly [name: string]: unknown };
const readHealth = (body: unknown): Health => (isFields(body) ? body : {});

export function HealthView({ live }: { live: Live }): VNode {
  useLive(live);
  const now = useNow();
  const health = usePolled(paths.health, readHealth, HEALTH_INTERVAL_MS);
  const backups = usePolled(paths.backups, readBackups, BACKUPS_INTERVAL_MS);
  return html`
    <h1>Pipeline</h1>
    ${
      live.refusedFrames() === 0
        ? null
        : html`<p class="old">${live.refusedFrames()} frames of the live connection could not be read.</p>`
    }
    ${
      health.value !== null
        ? html`<${OldFigures} polled=${health} now=${now} /><${Figures} health=${health.value} now=${now} current=${health.problem === null} overdue=${backups.value?.state === 'overdue'} />`
        : health.problem === null
          ? html`<${Notice} title="Loading the figures…" kind="busy" />`
          : html`<${ProblemNotice} title="The figures cannot be loaded" problem=${health.problem} />`
    }
    <${Gateways} live=${live} now=${now} />
    <${BackupsPanel} backups=${backups} now=${now} />
    <${QuarantinePanel} now=${now} />`;
}

type FiguresProps = { health: Health; now: number; current: boolean; overdue: boolean };

function Figures({ health, now, current, overdue }: FiguresProps): VNode {
  const told = textOf(field(health, 'status')) || 'unknown';
  const status = told === 'ok' && overdue ? 'degraded' : told;
  const reasons = field(health, 'reasons');
  const servers = field(health, 'servers');
  const groups = figureGroups(health, now, SHOWN_APART);
  return html`
    <section class="panel state" data-status=${current ? status : 'unknown'} aria-label="State">
      <p class="state-word"><span class="lamp" aria-hidden="true"></span>${stateWords({ status: told, overdue, current })}</p>
      ${
        Array.isArray(reasons) && reasons.length > 0
          ? html`<ul>${reasons.map(reason => html`<li>${String(reason)}</li>`)}</ul>`
          : null
      }
      ${isFields(servers) ? html`<ul class="servers" aria-label="Servers">${Object.entries(servers).map(serverOf)}</ul>` : null}
    </section>
    <div class="groups">
      ${groups.map(
        ({ title, figures }) => html`<section class="panel" aria-label=${title || 'Figures'}>
          ${title === '' ? html`<h2>Now</h2>` : html`<h2>${title}</h2>`}
          <dl class="figures">
            ${figures.map(({ label, text }) => html`<div><dt>${label}</dt><dd>${text}</dd></div>`)}
          </dl>
        </section>`,
      )}
    </div>`;
}

function serverOf([name, server]: [string, unknown]): VNode {
  const ok = isFields(server) && field(server, 'ok') === true;
  const reason = isFields(server) ? textOf(field(server, 'reason')) : '';
  return html`<li data-ok=${ok}><span class="lamp" aria-hidden="true"></span>${name}
    <span class="aside"> ${ok ? 'up' : reason || 'down'}</span></li>`;
}

function Gateways({ live, now }: { live: Live; now: number }): VNode {
  const sites = live.sites();
  const failure = live.sitesFailure();
  const rows = (sites ?? []).flatMap(({ site, gateways }) => gateways.map(gateway => ({ site, gateway })));
  return html`<section class="panel" aria-labelledby="gateways">
    <h2 id="gateways">Gateways <span class="figure">${rows.length}</span></h2>
    ${failure === null ? null : html`<p class="old" role="alert">Not up to date: ${failure}.</p>`}
    ${
      rows.length === 0
        ? html`<${Notice} title=${sites === null ? 'No word of the gateways yet' : 'No gateway has said hello yet'} />`
        : html`<div class="scroll-x"><table>
            <thead><tr><th scope="col">Gateway</th><th scope="col">Site</th><th scope="col">Last heard</th>
              <th scope="col">Broker</th><th scope="col" class="number">Unsettled messages</th><th scope="col">Buffer</th></tr></thead>
            <tbody>${rows.map(
              ({ site, gateway }) => html`<tr key=${`${site}/${gateway.gateway}`}>
                <th scope="row">${gateway.gateway}</th><td><a href=${siteHash(site)}>${site}</a></td>
                <td><${Age} at=${gateway.lastHelloAt} now=${now} silentSince=${gateway.silentSince} /></td>
                <td>${brokerOf(gateway)}</td>
                <td class="number">${gateway.unsettledMessages === null ? '–' : formatCount(gateway.unsettledMessages)}</td>
                <td>${bufferOf(gateway)}</td>
              </tr>`,
            )}</tbody>
          </table></div>`
    }
  </section>`;
}

function brokerOf({ broker }: Gateway): VNode | string {
  if (broker === null) return '–';
  return broker.connected
    ? 'connected'
    : html`<strong class="still">${broker.reason || 'not connected'}</strong>`;
}

const bufferOf = ({ gateway, bufferBytes, bufferBytesMax }: Gateway): VNode | string =>
  bufferBytes === null
    ? '–'
    : html`<${ShareBar} used=${bufferBytes} max=${bufferBytesMax} label="Buffer of ${gateway}" />`;

function QuarantinePanel({ now }: { now: number }): VNode {
  const quarantine = usePolled(paths.quarantine(QUARANTINE_MAX), readQuarantine, QUARANTINE_INTERVAL_MS);
  const { value, problem } = quarantine;
  return html`<section class="panel" aria-labelledby="quarantine">
    <h2 id="quarantine">Set aside <span class="figure">${value === null ? '' : formatCount(value.total)}</span></h2>
    <${OldFigures} polled=${quarantine} now=${now} />
    ${
      value === null
        ? problem === null
          ? html`<${Notice} title="Loading what was set aside…" kind="busy" />`
          : html`<${ProblemNotice} title="What was set aside cannot be loaded" problem=${problem} />`
        : value.rows.length === 0
          ? html`<${Notice} title="Every message so far could be read" />`
          : html`<p class="aside">Messages that could not become readings, newest first, with the reason.</p>
            <div class="scroll-x"><table class="quarantine">
              <thead><tr><th scope="col">Received</th><th scope="col">Gateway</th><th scope="col">Topic</th>
                <th scope="col">Reason</th><th scope="col">Payload</th></tr></thead>
              <tbody>${value.rows.map(
                row => html`<tr key=${`${row.site}/${row.gateway}/${row.sequence}/${row.receivedAt}`}>
                  <td>${row.receivedAt === null ? '–' : formatTime(row.receivedAt, now)}</td>
                  <td>${row.gateway} <span class="aside">${row.site}</span></td>
                  <td class="topic">${excerpt(row.topic, 80)}</td>
                  <td>${row.reason}</td>
                  <td class="payload"><code>${excerpt(row.payload, PAYLOAD_CHARS_MAX)}</code>
                    ${row.payloadBytes === null ? null : html`<span class="aside"> ${formatBytes(row.payloadBytes)}</span>`}</td>
                </tr>`,
              )}</tbody>
            </table></div>`
    }
  </section>`;
}
