/** Incidents: what is open now on top, then what has been. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { formatDuration, formatTime, formatValue } from './format.ts';
import { type Polled, useNow } from './hooks.ts';
import type { Incident } from './model.ts';
import { twinHash } from './route.ts';
import { Notice, OldFigures, ProblemNotice, Severity } from './view-parts.ts';

export function AlertsView(props: { incidents: Polled<Incident[]>; incidentsMax: number }): VNode {
  const { incidents, incidentsMax } = props;
  const now = useNow();
  if (incidents.value === null) {
    return html`<h1>Alerts</h1>
      ${
        incidents.problem === null
          ? html`<${Notice} title="Loading the alerts…" kind="busy" />`
          : html`<${ProblemNotice} title="The alerts cannot be loaded" problem=${incidents.problem} />`
      }`;
  }
  const open = incidents.value.filter(({ clearedAt }) => clearedAt === null);
  const past = incidents.value.filter(({ clearedAt }) => clearedAt !== null);
  return html`
    <h1>Alerts</h1>
    <${OldFigures} polled=${incidents} now=${now} />
    <section class="panel" aria-labelledby="alerts-open">
      <h2 id="alerts-open">Open now <span class="figure">${open.length}</span></h2>
      ${
        open.length === 0
          ? html`<${Notice} title="Nothing is wrong that a rule watches for" />`
          : html`<${IncidentTable} incidents=${open} now=${now} />`
      }
    </section>
    <section class="panel" aria-labelledby="alerts-past">
      <h2 id="alerts-past">Past <span class="figure">${past.length}</span></h2>
      ${
        past.length === 0
          ? html`<${Notice} title="No incident has been cleared yet" />`
          : html`<${IncidentTable} incidents=${past} now=${now} />`
      }
      ${incidents.value.length >= incidentsMax ? html`<p class="aside">The newest ${incidentsMax} are shown.</p>` : null}
    </section>`;
}

type TableProps = { incidents: readonly Incident[]; now: number; ofOneTwin?: boolean };

export function IncidentTable({ incidents, now, ofOneTwin = false }: TableProps): VNode {
  return html`<div class="scroll-x"><table class="incidents">
    <thead><tr>
      <th scope="col">Severity</th><th scope="col">Rule</th>${ofOneTwin ? null : html`<th scope="col">Device</th>`}
      <th scope="col">Value</th><th scope="col">Opened</th><th scope="col">Lasted</th>
    </tr></thead>
    <tbody>
      ${incidents.map(
        incident => html`<tr key=${incident.id}>
          <td><${Severity} severity=${incident.severity} /></td>
          <th scope="row">${incident.rule}</th>
          ${
            ofOneTwin
              ? null
              : html`<td><a href=${twinHash(incident.site, incident.device)}>${incident.device}</a>
                  <span class="aside"> ${incident.site}</span></td>`
          }
          <td><span class="aside">${incident.metric}</span> ${formatValue(incident.value)}
            ${incident.threshold === null ? null : html`<span class="aside"> limit ${formatValue(incident.threshold)}</span>`}</td>
          <td><time title=${formatTime(incident.openedAt, 0)}>${formatTime(incident.openedAt, now)}</time></td>
          <td>${
            incident.clearedAt === null
              ? html`<strong class="still">${formatDuration(now - incident.openedAt)}, open</strong>`
              : formatDuration(incident.clearedAt - incident.openedAt)
          }</td>
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}
