/** Small pieces that several views are made of. */
import { html } from 'htm/preact';
import type { ComponentChildren, VNode } from 'preact';
import type { Problem } from './api.ts';
import { formatAge, formatBytes, formatTime, formatValue, freshness } from './format.ts';
import type { Polled } from './hooks.ts';
import type { MetricValue } from './model.ts';

type AgeProps = {
  at: number | null;
  now: number;
  /** Since when the gateway the value came through is silent. */
  silentSince?: number | null;
};

/** The age of a value: the lamp's shape, its colour and the words all say whether it is fresh. */
export function Age({ at, now, silentSince = null }: AgeProps): VNode {
  return html`<span class="age" data-fresh=${freshness(at, now, silentSince)}>
    <span class="lamp" aria-hidden="true"></span>
    ${
      at === null
        ? 'never'
        : html`<time datetime=${isoOf(at)} title=${formatTime(at, now)}>${formatAge(at, now)}</time>`
    }
  </span>`;
}

/** Dates end at ±8.64e15 ms; a device may claim any time. */
const isoOf = (at: number): string => (Math.abs(at) <= 8.64e15 ? new Date(at).toISOString() : '');

export function Value({ value }: { value: MetricValue }): VNode {
  const text = formatValue(value);
  return html`<span class="value" data-kind=${value === null ? 'none' : typeof value}
    title=${text.length > 12 || typeof value === 'number' ? String(value) : undefined}>${text}</span>`;
}

export function Severity({ severity }: { severity: string }): VNode {
  return html`<span class="severity" data-severity=${severity}>${severity}</span>`;
}

type NoticeProps = { title: string; kind?: 'plain' | 'failed' | 'busy'; children?: ComponentChildren };

/** Stands where content would be: empty, loading or failed. */
export function Notice({ title, kind = 'plain', children }: NoticeProps): VNode {
  return html`<div class="notice" data-kind=${kind} role=${kind === 'failed' ? 'alert' : 'status'}>
    <p class="notice-title">${title}</p>
    ${children}
  </div>`;
}

export function ProblemNotice({ title, problem }: { title: string; problem: Problem }): VNode {
  return html`<${Notice} title=${title} kind="failed">
    <p>${problem.title}${problem.detail === '' ? '' : `: ${problem.detail}`}. Trying again.</p>
  <//>`;
}

type ShareProps = {
  /** Bytes. */
  used: number;
  /** Bytes; `null` or 0 when there is no bound to compare with. */
  max: number | null;
  label: string;
};

/** How much of a bound is used, as a bar and as figures. */
export function ShareBar({ used, max, label }: ShareProps): VNode {
  if (max === null || max <= 0) return html`<span>${formatBytes(used)}</span>`;
  return html`<span class="share"><meter aria-label=${label} min="0" max=${max} high=${0.8 * max} value=${used}></meter>
    <span class="share-words">${formatBytes(used)} of ${formatBytes(max)}</span></span>`;
}

/** Beside figures that could not be refreshed: what they are worth now. */
export function OldFigures({ polled, now }: { polled: Polled<unknown>; now: number }): VNode | null {
  if (polled.problem === null || polled.at === null) return null;
  return html`<p class="old" role="alert">
    Not up to date: ${polled.problem.title}. These figures are from ${formatAge(polled.at, now)}.
  </p>`;
}
