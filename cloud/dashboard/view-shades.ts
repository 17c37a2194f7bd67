/** The legend of what is shaded, in the patterns of the chart and of the ledger's bars. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { shadedMs } from './chart-shades.ts';
import { formatDuration } from './format.ts';
import type { Shade, ShadeKind } from './history-model.ts';

/** A small piece of a pattern; `kind` is a kind of shade, a fate of messages, or `band`. */
export function Swatch({ kind }: { kind: string }): VNode {
  return html`<span class="swatch" data-kind=${kind} aria-hidden="true"></span>`;
}

const WORDS: Readonly<Record<ShadeKind, string>> = {
  late: 'came late',
  thinned: 'thinned',
  missing: 'missing, still at the site',
  lost: 'lost',
};

type LegendProps = { shades: readonly Shade[]; from: number; to: number; band: boolean };

/** Names only what occurs between `from` and `to`. @param band whether summaries are drawn */
export function ShadeLegend({ shades, from, to, band }: LegendProps): VNode | null {
  const found = [...shadedMs(shades, from, to)];
  if (found.length === 0 && !band) return null;
  return html`<ul class="legend" aria-label="Not live and whole, at this site">
    ${found.map(
      ([kind, ms]) => html`<li key=${kind} data-kind=${kind}><${Swatch} kind=${kind} />${WORDS[kind]}${' '}
        <span class="aside">${formatDuration(ms)}</span></li>`,
    )}
    ${band ? html`<li key="band" data-kind="band"><${Swatch} kind="band" />lowest, mean and highest of what was thinned</li>` : null}
  </ul>`;
}
