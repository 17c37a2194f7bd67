/** Backups, on the pipeline page: one line on the last one, one on what is in none, and what is to be done. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { type Backups, backupWords } from './backup-words.ts';
import type { Polled } from './hooks.ts';
import { Notice, OldFigures, ProblemNotice } from './view-parts.ts';

/** It changes by the hour, and counts over the whole ledger. */
export const BACKUPS_INTERVAL_MS = 30_000;

export function BackupsPanel({ backups, now }: { backups: Polled<Backups>; now: number }): VNode {
  const { value, problem } = backups;
  if (value === null) {
    return html`<section class="panel" aria-labelledby="backups"><h2 id="backups">Backups</h2>${
      problem === null
        ? html`<${Notice} title="Loading the backups…" kind="busy" />`
        : html`<${ProblemNotice} title="The backups cannot be loaded" problem=${problem} />`
    }</section>`;
  }
  const { last, uncovered, warning } = backupWords(value, now);
  return html`<section class="panel backups" data-state=${value.state} aria-labelledby="backups">
    <h2 id="backups">Backups</h2>
    <${OldFigures} polled=${backups} now=${now} />
    <dl class="figures">
      <div><dt>Last confirmed</dt><dd>${last}</dd></div>
      <div><dt>In no backup</dt><dd class="uncovered">${uncovered}</dd></div>
    </dl>
    ${warning === '' ? null : html`<p class="backup-warning" role=${value.state === 'overdue' ? 'alert' : 'status'}>${warning}</p>`}
    ${
      value.confirmedAt === null || warning !== ''
        ? html`<p class="aside"><code>holdfast backup begin</code> says how to take one${
            value.begun === 0 ? '' : `; ${value.begun} begun and not confirmed`
          }.</p>`
        : null
    }
  </section>`;
}
