/** Incidents: what is open now on top, then what has been. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useState } from 'preact/hooks';
import { paths, postJson } from './api.ts';
import { formatDuration, formatTime, formatValue } from './format.ts';
import { type Polled, useNow } from './hooks.ts';
import type { Incident } from './model.ts';
import { siteHash, twinHash } from './route.ts';
import { Notice, OldFigures, ProblemNotice, Severity } from './view-parts.ts';

export function AlertsView(props: {
  incidents: Polled<Incident[]>;
  incidentsMax: number;
  onChanged: () => void;
}): VNode {
  const { incidents, incidentsMax, onChanged } = props;
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
          : html`<${IncidentTable} incidents=${open} now=${now} onChanged=${onChanged} />`
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

type TableProps = {
  incidents: readonly Incident[];
  now: number;
  ofOneTwin?: boolean;
  /** With it, open ones can be acknowledged. */
  onChanged?: () => void;
};

export function IncidentTable({ incidents, now, ofOneTwin = false, onChanged }: TableProps): VNode {
  return html`<div class="scroll-x"><table class="incidents">
    <thead><tr>
      <th scope="col">Severity</th><th scope="col">Rule</th>${ofOneTwin ? null : html`<th scope="col">Device</th>`}
      <th scope="col">Value</th><th scope="col">Opened</th><th scope="col">Lasted</th>
    </tr></thead>
    <tbody>
      ${incidents.map(
        incident => html`<tr key=${incident.id}>
          <td><${Severity} severity=${incident.severity} /></td>
          <th scope="row">${incident.rule}<${Marks} incident=${incident} /></th>
          ${
            ofOneTwin
              ? null
              : html`<td>${
                  incident.device === ''
                    ? html`<a href=${siteHash(incident.site)}>${incident.site}</a>`
                    : html`<a href=${twinHash(incident.site, incident.device)}>${incident.device}</a>
                      <span class="aside"> ${incident.site}</span>`
                }</td>`
          }
          <td title=${incident.summary}>${
            incident.metric === '' || incident.value === null
              ? incident.summary
              : html`<span class="aside">${incident.metric}</span> ${formatValue(incident.value)}
                ${incident.threshold === null ? null : html`<span class="aside"> limit ${formatValue(incident.threshold)}</span>`}`
          }</td>
          <td><time title=${formatTime(incident.openedAt, 0)}>${formatTime(incident.openedAt, now)}</time></td>
          <td>${
            incident.clearedAt === null
              ? html`<strong class="still">${formatDuration(now - incident.openedAt)}, open</strong>
                  ${onChanged && incident.acknowledgedAt === null ? html`<${Acknowledge} incident=${incident} onChanged=${onChanged} />` : null}`
              : formatDuration(incident.clearedAt - incident.openedAt)
          }</td>
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

/** What is to be known of it besides its rule. */
function Marks({ incident }: { incident: Incident }): VNode {
  const { late, maintenance, acknowledgedAt, acknowledgedBy } = incident;
  return html`
    ${late ? html` <span class="mark-word" title="Known only afterwards, from a backlog: nobody was called">late</span>` : null}
    ${maintenance ? html` <span class="mark-word" title="The site was under maintenance: nobody was called">maintenance</span>` : null}
    ${acknowledgedAt === null ? null : html` <span class="mark-word" title=${formatTime(acknowledgedAt, 0)}>acknowledged by ${acknowledgedBy}</span>`}`;
}

function Acknowledge({ incident, onChanged }: { incident: Incident; onChanged: () => void }): VNode {
  const [state, setState] = useState<{ asking: boolean; trouble: string | null }>({
    asking: false,
    trouble: null,
  });
  const acknowledge = async (): Promise<void> => {
    setState({ asking: true, trouble: null });
    const outcome = await postJson(paths.acknowledge(incident.id), { by: 'dashboard' });
    const trouble = outcome.ok ? null : outcome.problem.detail || outcome.problem.title;
    setState({ asking: false, trouble });
    onChanged();
  };
  return html`<button class="small" type="button" disabled=${state.asking} onClick=${() => void acknowledge()}
      aria-label=${`Acknowledge ${incident.rule} of ${incident.device || incident.site}`}>Acknowledge</button>
    ${state.trouble === null ? null : html`<span class="old" role="alert">${state.trouble}</span>`}`;
}
